//! A WebSocket relay between a daemon and its phones, in the order in which a connection walks through it.
//!
//! [`ingress`] turns a socket into an admitted upgrade; [`tls`] is who the relay is to a client that asks for TLS. [`relay`] is the product: it registers the connection and
//! forwards its frames. [`metrics`] and [`event`] tell operators what happens. [`service`] starts, reloads and drains
//! the whole, on the threads of [`runtime`]; [`config`], [`cli`] and [`command`] are how people reach it.

pub mod cli;
pub mod command;
pub mod config;
pub mod event;
pub mod ingress;
pub mod metrics;
pub mod relay;
pub mod runtime;
pub mod service;
pub mod tls;
