//! What the relay tells, held against what it may tell: a registry, queues and counts that are too simple to be wrong.

use std::time::Duration;

use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::envelope::WRAP_OVERHEAD;
use pyrycode_relay::relay::item::ITEM_OVERHEAD;
use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint, UpgradeOutcome};

use crate::client::Asks;
use crate::ensure;
use crate::facts::Fact;
use crate::patience::Underway;
use crate::world::{Conn, KEEPER, Slot, World};

use Direction::{BinaryToPhone, PhoneToBinary};

/// What a close notice is charged: its text has always the same length.
const NOTICE: usize = r#"{"conn_id":"c-0123456789abcdef","close_code":1000}"#.len() + ITEM_OVERHEAD;

/// Frames of one phone that may wait in their session, if they were read together.
const AT_ONCE: usize = 32;

/// Newcomers that may wait for one incumbent's answer.
pub(crate) const MOST_NEWCOMERS: usize = 8;

/// How long an answer of the incumbent's that came in time is looked for.
pub(crate) const LAST_LOOK: Duration = Duration::from_millis(20);

/// Bytes that are read from a newcomer while it waits.
const EARLY_BYTES: u64 = 16 * 1024;

type Check = Result<(), String>;

impl World {
    /// The task of connection `number` told something.
    pub(crate) fn apply(&mut self, number: usize, fact: Fact) -> Check {
        match fact {
            Fact::Read(PhoneToBinary) => self.phone_read(number),
            Fact::Read(BinaryToPhone) => self.binary_read(number),
            Fact::Forwarded(direction, bytes) => self.forwarded(number, direction, bytes),
            Fact::Dropped(direction, reason) => {
                self.coverage.drop(direction, reason);
                if self.conns[number].endpoint == receiver(direction) {
                    self.dropped_by_receiver(number, reason)
                } else if direction == PhoneToBinary {
                    self.dropped_by_phone(number, reason)
                } else {
                    self.dropped_by_binary(number, reason)
                }
            }
            Fact::Queued(Endpoint::Server, cost) => self.queued_by_phone(number, cost),
            Fact::Queued(Endpoint::Client, cost) => self.queued_by_binary(number, cost),
            Fact::Unqueued(endpoint, cost) => {
                let conn = &mut self.conns[number];
                ensure!(conn.endpoint == endpoint, "{number} settles for another endpoint");
                ensure!(conn.charged >= cost, "{number} gives back {cost} of {}", conn.charged);
                conn.charged -= cost;
                Ok(())
            }
            Fact::Upgrade(endpoint, outcome) => self.upgraded(number, endpoint, outcome),
            Fact::Closed(endpoint, cause) => self.closed(number, endpoint, cause),
            Fact::Reclaimed => self.replaced(number, false),
            Fact::TakenOver => self.replaced(number, true),
            Fact::Evicted(phones) => self.evicted(number, phones),
            Fact::PushOff => {
                self.coverage.saw("push wake");
                Ok(())
            }
            Fact::Expired => Err("a connection's task ended a grace period".to_owned()),
        }
    }

    /// The keeper of grace periods ran.
    pub(crate) fn expire(&mut self, facts: &[Fact]) -> Check {
        ensure!(facts.iter().all(|fact| *fact == Fact::Expired), "the keeper told {facts:?}");
        let mut expired = 0;
        for server in 0..self.slots.len() {
            let Some(slot) = self.slots[server] else { continue };
            if slot.until.is_some_and(|until| until <= self.now()) {
                self.slots[server] = None;
                expired += 1;
                self.coverage.saw("expiry");
                self.doom_phones_of(slot.binary, CloseCause::BinaryDidNotReconnect);
            }
        }
        ensure!(facts.len() == expired, "{} grace periods ended, {expired} should have", facts.len());
        ensure!(self.executor.is_running(KEEPER), "the keeper is done");
        Ok(())
    }

    fn phone_read(&mut self, number: usize) -> Check {
        let conn = &mut self.conns[number];
        ensure!(conn.endpoint == Endpoint::Client && conn.is_open(), "{number} may not read");
        // What was read together waits together, a few frames at a time.
        if conn.waiting() == 0 {
            conn.waits_since = self.step;
        } else if conn.waits_since != self.step || conn.waiting() >= AT_ONCE {
            conn.read_on = Some(self.step);
        }
        conn.read += 1;
        let complete = conn.sent.len() + usize::from(conn.client.ends.malformed);
        ensure!(conn.read <= complete, "{number} sent {complete} frames, not {}", conn.read);
        Ok(())
    }

