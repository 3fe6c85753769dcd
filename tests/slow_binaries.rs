//! A binary that does not read: its phones wait and lose nothing, and when it is given up they stay (PROTOCOL § 4).

#![allow(clippy::expect_used, reason = "what fails in a helper fails the test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::{Client, close_frame};
use support::eventually;
use support::held::Held;
use support::relay::{Metrics, Relay};

const TO_BINARY: &str = "phone_to_binary";

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

/// A frame of some 10 kB with a sender's number and its own.
fn frame(sender: usize, number: usize) -> String {
    format!("[{sender},{number},\"{}\"]", "w".repeat(10_000))
}

/// The sender's number and the frame's own, of an envelope.
fn numbers(envelope: &str) -> (u64, u64) {
    let envelope: Value = serde_json::from_str(envelope).expect("JSON");
    (envelope["frame"][0].as_u64().expect("a number"), envelope["frame"][1].as_u64().expect("a number"))
}

/// Waits until the binary's queue, which has 300 KiB, takes nothing more although there is more: until then it moves at
/// every look, and what it does not take before half of it is free, it has refused for want of room.
fn wait_until_full(relay: &Relay) -> Metrics {
    let (mut before, mut looks) = ((0.0, 0.0), 0);
    eventually("the queue to be full", || {
        let metrics = relay.metrics();
        let queued = metrics.queued("server");
        assert!(queued <= 300.0 * 1024.0, "{queued} bytes are queued");
        let now = (queued, metrics.forwarded(TO_BINARY));
        looks = if now == before { looks + 1 } else { 0 };
        before = now;
        if queued > 150.0 * 1024.0 && looks >= 10 { Ok(metrics) } else { Err(format!("{queued} bytes")) }
    })
}

const SMALL_QUEUE: &str = "[session]\nwrite_timeout = \"1m\"\n[limits]\nbinary_queue = \"300KiB\"\n";

#[test]
fn sixteen_phones_of_a_binary_that_does_not_read_wait_and_lose_nothing() {
    const PHONES: usize = 16;
    const FRAMES: usize = 400;
    let relay = Relay::with(SMALL_QUEUE);
    let mut binary = Held::binary(&relay, "stalled");
    let mut phones: Vec<_> = (0..PHONES).map(|_| Held::phone(&relay, "stalled")).collect();
    relay.wait_for_metric("connected_phones", 16.0);
    let before = relay.memory();
    let done = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = phones
        .iter_mut()
        .enumerate()
        .map(|(sender, phone)| {
            let (mut phone, done) = (phone.socket().try_clone().unwrap(), Arc::clone(&done));
            std::thread::spawn(move || {
                for number in 0..FRAMES {
                    let frame = support::client::frame(0x81, frame(sender, number).as_bytes());
                    std::io::Write::write_all(&mut phone, &frame).expect("sends, sooner or later");
                }
                done.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let metrics = wait_until_full(&relay);
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0) && metrics.forwarded(TO_BINARY) < 100.0);
    // The kernel's buffers may swallow one or the other of them whole.
    assert!(done.load(Ordering::SeqCst) <= PHONES / 2, "their connections push back");

    let mut next = [0; PHONES];
    for _ in 0..PHONES * FRAMES {
        let (sender, number) = numbers(&binary.text());
        let expected = &mut next[usize::try_from(sender).unwrap()];
        assert_eq!(number, *expected, "of phone {sender}");
        *expected += 1;
    }
    for sender in senders {
        sender.join().unwrap();
    }
    // 64 MB went through; what waited at any one time is the queue, and for each phone what one read brings.
    let grown = relay.peak_memory() - before;
    assert!(grown < 6 * 1024, "{grown} KiB");
    let metrics = relay.quiet(PHONES * FRAMES, 0);
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0) && is(metrics.get("connected_phones"), PHONES));
}

