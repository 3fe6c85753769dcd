//! Descriptors: what does not fit is refused at the start, and when they run out those who are there go on.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::fs;
use std::net::Ipv4Addr;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::client::{Client, binary_headers, connect_over, phone_headers};
use support::http::{Http, request, upgrade};
use support::relay::{Options, Program, Relay};
use support::{connect_from, eventually};

fn with_descriptors(descriptors: u64, config: &str) -> Relay {
    Relay::with_options(Options {
        config: config.to_owned(),
        descriptors: Some(descriptors),
        ..Options::default()
    })
}

fn open_descriptors(relay: &Relay) -> usize {
    fs::read_dir(format!("/proc/{}/fd", relay.pid())).unwrap().count()
}

fn highest_descriptor(relay: &Relay) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", relay.pid())).unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max().unwrap()
}

#[test]
fn a_limit_that_is_written_and_does_not_fit_is_refused_with_both_numbers() {
    let program = Program::new("[listen]\npublic = \"127.0.0.1:0\"\n\n[limits]\nconnections = 5000\n");
    let output = program.command_with_descriptors(1000).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    let file = program.config_path();
    assert!(
        said.contains(&format!(
            "{}:5: limits.connections: 5000 connections and 512 handshakes",
            file.display()
        )),
        "{said}"
    );
    for part in ["need 5576 descriptors", "may open 1000", "LimitNOFILE=5576"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("INFO listening"), "{said}");
}

#[test]
fn a_limit_that_just_fits_is_kept_and_can_be_used_up() {
    // 60 connections, 16 handshakes, and 64 for everything else.
    let relay = with_descriptors(
        140,
        "[limits]\nconnections = 60\nhandshakes = 16\nphones_per_server = 100\nhandshake_timeout = \"60s\"\n",
    );
    assert!(relay.events_named("limits_reduced").is_empty());
    let mut binaries: Vec<_> =
        (0..6).map(|number| Client::binary(&relay, &format!("full-{number}"))).collect();
    let mut phones: Vec<_> = (0..54).map(|_| Client::phone(&relay, "full-0")).collect();
    for client in binaries.iter_mut().chain(&mut phones) {
        assert_eq!(client.admitted(), Ok(()));
    }
    let slow: Vec<_> = (0..40).map(|_| Http::connect(relay.address)).collect();
    eventually("24 of the slow ones to be cut", || {
        let cut = slow.iter().filter(|http| !http.is_open()).count();
        if cut == 24 { Ok(()) } else { Err(cut.to_string()) }
    });
    // Everything that may be used is, and there are descriptors for scrapes, the log and the configuration.
    let metrics = relay.try_metrics().unwrap();
    assert_eq!(metrics.get("admitted_connections{endpoint=\"client\"}"), 54.0);
    assert_eq!(metrics.get("connections_limit"), 60.0);
    relay.signal("HUP");
    relay.wait_for_event("reloaded");
    assert!(relay.events_named("accept_failed").is_empty());
    assert!(open_descriptors(&relay) <= 140);
}

#[test]
fn built_in_limits_shrink_to_what_there_is_and_the_start_says_so() {
    let relay = with_descriptors(264, "");
    let line = relay.wait_for_event("limits_reduced");
    assert_eq!(line["level"], "warn");
    let told = ["connections", "handshakes", "descriptors"].map(|key| line[key].as_u64());
    assert_eq!(told, [Some(150), Some(50), Some(264)]);
    let metrics = relay.metrics();
    assert_eq!((metrics.get("connections_limit"), metrics.get("handshakes_limit")), (150.0, 50.0));
}

#[test]
fn the_soft_limit_is_raised() {
    let relay = Relay::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", relay.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let figures: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(figures[0], figures[1], "{line}");
    let metrics = relay.metrics();
    assert!(metrics.get("connections_limit") > 0.0 && metrics.get("handshakes_limit") > 0.0);
}

#[test]
fn when_they_run_out_newcomers_are_told_and_the_living_go_on_and_it_recovers() {
    let relay = Relay::with("[limits]\nhandshake_timeout = \"60s\"\n");
    let mut binary = Client::binary(&relay, "living");
    let mut phone = Client::phone(&relay, "living");
    let conn_id = phone.conn_id(&mut binary);
    let before = relay.metrics();

    // From outside, to what is open at this moment; what was closed before and leaves a gap is taken up.
    let pid = Pid::from_raw(i32::try_from(relay.pid()).unwrap());
    let most = highest_descriptor(&relay) + 1;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = prlimit(pid, Resource::Nofile, Rlimit { current: Some(most as u64), maximum }).unwrap();
    let gaps: Vec<_> = (open_descriptors(&relay)..most).map(|_| Http::connect(relay.address)).collect();
    eventually("no gap", || {
        let open = open_descriptors(&relay);
        if open == most { Ok(()) } else { Err(format!("{open} of {most}")) }
    });
    for _ in 0..30 {
        let mut newcomer = Http::connect_from(Ipv4Addr::new(127, 0, 0, 9), relay.address);
        let answer = newcomer.ask(&upgrade("/v2/client", &phone_headers("living")));
        assert_eq!((answer.status, answer.body.as_str()), (503, "the relay is out of descriptors\n"));
        let hint: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&hint), "{hint}");
        assert_eq!(newcomer.hung_up(), "");
    }
    let mut health = Http::connect(relay.address);
    let answer = health.ask(&request("GET /healthz HTTP/1.1", &[]));
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // One that says nothing keeps its descriptor for a second and no longer.
    let silent: Vec<_> = (0..20).map(|_| Http::connect(relay.address)).collect();
    phone.send("\"still here\"");
    assert_eq!(binary.json()["frame"], "still here");
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"and here\"}}"));
    assert_eq!(phone.text(), "\"and here\"");
    assert_eq!(relay.wait_for_event("accept_failed")["level"], "warn");
    eventually("a silent one to be hung up", || {
        if silent.iter().any(|http| !http.is_open()) { Ok(()) } else { Err("none".to_owned()) }
    });

    prlimit(pid, Resource::Nofile, limit).unwrap();
    drop((silent, gaps));
    eventually("the relay to take connections again", || {
        let stream = connect_from(Ipv4Addr::LOCALHOST, relay.address);
        let newcomer = connect_over(stream, "/v2/server", &binary_headers("afterwards"));
        newcomer.map_err(|refused| format!("{refused:?}"))
    });
    let metrics = relay.metrics();
    assert!(metrics.get("handshake_failures_total{stage=\"timeout\"}") >= 1.0, "a silent one is counted");
    assert_eq!(
        metrics.upgrades("client", "reject_capacity") - before.upgrades("client", "reject_capacity"),
        30.0
    );
    assert_eq!((binary.admitted(), phone.admitted()), (Ok(()), Ok(())));
    let mut late = Client::phone(&relay, "living");
    assert_eq!(late.admitted(), Ok(()));
}
