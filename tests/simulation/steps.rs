//! What must hold after each step of each task.

use std::hash::Hash;

use pyrycode_relay::relay::envelope::WRAP_OVERHEAD;
use pyrycode_relay::relay::item::ITEM_OVERHEAD;
use pyrycode_relay::relay::observer::{Census, Direction, Endpoint, UpgradeOutcome};

use crate::client::Arrived;
use crate::closes::notice_code;
use crate::ensure;
use crate::world::{Conn, KEEPER, World};

type Check = Result<(), String>;

impl World {
    pub(crate) fn after_step(&mut self, task: usize) -> Check {
        let facts = self.facts.take();
        (self.now().as_micros(), task, &facts).hash(&mut self.digest.0);
        for fact in &facts {
            self.note(|| format!("task {task}: {fact:?}"));
        }
        if let Some(number) = self.of_task[task] {
            self.watch_line(number);
            for fact in facts {
                self.apply(number, fact)?;
            }
            self.receive(number)?;
            self.check_end_of_phone(number)?;
            self.watch_ears(number);
            self.watch_pings(number);
            self.watch_turns(number);
            self.watch_room(number);
        } else if task == KEEPER {
            self.expire(&facts)?;
        } else {
            ensure!(facts.is_empty(), "{facts:?} was told by nobody's task");
        }
        self.check_sums()
    }

    /// Notes which pings the relay has seen: their answers come before any message that begins from now on.
    fn watch_pings(&mut self, number: usize) {
        let conn = &mut self.conns[number];
        if !conn.is_open() || conn.waiting() > 0 {
            return;
        }
        let line = conn.client.line.borrow();
        if line.unclear {
            return;
        }
        let seen = conn.client.pings.iter_mut().filter(|ping| ping.ends_at <= line.consumed);
        for ping in seen.filter(|ping| ping.due_from.is_none()) {
            ping.due_from = Some(line.bound_up_to());
        }
    }

    /// Notes which phones a binary has filled.
    fn watch_room(&mut self, number: usize) {
        for conn in self.conns.iter_mut().filter(|conn| conn.binary == Some(number)) {
            conn.was_full |= conn.charged + ITEM_OVERHEAD > self.settings.phone_queue;
        }
    }

    /// A phone that ended has left nothing that was read completely, and one that has not ended had no reason to.
    fn check_end_of_phone(&mut self, number: usize) -> Check {
        let conn = &self.conns[number];
        if conn.endpoint == Endpoint::Server || conn.outcome != Some(UpgradeOutcome::Accept) {
            return Ok(());
        }
        if conn.cause.is_none() {
            ensure!(conn.read_on.is_none(), "{number} reads on while a frame waits");
            let ends = conn.came_late.is_none() || self.may_be_dismissed(conn);
            ensure!(ends, "{number} lost a frame and not its connection");
        } else if conn.ended_in == Some(self.step) {
            let complete = conn.client.complete_in(conn.client.line.borrow().listened());
            ensure!(conn.read == complete, "{number}: {} of {complete} messages were read", conn.read);
            if conn.waiting() > 1 {
                self.coverage.saw("frames of a phone that left");
            }
        }
        Ok(())
    }

    /// Notes who waits for room: first come, first served.
    fn watch_turns(&mut self, number: usize) {
        let conn = &self.conns[number];
        let (waits, Some(binary)) = (conn.waiting() > 0, conn.binary) else { return };
        let line = &mut self.conns[binary].line_of_phones;
        let place = line.iter().position(|phone| *phone == number);
        match place {
            None if waits => line.push(number),
            Some(place) if !waits => {
                line.remove(place);
            }
            _ => {}
        }
    }

    /// Looks at what arrived at a client.
    fn receive(&mut self, number: usize) -> Check {
        let arrived = self.conns[number].client.receive()?;
        for frame in arrived {
            self.arrived(number, &frame).map_err(|error| format!("at client {number}: {error}"))?;
        }
        let conn = &mut self.conns[number];
        let line = conn.client.line.borrow();
        if conn.cause.is_some() && conn.over_from.is_none() {
            conn.over_from = Some(line.bound_up_to());
        }
        drop(line);
        ensure!(
            conn.received == conn.forwarded,
            "{} frames were counted as forwarded to {number}, {} arrived",
            conn.forwarded,
            conn.received
        );
        if !self.executor.is_running(conn.task) {
            self.finished(number)?;
        }
        Ok(())
    }

