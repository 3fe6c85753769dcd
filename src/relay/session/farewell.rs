//! The end of a session: what will not be delivered is counted, the peer is told why, and the socket is let go of gently.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future;

use super::{SCRATCH, Session};
use crate::relay::end::End;
use crate::relay::item::Item;
use crate::relay::observer::{DropReason, Endpoint};
use crate::relay::shared::Shared;
use crate::relay::transport::Transport;

/// How long a connection that ended may take to get its close frame and to hang up.
const FAREWELL: Duration = Duration::from_secs(2);

impl<S: Transport + Unpin> Session<S> {
    /// Sends the close frame that belongs to `end` and hangs up, within a bounded time.
    pub async fn farewell(mut self, end: End) {
        if let Some((code, reason)) = end.last_words() {
            self.wire.send_close(code, &reason);
            let shared = Arc::clone(&self.shared);
            let parting = async {
                if poll_fn(|cx| self.poll_write(cx)).await.is_ok() {
                    poll_fn(|cx| self.poll_hang_up(cx)).await;
                }
            };
            future::or(parting, shared.clock.sleep(FAREWELL)).await;
        }
        let (in_flight, _) = end.drop_reasons();
        self.drop_in_flight(0, in_flight);
    }

    /// Tells the peer that nothing more will come, and reads what it still sends until it hangs up: closing a
    /// socket with unread bytes would make the kernel reset it, and the peer might never see its close frame.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.hung_up {
            // Whether it failed does not matter: then there is nothing to read either.
            let _ = ready!(Pin::new(&mut self.socket).poll_close(cx));
            self.hung_up = true;
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

impl<S> Session<S> {
    /// Counts what will not be delivered: the outgoing buffer behind what has to be finished before a close frame
    /// can come, and the queue.
    pub(super) fn drop_undelivered(&mut self, end: End) {
        // A close frame cannot stand in the middle of another frame.
        let keep = if end.last_words().is_some() { self.ledger.begun() } else { 0 };
        let (in_flight, queued) = end.drop_reasons();
        self.drop_in_flight(keep, in_flight);
        for item in self.outbox.end() {
            if let Item::Frame(_) = item {
                self.shared.observer.frame_dropped(self.outbox.direction(), queued);
            }
        }
    }

    /// Forgets the frames in the outgoing buffer behind the first `keep`, and counts them.
    fn drop_in_flight(&mut self, keep: usize, reason: DropReason) {
        if let Some(bytes) = self.ledger.bytes_before(keep) {
            self.wire.forget_messages_after(bytes);
        }
        let mut settled = 0;
        while let Some(dropped) = self.ledger.pop_beyond(keep) {
            settled += dropped.cost;
            if dropped.frame.is_some() {
                self.shared.observer.frame_dropped(self.outbox.direction(), reason);
            }
        }
        self.outbox.settle(settled);
    }
}

/// However a session ends, nothing of it stays charged.
impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        self.drop_undelivered(End::PeerLost);
    }
}

/// Says farewell to a connection that was upgraded and will not be served.
pub(crate) async fn refuse<S>(socket: S, end: End, shared: Arc<Shared>)
where
    S: Transport + Unpin,
{
    // Nothing is ever queued or read as a message here: the outbox and the limits only have to exist.
    let outbox = shared.outbox(Endpoint::Client);
    Session::new(socket, Vec::new(), 0, outbox, shared).farewell(end).await;
}
