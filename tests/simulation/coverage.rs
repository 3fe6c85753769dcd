//! What a simulation has seen happen, so that none can silently test nothing.

use std::collections::BTreeMap;

use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint, UpgradeOutcome};

/// How often what happened.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    pub(crate) fn saw(&mut self, what: &str) {
        if let Some(count) = self.0.get_mut(what) {
            *count += 1;
        } else {
            self.0.insert(what.to_owned(), 1);
        }
    }

    pub(crate) fn drop(&mut self, direction: Direction, reason: DropReason) {
        self.saw(&drop_name(direction, reason));
    }

    pub(crate) fn closed(&mut self, endpoint: Endpoint, cause: CloseCause) {
        self.saw(&close_name(endpoint, cause));
    }

    pub(crate) fn outcome(&mut self, endpoint: Endpoint, outcome: UpgradeOutcome) {
        self.saw(&outcome_name(endpoint, outcome));
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What should have happened and did not, over many seeds.
    pub(crate) fn missing(&self) -> Vec<String> {
        expected().into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>8}  {what}"))
    }
}

fn drop_name(direction: Direction, reason: DropReason) -> String {
    format!("drop {} {}", direction.as_str(), reason.as_str())
}

fn close_name(endpoint: Endpoint, cause: CloseCause) -> String {
    format!("close {} {}", endpoint.as_str(), cause.as_str())
}

fn outcome_name(endpoint: Endpoint, outcome: UpgradeOutcome) -> String {
    format!("outcome {} {}", endpoint.as_str(), outcome.as_str())
}

/// Everything that can happen here, and is worth happening.
fn expected() -> Vec<String> {
    let words = [
        "phone",
        "phone in grace",
        "reclaim",
        "takeover",
        "expiry",
        "incumbent alive",
        "another newcomer was first",
        "newcomer left",
        "newcomer closed",
        "too many newcomers",
        "phone overflow",
        "budget exhausted by a phone",
        "line waited",
        "line waited for the budget",
        "line waited for others",
        "phone held its share",
        "frames of a phone that left",
        "binary gone while a frame waited",
        "late message read on",
        "choked by pings",
        "said something and reset",
        "close notice",
        "close frame",
        "ping from the relay",
        "pong from the relay",
        "push wake",
        "drain",
        "drain to its end",
        "drain cut",
    ];
    let causes = CloseCause::ALL.into_iter().flat_map(|cause| {
        let binary = !matches!(
            cause,
            CloseCause::InvalidJson
                | CloseCause::PhoneBacklogFull
                | CloseCause::PhoneWriteFailed
                | CloseCause::BinaryDidNotReconnect
                | CloseCause::NoServer
                | CloseCause::BinaryReclaimed
                | CloseCause::BinaryDisconnected
                | CloseCause::TooManyPhones
                | CloseCause::BinaryRequest
        );
        let phone = !matches!(cause, CloseCause::BinaryWriteFailed | CloseCause::AlreadyClaimed);
        let both = [(Endpoint::Server, binary), (Endpoint::Client, phone)];
        both.into_iter().filter(|(_, can)| *can).map(move |(endpoint, _)| close_name(endpoint, cause))
    });
    let drops = DropReason::ALL.into_iter().flat_map(|reason| {
        let (to_binary, to_phone) = match reason {
            DropReason::Malformed | DropReason::WriteFailed | DropReason::ReceiverClosed => (true, true),
            DropReason::UnknownConnId | DropReason::Backlog => (false, true),
            DropReason::NoBinary => (true, false),
        };
        let both = [(Direction::PhoneToBinary, to_binary), (Direction::BinaryToPhone, to_phone)];
        both.into_iter().filter(|(_, can)| *can).map(move |(direction, _)| drop_name(direction, reason))
    });
    let outcomes = [
        (Endpoint::Server, UpgradeOutcome::Accept),
        (Endpoint::Server, UpgradeOutcome::Reject409),
        (Endpoint::Server, UpgradeOutcome::RejectDraining),
        (Endpoint::Client, UpgradeOutcome::Accept),
        (Endpoint::Client, UpgradeOutcome::Reject404),
        (Endpoint::Client, UpgradeOutcome::Reject429),
        (Endpoint::Client, UpgradeOutcome::RejectDraining),
    ];
    let outcomes = outcomes.map(|(endpoint, outcome)| outcome_name(endpoint, outcome));
    words.map(str::to_owned).into_iter().chain(causes).chain(drops).chain(outcomes).collect()
}
