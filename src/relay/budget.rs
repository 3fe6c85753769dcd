//! The bytes that may wait in all outboxes together.
//!
//! An outbox takes what an item costs from the budget before it queues it, and gives it back when the item was written or
//! died. A phone's outbox that gets nothing overflows. A binary's makes its phones wait: whoever is first in the
//! outbox's own line waits in the line of the budget too, until somebody anywhere gives something back.
//!
//! So that a few who hold much cannot keep everybody else from holding a little, nobody may hold more than [`SHARE`] times
//! what is left over for the others. With one large outbox nearly all of the budget is usable, and however many there are, a
//! part stays free for those that are empty. In the line, too, those who do not get anything for that reason do not hold
//! up those behind them.
//!
//! While nobody waits, taking and giving back are one atomic operation each. The line has a lock of its own, which no
//! waker runs under. An outbox takes under its lock, so it wakes whoever is next in line itself, once it has let go.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// How many times as much as is left over for others an outbox may hold.
pub const SHARE: usize = 8;

/// What an outbox wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Bytes to take.
    pub(super) cost: usize,
    /// Bytes that it holds already.
    pub(super) held: usize,
}

/// A place in the line of the budget.
#[derive(Debug, Default)]
pub(super) struct BudgetTurn(Option<u64>);

#[derive(Debug)]
struct Waiting {
    number: u64,
    request: Request,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    next_turn: u64,
}

/// Bytes that several outboxes share.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    taken: AtomicUsize,
    /// Whether the line may have somebody in it.
    has_line: AtomicBool,
    line: Mutex<Line>,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: AtomicUsize::new(0),
            has_line: AtomicBool::new(false),
            line: Mutex::new(Line::default()),
        }
    }

    /// Bytes taken at this moment.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// What would be taken if the request were granted now; nothing if it is not to be.
    fn grant(&self, taken: usize, request: Request) -> Option<usize> {
        let more = taken.checked_add(request.cost).filter(|more| *more <= self.limit)?;
        (request.held <= SHARE.saturating_mul(self.limit - more)).then_some(more)
    }

    /// Takes what is requested, if it is to be had.
    pub(super) fn try_take(&self, request: Request) -> bool {
        let grant = |taken| self.grant(taken, request);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grant).is_ok()
    }

    /// Takes what is requested if that is possible without a place in the line.
    pub(super) fn try_take_at_once(&self, turn: &BudgetTurn, request: Request) -> bool {
        turn.0.is_none() && !self.has_line.load(Ordering::SeqCst) && self.try_take(request)
    }

    /// Takes what is requested, or takes a place in the line and returns `Pending` until it is to be had and nobody in
    /// front could have it. Comes with whoever is to be woken because something is left for them.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        turn: &mut BudgetTurn,
        request: Request,
    ) -> (Poll<()>, Option<Waker>) {
        if self.try_take_at_once(turn, request) {
            return (Poll::Ready(()), None);
        }
        let mut line = self.line();
        let place = turn.0.and_then(|mine| line.waiting.iter_mut().find(|place| place.number == mine));
        if let Some(place) = place {
            place.request = request;
            place.waker.clone_from(cx.waker());
        } else {
            let number = line.next_turn;
            line.next_turn += 1;
            line.waiting.push_back(Waiting { number, request, waker: cx.waker().clone() });
            turn.0 = Some(number);
            // Before the bytes are looked at again: whoever gives some back either did so by then, or sees this.
            self.has_line.store(true, Ordering::SeqCst);
        }
        match self.next(&line) {
            Some(next) if Some(next.number) != turn.0 => (Poll::Pending, Some(next.waker.clone())),
            Some(_) if self.try_take(request) => (Poll::Ready(()), self.step_out(line, turn)),
            _ => (Poll::Pending, None),
        }
    }

    /// Gives up a place in the line, if `turn` has one.
    pub(super) fn leave(&self, turn: &mut BudgetTurn) {
        if turn.0.is_none() {
            return;
        }
        if let Some(next) = self.step_out(self.line(), turn) {
            next.wake();
        }
    }

    /// Gives `cost` bytes back.
    pub(super) fn give_back(&self, cost: usize) {
        self.taken.fetch_sub(cost, Ordering::SeqCst);
        if self.has_line.load(Ordering::SeqCst) {
            let next = self.next(&self.line()).map(|next| next.waker.clone());
            if let Some(next) = next {
                next.wake();
            }
        }
    }

    /// The first in line who would get what it requested.
    fn next<'a>(&self, line: &'a Line) -> Option<&'a Waiting> {
        let taken = self.taken();
        line.waiting.iter().find(|place| self.grant(taken, place.request).is_some())
    }

    /// Removes the turn from the line. Who is next then is returned to be woken.
    fn step_out(&self, mut line: MutexGuard<'_, Line>, turn: &mut BudgetTurn) -> Option<Waker> {
        let mine = turn.0.take()?;
        line.waiting.retain(|place| place.number != mine);
        self.has_line.store(!line.waiting.is_empty(), Ordering::SeqCst);
        self.next(&line).map(|next| next.waker.clone())
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
