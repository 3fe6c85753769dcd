//! The order of PROTOCOL § 1: of several things that are wrong with a request, the first one is its one outcome.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::net::Ipv4Addr;

use support::client::{Client, binary_headers, phone_headers};
use support::eventually;
use support::http::{Http, upgrade};
use support::relay::Relay;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const LISTED: &str = "[access]\nservers = [\"listed\"]\n";

/// The status of an answer to a request from [`HOST`], which must count as this one outcome of the endpoint.
fn answered(relay: &Relay, request: &str, outcome: &str) -> u16 {
    let before = relay.metrics();
    let answer = Http::connect_from(HOST, relay.address).ask(request);
    eventually(&format!("{outcome} for {request}"), || {
        let seen = relay.metrics().outcomes_since(&before);
        if seen == [format!("{outcome} 1")] { Ok(()) } else { Err(format!("{} {seen:?}", answer.status)) }
    });
    answer.status
}

/// A binary from [`HOST`] that takes the place that `HOST` has, and counts as admitted.
fn holder(relay: &Relay) -> Http {
    let mut holder = Http::connect_from(HOST, relay.address);
    assert_eq!(holder.ask(&upgrade("/v2/server", &binary_headers("listed"))).status, 101);
    relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"server\",outcome=\"accept\"}", 1.0);
    holder
}

/// Requests to `/server`, each with one fault less than the one before: no upgrade at all; a bad key; no headers; a server-id
/// that is not on the list; nothing wrong.
fn ever_better() -> [String; 5] {
    let good = upgrade("/v2/server", &binary_headers("listed"));
    [
        "POST /v2/server HTTP/1.1\r\nHost: relay\r\n\r\n".to_owned(),
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short").replace("x-pyrycode-server", "x-other"),
        good.replace("x-pyrycode-version", "x-other").replace(": listed", ": unlisted"),
        good.replace(": listed", ": unlisted"),
        good,
    ]
}

#[test]
fn without_limits_in_the_way_the_request_itself_decides() {
    let relay = Relay::with(LISTED);
    let outcomes = [
        (405, "server reject_bad_request"),
        (400, "server reject_bad_request"),
        (400, "server reject_headers"),
        (403, "server reject_forbidden"),
        (101, "server accept"),
    ];
    for (request, (status, outcome)) in ever_better().iter().zip(outcomes) {
        assert_eq!(answered(&relay, request, outcome), status, "{request}");
    }
    assert_eq!(relay.metrics().get("admitted_connections{endpoint=\"server\"}"), 0.0);
}

#[test]
fn the_caps_come_before_what_is_wrong_with_the_request() {
    let relay = Relay::with(&format!("[limits]\nconnections_per_address = 1\n{LISTED}"));
    let _holder = holder(&relay);
    for request in &ever_better() {
        assert_eq!(answered(&relay, request, "server reject_capacity"), 503, "{request}");
    }
    assert_eq!(relay.metrics().upgrades("server", "reject_capacity"), 5.0);
}

#[test]
fn the_rate_comes_before_the_caps() {
    let limits = "connections_per_address = 1\nupgrade_burst = 1\nupgrades_per_minute = 1\n";
    let relay = Relay::with(&format!("[limits]\n{limits}{LISTED}"));
    let _holder = holder(&relay);
    for request in &ever_better() {
        assert_eq!(answered(&relay, request, "server reject_rate_limit"), 429, "{request}");
    }
    let metrics = relay.metrics();
    assert_eq!(metrics.get("register_failures_total{kind=\"ratelimit\"}"), 5.0);
}

#[test]
fn a_drain_comes_before_everything() {
    let limits =
        "connections_per_address = 2\nupgrade_burst = 2\nupgrades_per_minute = 1\nphone_queue = \"64MiB\"\n";
    let relay = Relay::with(&format!("[limits]\n{limits}{LISTED}"));
    // Frames that a phone does not read keep the drain open.
    let mut binary = Client::binary(&relay, "listed");
    let mut phone = Client::phone(&relay, "listed");
    let conn_id = phone.conn_id(&mut binary);
    binary.stall(&relay, &conn_id);
    // Its rate is used up, and so are its places.
    let mut late: Vec<_> =
        ever_better().into_iter().map(|request| (Http::connect(relay.address), request)).collect();
    for (http, _) in &mut late {
        assert_eq!(http.ask(&support::http::request("GET /healthz HTTP/1.1", &[])).status, 200);
    }
    relay.signal("TERM");
    relay.wait_for_event("draining");
    for (http, request) in &mut late {
        let answer = http.ask(request);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{request}");
    }
    let metrics = eventually("the outcomes", || {
        let metrics = relay.try_metrics().ok_or("no metrics")?;
        let seen = metrics.upgrades("server", "reject_draining");
        if seen == 5.0 { Ok(metrics) } else { Err(seen.to_string()) }
    });
    assert_eq!(metrics.upgrades("server", "reject_rate_limit"), 0.0);
}

#[test]
fn the_list_cannot_be_read_out_by_a_phone() {
    let relay = Relay::with("[access]\nservers = [\"listed\", \"another\"]\n");
    let refused = Http::connect(relay.address).ask(&upgrade("/v2/server", &binary_headers("unlisted")));
    assert_eq!((refused.status, refused.body.as_str()), (403, "this server-id may not be claimed here\n"));
    let line = relay.wait_for_event("server_id_forbidden");
    assert_eq!((&line["server_id"], &line["remote"]), (&"unlisted".into(), &"127.0.0.1".into()));

    // A phone for one that is listed, and for one that is not: not a byte of difference.
    let mut answers = Vec::new();
    for server_id in ["listed", "unlisted"] {
        let mut http = Http::connect(relay.address);
        let answer = http.ask(&upgrade("/v2/client", &phone_headers(server_id)));
        let head: Vec<_> = answer.head.lines().filter(|line| !line.starts_with("date: ")).collect();
        answers.push((head.join("\n"), http.hung_up()));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].1.contains("no server with that id"), "{answers:?}");
    let metrics =
        relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"client\",outcome=\"reject_404\"}", 2.0);
    assert_eq!(metrics.upgrades("client", "reject_forbidden"), 0.0);
    assert_eq!(metrics.upgrades("server", "reject_forbidden"), 1.0);
}
