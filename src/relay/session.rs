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
//! When `run` returns, the connection's place in the registry can be given up at once; [`Session::farewell`] then
//! sends the close frame and lets go of the socket gently, in a bounded time.
//!
//! Every frame taken from the outbox ends here exactly once: forwarded when its last byte was handed to the kernel,
//! else dropped with a reason.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;
use smol::io::{AsyncRead, AsyncWrite};

use super::close::Close;
use super::end::End;
use super::ledger::Ledger;
use super::observer::{DropReason, Endpoint, Observer};
use super::outbox::{Cut, Item, Outbox, Taken};
use super::wire::{Broken, Received, Wire};

/// Bytes read from a socket at a time. The buffer belongs to the thread, not to the connection.
const READ_SIZE: usize = 64 * 1024;

/// Outgoing bytes beyond which nothing more is taken from the outbox until some are written.
const HIGH_WATER: usize = 64 * 1024;

/// Outgoing bytes, beyond those of frames, with which the session stops reading: the answers to a peer that pings and
/// does not read.
const PONG_LIMIT: usize = 64 * 1024;

/// Times that the outgoing buffer is filled and written before the session reads, and lets others run. A binary
/// writes what several phones have read, so that it must get further in its turn than each of them in theirs.
const WRITE_ROUNDS: usize = 8;

/// How long a connection that ended may take to get its close frame and to hang up.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
    static TAKEN: RefCell<VecDeque<Item>> = const { RefCell::new(VecDeque::new()) };
}

/// What a session does with the messages it reads.
pub trait Leg {
    /// Takes one message, text or binary, read at `read_at`. Returns the close that it costs the sender, if it does.
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close>;

    /// Whether another message can be taken. `Ready(Some)`: the connection must close.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Close>>;

    /// Everything that was read has been taken; the next message may be long in coming.
    fn caught_up(&mut self);
}

/// A WebSocket connection over `S`.
pub struct Session<S> {
    socket: S,
    wire: Wire,
    outbox: Arc<Outbox>,
    observer: Arc<dyn Observer>,
    /// Bytes that were read before the leg could take what is in them. While this is something, if only empty, the
    /// wire may hold whole messages too.
    unread: Option<Vec<u8>>,
    ledger: Ledger,
    /// Something was written since the last flush.
    unflushed: bool,
    /// The close that was queued behind the frames now in the outgoing buffer.
    closing: Option<Close>,
}

