//! How many WebSocket connections there may be, in all and for one client (`limits.connections`,
//! `limits.connections_per_address`).
//!
//! A connection that may be upgraded holds a [`Place`] from that decision until its socket is closed. The place is a value,
//! and dropping it gives the place back: a refusal, an eviction, a failed write and a crash take the same way.
//!
//! Phones may use nine tenths of the places. The last tenth is kept for binaries: without its binary no phone is of any use,
//! so phones must not be what keeps it out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client_address::ClientKey;
use super::turnover::Turnover;
use crate::relay::observer::{AddressTable, Endpoint, Observer};
use crate::relay::sparse::shrunk;

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Connections in all.
    pub total: usize,
    /// Connections of one client.
    pub per_address: usize,
    /// In this time a connection that is dead is found to be.
    pub dead_after: Duration,
}

impl Caps {
    /// Places that phones leave to binaries.
    fn kept_for_binaries(self) -> usize {
        self.total.div_ceil(10)
    }
}

/// Which limit there is no room under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections in all.
    Total,
    /// Connections of this client.
    PerAddress,
    /// Connections that have not come to their upgrade.
    Handshakes,
}

impl Limit {
    /// The setting.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Total => "limits.connections",
            Self::PerAddress => "limits.connections_per_address",
            Self::Handshakes => "limits.handshakes",
        }
    }
}

/// No place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Under which limit.
    pub limit: Limit,
    /// When one can be expected.
    pub wait: Duration,
}

/// Every place that is taken.
pub struct Connections {
    caps: Caps,
    taken: Mutex<Taken>,
    observer: Arc<dyn Observer>,
}

#[derive(Debug)]
struct Taken {
    binaries: usize,
    phones: usize,
    by_client: HashMap<ClientKey, usize>,
    turnover: Turnover,
}

impl Connections {
    /// With nobody connected.
    #[must_use]
    pub fn new(caps: Caps, observer: Arc<dyn Observer>) -> Arc<Self> {
        let turnover = Turnover::new(caps.dead_after);
        let taken = Taken { binaries: 0, phones: 0, by_client: HashMap::new(), turnover };
        Arc::new(Self { caps, taken: Mutex::new(taken), observer })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Says which limit is reached.
    pub fn take(
        self: &Arc<Self>,
        endpoint: Endpoint,
        client: ClientKey,
        now: Instant,
    ) -> Result<Place, Full> {
        let mut taken = self.lock();
        let all = taken.binaries + taken.phones;
        let most_phones = self.caps.total - self.caps.kept_for_binaries();
        if all >= self.caps.total || endpoint == Endpoint::Client && taken.phones >= most_phones {
            return Err(Full { limit: Limit::Total, wait: taken.turnover.wait(now) });
        }
        let of_client = taken.by_client.entry(client).or_insert(0);
        if *of_client >= self.caps.per_address {
            // By then those of its connections that are dead are gone; for the others it has only itself to ask.
            return Err(Full { limit: Limit::PerAddress, wait: self.caps.dead_after });
        }
        *of_client += 1;
        let is_new = *of_client == 1;
        match endpoint {
            Endpoint::Server => taken.binaries += 1,
            Endpoint::Client => taken.phones += 1,
        }
        drop(taken);
        self.observer.place_taken(endpoint);
        if is_new {
            self.observer.address_tracked(AddressTable::Connections);
        }
        Ok(Place { connections: Arc::clone(self), endpoint, client, used: false })
    }

    /// When a place can be expected, for one who needs a place and cannot have it for another reason.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.lock().turnover.wait(now)
    }

