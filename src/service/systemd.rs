//! What the relay says to systemd (`sd_notify(3)`): ready, reloading, status, watchdog,
//! stopping.
//!
//! Each function sends one datagram to the socket in `NOTIFY_SOCKET` and returns what went wrong; the caller
//! decides whether to report it ([`crate::event::notify_failed`]). Without `NOTIFY_SOCKET` nobody listens, and
//! nothing happens. No thread is started.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// Every listener is bound and the metrics thread answers: units ordered after this one may start
/// (PROTOCOL § 8).
///
/// # Errors
///
/// The socket in `NOTIFY_SOCKET` could not be reached or did not take the message.
pub fn ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// The relay begins to read its files again; [`ready`] says that it is done (`RELOADING=1`, with the time that
/// `Type=notify-reload` asks for).
///
/// # Errors
///
/// As for [`ready`].
pub fn reloading() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// The relay begins to shut down.
///
/// # Errors
///
/// As for [`ready`].
pub fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// The shutdown is still going on and may take `more` from now, whatever `TimeoutStopSec=` says
/// (`EXTEND_TIMEOUT_USEC`).
///
/// # Errors
///
/// As for [`ready`].
pub fn extend_timeout(more: Duration) -> io::Result<()> {
    let microseconds = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(microseconds)])
}

/// One line for `systemctl status`, such as the connection counts. Control characters become spaces: in this
/// protocol a line break would begin the next assignment.
///
/// # Errors
///
/// As for [`ready`].
pub fn status(text: &str) -> io::Result<()> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    sd_notify::notify(&[NotifyState::Status(&line)])
}

/// How often to call [`watchdog`]: half of the time after which systemd gives up on this process
/// (`WATCHDOG_USEC`, if `WATCHDOG_PID` names this process or nobody). `None` if it is not watching.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// The process is alive. To be called from the executor that forwards frames, so that a wedged executor is
/// noticed (PROTOCOL § 8).
///
/// # Errors
///
/// As for [`ready`].
pub fn watchdog() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Watchdog])
}

/// Whether somebody listens: without `NOTIFY_SOCKET`, everything here does nothing.
#[must_use]
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}
