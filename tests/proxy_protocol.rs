//! Whose connection it is behind a load balancer that says so in the PROXY protocol.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::held::in_the_kernel;
use support::http::{Answer, Http, forwarded, request};
use support::relay::Relay;
use support::{connect_from, eventually};

const BEHIND_TCP: &str = "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.2/32\"]\n\
                          [limits]\nupgrade_burst = 2\nupgrades_per_minute = 1\nhandshake_timeout = \"1s\"\n";
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The metrics, without a connection of the test's own to the public address.
fn series(relay: &Relay, name: &str) -> f64 {
    relay.try_metrics().unwrap().get(name)
}

/// A header of version 2 for an IPv4 client.
fn version_2(command: u8, source: [u8; 4]) -> Vec<u8> {
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[0x20 | command, 0x11, 0, 12],
        &source,
        &[127, 0, 0, 1, 0x12, 0x34, 0, 80],
    ]
    .concat()
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n").into_bytes()
}

/// What comes back from the proxy's address for these bytes and then a request.
fn behind_header(relay: &Relay, header: &[u8], request: &str) -> Answer {
    let mut http = Http::connect_from(PROXY, relay.address);
    http.send(header);
    http.ask(request)
}

/// Nothing but the end comes back for these bytes.
fn closed_without_a_byte(relay: &Relay, from: Ipv4Addr, bytes: &[u8]) {
    let mut http = Http::connect_from(from, relay.address);
    http.send(bytes);
    let shown = String::from_utf8_lossy(bytes);
    assert_eq!(http.hung_up(), "", "{:?}", shown.chars().take(80).collect::<String>());
}

#[test]
fn a_proxy_header_names_the_client() {
    let relay = Relay::with(BEHIND_TCP);
    let request = forwarded(&["198.51.100.99"]);
    for (header, status) in [
        (version_1("203.0.113.1"), 101),
        (version_2(1, [203, 0, 113, 1]), 101),
        (version_1("203.0.113.1"), 429),
        (version_2(1, [203, 0, 113, 1]), 429),
        (version_2(1, [203, 0, 113, 2]), 101),
        (b"PROXY TCP6 2001:db8:0:1::1 ::1 1 2\r\n".to_vec(), 101),
        (b"PROXY TCP6 2001:db8:0:1:ffff::1 ::1 1 2\r\n".to_vec(), 101),
        (b"PROXY TCP6 2001:db8:0:1::2 ::1 1 2\r\n".to_vec(), 429),
        (b"PROXY TCP6 ::ffff:203.0.113.2 ::1 1 2\r\n".to_vec(), 101),
        (version_1("203.0.113.2"), 429),
    ] {
        assert_eq!(behind_header(&relay, &header, &request).status, status, "{header:?}");
    }
    assert_eq!(relay.wait_for_event("rate_limited")["remote"], "203.0.113.1");
    let metrics = relay.try_metrics().unwrap();
    assert_eq!(metrics.get("tracked_addresses{table=\"upgrades\"}"), 3.0);
    assert_eq!(metrics.get("handshake_failures_total{stage=\"proxy\"}"), 0.0);
}

#[test]
fn local_and_unknown_mean_the_load_balancer_itself() {
    let relay = Relay::with(BEHIND_TCP);
    let health = request("GET /healthz HTTP/1.1", &[("Connection", "close")]);
    for header in [version_2(0, [203, 0, 113, 1]), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert_eq!(behind_header(&relay, &header, &health).status, 200);
        assert_eq!(behind_header(&relay, &header, &forwarded(&[])).status, 101);
    }
    assert_eq!(behind_header(&relay, b"PROXY UNKNOWN\r\n", &forwarded(&[])).status, 429);
    assert_eq!(relay.wait_for_event("rate_limited")["remote"], "127.0.0.2");
    assert_eq!(behind_header(&relay, &version_1("203.0.113.1"), &forwarded(&[])).status, 101);
}

#[test]
fn a_header_may_come_in_two_pieces_split_anywhere() {
    let relay = Relay::with(
        "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.2/32\"]\n[limits]\nhandshakes = 4\n",
    );
    let request = request("GET /healthz HTTP/1.1", &[("Connection", "close")]);
    for header in [version_1("203.0.113.1"), version_2(1, [203, 0, 113, 1])] {
        let all = [&header[..], request.as_bytes()].concat();
        for split in 1..=header.len() + 1 {
            let mut stream = connect_from(PROXY, relay.address);
            stream.write_all(&all[..split]).unwrap();
            // The relay has read the first piece when it waits for more: nothing is left in its kernel queue.
            let local = stream.local_addr().unwrap();
            eventually("the first piece to be read", || match in_the_kernel(relay.address, local) {
                0 => Ok(()),
                unread => Err(format!("{unread} bytes unread")),
            });
            stream.write_all(&all[split..]).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "split at {split}: {answer}");
        }
    }
    let metrics = relay.try_metrics().unwrap();
    assert_eq!(metrics.get("handshake_failures_total{stage=\"proxy\"}"), 0.0);
    assert_eq!(metrics.get("handshake_failures_total{stage=\"http\"}"), 0.0);
}

