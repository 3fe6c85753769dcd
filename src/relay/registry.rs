//! Who holds which server-id, and which phones belong to it (PROTOCOL § 2).
//!
//! The registry is plain data: a method takes what happened, and `now` where time matters, and returns what must
//! be done about it. It knows no socket, clock, lock or metric, and it is generic over the handles by which its
//! owner reaches a connection, so that its tests use integers.
//!
//! A *slot* is the entry of one server-id. It is **held** by a binary, or **gracing** after that binary's
//! connection ended. Phones live in the slot in both states, and leave it one by one, or all at once in the same
//! step as the reclaim, takeover or expiry that ends their binding.
//!
//! Grace is armed with a fresh [`GraceToken`]. Whoever cancels or replaces the grace period only has to forget the
//! token: an expiry that comes with any other than the slot's current one is answered [`Expiry::Stale`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conn_id::ConnId;
use super::observer::Counts;
use super::sparse::shrunk;

/// A server-id: 1 to 128 bytes of visible ASCII, checked at the door (PROTOCOL § 1).
pub type ServerId = Arc<str>;

/// One arming of one grace period. No two armings share a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GraceToken(u64);

/// The answer to a binary that claims a server-id.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim<B, P> {
    /// The server-id was free; the newcomer holds it.
    Granted,
    /// The server-id was gracing; the newcomer holds it. These phones left the registry in the same step and
    /// must be closed.
    Reclaimed {
        /// The phones of the binary that was there before.
        evicted: Vec<P>,
    },
    /// Another binary holds it; nothing changed.
    Conflict {
        /// The connection that holds it.
        incumbent: B,
    },
}

/// The answer to a binary that takes a server-id from an incumbent that did not answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Takeover<B, P> {
    /// The newcomer holds the server-id. The phones left the registry in the same step; they and the displaced
    /// connection must be closed.
    Won {
        /// The connection that held it.
        displaced: B,
        /// Its phones.
        evicted: Vec<P>,
    },
    /// The slot is no longer held by the connection that was probed; nothing changed.
    Lost,
}

/// The answer to the end of a binary's connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Release {
    /// The slot waits for the binary until `deadline`.
    Gracing {
        /// What the expiry must present.
        token: GraceToken,
        /// When it may.
        deadline: Instant,
    },
    /// That connection does not hold the slot (it was displaced, or released it before); nothing changed.
    NotHolder,
}

/// The answer to a grace timer that fired.
#[derive(Debug, PartialEq, Eq)]
pub enum Expiry<P> {
    /// The slot is gone, and these phones with it; they must be closed.
    Expired {
        /// The phones that were waiting.
        phones: Vec<P>,
    },
    /// The grace period of that token was cancelled or replaced; nothing changed.
    Stale,
    /// The token is current but its deadline has not come; nothing changed.
    Early {
        /// When to come back.
        deadline: Instant,
    },
}

/// The answer to a phone that asks for a server-id.
#[derive(Debug, PartialEq, Eq)]
pub enum Registration<B> {
    /// The phone is in, bound to this binary for its whole life.
    Registered {
        /// The binary that holds the slot, or held it until its grace began.
        binary: B,
    },
    /// No binary holds the server-id, nor is one awaited.
    NoServer,
    /// The server-id has all the phones it may have.
    Full,
    /// Another phone of this server-id has that `conn_id`; try with another.
    ConnIdTaken,
}

#[derive(Debug)]
struct Grace {
    token: GraceToken,
    deadline: Instant,
}

#[derive(Debug)]
struct Slot<B, P> {
    /// The holder; while `grace` is set, the one that left.
    binary: B,
    grace: Option<Grace>,
    phones: HashMap<ConnId, P>,
}

impl<B, P> Slot<B, P> {
    fn holder(&self) -> Option<&B> {
        if self.grace.is_none() { Some(&self.binary) } else { None }
    }
}

/// All slots. `B` and `P` are the owner's handles for a binary's and a phone's connection.
#[derive(Debug)]
pub struct Registry<B, P> {
    slots: HashMap<ServerId, Slot<B, P>>,
    phones_per_server: usize,
    next_token: u64,
    gracing: usize,
    phones: usize,
}

impl<B: Clone + PartialEq, P: PartialEq> Registry<B, P> {
    /// An empty registry that allows `phones_per_server` phones in each slot.
    #[must_use]
    pub fn new(phones_per_server: usize) -> Self {
        Self { slots: HashMap::new(), phones_per_server, next_token: 0, gracing: 0, phones: 0 }
    }

