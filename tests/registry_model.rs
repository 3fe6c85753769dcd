//! The registry (PROTOCOL § 2) against a model of it that is too simple to be wrong, on random histories.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseResult, TestRunner};
use pyrycode_relay::relay::conn_id::ConnId;
use pyrycode_relay::relay::observer::Counts;
use pyrycode_relay::relay::registry::{
    Claim, Expiry, GraceToken, Registration, Registry, Release, ServerId, Takeover,
};

#[path = "support/registry_histories.rs"]
mod registry_histories;

use registry_histories::{FOREIGN, History, Step, When, Which, Who, history};

/// Histories per run, unless `PROPTEST_CASES` asks for more.
const CASES: u32 = 1500;

/// The model of one server-id that is held or gracing.
#[derive(Clone, Debug)]
struct Room {
    id: usize,
    binary: u32,
    /// The token it waits under, and until when.
    grace: Option<(GraceToken, u64)>,
    phones: Vec<(u64, u32)>,
}

impl Room {
    fn new(id: usize, binary: u32) -> Self {
        Self { id, binary, grace: None, phones: Vec::new() }
    }

    fn phones(&self) -> Vec<u32> {
        sorted(self.phones.iter().map(|(_, phone)| *phone).collect())
    }
}

fn sorted(mut handles: Vec<u32>) -> Vec<u32> {
    handles.sort_unstable();
    handles
}

/// How often what was answered.
type Seen = BTreeMap<&'static str, u32>;

struct Run {
    registry: Registry<u32, u32>,
    ids: Vec<ServerId>,
    phones_per_server: usize,
    rooms: Vec<Room>,
    base: Instant,
    now: u64,
    binaries: Vec<u32>,
    next_phone: u32,
    /// Every token ever given out, with its deadline.
    tokens: Vec<(GraceToken, u64)>,
    expired: HashSet<GraceToken>,
    foreign: Vec<GraceToken>,
    seen: Seen,
}

impl Run {
    fn new(history: &History, foreign: &[GraceToken]) -> Self {
        Self {
            registry: Registry::new(history.phones_per_server),
            ids: (0..history.ids).map(|id| ServerId::from(format!("server-{id}"))).collect(),
            phones_per_server: history.phones_per_server,
            rooms: Vec::new(),
            base: Instant::now(),
            now: 1000,
            binaries: Vec::new(),
            next_phone: 0,
            tokens: Vec::new(),
            expired: HashSet::new(),
            foreign: foreign.to_vec(),
            seen: Seen::new(),
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn at(&self, millis: u64) -> Instant {
        self.base + Duration::from_millis(millis)
    }

    fn room(&mut self, id: usize) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.id == id)
    }

    fn newcomer(&mut self) -> u32 {
        let binary = u32::try_from(self.binaries.len()).unwrap_or(u32::MAX);
        self.binaries.push(binary);
        binary
    }

    fn resolve(&mut self, id: usize, who: Who) -> u32 {
        match who {
            Who::Holder => self.room(id).map_or(u32::MAX, |room| room.binary),
            Who::Former(nth) if !self.binaries.is_empty() => self.binaries[nth % self.binaries.len()],
            Who::Former(_) | Who::Stranger => u32::MAX,
        }
    }

    fn step(&mut self, step: Step) -> TestCaseResult {
        let ids = self.ids.len();
        match step {
            Step::Claim { id } => self.claim(id % ids)?,
            Step::Takeover { id, probed } => self.takeover(id % ids, probed)?,
            Step::Release { id, who, grace } => self.release(id % ids, who, grace)?,
            Step::Expire { id, token, when } => self.expire(id % ids, token, when)?,
            Step::Register { id, conn_id } => self.register(id % ids, conn_id)?,
            Step::Unregister { id, nth, right_phone } => self.unregister(id % ids, nth, right_phone)?,
            Step::Wait { millis } => self.now += millis,
        }
        self.agrees()
    }

    fn claim(&mut self, id: usize) -> TestCaseResult {
        let newcomer = self.newcomer();
        let answer = match self.registry.claim(&Arc::clone(&self.ids[id]), newcomer) {
            Claim::Reclaimed { evicted } => Claim::Reclaimed { evicted: sorted(evicted) },
            other => other,
        };
        let (expected, what) = match self.room(id) {
            None => {
                self.rooms.push(Room::new(id, newcomer));
                (Claim::Granted, "granted")
            }
            Some(room) if room.grace.is_some() => {
                let evicted = room.phones();
                let what =
                    if evicted.is_empty() { "reclaimed without phones" } else { "reclaimed with phones" };
                *room = Room::new(id, newcomer);
                (Claim::Reclaimed { evicted }, what)
            }
            Some(room) => (Claim::Conflict { incumbent: room.binary }, "conflict"),
        };
        self.saw(what);
        prop_assert_eq!(answer, expected);
        Ok(())
    }

