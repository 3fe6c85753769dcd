//! Control goes first: a pong overtakes what is queued, and a close cuts through a write that is blocked (PROTOCOL § 4).

mod support;

use support::client::{self, Client, close_frame};
use support::held::{Held, PING, PONG, TEXT};
use support::relay::{Relay, bound_beyond_a_frame};

const TO_PHONE: &str = "binary_to_phone";
const FRAMES: usize = 60;

/// More than what one frame is charged.
const CHARGED: f64 = 10_200.0;

/// How many frames may be half written.
fn half_written() -> f64 {
    1.0 + (bound_beyond_a_frame() / 10_000.0).ceil()
}

/// Patience enough to show that nobody waited for its end.
const PATIENT: &str = "[session]\nwrite_timeout = \"5m\"\n";

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

/// A phone that does not read, with frames of 10 kB queued for it, and its name.
fn stalled_phone(relay: &Relay, binary: &mut Client, server_id: &str) -> (Held, String) {
    let (phone, conn_id) = Held::phone_of(relay, binary, server_id);
    for number in 0..FRAMES {
        let frame = format!("[{number},\"{}\"]", "c".repeat(10_000));
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}"));
    }
    assert_eq!(binary.admitted(), Ok(()));
    assert!(relay.metrics().queued("client") > 300_000.0);
    (phone, conn_id)
}

/// Reads the rest: the first frames of those that were sent, whole and in order, and the close. How many there are.
fn beginning_and_close(phone: &mut Held, close: &(u8, Vec<u8>)) -> usize {
    let (frames, told) = phone.texts_and_close();
    assert_eq!(told, *close);
    assert!(frames.iter().enumerate().all(|(at, frame)| frame.starts_with(&format!("[{at},"))));
    frames.len()
}

#[test]
fn a_pong_overtakes_the_frames_that_are_queued() {
    let relay = Relay::with(PATIENT);
    let mut binary = Client::binary(&relay, "pong");
    let (mut phone, _) = stalled_phone(&relay, &mut binary, "pong");
    phone.write(&client::frame(PING, b"first"));
    phone.was_read(&relay);
    let written = relay.metrics().forwarded(TO_PHONE);
    let (mut before, mut after) = (0, 0);
    loop {
        match phone.next() {
            (TEXT, _) => before += 1,
            other => {
                assert_eq!(other, (PONG, b"first".to_vec()));
                break;
            }
        }
    }
    while before + after < FRAMES {
        assert_eq!(phone.next().0, TEXT);
        after += 1;
    }
    let between = before as f64 - written;
    assert!((0.0..=half_written()).contains(&between), "{before}, of which {written} were written before");
    let metrics = relay.quiet(1, FRAMES);
    assert!(is(metrics.dropped_in_all(TO_PHONE), 0));
}

#[test]
fn an_eviction_cuts_through_a_write_that_is_blocked() {
    let relay = Relay::with(PATIENT);
    let mut binary = Client::binary(&relay, "evicted");
    let (mut phone, _) = stalled_phone(&relay, &mut binary, "evicted");
    binary.drop_connection();
    relay.wait_for_metric("gracing_binaries", 1.0);
    let _binary = Client::binary(&relay, "evicted").admitted_client();
    // It is closed as far as the relay is concerned although it has read nothing.
    let metrics = relay
        .wait_for_metric("connections_closed_total{cause=\"binary_reclaimed\",endpoint=\"client\"}", 1.0);
    assert!(is(metrics.get("connected_phones"), 0));
    assert!(metrics.queued("client") < half_written() * CHARGED, "at most what is half written is left");
    let arrived = beginning_and_close(&mut phone, &close_frame(4404, "binary reclaimed server-id"));
    let metrics = relay.quiet(1, FRAMES);
    assert!(is(metrics.forwarded(TO_PHONE), arrived));
    assert!(is(metrics.dropped(TO_PHONE, "receiver_closed"), FRAMES - arrived) && arrived < FRAMES / 2);
}

#[test]
fn the_end_of_grace_cuts_through_a_write_that_is_blocked() {
    let relay = Relay::with(&format!("{PATIENT}grace = \"300ms\"\n"));
    let mut binary = Client::binary(&relay, "expired");
    let (mut phone, _) = stalled_phone(&relay, &mut binary, "expired");
    binary.drop_connection();
    relay.wait_for_metric("grace_expiries_total", 1.0);
    let series = "connections_closed_total{cause=\"binary_did_not_reconnect\",endpoint=\"client\"}";
    let metrics = relay.wait_for_metric(series, 1.0);
    assert!(metrics.queued("client") < half_written() * CHARGED, "at most what is half written is left");
    let arrived = beginning_and_close(&mut phone, &close_frame(1011, "binary did not reconnect"));
    let metrics = relay.quiet(1, FRAMES);
    assert!(is(metrics.dropped(TO_PHONE, "receiver_closed"), FRAMES - arrived) && arrived < FRAMES / 2);
}

#[test]
fn a_directive_comes_behind_the_frames_before_it() {
    let relay = Relay::with(PATIENT);
    let mut binary = Client::binary(&relay, "directed");
    let (mut phone, conn_id) = stalled_phone(&relay, &mut binary, "directed");
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":[{FRAMES},0],\"close_code\":4426}}"));
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"too late\"}}"));
    assert!(binary.served().is_empty(), "it is not told of what it asked for");
    assert_eq!(beginning_and_close(&mut phone, &close_frame(4426, "")), FRAMES + 1);
    let metrics = relay.quiet(1, FRAMES + 2);
    assert!(is(metrics.dropped(TO_PHONE, "receiver_closed"), 1) && is(metrics.dropped_in_all(TO_PHONE), 1));
    assert!(is(metrics.closed("client", "binary_request"), 1) && binary.served().is_empty());
}

#[test]
fn of_two_closes_the_first_is_told_and_counted() {
    let relay = Relay::with("[session]\nwrite_timeout = \"700ms\"\n");
    let mut binary = Client::binary(&relay, "two");
    let (mut phone, conn_id) = stalled_phone(&relay, &mut binary, "two");
    // It stands behind frames that the phone does not take: the patience with writing ends first.
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":4426}}"));
    let series = "connections_closed_total{cause=\"binary_request\",endpoint=\"client\"}";
    let metrics = relay.wait_for_metric(series, 1.0);
    assert!(is(metrics.closed("client", "phone_write_failed"), 0));
    let arrived = beginning_and_close(&mut phone, &close_frame(4426, ""));
    let metrics = relay.quiet(1, FRAMES);
    assert!(arrived < FRAMES && is(metrics.dropped_in_all(TO_PHONE), FRAMES - arrived));
    assert!(metrics.dropped(TO_PHONE, "write_failed") >= 1.0 && binary.served().is_empty());
}
