//! Whose request it is behind a proxy that says so in `X-Forwarded-For`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::net::Ipv4Addr;

use support::client::{binary_headers, phone_headers};
use support::http::{Answer, Http, forwarded, request, upgrade};
use support::relay::Relay;

/// Proxies at 127.0.0.2 and in 127.0.7.0/24.
const BEHIND_HTTP: &str = "[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.2/32\", \"127.0.7.0/24\"]\n\
                           [limits]\nupgrade_burst = 2\nupgrades_per_minute = 1\n";
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

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
