//! Frames read = frames forwarded + frames dropped, and nobody waits for a peer that stalls (PROTOCOL §§ 4, 6).

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use support::client::{self, Client, STALLING, binary_headers, phone_headers};
use support::relay::{Metrics, Relay};

const TO_PHONE: &str = "binary_to_phone";
const TO_BINARY: &str = "phone_to_binary";

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

/// Waits until nothing is queued and as many frames were settled in each direction as were sent.
fn quiet(relay: &Relay, to_binary: usize, to_phone: usize) -> Metrics {
    support::eventually("a quiet moment", || {
        let metrics = relay.metrics();
        let settled = |direction| metrics.forwarded(direction) + metrics.dropped_in_all(direction);
        let queued = ["client", "server"]
            .map(|endpoint| metrics.get(&format!("queued_bytes{{endpoint=\"{endpoint}\"}}")));
        let sums = is(settled(TO_BINARY), to_binary) && is(settled(TO_PHONE), to_phone);
        if sums && queued.iter().all(|bytes| is(*bytes, 0)) {
            Ok(metrics)
        } else {
            Err(format!("{} and {} settled, {queued:?} queued", settled(TO_BINARY), settled(TO_PHONE)))
        }
    })
}

fn envelope(conn_id: &str, frame: &str) -> String {
    format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}")
}

#[test]
fn every_frame_of_a_mixed_day_is_forwarded_or_dropped_for_one_reason() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "mixed");
    let mut phones: Vec<_> = (0..4).map(|_| Client::phone(&relay, "mixed")).collect();
    let ids: Vec<_> = phones.iter_mut().map(|phone| phone.conn_id(&mut binary)).collect();
    let (mut to_binary, mut to_phone) = (4, 0);
    for round in 0..50 {
        for (phone, id) in phones.iter_mut().zip(&ids) {
            phone.send(format!("[{round}]"));
            binary.send(envelope(id, &format!("{{\"round\":{round}}}")));
        }
        binary.send("{malformed");
        binary.send(envelope("c-0123456789abcdef", "1"));
        binary.send("{\"push_wake\":{\"platform\":\"fcm\",\"token\":\"t\"}}");
        to_binary += 4;
        to_phone += 6;
    }
    for phone in &mut phones {
        for round in 0..50 {
            assert_eq!(phone.json()["round"], round);
        }
    }
    for _ in 0..200 {
        assert!(binary.json()["frame"].is_array());
    }
    // One phone sends nonsense, one leaves, and the binary goes on sending to both.
    phones[0].send("nonsense");
    assert_eq!(phones[0].closed().0, 1007);
    assert_eq!(phones[1].close(Some(1000)), Some((1000, String::new())));
    to_binary += 1;
    relay.wait_for_metric("connected_phones", 2.0);
    for id in &ids[..2] {
        binary.send(envelope(id, "\"too late\""));
        to_phone += 1;
    }
    assert_eq!(binary.admitted(), Ok(()));
    let metrics = quiet(&relay, to_binary, to_phone);
    assert!(is(metrics.forwarded(TO_BINARY), 204) && is(metrics.forwarded(TO_PHONE), 200));
    assert!(is(metrics.dropped(TO_BINARY, "malformed"), 1) && is(metrics.dropped(TO_PHONE, "malformed"), 50));
    assert!(is(metrics.dropped(TO_PHONE, "unknown_conn_id"), 52));
    assert!(is(metrics.get("push_wakes_total{outcome=\"off\"}"), 50));

    binary.drop_connection();
    relay.wait_for_metric("gracing_binaries", 1.0);
    phones[2].send("\"nobody there\"");
    assert_eq!(phones[2].closed().0, 4404);
    let metrics = quiet(&relay, to_binary + 1, to_phone);
    assert!(is(metrics.dropped(TO_BINARY, "no_binary"), 1));
}

