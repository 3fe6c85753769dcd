//! Inputs that a fuzzer found worth keeping, and seeded ones like them, against the envelope and against whole sessions.
//!
//! An input for a session is a story: it makes peers connect, send bytes whole or in pieces, take bytes or not, hang up,
//! and time pass (`support/fuzzed/steps.rs`). What must hold of every story is in `support/fuzzed/judge.rs`, of every
//! envelope in `support/fuzzed/envelopes.rs`. Both also say in a few words what came of an input, and for the kept ones
//! that must stay as it is: else an input would no longer show what it was kept for.

use std::panic;

#[path = "support/fuzzed/client_stream.rs"]
mod client_stream;
#[allow(dead_code, reason = "each test program uses its own part of it")]
#[path = "simulation/clock.rs"]
mod clock;
#[path = "support/fuzzed/envelopes.rs"]
mod envelopes;
#[path = "support/fuzzed/inputs.rs"]
mod inputs;
#[path = "support/fuzzed/judge.rs"]
mod judge;
#[path = "support/memory_socket.rs"]
mod memory_socket;
#[path = "support/fuzzed/random.rs"]
mod random;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/reference_json.rs"]
mod reference_json;
#[path = "support/fuzzed/steps.rs"]
mod steps;
#[path = "support/fuzzed/world.rs"]
mod world;

/// Stories told in one run of the tests.
const STORIES: u64 = 1000;

/// Has `judge` look at every kept input, and compares what it says.
fn replay(text: &str, judge: fn(&[u8]) -> String) {
    let kept = inputs::kept(text);
    assert!(kept.len() > 30, "{} inputs", kept.len());
    for (outcome, input) in kept {
        let came = panic::catch_unwind(|| judge(&input));
        assert!(came.as_deref().is_ok_and(|came| came == outcome), "{}: {came:?}", input.escape_ascii());
    }
}

#[test]
fn what_was_found_of_envelopes_stays_as_it_is() {
    replay(include_str!("support/fuzzed/envelopes.txt"), envelopes::read);
}

#[test]
fn what_was_found_of_sessions_stays_as_it_is() {
    replay(include_str!("support/fuzzed/sessions.txt"), judge::play);
}

#[test]
fn whatever_a_seed_makes_peers_do_the_relay_keeps_its_promises() {
    for seed in 0..STORIES {
        let story = random::story(seed);
        let told = panic::catch_unwind(|| judge::play(&story));
        assert!(told.is_ok(), "seed {seed}: {}", story.escape_ascii());
    }
}

#[test]
fn the_judge_reads_a_client_as_a_relay_must() {
    use client_stream::{Said, said};
    use memory_socket::frame;

    let parts = [frame(0x01, b"on"), frame(0x89, b"?"), frame(0x80, b"e"), frame(0x88, &[3, 232, b'.'])];
    let all = [Said::Ping(b"?".to_vec()), Said::Message(b"one".to_vec(), true), Said::Close(Some(1000))];
    assert_eq!(said(&parts.concat(), 3), all);
    assert_eq!(said(&parts.concat(), 2), all[..1], "too long");
    assert_eq!(said(&parts[..3].concat()[..20], 3), all[..1], "not whole");
    for broken in [frame(0xc1, b""), frame(0x83, b""), frame(0x09, b""), frame(0x80, b""), vec![0x81, 0]] {
        let bytes = [broken, frame(0x81, b"behind")].concat();
        assert_eq!(said(&bytes, 10), [], "{}", bytes.escape_ascii());
    }
}
