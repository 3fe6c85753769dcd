//! What waits to be written to one connection.
//!
//! An outbox is filled by other connections' sessions and emptied by its own. It is bounded in bytes: an item
//! is charged its length plus [`ITEM_OVERHEAD`] from the moment it is queued until its last byte was handed to the
//! kernel, so the item being written still counts (PROTOCOL § 4).
//!
//! What it is charged, it also takes from the [`Budget`] of all outboxes; where the budget has nothing left, the outbox
//! is as good as full.
//!
//! A full outbox never blocks the one who fills it. A phone's outbox simply refuses ([`Outbox::push`]) and the
//! phone pays. A binary's outbox lets phones wait in line ([`Outbox::poll_push`]): a phone that found no room holds a
//! [`Turn`], and room is given in the order of the turns, so a phone that keeps pushing cannot overtake one that
//! waits. Whoever is first keeps its turn for all that it has read already, then leaves the line; and the line moves
//! only when half of the outbox is free. Both are there so that a full outbox is filled in large pieces: one frame
//! for each wake-up would make the relay slowest when it is busiest.
//!
//! There are two ways to close. [`Outbox::close_behind`] closes behind what is queued already. [`Outbox::cut`] overtakes
//! everything. Whichever came first is what the peer is told.
//!
//! The lock is held for queue operations only; wakers run outside it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::budget::{Budget, BudgetTurn, Request};
use super::close::Close;
use super::item::{ITEM_OVERHEAD, Item};
use super::observer::{Direction, DropReason, Endpoint, Observer};
use super::sparse::shrunk;
use super::sync::{Mutex, MutexGuard, PoisonError};

/// Why something was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for it.
    Full,
    /// The connection is closing or gone.
    Closed,
}

/// A close that overtakes what is queued, and why the queued frames die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What the peer is told.
    pub close: Close,
    /// What the frames that were queued are counted as.
    pub reason: DropReason,
}

/// What [`Outbox::poll_take`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The connection was cut.
    pub cut: Option<Cut>,
    /// The connection closes when nothing is left in the queue.
    pub closing: Option<Close>,
    /// There was no room for everything that is queued.
    pub more: bool,
    /// Somebody wants to know whether the peer is still there.
    pub ping: bool,
}

/// A place in the line of those who wait for room in a full outbox.
#[derive(Debug, Default)]
pub struct Turn {
    mine: Option<u64>,
    /// The first in line waits for the budget, too, when that is what is missing.
    budget: BudgetTurn,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    /// Bytes charged: the queue, and what the session has taken and not yet written.
    charged: usize,
    cut: Option<Cut>,
    /// The close that stands behind the queue.
    closing: Option<Close>,
    /// A close stands behind the queue or the session ended: nothing more is taken in.
    shut: bool,
    ping: bool,
    session: Option<Waker>,
    waiting: VecDeque<(u64, Waker)>,
    next_turn: u64,
}

impl Turn {
    /// Whether it has, or had when the line ended, a place in it.
    pub(super) fn is_waiting(&self) -> bool {
        self.mine.is_some()
    }

    /// Takes a place in the line, or keeps the one it has, and remembers whom to wake.
    fn wait(&mut self, state: &mut State, cx: &mut Context<'_>) {
        let place = self.mine.and_then(|mine| state.waiting.iter_mut().find(|(number, _)| *number == mine));
        if let Some((_, waker)) = place {
            waker.clone_from(cx.waker());
        } else {
            let number = state.next_turn;
            state.next_turn += 1;
            state.waiting.push_back((number, cx.waker().clone()));
            self.mine = Some(number);
        }
    }
}

impl State {
    fn is_open(&self) -> bool {
        !self.shut && self.cut.is_none()
    }

    /// Whoever waits longest, to be woken.
    fn first_in_line(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }
}

/// The queue towards one connection.
pub struct Outbox {
    endpoint: Endpoint,
    limit: usize,
    budget: Arc<Budget>,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("endpoint", &self.endpoint)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// An empty outbox towards a connection of `endpoint`, for `limit` bytes out of `budget`.
    #[must_use]
    pub fn new(endpoint: Endpoint, limit: usize, budget: Arc<Budget>, observer: Arc<dyn Observer>) -> Self {
        Self { endpoint, limit, budget, observer, state: Mutex::new(State::default()) }
    }

