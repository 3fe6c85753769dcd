//! The tests that matter of everything else, once more, with TLS between the clients and the relay.
//!
//! Each file is the same as in its own program; the harness sees that it is part of this one, gives the relay a certificate,
//! and puts a tunnel in front of it. Left out is what has no socket, what looks at the kernel's side of a connection, and what stands
//! before TLS (`proxy_protocol`); `tls`, `tls_files` and `tls_traffic` have more, without a tunnel.

#![allow(clippy::duplicate_mod, reason = "each file has its own harness, as it has in its own program")]

#[path = "admission_order.rs"]
mod admission_order;
#[path = "client_address.rs"]
mod client_address;
#[path = "close_codes.rs"]
mod close_codes;
#[path = "connection_caps.rs"]
mod connection_caps;
#[path = "conservation.rs"]
mod conservation;
#[path = "control_first.rs"]
mod control_first;
#[path = "drain.rs"]
mod drain;
#[path = "envelope_wire.rs"]
mod envelope_wire;
#[path = "forwarding.rs"]
mod forwarding;
#[path = "handshakes.rs"]
mod handshakes;
#[path = "heartbeat.rs"]
mod heartbeat;
#[path = "http.rs"]
mod http;
#[path = "http_connection.rs"]
mod http_connection;
#[path = "queue_budget.rs"]
mod queue_budget;
#[path = "registry_wire.rs"]
mod registry_wire;
#[path = "slow_binaries.rs"]
mod slow_binaries;
#[path = "slow_peers.rs"]
mod slow_peers;
#[path = "takeover.rs"]
mod takeover;
#[path = "upgrade_rate.rs"]
mod upgrade_rate;
