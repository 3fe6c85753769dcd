//! Which of the outgoing bytes belong to which frame.
//!
//! Positions are counted in bytes of messages since the session began; control frames are not among them. An entry has
//! left when everything up to its end was written; it has begun when something behind its beginning was, or is bound to be
//! ([`Ledger::bind`]).

use std::collections::VecDeque;
use std::time::Instant;

/// Entries for which an empty ledger keeps its memory.
const IDLE_CAPACITY: usize = 16;

/// One message in the outgoing buffer.
#[derive(Debug)]
pub(super) struct Entry {
    begins_at: u64,
    ends_at: u64,
    /// What the outbox charged for it.
    pub(super) cost: usize,
    /// The inner frame's length and when it was read; nothing for a notice.
    pub(super) frame: Option<(usize, Instant)>,
}

/// The messages in the outgoing buffer, in order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: VecDeque<Entry>,
    written: u64,
    /// Bytes behind `written` that the socket is bound to write next.
    bound: u64,
}

impl Ledger {
    /// A message of `length` bytes was put behind `ahead` unwritten ones.
    pub(super) fn add(&mut self, ahead: usize, length: usize, cost: usize, frame: Option<(usize, Instant)>) {
        let begins_at = self.written + ahead as u64;
        self.entries.push_back(Entry { begins_at, ends_at: begins_at + length as u64, cost, frame });
    }

    /// `count` more bytes were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count as u64;
        self.bound = self.bound.saturating_sub(count as u64);
    }

    /// The next `count` bytes will be written whatever happens.
    pub(super) fn bind(&mut self, count: usize) {
        self.bound = count as u64;
    }

    /// The next message that was written to its last byte.
    pub(super) fn pop_written(&mut self) -> Option<Entry> {
        if self.entries.front()?.ends_at > self.written {
            return None;
        }
        self.entries.pop_front()
    }

    /// How many messages have begun to be written and are not done: none or one, or all that a socket is bound to write.
    pub(super) fn begun(&self) -> usize {
        self.entries.iter().take_while(|entry| self.has_begun(entry)).count()
    }

    /// Unwritten bytes of the messages that have begun; 0 if there is none.
    pub(super) fn rest_of_begun(&self) -> usize {
        let last = self.entries.iter().take_while(|entry| self.has_begun(entry)).last();
        last.map_or(0, |last| to_size(last.ends_at - self.written))
    }

    fn has_begun(&self, entry: &Entry) -> bool {
        entry.begins_at < self.written + self.bound
    }

    /// How many of the unwritten bytes stand before the message after the first `keep`; nothing if there is none.
    pub(super) fn bytes_before(&self, keep: usize) -> Option<usize> {
        let next = self.entries.get(keep)?;
        let end = match keep.checked_sub(1).and_then(|last| self.entries.get(last)) {
            Some(last) => last.ends_at,
            None => next.begins_at,
        };
        Some(to_size(end.saturating_sub(self.written)))
    }

    /// Removes and returns the last message, if there are more than `keep`.
    pub(super) fn pop_beyond(&mut self, keep: usize) -> Option<Entry> {
        if self.entries.len() <= keep {
            return None;
        }
        self.entries.pop_back()
    }

    /// Gives back the memory that a burst needed.
    pub(super) fn rest(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > IDLE_CAPACITY {
            self.entries = VecDeque::new();
        }
    }
}

/// A length of something that is in memory, which fits.
fn to_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
