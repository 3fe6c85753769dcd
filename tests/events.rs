//! The log: what each output makes of an event, what a stranger can do to it, and what a level costs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test, with its line"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyrycode_relay::event::{self, Format, Handle, Layout, Level, Sink};
use pyrycode_relay::relay::close::CloseCause;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Holds what was written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Sink for Lines {
    fn write_line(&self, line: &[u8]) {
        self.0.lock().unwrap().extend(line);
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("a log is text")
    }
}

fn captured_at(level: Level, layout: Layout, events: impl FnOnce(&Handle)) -> String {
    let lines = Lines::default();
    let (dispatch, handle) = event::to_sink(level, layout, lines.clone());
    tracing::dispatcher::with_default(&dispatch, || events(&handle));
    lines.text()
}

fn captured(layout: Layout, events: impl FnOnce()) -> String {
    captured_at(Level::Debug, layout, |_| events())
}

/// One event as text, without the timestamp, which is checked.
fn text(event: impl FnOnce()) -> String {
    let log = captured(Layout::Text, event);
    let line = log.strip_suffix('\n').expect("a line ends");
    assert!(!line.contains('\n'), "one event is one line: {line}");
    let (timestamp, rest) = line.split_once(' ').unwrap();
    humantime::parse_rfc3339(timestamp).expect("a line begins with a time");
    rest.to_owned()
}

/// One event as JSON: its members, without the timestamp, which is checked.
fn json(event: impl FnOnce()) -> BTreeMap<String, Value> {
    let log = captured(Layout::Json, event);
    assert_eq!(log.matches('\n').count(), 1, "one event is one line: {log}");
    let mut members: BTreeMap<String, Value> = serde_json::from_str(&log).unwrap();
    let timestamp = members.remove("timestamp").unwrap();
    humantime::parse_rfc3339(timestamp.as_str().unwrap()).unwrap();
    assert!(members.values().all(|value| !value.is_object() && !value.is_array()), "flat: {log}");
    members
}

/// Takes an event apart in the way `tracing-journald` does: a string as it is, everything else by `Debug`.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<BTreeMap<String, String>>>);

impl<S: tracing::Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut &*self);
    }
}

impl Visit for &Journal {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.lock().unwrap().insert(field.name().to_ascii_uppercase(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.lock().unwrap().insert(field.name().to_ascii_uppercase(), format!("{value:?}"));
    }
}

fn journal(event: impl FnOnce()) -> BTreeMap<String, String> {
    let journal = Journal::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(journal.clone()), event);
    journal.0.lock().unwrap().clone()
}

fn remote() -> IpAddr {
    "::ffff:203.0.113.9".parse().unwrap()
}

fn phone_unregistered() {
    event::phone_unregistered("srv", "c-01", Some(b"My phone"), remote(), CloseCause::PhoneBacklogFull);
}

#[test]
fn text_is_a_readable_line() {
    assert_eq!(
        text(phone_unregistered),
        "INFO phone_unregistered server_id=\"srv\" conn_id=\"c-01\" device_name=\"My phone\" \
         remote=203.0.113.9 cause=phone_backlog_full"
    );
    assert_eq!(text(event::ready), "INFO ready");
    assert_eq!(
        text(|| event::drain_incomplete(3, Duration::from_millis(12_345))),
        "WARN drain_incomplete connections=3 duration=12.345s"
    );
}

#[test]
fn json_is_a_flat_object_with_figures_as_figures() {
    let members = json(phone_unregistered);
    let expected = serde_json::json!({
        "level": "info", "event": "phone_unregistered", "server_id": "srv", "conn_id": "c-01",
        "device_name": "My phone", "remote": "203.0.113.9", "cause": "phone_backlog_full",
    });
    assert_eq!(serde_json::to_value(members).unwrap(), expected);
    let members = json(|| event::drain_incomplete(3, Duration::from_millis(12_345)));
    let expected = serde_json::json!({"level": "warn", "event": "drain_incomplete", "connections": 3, "duration": 12.345});
    assert_eq!(serde_json::to_value(members).unwrap(), expected);
}

