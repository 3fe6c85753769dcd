//! When a peer that is silent is asked, when it is given up, and how long a message may take (PROTOCOL § 4).

#![allow(clippy::panic, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::{self, Client, binary_headers, close_frame, phone_headers};
use support::held::{Held, PING, PONG, TEXT};
use support::kept::Kept;
use support::relay::Relay;

const TIMED_OUT: &str = "message timed out";

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The pace of a client: what it waits for is nothing that could be looked at.
fn pace(milliseconds: u64) {
    let until = Instant::now() + ms(milliseconds);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// A phone of a binary that answers, and its name.
fn phone_of(relay: &Relay, binary: &Kept, server_id: &str) -> (Held, Value) {
    let mut phone = Held::phone(relay, server_id);
    phone.send("\"who am I\"");
    (phone, binary.json()["conn_id"].take())
}

/// The relay answers this client; how many pings of its own came before.
fn pings_before_answer(client: &mut Held) -> usize {
    client.write(&client::frame(PING, b"alive?"));
    let mut pings = 0;
    loop {
        match client.next() {
            (PING, _) => pings += 1,
            (PONG, payload) => {
                assert_eq!(payload, b"alive?");
                return pings;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_silent_peer_is_asked_once_and_then_given_up() {
    let relay = Relay::with("[session]\nping_interval = \"300ms\"\npong_timeout = \"400ms\"\n");
    let binary = Kept::binary(&relay, "asked");
    let began = Instant::now();
    let (mut phone, conn_id) = phone_of(&relay, &binary, "asked");
    let mut silent = Held::binary(&relay, "silent");
    for peer in [&mut phone, &mut silent] {
        assert_eq!(peer.next(), (PING, Vec::new()));
        assert!(began.elapsed() >= ms(300), "{:?}", began.elapsed());
    }
    for peer in [&mut phone, &mut silent] {
        assert_eq!(client::read_to_end(peer.socket()), [close_frame(1011, "heartbeat timeout")]);
        assert!(began.elapsed() >= ms(700), "{:?}", began.elapsed());
    }
    let notice = binary.json();
    assert_eq!((&notice["conn_id"], &notice["close_code"]), (&conn_id, &1011.into()));
    let metrics = relay.metrics();
    assert!(is(metrics.closed("client", "heartbeat_timeout"), 1) && is(metrics.get("connected_phones"), 0));
    assert!(is(metrics.closed("server", "heartbeat_timeout"), 1) && is(metrics.get("gracing_binaries"), 1));
    assert_eq!(relay.wait_for_event("server_released")["server_id"], "silent");
    assert_eq!(relay.wait_for_event("phone_unregistered")["cause"], "heartbeat_timeout");
    // The one that answers is there all the time.
    let (mut other, _) = phone_of(&relay, &binary, "asked");
    assert_eq!(other.next(), (PING, Vec::new()));
    assert!(is(relay.metrics().get("connected_binaries"), 1));
}

#[test]
fn whatever_a_peer_sends_postpones_the_ping() {
    let relay = Relay::with("[session]\nping_interval = \"1s\"\npong_timeout = \"1s\"\n");
    let binary = Kept::binary(&relay, "postponed");
    let (mut phone, _) = phone_of(&relay, &binary, "postponed");
    let began = Instant::now();
    let (mut sent, mut last) = (0, began);
    while began.elapsed() < ms(2500) {
        last = Instant::now();
        phone.send(&sent.to_string());
        assert_eq!(binary.json()["frame"], sent);
        sent += 1;
        pace(50);
    }
    phone.socket().set_nonblocking(true).unwrap();
    let unread = phone.socket().read(&mut [0; 16]);
    assert_eq!(unread.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "no ping so far");
    phone.socket().set_nonblocking(false).unwrap();
    assert_eq!(phone.next(), (PING, Vec::new()));
    assert!(last.elapsed() >= ms(1000), "{:?}", last.elapsed());
    let metrics = relay.quiet(sent + 1, 0);
    assert!(is(metrics.forwarded("phone_to_binary"), sent + 1));
}

#[test]
fn a_peer_that_sends_data_and_never_a_pong_lives() {
    let relay = Relay::with("[session]\nping_interval = \"300ms\"\npong_timeout = \"1500ms\"\n");
    let binary = Kept::binary(&relay, "busy");
    let (mut phone, conn_id) = phone_of(&relay, &binary, "busy");
    let mut other = Held::binary(&relay, "other");
    for sent in 0..5 {
        pace(600);
        phone.send(&sent.to_string());
        assert_eq!(binary.json()["frame"], sent);
        other.send("{\"push_wake\":{\"platform\":\"fcm\",\"token\":\"t\"}}");
    }
    // Longer than both times together, and it answered none of these.
    for peer in [&mut phone, &mut other] {
        let pings = pings_before_answer(peer);
        assert!(pings >= 3, "{pings} pings");
    }
    binary.send(&format!("{{\"conn_id\":{conn_id},\"frame\":\"down\"}}"));
    assert_eq!(phone.text(), "\"down\"");
    let metrics = relay.metrics();
    assert!(is(metrics.closed("client", "heartbeat_timeout"), 0));
    assert!(is(metrics.closed("server", "heartbeat_timeout"), 0) && is(metrics.get("connected_binaries"), 2));
}

#[test]
fn a_message_that_is_not_finished_in_time_ends_its_connection() {
    let relay = Relay::with("[session]\nmessage_timeout = \"700ms\"\n");
    let mut binary = Client::binary(&relay, "late");
    let beginnings: [&[u8]; 4] = [
        &[TEXT],
        &client::header(TEXT, 1000),
        &client::frame(TEXT, b"\"a frame of which a byte is missing\"")[..20],
        // A fragment, of which no other ever comes.
        &client::frame(0x01, b"\"first"),
    ];
    let mut sockets = Vec::new();
    for (number, beginning) in beginnings.into_iter().enumerate() {
        let id = format!("late-{number}");
        for mut socket in [
            client::raw(relay.address, "/v2/client", &phone_headers("late")),
            client::raw(relay.address, "/v2/server", &binary_headers(&id)),
        ] {
            let began = Instant::now();
            socket.write_all(beginning).unwrap();
            sockets.push((began, socket));
        }
    }
    for (began, mut socket) in sockets {
        assert_eq!(client::read_to_end(&mut socket), [close_frame(1011, TIMED_OUT)]);
        assert!(began.elapsed() >= ms(700), "{:?}", began.elapsed());
    }
    for _ in 0..4 {
        assert_eq!(binary.json()["close_code"], 1011);
    }
    for endpoint in ["client", "server"] {
        let series =
            format!("connections_closed_total{{cause=\"message_timed_out\",endpoint=\"{endpoint}\"}}");
        relay.wait_for_metric(&series, 4.0);
    }
    let metrics = relay.metrics();
    assert!(is(metrics.get("gracing_binaries"), 4) && is(metrics.get("connected_binaries"), 1));
    assert!(is(metrics.settled("phone_to_binary"), 0) && is(metrics.settled("binary_to_phone"), 0));
    assert_eq!(relay.events_named("server_released").len(), 4);
}

#[test]
fn pings_and_further_fragments_do_not_lengthen_a_message() {
    let relay = Relay::with("[session]\nmessage_timeout = \"700ms\"\n");
    let mut binary = Client::binary(&relay, "drip");
    let drip = |socket: &mut TcpStream| {
        let began = Instant::now();
        socket.write_all(&client::frame(0x01, b"[")).unwrap();
        let step = [client::frame(PING, b"still here"), client::frame(0x00, b" ")].concat();
        loop {
            // The relay may have closed by now, and not take it.
            let _ = socket.write_all(&step);
            match client::read_frame(socket) {
                Some((PONG, _)) => pace(50),
                Some(frame) => {
                    assert_eq!(frame, close_frame(1011, TIMED_OUT));
                    return began.elapsed();
                }
                None => panic!("no close"),
            }
        }
    };
    let mut phone = client::raw(relay.address, "/v2/client", &phone_headers("drip"));
    let took = drip(&mut phone);
    assert!(took >= ms(700), "{took:?}");
    assert_eq!(binary.json()["close_code"], 1011);
    let took = drip(&mut client::raw(relay.address, "/v2/server", &binary_headers("other")));
    assert!(took >= ms(700), "{took:?}");
    let metrics = relay.wait_for_metric("gracing_binaries", 1.0);
    assert!(is(metrics.closed("client", "message_timed_out"), 1));
    assert!(is(metrics.closed("server", "message_timed_out"), 1));
}

#[test]
fn each_message_has_its_own_time_and_between_them_there_is_none() {
    let relay = Relay::with("[session]\nmessage_timeout = \"1s\"\n");
    let mut binary = Client::binary(&relay, "fresh");
    let mut phone = Held::phone(&relay, "fresh");
    let began = Instant::now();
    // The end of each message comes together with the beginning of the next: there is always one under way.
    let message = client::frame(TEXT, b"\"a message in two halves\"");
    let (first, second) = message.split_at(9);
    phone.write(first);
    for _ in 0..5 {
        pace(400);
        phone.write(&[second, first].concat());
        assert_eq!(binary.json()["frame"], "a message in two halves");
    }
    phone.write(second);
    assert_eq!(binary.json()["frame"], "a message in two halves");
    assert!(began.elapsed() >= ms(2000));
    pace(1500);
    phone.send("\"after a pause\"");
    assert_eq!(binary.json()["frame"], "after a pause");
    assert_eq!(binary.admitted(), Ok(()), "it said nothing at all until now");
    let metrics = relay.metrics();
    assert!(is(metrics.forwarded("phone_to_binary"), 7));
    assert!(is(metrics.closed("client", "message_timed_out"), 0));
}

#[test]
fn a_phone_that_waits_in_line_is_not_blamed_for_its_silence() {
    const FRAMES: u64 = 400;
    let relay = Relay::with(
        "[session]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"\n[limits]\nbinary_queue = \"300KiB\"\n",
    );
    let mut binary = Held::binary(&relay, "line");
    let phones = [Kept::phone(&relay, "line"), Kept::phone(&relay, "line")].map(|phone| {
        std::thread::spawn(move || {
            for number in 0..FRAMES / 2 {
                phone.send(&format!("[{number},\"{}\"]", "l".repeat(10_000)));
            }
            phone
        })
    });
    let mut next = std::collections::BTreeMap::new();
    for read in 0..FRAMES {
        let envelope: Value = serde_json::from_str(&binary.text()).unwrap();
        let expected = next.entry(envelope["conn_id"].to_string()).or_insert(0);
        assert_eq!(envelope["frame"][0], *expected);
        *expected += 1;
        // Alive all the time, and for seven seconds so slow that nobody else gets to speak for many heartbeats.
        binary.write(&client::frame(PONG, b""));
        if read < 70 {
            pace(100);
        }
    }
    let phones = phones.map(|phone| phone.join().unwrap());
    for phone in &phones {
        phone.send("\"still here\"");
        assert!(binary.text().ends_with("\"still here\"}"));
    }
    let metrics = relay.metrics();
    assert!(is(metrics.closed("client", "heartbeat_timeout"), 0) && is(metrics.get("connected_phones"), 2));
    assert!(is(metrics.closed("server", "heartbeat_timeout"), 0));
    assert!(is(metrics.dropped_in_all("phone_to_binary"), 0));
}
