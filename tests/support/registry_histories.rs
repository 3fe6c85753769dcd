//! Random histories of a registry: who comes, goes and is waited for, in which order.

use proptest::collection::vec;
use proptest::prelude::*;

/// Steps in the longest history.
const STEPS: usize = 200;

/// More tokens than a history can use up.
pub(crate) const FOREIGN: usize = 2 * STEPS;

/// A binary, as a step names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// The one that holds the server-id, or held it until its grace began.
    Holder,
    /// One that tried for any server-id before.
    Former(usize),
    /// One that never came.
    Stranger,
}

/// A grace token, as a step names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// The server-id's current one.
    Current,
    /// One that was given out before, for whatever server-id.
    Former(usize),
    /// One of another registry.
    Foreign(usize),
}

/// A moment, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Before the deadline of the token.
    Before(u64),
    /// At its deadline.
    At,
    /// After its deadline.
    After(u64),
}

/// One thing that happens to a registry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Claim { id: usize },
    Takeover { id: usize, probed: Who },
    Release { id: usize, who: Who, grace: u64 },
    Expire { id: usize, token: Which, when: When },
    Register { id: usize, conn_id: u64 },
    Unregister { id: usize, nth: usize, right_phone: bool },
    Wait { millis: u64 },
}

/// What happens to a registry, from the beginning.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) ids: usize,
    pub(crate) phones_per_server: usize,
    pub(crate) steps: Vec<Step>,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        6 => Just(Who::Holder),
        2 => any::<usize>().prop_map(Who::Former),
        1 => Just(Who::Stranger),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![(1..500_u64).prop_map(When::Before), Just(When::At), (1..5000_u64).prop_map(When::After)]
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..4_usize;
    let token = prop_oneof![
        6 => Just(Which::Current),
        3 => any::<usize>().prop_map(Which::Former),
        1 => (0..FOREIGN).prop_map(Which::Foreign),
    ];
    prop_oneof![
        4 => id.clone().prop_map(|id| Step::Claim { id }),
        2 => (id.clone(), who()).prop_map(|(id, probed)| Step::Takeover { id, probed }),
        4 => (id.clone(), who(), 0..1000_u64).prop_map(|(id, who, grace)| Step::Release { id, who, grace }),
        3 => (id.clone(), token, when()).prop_map(|(id, token, when)| Step::Expire { id, token, when }),
        7 => (id.clone(), 0..7_u64).prop_map(|(id, conn_id)| Step::Register { id, conn_id }),
        2 => (id, any::<usize>(), any::<bool>())
            .prop_map(|(id, nth, right_phone)| Step::Unregister { id, nth, right_phone }),
        1 => (0..700_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    (2..=4_usize, 0..=4_usize, vec(step(), 1..=STEPS)).prop_map(|(ids, phones_per_server, steps)| History {
        ids,
        phones_per_server,
        steps,
    })
}
