//! One connection, both directions, in one task.
//!
//! [`Session::run`] polls its socket for writing and reading in turn: what the outbox holds goes into the outgoing
//! buffer and to the kernel in as few writes as possible, then what the socket has is read, once, and handed to the
//! [`Leg`], message by message; then other sessions have their turn. Neither direction can starve the other, and
//! no lock is held while anything happens.
//!
//! The leg is what makes a session a phone's or a binary's. It may say that it cannot take another message now
//! ([`Leg::poll_ready`]); the session then stops reading, so that TCP pushes back, and goes on writing.
//!
//! A session has one alarm for all it waits for (`super::deadlines`). The alarm is set no more often than it rings:
//! when a deadline moves away it is left as it is, rings early, and is set anew.
//!
//! When `run` returns, the connection's place in the registry can be given up at once; [`Session::farewell`] then
//! sends the close frame and lets go of the socket gently, in a bounded time.
//!
//! Every frame taken from the outbox ends here exactly once: forwarded when its last byte was handed to the kernel,
//! else dropped with a reason.

mod farewell;
mod reading;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::clock::Alarm;
use super::close::Close;
use super::deadlines::{Deadlines, Due};
use super::end::End;
use super::item::Item;
use super::ledger::Ledger;
use super::observer::DropReason;
use super::outbox::{Cut, Outbox, Taken};
use super::shared::Shared;
use super::text::Text;
use super::transport::Transport;
use super::wire::Wire;
pub(super) use farewell::refuse;

/// Bytes read from a socket at a time. The buffer belongs to the thread, not to the connection.
const READ_SIZE: usize = 64 * 1024;

/// Outgoing bytes beyond which nothing more is taken from the outbox until some are written.
const HIGH_WATER: usize = 64 * 1024;

/// Outgoing bytes of control frames with which the session stops reading: the answers to a peer that pings and does not
/// read.
const PONG_LIMIT: usize = 64 * 1024;

/// Times that the outgoing buffer is filled and written before the session reads, and lets others run. A binary
/// writes what several phones have read, so that it must get further in its turn than each of them in theirs.
const WRITE_ROUNDS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
    static TAKEN: RefCell<VecDeque<Item>> = const { RefCell::new(VecDeque::new()) };
}

/// What a session does with the messages it reads.
pub trait Leg {
    /// Takes one message, text or binary, read at `read_at`. Returns the close that it costs the sender, if it does. Is
    /// called when [`Leg::is_full`] only if the session has ended.
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close>;

    /// Passes on what was taken. Until that is done, no other message can be. `Ready(Some)`: the connection must close.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Close>>;

    /// Whether what was taken has to be passed on before another message can be taken.
    fn is_full(&self) -> bool;

    /// Everything that was read has been taken; the next message may be long in coming.
    fn caught_up(&mut self);

    /// Nothing is handed on for now, though there may be something.
    fn steps_aside(&mut self);

    /// The peer said something since it was last asked to (`Outbox::request_ping`).
    fn answered(&mut self);

    /// What the connection is closed with when a write to it fails or makes no progress.
    fn write_failed(&self) -> Close;
}

/// A WebSocket connection over `S`.
#[expect(clippy::struct_excessive_bools, reason = "any of them may be true together with any other")]
pub struct Session<S> {
    socket: S,
    wire: Wire,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    deadlines: Deadlines,
    alarm: Box<dyn Alarm>,
    /// When the alarm rings, if it is set.
    alarm_at: Option<Instant>,
    /// Bytes that were read before the leg could take what is in them, and when. While this is something, if only empty,
    /// the wire may hold whole messages too.
    unread: Option<(Vec<u8>, Instant)>,
    ledger: Ledger,
    /// Something was written since the last flush.
    unflushed: bool,
    /// The close that stands behind the frames now in the outgoing buffer.
    closing: Option<Close>,
    /// Somebody waits for the peer to say something.
    probed: bool,
    /// The last read left nothing in the socket.
    emptied: bool,
    /// The socket takes nothing any more, because the connection is broken.
    write_failed: bool,
    /// The writing side was shut down.
    hung_up: bool,
    /// What time it is in this turn, as far as it was looked at: a clock that is asked once less for each frame is felt.
    turn: Option<Instant>,
}

impl<S> std::fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

