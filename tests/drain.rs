//! How the relay shuts down: who is told what, in which order, and when it stops waiting (PROTOCOL § 8).

#![allow(clippy::panic, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::client::{self, Client, binary_headers, close_frame};
use support::held::{Held, TEXT};
use support::http::{Http, request, upgrade};
use support::kept::Kept;
use support::relay::{Metrics, Options, Relay, bound_beyond_a_frame};
use support::{DEADLINE, eventually};

const TO_PHONE: &str = "binary_to_phone";
const TO_BINARY: &str = "phone_to_binary";

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

fn goodbye(retry_after: u64) -> (u8, Vec<u8>) {
    close_frame(1001, &format!("shutting down; retry-after={retry_after}"))
}

/// More than the kernel takes for a phone that does not read.
const QUEUED: usize = 40;

/// A phone that does not read, with so many frames of 10 kB queued for it: it holds a drain up.
fn stalled_phone(relay: &Relay, binary: &mut Client, server_id: &str) -> Held {
    let (phone, conn_id) = Held::phone_of(relay, binary, server_id);
    for _ in 0..QUEUED {
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"{}\"}}", "q".repeat(10_000)));
    }
    assert_eq!(binary.admitted(), Ok(()));
    assert!(relay.metrics().queued("client") > 100_000.0);
    phone
}

/// Scrapes until the process has ended, and returns the last page.
fn scrape_to_the_end(relay: &mut Relay) -> Metrics {
    let mut last = relay.metrics();
    let status = eventually("the end of the process", || {
        if let Some(metrics) = relay.try_metrics() {
            last = metrics;
        }
        relay.ended().ok_or_else(|| "still running".to_owned())
    });
    assert_eq!(status.code(), Some(0));
    last
}

#[test]
fn what_is_queued_is_written_before_phones_and_then_the_binary_are_closed() {
    let mut relay = Relay::with("[drain]\nspread = \"1s\"\n");
    let mut binary = Held::binary(&relay, "flushed");
    let mut slow = Held::phone(&relay, "flushed");
    slow.send("\"slow\"");
    let conn_id = binary.text()[12..30].to_owned();
    let mut busy = Client::phone(&relay, "flushed");
    for number in 0..QUEUED {
        binary
            .send(&format!("{{\"conn_id\":\"{conn_id}\",\"frame\":[{number},\"{}\"]}}", "d".repeat(10_000)));
        busy.send(format!("[{number},\"{}\"]", "u".repeat(10_000)));
    }
    assert_eq!(busy.admitted(), Ok(()), "the relay has read all of it");
    let metrics = relay.metrics();
    assert!(metrics.queued("client") > 100_000.0 && metrics.queued("server") > 100_000.0);
    relay.signal("TERM");
    assert_eq!(relay.wait_for_event("draining")["connections"], 3);

    assert_eq!(busy.closed(), (1001, "shutting down; retry-after=1".to_owned()));
    let (frames, close) = slow.texts_and_close();
    assert_eq!(close, goodbye(1));
    assert!(frames.iter().enumerate().all(|(at, frame)| frame.starts_with(&format!("[{at},"))));
    assert_eq!(frames.len(), QUEUED);
    let (texts, close) = binary.texts_and_close();
    assert_eq!(close, goodbye(1));
    // Frame after frame of the busy phone, then its notice; the slow one's may come before them.
    let frames: Vec<_> = texts.iter().filter(|text| text.contains("\"frame\"")).collect();
    assert!(frames.iter().enumerate().all(|(at, frame)| frame[40..].starts_with(&format!("[{at},"))));
    let place = |conn_id: &str| {
        let notice = format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":1001}}");
        texts.iter().position(|text| *text == notice)
    };
    assert!(place(&frames[0][12..30]) > texts.iter().rposition(|text| text.contains("\"frame\"")));
    assert!(place(&conn_id).is_some() && frames.len() == QUEUED && texts.len() == QUEUED + 2);
    let metrics = scrape_to_the_end(&mut relay);
    assert!(is(metrics.forwarded(TO_PHONE), QUEUED) && is(metrics.forwarded(TO_BINARY), QUEUED + 1));
    assert!(is(metrics.dropped_in_all(TO_PHONE), 0) && is(metrics.dropped_in_all(TO_BINARY), 0));
    assert_eq!(relay.events_named("drained").len(), 1);
}