    fn queued_by_phone(&mut self, number: usize, cost: usize) -> Check {
        let held = self.conns[number].binary.map_or(0, |binary| self.conns[binary].charged);
        ensure!(self.budget_has(cost, held), "{cost} bytes more than {held} are too much");
        let conn = &mut self.conns[number];
        let Some(binary) = conn.binary.filter(|_| conn.endpoint == Endpoint::Client) else {
            return Err(format!("{number} queued for a binary that it does not have"));
        };
        // It is told once of what was queued together: frames in their order, and the notice behind them.
        let mut left = cost;
        while left > 0 {
            let conn = &mut self.conns[number];
            let item = if conn.waiting() > 0 {
                let frame = conn.sent[conn.admitted].len() + WRAP_OVERHEAD + ITEM_OVERHEAD;
                conn.admitted += 1;
                let line = &self.conns[binary].line_of_phones;
                let is_next = line.first().is_none_or(|first| *first == number);
                ensure!(is_next, "{number} did not wait like {line:?}");
                self.conns[binary].queued_frames += 1;
                frame
            } else {
                ensure!(conn.cause.is_some() && !conn.notice_queued, "{number} queued an unexpected notice");
                conn.notice_queued = true;
                NOTICE
            };
            ensure!(left >= item, "{left} of {cost} bytes are charged for an item of {item}");
            left -= item;
        }
        let binary = &mut self.conns[binary];
        ensure!(binary.is_open(), "queued for a binary that is gone");
        binary.charged += cost;
        ensure!(binary.charged <= self.settings.binary_queue, "a binary's outbox has {}", binary.charged);
        Ok(())
    }

    fn dropped_by_phone(&mut self, number: usize, reason: DropReason) -> Check {
        let binary = self.conns[number].binary.map(|binary| &self.conns[binary]);
        let gone = binary.is_some_and(|it| self.is_gone(it));
        // What it had read together with a frame that waited shares its fate.
        let waited = binary.is_some_and(|it| it.line_of_phones.contains(&number));
        let conn = &mut self.conns[number];
        let listened = conn.client.line.borrow().listened();
        // That may show later, when what was read is looked at because the phone goes.
        let waited = waited || conn.outlived_binary == Some(listened);
        ensure!(conn.waiting() > 0, "{number} dropped what it did not have");
        conn.refused += 1;
        match reason {
            DropReason::Malformed => {
                ensure!(conn.client.ends.malformed && conn.read == conn.sent.len() + 1, "it was well-formed");
            }
            DropReason::NoBinary => {
                ensure!(gone, "its binary is there");
                ensure!(!waited, "it waited when its binary went");
                conn.came_late = Some(self.step);
            }
            DropReason::ReceiverClosed => {
                ensure!(gone, "its binary is there");
                ensure!(waited, "it came when its binary had gone");
                conn.outlived_binary = Some(listened);
                self.coverage.saw("binary gone while a frame waited");
            }
            other => return Err(format!("a phone drops its frame for {other:?}")),
        }
        Ok(())
    }

    /// The next envelope that counts as a frame comes under the eyes of the relay.
    fn binary_read(&mut self, number: usize) -> Check {
        let conn = &mut self.conns[number];
        ensure!(conn.endpoint == Endpoint::Server && conn.is_open(), "{number} may not read");
        ensure!(conn.current.is_none(), "{number} reads on before it is done with an envelope");
        if std::mem::take(&mut conn.unknown_close) {
            return Ok(());
        }
        let counts = |asks: &Asks| matches!(asks, Asks::Deliver { .. } | Asks::Nonsense);
        let next = conn.envelopes.iter().skip(conn.cursor).position(|envelope| counts(&envelope.asks));
        let Some(next) = next else { return Err(format!("{number} sent no such frame")) };
        conn.current = Some(conn.cursor + next);
        conn.cursor += next + 1;
        Ok(())
    }

