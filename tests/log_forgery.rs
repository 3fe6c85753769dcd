//! The log under attack: what a stranger chooses cannot forge a line or a field, and a flood of events is bounded.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Instant;

use support::client::{Client, connect};
use support::eventually;
use support::http::{Http, upgrade};
use support::relay::{Program, Relay};

/// A relay that logs in this format, and the lines that it wrote until it was told to stop.
fn log_of(format: &str, visit: impl FnOnce(SocketAddr)) -> Vec<String> {
    let program = Program::new(&format!(
        "[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n[log]\nformat = \"{format}\"\n[drain]\nspread = \"1ms\"\n"
    ));
    let mut child = program.command().stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut log = Vec::new();
    while !log.last().is_some_and(|line: &String| line.contains("ready")) {
        log.extend(lines.next());
    }
    let listening = log.iter().find(|line| line.contains("127.0.0.1:")).unwrap();
    let start = listening.find("127.0.0.1:").unwrap();
    let address: String =
        listening[start..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    visit(address.parse().unwrap());
    stop(&child);
    log.extend(lines);
    assert!(child.wait().unwrap().success());
    log
}

fn stop(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// A server-id of visible ASCII, and a device name and a version with whatever HTTP lets through.
const SERVER_ID: &str = "a\"remote=1.2.3.4\\n{\"event\":\"ready\"}";
const DEVICE: &str = "x\" cause=peer_closed\tINFO ready \u{9b}31m \\\" remote=\"9.9.9.9";

/// A binary and a phone with those names come and go.
fn visit(address: SocketAddr) {
    let binary = [("x-pyrycode-server", SERVER_ID), ("x-pyrycode-version", DEVICE), ("user-agent", "x")];
    let mut binary = connect(address, "/v2/server", &binary).unwrap();
    assert_eq!(binary.admitted(), Ok(()));
    let mut phone = Http::connect(address);
    let headers = [("x-pyrycode-server", SERVER_ID), ("x-pyrycode-device-name", DEVICE), ("user-agent", "x")];
    assert_eq!(phone.ask(&upgrade("/v2/client", &headers)).status, 101);
    phone.send(support::client::frame(0x81, b"1"));
    assert_eq!(binary.json()["frame"], 1);
    drop(phone);
    assert_eq!(binary.json()["close_code"], 1001);
}

#[test]
fn in_text_a_name_stays_within_its_quotes() {
    let log = log_of("text", visit);
    let lines: Vec<_> = log.iter().filter(|line| line.contains("server_id=")).collect();
    assert!(lines.len() >= 4, "{log:?}");
    for line in lines {
        // Outside of quotes there is one remote at the most, and it is the true one.
        let (mut outside, mut quoted, mut escaped) = (String::new(), false, false);
        for c in line.chars() {
            assert!((' '..='~').contains(&c), "{c:?} in {line}");
            match c {
                '"' if !escaped => quoted = !quoted,
                _ if !quoted => outside.push(c),
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        assert!(!quoted, "{line}");
        assert!(
            !outside.contains("9.9.9.9") && !outside.contains("1.2.3.4") && !outside.contains(" ready"),
            "{line}"
        );
        assert_eq!(outside.matches(" INFO ").count(), 1, "{line}");
    }
    assert_eq!(log.iter().filter(|line| line.contains(" INFO ready")).count(), 1, "{log:?}");
}

#[test]
fn in_json_a_name_is_one_string() {
    let log = log_of("json", visit);
    let events: Vec<serde_json::Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let registered = events.iter().find(|event| event["event"] == "phone_registered").unwrap();
    assert_eq!((&registered["server_id"], &registered["remote"]), (&SERVER_ID.into(), &"127.0.0.1".into()));
    let device = registered["device_name"].as_str().unwrap();
    assert!(device.is_ascii() && device.contains("\\x09INFO ready \\xc2\\x9b31m"), "{device}");
    assert_eq!(events.iter().filter(|event| event["event"] == "ready").count(), 1);
    for event in &events {
        assert!(event.as_object().unwrap().values().all(|value| !value.is_object()), "{event}");
    }
}

#[test]
fn events_of_connections_that_come_and_go_are_bounded_and_the_rest_is_counted() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "busy");
    let began = Instant::now();
    let mut visits: u64 = 0;
    while visits < 600 {
        let mut phone = Client::phone(&relay, "busy");
        assert_eq!(phone.admitted(), Ok(()));
        assert!(phone.close(Some(1000)).is_some());
        assert_eq!(binary.json()["close_code"], 1000);
        visits += 1;
    }
    let seconds = began.elapsed().as_secs() + 1;
    // The next line tells how many there were before it; it may have to wait for the next second.
    eventually("every visit to be accounted for", || {
        let mut phone = Client::phone(&relay, "busy");
        assert_eq!(phone.admitted(), Ok(()));
        visits += 1;
        assert!(phone.close(Some(1000)).is_some());
        let lines = relay.events_named("phone_registered");
        let told: u64 = lines.iter().map(|line| 1 + line["suppressed"].as_u64().unwrap_or(0)).sum();
        if told == visits { Ok(()) } else { Err(format!("{told} of {visits}")) }
    });
    let lines = relay.events_named("phone_registered").len() as u64;
    assert!(lines < visits, "{lines} lines for {visits} visits");
    assert!(lines <= 50 * (seconds + began.elapsed().as_secs() + 2), "{lines} lines in {seconds} s and more");
    assert_eq!(relay.events_named("server_claimed").len(), 1, "other events are not held back");
}
