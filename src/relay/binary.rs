//! A binary's connection: from its claim to its farewell (PROTOCOL §§ 2, 3).
//!
//! A binary's message is an envelope that names one of its phones. The frame in it goes to that phone's outbox and
//! nowhere else: a binary reaches phones through its own link, so it cannot name another server-id's. Whatever is
//! wrong with an envelope costs the binary a frame and never its connection.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::close::{Close, CloseCause};
use super::conn_id::ConnId;
use super::contest::{self, Newcomer};
use super::end::End;
use super::envelope::{self, FromBinary, Malformed};
use super::hub::{ClaimRefused, Claimed, Hub};
use super::item::{Frame, Item};
use super::link::{BinaryLink, PhoneLink};
use super::observer::{Direction, DropReason, Endpoint, UpgradeOutcome};
use super::outbox::Refused;
use super::registry::ServerId;
use super::session::{Leg, Session, refuse};
use super::shared::Shared;
use super::transport::Transport;
use crate::event::{self, Throttle};

/// Bytes that an envelope may have beyond its inner frame, so that both directions carry the same frames.
pub(super) const ENVELOPE_ALLOWANCE: usize = 1024;

/// What a binary said when it connected.
#[derive(Clone, Debug)]
pub struct BinaryHello {
    /// The server-id it claims.
    pub server_id: ServerId,
    /// Its version.
    pub version: Box<[u8]>,
    /// Where it comes from.
    pub remote: IpAddr,
}

/// Claims a server-id for a binary, forwards until its connection ends, and begins the grace period. `_held` is what goes
/// with the connection, such as the guard that counts it as running; it is let go when the farewell is over.
pub async fn serve<S, G>(hub: Arc<Hub>, _held: G, socket: S, already_read: Vec<u8>, hello: BinaryHello)
where
    S: Transport + Unpin,
{
    let shared = Arc::clone(hub.shared());
    let mut newcomer = Newcomer { socket, already_read };
    let claimed = match hub.claim(&hello.server_id) {
        // In a box: every session would otherwise carry the room for it.
        Err(ClaimRefused::Conflict(incumbent)) => {
            Box::pin(contest::hold(&hub, &hello.server_id, &incumbent, &mut newcomer)).await
        }
        claimed => claimed,
    };
    let (claim, claimed) = match claimed {
        Ok(claim) => claim,
        Err(refused) => {
            let (end, outcome) = match refused {
                ClaimRefused::Conflict(_) => {
                    hub.refusals.conflict(&hello.server_id, hello.remote, shared.now());
                    (End::refusal(Close::AlreadyClaimed), UpgradeOutcome::Reject409)
                }
                ClaimRefused::Left(end) => (end, UpgradeOutcome::Reject409),
                ClaimRefused::Draining(close) => (End::refusal(close), UpgradeOutcome::RejectDraining),
            };
            shared.observer.upgrade(Endpoint::Server, outcome);
            shared.observer.connection_closed(Endpoint::Server, end.cause());
            return Box::pin(refuse(newcomer.socket, end, shared)).await;
        }
    };
    shared.observer.upgrade(Endpoint::Server, UpgradeOutcome::Accept);
    let remote = hello.remote;
    match claimed {
        Claimed::Fresh => event::server_claimed(&hello.server_id, &hello.version, remote),
        Claimed::Reclaimed { phones } => event::server_reclaimed(&hello.server_id, remote, phones),
        Claimed::TakenOver { phones } => event::server_id_takeover(&hello.server_id, remote, phones),
    }

    let link = Arc::clone(claim.link());
    let max_message = shared.settings.max_frame + ENVELOPE_ALLOWANCE;
    let outbox = Arc::clone(&link.outbox);
    let mut session =
        Session::new(newcomer.socket, newcomer.already_read, max_message, outbox, Arc::clone(&shared));
    let mut leg = BinaryLeg { link, shared: Arc::clone(&shared), throttles: None };
    let end = session.run(&mut leg).await;

    let cause = end.cause();
    // Whoever sees the grace period sees why it began.
    shared.observer.connection_closed(Endpoint::Server, cause);
    drop(claim);
    if !matches!(cause, CloseCause::PeerClosed | CloseCause::ShuttingDown) {
        event::connection_lost(&hello.server_id, None, cause);
    }
    // In a box: every session would otherwise carry the room for its end.
    Box::pin(session.farewell(end)).await;
}

