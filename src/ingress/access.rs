//! The access list: which server-ids may be claimed (`access.servers`).
//!
//! A phone is not asked: a server-id that nobody may claim has no binary, so a phone for it gets what it gets for any unknown
//! one, from the same code and in the same time.
//!
//! How long a look takes depends on the length of the list alone, so that the list cannot be guessed letter by letter. For
//! that, server-ids are compared at one length: filled up with zeros, which none can contain.

use constant_time_eq::constant_time_eq_n;

/// The longest server-id, in bytes (PROTOCOL § 1).
const LONGEST: usize = 128;

/// The server-ids that may be claimed.
#[derive(Debug)]
pub struct AccessList(Vec<[u8; LONGEST]>);

impl AccessList {
    /// As configured; an empty list allows everything.
    #[must_use]
    pub fn new(servers: &[String]) -> Self {
        Self(servers.iter().map(|server_id| filled_up(server_id)).collect())
    }

    /// Whether a binary may claim this server-id.
    #[must_use]
    pub fn allows(&self, server_id: &str) -> bool {
        if server_id.len() > LONGEST {
            return false;
        }
        let wanted = filled_up(server_id);
        let mut found = self.0.is_empty();
        for listed in &self.0 {
            found |= constant_time_eq_n(listed, &wanted);
        }
        found
    }
}

fn filled_up(server_id: &str) -> [u8; LONGEST] {
    let mut filled = [0; LONGEST];
    for (to, from) in filled.iter_mut().zip(server_id.bytes()) {
        *to = from;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_may_be_claimed() {
        let longest = "x".repeat(128);
        let list = AccessList::new(&["home".to_owned(), "office".to_owned(), longest.clone()]);
        for listed in ["home", "office", &longest] {
            assert!(list.allows(listed), "{listed}");
        }
        for other in ["hom", "homeo", "Home", "", "x", &longest[1..], &format!("{longest}x")] {
            assert!(!list.allows(other), "{other}");
        }
    }

    #[test]
    fn an_empty_list_allows_everything() {
        let list = AccessList::new(&[]);
        assert!(list.allows("home") && list.allows("x"));
    }
}