    fn dropped_by_binary(&mut self, number: usize, reason: DropReason) -> Check {
        let Some(envelope) = self.conns[number].current.take() else {
            ensure!(reason == DropReason::UnknownConnId, "{number} dropped {reason:?} out of nothing");
            self.conns[number].unknown_close = true;
            return Ok(());
        };
        let envelope = self.conns[number].envelopes[envelope].clone();
        let mine = envelope.to.filter(|to| self.conns[*to].binary == Some(number));
        let Asks::Deliver { frame, .. } = &envelope.asks else {
            ensure!(reason == DropReason::Malformed, "nonsense was dropped for {reason:?}");
            return Ok(());
        };
        let taken = self.taken();
        match (reason, mine) {
            (DropReason::UnknownConnId, Some(to)) => {
                ensure!(self.conns[to].cause.is_some(), "phone {to} is there");
            }
            (DropReason::UnknownConnId, None) => {}
            (DropReason::ReceiverClosed, Some(to)) => {
                let conn = &self.conns[to];
                let closing = conn.cause.is_some() || conn.doomed.is_some() || conn.overflowed;
                ensure!(closing || !conn.directives.is_empty() || self.draining, "phone {to} is open");
            }
            (DropReason::Backlog, Some(to)) => {
                let cost = frame.len() + ITEM_OVERHEAD;
                let held = self.conns[to].charged;
                let fits = held + cost <= self.settings.phone_queue;
                ensure!(!fits || !self.budget_has(cost, held), "there is room for {cost} bytes");
                let share = taken + cost <= self.settings.all_queues;
                self.coverage.saw(match (fits, share) {
                    (false, _) => "phone overflow",
                    (true, false) => "budget exhausted by a phone",
                    (true, true) => "phone held its share",
                });
                self.conns[to].overflowed = true;
            }
            other => return Err(format!("an envelope was dropped for {other:?}")),
        }
        Ok(())
    }

    fn queued_by_binary(&mut self, number: usize, cost: usize) -> Check {
        let Some(envelope) = self.conns[number].current.take() else {
            return Err(format!("{number} queued for a phone out of nothing"));
        };
        let envelope = &self.conns[number].envelopes[envelope];
        let (Some(to), Asks::Deliver { frame, .. }) = (envelope.to, &envelope.asks) else {
            return Err(format!("{number} queued what is no frame for a phone"));
        };
        ensure!(cost == frame.len() + ITEM_OVERHEAD, "a frame is charged {cost}");
        let held = self.conns[to].charged;
        ensure!(self.budget_has(cost, held), "{cost} bytes more than {held} are too much");
        let to = &mut self.conns[to];
        ensure!(to.binary == Some(number) && to.is_open(), "queued for a phone that is not there");
        to.queued_frames += 1;
        to.charged += cost;
        ensure!(to.charged <= self.settings.phone_queue, "a phone's outbox has {}", to.charged);
        Ok(())
    }

    fn forwarded(&mut self, number: usize, direction: Direction, bytes: usize) -> Check {
        let conn = &mut self.conns[number];
        ensure!(conn.endpoint == receiver(direction), "forwarded by another task");
        if let Some(frame) = conn.expected.get(conn.forwarded) {
            ensure!(frame.len() == bytes, "{bytes} bytes counted for a frame of {}", frame.len());
        }
        conn.forwarded += 1;
        ensure!(conn.forwarded + conn.dropped_queued <= conn.queued_frames, "{number}: more out than in");
        Ok(())
    }

    fn dropped_by_receiver(&mut self, number: usize, reason: DropReason) -> Check {
        let conn = &mut self.conns[number];
        conn.dropped_queued += 1;
        ensure!(conn.forwarded + conn.dropped_queued <= conn.queued_frames, "{number}: more out than in");
        let may = matches!(
            (reason, conn.endpoint),
            (DropReason::WriteFailed | DropReason::ReceiverClosed, _)
                | (DropReason::Backlog, Endpoint::Client)
        );
        ensure!(may, "what was queued is dropped for {reason:?}");
        Ok(())
    }

    fn upgraded(&mut self, number: usize, endpoint: Endpoint, outcome: UpgradeOutcome) -> Check {
        self.coverage.outcome(endpoint, outcome);
        let server = self.conns[number].server;
        let slot = self.slots[server];
        let (least, most) = self.phones_of(server);
        let limit = self.settings.phones_per_server;
        let conn = &mut self.conns[number];
        ensure!(conn.endpoint == endpoint && conn.outcome.is_none(), "{number} has another outcome");
        conn.outcome = Some(outcome);
        match (endpoint, outcome) {
            (Endpoint::Server, UpgradeOutcome::Accept) if conn.contested && conn.said_good_bye() => {
                return Err(format!("{number} is let in and had closed"));
            }
            (Endpoint::Server, UpgradeOutcome::Accept) => match slot {
                None => self.slots[server] = Some(Slot { binary: number, until: None }),
                Some(Slot { binary, until: None }) if binary == number => {}
                Some(slot) => return Err(format!("{number} holds what {slot:?} holds")),
            },
            (Endpoint::Server, UpgradeOutcome::Reject409) => {}
            (Endpoint::Client, UpgradeOutcome::Accept) => {
                let Some(slot) = slot else { return Err("a phone is let in without a binary".to_owned()) };
                ensure!(least < limit, "there are {least} phones already");
                conn.binary = Some(slot.binary);
                self.coverage.saw(if slot.until.is_some() { "phone in grace" } else { "phone" });
            }
            (Endpoint::Client, UpgradeOutcome::Reject404) => {
                ensure!(slot.is_none(), "there is a binary: {slot:?}");
            }
            (Endpoint::Client, UpgradeOutcome::Reject429) => {
                ensure!(slot.is_some() && most >= limit, "there are only {most} phones");
            }
            (_, UpgradeOutcome::RejectDraining) => ensure!(self.draining, "it does not shut down"),
            other => return Err(format!("no outcome: {other:?}")),
        }
        if self.conns[number].outcome == Some(UpgradeOutcome::Accept) {
            let now = self.now();
            ensure!(!self.draining, "{number} is let in while draining");
            let conn = &mut self.conns[number];
            let mut line = conn.client.line.borrow_mut();
            line.begin();
            let under_way = conn.client.under_way(line.consumed);
            let deadline = now + self.settings.message_timeout;
            conn.message = under_way.map(|message| Underway::new(message, deadline));
        }
        Ok(())
    }

