//! Whose connection or request it is: the peer, `X-Forwarded-For`, or the PROXY protocol.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::client::{binary_headers, phone_headers};
use support::held::in_the_kernel;
use support::http::{Answer, Http, request, upgrade};
use support::relay::Relay;
use support::{connect_from, eventually};

/// Proxies at 127.0.0.2 and in 127.0.7.0/24.
const BEHIND_HTTP: &str = "[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.2/32\", \"127.0.7.0/24\"]\n\
                           [limits]\nupgrade_burst = 2\nupgrades_per_minute = 1\n";
const BEHIND_TCP: &str = "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.2/32\"]\n\
                          [limits]\nupgrade_burst = 2\nupgrades_per_minute = 1\nhandshake_timeout = \"1s\"\n";
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// An upgrade of a phone with these `X-Forwarded-For` lines.
fn forwarded(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| ("X-Forwarded-For", *line));
    upgrade("/v2/client", &phone_headers("nobody").into_iter().chain(lines).collect::<Vec<_>>())
}

fn ask(relay: &Relay, from: Ipv4Addr, request: &str) -> Answer {
    Http::connect_from(from, relay.address).ask(request)
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let relay = Relay::with(BEHIND_HTTP);
    for (lines, status) in [
        (&["203.0.113.1"][..], 101),
        (&["203.0.113.1:4711"], 101),
        (&["::ffff:203.0.113.1"], 429),
        // Whatever it puts in front, the proxy appends the truth.
        (&["198.51.100.7, 203.0.113.1"], 429),
        (&["198.51.100.7", "203.0.113.1"], 429),
        (&["garbage", "203.0.113.1, 127.0.7.9"], 429),
        (&["203.0.113.2"], 101),
        (&["203.0.113.1, 203.0.113.2"], 101),
        (&["203.0.113.1, 203.0.113.2"], 429),
        // One customer is one /64.
        (&["2001:db8:0:1::1"], 101),
        (&["[2001:db8:0:1:ffff::1]:80"], 101),
        (&["2001:db8:0:1:2:3:4:5"], 429),
        (&["2001:db8:0:2::1"], 101),
    ] {
        assert_eq!(ask(&relay, PROXY, &forwarded(lines)).status, status, "{lines:?}");
    }
    let metrics = relay.metrics();
    assert_eq!(metrics.upgrades("client", "reject_rate_limit"), 6.0);
    assert_eq!(metrics.get("tracked_addresses{table=\"upgrades\"}"), 4.0);
}

#[test]
fn a_forged_header_of_a_stranger_is_ignored() {
    let relay = Relay::with(BEHIND_HTTP);
    for (claimed, status) in
        [("203.0.113.1", 101), ("203.0.113.2", 101), ("203.0.113.3", 429), ("garbage", 429)]
    {
        assert_eq!(ask(&relay, STRANGER, &forwarded(&[claimed])).status, status, "{claimed}");
    }
    // Nobody else paid for it.
    assert_eq!(ask(&relay, PROXY, &forwarded(&["203.0.113.1"])).status, 101);
    assert_eq!(relay.wait_for_event("rate_limited")["remote"], "127.0.0.9");

    let relay = Relay::with("[limits]\nupgrade_burst = 1\nupgrades_per_minute = 1\n");
    assert_eq!(ask(&relay, PROXY, &forwarded(&["203.0.113.1"])).status, 101);
    assert_eq!(ask(&relay, PROXY, &forwarded(&["203.0.113.2"])).status, 429, "no proxy is configured");
}

#[test]
fn a_trusted_proxy_that_names_nobody_is_refused_and_the_log_says_why() {
    let relay = Relay::with(BEHIND_HTTP);
    let before = relay.metrics();
    for (lines, why) in [
        (&[][..], "the proxy sent no x-forwarded-for"),
        (&["unknown"], "x-forwarded-for does not end in an IP address"),
        (&["203.0.113.1, "], "x-forwarded-for does not end in an IP address"),
    ] {
        let answer = ask(&relay, PROXY, &forwarded(lines));
        assert_eq!(
            (answer.status, answer.body),
            (429, format!("no usable client address: {why}\n")),
            "{lines:?}"
        );
    }
    let answer = ask(&relay, PROXY, &upgrade("/v2/server", &binary_headers("nobody")));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("60")));
    let metrics = relay.metrics();
    let outcomes = ["client reject_rate_limit 3", "server reject_rate_limit 1"];
    assert_eq!(metrics.outcomes_since(&before), outcomes);
    assert_eq!(metrics.get("register_failures_total{kind=\"ratelimit\"}"), 4.0);
    let line = relay.wait_for_event("client_address_unusable");
    assert_eq!(
        (&line["remote"], &line["cause"]),
        (&"127.0.0.2".into(), &"the proxy sent no x-forwarded-for".into())
    );
    // What is not limited needs no address.
    assert_eq!(ask(&relay, PROXY, &request("GET /healthz HTTP/1.1", &[])).status, 200);
}

#[test]
fn the_log_names_the_client_and_not_the_proxy() {
    let relay = Relay::with(BEHIND_HTTP);
    let headers = [&binary_headers("named")[..], &[("X-Forwarded-For", "2001:db8::5")]].concat();
    let mut binary = Http::connect_from(PROXY, relay.address);
    assert_eq!(binary.ask(&upgrade("/v2/server", &headers)).status, 101);
    assert_eq!(relay.wait_for_event("server_claimed")["remote"], "2001:db8::5");
    let headers = [&phone_headers("named")[..], &[("X-Forwarded-For", "203.0.113.5")]].concat();
    let mut phone = Http::connect_from(PROXY, relay.address);
    assert_eq!(phone.ask(&upgrade("/v2/client", &headers)).status, 101);
    assert_eq!(relay.wait_for_event("phone_registered")["remote"], "203.0.113.5");
    assert_eq!(relay.metrics().get("tracked_addresses{table=\"connections\"}"), 2.0);
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
    let metrics = relay.try_metrics().unwrap();
    assert_eq!(metrics.get("handshake_failures_total{stage=\"timeout\"}"), 3.0);
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
