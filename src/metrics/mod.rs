//! What the relay counts, and the page that shows it to Prometheus.

pub mod families;
mod gauges;
mod maker;
mod process;
pub mod server;
mod timer;