#[test]
fn connections_that_are_still_in_http_are_told_and_no_other_comes_in() {
    let mut relay = Relay::with("[drain]\nspread = \"3s\"\n");
    let mut binary = Client::binary(&relay, "held-up");
    let mut slow = stalled_phone(&relay, &mut binary, "held-up");
    let mut open = [(); 3].map(|()| Http::connect(relay.address));
    relay.wait_for_metric("handshakes_in_progress", 3.0);
    relay.signal("TERM");
    relay.wait_for_event("draining");
    let answers = [
        open[0].ask(&request("GET /healthz HTTP/1.1", &[])),
        open[1].ask(&upgrade("/v2/server", &client::binary_headers("late"))),
        open[2].ask(&upgrade("/v2/client", &client::phone_headers("held-up"))),
    ];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [503; 3]);
    assert!(answers[0].body.starts_with("{\"status\":\"draining\""), "{}", answers[0].body);
    assert_eq!(answers.each_ref().map(|answer| answer.header("retry-after")), [None, Some("3"), Some("3")]);
    assert_eq!(relay.knock(), Err(ErrorKind::ConnectionRefused));
    let metrics = relay.metrics();
    for endpoint in ["server", "client"] {
        assert!(is(metrics.upgrades(endpoint, "reject_draining"), 1), "{endpoint}");
        assert!(is(metrics.upgrades(endpoint, "accept"), 1), "{endpoint}");
    }
    let (frames, close) = slow.texts_and_close();
    assert_eq!((frames.len(), close), (QUEUED, goodbye(3)));
    assert_eq!(binary.json()["close_code"], 1001);
    assert_eq!(binary.closed().0, 1001);
    drop((slow, binary));
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    assert_eq!(relay.events_named("drained").len(), 1);
}

#[test]
fn the_metrics_say_that_it_is_ready_until_the_signal_to_stop() {
    let mut relay = Relay::with("[drain]\nspread = \"1ms\"\n");
    assert!(is(relay.metrics().get("ready"), 1));
    relay.signal("HUP");
    relay.wait_for_event("reloaded");
    assert!(is(relay.metrics().get("ready"), 1), "a reload keeps it ready");
    let mut binary = Client::binary(&relay, "ready");
    let _slow = stalled_phone(&relay, &mut binary, "ready");
    relay.signal("TERM");
    relay.wait_for_event("draining");
    let during = relay.metrics();
    assert!(is(during.get("ready"), 0) && is(during.get("connected_phones"), 1));
    relay.signal("TERM");
    assert_eq!(relay.wait_for_exit().code(), Some(0));
}

#[test]
fn every_server_id_is_closed_at_its_own_moment_within_the_spread() {
    const SERVERS: usize = 20;
    let mut relay = Relay::with("[drain]\nspread = \"2s\"\n");
    let servers: Vec<_> = (0..SERVERS)
        .map(|number| {
            let id = format!("spread-{number}");
            (Kept::binary(&relay, &id), Client::phone(&relay, &id).admitted_client())
        })
        .collect();
    relay.wait_for_metric("connected_binaries", SERVERS as f64);
    let began = Instant::now();
    relay.signal("TERM");
    let waiting: Vec<_> = servers
        .into_iter()
        .map(|(binary, mut phone)| {
            std::thread::spawn(move || {
                assert_eq!(phone.closed(), (1001, "shutting down; retry-after=2".to_owned()));
                let phone_closed = began.elapsed();
                assert_eq!(binary.json()["close_code"], 1001);
                assert_eq!(binary.next(), goodbye(2));
                (phone_closed, began.elapsed())
            })
        })
        .collect();
    let mut moments: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect();
    moments.sort();
    let seconds = |at: usize| moments[at].0.as_secs_f64();
    // That twenty random moments lie within a quarter of the spread is as good as impossible.
    assert!(seconds(SERVERS - 1) - seconds(0) > 0.5, "{moments:?}");
    assert!(moments.iter().all(|(_, binary)| *binary < Duration::from_secs(5)), "{moments:?}");
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    assert!(relay.events_named("drain_incomplete").is_empty());
}

