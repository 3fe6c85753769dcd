//! What the relay says to systemd (`sd_notify(3)`): ready, reloading, status, watchdog,
//! stopping.
//!
//! Each function sends one datagram to the socket in `NOTIFY_SOCKET` and returns what went wrong; the caller
//! decides whether to report it ([`crate::event::notify_failed`]). Without `NOTIFY_SOCKET` nobody listens, and
//! nothing happens. No thread is started.
//!
//! `sd_notify` says what a message is made of. It is sent here, because the library would connect its socket first, and in the
//! locked-down form of the unit `connect` is refused: with it, a socket that was inherited for listening could be made to
//! reach out.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Every listener is bound and the metrics thread answers: units ordered after this one may start
/// (PROTOCOL § 8).
///
/// # Errors
///
/// The socket in `NOTIFY_SOCKET` could not be reached or did not take the message.
pub fn ready() -> io::Result<()> {
    notify(&[NotifyState::Ready])
}

/// The relay begins to read its files again; [`ready`] says that it is done (`RELOADING=1`, with the time that
/// `Type=notify-reload` asks for).
///
/// # Errors
///
/// As for [`ready`].
pub fn reloading() -> io::Result<()> {
    notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// The relay begins to shut down.
///
/// # Errors
///
/// As for [`ready`].
pub fn stopping() -> io::Result<()> {
    notify(&[NotifyState::Stopping])
}

/// The shutdown is still going on and may take `more` from now, whatever `TimeoutStopSec=` says
/// (`EXTEND_TIMEOUT_USEC`).
///
/// # Errors
///
/// As for [`ready`].
pub fn extend_timeout(more: Duration) -> io::Result<()> {
    let microseconds = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)])
}

/// One line for `systemctl status`, such as the connection counts. Control characters become spaces: in this
/// protocol a line break would begin the next assignment.
///
/// # Errors
///
/// As for [`ready`].
pub fn status(text: &str) -> io::Result<()> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    notify(&[NotifyState::Status(&line)])
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
    notify(&[NotifyState::Watchdog])
}

/// Sends assignments in one datagram.
fn notify(state: &[NotifyState<'_>]) -> io::Result<()> {
    env::var_os("NOTIFY_SOCKET").map_or(Ok(()), |socket| send(&socket, state))
}

/// As [`notify`], to the socket of this name: a path, or one of the abstract ones that begin with `@`.
fn send(socket: &OsStr, state: &[NotifyState<'_>]) -> io::Result<()> {
    let mut message = Vec::new();
    for assignment in state {
        writeln!(message, "{assignment}")?;
    }
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(&message, &address).map(drop)
}

/// Whether somebody listens: without `NOTIFY_SOCKET`, everything here does nothing.
#[must_use]
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_path_and_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("pyrycode-relay-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (listening, socket) in [
            (UnixDatagram::bind(&path), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address), format!("@{name}").into()),
        ] {
            let listening = listening.unwrap();
            send(&socket, &[NotifyState::Ready, NotifyState::Status("well")]).unwrap();
            let mut bytes = [0; 64];
            let length = listening.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=well\n");
        }
        assert!(send(directory.path().join("nobody").as_os_str(), &[NotifyState::Ready]).is_err());
    }
}