#[test]
fn the_journal_gets_a_readable_message_and_every_field() {
    let fields = journal(phone_unregistered);
    assert_eq!(
        fields["MESSAGE"],
        "phone_unregistered server_id=\"srv\" conn_id=\"c-01\" device_name=\"My phone\" \
         remote=203.0.113.9 cause=phone_backlog_full"
    );
    assert_eq!(fields["EVENT"], "phone_unregistered");
    assert_eq!(fields["DEVICE_NAME"], "My phone");
    assert_eq!(fields["REMOTE"], "203.0.113.9");
    assert_eq!(fields.len(), 7, "{fields:?}");
}

#[test]
fn an_absent_value_has_no_key() {
    let registered = || event::phone_registered("srv", "c-01", None, remote());
    assert_eq!(
        text(registered),
        "INFO phone_registered server_id=\"srv\" conn_id=\"c-01\" remote=203.0.113.9"
    );
    assert!(!json(registered).contains_key("device_name"));
    assert!(!journal(registered).contains_key("DEVICE_NAME"));
    let lost = || event::connection_lost("srv", None, CloseCause::PeerLost);
    assert_eq!(text(lost), "INFO connection_lost server_id=\"srv\" cause=peer_lost");
    assert_eq!(json(lost).len(), 4);
}

#[test]
fn strangers_cannot_forge_a_line_or_a_field() {
    let name = b"x\" remote=192.0.2.1\n2026-01-01T00:00:00Z INFO ready\r\x1b[2J\x00\xff\xe2\x80\xae\\";
    let forged = || event::phone_registered("a\" cause=b", "c-01", Some(name), remote());
    let shown = "x\\\" remote=192.0.2.1\\x0a2026-01-01T00:00:00Z INFO ready\\x0d\\x1b[2J\\x00\\xff\\xe2\\x80\\xae\\\\";
    assert_eq!(
        text(forged),
        format!(
            "INFO phone_registered server_id=\"a\\\" cause=b\" conn_id=\"c-01\" device_name=\"{shown}\" \
             remote=203.0.113.9"
        )
    );
    let members = json(forged);
    // JSON and the journal keep values apart themselves: there a name reads as it was sent.
    let plain = shown.replace("\\\"", "\"").replace("\\\\", "\\");
    assert_eq!(members["device_name"], plain);
    assert_eq!(members["server_id"], "a\" cause=b");
    assert_eq!(members["remote"], "203.0.113.9");
    let fields = journal(forged);
    assert_eq!(fields["DEVICE_NAME"], plain);
    assert!(
        fields.values().all(|value| value.bytes().all(|byte| (b' '..=b'~').contains(&byte))),
        "{fields:?}"
    );
}

#[test]
fn a_conn_id_from_an_envelope_is_escaped_and_cut() {
    let conn_id = "c-\n\u{1b}".to_owned() + &"y".repeat(100_000);
    let line = text(|| event::unknown_conn_id("srv", Some(&conn_id), 7));
    assert!(line.starts_with("WARN unknown_conn_id server_id=\"srv\" conn_id=\"c-\\x0a\\x1byyy"), "{line}");
    assert!(line.ends_with("yyy...\" suppressed=7"), "{line}");
    assert!(line.len() < 2000, "{}", line.len());
}

/// Writes every event once.
fn all_events() {
    let error = io::Error::from_raw_os_error(24);
    event::starting("1.0.0", "/etc/relay.toml");
    event::listening("0.0.0.0:8080".parse().unwrap());
    event::listening_metrics("127.0.0.1:9100".parse().unwrap());
    event::ready();
    event::reloaded(Level::Warn, None);
    event::reloaded(Level::Warn, Some("session.grace"));
    event::reload_failed(&"no such file");
    event::notify_failed(&error);
    event::draining(2);
    event::drained(Duration::from_secs(1));
    event::drain_incomplete(1, Duration::from_secs(1));
    event::server_claimed("srv", b"pyry 1.2", remote());
    event::server_id_conflict("srv", remote(), 3);
    event::server_reclaimed("srv", remote(), 2);
    event::server_released("srv");
    event::server_expired("srv", 2);
    event::phone_registered("srv", "c-01", Some(b"d"), remote());
    phone_unregistered();
    event::phone_refused("srv", remote(), CloseCause::NoServer, 4);
    event::envelope_rejected("srv", "malformed", 1);
    event::unknown_conn_id("srv", Some(&"c-02"), 1);
    event::connection_lost("srv", Some(&"c-01"), CloseCause::PeerLost);
    event::log_lines_lost(9);
    event::accept_failed("127.0.0.1:8080".parse().unwrap(), &error, 1);
    event::scrape_failed(&"panicked", 0);
    event::metrics_thread_failed(&"panicked");
}

