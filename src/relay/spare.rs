//! Buffers that belong to the thread and are lent to connections.
//!
//! What is under way through a connection needs room for a moment: outgoing bytes until the kernel has them, a message until it is
//! complete. Between two messages nearly all connections need none. So each thread keeps a few buffers with the memory that they
//! grew to, and whoever is done gives its own back. An idle connection keeps nothing, and a busy one allocates nothing.

use std::cell::RefCell;

/// How many buffers a thread keeps, and how large each may be: that of the largest message in the default configuration, with its
/// envelope.
const KEPT: usize = 4;
const LARGEST: usize = 320 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with some capacity if there is one.
pub(super) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back, with whatever is in it.
pub(super) fn give(mut buffer: Vec<u8>) {
    if (1..=LARGEST).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_kept_and_none_that_is_very_large() {
        give(Vec::with_capacity(LARGEST + 1));
        give(Vec::new());
        assert_eq!(take().capacity(), 0);
        for number in 0..=KEPT {
            give(vec![1; 100 + number]);
        }
        let kept: Vec<_> = (0..=KEPT).map(|_| take()).collect();
        assert!(kept.iter().all(Vec::is_empty), "nobody sees what somebody else left");
        assert_eq!(kept.iter().filter(|buffer| buffer.capacity() >= 100).count(), KEPT);
    }
}
