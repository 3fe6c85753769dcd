//! Who fills and empties an outbox in a test, and is woken by it: counted, or as a thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use pyrycode_relay::relay::item::{Frame, Item};
use pyrycode_relay::relay::outbox::{Outbox, Taken, Turn};
use pyrycode_relay::relay::text::Text;

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Somebody who polls, and how often it was woken.
pub(crate) struct Poller {
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl Poller {
    pub(crate) fn new() -> Self {
        let wakes = Arc::new(Wakes::default());
        Self { waker: Waker::from(Arc::clone(&wakes)), wakes }
    }

    /// How often it was woken since this was asked last.
    pub(crate) fn woken(&self) -> usize {
        self.wakes.0.swap(0, Ordering::SeqCst)
    }

    pub(crate) fn take(&self, outbox: &Outbox, room: usize) -> (Taken, Vec<String>) {
        let mut items = VecDeque::new();
        let taken = outbox.poll_take(&mut Context::from_waker(&self.waker), room, &mut items);
        (taken, items.iter().map(name).collect())
    }
}

/// Somebody who has one frame and waits for a place for it.
pub(crate) struct Pusher {
    pub(crate) poller: Poller,
    pub(crate) turn: Turn,
    slot: VecDeque<Item>,
}

impl Pusher {
    pub(crate) fn new(text: &str) -> Self {
        Self { poller: Poller::new(), turn: Turn::default(), slot: VecDeque::from([frame(text)]) }
    }

    pub(crate) fn poll(&mut self, outbox: &Outbox) -> Poll<bool> {
        outbox.poll_push(&mut Context::from_waker(&self.poller.waker), &mut self.turn, &mut self.slot)
    }

    /// Has another frame to push.
    pub(crate) fn give(&mut self, text: &str) {
        self.slot = VecDeque::from([frame(text)]);
    }

    pub(crate) fn has_frame(&self) -> bool {
        !self.slot.is_empty()
    }
}

/// A frame.
pub(crate) fn frame(text: &str) -> Item {
    Item::Frame(Frame { text: text.into(), payload: text.len(), read_at: Instant::now() })
}

/// What an item is, in short.
pub(crate) fn name(item: &Item) -> String {
    match item {
        Item::Frame(frame) => readable(&frame.text).to_owned(),
        Item::Notice(text) => format!("notice {}", readable(text)),
    }
}

fn readable(text: &Text) -> &str {
    std::str::from_utf8(text.as_bytes()).unwrap_or("not UTF-8")
}

/// Wakes a thread, and remembers that it did.
struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Polls until it is ready; sleeps until it is woken. A wake-up that is lost is a wait without end.
pub(crate) fn block_on<T>(until: Instant, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        while !unpark.1.swap(false, Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "a wake-up was lost");
            thread::park_timeout(left);
        }
    }
}
