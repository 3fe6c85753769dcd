//! A phone's connection: from its registration to its farewell (PROTOCOL §§ 2, 3).
//!
//! A phone's message must be exactly one JSON value; it is wrapped with the phone's `conn_id` and queued for the
//! binary that the phone registered under. Frames that were read together are queued a few at a time. While the binary's outbox is full, the phone
//! holds those and is not read from. When the phone goes, its binary is told with a close notice, unless it asked for that itself.
//!
//! The notice waits for room like a frame, behind the frames that still wait, and until it is queued the phone
//! keeps its place in the registry. So there are never more notices under way than there are places for phones,
//! however slow the binary and however often phones come and go.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_lite::future;

use super::close::Close;
use super::end::End;
use super::envelope;
use super::hub::{Hub, PhoneRefused, PhoneRegistration};
use super::item::{Frame, Item};
use super::observer::{Direction, DropReason, Endpoint, UpgradeOutcome};
use super::outbox::Turn;
use super::registry::ServerId;
use super::session::{Leg, Session, refuse};
use super::shared::Shared;
use super::text::Text;
use super::transport::Transport;
use crate::event;

/// Frames that are queued together, if they were read together.
const AT_ONCE: usize = 32;

/// What a phone said when it connected.
#[derive(Clone, Debug)]
pub struct PhoneHello {
    /// The server-id it dialled.
    pub server_id: ServerId,
    /// What it calls itself, if it does.
    pub device_name: Option<Box<[u8]>>,
    /// Where it comes from.
    pub remote: IpAddr,
}

/// Registers a phone, forwards until its connection ends, and cleans up. `_held` is what goes with the connection, such as
/// the guard that counts it as running; it is let go then.
pub async fn serve<S, G>(hub: Arc<Hub>, _held: G, socket: S, already_read: Vec<u8>, hello: PhoneHello)
where
    S: Transport + Unpin,
{
    let shared = Arc::clone(hub.shared());
    let registration = match hub.register_phone(&hello.server_id) {
        Ok(registration) => registration,
        Err(refused) => {
            let (close, outcome) = match refused {
                // Without random numbers nobody can be named; the phone tries again, as it does without a binary.
                PhoneRefused::NoServer | PhoneRefused::NoRandomness => {
                    (Close::NoServer, UpgradeOutcome::Reject404)
                }
                PhoneRefused::Full => (Close::TooManyPhones, UpgradeOutcome::Reject429),
                PhoneRefused::Draining(close) => (close, UpgradeOutcome::RejectDraining),
            };
            shared.observer.upgrade(Endpoint::Client, outcome);
            shared.observer.connection_closed(Endpoint::Client, close.cause());
            hub.refusals.phone(&hello.server_id, hello.remote, close.cause(), shared.now());
            // In a box: every session that is not refused would otherwise carry the room for it.
            return Box::pin(refuse(socket, End::refusal(close), shared)).await;
        }
    };
    shared.observer.upgrade(Endpoint::Client, UpgradeOutcome::Accept);
    let link = Arc::clone(registration.link());
    event::phone_registered(&hello.server_id, link.conn_id, hello.device_name.as_deref(), hello.remote);

    let outbox = Arc::clone(&link.outbox);
    let max_message = shared.settings.max_frame;
    let mut session = Session::new(socket, already_read, max_message, outbox, Arc::clone(&shared));
    let mut leg = PhoneLeg {
        registration,
        shared: Arc::clone(&shared),
        waiting: VecDeque::new(),
        turn: Turn::default(),
        outlived: false,
    };
    let end = session.run(&mut leg).await;

    let cause = end.cause();
    shared.observer.connection_closed(Endpoint::Client, cause);
    event::phone_unregistered(
        &hello.server_id,
        link.conn_id,
        hello.device_name.as_deref(),
        hello.remote,
        cause,
    );
    let code = notice_code(end).filter(|_| !link.close_was_requested());
    let notice = code.map(|code| envelope::close_notice(link.conn_id, code));
    // In a box: every session would otherwise carry the room for its end.
    Box::pin(future::zip(depart(leg, notice), session.farewell(end))).await;
}

/// The code that the binary is told, if it is told.
fn notice_code(end: End) -> Option<u16> {
    match end {
        End::Ours(Close::BinaryRequest(_), _) => None,
        End::Ours(close, _) | End::WriteFailed(close) => Some(close.code()),
        End::PeerClosed(code) => Some(code.unwrap_or(1001)),
        End::PeerLost => Some(1001),
    }
}

struct PhoneLeg {
    registration: PhoneRegistration,
    shared: Arc<Shared>,
    /// What was read and has no place in the binary's outbox yet: a few frames, or, when the connection has ended, all that
    /// was read and at last the notice.
    waiting: VecDeque<Item>,
    turn: Turn,
    /// The binary ended while a frame waited for it. What was read together with that frame dies with it, and does not
    /// cost the phone its connection.
    outlived: bool,
}

impl PhoneLeg {
    fn dropped(&self, reason: DropReason) {
        self.shared.observer.frame_dropped(Direction::PhoneToBinary, reason);
    }

    /// Queues what waits. `Ready(false)`: the binary is gone, and what waited is dropped.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let outbox = &self.registration.binary().outbox;
        let pushed = ready!(outbox.poll_push(cx, &mut self.turn, &mut self.waiting));
        if !pushed {
            self.outlived |= self.turn.is_waiting();
            self.drop_waiting();
        }
        Poll::Ready(pushed)
    }

    fn drop_waiting(&mut self) {
        self.registration.binary().outbox.leave(&mut self.turn);
        let reason = if self.outlived { DropReason::ReceiverClosed } else { DropReason::NoBinary };
        for item in std::mem::take(&mut self.waiting) {
            if let Item::Frame(_) = item {
                self.dropped(reason);
            }
        }
    }
}

impl Drop for PhoneLeg {
    fn drop(&mut self) {
        self.drop_waiting();
    }
}

impl Leg for PhoneLeg {
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close> {
        self.shared.observer.frame_read(Direction::PhoneToBinary);
        let Ok(frame) = envelope::check_frame(message) else {
            self.dropped(DropReason::Malformed);
            return Some(Close::InvalidJson);
        };
        let text = envelope::wrap(self.registration.link().conn_id, frame);
        self.waiting.push_back(Item::Frame(Frame { text, payload: frame.len(), read_at }));
        None
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Close>> {
        let delivered = ready!(self.poll_deliver(cx));
        Poll::Ready((!delivered && !self.outlived).then_some(Close::BinaryDisconnected))
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= AT_ONCE
    }

    fn caught_up(&mut self) {
        self.outlived = false;
        self.steps_aside();
    }

    fn steps_aside(&mut self) {
        self.registration.binary().outbox.leave(&mut self.turn);
    }

    fn answered(&mut self) {}

    fn write_failed(&self) -> Close {
        Close::PhoneWriteFailed
    }
}

/// Queues what a phone whose connection ended still owes its binary, the frames that wait and the notice, and gives the
/// phone's place back.
async fn depart(mut leg: PhoneLeg, notice: Option<Text>) {
    leg.waiting.extend(notice.map(Item::Notice));
    poll_fn(|cx| leg.poll_deliver(cx)).await;
}