#[test]
fn frames_queued_for_a_phone_that_vanishes_are_dropped_and_the_rest_goes_on() {
    let relay = Relay::with(STALLING);
    let mut binary = Client::binary(&relay, "vanish");
    let mut sibling = Client::phone(&relay, "vanish");
    let sibling_id = sibling.conn_id(&mut binary);
    let mut phone = Client::phone(&relay, "vanish");
    let conn_id = phone.conn_id(&mut binary);
    // `stall` pings the binary's connection after every frame: its pongs wait for nobody.
    let mut sent = binary.stall(&relay, &conn_id);
    let asked = Instant::now();
    binary.send(envelope(&sibling_id, "\"prompt\""));
    assert_eq!(sibling.text(), "\"prompt\"");
    sibling.send("\"also prompt\"");
    assert_eq!(binary.json()["frame"], "also prompt");
    assert!(asked.elapsed() < Duration::from_secs(5), "a sibling waited {:?}", asked.elapsed());
    sent += 1;

    phone.drop_connection();
    // Whether the relay meets the end of the connection as it reads or as it writes is chance.
    let code = binary.json()["close_code"].clone();
    let metrics = quiet(&relay, 3, sent);
    let lost = usize::from(code == 1001);
    assert!(is(metrics.closed("client", "peer_lost"), lost), "{code}");
    assert!(code == 1001 || code == 1011 && is(metrics.closed("client", "phone_write_failed"), 1), "{code}");
    let lost = metrics.dropped(TO_PHONE, "receiver_closed") + metrics.dropped(TO_PHONE, "write_failed");
    assert!(lost >= 1.0 && (lost - metrics.dropped_in_all(TO_PHONE)).abs() < f64::EPSILON);
    assert!(is(metrics.get("connected_phones"), 1));
}

#[test]
fn a_phone_that_falls_too_far_behind_pays_alone() {
    let relay = Relay::with("[limits]\nphone_queue = \"512KiB\"\n");
    let mut binary = Client::binary(&relay, "backlog");
    let mut sibling = Client::phone(&relay, "backlog");
    let sibling_id = sibling.conn_id(&mut binary);
    let mut slow = client::raw(relay.address, "/v2/client", &phone_headers("backlog"));
    slow.write_all(&client::frame(0x81, b"0")).unwrap();
    let conn_id = binary.json()["conn_id"].as_str().unwrap().to_owned();
    let frame = format!("\"{}\"", "b".repeat(100_000));
    let mut sent = 0;
    while is(relay.metrics().closed("client", "phone_backlog_full"), 0) {
        binary.send(envelope(&conn_id, &frame));
        sent += 1;
        assert_eq!(binary.admitted(), Ok(()));
        assert!(sent < 600, "60 MB were taken");
    }
    binary.send(envelope(&sibling_id, "\"unaffected\""));
    assert_eq!(sibling.text(), "\"unaffected\"");
    // What was written before arrives whole, then the one close; what was queued does not arrive.
    let frames = client::read_to_end(&mut slow);
    let (close, frames) = frames.split_last().unwrap();
    assert_eq!(*close, client::close_frame(1011, "phone backlog full"));
    assert!(frames.iter().all(|(first, payload)| *first == 0x81 && payload.len() == frame.len()));
    let metrics = quiet(&relay, 2, sent + 1);
    assert!(is(metrics.forwarded(TO_PHONE), frames.len() + 1), "forwarded is what arrived");
    assert!(
        (metrics.dropped(TO_PHONE, "backlog") + metrics.dropped(TO_PHONE, "unknown_conn_id")
            - metrics.dropped_in_all(TO_PHONE))
        .abs()
            < f64::EPSILON
    );
    assert!(metrics.dropped(TO_PHONE, "backlog") >= 5.0);
    assert_eq!(relay.wait_for_event("phone_unregistered")["cause"], "phone_backlog_full");
}

