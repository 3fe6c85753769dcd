//! Shutting down without losing what is queued.
//!
//! The listener closes, upgrades and `/healthz` on connections that are still in HTTP get `503`, and every session
//! is closed with 1001 behind the frames that wait for it. The drain is over when the last session is, or when it
//! is cut short.

use std::future::Future;
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;

use super::start::Running;
use crate::event;
use crate::relay::close::Close;

/// Drains, until all sessions have ended, `timeout` is over, or `cut` completes. Returns how many sessions are
/// left.
pub(super) async fn drain(running: Running, timeout: Duration, cut: impl Future<Output = ()>) -> usize {
    let Running { hub, ingress, accepting, metrics, retry_after } = running;
    ingress.drain();
    drop(accepting);
    event::draining(hub.drain(Close::ShuttingDown { retry_after }));
    let out_of_time = async {
        Timer::after(timeout).await;
    };
    future::or(hub.emptied(), future::or(out_of_time, cut)).await;
    // The last scrape may come as late as this.
    drop(metrics);
    hub.live()
}