#[test]
fn every_event_has_its_level_and_its_keys() {
    let log = captured(Layout::Json, all_events);
    let mut found = Vec::new();
    for line in log.lines() {
        let mut members: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        let [event, level] =
            ["event", "level"].map(|key| members.remove(key).unwrap().as_str().unwrap().to_owned());
        members.remove("timestamp").unwrap();
        let keys: Vec<String> = members.into_keys().collect();
        found.push(format!("{level} {event}: {}", keys.join(" ")));
    }
    let expected = [
        "info starting: config version",
        "info listening: listen",
        "info listening: metrics",
        "info ready: ",
        "info reloaded: log_level",
        "info reloaded: log_level needs_restart",
        "warn reload_failed: cause",
        "warn notify_failed: cause",
        "info draining: connections",
        "info drained: duration",
        "warn drain_incomplete: connections duration",
        "info server_claimed: binary_version remote server_id",
        "info server_id_conflict: remote server_id suppressed",
        "info server_reclaimed: phones remote server_id",
        "info server_released: server_id",
        "info server_expired: phones server_id",
        "info phone_registered: conn_id device_name remote server_id",
        "info phone_unregistered: cause conn_id device_name remote server_id",
        "info phone_refused: cause remote server_id suppressed",
        "warn envelope_rejected: cause server_id suppressed",
        "warn unknown_conn_id: conn_id server_id suppressed",
        "info connection_lost: cause conn_id server_id",
        "warn log_lines_lost: suppressed",
        "warn accept_failed: cause listen suppressed",
        "error scrape_failed: cause suppressed",
        "error metrics_thread_failed: cause",
    ];
    assert_eq!(found, expected);
    assert_eq!(captured(Layout::Text, all_events).lines().count(), expected.len());
}

#[test]
fn the_level_can_change_while_the_log_is_in_use() {
    let log = captured_at(Level::Warn, Layout::Text, |handle| {
        event::server_released("too-low");
        event::envelope_rejected("warn-passes", "malformed", 0);
        handle.set_level(Level::Info);
        event::server_released("info-passes");
        handle.clone().set_level(Level::Error);
        event::envelope_rejected("warn-too-low", "malformed", 0);
        event::metrics_thread_failed(&"error-passes");
    });
    let passed: Vec<bool> = ["too-low", "warn-passes", "info-passes", "warn-too-low", "error-passes"]
        .iter()
        .map(|part| log.contains(part))
        .collect();
    assert_eq!(passed, [false, true, true, false, true], "{log}");
    assert_eq!(log.lines().count(), 3);
}

#[test]
fn an_event_below_the_level_formats_nothing() {
    struct Counted<'a>(&'a Cell<u32>);
    impl Display for Counted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.set(self.0.get() + 1);
            f.write_str("c-01")
        }
    }
    let formatted = Cell::new(0);
    let log = captured_at(Level::Warn, Layout::Text, |_| {
        event::phone_registered("srv", Counted(&formatted), None, remote());
    });
    assert_eq!((log.as_str(), formatted.get()), ("", 0));
    for layout in [Layout::Text, Layout::Json] {
        captured(layout, || {
            event::phone_registered("srv", Counted(&formatted), None, remote());
        });
    }
    assert_eq!(formatted.get(), 2, "and one above it once, whatever the layout");
}

#[test]
fn events_of_libraries_stay_out() {
    let log = captured(Layout::Text, || {
        tracing::error!(target: "some_library", payload = "secret", "not in the catalogue");
        tracing::error!("not in the catalogue either");
        event::ready();
    });
    assert!(!log.contains("catalogue") && !log.contains("secret"), "{log}");
    assert_eq!(log.lines().count(), 1);
}

#[test]
fn names_are_read_and_written() {
    for level in Level::ALL {
        assert_eq!(level.as_str().parse(), Ok(level));
    }
    for format in Format::ALL {
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    assert!(Level::Error < Level::Debug);
    let error = "INFO".parse::<Level>().unwrap_err().to_string();
    assert_eq!(error, "allowed are error, warn, info, debug");
    let error = "syslog".parse::<Format>().unwrap_err().to_string();
    assert_eq!(error, "allowed are auto, journald, text, json");
}
