//! What the relay counts, and the page that shows it to Prometheus.

mod connections;
pub mod families;
mod frames;
mod gauges;
mod maker;
mod process;
pub mod server;
mod service;
mod timer;
