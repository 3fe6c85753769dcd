//! A binary's connection: from its claim to its farewell (PROTOCOL §§ 2, 3).
//!
//! A binary's message is an envelope that names one of its phones. The frame in it goes to that phone's outbox and
//! nowhere else: a binary reaches phones through its own link, so it cannot name another server-id's. Whatever is
//! wrong with an envelope costs the binary a frame and never its connection.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use smol::io::{AsyncRead, AsyncWrite};

use super::close::{Close, CloseCause};
use super::conn_id::ConnId;
use super::envelope::{self, FromBinary, Malformed};
use super::hub::{ClaimRefused, Claimed, Hub};
use super::link::{BinaryLink, PhoneLink};
use super::live::LiveGuard;
use super::observer::{Direction, DropReason, Endpoint, Observer, UpgradeOutcome};
use super::outbox::{Frame, Refused};
use super::registry::ServerId;
use super::session::{Leg, Session, refuse};
use crate::event::{self, Throttle};

/// Bytes that an envelope may have beyond its inner frame, so that both directions carry the same frames.
const ENVELOPE_ALLOWANCE: usize = 1024;

/// What a binary said when it connected.
#[derive(Clone, Debug)]
pub struct BinaryHello {
    /// The server-id it claims.
    pub server_id: ServerId,
    /// Its version.
    pub version: Box<[u8]>,
    /// Where it comes from.
    pub remote: SocketAddr,
}

/// Claims a server-id for a binary, forwards until its connection ends, and begins the grace period. `_live` counts it as
/// running until its farewell is over.
pub async fn serve<S>(hub: Arc<Hub>, _live: LiveGuard, socket: S, already_read: Vec<u8>, hello: BinaryHello)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let observer = Arc::clone(hub.observer());
    let (claim, claimed) = match hub.claim(&hello.server_id) {
        Ok(claim) => claim,
        Err(refused) => {
            let (close, outcome) = match refused {
                ClaimRefused::Conflict => {
                    hub.refusals.conflict(&hello.server_id, hello.remote.ip());
                    (Close::AlreadyClaimed, UpgradeOutcome::Reject409)
                }
                ClaimRefused::Draining(close) => (close, UpgradeOutcome::RejectDraining),
            };
            observer.upgrade(Endpoint::Server, outcome);
            observer.connection_closed(Endpoint::Server, close.cause());
            // In a box: every session that is not refused would otherwise carry the room for it.
            return Box::pin(refuse(socket, close)).await;
        }
    };
    observer.upgrade(Endpoint::Server, UpgradeOutcome::Accept);
    match claimed {
        Claimed::Fresh => event::server_claimed(&hello.server_id, &hello.version, hello.remote.ip()),
        Claimed::Reclaimed { phones } => event::server_reclaimed(&hello.server_id, hello.remote.ip(), phones),
    }

    let link = Arc::clone(claim.link());
    let max_message = hub.settings().max_frame + ENVELOPE_ALLOWANCE;
    let outbox = Arc::clone(&link.outbox);
    let mut session = Session::new(socket, already_read, max_message, outbox, Arc::clone(&observer));
    let mut leg = BinaryLeg {
        link,
        observer: Arc::clone(&observer),
        rejected: Throttle::default(),
        unknown: Throttle::default(),
    };
    let end = session.run(&mut leg).await;

    drop(claim);
    let cause = end.cause(CloseCause::BinaryWriteFailed);
    observer.connection_closed(Endpoint::Server, cause);
    if !matches!(cause, CloseCause::PeerClosed | CloseCause::ShuttingDown) {
        event::connection_lost(&hello.server_id, None, cause);
    }
    session.farewell(end).await;
}

struct BinaryLeg {
    link: Arc<BinaryLink>,
    observer: Arc<dyn Observer>,
    rejected: Throttle,
    unknown: Throttle,
}

impl BinaryLeg {
    fn dropped(&self, reason: DropReason) {
        self.observer.frame_dropped(Direction::BinaryToPhone, reason);
    }

    fn reject(&mut self, cause: Malformed, now: Instant) {
        self.dropped(DropReason::Malformed);
        if let Some(suppressed) = self.rejected.admit(now) {
            event::envelope_rejected(&self.link.server_id, cause.as_str(), suppressed);
        }
    }

    fn find(&mut self, conn_id: Option<ConnId>, now: Instant) -> Option<Arc<PhoneLink>> {
        let phone = conn_id.and_then(|conn_id| self.link.phone(conn_id));
        if phone.is_none() {
            self.dropped(DropReason::UnknownConnId);
            if let Some(suppressed) = self.unknown.admit(now) {
                let conn_id = conn_id.as_ref().map(|conn_id| conn_id as &dyn Display);
                event::unknown_conn_id(&self.link.server_id, conn_id, suppressed);
            }
        }
        phone
    }

    fn deliver(&self, phone: &PhoneLink, frame: &str, close: Option<Close>, read_at: Instant) {
        let frame = Frame { text: frame.to_owned(), payload: frame.len(), read_at };
        match phone.outbox.push(frame) {
            Ok(()) => {
                if let Some(close) = close {
                    phone.outbox.push_close(close);
                }
            }
            Err(Refused::Full(_)) => {
                self.dropped(DropReason::Backlog);
                phone.outbox.cut(close.unwrap_or(Close::PhoneBacklogFull), DropReason::Backlog);
            }
            Err(Refused::Closed(_)) => self.dropped(DropReason::ReceiverClosed),
        }
    }
}

impl Leg for BinaryLeg {
    fn receive(&mut self, message: &[u8], read_at: Instant) -> Option<Close> {
        match envelope::unwrap(message) {
            Ok(FromBinary::Deliver { conn_id, frame, close_code }) => {
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
                    phone.outbox.push_close(Close::BinaryRequest(close_code));
                }
            }
            Ok(FromBinary::PushWake { .. }) => self.observer.push_wake_off(),
            Err(cause) => self.reject(cause, read_at),
        }
        None
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Option<Close>> {
        Poll::Ready(None)
    }

    fn caught_up(&mut self) {}
}
