//! When a connection is pinged, and when the relay loses patience with it (PROTOCOL § 4).
//!
//! Plain data: the session says what happened and when, and asks what is due. Four times count:
//!
//! - nothing was heard for `ping_interval`: a ping is sent; and for `pong_timeout` after that: the peer is gone;
//! - a message was begun and is not complete after `message_timeout`, whatever else came meanwhile;
//! - there is something to write and the socket took nothing for `write_timeout`.
//!
//! The kernel does not tell of a little room, so a socket that takes nothing is asked again several times meanwhile. What it takes then may
//! have been free for a while, and so a peer that takes nothing more may have as much longer as there is between two questions.
//!
//! While the session does not read (the leg can take no message), the peer's silence is the relay's own doing: pings
//! are still sent, so that the kernel can find out that the peer is gone, and neither an answer nor the rest of a
//! message is waited for.

use std::time::{Duration, Instant};

use super::settings::Settings;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this time.
    Later(Instant),
    /// A ping.
    Ping,
    /// An end: nothing was heard from the peer for too long.
    HeartbeatTimeout,
    /// An end: a message was not finished in time.
    MessageTimedOut,
    /// To ask the socket again whether it takes something.
    Write,
}

/// A message that is not complete.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// Which one, so that the next is not taken for it.
    ordinal: u64,
    deadline: Instant,
    /// It was late once, while more of it was being read.
    was_late: bool,
}

/// How long a message that is late may still be read: what came in time may wait in the kernel, after a pause of this
/// process.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// How often a socket that takes nothing is asked again within `write_timeout`.
const QUESTIONS: u32 = 8;

/// A socket that takes nothing.
#[derive(Clone, Copy, Debug)]
struct Stalled {
    since: Instant,
    asked: Instant,
}

impl Stalled {
    /// When it is to be asked again.
    fn next_question(self, settings: &Settings) -> Instant {
        self.asked + settings.write_timeout / QUESTIONS
    }
}

/// What the patience with one connection depends on.
#[derive(Debug)]
pub(super) struct Deadlines {
    heard: Instant,
    pinged: Option<Instant>,
    message: Option<Unfinished>,
    stalled: Option<Stalled>,
    deaf: bool,
}