    fn arrived(&mut self, number: usize, frame: &Arrived) -> Check {
        (number, frame.first, frame.payload.len()).hash(&mut self.digest.0);
        match frame.first {
            0x81 => {
                let over = self.conns[number].over_from;
                ensure!(
                    over.is_none_or(|over| frame.begins_at < over),
                    "a message began at {}, after the end at {over:?}",
                    frame.begins_at
                );
                let text = std::str::from_utf8(&frame.payload).map_err(|error| error.to_string())?;
                if self.conns[number].endpoint == Endpoint::Server {
                    self.arrived_at_binary(number, text)
                } else {
                    self.arrived_at_phone(number, text)
                }
            }
            0x88 => {
                let Some((code, reason)) = self.conns[number].client.farewell.clone() else { return Ok(()) };
                (code, &reason).hash(&mut self.digest.0);
                self.note(|| format!("client {number} got close {code} {reason:?}"));
                self.coverage.saw("close frame");
                self.farewell(number, code, &reason)
            }
            0x89 => {
                self.coverage.saw("ping from the relay");
                Ok(())
            }
            _ => {
                self.coverage.saw("pong from the relay");
                Ok(())
            }
        }
    }

    fn arrived_at_phone(&mut self, number: usize, text: &str) -> Check {
        let conn = &mut self.conns[number];
        let expected = conn.expected.get(conn.received);
        ensure!(expected.is_some_and(|frame| frame == text), "got {text:?}, not {expected:?}");
        conn.received += 1;
        Ok(())
    }

