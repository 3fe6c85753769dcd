//! Two binaries for one server-id: the newcomer waits until it is known whether the incumbent is still there
//! (PROTOCOL § 2).
//!
//! An incumbent that answers keeps its place. One that is silent for `conflict_probe` loses it to the newcomer, if it
//! is still the holder then: of several newcomers the first one takes it, and for the others the slot is no longer held
//! by the connection that they asked about. An incumbent whose connection ends meanwhile leaves a slot in grace, which
//! the newcomer claims as anybody would.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future;

use super::binary::ENVELOPE_ALLOWANCE;
use super::end::End;
use super::hub::{BinaryClaim, ClaimRefused, Claimed, Hub};
use super::link::BinaryLink;
use super::probe::Answer;
use super::registry::ServerId;
use super::transport::Transport;
use super::wire::{Received, Wire};

/// Newcomers that may wait for one incumbent's answer. Only one can win; the others wait for nothing.
const MOST_NEWCOMERS: usize = 8;

/// How long, after its time ran out, the incumbent's answer may still be found in the kernel: if this process was
/// paused, it may have come in time.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Bytes that a newcomer may send before it is let in; what it sends beyond them waits in the kernel.
const EARLY_BYTES: usize = 16 * 1024;

/// A binary that was upgraded and holds nothing yet.
#[derive(Debug)]
pub(super) struct Newcomer<S> {
    pub(super) socket: S,
    /// What it sent already.
    pub(super) already_read: Vec<u8>,
}

/// What ended the wait.
enum Outcome {
    Answered(Answer),
    Silent,
    NewcomerLeft,
    Draining,
}

/// Settles who of the two holds `server_id`.
pub(super) async fn hold<S: Transport + Unpin>(
    hub: &Arc<Hub>,
    server_id: &ServerId,
    incumbent: &Arc<BinaryLink>,
    newcomer: &mut Newcomer<S>,
) -> Result<(BinaryClaim, Claimed), ClaimRefused> {
    let shared = hub.shared();
    let Some(_place) = incumbent.probe.join(MOST_NEWCOMERS) else {
        return Err(ClaimRefused::Conflict(Arc::clone(incumbent)));
    };
    let answer = async { Outcome::Answered(incumbent.probe.ask(&incumbent.outbox).await) };
    let silence = async {
        shared.clock.sleep(shared.settings.conflict_probe).await;
        shared.clock.sleep(LAST_LOOK).await;
        Outcome::Silent
    };
    let left = async {
        newcomer.left().await;
        Outcome::NewcomerLeft
    };
    let draining = async {
        hub.drain_began().await;
        Outcome::Draining
    };
    let outcome = future::or(future::or(draining, answer), future::or(left, silence)).await;
    if let Some(code) = newcomer.closed_with(shared.settings.max_frame + ENVELOPE_ALLOWANCE) {
        return Err(ClaimRefused::Left(End::PeerClosed(code)));
    }
    match outcome {
        Outcome::Answered(Answer::Alive) => Err(ClaimRefused::Conflict(Arc::clone(incumbent))),
        Outcome::NewcomerLeft => Err(ClaimRefused::Left(End::PeerLost)),
        // A conflict now is with somebody who came first.
        Outcome::Answered(Answer::Gone) | Outcome::Draining => hub.claim(server_id),
        Outcome::Silent => match hub.take_over(server_id, incumbent) {
            // Another newcomer was first, and may be gone again by now: then the slot is gracing.
            Err(ClaimRefused::Conflict(_)) => hub.claim(server_id),
            taken => taken,
        },
    }
}

impl<S: Transport + Unpin> Newcomer<S> {
    /// Waits until its peer hangs up. What it sends is kept.
    async fn left(&mut self) {
        poll_fn(|cx| self.poll_left(cx)).await;
    }

    /// The code of the close frame in what it sent, if there is one.
    #[expect(clippy::option_option, reason = "a close frame may have no code")]
    fn closed_with(&self, max_message: usize) -> Option<Option<u16>> {
        let mut wire = Wire::new(max_message);
        let mut read = self.already_read.clone();
        let mut input = read.as_mut_slice();
        while let Ok(Some(received)) = wire.receive(&mut input) {
            if let Received::Close(code) = received {
                return Some(code);
            }
        }
        None
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 1024];
        while self.already_read.len() < EARLY_BYTES {
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => {
                    self.already_read.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
