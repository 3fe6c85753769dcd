//! The probe against the relay of the same build.

use pyrycode_relay::command::probe::{LARGEST_FRAME, Plan, Report, Target, execute};

use crate::support::relay::Relay;
use crate::{program, stderr, stdout};

/// What a frame may have if the configuration does not say.
const DEFAULT_MAX_FRAME: usize = 256 * 1024;

/// Probes as the command does, within the deadlines of the plan.
fn probe(relay: &Relay, count: u32, size: usize) -> Report {
    let target = Target::parse(&format!("ws://{}", relay.address)).unwrap();
    execute(&Plan::new(target, count, size).unwrap(), &mut |_| {})
}

/// Each direction carried a frame in every round trip and one in the steps behind them.
fn assert_passes(relay: &Relay, count: u32, size: usize) {
    let report = probe(relay, count, size);
    assert_eq!(report.failure, None, "--size {size}");
    assert_eq!(
        (report.frames_sent, report.frames_received),
        (u64::from(2 * count + 2), u64::from(2 * count + 2))
    );
    let metrics = relay.metrics();
    for direction in ["phone_to_binary", "binary_to_phone"] {
        let missing = metrics.forwarded(direction) - f64::from(count + 1);
        assert!(missing.abs() < f64::EPSILON, "{direction}: {metrics:?}");
    }
}

/// The relay closes the phone for its size, and the probe says nothing else, however often it is asked.
fn assert_too_big(relay: &Relay, size: usize) {
    for run in 1..=10 {
        let report = probe(relay, 1, size);
        let failure = report.failure.unwrap();
        assert_eq!(
            (failure.step, report.frames_received),
            ("round trips", 0),
            "run {run}: {}",
            failure.message
        );
        for part in [
            "the relay closed the phone's connection with 1009 \"message too big\"",
            &format!("frames of {size} bytes (--size) are larger than the relay's session.max_frame allows"),
        ] {
            assert!(failure.message.contains(part), "run {run}: {part:?} is not in: {}", failure.message);
        }
    }
    relay.wait_for_metric("connections_closed_total{cause=\"message_too_big\",endpoint=\"client\"}", 10.0);
}

#[test]
fn a_relay_with_an_access_list_is_probed_with_a_server_id_that_is_on_it() {
    let relay = Relay::with("[access]\nservers = [\"for-probes\"]\n");
    let url = format!("ws://{}", relay.address);
    let refused = program(&[&url]);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("HTTP status 403") && said.contains("--server-id"), "{said}");
    let output = program(&[&url, "--server-id", "for-probes", "--count", "5"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("ok   claim            for-probes\n"), "{}", stdout(&output));
    let output = program(&[&url, "--server-id", "two words"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("1 to 128 bytes of visible ASCII"), "{}", stderr(&output));
}

#[test]
fn the_relay_passes() {
    let relay = Relay::start();
    let output = program(&[&format!("ws://{}", relay.address), "--count", "20"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.contains("20 frames of 256 B each way, bytes verified\n"), "{text}");
    assert!(text.ends_with("verdict: the relay works\n"), "{text}");
    assert_eq!(relay.events_named("server_claimed").len(), 1);
}

#[test]
fn the_relay_passes_with_the_largest_frames_of_its_defaults() {
    assert_passes(&Relay::start(), 20, DEFAULT_MAX_FRAME);
}

#[test]
fn a_frame_over_the_relays_limit_is_reported_as_1009_every_time() {
    assert_too_big(&Relay::start(), DEFAULT_MAX_FRAME + 1);
}

#[test]
fn a_frame_far_over_the_relays_limit_is_reported_as_1009_every_time() {
    // It is far more than the buffers of a socket hold: the close comes while the frame is being sent.
    assert_too_big(&Relay::with("[session]\nmax_frame = \"1KiB\"\n"), 4 * 1024 * 1024);
}

#[test]
fn the_relay_passes_with_frames_of_1_mib_if_it_is_configured_to() {
    const MIB: usize = 1024 * 1024;
    let relay = Relay::with("[session]\nmax_frame = \"1MiB\"\n");
    assert_passes(&relay, 5, MIB);
    let failure = probe(&relay, 1, MIB + 1).failure.unwrap();
    assert!(
        failure.message.contains("with 1009") && failure.message.contains("1048577"),
        "{}",
        failure.message
    );
}

#[test]
fn the_relay_passes_with_the_largest_frames_that_there_can_be() {
    let relay = Relay::with(
        "[session]\nmax_frame = \"16MiB\"\n[limits]\nphone_queue = \"17MiB\"\nbinary_queue = \"17MiB\"\n",
    );
    assert_passes(&relay, 1, LARGEST_FRAME);
}
