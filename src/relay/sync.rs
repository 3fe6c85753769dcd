//! The locks and atomics of what several threads share and wait for ([`super::outbox`], [`super::budget`]): those of the
//! standard library. The model checker in `tests/outbox_interleavings.rs` reads the same sources with its own in
//! this place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