impl<S: Transport + Unpin> Session<S> {
    /// A session over a socket that was just upgraded. `already_read` is what came behind the upgrade request;
    /// messages may have up to `max_message` bytes.
    #[must_use]
    pub fn new(
        socket: S,
        already_read: Vec<u8>,
        max_message: usize,
        outbox: Arc<Outbox>,
        shared: Arc<Shared>,
    ) -> Self {
        let now = shared.now();
        Self {
            socket,
            wire: Wire::new(max_message),
            outbox,
            deadlines: Deadlines::new(now),
            alarm: shared.clock.alarm(),
            alarm_at: None,
            shared,
            unread: Some((already_read, now)),
            ledger: Ledger::default(),
            unflushed: false,
            closing: None,
            probed: false,
            emptied: false,
            write_failed: false,
            hung_up: false,
            turn: None,
        }
    }

    /// Forwards in both directions until the connection ends. Afterwards nothing is queued or in the outgoing
    /// buffer but a frame that was half written.
    pub async fn run(&mut self, leg: &mut impl Leg) -> End {
        let end = poll_fn(|cx| self.poll_run(leg, cx)).await;
        self.hand_on_the_rest(leg);
        self.drop_undelivered(end);
        end
    }

    /// Writes what there is, as far as the socket takes it, then reads once.
    fn poll_run(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<End> {
        let mut more_to_write = true;
        let mut blocked = false;
        self.turn = None;
        if self.write_failed {
            return self.poll_last_read(leg, cx);
        }
        for _ in 0..WRITE_ROUNDS {
            let Taken { cut, closing, more, ping } = self.take_from_outbox(cx);
            if let Some(Cut { close, reason }) = cut {
                return Poll::Ready(End::Ours(close, reason));
            }
            self.closing = self.closing.or(closing);
            if ping && !std::mem::replace(&mut self.probed, true) {
                self.wire.send_ping();
            }
            let mut written = self.poll_write(cx);
            if written.is_pending() && self.stalls() {
                // A peer that reads slowly takes something long before the kernel would wake us for it.
                self.socket.ask_again();
                written = self.poll_write(cx);
                let now = self.now();
                if written.is_pending() && self.deadlines.write_timed_out(now, &self.shared.settings) {
                    return Poll::Ready(self.ends(leg.write_failed(), DropReason::WriteFailed));
                }
            }
            more_to_write = match written {
                Poll::Ready(Ok(())) => more,
                Poll::Ready(Err(_)) => {
                    self.write_failed = true;
                    self.socket.ask_again();
                    return self.poll_last_read(leg, cx);
                }
                // The socket will wake us.
                Poll::Pending => {
                    blocked = true;
                    break;
                }
            };
            if !more_to_write {
                if let Some(close) = self.closing {
                    return Poll::Ready(End::Ours(close, DropReason::ReceiverClosed));
                }
                break;
            }
        }
        let mut read = self.poll_read(leg, cx);
        if matches!(read, Poll::Ready(Ok(()))) && self.emptied {
            // Most likely there is nothing more, and nobody else needs to wait for this to be found out.
            read = self.poll_read(leg, cx);
        }
        match read {
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            Poll::Ready(Err(End::Ours(close, reason))) => return Poll::Ready(self.ends(close, reason)),
            Poll::Ready(Err(end)) => return Poll::Ready(end),
            // The rounds were used up, or what was read was answered into the outgoing buffer.
            Poll::Pending if !blocked && (more_to_write || !self.wire.is_written()) => {
                cx.waker().wake_by_ref();
            }
            Poll::Pending => {
                self.rest();
                return self.poll_deadlines(cx);
            }
        }
        Poll::Pending
    }

    /// Nothing can be written any more. What the peer said before is in the socket still, its goodbye perhaps: a peer that closes while
    /// something is on its way to it resets the connection.
    fn poll_last_read(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<End> {
        let Taken { cut, closing, .. } = self.outbox.poll_take(cx, 0, &mut VecDeque::new());
        if let Some(Cut { close, reason }) = cut {
            return Poll::Ready(End::Ours(close, reason));
        }
        self.closing = self.closing.or(closing);
        match self.poll_read(leg, cx) {
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            Poll::Ready(Err(end @ (End::Ours(..) | End::PeerClosed(_)))) => return Poll::Ready(end),
            // The leg has to pass on something first.
            Poll::Pending if self.unread.is_some() && self.closing.is_none() => {}
            Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(End::WriteFailed(leg.write_failed())),
        }
        Poll::Pending
    }

    /// The socket takes nothing. Whether to ask it again.
    fn stalls(&mut self) -> bool {
        let now = self.now();
        self.deadlines.stalls(now, &self.shared.settings)
    }

    /// What time it is in this turn.
    fn now(&mut self) -> Instant {
        *self.turn.get_or_insert_with(|| self.shared.now())
    }

    /// What time it is at this moment.
    fn look_at_clock(&mut self) -> Instant {
        *self.turn.insert(self.shared.now())
    }

    /// The end with that close, unless another one came first and waits behind frames.
    fn ends(&self, close: Close, reason: DropReason) -> End {
        End::Ours(self.closing.unwrap_or(close), reason)
    }

    /// Looks at what is due, with nothing left to read or write for now.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = self.now();
        let next = match self.deadlines.due(now, &self.shared.settings) {
            // The next turn asks the socket again, and decides.
            Due::Write => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Due::MessageTimedOut => {
                return Poll::Ready(self.ends(Close::MessageTimedOut, DropReason::ReceiverClosed));
            }
            Due::HeartbeatTimeout => {
                return Poll::Ready(self.ends(Close::HeartbeatTimeout, DropReason::ReceiverClosed));
            }
            Due::Ping => {
                self.wire.send_ping();
                self.deadlines.pinged(now);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Due::Later(next) => next,
        };
        if self.alarm_at.is_none_or(|at| at > next) {
            self.alarm.set(next);
            self.alarm_at = Some(next);
        }
        if self.alarm.poll(now, cx).is_ready() {
            self.alarm_at = None;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Nothing to do for now: gives back the memory that a burst needed.
    fn rest(&mut self) {
        // While something waits to be taken, the wire may hold whole messages.
        if self.unread.is_none() {
            self.wire.rest();
        }
        self.ledger.rest();
    }

    /// Moves what the outbox has into the outgoing buffer, as far as there is room.
    fn take_from_outbox(&mut self, cx: &mut Context<'_>) -> Taken {
        let room = HIGH_WATER.saturating_sub(self.wire.unwritten_messages());
        TAKEN.with_borrow_mut(|taken| {
            let found = self.outbox.poll_take(cx, room, taken);
            for item in taken.drain(..) {
                let cost = item.cost();
                match item {
                    Item::Frame(frame) => self.append(frame.text, cost, Some((frame.payload, frame.read_at))),
                    Item::Notice(text) => self.append(text, cost, None),
                }
            }
            found
        })
    }

    fn append(&mut self, text: Text, cost: usize, frame: Option<(usize, Instant)>) {
        let ahead = self.wire.unwritten_messages();
        let length = self.wire.send(text);
        self.ledger.add(ahead, length, cost, frame);
    }

    /// Writes until the outgoing buffer is empty.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = loop {
            if self.wire.is_written() {
                break Poll::Ready(Ok(()));
            }
            let begun = self.ledger.rest_of_begun();
            match Pin::new(&mut self.socket).poll_write(cx, self.wire.unwritten(begun)) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    let of_messages = self.wire.written(count, begun);
                    self.ledger.advance(of_messages);
                    // Before the next turn: the ledger tells what is half written by its first entry.
                    self.count_written();
                    self.unflushed = true;
                    self.deadlines.moved();
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => {
                    let bound = self.socket.begun();
                    if bound > 0 && self.wire.bind(begun) {
                        self.ledger.bind(bound);
                    }
                    if self.socket.has_moved() {
                        self.deadlines.moved();
                    }
                    break Poll::Pending;
                }
            }
        };
        if self.unflushed && matches!(result, Poll::Ready(Ok(()))) {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
            self.deadlines.moved();
        }
        result
    }

    fn count_written(&mut self) {
        let now = self.look_at_clock();
        let mut settled = 0;
        let mut frames = iter::from_fn(|| {
            loop {
                let sent = self.ledger.pop_written()?;
                settled += sent.cost;
                if let Some((payload, read_at)) = sent.frame {
                    return Some((payload, now.saturating_duration_since(read_at)));
                }
            }
        });
        self.shared.observer.frames_forwarded(self.outbox.direction(), &mut frames);
        self.outbox.settle(settled);
    }
}