    /// A newcomer is refused: somebody else is alive, or was first.
    pub(crate) fn lost_contest(&self, number: usize) -> Check {
        let conn = &self.conns[number];
        let Some(Slot { binary, until: None }) = self.slots[conn.server] else {
            return Err("refused for a server-id that nobody holds".to_owned());
        };
        let (Some((asked, _)), Some(incumbent)) = (conn.began, conn.incumbent) else {
            return Err("refused without an incumbent".to_owned());
        };
        let answered = self.conns[binary].read_step > asked;
        let too_many = asked == self.step && self.rivals(number) >= MOST_NEWCOMERS;
        ensure!(incumbent != binary || answered || too_many, "the incumbent {binary} did not answer");
        Ok(())
    }

    /// How many others wait for the answer of the incumbent that a newcomer found.
    pub(crate) fn rivals(&self, number: usize) -> usize {
        let Some(incumbent) = self.conns[number].incumbent else { return 0 };
        let waits = |conn: &&Conn| conn.contested && conn.outcome.is_none();
        let same = |conn: &&Conn| conn.incumbent == Some(incumbent);
        self.conns.iter().filter(waits).filter(same).count()
    }

    /// A binary got the place of another one.
    fn replaced(&mut self, number: usize, takeover: bool) -> Check {
        let now = self.now();
        let conn = &self.conns[number];
        let server = conn.server;
        let Some(slot) = self.slots[server] else { return Err("there was nobody to replace".to_owned()) };
        ensure!(takeover == slot.until.is_none(), "the slot was {slot:?}");
        if takeover {
            ensure!(conn.incumbent == Some(slot.binary), "{} holds it and was not asked", slot.binary);
            let Some((asked, began)) = conn.began else { return Err("it never ran".to_owned()) };
            let due = began + self.settings.conflict_probe + LAST_LOOK;
            ensure!(now == due, "taken over at {now:?}, not {due:?}");
            let line = conn.client.line.borrow();
            let left = conn.client.ends.hung_up && line.all_was_heard();
            ensure!(!left || line.listened() >= EARLY_BYTES, "it had hung up");
            drop(line);
            let old = &mut self.conns[slot.binary];
            ensure!(old.read_step <= asked, "the incumbent answered in step {}", old.read_step);
            old.doomed = Some(CloseCause::HeartbeatTimeout);
        }
        self.coverage.saw(if takeover { "takeover" } else { "reclaim" });
        self.slots[server] = Some(Slot { binary: number, until: None });
        self.conns[number].incumbent = Some(slot.binary);
        Ok(())
    }

    fn evicted(&mut self, number: usize, phones: usize) -> Check {
        let Some(old) = self.conns[number].incumbent else { return Err("nobody was replaced".to_owned()) };
        let (least, most) = self.phones_bound_to(old);
        ensure!((least..=most).contains(&phones), "{phones} phones evicted, of {least} to {most}");
        self.doom_phones_of(old, CloseCause::BinaryReclaimed);
        Ok(())
    }

    fn doom_phones_of(&mut self, binary: usize, cause: CloseCause) {
        for conn in &mut self.conns {
            if conn.binary == Some(binary) && conn.doomed.is_none() {
                conn.doomed = Some(cause);
            }
        }
    }
}

fn receiver(direction: Direction) -> Endpoint {
    match direction {
        PhoneToBinary => Endpoint::Server,
        BinaryToPhone => Endpoint::Client,
    }
}