#[test]
fn anything_else_is_closed_without_a_byte() {
    let relay = Relay::with(BEHIND_TCP);
    let request = request("GET /healthz HTTP/1.1", &[]);
    let with = |header: Vec<u8>| [&header[..], request.as_bytes()].concat();
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &4081_u16.to_be_bytes(), &[1; 5000]].concat();
    let refused: Vec<(&str, Ipv4Addr, Vec<u8>)> = vec![
        ("no header", PROXY, request.clone().into_bytes()),
        ("TLS without a header", PROXY, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a line too long", PROXY, [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat()),
        ("a header too long", PROXY, long),
        ("a broken line", PROXY, with(b"PROXY TCP4 203.0.113.1\r\n".to_vec())),
        ("a local socket", PROXY, with([&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[0; 216]].concat())),
        ("a stranger's header", STRANGER, with(version_1("203.0.113.1"))),
        ("a stranger's header", STRANGER, with(version_2(0, [0; 4]))),
        ("a stranger without one", STRANGER, request.clone().into_bytes()),
    ];
    let number = refused.len() as f64;
    for (_, from, bytes) in refused {
        closed_without_a_byte(&relay, from, &bytes);
    }
    eventually("the failures to be counted", || {
        let seen = relay.try_metrics().unwrap().get("handshake_failures_total{stage=\"proxy\"}");
        if seen == number { Ok(()) } else { Err(seen.to_string()) }
    });

    // Too late: not at all, or in the middle.
    for beginning in [&b""[..], b"PROXY TCP4 203.0", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"] {
        let began = Instant::now();
        closed_without_a_byte(&relay, PROXY, beginning);
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    }
    eventually("the timeouts to be counted", || {
        match relay.try_metrics().unwrap().get("handshake_failures_total{stage=\"timeout\"}") {
            3.0 => Ok(()),
            seen => Err(seen.to_string()),
        }
    });
    let line = relay.wait_for_event("client_address_unusable");
    assert_eq!((&line["remote"], &line["cause"]), (&"127.0.0.2".into(), &"no PROXY protocol header".into()));

    // A balancer that looks whether somebody is there, and goes away without a word, did nothing wrong.
    drop(connect_from(PROXY, relay.address));
    assert_eq!(behind_header(&relay, &version_1("203.0.113.7"), &forwarded(&[])).status, 101);
    assert_eq!(relay.try_metrics().unwrap().get("handshake_failures_total{stage=\"proxy\"}"), number);
}

#[test]
fn who_may_not_speak_for_others_is_told_in_the_log() {
    let relay = Relay::with(BEHIND_TCP);
    closed_without_a_byte(&relay, STRANGER, &version_1("203.0.113.1"));
    let line = relay.wait_for_event("client_address_unusable");
    assert_eq!(line["remote"], "127.0.0.9");
    assert_eq!(line["cause"], "not an address in client_address.trusted");
}

#[test]
fn sending_now_and_then_does_not_move_the_deadline() {
    let relay = Relay::with(
        "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.2/32\"]\n\
         [limits]\nhandshake_timeout = \"1s\"\n",
    );
    // One deadline for the header and the request together: each of them alone would be in time.
    let mut http = Http::connect_from(PROXY, relay.address);
    let began = Instant::now();
    let bytes = b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\nHost: a.long.name\r\n";
    let mut sent = 0;
    let ended = eventually("the end of a connection that drips", || {
        let due = began + Duration::from_millis(20 * sent as u64);
        if Instant::now() >= due && sent < bytes.len() {
            http.send(&bytes[sent..=sent]);
            sent += 1;
        }
        if http.is_open() { Err(format!("{sent} bytes sent")) } else { Ok(began.elapsed()) }
    });
    assert!(ended >= Duration::from_millis(900), "{ended:?}");
    assert!(sent > 40 && sent < bytes.len(), "past the PROXY header and in the request: {sent}");
    eventually("the timeout is counted", || {
        match series(&relay, "handshake_failures_total{stage=\"timeout\"}") {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(series(&relay, "handshake_failures_total{stage=\"http\"}"), 0.0);
}