    /// A binary claims a server-id: the first wins, a claim during grace succeeds at once and evicts.
    pub fn claim(&mut self, server_id: &ServerId, newcomer: B) -> Claim<B, P> {
        match self.slots.entry(Arc::clone(server_id)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { binary: newcomer, grace: None, phones: HashMap::new() });
                Claim::Granted
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                if slot.grace.take().is_none() {
                    return Claim::Conflict { incumbent: slot.binary.clone() };
                }
                self.gracing -= 1;
                slot.binary = newcomer;
                let evicted = std::mem::take(&mut slot.phones);
                self.phones -= evicted.len();
                Claim::Reclaimed { evicted: evicted.into_values().collect() }
            }
        }
    }

    /// A binary takes a server-id from `probed`, which did not answer. It succeeds only if that very connection
    /// still holds the slot.
    pub fn takeover(&mut self, server_id: &ServerId, newcomer: B, probed: &B) -> Takeover<B, P> {
        match self.slots.get_mut(server_id) {
            Some(slot) if slot.grace.is_none() && slot.binary == *probed => {
                let displaced = std::mem::replace(&mut slot.binary, newcomer);
                let evicted = std::mem::take(&mut slot.phones);
                self.phones -= evicted.len();
                Takeover::Won { displaced, evicted: evicted.into_values().collect() }
            }
            _ => Takeover::Lost,
        }
    }

    /// A binary's connection ended: its slot stays for `grace`. A connection that was displaced, or that
    /// released before, changes nothing.
    pub fn release(&mut self, server_id: &ServerId, binary: &B, now: Instant, grace: Duration) -> Release {
        match self.slots.get_mut(server_id) {
            Some(slot) if slot.grace.is_none() && slot.binary == *binary => {
                let token = GraceToken(self.next_token);
                self.next_token += 1;
                let deadline = now + grace;
                slot.grace = Some(Grace { token, deadline });
                self.gracing += 1;
                Release::Gracing { token, deadline }
            }
            _ => Release::NotHolder,
        }
    }

    /// A grace timer fired: removes the slot and its phones in one step, if the token is the slot's current one
    /// and its deadline has come.
    pub fn expire(&mut self, server_id: &ServerId, token: GraceToken, now: Instant) -> Expiry<P> {
        let Entry::Occupied(occupied) = self.slots.entry(Arc::clone(server_id)) else {
            return Expiry::Stale;
        };
        match &occupied.get().grace {
            Some(grace) if grace.token == token => {
                if now < grace.deadline {
                    return Expiry::Early { deadline: grace.deadline };
                }
            }
            _ => return Expiry::Stale,
        }
        let slot = occupied.remove();
        // What many server-ids left behind is given back.
        if let Some(room) = shrunk(self.slots.len(), self.slots.capacity()) {
            self.slots.shrink_to(room);
        }
        self.gracing -= 1;
        self.phones -= slot.phones.len();
        Expiry::Expired { phones: slot.phones.into_values().collect() }
    }

    /// A phone asks for a server-id. Check and insert are this one step; no binary wins over no room.
    pub fn register_phone(&mut self, server_id: &ServerId, conn_id: ConnId, phone: P) -> Registration<B> {
        let Some(slot) = self.slots.get_mut(server_id) else {
            return Registration::NoServer;
        };
        if slot.phones.len() >= self.phones_per_server {
            return Registration::Full;
        }
        match slot.phones.entry(conn_id) {
            Entry::Occupied(_) => Registration::ConnIdTaken,
            Entry::Vacant(vacant) => {
                vacant.insert(phone);
                self.phones += 1;
                Registration::Registered { binary: slot.binary.clone() }
            }
        }
    }

    /// A phone's connection ended. Returns whether it was still registered: after an eviction or an expiry it is
    /// not, and another phone that happens to have the same `conn_id` is left alone.
    pub fn unregister_phone(&mut self, server_id: &ServerId, conn_id: ConnId, phone: &P) -> bool {
        let Some(slot) = self.slots.get_mut(server_id) else {
            return false;
        };
        if slot.phones.get(&conn_id) != Some(phone) {
            return false;
        }
        slot.phones.remove(&conn_id);
        self.phones -= 1;
        true
    }

    /// How many connections there are. A binary in its grace period is not connected; its phones are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            connected_binaries: self.slots.len() - self.gracing,
            connected_phones: self.phones,
            gracing_binaries: self.gracing,
        }
    }

    /// Every slot's binary, if it is connected, and phones, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (&ServerId, Option<&B>, impl Iterator<Item = &P>)> {
        self.slots.iter().map(|(id, slot)| (id, slot.holder(), slot.phones.values()))
    }

    /// The same of one slot.
    #[must_use]
    pub fn slot(&self, server_id: &ServerId) -> Option<(Option<&B>, impl Iterator<Item = &P>)> {
        self.slots.get(server_id).map(|slot| (slot.holder(), slot.phones.values()))
    }

    /// Recounts everything that is kept as a running count.
    ///
    /// # Errors
    /// Says what does not agree. Meant for tests, after every step.
    pub fn check_invariants(&self) -> Result<(), String> {
        let gracing = self.slots.values().filter(|slot| slot.grace.is_some()).count();
        let phones: usize = self.slots.values().map(|slot| slot.phones.len()).sum();
        if gracing != self.gracing {
            return Err(format!("{gracing} slots are gracing, the count says {}", self.gracing));
        }
        if phones != self.phones {
            return Err(format!("{phones} phones are registered, the count says {}", self.phones));
        }
        for (id, slot) in &self.slots {
            if slot.phones.len() > self.phones_per_server {
                return Err(format!("{id} has {} phones", slot.phones.len()));
            }
            if slot.grace.as_ref().is_some_and(|grace| grace.token.0 >= self.next_token) {
                return Err(format!("{id} has a grace token that was never given out"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_server_ids_took_is_given_back() {
        let mut registry = Registry::<usize, usize>::new(1);
        let now = Instant::now();
        let ids: Vec<ServerId> = (0..10_000).map(|number| number.to_string().into()).collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(registry.claim(id, number), Claim::Granted);
        }
        assert!(registry.slots.capacity() >= 10_000);
        for (number, id) in ids.iter().enumerate() {
            let Release::Gracing { token, deadline } = registry.release(id, &number, now, Duration::ZERO)
            else {
                panic!("{id} is not released");
            };
            assert_eq!(registry.expire(id, token, deadline), Expiry::Expired { phones: vec![] });
        }
        assert!(registry.slots.capacity() <= 64, "{}", registry.slots.capacity());
    }
}
