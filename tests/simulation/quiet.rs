//! What must hold when no task can run, and at the end.

use pyrycode_relay::relay::observer::{Census, Direction, Endpoint};

use crate::closes::notice_code;
use crate::ensure;
use crate::model::{LAST_LOOK, MOST_NEWCOMERS};
use crate::patience::{PONG_LIMIT, READ_SIZE};
use crate::world::{Conn, World};
use std::time::Duration;

/// How long the relay says good-bye to one connection.
const FAREWELL: Duration = Duration::from_secs(2);

type Check = Result<(), String>;

impl World {
    /// Nobody can run: whoever could have moved has, and every deadline up to now was kept.
    pub(crate) fn check_quiet(&mut self) -> Check {
        for number in 0..self.conns.len() {
            self.check_rest(number).map_err(|error| format!("connection {number}: {error}"))?;
        }
        for slot in self.slots.iter().flatten() {
            ensure!(slot.until.is_none_or(|until| self.now() < until), "{slot:?} should have ended");
        }
        self.check_line_of_phones()
    }

    fn check_rest(&mut self, number: usize) -> Check {
        let conn = &self.conns[number];
        let now = self.now();
        let line = conn.client.line.borrow();
        let Some((_, began)) = conn.began else { return Err("it never ran".to_owned()) };
        if let Some((cause, at)) = conn.cause {
            let binary = conn.binary.map(|binary| &self.conns[binary]);
            let departs = binary.is_some_and(|binary| binary.is_open() && binary.charged > 0);
            let over = !self.executor.is_running(conn.task) || now < at + FAREWELL;
            ensure!(over || departs || self.waits_for_budget(), "still there, {cause:?} at {at:?}");
            return Ok(());
        }
        if conn.outcome.is_none() {
            ensure!(now < began + self.settings.conflict_probe + LAST_LOOK, "it was never answered");
            ensure!(self.rivals(number) <= MOST_NEWCOMERS, "too many wait for {:?}", conn.incumbent);
            return Ok(());
        }
        ensure!(conn.doomed.is_none(), "it should have ended: {:?}", conn.doomed);
        ensure!(!self.cut, "it was not cut");
        if conn.client.ends.reset && conn.waiting() > 0 {
            // Nothing more can be written to it. What it said before still waits for its binary.
            ensure!(line.deaf, "{} frames wait and it is read from", conn.waiting());
            self.coverage.saw("said something and reset");
            return Ok(());
        }
        if let Some(since) = line.blocked_since {
            ensure!(now < since + self.settings.write_timeout, "blocked since {since:?}");
        } else {
            ensure!(conn.charged == 0, "{} bytes wait for nothing", conn.charged);
            ensure!(line.accepted.is_empty(), "half a frame was written");
        }
        ensure!(line.deaf == (conn.waiting() > 0), "{} frames wait and it is read from", conn.waiting());
        ensure!(conn.unanswered() <= PONG_LIMIT + 2 * READ_SIZE, "it may ping and ping");
        let blocked = line.blocked_since.is_some();
        let dismissed = blocked && self.may_be_dismissed(conn);
        let choked = blocked && conn.may_be_choked();
        if line.deaf || dismissed || choked && line.unclear {
            return Ok(());
        }
        ensure!(!line.unclear, "it is not read from, for no reason");
        // Who does not take its answers is not read from, and has to answer in time all the same.
        ensure!(choked || line.is_read() && !line.is_over(), "there is something to read");
        if choked && !line.is_read() {
            self.coverage.saw("choked by pings");
        }
        if conn.endpoint == Endpoint::Client {
            let complete = conn.client.complete_in(line.consumed);
            ensure!(conn.read == complete, "{} of {complete} messages were read", conn.read);
        }
        let patience = self.settings.ping_interval + self.settings.pong_timeout;
        ensure!(now < line.heard + patience, "nothing was heard since {:?}", line.heard);
        ensure!(conn.message.is_none_or(|message| now < message.deadline), "late: {:?}", conn.message);
        Ok(())
    }

    /// Whether somebody may wait because of what all outboxes hold together.
    fn waits_for_budget(&self) -> bool {
        let most = self.settings.max_frame + 200;
        self.taken() + most > self.settings.all_queues
    }