    fn arrived_at_binary(&mut self, number: usize, text: &str) -> Check {
        let parts = text.strip_prefix(r#"{"conn_id":""#).and_then(|rest| rest.split_at_checked(18));
        let Some((conn_id, rest)) = parts else { return Err(format!("no envelope: {text:?}")) };
        let body = rest.strip_prefix(r#"",""#).and_then(|rest| rest.strip_suffix('}'));
        let known = self.conns.iter().position(|conn| conn.name.as_deref() == Some(conn_id));
        if let Some(frame) = body.and_then(|body| body.strip_prefix(r#"frame":"#)) {
            let label = frame.split_once(r#""p":"#).and_then(|(_, rest)| rest.split_once(','));
            let from = label.and_then(|(phone, _)| phone.parse::<usize>().ok());
            let Some(from) = from.filter(|from| *from < self.conns.len()) else {
                return Err(format!("nobody sent {frame:?}"));
            };
            let phone = &mut self.conns[from];
            ensure!(known.is_none_or(|known| known == from), "phone {from} has the name of {known:?}");
            ensure!(phone.binary == Some(number), "phone {from} belongs to {:?}", phone.binary);
            ensure!(phone.name.get_or_insert(conn_id.to_owned()) == conn_id, "{from} has another name");
            ensure!(!phone.notified, "a frame of phone {from} behind its notice");
            let expected = phone.sent.get(phone.arrived);
            ensure!(expected.is_some_and(|sent| sent == frame), "got {frame:?}, not {expected:?}");
            phone.arrived += 1;
            self.conns[number].received += 1;
            return Ok(());
        }
        let code = body.and_then(|body| body.strip_prefix(r#"close_code":"#));
        let Some(code) = code.and_then(|code| code.parse::<u16>().ok()) else {
            return Err(format!("neither a frame nor a notice: {text:?}"));
        };
        self.coverage.saw("close notice");
        let Some(from) = known else {
            self.conns[number].strangers.push(code);
            return Ok(());
        };
        let phone = &mut self.conns[from];
        ensure!(phone.binary == Some(number) && phone.notice_queued, "no notice was due for phone {from}");
        ensure!(notice_code(phone) == Some(code), "{code}, not {:?} for {from}", notice_code(phone));
        ensure!(!std::mem::replace(&mut phone.notified, true), "a second notice for phone {from}");
        ensure!(phone.arrived == phone.admitted, "the notice came before a frame of phone {from}");
        Ok(())
    }

    /// A connection's task is done.
    fn finished(&mut self, number: usize) -> Check {
        let conn = &self.conns[number];
        ensure!(conn.outcome.is_some(), "{number} is done without an outcome");
        ensure!(conn.cause.is_some(), "{number} is done without a cause");
        ensure!(conn.waiting() == 0, "a frame of {number} was forgotten");
        ensure!(conn.charged == 0, "{} bytes of {number} are charged for ever", conn.charged);
        let ended = conn.forwarded + conn.dropped_queued;
        ensure!(ended == conn.queued_frames, "{ended} of {} frames to {number} ended", conn.queued_frames);
        let line = conn.client.line.borrow();
        ensure!(line.dropped, "the socket of {number} was not let go of");
        let cut_off = line.blocked_since.is_some() || conn.client.ends.reset;
        let silent_end = !conn.client.can_send() || cut_off;
        ensure!(line.accepted.is_empty() || silent_end, "half a frame was left to {number}");
        ensure!(conn.client.farewell.is_some() || silent_end, "{number} was not told why it ended");
        if conn.endpoint == Endpoint::Client && conn.outcome == Some(UpgradeOutcome::Accept) {
            let binary = conn.binary.map(|binary| &self.conns[binary]);
            let gone = binary.is_none_or(|it| self.is_gone(it));
            let due = notice_code(conn).is_some() && conn.directives.is_empty();
            ensure!(conn.notice_queued || gone || !due, "no notice was queued for phone {number}");
        }
        Ok(())
    }

    /// Whether nothing is queued for a binary any more. A drain closes it when its phones have gone.
    pub(crate) fn is_gone(&self, binary: &Conn) -> bool {
        binary.cause.is_some() || binary.doomed.is_some() || self.cut
    }

    /// Whether an outbox that holds `held` bytes may have `cost` more: within the limit, and without holding more than
    /// eight times what is left over then.
    pub(crate) fn budget_has(&self, cost: usize, held: usize) -> bool {
        let left = self.settings.all_queues.checked_sub(self.taken() + cost);
        left.is_some_and(|left| held <= 8 * left)
    }

    /// Everything that is charged to anybody.
    pub(crate) fn taken(&self) -> usize {
        self.conns.iter().map(|conn| conn.charged).sum()
    }

    fn check_sums(&self) -> Check {
        self.hub.check_invariants()?;
        let taken = self.hub.shared().budget.taken();
        ensure!(taken <= self.settings.all_queues, "{taken} bytes are taken");
        ensure!(taken == self.taken(), "{taken} bytes are taken, {} should be", self.taken());
        let queued = Endpoint::ALL.map(|endpoint| self.facts.sums.queued_bytes(endpoint));
        ensure!(queued.iter().all(|bytes| *bytes >= 0), "queued bytes: {queued:?}");
        ensure!(queued.iter().sum::<i64>() == i64::try_from(taken).unwrap_or(-1), "{queued:?}, not {taken}");
        for direction in Direction::ALL {
            let sums = &self.facts.sums;
            let in_flight = self.in_flight(direction) as u64;
            let accounted = sums.accounted(direction) + in_flight;
            ensure!(sums.read(direction) == accounted, "{direction:?}: {} read", sums.read(direction));
        }
        let counts = self.hub.count();
        let held = self.slots.iter().flatten().filter(|slot| slot.until.is_none()).count();
        let gracing = self.slots.iter().flatten().count() - held;
        ensure!(counts.connected_binaries == held, "{counts:?}, {held} hold a server-id");
        ensure!(counts.gracing_binaries == gracing, "{counts:?}, {gracing} are gracing");
        let (least, most) = (0..self.slots.len())
            .map(|server| self.phones_of(server))
            .fold((0, 0), |sum, bounds| (sum.0 + bounds.0, sum.1 + bounds.1));
        ensure!((least..=most).contains(&counts.connected_phones), "{counts:?}, {least} to {most} phones");
        ensure!(
            self.hub.live() == self.conns.iter().filter(|conn| self.executor.is_running(conn.task)).count(),
            "{} sessions are running",
            self.hub.live()
        );
        Ok(())
    }

    /// Frames that were read and have not ended.
    fn in_flight(&self, direction: Direction) -> usize {
        let to = if direction == Direction::PhoneToBinary { Endpoint::Server } else { Endpoint::Client };
        let at = |endpoint| self.conns.iter().filter(move |conn| conn.endpoint == endpoint);
        let queued: usize =
            at(to).map(|conn| conn.queued_frames - conn.forwarded - conn.dropped_queued).sum();
        let waiting: usize = at(Endpoint::Client).map(Conn::waiting).sum();
        queued + if to == Endpoint::Server { waiting } else { 0 }
    }

    /// How many phones are registered under a server-id, at least and at most.
    pub(crate) fn phones_of(&self, server: usize) -> (usize, usize) {
        self.slots[server].map_or((0, 0), |slot| self.phones_bound_to(slot.binary))
    }

    /// How many phones are registered under a binary, at least and at most: one that ended keeps its place until its
    /// notice is queued.
    pub(crate) fn phones_bound_to(&self, binary: usize) -> (usize, usize) {
        let bound = |conn: &&Conn| conn.binary == Some(binary) && conn.doomed.is_none();
        let phones = || self.conns.iter().filter(bound);
        let open = phones().filter(|conn| conn.cause.is_none()).count();
        (open, phones().filter(|conn| self.executor.is_running(conn.task)).count())
    }

    /// What a frame of a phone costs its binary's outbox.
    pub(crate) fn cost_of(frame: &str) -> usize {
        frame.len() + WRAP_OVERHEAD + ITEM_OVERHEAD
    }
}