    fn give_back(&self, place: &Place, now: Instant) {
        let (endpoint, client) = (place.endpoint, place.client);
        let mut taken = self.lock();
        match endpoint {
            Endpoint::Server => taken.binaries -= 1,
            Endpoint::Client => taken.phones -= 1,
        }
        let last = taken.by_client.get_mut(&client).is_some_and(|of_client| {
            *of_client -= 1;
            *of_client == 0
        });
        if last {
            taken.by_client.remove(&client);
            // What a crowd left behind is given back.
            if let Some(room) = shrunk(taken.by_client.len(), taken.by_client.capacity()) {
                taken.by_client.shrink_to(room);
            }
        }
        // A place that was only looked at says nothing about how long places are kept.
        if place.used {
            taken.turnover.given_back(now);
        }
        drop(taken);
        self.observer.place_given_back(endpoint);
        if last {
            self.observer.addresses_forgotten(AddressTable::Connections, 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections")
            .field("caps", &self.caps)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// A place, held. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    endpoint: Endpoint,
    client: ClientKey,
    used: bool,
}

impl Place {
    /// The connection is upgraded: this place is really used.
    #[must_use]
    pub fn used(mut self) -> Self {
        self.used = true;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.give_back(self, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn connections(total: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(Caps { total, per_address, dead_after: MINUTE }, Arc::new(()))
    }

    fn client(number: u8) -> ClientKey {
        ClientKey::V4(u32::from(number))
    }

    fn take(connections: &Arc<Connections>, endpoint: Endpoint, number: u8) -> Result<Place, Limit> {
        connections.take(endpoint, client(number), Instant::now()).map_err(|full| full.limit)
    }

    #[test]
    fn a_client_has_its_own_limit_and_gets_its_places_back() {
        let connections = connections(100, 2);
        let first = take(&connections, Endpoint::Server, 1).unwrap();
        let _second = take(&connections, Endpoint::Client, 1).unwrap();
        assert_eq!(take(&connections, Endpoint::Client, 1).err(), Some(Limit::PerAddress));
        assert_eq!(take(&connections, Endpoint::Server, 1).err(), Some(Limit::PerAddress));
        let _other = take(&connections, Endpoint::Client, 2).unwrap();
        drop(first);
        let _third = take(&connections, Endpoint::Client, 1).unwrap();
        assert_eq!(take(&connections, Endpoint::Client, 1).err(), Some(Limit::PerAddress));
    }

    #[test]
    fn phones_leave_a_tenth_to_binaries() {
        let connections = connections(20, 20);
        let phones: Vec<_> = (0..18).map(|n| take(&connections, Endpoint::Client, n).unwrap()).collect();
        assert_eq!(take(&connections, Endpoint::Client, 99).err(), Some(Limit::Total));
        let binaries: Vec<_> = (0..2).map(|n| take(&connections, Endpoint::Server, n).unwrap()).collect();
        assert_eq!(take(&connections, Endpoint::Server, 99).err(), Some(Limit::Total));
        drop(phones);
        // Binaries may use what phones leave, all of it.
        let more: Vec<_> = (0..18).map(|n| take(&connections, Endpoint::Server, n).unwrap()).collect();
        assert_eq!(take(&connections, Endpoint::Client, 99).err(), Some(Limit::Total));
        drop((binaries, more));
        let taken = connections.lock();
        assert_eq!((taken.binaries, taken.phones, taken.by_client.len()), (0, 0, 0));
    }

    #[test]
    fn with_the_smallest_limit_there_is_room_for_one_of_each() {
        let connections = connections(2, 2);
        let _phone = take(&connections, Endpoint::Client, 1).unwrap();
        assert_eq!(take(&connections, Endpoint::Client, 1).err(), Some(Limit::Total));
        let _binary = take(&connections, Endpoint::Server, 1).unwrap();
        assert_eq!(take(&connections, Endpoint::Server, 2).err(), Some(Limit::Total));
    }

    #[test]
    fn requests_that_are_refused_do_not_promise_places_that_stay_taken() {
        // How long a phone is told to wait that finds two of three places taken, after a hundred others came and went.
        let wait = |used: bool| {
            let connections = connections(3, 3);
            let _phones = [1, 2].map(|number| take(&connections, Endpoint::Client, number).unwrap().used());
            for _ in 0..100 {
                let place = take(&connections, Endpoint::Server, 9).unwrap();
                drop(if used { place.used() } else { place });
            }
            connections.take(Endpoint::Client, client(3), Instant::now()).unwrap_err().wait
        };
        // Of bad requests there may be as many as somebody likes; each has had a place for a moment.
        assert_eq!(wait(false), MINUTE);
        assert!(wait(true) < Duration::from_secs(1));
    }

    #[test]
    fn a_refused_client_leaves_no_trace() {
        let connections = connections(2, 1);
        let _one = take(&connections, Endpoint::Server, 1).unwrap();
        let _two = take(&connections, Endpoint::Server, 2).unwrap();
        for number in 10..200 {
            assert!(take(&connections, Endpoint::Server, number).is_err());
        }
        assert_eq!(connections.lock().by_client.len(), 2);
    }

    #[test]
    fn what_a_crowd_left_behind_is_given_back() {
        let connections = connections(100_000, 1);
        let now = Instant::now();
        let places: Vec<_> = (0_u32..10_000)
            .map(|n| connections.take(Endpoint::Server, ClientKey::V4(n), now).unwrap())
            .collect();
        let full = connections.lock().by_client.capacity();
        drop(places);
        assert!(connections.lock().by_client.capacity() < full / 8);
    }
}