impl Deadlines {
    /// A connection that begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, pinged: None, message: None, stalled: None, deaf: false }
    }

    /// Something was read at `now`, and all of it was taken; `under_way` is the ordinal of the message that it ends
    /// in the middle of.
    pub(super) fn heard(&mut self, now: Instant, under_way: Option<u64>, settings: &Settings) {
        self.heard = now;
        self.pinged = None;
        self.message = under_way.map(|ordinal| match self.message {
            Some(same) if same.ordinal == ordinal => same,
            _ => Unfinished { ordinal, deadline: now + settings.message_timeout, was_late: false },
        });
    }

    /// The session does not read for now.
    pub(super) fn stops_reading(&mut self) {
        self.deaf = true;
    }

    /// The session is about to read, at `now`. If it did not before, the peer has all its time again.
    pub(super) fn reads(&mut self, now: impl FnOnce() -> Instant, settings: &Settings) {
        if std::mem::take(&mut self.deaf) {
            let now = now();
            self.heard = now;
            self.pinged = None;
            if let Some(message) = &mut self.message {
                message.deadline = now + settings.message_timeout;
            }
        }
    }

    /// A ping was sent at `now` because it was due.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// The socket took something, or there is nothing for it to take.
    pub(super) fn moved(&mut self) {
        self.stalled = None;
    }

    /// The socket takes nothing at `now`, as far as is known. Returns whether to ask it again.
    pub(super) fn stalls(&mut self, now: Instant, settings: &Settings) -> bool {
        let stalled = self.stalled.get_or_insert(Stalled { since: now, asked: now });
        let is_time = now >= stalled.next_question(settings);
        if is_time {
            stalled.asked = now;
        }
        is_time
    }

    /// Whether the socket, which was asked at `now`, has taken nothing for too long.
    pub(super) fn write_timed_out(&self, now: Instant, settings: &Settings) -> bool {
        self.stalled.is_some_and(|stalled| now >= stalled.since + settings.write_timeout)
    }

    /// Whether the message under way takes too long, when some of it was just read and more may be there.
    pub(super) fn message_is_overdue(&mut self, now: Instant) -> bool {
        let Some(message) = self.message.as_mut().filter(|message| now >= message.deadline) else {
            return false;
        };
        if !std::mem::replace(&mut message.was_late, true) {
            message.deadline = now + CATCHING_UP;
        }
        now >= message.deadline
    }

    /// What is due at `now`, when there is nothing left to write or to read.
    pub(super) fn due(&self, now: Instant, settings: &Settings) -> Due {
        let write = self.stalled.map(|stalled| stalled.next_question(settings));
        if write.is_some_and(|at| now >= at) {
            return Due::Write;
        }
        let message = self.message.filter(|_| !self.deaf).map(|message| message.deadline);
        if message.is_some_and(|at| now >= at) {
            return Due::MessageTimedOut;
        }
        let (heartbeat, what) = match self.pinged {
            Some(at) if !self.deaf => (at + settings.pong_timeout, Due::HeartbeatTimeout),
            Some(at) => (at + settings.ping_interval, Due::Ping),
            None => (self.heard + settings.ping_interval, Due::Ping),
        };
        if now >= heartbeat {
            return what;
        }
        Due::Later([write, message].into_iter().flatten().fold(heartbeat, Instant::min))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: Settings = Settings {
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(20),
        message_timeout: Duration::from_secs(25),
        write_timeout: Duration::from_secs(10),
        ..Settings::DEFAULT
    };

    /// Seconds after the beginning, and what is due then.
    fn begin() -> (impl Fn(u64) -> Instant, Deadlines) {
        let start = Instant::now();
        (move |seconds| start + Duration::from_secs(seconds), Deadlines::new(start))
    }

    #[test]
    fn silence_is_asked_about_and_then_ends_the_connection() {
        let (at, mut deadlines) = begin();
        assert_eq!(deadlines.due(at(29), &SETTINGS), Due::Later(at(30)));
        assert_eq!(deadlines.due(at(30), &SETTINGS), Due::Ping);
        deadlines.pinged(at(33));
        assert_eq!(deadlines.due(at(52), &SETTINGS), Due::Later(at(53)), "the time of the ping counts");
        assert_eq!(deadlines.due(at(53), &SETTINGS), Due::HeartbeatTimeout);
        deadlines.heard(at(53), None, &SETTINGS);
        assert_eq!(deadlines.due(at(82), &SETTINGS), Due::Later(at(83)), "whatever is heard is an answer");
    }

    #[test]
    fn a_message_has_its_time_from_its_first_byte() {
        let (at, mut deadlines) = begin();
        deadlines.heard(at(1), Some(7), &SETTINGS);
        deadlines.heard(at(20), Some(7), &SETTINGS);
        assert_eq!(deadlines.due(at(20), &SETTINGS), Due::Later(at(26)));
        assert_eq!(deadlines.due(at(26), &SETTINGS), Due::MessageTimedOut);
        deadlines.heard(at(26), Some(8), &SETTINGS);
        assert_eq!(deadlines.due(at(50), &SETTINGS), Due::Later(at(51)), "another message, another time");
        deadlines.heard(at(50), None, &SETTINGS);
        assert_eq!(deadlines.due(at(51), &SETTINGS), Due::Later(at(80)), "between messages there is none");
    }

    #[test]
    fn a_message_that_is_late_may_be_read_for_a_moment() {
        let (at, mut deadlines) = begin();
        deadlines.heard(at(0), Some(1), &SETTINGS);
        assert!(!deadlines.message_is_overdue(at(24)));
        // The process slept; what came in time is still in the kernel.
        deadlines.heard(at(90), Some(1), &SETTINGS);
        assert!(!deadlines.message_is_overdue(at(90)));
        assert_eq!(deadlines.due(at(90), &SETTINGS), Due::Later(at(91)));
        deadlines.heard(at(91), Some(1), &SETTINGS);
        assert!(deadlines.message_is_overdue(at(91)), "nor for long");
        deadlines.heard(at(91), Some(2), &SETTINGS);
        assert!(!deadlines.message_is_overdue(at(91)));
    }

    #[test]
    fn a_write_that_moves_has_all_its_time_again() {
        let (at, mut deadlines) = begin();
        assert!(!deadlines.stalls(at(1), &SETTINGS) && !deadlines.stalls(at(2), &SETTINGS));
        assert!(deadlines.stalls(at(10), &SETTINGS) && !deadlines.write_timed_out(at(10), &SETTINGS));
        assert_eq!(deadlines.due(at(10), &SETTINGS), Due::Later(at(10) + Duration::from_millis(1250)));
        assert_eq!(deadlines.due(at(12), &SETTINGS), Due::Write);
        assert!(deadlines.stalls(at(12), &SETTINGS) && deadlines.write_timed_out(at(12), &SETTINGS));
        deadlines.moved();
        assert_eq!(deadlines.due(at(12), &SETTINGS), Due::Later(at(30)));
        assert!(!deadlines.stalls(at(12), &SETTINGS) && deadlines.stalls(at(21), &SETTINGS));
        assert!(
            !deadlines.write_timed_out(at(21), &SETTINGS) && deadlines.write_timed_out(at(22), &SETTINGS)
        );
    }

    #[test]
    fn who_is_not_read_from_is_pinged_and_not_blamed() {
        let (at, mut deadlines) = begin();
        deadlines.heard(at(1), Some(1), &SETTINGS);
        deadlines.stops_reading();
        assert_eq!(deadlines.due(at(27), &SETTINGS), Due::Later(at(31)), "the message is not waited for");
        assert_eq!(deadlines.due(at(31), &SETTINGS), Due::Ping);
        deadlines.pinged(at(31));
        assert_eq!(deadlines.due(at(60), &SETTINGS), Due::Later(at(61)), "nor is the answer");
        assert_eq!(deadlines.due(at(61), &SETTINGS), Due::Ping);
        deadlines.pinged(at(61));
        deadlines.reads(|| at(70), &SETTINGS);
        assert_eq!(deadlines.due(at(70), &SETTINGS), Due::Later(at(95)), "the message has its time again");
        deadlines.reads(|| at(80), &SETTINGS);
        assert_eq!(deadlines.due(at(95), &SETTINGS), Due::MessageTimedOut);
        deadlines.heard(at(95), None, &SETTINGS);
        assert_eq!(deadlines.due(at(96), &SETTINGS), Due::Later(at(125)));
    }
}