#[test]
fn frames_queued_for_a_binary_that_vanishes_are_dropped() {
    let relay = Relay::start();
    let mut stalled = client::raw(relay.address, "/v2/server", &binary_headers("deaf"));
    let mut bystander = Client::binary(&relay, "bystander");
    let mut other = Client::phone(&relay, "bystander");
    let address = relay.address;
    let frame = format!("\"{}\"", "q".repeat(100_000));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let frame = frame.clone();
            std::thread::spawn(move || {
                let mut phone = client::connect(address, "/v2/client", &phone_headers("deaf")).unwrap();
                // More than the kernel and the queue take: the relay must stop reading.
                phone.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                let message = client::frame(0x81, frame.as_bytes());
                while phone.socket().write_all(&message).is_ok() {}
                phone
            })
        })
        .collect();
    let phones: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let metrics = relay.metrics();
    assert!(metrics.get("queued_bytes{endpoint=\"server\"}") > 3_000_000.0, "the queue is full");
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0), "nothing is dropped for want of room");
    other.send("\"prompt\"");
    assert_eq!(bystander.json()["frame"], "prompt");

    let full = relay.metrics();
    // What is queued, in whole frames, and the one that each phone holds.
    let cost = (frame.len() + "{\"conn_id\":\"c-0123456789abcdef\",\"frame\":}".len() + 64) as f64;
    let queued = full.get("queued_bytes{endpoint=\"server\"}") / cost;
    assert!(queued.fract().abs() < f64::EPSILON, "{queued}");
    // The binary reads a little and then is gone, with frames in every queue.
    assert!(client::read_frame(&mut stalled).is_some());
    drop(stalled);
    relay.wait_for_metric("gracing_binaries", 1.0);
    let metrics = relay.wait_for_metric("queued_bytes{endpoint=\"server\"}", 0.0);
    assert!(
        metrics.dropped(TO_BINARY, "receiver_closed") + metrics.dropped(TO_BINARY, "write_failed") >= 30.0
    );
    // Each phone had a frame waiting for a place, which dies with the binary, and sent one more, for a binary that is gone.
    let metrics = relay
        .wait_for_metric("connections_closed_total{cause=\"binary_disconnected\",endpoint=\"client\"}", 4.0);
    assert!(is(metrics.dropped(TO_BINARY, "no_binary"), 4));
    let moved = metrics.forwarded(TO_BINARY) - full.forwarded(TO_BINARY) + metrics.dropped_in_all(TO_BINARY);
    assert!((moved - queued - 8.0).abs() < f64::EPSILON, "{moved} of {queued} and 8");
    drop(phones);
}

#[test]
fn a_binary_that_does_not_read_is_read_from_however_large_its_frames_are() {
    let relay = Relay::with(
        "[session]\nmax_frame = \"4MiB\"\n[limits]\nphone_queue = \"8MiB\"\nbinary_queue = \"8MiB\"\n",
    );
    let mut binary = client::raw(relay.address, "/v2/server", &binary_headers("large"));
    let mut phone = Client::phone(&relay, "large");
    phone.send("0");
    let (_, envelope_read) = client::read_frame(&mut binary).unwrap();
    let conn_id = String::from_utf8(envelope_read[12..30].to_vec()).unwrap();
    phone.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let big = client::frame(0x81, format!("\"{}\"", "d".repeat(3 << 20)).as_bytes());
    while phone.socket().write_all(&big).is_ok() {}
    for number in 0..10 {
        binary.write_all(&client::frame(0x81, envelope(&conn_id, &number.to_string()).as_bytes())).unwrap();
        assert_eq!(phone.text(), number.to_string());
    }
    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", 10.0);
    assert!(metrics.get("queued_bytes{endpoint=\"server\"}") > 3_000_000.0, "it did not read");
}

#[test]
fn a_phone_that_pings_and_does_not_read_does_not_hold_up_the_line() {
    let relay = Relay::with(
        "[session]\nmax_frame = \"1KiB\"\n[limits]\nphone_queue = \"8KiB\"\nbinary_queue = \"3KiB\"\n",
    );
    let mut binary = client::raw(relay.address, "/v2/server", &binary_headers("line"));
    let mut deaf = client::raw(relay.address, "/v2/client", &phone_headers("line"));
    let mut other = client::raw(relay.address, "/v2/client", &phone_headers("line"));
    // The binary's queue is so small that whoever sends more than a few frames at once waits for a place in it.
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            let (_, envelope) = client::read_frame(&mut binary).expect("the line moves");
            if envelope.ends_with(b"\"other\"}") {
                return (binary, seen);
            }
            seen += 1;
        }
    });
    let mut mixed = client::frame(0x89, &[b'p'; 125]).repeat(8);
    mixed.extend(client::frame(0x81, format!("\"{}\"", "d".repeat(900)).as_bytes()));
    // Until so many answers wait for it that the relay stops reading from it.
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mixed = mixed.repeat(100);
    while deaf.write_all(&mixed).is_ok() {}
    other.write_all(&client::frame(0x81, b"\"other\"")).unwrap();
    let (_binary, seen) = reader.join().unwrap();
    let metrics = relay.metrics();
    assert!(seen > 100 && metrics.forwarded(TO_BINARY) > 100.0, "{seen}");
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0) && is(metrics.get("connected_phones"), 2));
}
