//! How often one client address may ask for an upgrade (PROTOCOL § 1).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::client::{binary_headers, phone_headers};
use support::eventually;
use support::http::{Answer, Http, request, upgrade};
use support::relay::Relay;

const SLOW: &str = "[limits]\nupgrades_per_minute = 1\nupgrade_burst = 3\n";
const RATE_LIMITED: &str = "reject_rate_limit";

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

fn ask(relay: &Relay, from: Ipv4Addr, request: &str) -> Answer {
    Http::connect_from(from, relay.address).ask(request)
}

fn phone(server_id: &str) -> String {
    upgrade("/v2/client", &phone_headers(server_id))
}

fn seconds(answer: &Answer) -> u64 {
    answer.header("retry-after").and_then(|hint| hint.parse().ok()).unwrap_or(0)
}

#[test]
fn the_burst_is_for_both_endpoints_together_and_the_next_one_is_told_when_to_come() {
    let relay = Relay::with(SLOW);
    let before = relay.metrics();
    assert_eq!(ask(&relay, host(1), &upgrade("/v1/server", &binary_headers("rate"))).status, 101);
    assert_eq!(ask(&relay, host(1), &phone("rate")).status, 101);
    // Whatever becomes of a request, it counts.
    assert_eq!(ask(&relay, host(1), &request("GET /v2/client HTTP/1.1", &[])).status, 426);
    for path in ["/v1/server", "/v2/client"] {
        let answer = ask(&relay, host(1), &upgrade(path, &binary_headers("rate")));
        assert_eq!(answer.status, 429);
        assert!((58..=60).contains(&seconds(&answer)), "{}", answer.head);
        assert_eq!(answer.body, "too many upgrade requests from this address\n");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let metrics =
        relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"server\",outcome=\"accept\"}", 1.0);
    assert_eq!(metrics.upgrades("server", RATE_LIMITED), 1.0);
    assert_eq!(metrics.upgrades("client", RATE_LIMITED), 1.0);
    assert_eq!(metrics.get("register_failures_total{kind=\"ratelimit\"}"), 2.0);
    let counted: f64 = metrics
        .outcomes_since(&before)
        .iter()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(counted, 5.0, "one outcome for each request: {:?}", metrics.outcomes_since(&before));
}

#[test]
fn one_address_does_not_influence_another() {
    let relay = Relay::with(SLOW);
    for _ in 0..3 {
        assert_eq!(ask(&relay, host(9), &phone("apart")).status, 101);
    }
    for _ in 0..50 {
        assert_eq!(ask(&relay, host(9), &phone("apart")).status, 429);
    }
    for _ in 0..3 {
        assert_eq!(ask(&relay, host(1), &phone("apart")).status, 101);
    }
    assert_eq!(ask(&relay, host(1), &phone("apart")).status, 429);
    let metrics = relay.metrics();
    assert_eq!(metrics.get("tracked_addresses{table=\"upgrades\"}"), 2.0);
    assert_eq!(metrics.upgrades("client", RATE_LIMITED), 51.0);
}

#[test]
fn health_and_unknown_paths_are_never_limited() {
    let relay = Relay::with("[limits]\nupgrades_per_minute = 1\nupgrade_burst = 1\n");
    assert_eq!(ask(&relay, host(1), &phone("healthy")).status, 101);
    assert_eq!(ask(&relay, host(1), &phone("healthy")).status, 429);
    let mut http = Http::connect(relay.address);
    for _ in 0..100 {
        assert_eq!(http.ask(&request("GET /healthz HTTP/1.1", &[])).status, 200);
        assert_eq!(http.ask(&request("GET /elsewhere HTTP/1.1", &[])).status, 404);
    }
    assert_eq!(http.ask(&phone("healthy")).status, 429);
}

#[test]
fn who_waits_as_told_gets_in_and_who_keeps_asking_gets_in_no_sooner() {
    // A token in 500 ms: whole seconds are rounded up, so a second suffices.
    let relay = Relay::with("[limits]\nupgrades_per_minute = 120\nupgrade_burst = 2\n");
    let began = Instant::now();
    for from in [1, 9] {
        assert_eq!(ask(&relay, host(from), &phone("patient")).status, 101);
        assert_eq!(ask(&relay, host(from), &phone("patient")).status, 101);
    }
    let refused = ask(&relay, host(1), &phone("patient"));
    assert_eq!((refused.status, seconds(&refused)), (429, 1));
    let mut asked = 0;
    let got_in = eventually("a token for the impatient one", || {
        asked += 1;
        match ask(&relay, host(9), &phone("patient")).status {
            101 => Ok(began.elapsed()),
            status => Err(status.to_string()),
        }
    });
    assert!(got_in >= Duration::from_millis(500), "{got_in:?} after {asked} requests");
    assert!(asked > 10, "it did not ask on: {asked}");
    let due = began + Duration::from_millis(1500);
    eventually("the time that the patient one was told", || {
        if Instant::now() >= due { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_eq!(ask(&relay, host(1), &phone("patient")).status, 101);
}

#[test]
fn an_address_that_stays_away_is_forgotten_and_gets_no_fresh_burst_before() {
    let relay = Relay::with("[limits]\nupgrades_per_minute = 30\nupgrade_burst = 2\n");
    for _ in 0..2 {
        assert_eq!(ask(&relay, host(9), &phone("away")).status, 101);
    }
    let used_up = Instant::now();
    assert_eq!(relay.metrics().get("tracked_addresses{table=\"upgrades\"}"), 1.0);
    relay.wait_for_metric("tracked_addresses{table=\"upgrades\"}", 0.0);
    // Two tokens take four seconds.
    assert!(used_up.elapsed() > Duration::from_millis(3900), "{:?}", used_up.elapsed());
    for status in [101, 101, 429] {
        assert_eq!(ask(&relay, host(9), &phone("away")).status, status);
    }
}

#[test]
fn a_flood_of_refusals_is_a_line_a_second() {
    let relay = Relay::with(SLOW);
    let began = Instant::now();
    let mut refused: u64 = 0;
    while refused < 500 {
        refused += u64::from(ask(&relay, host(9), &phone("flood")).status == 429);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    eventually("the metrics", || {
        let counted = relay.metrics().upgrades("client", RATE_LIMITED);
        if counted == refused as f64 { Ok(()) } else { Err(counted.to_string()) }
    });
    let lines = relay.events_named("rate_limited");
    assert!(!lines.is_empty() && lines.len() <= seconds, "{} lines in {seconds} s", lines.len());
    assert_eq!(lines[0]["remote"], "127.0.0.9");
    assert_eq!((&lines[0]["level"], &lines[0]["suppressed"]), (&"warn".into(), &0.into()));
    let told: u64 = lines.iter().map(|line| line["suppressed"].as_u64().unwrap() + 1).sum();
    assert!(told <= refused, "{told} of {refused}");
}
