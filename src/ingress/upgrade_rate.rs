//! How often one client may ask for an upgrade (`limits.upgrades_per_minute`, `limits.upgrade_burst`).
//!
//! Each client has a token bucket, kept as one figure: the moment at which it will be full again (GCRA, the generic cell rate
//! algorithm). An upgrade moves that moment on by the time of one token; a client for whom it would then lie further off than
//! a whole burst is refused, and nothing moves, so that being refused neither helps nor harms. Whoever waits as long as it is
//! told gets in.
//!
//! A bucket that is full says nothing that a new one would not say, and is forgotten; no other is. So nobody gets a fresh
//! burst by being forgotten.
//!
//! The table has a hard limit. A client that finds it full is judged by the `Crowd`, a sketch of fixed size. Those who have
//! an entry keep it, so an attacker with many addresses cannot push anybody out, and needs as many again to be in a
//! newcomer's way.
//!
//! Plain data: the caller says what time it is.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::client_address::ClientKey;
use crate::relay::sparse::shrunk;

/// Clients in the table: about 3 MiB when it is full.
const MOST_CLIENTS: usize = 65_536;

/// Entries that are looked at, to find a full bucket, when there is no room for a client.
const LOOKED_AT: usize = 16;

/// The buckets of all clients.
#[derive(Debug)]
pub struct UpgradeRate {
    bucket: Bucket,
    /// What the figures in the table count from.
    epoch: Instant,
    most: usize,
    /// For each client, when its bucket will be full again.
    full_at: IndexMap<ClientKey, u64>,
    /// Where the search for full buckets goes on.
    hand: usize,
    crowd: Crowd,
}

/// What an upgrade request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    /// How long to wait for the next token.
    pub wait: Duration,
}

impl UpgradeRate {
    /// Buckets of `burst` tokens, of which `per_minute` come back in a minute. Both are at least 1.
    #[must_use]
    pub fn new(per_minute: usize, burst: usize, epoch: Instant) -> Self {
        Self::with_room(per_minute, burst, epoch, MOST_CLIENTS)
    }

    fn with_room(per_minute: usize, burst: usize, epoch: Instant, most: usize) -> Self {
        Self {
            bucket: Bucket::new(per_minute, burst),
            epoch,
            most,
            full_at: IndexMap::new(),
            hand: 0,
            crowd: Crowd::default(),
        }
    }

