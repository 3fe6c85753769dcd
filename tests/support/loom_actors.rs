//! Who fills, empties and closes outboxes in a model, each as a thread of loom's.
//!
//! Whoever waits has a new waker at each poll, and an old one wakes nobody. It sleeps until it is woken, and never wakes
//! by itself: a wake-up that is lost is a thread that sleeps for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use loom::thread::{JoinHandle, Thread, current, park, spawn};

use crate::budget::Budget;
use crate::close::Close;
use crate::item::{Frame, ITEM_OVERHEAD, Item};
use crate::observer::{DropReason, Endpoint, Observer};
use crate::outbox::{Outbox, Taken, Turn};

/// What a frame of one byte costs.
pub(crate) const ONE: usize = ITEM_OVERHEAD + 1;

/// Bytes that the observer was told are queued. They may be reported as gone before they are reported as queued.
#[derive(Default)]
struct Queued(AtomicUsize);

impl Observer for Queued {
    fn queued(&self, _: Endpoint, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }

    fn unqueued(&self, _: Endpoint, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// Outboxes that share a budget.
pub(crate) struct Relay {
    pub(crate) budget: Arc<Budget>,
    queued: Arc<Queued>,
}

impl Relay {
    /// A relay whose outboxes may hold `budget` bytes together.
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget: Arc::new(Budget::new(budget)), queued: Arc::default() }
    }

    /// An outbox with places for `places` frames, of which `filled` are taken.
    pub(crate) fn outbox(&self, places: usize, filled: usize) -> Arc<Outbox> {
        let queued: Arc<Queued> = Arc::clone(&self.queued);
        let outbox = Outbox::new(Endpoint::Server, places * ONE, Arc::clone(&self.budget), queued);
        for _ in 0..filled {
            assert!(outbox.push(frame("0")).is_ok());
        }
        Arc::new(outbox)
    }

    /// Ends the outboxes; then nothing is charged, taken or counted any more.
    pub(crate) fn finish<const N: usize>(&self, outboxes: [&Outbox; N]) {
        for outbox in outboxes {
            outbox.end();
            assert_eq!(outbox.charged(), 0);
        }
        assert_eq!((self.budget.taken(), self.queued.0.load(Ordering::SeqCst)), (0, 0));
    }
}

/// A thread that waits. What is in here is no part of the model: loom runs one thread at a time, and changes threads
/// at its own locks and atomics only.
struct Sleeper {
    thread: Thread,
    /// How often it has polled.
    polls: AtomicUsize,
    woken: AtomicBool,
    asleep: AtomicBool,
}

impl Sleeper {
    fn sleep(&self) {
        while !self.woken.swap(false, Ordering::SeqCst) {
            self.asleep.store(true, Ordering::SeqCst);
            park();
        }
    }
}

/// What one poll, told by its number, leaves behind to be woken by.
struct Bell(Arc<Sleeper>, usize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let Self(sleeper, poll) = &*self;
        if sleeper.polls.load(Ordering::SeqCst) != *poll {
            return;
        }
        sleeper.woken.store(true, Ordering::SeqCst);
        // Unparked at any other time, a thread that waits for a lock would go on without it.
        if sleeper.asleep.swap(false, Ordering::SeqCst) {
            sleeper.thread.unpark();
        }
    }
}

/// Polls until it is ready; sleeps until it is woken.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let sleeper = Arc::new(Sleeper {
        thread: current(),
        polls: AtomicUsize::new(0),
        woken: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
    });
    loop {
        let number = sleeper.polls.fetch_add(1, Ordering::SeqCst) + 1;
        let bell = Arc::new(Bell(Arc::clone(&sleeper), number));
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&Waker::from(bell))) {
            return value;
        }
        sleeper.sleep();
    }
}

/// Whoever does not wait: what it polls cannot wake it.
pub(crate) fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

pub(crate) fn frame(text: &str) -> Item {
    Item::Frame(Frame { text: text.into(), payload: text.len(), read_at: Instant::now() })
}

/// A thread that does something with an outbox.
pub(crate) fn with<T: 'static>(
    outbox: &Arc<Outbox>,
    act: impl FnOnce(&Outbox) -> T + 'static,
) -> JoinHandle<T> {
    let outbox = Arc::clone(outbox);
    spawn(move || act(&outbox))
}

/// Waits until all frames are queued, and leaves the line. Returns whether they were.
pub(crate) fn wait_and_push(outbox: &Outbox, texts: &[&str]) -> bool {
    let mut turn = Turn::default();
    let delivered = texts.iter().all(|text| {
        let mut slot = VecDeque::from([frame(text)]);
        let delivered = block_on(|cx| outbox.poll_push(cx, &mut turn, &mut slot));
        assert_eq!(slot.is_empty(), delivered, "the frame is lost, or in two places");
        delivered
    });
    outbox.leave(&mut turn);
    delivered
}

/// A thread that waits until all frames are queued, and leaves the line. It returns whether they were.
pub(crate) fn pusher(outbox: &Arc<Outbox>, texts: &'static [&'static str]) -> JoinHandle<bool> {
    with(outbox, |outbox| wait_and_push(outbox, texts))
}

/// Somebody who stands in line already when the model begins, and looks again only when the model says so.
pub(crate) fn in_line(outbox: &Outbox) -> Turn {
    let mut turn = Turn::default();
    assert!(outbox.poll_push(&mut nobody(), &mut turn, &mut VecDeque::from([frame("a")])).is_pending());
    turn
}

/// The session: takes what there is, up to so many frames. Returns what that costs.
pub(crate) fn take(outbox: &Outbox, frames: usize) -> usize {
    let mut items = VecDeque::new();
    outbox.poll_take(&mut nobody(), frames * ONE, &mut items);
    items.iter().map(Item::cost).sum()
}

/// The session: waits until it has found what it looks for, and writes what it takes meanwhile.
pub(crate) fn write_until(outbox: &Outbox, mut found: impl FnMut(Taken, &[String]) -> bool) {
    let mut written = Vec::new();
    block_on(|cx| {
        loop {
            let mut items = VecDeque::new();
            let taken = outbox.poll_take(cx, 1, &mut items);
            outbox.settle(items.iter().map(Item::cost).sum());
            written.extend(items.drain(..).filter_map(|item| match item {
                Item::Frame(frame) => String::from_utf8(frame.text.as_bytes().to_vec()).ok(),
                Item::Notice(_) => None,
            }));
            if found(taken, &written) {
                return Poll::Ready(());
            }
            if !taken.more || taken.cut.is_some() {
                return Poll::Pending;
            }
        }
    });
}

/// The session: waits until it has written that frame.
pub(crate) fn write_up_to(outbox: &Outbox, last: &str) {
    write_until(outbox, |_, written| written.last().is_some_and(|text| text == last));
}

/// The ways to close.
pub(crate) const CLOSINGS: [fn(&Outbox); 3] = [close_behind, cut, end];

pub(crate) fn cut(outbox: &Outbox) {
    outbox.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed);
}

pub(crate) fn close_behind(outbox: &Outbox) {
    outbox.close_behind(Close::BinaryReclaimed);
}

pub(crate) fn end(outbox: &Outbox) {
    outbox.end();
}
