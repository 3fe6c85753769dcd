//! Connections that have not come to their upgrade: how many, for how long, and what they may send.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::net::Ipv4Addr;

use support::client::{Client, binary_headers, frame, phone_headers, raw_with};
use support::eventually;
use support::http::{Http, ask, request, upgrade};
use support::relay::Relay;

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// The metrics, without a connection of the test's own to the public address.
fn series(relay: &Relay, name: &str) -> f64 {
    relay.try_metrics().unwrap().get(name)
}

fn wait_for(relay: &Relay, name: &str, value: f64) {
    eventually(&format!("{name} = {value}"), || {
        let seen = series(relay, name);
        if seen == value { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// A connection that has begun a request, and that the relay has seen.
fn slow(relay: &Relay, from: u8, there: usize) -> Http {
    let mut http = Http::connect_from(host(from), relay.address);
    http.send("GET /v2/cl");
    wait_for(relay, "handshakes_in_progress", there as f64);
    http
}

#[test]
fn one_more_than_the_table_holds_makes_the_oldest_go() {
    let relay = Relay::with("[limits]\nhandshakes = 4\n");
    assert_eq!(series(&relay, "handshakes_limit"), 4.0);
    let mut waiting: Vec<_> = (1..=4).map(|there| slow(&relay, 9, there)).collect();
    assert!(waiting.iter().all(Http::is_open), "so many have room");
    assert_eq!(series(&relay, "handshake_failures_total{stage=\"timeout\"}"), 0.0);

    let fifth = Http::connect_from(host(9), relay.address);
    assert_eq!(waiting.remove(0).hung_up(), "", "the oldest goes, without an answer");
    assert!(waiting.iter().all(Http::is_open), "and no other");
    wait_for(&relay, "handshake_failures_total{stage=\"timeout\"}", 1.0);
    assert_eq!(series(&relay, "handshakes_in_progress"), 4.0);
    let line = relay.wait_for_event("capacity_reached");
    assert_eq!((&line["limit"], &line["remote"]), (&"limits.handshakes".into(), &"127.0.0.9".into()));

    // Those who are in can go on to the end.
    waiting[0].send("ient HTTP/1.1\r\n\r\n");
    assert!(waiting[0].hung_up().starts_with("HTTP/1.1 426 "));
    drop((waiting, fifth));
    wait_for(&relay, "handshakes_in_progress", 0.0);
}

#[test]
fn who_opens_connections_without_end_cuts_its_own() {
    let relay = Relay::with("[limits]\nhandshakes = 8\n");
    let mut patient = slow(&relay, 1, 1);
    let flood: Vec<_> = (0..200).map(|_| Http::connect_from(host(9), relay.address)).collect();
    wait_for(&relay, "handshake_failures_total{stage=\"timeout\"}", 193.0);
    // What is cut has still to reach the client, with a tunnel in between.
    eventually("all but seven to be hung up on", || {
        match flood.iter().filter(|http| http.is_open()).count() {
            7 => Ok(()),
            open => Err(format!("{open} are open")),
        }
    });
    assert!(series(&relay, "handshakes_in_progress") <= 8.0);
    patient.send("ient HTTP/1.1\r\n\r\n");
    assert!(patient.hung_up().starts_with("HTTP/1.1 426 "), "the oldest of all, and not cut");
    // The line names whose connection was cut, and not whoever came.
    assert_eq!(relay.wait_for_event("capacity_reached")["remote"], "127.0.0.9");
}

#[test]
fn a_head_is_bounded() {
    let relay = Relay::start();
    let with_head_of = |bytes: usize| {
        let short = request("GET /healthz HTTP/1.1", &[("Connection", "close"), ("x", "")]);
        short.replace("x: ", &format!("x: {}", "y".repeat(bytes - short.len())))
    };
    for (bytes, status) in
        [(8 * 1024, 200), (16 * 1024 - 1, 200), (16 * 1024, 200), (16 * 1024 + 1, 431), (64 * 1024, 431)]
    {
        let request = with_head_of(bytes);
        assert_eq!(request.len(), bytes);
        assert_eq!(ask(relay.address, &request).status, status, "{bytes}");
    }
    for (fields, status) in [(63, 200), (64, 200), (65, 431)] {
        let more = vec![("x", "y"); fields - 2];
        let headers = [&[("Connection", "close")], &more[..]].concat();
        let request = request("GET /healthz HTTP/1.1", &headers);
        assert_eq!(ask(relay.address, &request).status, status, "{fields}");
    }
    wait_for(&relay, "handshake_failures_total{stage=\"http\"}", 3.0);
    assert_eq!(series(&relay, "handshake_failures_total{stage=\"timeout\"}"), 0.0);
}

#[test]
fn bodies_are_refused_everywhere() {
    let relay = Relay::start();
    for path in ["/healthz", "/elsewhere"] {
        for (header, body) in
            [(("Content-Length", "5"), "hello"), (("Transfer-Encoding", "chunked"), "0\r\n\r\n")]
        {
            let mut http = Http::connect(relay.address);
            let answer = http.ask(&(request(&format!("GET {path} HTTP/1.1"), &[header]) + body));
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (400, "a request here has no body\n"),
                "{path} {header:?}"
            );
            assert_eq!(http.hung_up(), "", "nothing behind it is answered");
        }
    }
    let before = relay.metrics();
    let with_body = [&phone_headers("body")[..], &[("Content-Length", "3")]].concat();
    assert_eq!(ask(relay.address, &(upgrade("/v2/client", &with_body) + "abc")).status, 400);
    assert_eq!(relay.metrics().outcomes_since(&before), ["client reject_bad_request 1"]);
}

#[test]
fn what_is_sent_behind_an_upgrade_is_taken_for_web_socket() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "eager");
    // A frame, before anybody has answered.
    let _eager = raw_with(relay.address, "/v2/client", &phone_headers("eager"), &frame(0x81, b"\"early\""));
    assert_eq!(binary.json()["frame"], "early");

    // Something else: another request, which is no frame that RFC 6455 knows.
    let mut garbage = Http::connect(relay.address);
    let pipelined =
        upgrade("/v2/client", &phone_headers("eager")) + &upgrade("/v2/server", &binary_headers("second"));
    assert_eq!(garbage.ask(&pipelined).status, 101);
    assert!(!garbage.hung_up().contains("HTTP/"), "no second answer");
    let metrics =
        relay.wait_for_metric("connections_closed_total{cause=\"peer_lost\",endpoint=\"client\"}", 1.0);
    assert_eq!(metrics.upgrades("client", "accept"), 2.0);
    assert_eq!(metrics.upgrades("server", "accept"), 1.0);
    assert_eq!(binary.admitted(), Ok(()));
}
