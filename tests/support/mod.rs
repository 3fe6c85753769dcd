//! The harness: the built program with its own configuration, address and log, and clients that speak to it over
//! real sockets. Every wait is for a fact and has a deadline.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed wait is a failed test, with its line"
)]

pub mod client;
pub mod held;
pub mod http;
pub mod kept;
pub mod relay;

use std::time::{Duration, Instant};

/// How long a test waits for a fact before it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `fact` yields something.
///
/// # Panics
/// When it has not by the deadline; says what was waited for and what was seen last.
pub fn eventually<T>(what: &str, mut fact: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        match fact() {
            Ok(value) => return value,
            Err(seen) => {
                assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}; last seen: {seen}");
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Something random, for names that must not meet.
pub fn random() -> u64 {
    getrandom::u64().expect("random numbers")
}
