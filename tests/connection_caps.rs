//! How many WebSocket connections there may be, in all and for one address; and that every way out gives the place back.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::Write;
use std::net::Ipv4Addr;

use support::client::{self, Client, Refused, binary_headers, connect_over, phone_headers};
use support::http::{Http, upgrade};
use support::relay::{Metrics, Relay};
use support::{connect_from, eventually};

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

fn binary(relay: &Relay, from: u8, server_id: &str) -> Result<Client, Refused> {
    connect_over(connect_from(host(from), relay.address), "/v2/server", &binary_headers(server_id))
}

fn phone(relay: &Relay, from: u8, server_id: &str) -> Result<Client, Refused> {
    connect_over(connect_from(host(from), relay.address), "/v2/client", &phone_headers(server_id))
}

fn status(answer: Result<Client, Refused>) -> u16 {
    answer.err().map_or(101, |refused| refused.status)
}

fn places(metrics: &Metrics) -> f64 {
    metrics.get("admitted_connections{endpoint=\"server\"}")
        + metrics.get("admitted_connections{endpoint=\"client\"}")
}

/// Waits until so many places are taken.
fn wait_for_places(relay: &Relay, number: f64) -> Metrics {
    eventually(&format!("{number} places taken"), || {
        let metrics = relay.metrics();
        let taken = places(&metrics);
        if taken == number { Ok(metrics) } else { Err(taken.to_string()) }
    })
}

#[test]
fn one_address_has_so_many_and_the_others_are_not_concerned() {
    let relay = Relay::with("[limits]\nconnections_per_address = 3\n");
    let mut binary_socket = binary(&relay, 9, "capped").unwrap();
    let mut first = phone(&relay, 9, "capped").unwrap();
    let second = phone(&relay, 9, "capped").unwrap();
    let refused = phone(&relay, 9, "capped").err().unwrap();
    assert_eq!(refused.status, 503);
    let retry_after = refused.headers.iter().find(|(name, _)| name == "retry-after");
    // By then the address's dead connections are gone: ping_interval and pong_timeout.
    assert_eq!(retry_after.map(|(_, value)| value.as_str()), Some("60"));
    assert_eq!(status(binary(&relay, 9, "another")), 503);
    let mut other = phone(&relay, 10, "capped").unwrap();
    assert_eq!((binary_socket.admitted(), first.admitted(), other.admitted()), (Ok(()), Ok(()), Ok(())));

    let metrics = relay.metrics();
    assert_eq!(metrics.upgrades("client", "reject_capacity"), 1.0);
    assert_eq!(metrics.upgrades("server", "reject_capacity"), 1.0);
    assert_eq!(places(&metrics), 4.0);
    assert_eq!(metrics.get("tracked_addresses{table=\"connections\"}"), 2.0);
    let line = relay.wait_for_event("capacity_reached");
    assert_eq!(
        (&line["limit"], &line["remote"]),
        (&"limits.connections_per_address".into(), &"127.0.0.9".into())
    );

    second.drop_connection();
    wait_for_places(&relay, 3.0);
    let mut third = phone(&relay, 9, "capped").unwrap();
    assert_eq!(third.admitted(), Ok(()));
    assert_eq!(status(phone(&relay, 9, "capped")), 503);
}

#[test]
fn phones_leave_a_tenth_of_all_places_to_binaries() {
    let relay = Relay::with("[limits]\nconnections = 20\nphones_per_server = 100\n");
    assert_eq!(relay.metrics().get("connections_limit"), 20.0);
    let mut first = binary(&relay, 1, "crowded").unwrap();
    let mut phones: Vec<_> = (0..18).map(|n| phone(&relay, 10 + n, "crowded").unwrap()).collect();
    for phone in &mut phones {
        assert_eq!(phone.admitted(), Ok(()));
    }
    let refused = phone(&relay, 50, "crowded").err().unwrap();
    assert_eq!(refused.status, 503);
    let hint: u64 =
        refused.headers.iter().find(|(name, _)| name == "retry-after").unwrap().1.parse().unwrap();
    assert!((1..=60).contains(&hint), "{hint}");
    let mut second = binary(&relay, 2, "not-locked-out").unwrap();
    assert_eq!((first.admitted(), second.admitted()), (Ok(()), Ok(())));
    assert_eq!(status(binary(&relay, 3, "one-too-many")), 503);
    assert_eq!(relay.wait_for_event("capacity_reached")["limit"], "limits.connections");

    // What a phone leaves is for whoever comes first, a binary too.
    assert_eq!(phones.pop().unwrap().close(Some(1000)), Some((1000, String::new())));
    wait_for_places(&relay, 19.0);
    let mut third = binary(&relay, 3, "now-there-is-room").unwrap();
    assert_eq!(third.admitted(), Ok(()));
    assert_eq!(status(phone(&relay, 51, "crowded")), 503);
    let metrics = relay.metrics();
    assert_eq!(metrics.upgrades("client", "reject_capacity"), 2.0);
    assert_eq!(metrics.get("admitted_connections{endpoint=\"server\"}"), 3.0);
}

