//! Descriptors kept back for the moment when there are no others.
//!
//! A listener that cannot accept for want of a descriptor cannot even say so. It borrows one from here: the descriptor is
//! closed, the connection takes its number, and when the connection is closed the reserve is filled up again.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many are kept back: so many connections can be refused at the same time.
pub const KEPT_BACK: usize = 8;

#[derive(Debug, Default)]
struct State {
    kept: Vec<File>,
    lent: usize,
}

/// The reserve.
#[derive(Debug, Default)]
pub struct Reserve(Mutex<State>);

impl Reserve {
    /// A full one, as far as descriptors can be had.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let reserve = Arc::new(Self::default());
        reserve.fill_up();
        reserve
    }

    /// Closes one of the descriptors, until the returned value is dropped. Nothing if there is none left.
    #[must_use]
    pub fn lend(self: &Arc<Self>) -> Option<Lent> {
        let mut state = self.lock();
        state.kept.pop()?;
        state.lent += 1;
        Some(Lent(Arc::clone(self)))
    }

    /// Opens what is missing. While descriptors are short this may do nothing; it is tried again.
    pub fn fill_up(&self) {
        let mut state = self.lock();
        while state.kept.len() + state.lent < KEPT_BACK {
            let Ok(file) = File::open("/dev/null") else { return };
            state.kept.push(file);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A descriptor that may be opened. Drop it when that one is closed again.
#[derive(Debug)]
pub struct Lent(Arc<Reserve>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lock().lent -= 1;
        self.0.fill_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are kept, and how many are lent.
    fn state(reserve: &Reserve) -> (usize, usize) {
        let state = reserve.lock();
        (state.kept.len(), state.lent)
    }

    #[test]
    fn what_was_lent_comes_back() {
        let reserve = Reserve::new();
        let lent: Vec<_> = std::iter::from_fn(|| reserve.lend()).collect();
        assert_eq!((lent.len(), state(&reserve)), (KEPT_BACK, (0, KEPT_BACK)));
        reserve.fill_up();
        assert!(reserve.lend().is_none(), "what is lent is not opened a second time");
        drop(lent);
        assert_eq!(state(&reserve), (KEPT_BACK, 0));
    }
}
