//! What forwarding allocates: the frame's own buffer and nothing else.
//!
//! The relay's tasks are polled by hand on this thread, with the observer of the program. What is counted is what this thread
//! allocates in those polls: the sockets in memory have had as much to carry before, so they need no more of it. Every
//! turn after the first few must keep to the budget, not their average.

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

#[path = "support/hand_polled.rs"]
mod hand_polled;
#[path = "support/memory_socket.rs"]
mod memory_socket;

use std::sync::Arc;

use allocation_counter::measure;
use hand_polled::Relay;
use memory_socket::text;
use pyrycode_relay::metrics::families::Families;
use pyrycode_relay::relay::envelope::WRAP_OVERHEAD;
use pyrycode_relay::relay::observer::{Census, Counts};

/// Turns before anything is counted, and turns that are counted.
const WARM_UP: usize = 3;
const TURNS: usize = 200;

const PLAIN: (&str, &str) = ("", "");
const SMALL: usize = 256;
const LARGE: usize = 64 * 1024;
const BURST: usize = 8;

/// The frame's own buffer (`Text`): the envelope that `envelope::wrap` makes, or the copy of the inner frame (`BinaryLeg::deliver`).
/// Its exact length with a frame header of at most ten bytes, once.
const OWN: u64 = 1;
const HEADER: usize = 10;

/// How many frames of how many bytes come at once, and what they may take together.
#[derive(Clone, Copy)]
struct Budget {
    /// What a frame begins and ends with; between them are quotes.
    around: (&'static str, &'static str),
    frame: usize,
    at_once: usize,
    allocations: u64,
    /// In bytes: of all allocations, with what was freed before the next.
    bytes: u64,
}

const ONE: Budget = Budget {
    around: PLAIN,
    frame: SMALL,
    at_once: 1,
    allocations: OWN,
    bytes: (HEADER + SMALL + WRAP_OVERHEAD) as u64,
};

const MANY: Budget = Budget {
    around: PLAIN,
    frame: SMALL,
    at_once: BURST,
    allocations: OWN * BURST as u64,
    bytes: ONE.bytes * BURST as u64,
};

const ONE_LARGE: Budget = Budget {
    around: PLAIN,
    frame: LARGE,
    at_once: 1,
    allocations: OWN,
    bytes: (HEADER + LARGE + WRAP_OVERHEAD) as u64,
};

/// Like [`ONE`], with brackets in it, which the scanner counts without memory.
const ONE_NESTED: Budget = Budget { around: (r#"{"a":[{"b":"#, "}]}"), ..ONE };

#[derive(Clone, Copy, Debug)]
enum Way {
    ToBinary,
    ToPhone,
}

struct Nobody;

impl Census for Nobody {
    fn count(&self) -> Counts {
        Counts::default()
    }
}

/// Forwards turn after turn, each of which must keep to the budget.
fn keeps_to(budget: &Budget, way: Way) {
    let families = Families::new(Arc::new(Nobody)).expect("families");
    let mut relay = Relay::new(Arc::new(families));
    let binary = relay.binary("counted");
    let (phone, conn_id) = relay.phone("counted", &binary);
    let (before, behind) = budget.around;
    let frame = format!("{before}\"{}\"{behind}", "x".repeat(budget.frame - 2 - before.len() - behind.len()));
    let envelope = format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#);
    let (from, to, sent, arrives) = match way {
        Way::ToBinary => (&phone, &binary, text(&frame), envelope),
        Way::ToPhone => (&binary, &phone, text(&envelope), frame),
    };
    let sent = sent.repeat(budget.at_once);
    let arrives = vec![arrives; budget.at_once];

    for turn in 0..WARM_UP + TURNS {
        to.forget_received();
        from.send(&sent);
        let taken = measure(|| relay.settle());
        assert_eq!(to.texts().as_ref(), Ok(&arrives), "{way:?}, turn {turn}");
        if turn >= WARM_UP {
            let what =
                format!("{way:?}, {} x {} bytes, turn {turn}: {taken:?}", budget.at_once, budget.frame);
            assert!(taken.count_total >= OWN * budget.at_once as u64, "is anything counted? {what}");
            assert!(taken.count_total <= budget.allocations, "allowed are {}: {what}", budget.allocations);
            assert!(taken.bytes_total <= budget.bytes, "allowed are {} bytes: {what}", budget.bytes);
            assert_eq!((taken.count_current, taken.bytes_current), (0, 0), "something is kept: {what}");
        }
    }
}

#[test]
fn a_frame_takes_its_own_buffer_to_a_binary() {
    keeps_to(&ONE, Way::ToBinary);
}

#[test]
fn a_frame_takes_its_own_buffer_to_a_phone() {
    keeps_to(&Budget { bytes: (HEADER + SMALL) as u64, ..ONE }, Way::ToPhone);
}

#[test]
fn brackets_in_a_frame_take_nothing() {
    keeps_to(&ONE_NESTED, Way::ToBinary);
    keeps_to(&Budget { bytes: (HEADER + SMALL) as u64, ..ONE_NESTED }, Way::ToPhone);
}

#[test]
fn frames_that_come_together_take_their_own_buffers_to_a_binary() {
    keeps_to(&MANY, Way::ToBinary);
}

#[test]
fn frames_that_come_together_take_their_own_buffers_to_a_phone() {
    keeps_to(&MANY, Way::ToPhone);
}

#[test]
fn a_large_frame_takes_its_own_buffer_to_a_binary() {
    keeps_to(&ONE_LARGE, Way::ToBinary);
}

#[test]
fn a_large_frame_takes_its_own_buffer_to_a_phone() {
    keeps_to(&ONE_LARGE, Way::ToPhone);
}