#[test]
fn a_refusal_before_or_after_the_upgrade_gives_the_place_back() {
    let relay = Relay::with(
        "[limits]\nconnections_per_address = 4\nphones_per_server = 1\n[access]\nservers = [\"listed\", \"held\"]\n",
    );
    let mut holder = binary(&relay, 1, "held").unwrap();
    let mut only = phone(&relay, 1, "held").unwrap();
    assert_eq!((holder.admitted(), only.admitted()), (Ok(()), Ok(())));
    for _ in 0..10 {
        // Before: no header, no list. Had one of them kept a place, the next ones would get 503.
        assert_eq!(http_status(&relay, &upgrade("/v2/server", &[])), 400);
        assert_eq!(http_status(&relay, "GET /v2/client HTTP/1.1\r\nHost: x\r\n\r\n"), 426);
        assert_eq!(http_status(&relay, "DELETE /v2/client HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
        assert_eq!(status(binary(&relay, 9, "unlisted")), 403);
        // After: nobody there, too many.
        let mut nobody = phone(&relay, 9, "unknown").unwrap();
        assert_eq!(nobody.closed(), (4404, "no server with that id".to_owned()));
        let mut too_many = phone(&relay, 9, "held").unwrap();
        assert_eq!(too_many.closed(), (4429, "too many phones for server-id".to_owned()));
        drop((nobody, too_many));
        wait_for_places(&relay, 2.0);
    }
    let mut newcomer = binary(&relay, 9, "held").unwrap();
    holder.answer_probe_of(newcomer.socket());
    assert_eq!(newcomer.closed(), (4409, "server-id already claimed".to_owned()));
    drop(newcomer);
    wait_for_places(&relay, 2.0);
    assert_eq!(relay.metrics().get("tracked_addresses{table=\"connections\"}"), 1.0);
}

fn http_status(relay: &Relay, request: &str) -> u16 {
    Http::connect_from(host(9), relay.address).ask(request).status
}

#[test]
fn every_end_of_a_connection_gives_the_place_back() {
    let relay = Relay::with(
        "[limits]\nconnections_per_address = 2\nphone_queue = \"300KiB\"\n\
         [session]\ngrace = \"300ms\"\nping_interval = \"1s\"\npong_timeout = \"1s\"\nmessage_timeout = \"300ms\"\n",
    );
    // Each takes both places of its address, so the next round shows that they came back.
    for round in 0..2 {
        let id = format!("round {round}").replace(' ', "-");

        // The peer closes, and the binary's slot expires without it; its phone is closed.
        let mut host_binary = binary(&relay, 9, &id).unwrap();
        let mut evicted = phone(&relay, 9, &id).unwrap();
        assert_eq!((host_binary.admitted(), evicted.admitted()), (Ok(()), Ok(())));
        assert_eq!(status(phone(&relay, 9, &id)), 503);
        assert_eq!(host_binary.close(Some(1000)), Some((1000, String::new())));
        assert_eq!(evicted.closed(), (1011, "binary did not reconnect".to_owned()));
        drop((host_binary, evicted));
        wait_for_places(&relay, 0.0);

        // The peer is killed: no close frame. Its phone is evicted by the reclaim.
        let killed = binary(&relay, 9, &id).unwrap();
        let mut evicted = phone(&relay, 10, &id).unwrap();
        assert_eq!(evicted.admitted(), Ok(()));
        killed.drop_connection();
        relay.wait_for_metric("gracing_binaries", 1.0);
        let mut back = binary(&relay, 9, &id).unwrap();
        assert_eq!(evicted.closed(), (4404, "binary reclaimed server-id".to_owned()));
        assert_eq!(back.admitted(), Ok(()));
        drop(evicted);
        wait_for_places(&relay, 1.0);

        // What is said is wrong, too large, unfinished, or nothing at all.
        let mut wrong = phone(&relay, 10, &id).unwrap();
        wrong.send("no JSON");
        assert_eq!(wrong.closed().0, 1007);
        let mut large = phone(&relay, 10, &id).unwrap();
        large.socket().write_all(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 1, 2, 3, 4]).unwrap();
        assert_eq!(large.closed().0, 1009);
        drop((wrong, large));
        wait_for_places(&relay, 1.0);
        assert_eq!(back.admitted(), Ok(()));
        let mut unfinished = phone(&relay, 10, &id).unwrap();
        unfinished.socket().write_all(&client::frame(0x01, b"[")).unwrap();
        assert_eq!(unfinished.closed(), (1011, "message timed out".to_owned()));
        drop(unfinished);
        wait_for_places(&relay, 1.0);
        // From here on nobody answers a ping any more.
        assert_eq!(back.admitted(), Ok(()));
        let mut silent = Http::connect_from(host(10), relay.address);
        assert_eq!(silent.ask(&upgrade("/v2/client", &phone_headers(&id))).status, 101);
        relay.wait_for_metric(
            "connections_closed_total{cause=\"heartbeat_timeout\",endpoint=\"server\"}",
            f64::from(round + 1),
        );
        wait_for_places(&relay, 0.0);
        relay.wait_for_metric("tracked_addresses{table=\"connections\"}", 0.0);
    }
}
