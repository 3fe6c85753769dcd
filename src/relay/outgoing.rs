//! Messages on their way to one socket, as bytes in a row.
//!
//! Small ones are copied together, so that they go out in one write. A large one stays where it is: it is worth a write of its own,
//! and is not worth a copy. The bytes that small ones are copied into belong to the thread ([`super::spare`]) as soon as
//! everything is written, and are as few as can be while the socket takes nothing.

use std::collections::VecDeque;
use std::mem;

use super::spare;

/// The length from which a message is not copied.
const LARGE: usize = 16 * 1024;

/// Written bytes at the front of the small ones beyond which the rest is moved down, so that a receiver that is always a
/// little behind does not make them grow.
const COMPACT_AT: usize = 64 * 1024;

/// Capacity beyond what is used that a connection may keep while its socket takes nothing.
const SLACK: usize = 1024;

/// Large messages for which a connection keeps room.
const IDLE_CAPACITY: usize = 4;

/// Unwritten messages.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What goes before `last`: large messages, and small ones between them.
    first: VecDeque<Vec<u8>>,
    /// Small messages.
    last: Vec<u8>,
    /// Where the unwritten part begins of what goes next.
    start: usize,
    unwritten: usize,
}

impl Outgoing {
    /// Appends a message, with its header.
    pub(super) fn push(&mut self, message: Vec<u8>) {
        self.unwritten += message.len();
        if message.len() < LARGE {
            if self.last.capacity() == 0 {
                self.last = spare::take();
            }
            self.last.extend_from_slice(&message);
            return;
        }
        if !self.last.is_empty() {
            self.first.push_back(mem::take(&mut self.last));
        }
        self.first.push_back(message);
    }

    /// How many bytes are not written.
    pub(super) fn len(&self) -> usize {
        self.unwritten
    }

    /// Bytes to write next; all, or those up to the end of a large message or before it.
    pub(super) fn next(&self) -> &[u8] {
        self.first.front().unwrap_or(&self.last).get(self.start..).unwrap_or_default()
    }

    /// The first `count` bytes of [`Outgoing::next`] were written.
    pub(super) fn written(&mut self, count: usize) {
        self.start += count;
        self.unwritten = self.unwritten.saturating_sub(count);
        let length = self.first.front().unwrap_or(&self.last).len();
        if self.start >= length {
            self.start = 0;
            if self.first.pop_front().is_none() {
                self.last.clear();
            }
        } else if self.first.is_empty() && self.start >= COMPACT_AT {
            self.last.drain(..self.start);
            self.start = 0;
        }
    }

    /// Forgets all but the first `keep` of the unwritten bytes.
    pub(super) fn truncate(&mut self, keep: usize) {
        if keep >= self.unwritten {
            return;
        }
        self.unwritten = keep;
        let mut left = self.start + keep;
        let mut whole = 0;
        for part in &mut self.first {
            if left == 0 {
                break;
            }
            part.truncate(left);
            left -= part.len();
            whole += 1;
        }
        self.first.truncate(whole);
        self.last.truncate(left);
        if keep == 0 {
            self.first.clear();
            self.last.clear();
            self.start = 0;
        }
    }

    /// Nothing is going on: gives back memory that is not needed for what is unwritten.
    pub(super) fn rest(&mut self) {
        if self.first.is_empty() && self.start > 0 {
            self.last.drain(..self.start);
            self.start = 0;
        }
        if self.last.is_empty() {
            spare::give(mem::take(&mut self.last));
        } else if self.last.capacity() > 2 * self.last.len() + SLACK {
            let kept = self.last.as_slice().into();
            spare::give(mem::replace(&mut self.last, kept));
        }
        if self.first.is_empty() && self.first.capacity() > IDLE_CAPACITY {
            self.first = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that tell where they are.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    /// Messages of these lengths, and what they are together.
    fn filled(lengths: &[usize]) -> (Outgoing, Vec<u8>) {
        let mut outgoing = Outgoing::default();
        for &length in lengths {
            outgoing.push(bytes(length));
        }
        (outgoing, lengths.iter().flat_map(|&length| bytes(length)).collect())
    }

    /// Writes everything, at most `most` bytes at a time.
    fn written(outgoing: &mut Outgoing, most: usize) -> (Vec<u8>, usize) {
        let (mut out, mut writes) = (Vec::new(), 0);
        while outgoing.len() > 0 {
            let next = outgoing.next();
            let count = next.len().min(most);
            assert!(count > 0);
            out.extend_from_slice(&next[..count]);
            outgoing.written(count);
            writes += 1;
        }
        assert!(outgoing.next().is_empty());
        (out, writes)
    }

    const LENGTHS: &[usize] = &[10, 300, LARGE, LARGE + 7, 1, LARGE - 1, 5, 2 * LARGE, 3];

    #[test]
    fn all_bytes_go_out_in_order_and_small_messages_together() {
        for most in [1000, 10_000, usize::MAX] {
            let (mut outgoing, expected) = filled(LENGTHS);
            assert_eq!(outgoing.len(), expected.len());
            let (out, writes) = written(&mut outgoing, most);
            assert!(out == expected);
            assert!(most < usize::MAX || writes == 6, "{writes}");
        }
    }

    #[test]
    fn what_is_forgotten_is_forgotten_from_the_end() {
        for &before in &[0, 5, 310, 400, 310 + LARGE, 311 + 3 * LARGE] {
            for keep in [0, 1, 300, LARGE, 3 * LARGE, usize::MAX] {
                let (mut outgoing, expected) = filled(LENGTHS);
                let mut gone = 0;
                while gone < before {
                    let count = outgoing.next().len().min(before - gone);
                    outgoing.written(count);
                    gone += count;
                }
                outgoing.truncate(keep);
                let end = before.saturating_add(keep).min(expected.len());
                assert_eq!(outgoing.len(), end - before);
                outgoing.push(vec![255; 3]);
                let (out, _) = written(&mut outgoing, usize::MAX);
                assert!(out == [&expected[before..end], &[255; 3]].concat(), "{before} {keep}");
            }
        }
    }

    #[test]
    fn memory_is_kept_for_what_waits_and_for_nothing_else() {
        let (mut outgoing, _) = filled(&[8000; 8]);
        outgoing.written(60_000);
        outgoing.rest();
        assert_eq!((outgoing.len(), outgoing.next()), (4000, &bytes(8000)[4000..]));
        assert_eq!(outgoing.last.capacity(), 4000);
        outgoing.written(4000);
        outgoing.rest();
        assert_eq!(outgoing.last.capacity(), 0);
        outgoing.push(bytes(2 * LARGE));
        outgoing.written(2 * LARGE);
        outgoing.rest();
        assert!(outgoing.first.capacity() <= IDLE_CAPACITY && outgoing.last.capacity() == 0);
        let mut behind = Outgoing::default();
        for _ in 0..1000 {
            behind.push(bytes(1000));
            behind.written(if behind.len() > 1000 { 1000 } else { 999 });
        }
        assert!(behind.last.len() < 2 * COMPACT_AT, "{}", behind.last.len());
    }
}
