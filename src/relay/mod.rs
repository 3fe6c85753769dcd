//! The product: who may talk to whom, and the forwarding of frames. Free of HTTP, TLS, systemd and metrics
//! libraries.
//!
//! A connection that was upgraded enters through [`binary::serve`] or [`phone::serve`], which ask the [`hub`] for a
//! place and run a [`session`] until it ends. The hub owns the [`registry`] (who holds which server-id) and the
//! [`grace`] queue. Sessions put frames into each other's [`outbox`], through the [`envelope`], and speak WebSocket
//! through [`wire`]. What happens is told to an [`observer`].

mod alarms;
pub mod binary;
pub mod budget;
pub mod clock;
pub mod close;
pub mod conn_id;
mod contest;
mod deadlines;
pub mod drain;
pub mod end;
pub mod envelope;
mod follower;
pub mod grace;
pub mod hub;
pub mod incoming;
pub mod item;
mod ledger;
pub mod link;
pub mod live;
pub mod observer;
pub mod outbox;
mod outgoing;
pub mod phone;
mod probe;
mod refusal_log;
pub mod registry;
pub mod session;
pub mod settings;
pub mod shared;
mod spare;
pub mod sparse;
mod sync;
pub mod text;
pub mod transport;
pub mod wire;
