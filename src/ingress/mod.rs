//! A socket becomes an admitted upgrade: [`listener`] accepts it, [`http`] speaks HTTP with it, [`upgrade`] decides
//! whether its request may become a WebSocket. What leaves this room is a bare socket with no HTTP left on it.

pub mod http;
pub mod listener;
pub mod socket;
pub mod upgrade;
