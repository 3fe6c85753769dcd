//! The shipped units and the program's defaults are in step.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]

use std::fs;
use std::path::Path;

use pyrycode_relay::config::Config;

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new("systemd").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every value of a directive, in order.
fn values(unit: &str, directive: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// The only value of a directive.
fn value(unit: &str, directive: &str) -> String {
    let [value] = <[String; 1]>::try_from(values(unit, directive)).expect(directive);
    value
}

fn seconds(unit: &str, directive: &str) -> u64 {
    value(unit, directive).strip_suffix('s').expect("seconds").parse().expect("a number")
}

#[test]
fn the_service_leaves_room_for_the_default_limits_and_the_drain() {
    let (unit, config) = (shipped("pyrycode-relay.service"), Config::default());
    let limits = &config.limits;
    // Those of the relay's own are 64.
    let needed = limits.connections + limits.handshakes + 64;
    let allowed: usize = value(&unit, "LimitNOFILE").parse().unwrap();
    assert!(allowed >= needed, "{allowed} < {needed}");
    assert!(unit.contains(&format!("need {needed};")), "a comment has the number");
    assert!(seconds(&unit, "TimeoutStopSec") > config.drain.timeout.as_secs());
    assert!(unit.contains(&format!("drain.timeout ({} s)", config.drain.timeout.as_secs())));
    // However often the watchdog restarts it, the limit on starts is not reached.
    let starts: u64 = value(&unit, "StartLimitBurst").parse().unwrap();
    let (interval, watchdog) =
        (value(&unit, "StartLimitIntervalSec").parse::<u64>().unwrap(), seconds(&unit, "WatchdogSec"));
    assert!(starts * watchdog > interval);
}

#[test]
fn the_service_runs_the_program_as_it_is_installed() {
    let unit = shipped("pyrycode-relay.service");
    let config = pyrycode_relay::cli::DEFAULT_CONFIG;
    assert_eq!(value(&unit, "ExecStart"), format!("/usr/bin/pyrycode-relay --config {config}"));
    let check = format!("/usr/bin/pyrycode-relay check --config {config}");
    assert_eq!(value(&unit, "ExecStartPre"), check);
    assert_eq!(values(&unit, "ExecReload")[1], check);
}

#[test]
fn the_sockets_are_those_that_the_configuration_would_bind() {
    let config = Config::default();
    for (unit, address, name) in [
        ("pyrycode-relay.socket", config.listen.public.to_string(), "public"),
        ("pyrycode-relay-metrics.socket", config.listen.metrics.to_string(), "metrics"),
    ] {
        let unit = shipped(unit);
        assert_eq!(value(&unit, "ListenStream"), address);
        assert_eq!(value(&unit, "FileDescriptorName"), name);
        assert_eq!(value(&unit, "Service"), "pyrycode-relay.service");
    }
    let drop_in = shipped("locked-down.conf");
    let sockets = "pyrycode-relay.socket pyrycode-relay-metrics.socket";
    assert_eq!(
        (value(&drop_in, "Requires"), value(&drop_in, "After")),
        (sockets.to_owned(), sockets.to_owned())
    );
    // What its comments say to write is what the relay takes.
    let keys = ["listen.public = \"systemd:public\"", "listen.metrics = \"systemd:metrics\""];
    assert!(keys.iter().all(|key| drop_in.contains(key)), "{drop_in}");
    assert!(Config::parse(&keys.join("\n"), "relay.toml").is_ok());
}
