//! A socket becomes an admitted upgrade: [`listener`] accepts it, [`handshakes`] gives it a place and a deadline,
//! [`proxy_protocol`] takes off what a load balancer put in front, [`tls`] makes the handshake if the relay speaks TLS itself,
//! [`http`] speaks HTTP with it, and [`admission`] decides whether a request may become a WebSocket. What leaves this room is a
//! [`stream`] with no HTTP left on it.

pub mod access;
pub mod admission;
mod answers;
pub mod client_address;
pub mod connections;
pub mod handshakes;
pub mod host;
pub mod http;
pub mod listener;
pub mod proxy_protocol;
pub mod refusal_lines;
pub mod reserve;
pub mod socket;
pub mod stream;
pub mod tls;
mod turnover;
pub mod upgrade;
pub mod upgrade_rate;
