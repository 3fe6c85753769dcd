//! How long the relay listens, and waits, once more and by itself: PROTOCOL § 4.

use std::time::Duration;

use pyrycode_relay::relay::observer::Endpoint;

use crate::world::{Conn, World};

/// How long a message that is late may still be read.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// Unwritten answers with which the relay stops to read, and the most that it reads at a time.
pub(crate) const PONG_LIMIT: usize = 64 * 1024;
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// The relay's own pings stand among the answers, and an answer may be half written.
const INEXACT: usize = 1000;

/// A message that is not complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Underway {
    pub(crate) message: usize,
    pub(crate) deadline: Duration,
    /// It was late once, while some of it was read.
    was_late: bool,
}

impl Underway {
    pub(crate) fn new(message: usize, deadline: Duration) -> Self {
        Self { message, deadline, was_late: false }
    }
}

impl Conn {
    /// Bytes of the answers to pings that the relay read and did not answer yet.
    pub(crate) fn unanswered(&self) -> usize {
        let read = self.client.line.borrow().consumed;
        let seen = self.client.pings.iter().filter(|ping| ping.ends_at <= read);
        seen.map(|ping| 2 + ping.payload.len()).sum()
    }

    /// Whether so many pings are unanswered that the relay may have stopped reading.
    pub(crate) fn may_be_choked(&self) -> bool {
        self.unanswered() + INEXACT > PONG_LIMIT
    }
}

impl World {
    /// Whether a close may stand behind what is queued for a connection: then it is not listened to any more. Of a
    /// directive it is not known when the relay read it.
    pub(crate) fn may_be_dismissed(&self, conn: &Conn) -> bool {
        !conn.directives.is_empty() || self.is_closed_by_drain(conn.server)
    }

    /// Whether a server-id's moment in the drain has come.
    pub(crate) fn is_closed_by_drain(&self, server: usize) -> bool {
        self.moments[server].is_some_and(|moment| moment <= self.now())
    }

    /// Notes what the relay has read, for its deadlines.
    pub(crate) fn watch_line(&mut self, number: usize) {
        let (step, now, timeout) = (self.step, self.now(), self.settings.message_timeout);
        let conn = &mut self.conns[number];
        let line = conn.client.line.borrow();
        // What is read to get rid of a connection that ended is not listened to.
        let listened = line.listened();
        let has_read = listened > std::mem::replace(&mut conn.listened_seen, listened);
        if line.reads > conn.reads_seen {
            conn.reads_seen = line.reads;
            conn.read_step = step;
        }
        if line.resumed > conn.resumed_seen {
            conn.resumed_seen = line.resumed;
            if let Some(message) = &mut conn.message {
                message.deadline = line.resumed + timeout;
            }
        }
        let under_way = conn.client.under_way(listened);
        conn.message = under_way.map(|message| match conn.message {
            Some(same) if same.message == message => same,
            _ => Underway::new(message, now + timeout),
        });
        let late = conn.message.as_mut().filter(|message| has_read && now >= message.deadline);
        if let Some(message) = late {
            if !std::mem::replace(&mut message.was_late, true) {
                message.deadline = now + CATCHING_UP;
                self.coverage.saw("late message read on");
            }
        }
    }

    /// Notes whether the relay listens to a phone: it does not while a frame waits for room. When it does again, the
    /// phone has all its time again.
    pub(crate) fn watch_ears(&mut self, number: usize) {
        let (now, timeout) = (self.now(), self.settings.message_timeout);
        let conn = &self.conns[number];
        let kept_away = conn.may_be_choked() || self.may_be_dismissed(conn);
        let conn = &mut self.conns[number];
        if conn.endpoint == Endpoint::Server || !conn.is_open() {
            return;
        }
        let waits = conn.waiting() > 0;
        let mut line = conn.client.line.borrow_mut();
        if waits {
            (line.deaf, line.unclear) = (true, false);
        } else if std::mem::take(&mut line.deaf) {
            line.heard = now;
            // It may go on with what it has read already, or be kept away from it by something else.
            line.unclear = kept_away;
            if let Some(message) = &mut conn.message {
                message.deadline = now + timeout;
            }
        }
    }
}
