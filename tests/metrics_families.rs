//! The families: what is there on a fresh start, and what each observed fact moves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test, with its line"
)]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

#[path = "support/exposition.rs"]
mod exposition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exposition::{families, samples};
use pyrycode_relay::metrics::families::Families;
use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::observer::{
    Census, Counts, Direction, DropReason, Endpoint, HandshakeStage, Observer, UpgradeOutcome,
};

const PREFIX: &str = "pyrycode_relay_";

#[derive(Default)]
struct FakeCensus {
    counts: Mutex<Counts>,
    asked: AtomicUsize,
}

impl Census for FakeCensus {
    fn count(&self) -> Counts {
        self.asked.fetch_add(1, Ordering::Relaxed);
        *self.counts.lock().unwrap()
    }
}

fn fresh() -> Families {
    Families::new(Arc::new(FakeCensus::default())).unwrap()
}

/// The relay's own samples: those that no fact of the test moves by itself.
fn own(page: &str) -> BTreeMap<String, f64> {
    let mut samples = samples(page);
    samples.retain(|series, _| series.starts_with(PREFIX));
    samples
}

/// What `facts` moves, by how much, without the prefix. The histogram's buckets and sum are left out.
fn moved(families: &Families, facts: impl FnOnce(&Families)) -> BTreeMap<String, f64> {
    let before = own(&families.encode().unwrap());
    facts(families);
    let after = own(&families.encode().unwrap());
    assert!(before.keys().eq(after.keys()), "no series comes or goes");
    after
        .into_iter()
        .map(|(series, value)| (series[PREFIX.len()..].to_owned(), value - before[&series]))
        .filter(|(series, by)| *by != 0.0 && !series.contains("_bucket{") && !series.contains("_sum{"))
        .collect()
}

fn expect(moves: &[(&str, f64)]) -> BTreeMap<String, f64> {
    moves.iter().map(|(series, by)| ((*series).to_owned(), *by)).collect()
}

fn grid(name: &str, labels: [&str; 2], rows: &[&str], columns: &[&str]) -> Vec<String> {
    let [a, b] = labels;
    let pairs = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
    pairs.map(|(row, column)| format!("{PREFIX}{name}{{{a}=\"{row}\",{b}=\"{column}\"}}")).collect()
}

fn list(name: &str, label: &str, values: &[&str]) -> Vec<String> {
    values.iter().map(|value| format!("{PREFIX}{name}{{{label}=\"{value}\"}}")).collect()
}