    fn takeover(&mut self, id: usize, probed: Who) -> TestCaseResult {
        let probed = self.resolve(id, probed);
        let newcomer = self.newcomer();
        let answer = match self.registry.takeover(&Arc::clone(&self.ids[id]), newcomer, &probed) {
            Takeover::Won { displaced, evicted } => Takeover::Won { displaced, evicted: sorted(evicted) },
            Takeover::Lost => Takeover::Lost,
        };
        let (expected, what) = match self.room(id) {
            Some(room) if room.binary == probed && room.grace.is_none() => {
                let evicted = room.phones();
                let what = if evicted.is_empty() { "won without phones" } else { "won with phones" };
                *room = Room::new(id, newcomer);
                (Takeover::Won { displaced: probed, evicted }, what)
            }
            Some(room) if room.binary == probed => (Takeover::Lost, "lost to its grace"),
            Some(_) => (Takeover::Lost, "lost to another"),
            None => (Takeover::Lost, "lost to nobody"),
        };
        self.saw(what);
        prop_assert_eq!(answer, expected);
        Ok(())
    }

    fn release(&mut self, id: usize, who: Who, grace: u64) -> TestCaseResult {
        let binary = self.resolve(id, who);
        let (now, deadline) = (self.at(self.now), self.now + grace);
        let answer =
            self.registry.release(&Arc::clone(&self.ids[id]), &binary, now, Duration::from_millis(grace));
        let ends_at = self.at(deadline);
        match self.room(id) {
            Some(room) if room.binary == binary && room.grace.is_none() => {
                let Release::Gracing { token, deadline: answered } = answer else {
                    return Err(TestCaseError::fail("the holder's release is no release"));
                };
                room.grace = Some((token, deadline));
                prop_assert_eq!(answered, ends_at);
                prop_assert!(self.tokens.iter().all(|(given, _)| *given != token), "given out twice");
                self.tokens.push((token, deadline));
                self.saw("gracing");
            }
            Some(room) => {
                let what = if room.binary == binary { "released twice" } else { "not holder" };
                self.saw(what);
                prop_assert_eq!(answer, Release::NotHolder);
            }
            None => prop_assert_eq!(answer, Release::NotHolder),
        }
        Ok(())
    }

    fn expire(&mut self, id: usize, token: Which, when: When) -> TestCaseResult {
        let current = self.room(id).and_then(|room| room.grace);
        let now = self.now;
        let foreign = |nth: usize| (self.foreign[nth % self.foreign.len()], now);
        let (token, deadline) = match token {
            Which::Current => current.unwrap_or_else(|| foreign(id)),
            Which::Former(nth) if !self.tokens.is_empty() => self.tokens[nth % self.tokens.len()],
            Which::Former(nth) | Which::Foreign(nth) => foreign(nth),
        };
        let now = match when {
            When::Before(millis) => deadline.saturating_sub(millis),
            When::At => deadline,
            When::After(millis) => deadline + millis,
        };
        self.expire_at(id, token, now)
    }

    fn expire_at(&mut self, id: usize, token: GraceToken, now: u64) -> TestCaseResult {
        let answer = match self.registry.expire(&Arc::clone(&self.ids[id]), token, self.at(now)) {
            Expiry::Expired { phones } => Expiry::Expired { phones: sorted(phones) },
            other => other,
        };
        let grace = self.room(id).and_then(|room| room.grace);
        let (expected, what) = match grace {
            Some((current, deadline)) if current == token && now >= deadline => {
                let phones = self.room(id).map(|room| room.phones()).unwrap_or_default();
                self.rooms.retain(|room| room.id != id);
                prop_assert!(self.expired.insert(token), "expired twice");
                let what = if phones.is_empty() { "expired without phones" } else { "expired with phones" };
                (Expiry::Expired { phones }, what)
            }
            Some((current, deadline)) if current == token => {
                (Expiry::Early { deadline: self.at(deadline) }, "early")
            }
            Some(_) => (Expiry::Stale, "stale while gracing"),
            None => (Expiry::Stale, "stale"),
        };
        self.saw(what);
        prop_assert_eq!(answer, expected);
        Ok(())
    }

    fn register(&mut self, id: usize, conn_id: u64) -> TestCaseResult {
        let phone = self.next_phone;
        self.next_phone += 1;
        let phones_per_server = self.phones_per_server;
        let answer = self.registry.register_phone(&self.ids[id], ConnId::from_u64(conn_id), phone);
        let (expected, what) = match self.room(id) {
            None => (Registration::NoServer, "no server"),
            Some(room) if room.phones.len() == phones_per_server => (Registration::Full, "full"),
            Some(room) if room.phones.iter().any(|(taken, _)| *taken == conn_id) => {
                (Registration::ConnIdTaken, "conn_id taken")
            }
            Some(room) => {
                room.phones.push((conn_id, phone));
                let what = if room.grace.is_some() { "registered while gracing" } else { "registered" };
                (Registration::Registered { binary: room.binary }, what)
            }
        };
        self.saw(what);
        prop_assert_eq!(answer, expected);
        Ok(())
    }