    /// Whoever waits for room in a binary's outbox has a reason. A notice may be in front of the first frame: it costs
    /// less, so whatever keeps it waiting is reason enough for the frame.
    fn check_line_of_phones(&mut self) -> Check {
        for binary in 0..self.conns.len() {
            let Some(first) = self.conns[binary].line_of_phones.first() else { continue };
            let conn = &self.conns[*first];
            if conn.waiting() == 0 || !self.conns[binary].is_open() {
                continue;
            }
            let cost = Self::cost_of(&conn.sent[conn.admitted]);
            let limit = self.settings.binary_queue;
            let held = self.conns[binary].charged;
            self.coverage.saw("line waited");
            // The line moves when half of the outbox is free.
            if held <= limit / 2 && held + cost <= limit {
                ensure!(
                    !self.budget_has(cost, held),
                    "phones wait for binary {binary}, which has {held} of {limit}"
                );
                let share = self.taken() + cost <= self.settings.all_queues;
                self.coverage.saw(if share {
                    "line waited for others"
                } else {
                    "line waited for the budget"
                });
            }
        }
        Ok(())
    }

    /// Everybody takes everything: all that is on its way arrives.
    pub(crate) fn check_delivered(&mut self) -> Check {
        let queued = self.taken();
        ensure!(queued == 0, "{queued} bytes are not delivered");
        for (number, conn) in self.conns.iter().enumerate() {
            let check = self.check_connection(conn);
            check.map_err(|error| format!("in the end, connection {number}: {error}"))?;
        }
        Ok(())
    }

    fn check_connection(&self, conn: &Conn) -> Check {
        ensure!(!conn.is_open() || conn.client.pings.is_empty(), "a ping was not answered");
        if conn.endpoint == Endpoint::Server {
            if !conn.is_open() {
                return Ok(());
            }
            let number = self.conns.iter().position(|other| std::ptr::eq(other, conn));
            let phones = self.conns.iter().filter(|phone| phone.binary == number);
            let mut unnamed: Vec<u16> =
                phones.filter(|phone| phone.arrived == 0).filter_map(notice_code).collect();
            let mut strangers = conn.strangers.clone();
            unnamed.sort_unstable();
            strangers.sort_unstable();
            ensure!(unnamed == strangers, "notices for {strangers:?}, not {unnamed:?}");
            return Ok(());
        }
        let Some(binary) = conn.binary.map(|binary| &self.conns[binary]).filter(|it| it.is_open()) else {
            return Ok(());
        };
        ensure!(conn.arrived == conn.admitted, "{} of {} frames arrived", conn.arrived, conn.admitted);
        if conn.is_open() {
            ensure!(conn.arrived == conn.sent.len(), "{} frames were sent", conn.sent.len());
            let envelopes = binary.envelopes.len();
            ensure!(conn.received == conn.expected.len(), "it lacks frames out of {envelopes} envelopes");
        } else if conn.arrived > 0 {
            let due = notice_code(conn).is_some() && conn.directives.is_empty();
            ensure!(conn.notified || !due, "there was no notice");
        }
        Ok(())
    }

    /// Everybody is gone.
    pub(crate) fn check_end(&self) -> Check {
        let sums = &self.facts.sums;
        for direction in Direction::ALL {
            let (read, accounted) = (sums.read(direction), sums.accounted(direction));
            ensure!(read == accounted, "{direction:?}: {read} read, {accounted} accounted for");
        }
        for endpoint in Endpoint::ALL {
            ensure!(sums.queued_bytes(endpoint) == 0, "{endpoint:?}: bytes are queued for ever");
        }
        ensure!(self.hub.shared().budget.taken() == 0, "bytes are taken for ever");
        ensure!(self.hub.live() == 0, "{} sessions are running", self.hub.live());
        let counts = self.hub.count();
        ensure!(counts == pyrycode_relay::relay::observer::Counts::default(), "{counts:?}");
        let connects = self.conns.len();
        ensure!(sums.upgrades().len() == connects, "{connects} connects, {:?}", sums.upgrades());
        ensure!(sums.closed().len() == connects, "{connects} connects, {:?}", sums.closed());
        let left = self.executor.running();
        ensure!(left == [crate::world::KEEPER], "tasks {left:?} are left");
        ensure!(self.clock.alarms() == 0, "{} alarms are left", self.clock.alarms());
        Ok(())
    }
}