    /// How long one token takes to come back.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.bucket.token)
    }

    /// Clients in the table.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.full_at.len()
    }

    /// Takes a token of this client.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&mut self, client: ClientKey, now: Instant) -> Result<(), TooOften> {
        let now = self.nanos(now);
        if let Some(full_at) = self.full_at.get_mut(&client) {
            *full_at = self.bucket.take(*full_at, now)?;
            return Ok(());
        }
        if self.full_at.len() >= self.most {
            self.forget(now, LOOKED_AT);
        }
        // Also for one that goes into the table now: it may have been in the crowd until now.
        let full_at = self.bucket.take(self.crowd.full_at(client), now)?;
        if self.full_at.len() < self.most {
            self.full_at.insert(client, full_at);
        } else {
            self.crowd.raise(client, full_at);
        }
        Ok(())
    }

    /// Forgets clients whose buckets are full, among the next `look_at` entries.
    pub fn forget_idle(&mut self, now: Instant, look_at: usize) {
        let now = self.nanos(now);
        self.forget(now, look_at);
        // What an attack left behind is given back.
        if let Some(room) = shrunk(self.full_at.len(), self.full_at.capacity()) {
            self.full_at.shrink_to(room);
        }
    }

    fn forget(&mut self, now: u64, look_at: usize) {
        for _ in 0..look_at.min(self.full_at.len()) {
            if self.hand >= self.full_at.len() {
                self.hand = 0;
            }
            match self.full_at.get_index(self.hand) {
                Some((_, full_at)) if *full_at <= now => {
                    self.full_at.swap_remove_index(self.hand);
                }
                _ => self.hand += 1,
            }
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

/// What every bucket has in common, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What one token takes to come back.
    token: u64,
    /// What all of them take.
    whole: u64,
}

impl Bucket {
    fn new(per_minute: usize, burst: usize) -> Self {
        let (per_minute, burst) = (wide(per_minute).max(1), wide(burst).max(1));
        // Rounded up, so that it is never more than was asked for.
        let token = 60_000_000_000_u64.div_ceil(per_minute);
        Self { token, whole: token.saturating_mul(burst) }
    }

    /// Takes a token of a bucket that will be full at `full_at`: when it will be full then.
    fn take(self, full_at: u64, now: u64) -> Result<u64, TooOften> {
        let after = full_at.max(now).saturating_add(self.token);
        match after.saturating_sub(now).checked_sub(self.whole) {
            None | Some(0) => Ok(after),
            Some(wait) => Err(TooOften { wait: Duration::from_nanos(wait) }),
        }
    }
}

/// Buckets of clients for whom the table has no room, in a fixed number of cells.
///
/// Each client has one cell in each row, drawn by a hash that nobody outside can foretell. Its bucket is the fullest of its
/// cells; what it takes empties all of them at least that far. A cell never says less than any of its clients took, so nobody
/// gets more than a bucket of its own would give. It may get less, if in every row somebody else who asks a lot has the same
/// cell.
#[derive(Debug, Default)]
struct Crowd {
    hash: RandomState,
    /// Made when the table is full for the first time.
    rows: Vec<Vec<u64>>,
}

const ROWS: usize = 4;
const CELLS: usize = 16_384;

impl Crowd {
    fn full_at(&self, client: ClientKey) -> u64 {
        let cells = self.rows.iter().zip(self.cells_of(client));
        cells.filter_map(|(row, cell)| row.get(cell).copied()).min().unwrap_or(0)
    }

    fn raise(&mut self, client: ClientKey, full_at: u64) {
        self.rows.resize_with(ROWS, || vec![0; CELLS]);
        let cells = self.cells_of(client);
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            if let Some(cell) = row.get_mut(cell) {
                *cell = full_at.max(*cell);
            }
        }
    }

    fn cells_of(&self, client: ClientKey) -> [usize; ROWS] {
        let hash = self.hash.hash_one(client);
        [0, 16, 32, 48].map(|shift| usize::try_from(hash >> shift & u64::from(u16::MAX)).unwrap_or(0) % CELLS)
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::V4(number)
    }

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_burst_and_then_one_per_interval() {
        let start = Instant::now();
        let mut rate = UpgradeRate::new(60, 3, start);
        assert_eq!(rate.interval(), millis(1000));
        for _ in 0..3 {
            assert_eq!(rate.take(client(1), start), Ok(()));
        }
        assert_eq!(rate.take(client(1), start), Err(TooOften { wait: millis(1000) }));
        assert_eq!(rate.take(client(2), start), Ok(()), "another client has its own");
        // Whoever asks on and on gets in no sooner, and no later.
        for at in (0..1000).step_by(10) {
            let wait = millis(1000 - at);
            assert_eq!(rate.take(client(1), start + millis(at)), Err(TooOften { wait }));
        }
        assert_eq!(rate.take(client(1), start + millis(1000)), Ok(()));
        assert_eq!(rate.take(client(1), start + millis(1999)), Err(TooOften { wait: millis(1) }));
        assert_eq!(rate.take(client(1), start + millis(2000)), Ok(()));
        // After a long time it is a burst again, and not more.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| rate.take(client(1), later).is_ok()).count(), 3);
    }

    #[test]
    fn only_full_buckets_are_forgotten() {
        let start = Instant::now();
        let mut rate = UpgradeRate::new(60, 2, start);
        assert_eq!((rate.take(client(1), start), rate.take(client(1), start)), (Ok(()), Ok(())));
        assert_eq!(rate.take(client(2), start), Ok(()));
        rate.forget_idle(start + millis(999), 100);
        assert_eq!(rate.clients(), 2);
        rate.forget_idle(start + millis(1000), 100);
        assert_eq!(rate.clients(), 1, "the second client's bucket is full");
        assert_eq!(rate.take(client(1), start + millis(1000)), Ok(()));
        assert_eq!(rate.take(client(1), start + millis(1000)), Err(TooOften { wait: millis(1000) }));
        rate.forget_idle(start + millis(3000), 100);
        assert_eq!(rate.clients(), 0);
    }

    #[test]
    fn a_full_table_stays_full_and_newcomers_are_judged_all_the_same() {
        let start = Instant::now();
        let mut rate = UpgradeRate::with_room(1, 2, start, 1000);
        for number in 0..1000 {
            assert_eq!(rate.take(client(number), start), Ok(()));
        }
        // Five times as many as there is room for: nobody is pushed out, and nobody gets more than its burst.
        let mut denied = 0;
        for number in 1000..6000 {
            let admitted = (0..10).filter(|_| rate.take(client(number), start).is_ok()).count();
            assert!(admitted <= 2, "client {number} had more than its burst");
            denied += usize::from(admitted < 2);
        }
        assert_eq!(rate.clients(), 1000);
        assert!(denied < 50, "{denied} of 5000 had no cell of their own in any row");
        // Those who were there first have what they had.
        for number in 0..1000 {
            assert_eq!(rate.take(client(number), start), Ok(()));
            assert!(rate.take(client(number), start).is_err());
        }
        // Who comes out of the crowd brings along what it took.
        let soon = start + Duration::from_secs(119);
        rate.forget_idle(soon, 1000);
        let later = start + Duration::from_secs(120);
        rate.forget_idle(later, 1000);
        assert_eq!(rate.clients(), 0);
        assert_eq!((rate.take(client(5999), later), rate.take(client(5999), later)), (Ok(()), Ok(())));
        assert!(rate.take(client(5999), later).is_err());
    }

    #[test]
    fn leaving_the_crowd_is_no_fresh_burst() {
        let start = Instant::now();
        let mut rate = UpgradeRate::with_room(60, 5, start, 1);
        assert_eq!(rate.take(client(1), start), Ok(()));
        for _ in 0..5 {
            assert_eq!(rate.take(client(2), start), Ok(()));
        }
        assert!(rate.take(client(2), start).is_err());
        // The first client's bucket is full, and its place goes to the second, with what it has left.
        let now = start + millis(1000);
        assert_eq!(rate.take(client(2), now), Ok(()));
        assert!(rate.full_at.contains_key(&client(2)) && rate.clients() == 1);
        assert_eq!(rate.take(client(2), now), Err(TooOften { wait: millis(1000) }));
    }

    #[test]
    fn what_an_attack_left_behind_is_given_back() {
        let start = Instant::now();
        let mut rate = UpgradeRate::new(60, 2, start);
        for number in 0..20_000 {
            assert_eq!(rate.take(client(number), start), Ok(()));
        }
        let full = rate.full_at.capacity();
        for _ in 0..10 {
            rate.forget_idle(start + millis(1000), 4096);
        }
        assert_eq!(rate.clients(), 0);
        assert!(rate.full_at.capacity() < full / 8, "{} of {full}", rate.full_at.capacity());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Requests of a few clients at random moments, with idle buckets forgotten at random, in a table with and without
        /// room for all of them.
        #[test]
        fn no_window_has_more_than_a_burst_and_what_came_back(
            per_minute in 1_usize..10_000,
            burst in 1_usize..30,
            room in 1_usize..6,
            steps in proptest::collection::vec((0_u64..3_000, 0_u32..5, any::<bool>()), 1..300),
        ) {
            let start = Instant::now();
            let mut rate = UpgradeRate::with_room(per_minute, burst, start, room);
            let mut admitted: Vec<Vec<u64>> = vec![Vec::new(); 5];
            let mut at = 0;
            for (pause, number, forget) in steps {
                // Pauses around the time of one token, whatever it is.
                at += pause * 60_000 / per_minute as u64;
                let now = start + Duration::from_micros(at);
                if forget {
                    rate.forget_idle(now, 3);
                }
                match rate.take(client(number), now) {
                    Ok(()) => admitted[number as usize].push(at),
                    Err(TooOften { wait }) => {
                        prop_assert!(wait > Duration::ZERO && wait <= rate.interval());
                    }
                }
                prop_assert!(rate.clients() <= room);
            }
            for times in &admitted {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let came_back = u128::from(to - from) * per_minute as u128 / 60_000_000;
                        prop_assert!((last - first + 1) as u128 <= burst as u128 + came_back);
                    }
                }
            }
        }

        /// Whoever waits as long as it is told gets in.
        #[test]
        fn the_wait_that_is_told_suffices(
            per_minute in 1_usize..1_000_000,
            burst in 1_usize..50,
            asked in proptest::collection::vec(0_u64..5_000_000, 1..60),
        ) {
            let start = Instant::now();
            let mut rate = UpgradeRate::new(per_minute, burst, start);
            let mut now = start;
            for pause in asked {
                now += Duration::from_micros(pause);
                if let Err(TooOften { wait }) = rate.take(client(7), now) {
                    now += wait;
                    prop_assert_eq!(rate.take(client(7), now), Ok(()));
                }
            }
        }
    }
}