#[test]
fn what_is_still_there_at_the_timeout_is_cut() {
    let mut relay = Relay::with("[drain]\nspread = \"1ms\"\ntimeout = \"1500ms\"\n");
    let mut binary = Client::binary(&relay, "cut");
    let mut slow = stalled_phone(&relay, &mut binary, "cut");
    let mut other = Client::binary(&relay, "other");
    let began = Instant::now();
    relay.signal("TERM");
    assert_eq!(other.closed(), (1001, "shutting down; retry-after=1".to_owned()));
    assert!(began.elapsed() < Duration::from_millis(1500), "nobody waits for another server-id");
    drop(other);
    relay.wait_for_event("draining");
    let during = relay.metrics();
    assert!(during.queued("client") > 100_000.0 && is(during.get("connected_phones"), 1));

    let last = scrape_to_the_end(&mut relay);
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    let event = relay.wait_for_event("drain_incomplete");
    assert_eq!(event["connections"], 2);
    assert!(event["duration"].as_f64().unwrap() >= 1.5, "{event}");
    assert!(relay.events_named("drained").is_empty());
    // The binary is not blocked, and is told.
    assert_eq!(binary.closed(), (1001, "shutting down; retry-after=1".to_owned()));
    // What died is counted before the process ends, all but what is half written.
    let frames = std::iter::from_fn(|| client::read_frame(slow.socket()));
    let arrived = frames.filter(|(first, _)| *first == TEXT).count();
    let dropped = last.dropped(TO_PHONE, "receiver_closed");
    let uncounted = (QUEUED - arrived) as f64 - dropped;
    let most = 1.0 + (bound_beyond_a_frame() / 10_000.0).ceil();
    assert!((0.0..=most).contains(&uncounted), "{arrived} and {dropped}");
    assert!(is(last.forwarded(TO_PHONE), arrived) && is(last.dropped_in_all(TO_PHONE) - dropped, 0));
    assert!(is(last.closed("client", "shutting_down"), 1) && is(last.closed("server", "shutting_down"), 2));
}

#[test]
fn a_second_signal_closes_everybody_at_once() {
    let mut relay = Relay::with("[drain]\nspread = \"15s\"\n");
    let servers: Vec<_> = (0..10)
        .map(|number| {
            let id = format!("at-once-{number}");
            (Client::binary(&relay, &id).admitted_client(), Client::phone(&relay, &id).admitted_client())
        })
        .collect();
    let began = Instant::now();
    relay.signal("TERM");
    assert_eq!(relay.wait_for_event("draining")["connections"], 20);
    relay.signal("TERM");
    for (mut binary, mut phone) in servers {
        assert_eq!(phone.closed(), (1001, "shutting down; retry-after=15".to_owned()));
        // It may come behind the notice of a phone that went before.
        assert_eq!(binary.admitted(), Err((1001, "shutting down; retry-after=15".to_owned())));
    }
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    let left = relay.wait_for_event("drain_incomplete")["connections"].as_u64();
    assert!(left.is_some_and(|left| (1..=20).contains(&left)), "{left:?}");
}

