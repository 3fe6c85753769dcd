//! What systemd is told while the relay runs: the status line and the watchdog.
//!
//! Both are tasks of the executor that forwards frames. If that executor is wedged, the watchdog is not fed, and
//! systemd restarts the service. The messages themselves are sent from a helper thread: a service manager that does
//! not read its socket blocks whoever writes to it, and that must not be who forwards frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use smol::Executor;

use super::systemd;
use crate::event;
use crate::relay::hub::Hub;
use crate::relay::observer::{Census, Counts};

/// How often the status line may change.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Starts both, as far as systemd listens.
pub(super) fn start(executor: &Arc<Executor<'static>>, hub: &Arc<Hub>) {
    if !systemd::is_listening() {
        return;
    }
    executor.spawn(keep_status(Arc::clone(hub))).detach();
    if let Some(interval) = systemd::watchdog_interval() {
        executor.spawn(feed_watchdog(interval)).detach();
    }
}

/// Reports a message to systemd that did not get there.
pub(super) fn tell(notified: io::Result<()>) {
    if let Err(error) = notified {
        event::notify_failed(&error);
    }
}

async fn keep_status(hub: Arc<Hub>) {
    let mut told = None;
    loop {
        let counts = hub.count();
        if told != Some(counts) {
            tell(smol::unblock(move || systemd::status(&status_line(counts))).await);
            told = Some(counts);
        }
        Timer::after(STATUS_INTERVAL).await;
    }
}

fn status_line(counts: Counts) -> String {
    format!(
        "{} binaries connected, {} in grace, {} phones",
        counts.connected_binaries, counts.gracing_binaries, counts.connected_phones
    )
}

async fn feed_watchdog(interval: Duration) {
    loop {
        tell(smol::unblock(systemd::watchdog).await);
        Timer::after(interval).await;
    }
}