    fn unregister(&mut self, id: usize, nth: usize, right_phone: bool) -> TestCaseResult {
        let known = self.room(id).filter(|room| !room.phones.is_empty());
        let known = known.map(|room| room.phones[nth % room.phones.len()]);
        let (conn_id, phone) = match known {
            Some((conn_id, phone)) if right_phone => (conn_id, phone),
            Some((conn_id, phone)) => (conn_id, phone.wrapping_sub(1)),
            None => (nth as u64 % 7, 0),
        };
        let answer = self.registry.unregister_phone(&self.ids[id], ConnId::from_u64(conn_id), &phone);
        let expected = known.is_some() && right_phone;
        if let Some(room) = self.room(id).filter(|_| expected) {
            room.phones.retain(|(_, one)| *one != phone);
        }
        self.saw(if expected { "unregistered" } else { "not unregistered" });
        prop_assert_eq!(answer, expected);
        Ok(())
    }

    /// Everything that can be asked of the registry without changing it.
    fn agrees(&self) -> TestCaseResult {
        prop_assert_eq!(self.registry.check_invariants(), Ok(()));
        let gracing_binaries = self.rooms.iter().filter(|room| room.grace.is_some()).count();
        let expected = Counts {
            connected_binaries: self.rooms.len() - gracing_binaries,
            connected_phones: self.rooms.iter().map(|room| room.phones.len()).sum(),
            gracing_binaries,
        };
        prop_assert_eq!(self.registry.counts(), expected);

        // At most one entry for each server-id, with one binary or one that is awaited; and no phone elsewhere.
        let slots = self.registry.slots();
        let mut found: Vec<(&str, Option<u32>, Vec<u32>)> = slots
            .map(|(id, binary, phones)| (&**id, binary.copied(), sorted(phones.copied().collect())))
            .collect();
        found.sort_unstable();
        let mut rooms: Vec<_> = self
            .rooms
            .iter()
            .map(|room| {
                let binary = room.grace.is_none().then_some(room.binary);
                (&*self.ids[room.id], binary, room.phones())
            })
            .collect();
        rooms.sort_unstable();
        prop_assert_eq!(found, rooms);
        Ok(())
    }

    /// All timers fire, at last and again: each token ends its own grace period, if that still runs, and once.
    fn finish(&mut self) -> TestCaseResult {
        let waiting: HashSet<_> =
            self.rooms.iter().filter_map(|room| room.grace).map(|(token, _)| token).collect();
        let before = self.expired.len();
        let far = self.now + 1_000_000;
        for (token, _) in [self.tokens.clone(), self.tokens.clone()].concat() {
            for id in 0..self.ids.len() {
                self.expire_at(id, token, far)?;
            }
        }
        prop_assert_eq!(self.expired.len(), before + waiting.len());
        prop_assert!(self.rooms.iter().all(|room| room.grace.is_none()), "a slot waits for ever");
        self.agrees()
    }
}

fn replay(history: &History, foreign: &[GraceToken]) -> Result<Seen, TestCaseError> {
    let mut run = Run::new(history, foreign);
    for step in &history.steps {
        run.step(*step)?;
    }
    run.finish()?;
    Ok(run.seen)
}

/// Tokens of another registry. The first of them may look like those of the one under test, the last do not.
fn foreign_tokens() -> Vec<GraceToken> {
    let mut other = Registry::<u32, u32>::new(0);
    let (id, now) = (ServerId::from("elsewhere"), Instant::now());
    let tokens = (0..FOREIGN).filter_map(|_| {
        other.claim(&id, 0);
        match other.release(&id, &0, now, Duration::ZERO) {
            Release::Gracing { token, .. } => Some(token),
            Release::NotHolder => None,
        }
    });
    tokens.collect()
}

#[test]
fn every_answer_is_the_models() {
    let foreign = foreign_tokens();
    assert_eq!(foreign.len(), FOREIGN);
    let default = Config::default();
    let mut runner = TestRunner::new(Config {
        cases: default.cases.max(CASES),
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..default
    });
    let result = runner.run(&history(), |history| replay(&history, &foreign).map(drop));
    assert_eq!(result.map_err(|error| error.to_string()), Ok(()));
}

/// Everything that can be answered, in the words of [`Seen`].
const ANSWERS: &str = "granted, conflict, reclaimed without phones, reclaimed with phones, won without phones, \
    won with phones, lost to its grace, lost to another, lost to nobody, gracing, released twice, not holder, \
    expired without phones, expired with phones, early, stale while gracing, stale, no server, full, conn_id taken, \
    registered, registered while gracing, unregistered, not unregistered";

#[test]
fn the_histories_reach_every_answer() {
    let foreign = foreign_tokens();
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::new();
    for _ in 0..200 {
        let history = history().new_tree(&mut runner).unwrap().current();
        for (what, count) in replay(&history, &foreign).unwrap() {
            *seen.entry(what).or_default() += count;
        }
    }
    for what in ANSWERS.split(", ") {
        assert!(seen.remove(what).is_some_and(|count| count >= 20), "{what}: hardly ever");
    }
    assert_eq!(seen, Seen::new(), "not in the list");
}
