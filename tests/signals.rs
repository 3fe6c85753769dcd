//! Signals as values. Each test sends real signals to this process, so they take turns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test, with its line"
)]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_lite::future::{or, poll_once};
use pyrycode_relay::service::signals::{Signal, Signals};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::raise;

static TURN: Mutex<()> = Mutex::new(());

/// Runs a test alone, with handlers installed.
fn with_signals(test: impl AsyncFnOnce(&mut Signals)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut signals = Signals::new().unwrap();
    async_io::block_on(test(&mut signals));
}

/// The next signal, which must be there within a generous time.
async fn next(signals: &mut Signals) -> Option<Signal> {
    let late = async {
        async_io::Timer::after(Duration::from_secs(20)).await;
        None
    };
    or(async { Some(signals.next().await.unwrap()) }, late).await
}

/// Whether nothing more is there. A signal that was raised is in its pair when `raise` returns, so there is
/// nothing to wait for.
async fn quiet(signals: &mut Signals) -> bool {
    poll_once(signals.next()).await.is_none()
}

#[test]
fn each_signal_has_its_meaning() {
    with_signals(async |signals| {
        for (number, meaning) in
            [(SIGTERM, Signal::Terminate), (SIGINT, Signal::Terminate), (SIGHUP, Signal::Hangup)]
        {
            assert!(quiet(signals).await);
            raise(number).unwrap();
            assert_eq!(next(signals).await, Some(meaning), "signal {number}");
        }
        assert!(quiet(signals).await);
    });
}

#[test]
fn a_second_signal_is_seen_after_the_first_was_read() {
    with_signals(async |signals| {
        raise(SIGTERM).unwrap();
        assert_eq!(next(signals).await, Some(Signal::Terminate));
        assert!(quiet(signals).await);
        raise(SIGTERM).unwrap();
        assert_eq!(next(signals).await, Some(Signal::Terminate));
        assert!(quiet(signals).await);
    });
}

#[test]
fn two_at_once_are_both_seen() {
    with_signals(async |signals| {
        raise(SIGHUP).unwrap();
        raise(SIGTERM).unwrap();
        raise(SIGTERM).unwrap();
        raise(SIGINT).unwrap();
        for _ in 0..3 {
            assert_eq!(next(signals).await, Some(Signal::Terminate), "ending comes before reloading");
        }
        assert_eq!(next(signals).await, Some(Signal::Hangup));
        assert!(quiet(signals).await);
    });
}

#[test]
fn hangups_that_wait_together_are_one() {
    with_signals(async |signals| {
        for _ in 0..5 {
            raise(SIGHUP).unwrap();
        }
        assert_eq!(next(signals).await, Some(Signal::Hangup));
        assert!(quiet(signals).await);
        raise(SIGHUP).unwrap();
        assert_eq!(next(signals).await, Some(Signal::Hangup), "the next one is a new one");
    });
}

#[test]
fn a_dropped_wait_loses_nothing() {
    with_signals(async |signals| {
        assert!(poll_once(signals.next()).await.is_none());
        raise(SIGTERM).unwrap();
        assert_eq!(next(signals).await, Some(Signal::Terminate));
        assert!(quiet(signals).await);
    });
}

#[test]
fn a_wait_is_woken_by_a_signal_that_comes_later() {
    with_signals(async |signals| {
        let sender = std::thread::spawn(|| raise(SIGHUP));
        assert_eq!(next(signals).await, Some(Signal::Hangup));
        assert!(sender.join().unwrap().is_ok());
    });
}
