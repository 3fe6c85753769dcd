//! Asking a binary whether it is still there, because another one claims its server-id (PROTOCOL § 2).
//!
//! Those who ask share one ping: whoever comes while it is unanswered waits for the same answer. Anything that is read
//! from the binary after the ping was queued is an answer, since a busy binary's pong may stand behind much else.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use event_listener::Event;

use super::outbox::Outbox;

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The binary said something.
    Alive,
    /// The binary's connection ended; its server-id is gracing, or somebody else's.
    Gone,
}

/// The state of asking one binary.
#[derive(Debug, Default)]
pub(super) struct Probe {
    answers: AtomicU64,
    gone: AtomicBool,
    waiting: AtomicUsize,
    changed: Event,
}

/// A place among those who wait for the answer.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Probe);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Probe {
    /// Counts somebody as waiting until the place is dropped. Nothing if `most` are waiting.
    pub(super) fn join(&self, most: usize) -> Option<Place<'_>> {
        let join = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, join).ok().map(|_| Place(self))
    }

    /// Has the binary behind `outbox` pinged, and waits for its answer or its end.
    pub(super) async fn ask(&self, outbox: &Outbox) -> Answer {
        let before = self.answers.load(Ordering::SeqCst);
        outbox.request_ping();
        loop {
            // Listening begins before looking, so that nothing falls between the two.
            let changed = self.changed.listen();
            if self.gone.load(Ordering::SeqCst) {
                return Answer::Gone;
            }
            if self.answers.load(Ordering::SeqCst) != before {
                return Answer::Alive;
            }
            changed.await;
        }
    }

    /// Something was heard from the binary after it was pinged.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
    }

    /// The binary's connection ended.
    pub(super) fn is_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
    }
}