struct BinaryLeg {
    link: Arc<BinaryLink>,
    shared: Arc<Shared>,
    /// Made when there is something to throttle, which most binaries never give reason for.
    throttles: Option<Box<Throttles>>,
}

#[derive(Default)]
struct Throttles {
    rejected: Throttle,
    unknown: Throttle,
}

impl BinaryLeg {
    fn dropped(&self, reason: DropReason) {
        self.shared.observer.frame_dropped(Direction::BinaryToPhone, reason);
    }

    fn frame_read(&self) {
        self.shared.observer.frame_read(Direction::BinaryToPhone);
    }

    fn reject(&mut self, cause: Malformed, now: Instant) {
        self.frame_read();
        self.dropped(DropReason::Malformed);
        if let Some(suppressed) = self.throttles.get_or_insert_default().rejected.admit(now) {
            event::envelope_rejected(&self.link.server_id, cause.as_str(), suppressed);
        }
    }

    fn find(&mut self, conn_id: Option<ConnId>, now: Instant) -> Option<Arc<PhoneLink>> {
        let phone = conn_id.and_then(|conn_id| self.link.phone(conn_id));
        if phone.is_none() {
            self.dropped(DropReason::UnknownConnId);
            if let Some(suppressed) = self.throttles.get_or_insert_default().unknown.admit(now) {
                let conn_id = conn_id.as_ref().map(|conn_id| conn_id as &dyn Display);
                event::unknown_conn_id(&self.link.server_id, conn_id, suppressed);
            }
        }
        phone
    }

    fn deliver(&self, phone: &PhoneLink, frame: &str, close: Option<Close>, read_at: Instant) {
        let frame = Frame { text: frame.into(), payload: frame.len(), read_at };
        match phone.outbox.push(Item::Frame(frame)) {
            Ok(()) => {
                if let Some(close) = close {
                    direct(phone, close);
                }
            }
            Err(Refused::Full) => {
                self.dropped(DropReason::Backlog);
                phone.outbox.cut(close.unwrap_or(Close::PhoneBacklogFull), DropReason::Backlog);
            }
            Err(Refused::Closed) => self.dropped(DropReason::ReceiverClosed),
        }
    }
}

/// Closes a phone as its binary asked. The directive counts as an item: where it does not fit, it closes at once. Who
/// closes already does so behind what is queued, as it was decided first.
fn direct(phone: &PhoneLink, close: Close) {
    if phone.outbox.has_room(0) || !phone.outbox.is_open() {
        phone.outbox.close_behind(close);
    } else {
        phone.outbox.cut(close, DropReason::Backlog);
    }
}

impl Leg for BinaryLeg {
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close> {
        match envelope::unwrap(message) {
            Ok(FromBinary::Deliver { conn_id, frame, close_code }) => {
                self.frame_read();
                if let Some(phone) = self.find(conn_id, read_at) {
                    let close = close_code.map(Close::BinaryRequest);
                    if close.is_some() {
                        phone.request_close();
                    }
                    self.deliver(&phone, frame, close, read_at);
                }
            }
            Ok(FromBinary::CloseOnly { conn_id, close_code }) => {
                if let Some(phone) = self.find(conn_id, read_at) {
                    phone.request_close();
                    direct(&phone, Close::BinaryRequest(close_code));
                } else {
                    // What is counted as dropped was read.
                    self.frame_read();
                }
            }
            Ok(FromBinary::PushWake { .. }) => self.shared.observer.push_wake_off(),
            Err(cause) => self.reject(cause, read_at),
        }
        None
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Option<Close>> {
        Poll::Ready(None)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn caught_up(&mut self) {}

    fn steps_aside(&mut self) {}

    fn answered(&mut self) {
        self.link.probe.answered();
    }

    fn write_failed(&self) -> Close {
        Close::BinaryWriteFailed
    }
}
