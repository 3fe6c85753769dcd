//! The reading half of a session's turn: what came is taken apart and handed on, message by message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::{Leg, PONG_LIMIT, SCRATCH, Session};
use crate::relay::close::Close;
use crate::relay::end::End;
use crate::relay::observer::DropReason;
use crate::relay::transport::Transport;
use crate::relay::wire::{Broken, Received};

impl<S: Transport + Unpin> Session<S> {
    /// Reads once from the socket and hands on what is complete. `Pending`: nothing to read, or the leg cannot
    /// take any.
    pub(super) fn poll_read(&mut self, leg: &mut impl Leg, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // First, because a leg that waits for its turn must take it, or those behind it wait for ever.
        match leg.poll_ready(cx) {
            Poll::Ready(Some(close)) if self.closing.is_none() => {
                return Poll::Ready(Err(End::Ours(close, DropReason::ReceiverClosed)));
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                self.deadlines.stops_reading();
                return Poll::Pending;
            }
        }
        // Who has been told to go is not listened to any more; it only gets what waits for it.
        if self.closing.is_some() {
            leg.steps_aside();
            self.deadlines.stops_reading();
            return Poll::Pending;
        }
        // That is the peer's doing: its time runs on. When nothing can be written any more, there is nothing to wait for.
        if self.wire.unwritten_control() > PONG_LIMIT && !self.write_failed {
            leg.steps_aside();
            return Poll::Pending;
        }
        self.deadlines.reads(|| self.shared.now(), &self.shared.settings);
        self.emptied = false;
        if let Some((mut unread, read_at)) = self.unread.take() {
            return self.hand_on(leg, cx, &mut unread, read_at);
        }
        SCRATCH.with_borrow_mut(|scratch| match Pin::new(&mut self.socket).poll_read(cx, scratch) {
            Poll::Pending => {
                self.hears_a_part(leg);
                Poll::Pending
            }
            Poll::Ready(read) => self.take_read(leg, cx, scratch, read),
        })
    }

    /// What came is not whole yet, but it came.
    fn hears_a_part(&mut self, leg: &mut impl Leg) {
        if self.socket.has_heard() {
            let under_way = self.wire.message_under_way(self.socket.holds_a_part());
            let now = self.now();
            self.deadlines.heard(now, under_way, &self.shared.settings);
            if std::mem::take(&mut self.probed) {
                leg.answered();
            }
        }
    }

    fn take_read(
        &mut self,
        leg: &mut impl Leg,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        read: io::Result<usize>,
    ) -> Poll<Result<(), End>> {
        match read {
            Ok(0) => Poll::Ready(Err(End::PeerLost)),
            Ok(count) => {
                let read_at = self.look_at_clock();
                self.emptied = count < scratch.len();
                let handed_on = self.hand_on(leg, cx, scratch.get_mut(..count).unwrap_or_default(), read_at);
                // A goodbye is no answer: its sender makes room by itself.
                if !matches!(handed_on, Poll::Ready(Err(_))) && std::mem::take(&mut self.probed) {
                    leg.answered();
                }
                handed_on
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(End::PeerLost)),
        }
    }

    fn hand_on(
        &mut self,
        leg: &mut impl Leg,
        cx: &mut Context<'_>,
        mut input: &mut [u8],
        read_at: Instant,
    ) -> Poll<Result<(), End>> {
        loop {
            let (close, all_taken) = match self.wire.receive(&mut input) {
                Ok(None) => (None, true),
                Ok(Some(Received::Message(message))) => {
                    let close = leg.receive(&message, read_at);
                    if close.is_none() && !leg.is_full() {
                        continue;
                    }
                    (close, false)
                }
                Ok(Some(Received::Close(code))) => return Poll::Ready(Err(End::PeerClosed(code))),
                Err(Broken::TooBig) => (Some(Close::MessageTooBig), false),
                Err(Broken::Protocol) => return Poll::Ready(Err(End::PeerLost)),
            };
            let mut ready = close.map_or_else(|| leg.poll_ready(cx), |close| Poll::Ready(Some(close)));
            if close.is_none() && !matches!(ready, Poll::Ready(None)) {
                // Also if this ends the connection: what was read together was read.
                self.unread = Some((input.to_vec(), read_at));
            }
            if ready.is_pending() {
                self.deadlines.stops_reading();
            } else if all_taken && ready == Poll::Ready(None) {
                leg.caught_up();
                let now = self.now();
                let under_way = self.wire.message_under_way(self.socket.holds_a_part());
                self.deadlines.heard(now, under_way, &self.shared.settings);
                if !self.deadlines.message_is_overdue(now) {
                    return Poll::Ready(Ok(()));
                }
                ready = Poll::Ready(Some(Close::MessageTimedOut));
            }
            if let Some(close) = ready!(ready) {
                return Poll::Ready(Err(End::Ours(close, DropReason::ReceiverClosed)));
            }
        }
    }

    /// The session ended while the leg could not take all that was read: it takes it now. What was read completely was
    /// read, whether or not its sender is still there.
    pub(super) fn hand_on_the_rest(&mut self, leg: &mut impl Leg) {
        let Some((mut unread, read_at)) = self.unread.take() else { return };
        let mut input = unread.as_mut_slice();
        while let Ok(Some(Received::Message(message))) = self.wire.receive(&mut input) {
            if leg.receive(&message, read_at).is_some() {
                return;
            }
        }
    }
}