#[test]
fn every_series_is_there_at_zero_on_a_fresh_start() {
    let page = fresh().encode().unwrap();
    let endpoints = ["server", "client"];
    let directions = ["phone_to_binary", "binary_to_phone"];
    let mut expected = BTreeSet::new();
    expected.extend(grid(
        "ws_upgrade_attempts_total",
        ["endpoint", "outcome"],
        &endpoints,
        &[
            "accept",
            "reject_headers",
            "reject_409",
            "reject_404",
            "reject_429",
            "reject_rate_limit",
            "reject_capacity",
            "reject_draining",
            "reject_forbidden",
            "reject_bad_request",
        ],
    ));
    expected.extend(list(
        "register_failures_total",
        "kind",
        &["no_server", "server_in_use", "phones_at_cap", "ratelimit"],
    ));
    expected.extend(list("frames_forwarded_total", "direction", &directions));
    expected.extend(list("forwarded_bytes_total", "direction", &directions));
    expected.extend(list("forward_latency_seconds_sum", "direction", &directions));
    expected.extend(list("forward_latency_seconds_count", "direction", &directions));
    expected.extend(grid(
        "frames_dropped_total",
        ["direction", "reason"],
        &directions,
        &["malformed", "unknown_conn_id", "backlog", "write_failed", "no_binary", "receiver_closed"],
    ));
    expected.extend(list(
        "push_wakes_total",
        "outcome",
        &["sent", "unregistered", "send_failed", "token_fetch_failed", "dropped", "off"],
    ));
    let causes = CloseCause::ALL.map(CloseCause::as_str);
    expected.extend(grid("connections_closed_total", ["cause", "endpoint"], &causes, &endpoints));
    expected.extend(list("queued_bytes", "endpoint", &endpoints));
    expected.extend(list("handshake_failures_total", "stage", &["proxy", "tls", "http", "timeout"]));
    expected.extend(list("tls_handshakes_total", "kind", &["full", "resumed"]));
    expected.extend(list("certificate_orders_total", "outcome", &["issued", "failed"]));
    expected.extend(list("reloads_total", "outcome", &["ok", "failed"]));
    expected.extend(list("admitted_connections", "endpoint", &endpoints));
    expected.extend(list("tracked_addresses", "table", &["upgrades", "connections"]));
    for name in [
        "handshakes_in_progress",
        "ready",
        "connections_limit",
        "handshakes_limit",
        "queued_bytes_limit",
        "certificate_wanted",
        "certificate_expiry_timestamp_seconds",
        "grace_expiries_total",
        "reclaims_total",
        "takeovers_total",
        "evicted_phones_total",
        "connected_binaries",
        "connected_phones",
        "gracing_binaries",
    ] {
        expected.insert(format!("{PREFIX}{name}"));
    }

    let mut found = own(&page);
    let info: Vec<String> = found.keys().filter(|series| series.contains("build_info")).cloned().collect();
    assert_eq!(info.len(), 1);
    assert_eq!(found.remove(&info[0]), Some(1.0));
    assert!(info[0].contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{}", info[0]);
    assert!(info[0].contains("revision=\""), "{}", info[0]);
    assert!(found.values().all(|value| *value == 0.0), "{found:?}");

    let buckets = found.keys().filter(|series| series.contains("_bucket{")).count();
    assert_eq!(buckets, 2 * 17, "16 buckets and +Inf for each direction");
    found.retain(|series, _| !series.contains("_bucket{"));
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn names_and_help_follow_the_conventions() {
    let page = fresh().encode().unwrap();
    let families = families(&page);
    assert!(families.len() >= 16, "{families:?}");
    for (name, kind) in &families {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let help = page.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 20), "{name} needs a help text");
        assert!(name.starts_with(PREFIX) || name.starts_with("process_"), "{name}");
    }
}

#[test]
fn the_process_collector_is_there() {
    let samples = samples(&fresh().encode().unwrap());
    assert!(samples["process_open_fds"] > 0.0);
    assert!(samples["process_resident_memory_bytes"] > 0.0);
    assert!(samples.contains_key("process_cpu_seconds_total"));
}

#[test]
fn a_forwarded_frame_moves_its_direction_only() {
    let families = fresh();
    let up = moved(&families, |f| {
        f.frame_forwarded(Direction::PhoneToBinary, 300, Duration::from_micros(30));
    });
    assert_eq!(
        up,
        expect(&[
            ("forward_latency_seconds_count{direction=\"phone_to_binary\"}", 1.0),
            ("forwarded_bytes_total{direction=\"phone_to_binary\"}", 300.0),
            ("frames_forwarded_total{direction=\"phone_to_binary\"}", 1.0),
        ])
    );
    let down = moved(&families, |f| {
        f.frame_forwarded(Direction::BinaryToPhone, 0, Duration::from_secs(60));
    });
    assert_eq!(
        down,
        expect(&[
            ("forward_latency_seconds_count{direction=\"binary_to_phone\"}", 1.0),
            ("frames_forwarded_total{direction=\"binary_to_phone\"}", 1.0),
        ])
    );
}

#[test]
fn latency_is_in_seconds_and_lands_in_its_bucket() {
    let families = fresh();
    families.frame_forwarded(Direction::PhoneToBinary, 1, Duration::from_micros(30));
    let samples = own(&families.encode().unwrap());
    let bucket = |le: &str| {
        samples
            [&format!("{PREFIX}forward_latency_seconds_bucket{{direction=\"phone_to_binary\",le=\"{le}\"}}")]
    };
    assert_eq!((bucket("0.000025"), bucket("0.00005"), bucket("10"), bucket("+Inf")), (0.0, 1.0, 1.0, 1.0));
    let sum = samples[&format!("{PREFIX}forward_latency_seconds_sum{{direction=\"phone_to_binary\"}}")];
    assert!((sum - 0.000_03).abs() < 1e-12, "{sum}");
}

