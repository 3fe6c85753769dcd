//! Which of the outgoing bytes belong to which frame.
//!
//! Positions are counted in bytes since the session began. An entry has left when everything up to its end was
//! written; it has begun when something behind its beginning was. Bytes that belong to no entry are control frames.

use std::collections::VecDeque;
use std::time::Instant;

/// Entries for which an empty ledger keeps its memory.
const IDLE_CAPACITY: usize = 4;

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
    /// The sum of the entries' lengths on the wire.
    bytes: usize,
    written: u64,
}

impl Ledger {
    /// A message of `length` bytes was put behind `ahead` unwritten ones.
    pub(super) fn add(&mut self, ahead: usize, length: usize, cost: usize, frame: Option<(usize, Instant)>) {
        let begins_at = self.written + ahead as u64;
        self.entries.push_back(Entry { begins_at, ends_at: begins_at + length as u64, cost, frame });
        self.bytes += length;
    }

    /// `count` more bytes were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// The next message that was written to its last byte.
    pub(super) fn pop_written(&mut self) -> Option<Entry> {
        if self.entries.front()?.ends_at > self.written {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.length();
        Some(entry)
    }

    /// How many messages have begun to be written and are not done: none or one.
    pub(super) fn begun(&self) -> usize {
        usize::from(self.entries.front().is_some_and(|first| first.begins_at < self.written))
    }

    /// How many of the unwritten bytes stand before the message after the first `keep`; nothing if there is none.
    pub(super) fn bytes_before(&self, keep: usize) -> Option<usize> {
        let next = self.entries.get(keep)?;
        let end = match keep.checked_sub(1).and_then(|last| self.entries.get(last)) {
            Some(last) => last.ends_at,
            None => next.begins_at,
        };
        usize::try_from(end.saturating_sub(self.written)).ok()
    }

    /// Removes and returns the last message, if there are more than `keep`.
    pub(super) fn pop_beyond(&mut self, keep: usize) -> Option<Entry> {
        if self.entries.len() <= keep {
            return None;
        }
        let entry = self.entries.pop_back()?;
        self.bytes -= entry.length();
        Some(entry)
    }

    /// The lengths of all messages, added up.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back the memory that a burst needed.
    pub(super) fn rest(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > IDLE_CAPACITY {
            self.entries = VecDeque::new();
        }
    }
}

impl Entry {
    /// Its bytes on the wire; what was put into memory fits a `usize`.
    fn length(&self) -> usize {
        usize::try_from(self.ends_at - self.begins_at).unwrap_or(usize::MAX)
    }
}