impl<S> std::fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// A session over a socket that was just upgraded. `already_read` is what came behind the upgrade request;
    /// messages may have up to `max_message` bytes.
    #[must_use]
    pub fn new(
        socket: S,
        already_read: Vec<u8>,
        max_message: usize,
        outbox: Arc<Outbox>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            socket,
            wire: Wire::new(max_message),
            outbox,
            observer,
            unread: Some(already_read),
            ledger: Ledger::default(),
            unflushed: false,
            closing: None,
        }
    }

    /// Forwards in both directions until the connection ends. Afterwards nothing is queued or in the outgoing
    /// buffer but a frame that was half written.
    pub async fn run(&mut self, leg: &mut impl Leg) -> End {
        let end = poll_fn(|cx| self.poll_run(leg, cx)).await;
        self.drop_undelivered(end);
        end
    }

    /// Sends the close frame that belongs to `end` and hangs up, within a bounded time.
    pub async fn farewell(&mut self, end: End) {
        if let Some((code, reason)) = end.last_words() {
            self.wire.send_close(code, &reason);
            let parting = async {
                if poll_fn(|cx| self.poll_write(cx)).await.is_ok() {
                    poll_fn(|cx| self.poll_hang_up(cx)).await;
                }
            };
            future::or(parting, async {
                Timer::after(FAREWELL).await;
            })
            .await;
        }
        self.drop_in_flight(0, DropReason::ReceiverClosed);
    }

    /// Writes what there is, as far as the socket takes it, then reads once.
    fn poll_run(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<End> {
        let mut more_to_write = true;
        for _ in 0..WRITE_ROUNDS {
            let Taken { cut, more } = self.take_from_outbox(cx);
            if let Some(Cut { close, reason }) = cut {
                return Poll::Ready(End::Ours(close, reason));
            }
            more_to_write = match self.poll_write(cx) {
                Poll::Ready(Ok(())) => more,
                Poll::Ready(Err(_)) => return Poll::Ready(End::WriteFailed),
                // The socket will wake us.
                Poll::Pending => break,
            };
            if !more_to_write {
                if let Some(close) = self.closing {
                    return Poll::Ready(End::Ours(close, DropReason::ReceiverClosed));
                }
                break;
            }
        }
        let all_written = self.wire.unwritten().is_empty();
        match self.poll_read(leg, cx) {
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            // The first close wins: one that waits behind frames came before this one.
            Poll::Ready(Err(End::Ours(close, reason))) => {
                return Poll::Ready(End::Ours(self.closing.unwrap_or(close), reason));
            }
            Poll::Ready(Err(end)) => return Poll::Ready(end),
            // The rounds were used up, or what was read was answered into the outgoing buffer.
            Poll::Pending if all_written && (more_to_write || !self.wire.unwritten().is_empty()) => {
                cx.waker().wake_by_ref();
            }
            Poll::Pending => self.rest(),
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
        let room = HIGH_WATER.saturating_sub(self.wire.unwritten().len());
        TAKEN.with_borrow_mut(|taken| {
            let found = self.outbox.poll_take(cx, room, taken);
            for item in taken.drain(..) {
                let cost = item.cost();
                match item {
                    Item::Frame(frame) => self.append(frame.text, cost, Some((frame.payload, frame.read_at))),
                    Item::Notice(text) => self.append(text, cost, None),
                    Item::Close(close) => {
                        self.outbox.settle(cost);
                        self.closing = Some(close);
                    }
                }
            }
            found
        })
    }

    fn append(&mut self, text: String, cost: usize, frame: Option<(usize, Instant)>) {
        let ahead = self.wire.unwritten().len();
        let length = self.wire.send_text(text);
        self.ledger.add(ahead, length, cost, frame);
    }

    /// Writes until the outgoing buffer is empty.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wrote = false;
        let result = loop {
            let bytes = self.wire.unwritten();
            if bytes.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.wire.written(count);
                    self.ledger.advance(count);
                    wrote = true;
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if wrote {
            self.count_written();
            self.unflushed = true;
        }
        if self.unflushed && matches!(result, Poll::Ready(Ok(()))) {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        result
    }

    fn count_written(&mut self) {
        let now = Instant::now();
        let mut settled = 0;
        while let Some(sent) = self.ledger.pop_written() {
            settled += sent.cost;
            if let Some((payload, read_at)) = sent.frame {
                let latency = now.saturating_duration_since(read_at);
                self.observer.frame_forwarded(self.outbox.direction(), payload, latency);
            }
        }
        self.outbox.settle(settled);
    }

    /// Reads once from the socket and hands on what is complete. `Pending`: nothing to read, or the leg cannot
    /// take any.
    fn poll_read(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // First, because a leg that waits for its turn must take it, or those behind it wait for ever.
        if let Some(close) = ready!(leg.poll_ready(cx)) {
            return Poll::Ready(Err(End::Ours(close, DropReason::ReceiverClosed)));
        }
        if self.wire.unwritten().len() > self.ledger.bytes() + PONG_LIMIT {
            leg.caught_up();
            return Poll::Pending;
        }
        if let Some(unread) = self.unread.take() {
            return self.hand_on(leg, cx, &unread);
        }
        SCRATCH.with_borrow_mut(|scratch| match ready!(Pin::new(&mut self.socket).poll_read(cx, scratch)) {
            Ok(0) => Poll::Ready(Err(End::PeerLost)),
            Ok(count) => self.hand_on(leg, cx, scratch.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(End::PeerLost)),
        })
    }

    fn hand_on(
        &mut self,
        leg: &mut impl Leg,
        cx: &mut Context<'_>,
        mut input: &[u8],
    ) -> Poll<Result<(), End>> {
        let read_at = Instant::now();
        loop {
            let close = match self.wire.receive(&mut input) {
                Ok(None) => {
                    leg.caught_up();
                    return Poll::Ready(Ok(()));
                }
                Ok(Some(Received::Message(message))) => leg.receive(&message, read_at),
                Ok(Some(Received::Close(code))) => return Poll::Ready(Err(End::PeerClosed(code))),
                Err(Broken::TooBig) => Some(Close::MessageTooBig),
                Err(Broken::Protocol) => return Poll::Ready(Err(End::PeerLost)),
            };
            let close = match close {
                Some(close) => Some(close),
                None => match leg.poll_ready(cx) {
                    Poll::Ready(close) => close,
                    Poll::Pending => {
                        self.unread = Some(input.to_vec());
                        return Poll::Pending;
                    }
                },
            };
            if let Some(close) = close {
                return Poll::Ready(Err(End::Ours(close, DropReason::ReceiverClosed)));
            }
        }
    }

    /// Counts what will not be delivered: the outgoing buffer behind what has to be finished before a close frame
    /// can come, and the queue.
    fn drop_undelivered(&mut self, end: End) {
        let (keep, in_flight, queued) = match end {
            End::Ours(_, reason) => (self.ledger.begun(), reason, reason),
            End::PeerClosed(_) => {
                (self.ledger.begun(), DropReason::ReceiverClosed, DropReason::ReceiverClosed)
            }
            End::PeerLost => (0, DropReason::ReceiverClosed, DropReason::ReceiverClosed),
            End::WriteFailed => (0, DropReason::WriteFailed, DropReason::ReceiverClosed),
        };
        self.drop_in_flight(keep, in_flight);
        for item in self.outbox.end() {
            if let Item::Frame(_) = item {
                self.observer.frame_dropped(self.outbox.direction(), queued);
            }
        }
    }

    /// Forgets the frames in the outgoing buffer behind the first `keep`, and counts them. What stands before them
    /// stays: the frames kept, and answers to pings.
    fn drop_in_flight(&mut self, keep: usize, reason: DropReason) {
        if let Some(bytes) = self.ledger.bytes_before(keep) {
            self.wire.forget_after(bytes);
        }
        let mut settled = 0;
        while let Some(dropped) = self.ledger.pop_beyond(keep) {
            settled += dropped.cost;
            if dropped.frame.is_some() {
                self.observer.frame_dropped(self.outbox.direction(), reason);
            }
        }
        self.outbox.settle(settled);
    }

    /// Tells the peer that nothing more will come, and reads what it still sends until it hangs up: closing a
    /// socket with unread bytes would make the kernel reset it, and the peer might never see its close frame.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.socket).poll_close(cx).is_pending() {
            return Poll::Pending;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            match ready!(Pin::new(&mut self.socket).poll_read(cx, scratch)) {
                Ok(0) | Err(_) => Poll::Ready(()),
                // Not in a loop: a peer that always has more would keep the deadline from being looked at.
                Ok(_) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
    }
}

/// Tells a connection that was upgraded and will not be served why, and hangs up.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(socket: S, close: Close) {
    let observer: Arc<dyn Observer> = Arc::new(());
    // Nothing is ever queued or read as a message here: the outbox and the limits only have to exist.
    let outbox = Arc::new(Outbox::new(Endpoint::Client, 0, Arc::clone(&observer)));
    let mut session = Session::new(socket, Vec::new(), 0, outbox, observer);
    session.farewell(End::Ours(close, DropReason::ReceiverClosed)).await;
}
