//! Shutting down without losing what is queued.
//!
//! The listener closes, upgrades and `/healthz` on connections that are still in HTTP get `503`, and every server-id is
//! closed at its own moment behind the frames that wait for it ([`crate::relay::drain`]). The drain is over when the
//! last session is, or when it is cut short; then whoever is left gets its close at once, if its socket takes it.

use std::future::Future;
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;

use super::start::Running;
use crate::config::Drain;
use crate::event;
use crate::relay::close::Close;
use crate::relay::drain::{close_in_turn, moments};

/// How long connections that are still in HTTP may take to send their request and get their answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long the sessions that are cut may take to say so to their peers.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Drains, until all sessions have ended, `config.timeout` is over, or `cut` completes. Returns how many sessions had to
/// be cut.
pub(super) async fn drain(running: Running, config: &Drain, cut: impl Future<Output = ()>) -> usize {
    let Running { hub, ingress, accepting, metrics, retry_after, .. } = running;
    let close = Close::ShuttingDown { retry_after };
    ingress.drain();
    within(config.timeout, accepting.stop()).await;
    let servers = hub.begin_drain(close);
    event::draining(hub.live());
    let everybody_left = async {
        within(LAST_ANSWERS, ingress.handshakes().emptied()).await;
        hub.emptied().await;
    };
    let closing = async {
        let moments = moments(servers, config.spread, || getrandom::u64().ok());
        close_in_turn(&hub, moments, close).await;
        future::pending::<()>().await;
    };
    within(config.timeout, future::or(cut, future::or(everybody_left, closing))).await;
    let left = hub.live();
    if left > 0 {
        hub.cut_everybody(close);
        within(LAST_WORDS, hub.emptied()).await;
    }
    // The last scrape may come as late as this.
    drop(metrics);
    left
}

async fn within(time: Duration, work: impl Future<Output = ()>) {
    future::or(work, async {
        Timer::after(time).await;
    })
    .await;
}
