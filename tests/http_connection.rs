//! A connection in HTTP: the health document, several requests, no request, and a drain (PROTOCOL § 1).

mod support;

use std::io::Write;

use support::client::{self, Client, STALLING, binary_headers, phone_headers};
use support::eventually;
use support::http::{Http, ask, request, upgrade};
use support::relay::Relay;

#[test]
fn the_health_document_is_exact_and_counts_who_is_connected() {
    let relay = Relay::start();
    let _binary = Client::binary(&relay, "healthy");
    let leaving = Client::binary(&relay, "gracing");
    let mut phones = [
        Client::phone(&relay, "healthy"),
        Client::phone(&relay, "healthy"),
        Client::phone(&relay, "gracing"),
    ];
    for phone in &mut phones {
        assert_eq!(phone.admitted(), Ok(()));
    }
    leaving.drop_connection();
    relay.wait_for_metric("gracing_binaries", 1.0);

    let before = relay.metrics();
    let mut http = Http::connect(relay.address);
    for _ in 0..2 {
        let answer = http.ask(&request("GET /healthz HTTP/1.1", &[]));
        let uptime =
            serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["uptime_seconds"].clone();
        assert!(uptime.is_u64(), "{uptime}");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "{{\"status\":\"ok\",\"version\":\"{version}\",\"connected_binaries\":1,\"connected_phones\":3,\
             \"uptime_seconds\":{uptime}}}"
        );
        assert_eq!((answer.status, answer.body.as_str()), (200, expected.as_str()));
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));

        // Were there a body, the next answer on this connection would not be one.
        let answer = http.ask(&request("HEAD /healthz HTTP/1.1", &[]));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let after = relay.metrics();
    assert!(after.outcomes_since(&before).is_empty());
    assert!((after.get("connected_binaries") - 1.0).abs() < f64::EPSILON);
    assert!((after.get("connected_phones") - 3.0).abs() < f64::EPSILON);
}

#[test]
fn a_connection_that_stays_in_http_is_hung_up_and_a_websocket_is_not() {
    let relay = Relay::with("[limits]\nhandshake_timeout = \"300ms\"\n");
    let mut binary = Client::binary(&relay, "patient");
    let mut phone = Client::phone(&relay, "patient");
    assert_eq!((binary.admitted(), phone.admitted()), (Ok(()), Ok(())));
    let before = relay.metrics();

    let mut silent = Http::connect(relay.address);
    let mut slow = Http::connect(relay.address);
    slow.send("GET /v2/server HTTP/1.1\r\nHost: rel");
    let mut idle = Http::connect(relay.address);
    assert_eq!(idle.ask(&request("GET /healthz HTTP/1.1", &[])).status, 200);
    for http in [&mut silent, &mut slow, &mut idle] {
        assert_eq!(http.hung_up(), "");
    }
    phone.send("\"still here\"");
    assert_eq!(binary.json()["frame"], "still here");
    let metrics = relay.wait_for_metric("handshakes_in_progress", 0.0);
    assert!(metrics.outcomes_since(&before).is_empty(), "none of them was a request to upgrade");
    let timed_out = metrics.get("handshake_failures_total{stage=\"timeout\"}");
    assert!((timed_out - 2.0).abs() < f64::EPSILON, "one of the three got an answer: {timed_out}");
}

#[test]
fn what_cannot_be_read_as_a_request_is_refused_and_costs_nothing() {
    let relay = Relay::start();
    let before = relay.metrics();
    let huge = upgrade("/v2/server", &[&binary_headers("huge")[..], &[("x", &"x".repeat(20_000))]].concat());
    let many =
        |extra| upgrade("/v2/server", &[&binary_headers("many")[..], &vec![("x", "y"); extra]].concat());
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        huge.as_bytes(),
        &many(57).into_bytes(),
    ];
    for bytes in garbage {
        let mut http = Http::connect(relay.address);
        http.send(bytes);
        let answer = http.hung_up();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(relay.metrics().outcomes_since(&before).is_empty());
    // Host, four WebSocket headers, three of ours and 56 more are the 64 that are allowed.
    assert_eq!(ask(relay.address, &many(56)).status, 101);
    relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"server\",outcome=\"accept\"}", 1.0);
}

#[test]
fn an_upgrade_may_follow_other_requests_on_its_connection() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "kept");
    let mut phone = Http::connect(relay.address);
    assert_eq!(phone.ask(&request("GET /healthz HTTP/1.1", &[])).status, 200);
    assert_eq!(phone.ask(&request("GET /nowhere HTTP/1.1", &[])).status, 404);
    assert_eq!(phone.ask(&upgrade("/v2/client", &phone_headers("kept"))).status, 101);
    let mut phone = phone.into_stream();
    phone.write_all(&client::frame(0x81, b"\"kept\"")).unwrap();
    assert_eq!(binary.json()["frame"], "kept");
    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"phone_to_binary\"}", 1.0);
    assert!((metrics.upgrades("client", "accept") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn while_draining_health_and_upgrades_are_unavailable() {
    let mut relay = Relay::with(STALLING);
    let mut binary = Client::binary(&relay, "drain");
    let mut phone = Client::phone(&relay, "drain");
    let conn_id = phone.conn_id(&mut binary);
    let mut health = Http::connect(relay.address);
    let mut late = Http::connect(relay.address);
    for http in [&mut health, &mut late] {
        assert_eq!(http.ask(&request("GET /healthz HTTP/1.1", &[])).status, 200);
    }
    // Frames that a phone does not read keep the drain open.
    binary.stall(&relay, &conn_id);
    let before = relay.metrics();
    relay.signal("TERM");
    relay.wait_for_event("draining");

    let answer = health.ask(&request("GET /healthz HTTP/1.1", &[]));
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("{\"status\":\"draining\",\"version\":"), "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // Draining comes before everything else: this request has none of its headers.
    let answer = late.ask(&request("GET /v2/server HTTP/1.1", &[]));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(relay.metrics().outcomes_since(&before), ["server reject_draining 1"]);
    eventually("no more connections", || match relay.knock() {
        Err(_) => Ok(()),
        Ok(()) => Err("a connection".to_owned()),
    });

    phone.drop_connection();
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    relay.wait_for_event("drained");
}