#[test]
fn phones_that_wait_are_served_first_come_first_served() {
    const FLOOD: usize = 200;
    let relay = Relay::with(SMALL_QUEUE);
    let mut binary = Held::binary(&relay, "line");
    let mut phones = [Held::phone(&relay, "line"), Held::phone(&relay, "line"), Held::phone(&relay, "line")];
    let mut flood = phones[0].socket().try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..FLOOD {
            let frame = support::client::frame(0x81, frame(0, number).as_bytes());
            std::io::Write::write_all(&mut flood, &frame).expect("sends, sooner or later");
        }
    });
    wait_until_full(&relay);
    for sender in [1, 2] {
        // Its frames are small enough for the queue, but somebody is before it.
        phones[sender].send(&format!("[{sender},0]"));
        phones[sender].was_read(&relay);
        phones[sender].send(&format!("[{sender},1]"));
    }
    let metrics = relay.metrics();
    let order: Vec<_> = (0..FLOOD + 4).map(|_| numbers(&binary.text())).collect();
    sender.join().unwrap();
    let place = |sender: u64, number: u64| order.iter().position(|it| *it == (sender, number)).unwrap();
    assert_eq!(place(2, 0), place(1, 0) + 1, "nobody comes between two who wait");
    assert!(place(1, 0) < place(1, 1) && place(2, 0) < place(2, 1));
    // Before them are what was written and queued, and what their forerunner had read: 64 KiB and a frame.
    let ahead = metrics.forwarded(TO_BINARY) + 30.0 + 8.0;
    assert!(place(1, 0) as f64 <= ahead, "{} and not {ahead}", place(1, 0));
    let flood: Vec<_> = order.iter().filter(|(sender, _)| *sender == 0).map(|(_, number)| *number).collect();
    assert!(flood.into_iter().eq(0..FLOOD as u64));
    let metrics = relay.quiet(FLOOD + 4, 0);
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0) && is(metrics.get("connected_phones"), 3));
}

#[test]
fn a_binary_that_takes_nothing_for_write_timeout_is_given_up_and_its_phones_stay() {
    let relay = Relay::with("[session]\nwrite_timeout = \"1s\"\n");
    let mut old = Held::binary(&relay, "given-up");
    let mut phones = [Client::phone(&relay, "given-up"), Client::phone(&relay, "given-up")];
    let began = Instant::now();
    let sent = 100;
    for number in 0..sent {
        phones[0].send(frame(0, number));
    }
    assert_eq!(phones[0].admitted(), Ok(()), "everything it sent has a place");
    let metrics = relay.wait_for_metric("gracing_binaries", 1.0);
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(is(metrics.closed("server", "binary_write_failed"), 1));
    assert_eq!(relay.wait_for_event("server_released")["server_id"], "given-up");
    assert_eq!(relay.wait_for_event("connection_lost")["cause"], "binary_write_failed");

    // It reads again, in time to hear the end.
    let (frames, close) = old.texts_and_close();
    assert_eq!(close, close_frame(1011, "binary write failed"));
    assert!(frames.iter().enumerate().all(|(at, text)| numbers(text) == (0, at as u64)));
    for phone in &mut phones {
        assert_eq!(phone.admitted(), Ok(()), "it is not to blame");
    }
    let metrics = relay.quiet(sent, 0);
    let (in_flight, queued) =
        (metrics.dropped(TO_BINARY, "write_failed"), metrics.dropped(TO_BINARY, "receiver_closed"));
    assert!((1.0..=7.0).contains(&in_flight) && queued >= 20.0, "{in_flight} and {queued}");
    assert!(is(in_flight + queued, sent - frames.len()));
    assert!(is(metrics.dropped_in_all(TO_BINARY), sent - frames.len()));
    assert!(is(metrics.get("connected_phones"), 2) && is(metrics.get("connected_binaries"), 0));

    let mut binary = Client::binary(&relay, "given-up").admitted_client();
    for phone in &mut phones {
        assert_eq!(phone.closed(), (4404, "binary reclaimed server-id".to_owned()));
    }
    let mut phone = Client::phone(&relay, "given-up");
    let conn_id = phone.conn_id(&mut binary);
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"down\"}}"));
    assert_eq!(phone.text(), "\"down\"");
    let metrics = relay.metrics();
    assert!(is(metrics.get("reclaims_total"), 1) && is(metrics.get("evicted_phones_total"), 2));
    assert!(is(metrics.get("takeovers_total"), 0) && is(metrics.get("grace_expiries_total"), 0));
}

#[test]
fn a_binary_that_reads_slowly_and_steadily_is_left_alone() {
    let relay = Relay::with("[session]\nwrite_timeout = \"1s\"\n[limits]\nbinary_queue = \"300KiB\"\n");
    let mut binary = Held::binary(&relay, "steady");
    let mut phone = Client::phone(&relay, "steady");
    let began = Instant::now();
    let sent = 60;
    let sender = std::thread::spawn(move || {
        for number in 0..sent {
            phone.send(frame(0, number));
        }
        phone
    });
    for number in 0..sent {
        assert_eq!(numbers(&binary.text()), (0, number as u64));
        // The binary's pace; the relay has until the end of its patience to write the next byte.
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mut phone = sender.join().unwrap();
    assert!(began.elapsed() > Duration::from_secs(2), "the queue lasted for several write timeouts");
    assert_eq!(phone.admitted(), Ok(()));
    let metrics = relay.quiet(sent, 0);
    assert!(is(metrics.dropped_in_all(TO_BINARY), 0) && is(metrics.get("connected_binaries"), 1));
    assert!(is(metrics.closed("server", "binary_write_failed"), 0));
}
