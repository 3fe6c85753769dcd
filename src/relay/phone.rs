//! A phone's connection: from its registration to its farewell (PROTOCOL §§ 2, 3).
//!
//! A phone's message must be exactly one JSON value; it is wrapped with the phone's `conn_id` and queued for the
//! binary that the phone registered under. While the binary's outbox is full, the phone holds its one frame and is
//! not read from. When the phone goes, its binary is told with a close notice, unless it asked for that itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use smol::io::{AsyncRead, AsyncWrite};

use super::close::{Close, CloseCause};
use super::end::End;
use super::envelope;
use super::hub::{Hub, PhoneRefused, PhoneRegistration};
use super::live::LiveGuard;
use super::observer::{DropReason, Endpoint, Observer, UpgradeOutcome};
use super::outbox::{Frame, Turn};
use super::registry::ServerId;
use super::session::{Leg, Session, refuse};
use crate::event;

/// What a phone said when it connected.
#[derive(Clone, Debug)]
pub struct PhoneHello {
    /// The server-id it dialled.
    pub server_id: ServerId,
    /// What it calls itself, if it does.
    pub device_name: Option<Box<[u8]>>,
    /// Where it comes from.
    pub remote: SocketAddr,
}

/// Registers a phone, forwards until its connection ends, and cleans up. `_live` counts it as running until then.
pub async fn serve<S>(hub: Arc<Hub>, _live: LiveGuard, socket: S, already_read: Vec<u8>, hello: PhoneHello)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let observer = Arc::clone(hub.observer());
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
            observer.upgrade(Endpoint::Client, outcome);
            observer.connection_closed(Endpoint::Client, close.cause());
            hub.refusals.phone(&hello.server_id, hello.remote.ip(), close.cause());
            // In a box: every session that is not refused would otherwise carry the room for it.
            return Box::pin(refuse(socket, close)).await;
        }
    };
    observer.upgrade(Endpoint::Client, UpgradeOutcome::Accept);
    let link = Arc::clone(registration.link());
    event::phone_registered(&hello.server_id, link.conn_id, hello.device_name.as_deref(), hello.remote.ip());

    let outbox = Arc::clone(&link.outbox);
    let mut session =
        Session::new(socket, already_read, hub.settings().max_frame, outbox, Arc::clone(&observer));
    let mut leg =
        PhoneLeg { registration, observer: Arc::clone(&observer), waiting: None, turn: Turn::default() };
    let end = session.run(&mut leg).await;

    leg.leave_line();
    if let Some(code) = notice_code(end).filter(|_| !link.close_was_requested()) {
        leg.registration.binary().outbox.push_notice(envelope::close_notice(link.conn_id, code));
    }
    drop(leg);
    let cause = end.cause(CloseCause::PhoneWriteFailed);
    observer.connection_closed(Endpoint::Client, cause);
    event::phone_unregistered(
        &hello.server_id,
        link.conn_id,
        hello.device_name.as_deref(),
        hello.remote.ip(),
        cause,
    );
    session.farewell(end).await;
}

/// The code that the binary is told, if it is told.
fn notice_code(end: End) -> Option<u16> {
    match end {
        End::Ours(Close::BinaryRequest(_), _) => None,
        End::Ours(close, _) => Some(close.code()),
        End::PeerClosed(code) => Some(code.unwrap_or(1001)),
        End::PeerLost => Some(1001),
        End::WriteFailed => Some(Close::PhoneWriteFailed.code()),
    }
}

struct PhoneLeg {
    registration: PhoneRegistration,
    observer: Arc<dyn Observer>,
    /// A frame that was read and has no place in the binary's outbox yet.
    waiting: Option<Frame>,
    turn: Turn,
}

impl PhoneLeg {
    fn dropped(&self, reason: DropReason) {
        self.observer.frame_dropped(self.registration.binary().outbox.direction(), reason);
    }

    /// The session ended: a frame that still waits for a place will not get one.
    fn leave_line(&mut self) {
        let outbox = &self.registration.binary().outbox;
        outbox.leave(&mut self.turn);
        let reason = if outbox.is_open() { DropReason::Backlog } else { DropReason::NoBinary };
        if self.waiting.take().is_some() {
            self.dropped(reason);
        }
    }
}

impl Leg for PhoneLeg {
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close> {
        let Ok(frame) = envelope::check_frame(message) else {
            self.dropped(DropReason::Malformed);
            return Some(Close::InvalidJson);
        };
        let text = envelope::wrap(self.registration.link().conn_id, frame);
        self.waiting = Some(Frame { text, payload: frame.len(), read_at });
        None
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Close>> {
        let outbox = &self.registration.binary().outbox;
        match outbox.poll_push(cx, &mut self.turn, &mut self.waiting) {
            Poll::Ready(true) => Poll::Ready(None),
            Poll::Ready(false) => {
                self.waiting = None;
                self.dropped(DropReason::NoBinary);
                Poll::Ready(Some(Close::BinaryDisconnected))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn caught_up(&mut self) {
        self.registration.binary().outbox.leave(&mut self.turn);
    }
}