#[test]
fn upgrades_that_race_with_the_signal_get_an_answer() {
    const STORM: usize = 200;
    let mut relay = Relay::with("[drain]\nspread = \"300ms\"\n");
    let mut binary = Client::binary(&relay, "storm");
    let mut slow = stalled_phone(&relay, &mut binary, "storm");
    let (address, begun) = (relay.address, Arc::new(AtomicUsize::new(0)));
    let storms: Vec<_> = (0..3)
        .map(|storm| {
            let begun = Arc::clone(&begun);
            std::thread::spawn(move || {
                let (mut upgraded, mut draining, mut reset) = (Vec::new(), 0, 0);
                for number in 0..STORM {
                    begun.fetch_add(1, Ordering::SeqCst);
                    let Ok(mut stream) = TcpStream::connect(address) else { break };
                    stream.set_read_timeout(Some(DEADLINE)).unwrap();
                    let id = format!("storm-{storm}-{number}");
                    let _ = stream.write_all(upgrade("/v2/server", &binary_headers(&id)).as_bytes());
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    let read = loop {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(byte[0]),
                            other => break other,
                        }
                        if head.ends_with(b"\r\n\r\n") {
                            break Ok(1);
                        }
                    };
                    match head.get(..12) {
                        Some(b"HTTP/1.1 101") => upgraded.push(stream),
                        Some(b"HTTP/1.1 503") => draining += 1,
                        _ => {
                            let hung = read.is_err_and(|error| error.kind() != ErrorKind::ConnectionReset);
                            assert!(!hung && head.is_empty(), "{:?}", String::from_utf8_lossy(&head));
                            reset += 1;
                        }
                    }
                }
                (upgraded, draining, reset)
            })
        })
        .collect();
    eventually("the storm", || {
        let begun = begun.load(Ordering::SeqCst);
        if begun > 60 { Ok(()) } else { Err(format!("{begun} begun")) }
    });
    relay.signal("TERM");
    let (mut upgraded, mut draining) = (0, 0);
    for storm in storms {
        let (streams, refused, _reset) = storm.join().unwrap();
        draining += refused;
        upgraded += streams.len();
        for mut stream in streams {
            assert_eq!(client::read_to_end(&mut stream), [goodbye(1)]);
        }
    }
    // Each request counts once: of the upgraded ones, some came too late for the registry.
    let counted = relay.metrics();
    let (accepted, rejected) =
        (counted.upgrades("server", "accept"), counted.upgrades("server", "reject_draining"));
    assert!(is(accepted + rejected, 1 + upgraded + draining), "{accepted} {rejected} {upgraded} {draining}");
    assert!(rejected >= draining as f64 && is(counted.closed("server", "shutting_down"), upgraded));
    assert!(is(counted.upgrades("server", "reject_bad_request"), 0) && upgraded >= 30);
    let (frames, close) = slow.texts_and_close();
    assert_eq!((frames.len(), close), (QUEUED, goodbye(1)));
    drop((slow, binary));
    assert_eq!(relay.wait_for_exit().code(), Some(0));
}

#[test]
fn the_service_manager_is_told_of_the_stop_and_that_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || loop {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        if !text.starts_with("STATUS=") {
            return text;
        }
    };
    let mut relay = Relay::with_options(Options {
        config: "[drain]\nspread = \"1ms\"\ntimeout = \"4500ms\"\n".to_owned(),
        environment: vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())],
        ..Options::default()
    });
    assert_eq!(next(), "READY=1\n");
    let mut binary = Client::binary(&relay, "notified");
    let _slow = stalled_phone(&relay, &mut binary, "notified");
    let began = Instant::now();
    relay.signal("TERM");
    assert_eq!(next(), "STOPPING=1\n");
    // Each promises that the next comes within ten seconds.
    assert_eq!([next(), next(), next()], ["EXTEND_TIMEOUT_USEC=10000000\n"; 3]);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    relay.wait_for_event("drain_incomplete");
}
