//! The table behind [`Handshakes`](super::Handshakes): who is in, who is due, and who makes room.
//!
//! Connections are numbered in the order in which they came, or were last answered, which is that of their deadlines. Beside
//! the entries, the table keeps for each client the numbers of its connections, and an order of the clients by how many they
//! have, so that no question takes longer than the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use crate::ingress::client_address::ClientKey;

/// Who is in, in the order of their deadlines. Plain data; `C` is what is kept of each while it is in.
#[derive(Debug)]
pub(super) struct Table<C> {
    most: usize,
    next: u64,
    entries: BTreeMap<u64, Entry<C>>,
    of_client: HashMap<ClientKey, BTreeSet<u64>>,
    /// The clients, those with the most entries first, and of these the one whose oldest entry is the oldest.
    ranks: BTreeSet<Rank>,
    /// Those that were cut and have not left.
    leaving: usize,
}

#[derive(Debug)]
pub(super) struct Entry<C> {
    pub(super) client: ClientKey,
    deadline: Instant,
    pub(super) kept: C,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Of all entries there may be: how many this client does not have.
    lacks: usize,
    oldest: u64,
    client: ClientKey,
}

impl<C> Table<C> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            next: 0,
            entries: BTreeMap::new(),
            of_client: HashMap::new(),
            ranks: BTreeSet::new(),
            leaving: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() + self.leaving >= self.most
    }

    /// Deadlines never go backwards.
    pub(super) fn insert(&mut self, client: ClientKey, deadline: Instant, kept: C) -> u64 {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, Entry { client, deadline, kept });
        self.rank(client, |entries| {
            entries.insert(number);
        });
        number
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry<C>> {
        let entry = self.entries.remove(&number)?;
        self.rank(entry.client, |entries| {
            entries.remove(&number);
        });
        Some(entry)
    }

    /// The connection is closed.
    pub(super) fn leave(&mut self, number: u64) {
        if self.remove(number).is_none() {
            self.leaving -= 1;
        }
    }

    pub(super) fn assign(&mut self, number: u64, client: ClientKey) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let before = std::mem::replace(&mut entry.client, client);
        self.rank(before, |entries| {
            entries.remove(&number);
        });
        self.rank(client, |entries| {
            entries.insert(number);
        });
    }

    /// Takes the one out whose place is needed. Nothing if enough are leaving already.
    pub(super) fn crowd_out(&mut self) -> Option<Entry<C>> {
        if self.leaving > 0 {
            return None;
        }
        let oldest = self.ranks.first()?.oldest;
        let entry = self.remove(oldest)?;
        self.leaving += 1;
        Some(entry)
    }

    /// Takes those out whose time has come.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<C> {
        let mut expired = Vec::new();
        while let Some((number, _)) =
            self.entries.first_key_value().filter(|(_, entry)| entry.deadline <= now)
        {
            let number = *number;
            if let Some(entry) = self.remove(number) {
                self.leaving += 1;
                expired.push(entry.kept);
            }
        }
        expired
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, entry)| entry.deadline)
    }

    /// Changes the entries of a client and ranks it anew.
    fn rank(&mut self, client: ClientKey, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let most = self.most;
        let entries = self.of_client.entry(client).or_default();
        let rank = |entries: &BTreeSet<u64>| {
            entries.first().map(|oldest| Rank {
                lacks: most.saturating_sub(entries.len()),
                oldest: *oldest,
                client,
            })
        };
        let before = rank(entries);
        change(entries);
        let after = rank(entries);
        if after.is_none() {
            self.of_client.remove(&client);
        }
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        self.ranks.extend(after);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> ClientKey {
        ClientKey::V4(u32::from(number))
    }

    fn crowd_out<C>(table: &mut Table<C>) -> Option<C> {
        table.crowd_out().map(|entry| entry.kept)
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut table = Table::new(3);
        let now = Instant::now();
        for name in ["a", "b", "c"] {
            assert!(!table.is_full());
            table.insert(client(name.as_bytes()[0]), now, name);
        }
        assert!(table.is_full());
        assert_eq!(crowd_out(&mut table), Some("a"));
        assert!(table.is_full(), "it has not left yet");
        assert_eq!(crowd_out(&mut table), None, "and nobody else has to");
        table.leave(0);
        assert!(!table.is_full());
        table.insert(client(b'd'), now, "d");
        assert_eq!(crowd_out(&mut table), Some("b"));
    }

    #[test]
    fn who_has_the_most_makes_room() {
        let mut table = Table::new(5);
        let now = Instant::now();
        table.insert(client(1), now, "the oldest of all");
        for name in ["first", "second", "third", "fourth"] {
            table.insert(client(2), now, name);
        }
        for (number, name) in [(1, "first"), (2, "second"), (3, "third")] {
            assert_eq!(crowd_out(&mut table), Some(name));
            table.leave(number);
            table.insert(client(2), now, "another");
        }
        // Known to be somebody else's, it no longer counts.
        table.assign(4, client(3));
        assert_eq!(crowd_out(&mut table), Some("another"));
    }

    #[test]
    fn they_expire_in_the_order_in_which_they_came() {
        let mut table = Table::new(5);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let first = table.insert(client(1), at(10), "first");
        table.insert(client(2), at(11), "second");
        table.insert(client(1), at(12), "third");
        assert_eq!(table.next_deadline(), Some(at(10)));
        assert!(table.expire(at(9)).is_empty());
        assert_eq!(table.expire(at(11)), ["first", "second"]);
        assert_eq!(table.next_deadline(), Some(at(12)));
        assert!(table.remove(first).is_none());
        table.leave(first);
        assert_eq!((table.leaving, table.entries.len()), (1, 1));
    }

    proptest! {
        /// The indexes say what the entries say, whatever happens in whatever order.
        #[test]
        fn the_table_agrees_with_itself(steps in proptest::collection::vec((0_u8..6, 0_u8..4, 0_usize..40), 1..200)) {
            let start = Instant::now();
            let mut table = Table::new(8);
            let mut open = BTreeSet::new();
            for (at, (step, number, pick)) in (0..).zip(steps) {
                let now = start + Duration::from_secs(at);
                let picked = open.iter().nth(pick % open.len().max(1)).copied();
                match (step, picked) {
                    (0 | 1, _) if table.is_full() => {
                        let most = table.of_client.values().map(BTreeSet::len).max();
                        let before = table.entries.len();
                        if let Some(cut) = crowd_out(&mut table) {
                            let of_it: ClientKey = cut;
                            let left = table.of_client.get(&of_it).map_or(0, BTreeSet::len);
                            prop_assert_eq!(Some(left + 1), most);
                            prop_assert_eq!(table.entries.len() + 1, before);
                        }
                    }
                    (0 | 1, _) => {
                        open.insert(table.insert(client(number), now + Duration::from_secs(20), client(number)));
                    }
                    (2, Some(picked)) => {
                        table.leave(picked);
                        open.remove(&picked);
                    }
                    (3, Some(picked)) => {
                        if let Some(entry) = table.remove(picked) {
                            open.remove(&picked);
                            open.insert(table.insert(entry.client, now + Duration::from_secs(20), entry.kept));
                        }
                    }
                    (4, Some(picked)) => {
                        table.assign(picked, client(number));
                        if let Some(entry) = table.entries.get_mut(&picked) {
                            entry.kept = client(number);
                        }
                    }
                    _ => {
                        table.expire(now);
                    }
                }
                prop_assert_eq!(table.entries.len() + table.leaving, open.len());
                prop_assert!(open.len() <= 8);
                let mut of_client: HashMap<ClientKey, BTreeSet<u64>> = HashMap::new();
                for (number, entry) in &table.entries {
                    of_client.entry(entry.client).or_default().insert(*number);
                }
                prop_assert_eq!(&of_client, &table.of_client);
                prop_assert_eq!(table.ranks.len(), of_client.len());
                for rank in &table.ranks {
                    let entries = &of_client[&rank.client];
                    prop_assert_eq!((8 - rank.lacks, Some(&rank.oldest)), (entries.len(), entries.first()));
                }
            }
        }
    }
}
