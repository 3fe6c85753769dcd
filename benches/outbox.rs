//! The queues, per frame of 256 bytes: `cargo bench --bench outbox [WORD...]`.
//!
//! The items are used again and again, so that what is allocated is the queues' own.

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyrycode_relay::relay::budget::Budget;
use pyrycode_relay::relay::item::{Frame, Item};
use pyrycode_relay::relay::observer::Endpoint;
use pyrycode_relay::relay::outbox::{Outbox, Turn};
use support::Bench;

const SIZE: usize = 256;
const PHONES: usize = 16;

/// As much as a session takes at a time.
const ROOM: usize = 64 * 1024;

/// Frames that each phone sends on a thread of its own.
const EACH: usize = 2000;

fn main() {
    let bench = Bench::begin();
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = VecDeque::new();

    let roomy = outbox(4 * 1024 * 1024);
    for burst in [1, 4, 8, 64] {
        let mut items: VecDeque<Item> = (0..burst).map(|_| item()).collect();
        bench.case(&format!("push, take, settle: {burst} at once"), burst * SIZE, || {
            for item in items.drain(..) {
                assert!(roomy.push(item).is_ok());
            }
            takes_all(&roomy, &mut cx, &mut taken);
            items.append(&mut taken);
        });
    }

    let mut slot = VecDeque::with_capacity(1);
    let mut items: VecDeque<Item> = (0..PHONES).map(|_| item()).collect();
    bench.case(&format!("{PHONES} phones push one each"), PHONES * SIZE, || {
        for item in items.drain(..) {
            let mut turn = Turn::default();
            slot.push_back(item);
            assert_eq!(roomy.poll_push(&mut cx, &mut turn, &mut slot), Poll::Ready(true));
            roomy.leave(&mut turn);
        }
        takes_all(&roomy, &mut cx, &mut taken);
        items.append(&mut taken);
    });

    let narrow = outbox(item().cost());
    let mut slots: Vec<VecDeque<Item>> = (0..PHONES).map(|_| VecDeque::from([item()])).collect();
    bench.case(&format!("{PHONES} phones in line for one place"), PHONES * SIZE, || {
        let mut turns: [Turn; PHONES] = Default::default();
        // The first has the place at once, the others wait.
        for (slot, turn) in slots.iter_mut().zip(&mut turns) {
            let _ = narrow.poll_push(&mut cx, turn, slot);
        }
        for index in 0..PHONES {
            narrow.leave(&mut turns[index]);
            takes_all(&narrow, &mut cx, &mut taken);
            slots[index].append(&mut taken);
            if let Some(next) = slots.get_mut(index + 1) {
                assert_eq!(narrow.poll_push(&mut cx, &mut turns[index + 1], next), Poll::Ready(true));
            }
        }
    });

    for (name, limit) in [("all fits", PHONES * EACH * 1024), ("64 frames fit", 64 * item().cost())] {
        let name = format!("{PHONES} phones on threads of their own, {name}");
        bench.case_with_a_clock(&name, SIZE, || on_threads(&outbox(limit)));
    }
}

fn outbox(limit: usize) -> Outbox {
    Outbox::new(Endpoint::Server, limit, Arc::new(Budget::new(usize::MAX / 16)), Arc::new(()))
}

fn item() -> Item {
    Item::Frame(Frame { text: "x".repeat(SIZE).as_str().into(), payload: SIZE, read_at: Instant::now() })
}

/// Takes everything, as a session does, and has it written at once.
fn takes_all(outbox: &Outbox, cx: &mut Context<'_>, taken: &mut VecDeque<Item>) {
    while outbox.poll_take(cx, ROOM, taken).more {}
    outbox.settle(taken.iter().map(Item::cost).sum());
}

/// Wakes a thread that waits for it.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Unpark {
    fn this_thread() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), woken: AtomicBool::new(false) })
    }

    fn wait(&self) {
        while !self.woken.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// What one frame takes, from the first push to the last settlement, making it included.
fn on_threads(outbox: &Outbox) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..PHONES {
            scope.spawn(|| phone(outbox));
        }
        let unpark = Unpark::this_thread();
        let waker = Waker::from(Arc::clone(&unpark));
        let (mut cx, mut taken, mut left) = (Context::from_waker(&waker), VecDeque::new(), PHONES * EACH);
        while left > 0 {
            takes_all(outbox, &mut cx, &mut taken);
            if taken.is_empty() {
                unpark.wait();
            }
            left -= taken.drain(..).count();
        }
    });
    began.elapsed() / u32::try_from(PHONES * EACH).unwrap_or(u32::MAX)
}

fn phone(outbox: &Outbox) {
    let unpark = Unpark::this_thread();
    let waker = Waker::from(Arc::clone(&unpark));
    let (mut cx, mut turn) = (Context::from_waker(&waker), Turn::default());
    let mut slot = VecDeque::with_capacity(1);
    for _ in 0..EACH {
        slot.push_back(item());
        while outbox.poll_push(&mut cx, &mut turn, &mut slot).is_pending() {
            unpark.wait();
        }
        outbox.leave(&mut turn);
    }
}
