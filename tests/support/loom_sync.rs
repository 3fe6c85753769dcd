//! The model checker's locks and atomics, in the place of `src/relay/sync.rs`.
//!
//! To loom, a load of the strongest order never finds a value that a store of the strongest order has replaced: where all
//! accesses to the atomics have that order, as in the budget, that is what the language says, and a weaker one is
//! explored as such. But the value that an atomic begins with was not stored in any order, and loom would let it be found
//! for ever after; so it is stored once more.

use std::ops::Deref;

use loom::sync::atomic;

pub(super) use loom::sync::{Mutex, MutexGuard};
pub(super) use std::sync::PoisonError;
pub(super) use std::sync::atomic::Ordering;

/// A flag.
#[derive(Debug)]
pub(super) struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    pub(super) fn new(value: bool) -> Self {
        let atomic = atomic::AtomicBool::new(value);
        atomic.store(value, Ordering::SeqCst);
        Self(atomic)
    }
}

impl Deref for AtomicBool {
    type Target = atomic::AtomicBool;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A number.
#[derive(Debug)]
pub(super) struct AtomicUsize(atomic::AtomicUsize);

impl AtomicUsize {
    pub(super) fn new(value: usize) -> Self {
        let atomic = atomic::AtomicUsize::new(value);
        atomic.store(value, Ordering::SeqCst);
        Self(atomic)
    }
}

impl Deref for AtomicUsize {
    type Target = atomic::AtomicUsize;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
