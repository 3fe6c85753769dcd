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

use super::close::{Close, CloseCause};
use super::observer::{DropReason, Endpoint, Observer};
use super::outbox::{Cut, Item, Outbox, Taken};
use super::wire::{Broken, Received, Wire};

/// Bytes read from a socket at a time. The buffer belongs to the thread, not to the connection.
const READ_SIZE: usize = 64 * 1024;

/// Outgoing bytes beyond which nothing more is taken from the outbox until some are written.
const HIGH_WATER: usize = 64 * 1024;

/// Outgoing bytes beyond which the session stops reading: only the answers to a peer that pings and does not read
/// can pile up so far.
const PONG_LIMIT: usize = HIGH_WATER * 16;

/// Times that the outgoing buffer is filled and written before the session reads, and lets others run. A binary
/// writes what several phones have read, so that it must get further in its turn than each of them in theirs.
const WRITE_ROUNDS: usize = 8;

/// Frames in the outgoing buffer for which an idle session keeps its memory.
const IDLE_IN_FLIGHT: usize = 4;

/// How long a connection that ended may take to get its close frame and to hang up.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
    static TAKEN: RefCell<VecDeque<Item>> = const { RefCell::new(VecDeque::new()) };
}

/// A complete message.
#[derive(Clone, Copy, Debug)]
pub enum Inbound<'a> {
    /// Checked to be UTF-8.
    Text(&'a str),
    /// Sent as binary; whether it is UTF-8 is for the leg to see.
    Binary(&'a [u8]),
    /// Sent as text and not UTF-8.
    NotUtf8,
}

/// What a session does with the messages it reads.
pub trait Leg {
    /// Takes one message, read at `read_at`. Returns the close that it costs the sender, if it does.
    fn receive(&mut self, message: Inbound<'_>, read_at: Instant) -> Option<Close>;

    /// Whether another message can be taken. `Ready(Some)`: the connection must close.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Close>>;

    /// Everything that was read has been taken; the next message may be long in coming.
    fn caught_up(&mut self);
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The relay closes it. The queued frames die for the reason given.
    Ours(Close, DropReason),
    /// The peer sent a close frame, with its code if it had one.
    PeerClosed(Option<u16>),
    /// The peer's socket ended or failed, or it broke the WebSocket protocol.
    PeerLost,
    /// A write failed.
    WriteFailed,
}

impl End {
    /// The cause to count, for a connection whose failed write is `write_failed`.
    #[must_use]
    pub fn cause(self, write_failed: CloseCause) -> CloseCause {
        match self {
            Self::Ours(close, _) => close.cause(),
            Self::PeerClosed(_) => CloseCause::PeerClosed,
            Self::PeerLost => CloseCause::PeerLost,
            Self::WriteFailed => write_failed,
        }
    }

    /// The code and reason of the close frame that the peer gets, if it can get one.
    fn last_words(self) -> Option<(u16, std::borrow::Cow<'static, str>)> {
        match self {
            Self::Ours(close, _) => Some((close.code(), close.reason())),
            Self::PeerClosed(code) => Some((code.unwrap_or(1000), "".into())),
            Self::PeerLost | Self::WriteFailed => None,
        }
    }
}

/// A frame in the outgoing buffer.
#[derive(Debug)]
struct InFlight {
    /// Where it begins and ends, in bytes since the session began.
    begins_at: u64,
    ends_at: u64,
    cost: usize,
    /// Nothing for a notice.
    frame: Option<(usize, Instant)>,
}

/// A WebSocket connection over `S`.
pub struct Session<S> {
    socket: S,
    wire: Wire,
    outbox: Arc<Outbox>,
    observer: Arc<dyn Observer>,
    /// Bytes that were read and cannot be taken yet.
    unread: Vec<u8>,
    in_flight: VecDeque<InFlight>,
    /// Bytes written since the session began.
    written: u64,
    /// Something was written since the last flush.
    unflushed: bool,
    /// The close that was queued behind the frames now in the outgoing buffer.
    closing: Option<Close>,
}

impl<S> std::fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("outbox", &self.outbox)
            .field("written", &self.written)
            .finish_non_exhaustive()
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
            unread: already_read,
            in_flight: VecDeque::new(),
            written: 0,
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
    pub async fn farewell(mut self, end: End) {
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

    /// Where the next byte of the outgoing buffer's end will stand, in bytes since the session began.
    fn appended(&self) -> u64 {
        self.written + self.wire.unwritten().len() as u64
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
        self.wire.rest();
        if self.in_flight.is_empty() && self.in_flight.capacity() > IDLE_IN_FLIGHT {
            self.in_flight = VecDeque::new();
        }
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
        let begins_at = self.appended();
        self.wire.send_text(text);
        self.in_flight.push_back(InFlight {
            begins_at,
            ends_at: self.appended(),
            cost,
            frame,
        });
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
                    self.written += count as u64;
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
        while self
            .in_flight
            .front()
            .is_some_and(|sent| sent.ends_at <= self.written)
        {
            let Some(sent) = self.in_flight.pop_front() else {
                break;
            };
            settled += sent.cost;
            if let Some((payload, read_at)) = sent.frame {
                let latency = now.saturating_duration_since(read_at);
                self.observer
                    .frame_forwarded(self.outbox.direction(), payload, latency);
            }
        }
        self.outbox.settle(settled);
    }

    /// Reads once from the socket and hands on what is complete. `Pending`: nothing to read, or the leg cannot
    /// take any.
    fn poll_read(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.wire.unwritten().len() > PONG_LIMIT {
            return Poll::Pending;
        }
        if let Some(close) = ready!(leg.poll_ready(cx)) {
            return Poll::Ready(Err(End::Ours(close, DropReason::ReceiverClosed)));
        }
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            return self.hand_on(leg, cx, &unread);
        }
        SCRATCH.with_borrow_mut(
            |scratch| match ready!(Pin::new(&mut self.socket).poll_read(cx, scratch)) {
                Ok(0) => Poll::Ready(Err(End::PeerLost)),
                Ok(count) => self.hand_on(leg, cx, scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Poll::Ready(Ok(())),
                Err(_) => Poll::Ready(Err(End::PeerLost)),
            },
        )
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
                Ok(Some(Received::Text(text))) => leg.receive(Inbound::Text(&text), read_at),
                Ok(Some(Received::Binary(bytes))) => leg.receive(Inbound::Binary(&bytes), read_at),
                Ok(Some(Received::NotUtf8)) => leg.receive(Inbound::NotUtf8, read_at),
                Ok(Some(Received::Close(code))) => return Poll::Ready(Err(End::PeerClosed(code))),
                Err(Broken::TooBig) => Some(Close::MessageTooBig),
                Err(Broken::Protocol) => return Poll::Ready(Err(End::PeerLost)),
            };
            let close = match close {
                Some(close) => Some(close),
                None => match leg.poll_ready(cx) {
                    Poll::Ready(close) => close,
                    Poll::Pending => {
                        self.unread = input.to_vec();
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
            End::Ours(_, reason) => (self.half_written(), reason, reason),
            End::PeerClosed(_) => (
                self.half_written(),
                DropReason::ReceiverClosed,
                DropReason::ReceiverClosed,
            ),
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

    /// How many frames at the front of the outgoing buffer have begun to be written: none or one.
    fn half_written(&self) -> usize {
        usize::from(
            self.in_flight
                .front()
                .is_some_and(|first| first.begins_at < self.written),
        )
    }

    /// Forgets the frames in the outgoing buffer behind the first `keep`, and counts them.
    fn drop_in_flight(&mut self, keep: usize, reason: DropReason) {
        // What stands before the first forgotten frame stays: the frames kept, and answers to pings.
        if let Some(first) = self.in_flight.get(keep) {
            let kept = match keep.checked_sub(1).and_then(|last| self.in_flight.get(last)) {
                Some(last) => last.ends_at,
                None => first.begins_at,
            };
            let bytes = usize::try_from(kept.saturating_sub(self.written)).unwrap_or(usize::MAX);
            self.wire.forget_after(bytes);
        }
        let mut settled = 0;
        for dropped in self.in_flight.drain(keep..) {
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
            loop {
                match ready!(Pin::new(&mut self.socket).poll_read(cx, scratch)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
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
    let session = Session::new(socket, Vec::new(), 0, outbox, observer);
    session
        .farewell(End::Ours(close, DropReason::ReceiverClosed))
        .await;
}