#[test]
fn frames_that_are_counted_together_count_as_if_one_after_the_other() {
    let frames = [(300, 30), (0, 60_000_000), (7, 31), (9, 2_000)];
    let [one_by_one, together] = [fresh(), fresh()];
    for direction in Direction::ALL {
        let frames = frames.map(|(bytes, micros)| (bytes, Duration::from_micros(micros)));
        for (bytes, latency) in frames {
            one_by_one.frame_forwarded(direction, bytes, latency);
        }
        let (first, rest) = frames.split_at(1);
        for some in [first, rest] {
            together.frames_forwarded(direction, &mut some.iter().copied());
        }
    }
    let [one_by_one, together] = [one_by_one, together].map(|families| own(&families.encode().unwrap()));
    assert_eq!(together[&format!("{PREFIX}forwarded_bytes_total{{direction=\"binary_to_phone\"}}")], 316.0);
    assert_eq!(together, one_by_one);
}

#[test]
fn each_drop_moves_one_series() {
    let families = fresh();
    for direction in Direction::ALL {
        for reason in DropReason::ALL {
            let moves = moved(&families, |f| f.frame_dropped(direction, reason));
            let series = format!(
                "frames_dropped_total{{direction=\"{}\",reason=\"{}\"}}",
                direction.as_str(),
                reason.as_str()
            );
            assert_eq!(moves, expect(&[(&series, 1.0)]));
        }
    }
    assert_eq!(moved(&families, |_| ()), expect(&[]), "nothing moves by itself");
}

#[test]
fn each_upgrade_moves_its_outcome_and_the_matching_failure() {
    let families = fresh();
    for endpoint in Endpoint::ALL {
        for outcome in UpgradeOutcome::ALL {
            let moves = moved(&families, |f| f.upgrade(endpoint, outcome));
            let attempt = format!(
                "ws_upgrade_attempts_total{{endpoint=\"{}\",outcome=\"{}\"}}",
                endpoint.as_str(),
                outcome.as_str()
            );
            let kind = match outcome {
                UpgradeOutcome::Reject404 => Some("no_server"),
                UpgradeOutcome::Reject409 => Some("server_in_use"),
                UpgradeOutcome::Reject429 => Some("phones_at_cap"),
                UpgradeOutcome::RejectRateLimit => Some("ratelimit"),
                _ => None,
            };
            let mut expected = expect(&[(&attempt, 1.0)]);
            if let Some(kind) = kind {
                expected.insert(format!("register_failures_total{{kind=\"{kind}\"}}"), 1.0);
            }
            assert_eq!(moves, expected);
        }
    }
    let samples = own(&families.encode().unwrap());
    let failures = samples.iter().filter(|(series, _)| series.contains("register_failures_total"));
    assert_eq!(failures.map(|(_, value)| value).sum::<f64>(), 8.0);
}

#[test]
fn each_end_of_a_connection_moves_one_series() {
    let families = fresh();
    for endpoint in Endpoint::ALL {
        for cause in CloseCause::ALL {
            let moves = moved(&families, |f| f.connection_closed(endpoint, cause));
            let series = format!(
                "connections_closed_total{{cause=\"{}\",endpoint=\"{}\"}}",
                cause.as_str(),
                endpoint.as_str()
            );
            assert_eq!(moves, expect(&[(&series, 1.0)]));
        }
    }
    let samples = own(&families.encode().unwrap());
    let closed = samples.iter().filter(|(series, _)| series.contains("connections_closed_total"));
    assert_eq!(closed.map(|(_, value)| value).sum::<f64>(), 34.0);
}

#[test]
fn the_facts_without_labels_move_their_family_only() {
    let families = fresh();
    assert_eq!(moved(&families, Observer::grace_expired), expect(&[("grace_expiries_total", 1.0)]));
    assert_eq!(moved(&families, Observer::reclaimed), expect(&[("reclaims_total", 1.0)]));
    assert_eq!(moved(&families, Observer::taken_over), expect(&[("takeovers_total", 1.0)]));
    assert_eq!(moved(&families, |f| f.phones_evicted(3)), expect(&[("evicted_phones_total", 3.0)]));
    assert_eq!(moved(&families, |f| f.phones_evicted(0)), expect(&[]));
    assert_eq!(
        moved(&families, Observer::push_wake_off),
        expect(&[("push_wakes_total{outcome=\"off\"}", 1.0)])
    );
}