    /// Which way the frames in this outbox travel.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.endpoint {
            Endpoint::Server => Direction::PhoneToBinary,
            Endpoint::Client => Direction::BinaryToPhone,
        }
    }

    /// Bytes charged at this moment.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.lock().charged
    }

    /// Whether the connection is neither closing nor gone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Queues an item, without waiting.
    ///
    /// # Errors
    /// Says why not: there is no room, others wait for room, or the connection is closing.
    pub fn push(&self, item: Item) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.is_open() {
            return Err(Refused::Closed);
        }
        let cost = item.cost();
        let request = Request { cost, held: state.charged };
        if !state.waiting.is_empty() || state.charged + cost > self.limit || !self.budget.try_take(request) {
            return Err(Refused::Full);
        }
        state.queue.push_back(item);
        self.admit(state, cost);
        Ok(())
    }

    /// Queues `items` in their order, or takes a place in the line and returns `Pending` until it is first and there is
    /// room; what has no room yet is still in `items`. `Ready(false)`: the connection is closing.
    ///
    /// A turn is kept until it is handed to [`Outbox::leave`]; who holds the first may push on.
    pub fn poll_push(&self, cx: &mut Context<'_>, turn: &mut Turn, items: &mut VecDeque<Item>) -> Poll<bool> {
        if items.is_empty() {
            return Poll::Ready(true);
        }
        let mut state = self.lock();
        if !state.is_open() {
            return Poll::Ready(false);
        }
        let first = state.waiting.front().is_none_or(|(front, _)| turn.mine == Some(*front));
        let together = items.iter().map(Item::cost).sum();
        let request = Request { cost: together, held: state.charged };
        let mut next = Vec::new();
        let mut queued = 0;
        if first
            && state.charged + together <= self.limit
            && self.budget.try_take_at_once(&turn.budget, request)
        {
            queued = together;
            state.queue.append(items);
        }
        while let Some(cost) = items.front().map(Item::cost) {
            if !first || state.charged + queued + cost > self.limit {
                break;
            }
            let request = Request { cost, held: state.charged + queued };
            let (taken, woken) = self.budget.poll_take(cx, &mut turn.budget, request);
            next.extend(woken);
            if taken.is_pending() {
                break;
            }
            queued += cost;
            state.queue.extend(items.pop_front());
        }
        if !items.is_empty() {
            turn.wait(&mut state, cx);
        }
        self.admit(state, queued);
        next.into_iter().for_each(Waker::wake);
        if items.is_empty() { Poll::Ready(true) } else { Poll::Pending }
    }

    /// Gives up a place in the line, if `turn` has one.
    pub fn leave(&self, turn: &mut Turn) {
        self.budget.leave(&mut turn.budget);
        let Some(mine) = turn.mine.take() else { return };
        let mut state = self.lock();
        let was_first = state.waiting.front().is_some_and(|(number, _)| *number == mine);
        state.waiting.retain(|(number, _)| *number != mine);
        let next = if was_first && state.charged < self.limit { state.first_in_line() } else { None };
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Closes the connection behind what is queued already; nothing is taken in any more. Does nothing if the
    /// connection is closing already.
    pub fn close_behind(&self, close: Close) {
        let mut state = self.lock();
        if !state.is_open() {
            return;
        }
        state.shut = true;
        state.closing = Some(close);
        end_line(state);
    }

    /// Whether there is room for an item of `length` bytes.
    #[must_use]
    pub fn has_room(&self, length: usize) -> bool {
        self.lock().charged + length + ITEM_OVERHEAD <= self.limit
    }

    /// Closes the connection at once: what is queued dies, counted as `reason`. The first cut wins; returns whether
    /// this one did. A close that stands behind the queue came before it, and is what the peer is told.
    pub fn cut(&self, close: Close, reason: DropReason) -> bool {
        let mut state = self.lock();
        if state.cut.is_some() {
            return false;
        }
        state.cut = Some(Cut { close: state.closing.unwrap_or(close), reason });
        end_line(state);
        true
    }

    /// Has the session ping its peer now.
    pub(super) fn request_ping(&self) {
        let mut state = self.lock();
        state.ping = true;
        let session = state.session.take();
        drop(state);
        if let Some(session) = session {
            session.wake();
        }
    }

    /// For the session: moves queued items into `taken` until their charge reaches `room` bytes or the queue is
    /// empty. Wakes `cx` when something is queued later, or the connection is cut; what is left in the queue now
    /// must be asked for again.
    pub fn poll_take(&self, cx: &mut Context<'_>, room: usize, taken: &mut VecDeque<Item>) -> Taken {
        let mut state = self.lock();
        let mut cost = 0;
        while state.cut.is_none() && cost < room {
            let Some(item) = state.queue.pop_front() else {
                break;
            };
            cost += item.cost();
            taken.push_back(item);
        }
        if state.queue.is_empty() && state.queue.capacity() > IDLE_CAPACITY {
            state.queue = VecDeque::new();
        } else if let Some(room) = shrunk(state.queue.len(), state.queue.capacity()) {
            state.queue.shrink_to(room);
        }
        match &mut state.session {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Taken {
            cut: state.cut,
            closing: state.closing,
            more: !state.queue.is_empty(),
            ping: std::mem::take(&mut state.ping),
        }
    }

    /// For the session: items whose charge adds up to `cost` were written, or died.
    pub fn settle(&self, cost: usize) {
        if cost == 0 {
            return;
        }
        let mut state = self.lock();
        state.charged -= cost;
        let next = if state.charged <= self.limit / 2 { state.first_in_line() } else { None };
        drop(state);
        self.budget.give_back(cost);
        self.observer.unqueued(self.endpoint, cost);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// For the session: nothing is taken in any more. Returns what was queued, with its charge settled.
    pub fn end(&self) -> VecDeque<Item> {
        let mut state = self.lock();
        state.shut = true;
        state.session = None;
        let queue = std::mem::take(&mut state.queue);
        let line = std::mem::take(&mut state.waiting);
        drop(state);
        wake_all(line);
        self.settle(queue.iter().map(Item::cost).sum());
        queue
    }

    /// Items that cost this much together were queued.
    fn admit(&self, mut state: MutexGuard<'_, State>, cost: usize) {
        if cost == 0 {
            return;
        }
        state.charged += cost;
        let session = state.session.take();
        drop(state);
        self.observer.queued(self.endpoint, cost);
        if let Some(session) = session {
            session.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Items for which an empty queue keeps its memory.
const IDLE_CAPACITY: usize = 16;

/// Nothing is taken in any more: whoever waits hears of it, and so does the session.
fn end_line(mut state: MutexGuard<'_, State>) {
    let session = state.session.take();
    let line = std::mem::take(&mut state.waiting);
    drop(state);
    wake_all(line);
    if let Some(session) = session {
        session.wake();
    }
}

fn wake_all(line: VecDeque<(u64, Waker)>) {
    for (_, waker) in line {
        waker.wake();
    }
}