#[test]
fn what_the_service_sets_shows() {
    let families = fresh();
    assert_eq!(moved(&families, |f| f.ready(true)), expect(&[("ready", 1.0)]));
    assert_eq!(moved(&families, |f| f.ready(false)), expect(&[("ready", -1.0)]));
    assert_eq!(
        moved(&families, |f| f.queues_limit(1 << 28)),
        expect(&[("queued_bytes_limit", 268_435_456.0)])
    );
}

#[test]
fn handshakes_rise_and_fall_and_their_failures_have_a_stage() {
    let families = fresh();
    let rise = moved(&families, |f| {
        f.handshake_began();
        f.handshake_began();
    });
    assert_eq!(rise, expect(&[("handshakes_in_progress", 2.0)]));
    let fall = moved(&families, |f| {
        f.handshake_ended(None);
        f.handshake_ended(Some(HandshakeStage::Timeout));
    });
    assert_eq!(
        fall,
        expect(&[("handshakes_in_progress", -2.0), ("handshake_failures_total{stage=\"timeout\"}", 1.0)])
    );
}

#[test]
fn queued_bytes_rise_and_fall() {
    let families = fresh();
    let rise = moved(&families, |f| {
        f.queued(Endpoint::Server, 100);
        f.queued(Endpoint::Client, 7);
    });
    assert_eq!(
        rise,
        expect(&[("queued_bytes{endpoint=\"client\"}", 7.0), ("queued_bytes{endpoint=\"server\"}", 100.0)])
    );
    let fall = moved(&families, |f| f.unqueued(Endpoint::Client, 6));
    assert_eq!(fall, expect(&[("queued_bytes{endpoint=\"client\"}", -6.0)]));
    let fall = moved(&families, |f| f.unqueued(Endpoint::Server, 100));
    assert_eq!(fall, expect(&[("queued_bytes{endpoint=\"server\"}", -100.0)]));
    assert_eq!(
        own(&families.encode().unwrap())[&format!("{PREFIX}queued_bytes{{endpoint=\"server\"}}")],
        0.0
    );
}

#[test]
fn the_gauges_follow_the_census_which_is_asked_once_per_scrape() {
    let census = Arc::new(FakeCensus::default());
    let families = Families::new(Arc::clone(&census) as Arc<dyn Census>).unwrap();
    let asked = census.asked.load(Ordering::Relaxed);
    let moves = moved(&families, |_| {
        *census.counts.lock().unwrap() =
            Counts { connected_binaries: 3, connected_phones: 12, gracing_binaries: 1 };
    });
    assert_eq!(
        moves,
        expect(&[("connected_binaries", 3.0), ("connected_phones", 12.0), ("gracing_binaries", 1.0)])
    );
    assert_eq!(census.asked.load(Ordering::Relaxed) - asked, 2, "one question for each of the two scrapes");
}

#[test]
fn scrapes_under_load_are_consistent_and_nothing_is_lost() {
    const THREADS: u32 = 4;
    const FRAMES: u32 = 20_000;
    let families = Arc::new(fresh());
    let count = format!("{PREFIX}forward_latency_seconds_count{{direction=\"phone_to_binary\"}}");
    let inf = format!("{PREFIX}forward_latency_seconds_bucket{{direction=\"phone_to_binary\",le=\"+Inf\"}}");
    let load = thread::spawn({
        let families = Arc::clone(&families);
        move || {
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..FRAMES {
                            families.frame_forwarded(Direction::PhoneToBinary, 10, Duration::from_micros(20));
                        }
                    });
                }
            });
        }
    });
    let mut last = 0.0;
    while !load.is_finished() {
        let samples = own(&families.encode().unwrap());
        assert_eq!(samples[&count], samples[&inf], "a histogram is consistent in itself");
        assert!(samples[&count] >= last, "a counter never falls");
        last = samples[&count];
    }
    load.join().unwrap();
    let samples = own(&families.encode().unwrap());
    let total = f64::from(THREADS * FRAMES);
    assert_eq!(samples[&count], total);
    assert_eq!(samples[&format!("{PREFIX}frames_forwarded_total{{direction=\"phone_to_binary\"}}")], total);
    assert_eq!(
        samples[&format!("{PREFIX}forwarded_bytes_total{{direction=\"phone_to_binary\"}}")],
        total * 10.0
    );
}
