//! The probe against relays that do what they must, and against relays that do not.
//!
//! Each relay here is a script on a thread of its own; one that the probe abandons sees its connections end, and ends.
//! Those in `built` are the program itself; those in `secure`, `trust` and `handshakes` are spoken to
//! through TLS.

// A helper that fails is a test that fails, with its line.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use pyrycode_relay::command::probe::{Deadlines, Failure, Plan, Report, SMALLEST_FRAME, Target, execute};

mod built;
mod certificates;
mod forwarder;
mod handshakes;
mod script;
mod secure;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod trust;

use script::{COUNT, Done, Fault, Script};

/// Starts `serve` on a port of its own and returns its URL. The thread must have ended well when it is joined.
fn start<T: Send + 'static>(
    serve: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (String, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (url, thread::spawn(move || serve(&listener)))
}

fn relay(fault: Option<Fault>) -> (String, thread::JoinHandle<Done<()>>) {
    start(move |listener| Script { fault }.play(listener))
}

/// Probes within deadlines that a failing test can wait for.
fn probe(url: &str, step: Duration) -> (Report, Vec<String>) {
    let deadlines = Deadlines { connect: Duration::from_secs(5), step, overall: Duration::from_secs(30) };
    let plan = Plan::new(Target::parse(url).unwrap(), COUNT, 256).unwrap().with_deadlines(deadlines);
    let mut lines = Vec::new();
    let report = execute(&plan, &mut |line| lines.push(line.to_owned()));
    (report, lines)
}

/// Wakes a script that still waits for a connection which the probe, having failed, will not make.
fn abandon(url: &str) {
    drop(TcpStream::connect(url.trim_start_matches("ws://")));
}

/// What the probe says of a relay with this fault. The step deadline is long where something must come, and short
/// where the fault is that nothing does.
fn failure_of(fault: Fault) -> (Failure, Report) {
    let silent = matches!(fault, Fault::Silence | Fault::NoNotice | Fault::NoticeAlone | Fault::KeptOpen);
    let (url, script) = relay(Some(fault));
    let (report, _) = probe(&url, if silent { Duration::from_secs(1) } else { Duration::from_secs(10) });
    abandon(&url);
    // The script must not have found fault with the probe; that the probe hung up on it is expected.
    drop(script.join().unwrap());
    (report.failure.clone().unwrap(), report)
}

fn assert_failure(fault: Fault, step: &str, parts: &[&str]) {
    let (failure, report) = failure_of(fault);
    assert_eq!(failure.step, step, "{fault:?}: {}", failure.message);
    for part in parts {
        assert!(failure.message.contains(part), "{fault:?}: {part:?} is not in: {}", failure.message);
    }
    assert!(report.frames_received <= report.frames_sent, "{fault:?}");
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pyrycode-relay")).arg("probe").args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_relay_that_works_passes() {
    let (url, script) = relay(None);
    let (report, lines) = probe(&url, Duration::from_secs(10));
    assert_eq!(report.failure, None);
    assert_eq!(
        (report.frames_sent, report.frames_received),
        (u64::from(2 * COUNT + 2), u64::from(2 * COUNT + 2))
    );
    assert_eq!(report.round_trips.len(), 5);
    assert_eq!(lines.iter().filter(|line| line.starts_with("ok ")).count(), 7, "{lines:?}");
    script.join().unwrap().unwrap();
}

#[test]
fn the_program_says_so_line_by_line() {
    let (url, script) = relay(None);
    let output = program(&[&url, "--count", "5"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("ok   claim            probe-"), "{text}");
    assert!(text.contains("5 frames of 256 B each way, bytes verified\n"), "{text}");
    assert!(text.contains("p50 ") && text.contains("p99 ") && text.contains("max "), "{text}");
    assert!(text.ends_with("verdict: the relay works\n"), "{text}");
    assert_eq!(stderr(&output), "");
    script.join().unwrap().unwrap();
}

#[test]
fn the_program_says_so_as_json() {
    let (url, script) = relay(None);
    let output = program(&[&url, "--count", "5", "--size", "262144", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["url"], url.as_str());
    assert_eq!((&json["count"], &json["size"]), (&5.into(), &262_144.into()));
    assert_eq!((&json["verdict"], &json["failure"]), (&"ok".into(), &serde_json::Value::Null));
    assert_eq!((&json["frames_sent"], &json["frames_received"]), (&12.into(), &12.into()));
    let micros = |name: &str| json["round_trip_us"][name].as_u64().unwrap();
    assert!(0 < micros("p50") && micros("p50") <= micros("p99") && micros("p99") <= micros("max"));
    assert_eq!(stdout(&output).lines().count(), 1);
    script.join().unwrap().unwrap();
}

#[test]
fn a_failure_is_in_the_json_and_in_the_exit_status() {
    let (url, script) = relay(Some(Fault::ByteChanged));
    let output = program(&[&url, "--count", "5", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["verdict"], &json["failure"]["step"]), (&"failed".into(), &"round trips".into()));
    assert_eq!((&json["frames_sent"], &json["frames_received"]), (&6.into(), &5.into()));
    assert!(json["round_trip_us"]["max"].is_u64());
    let message = json["failure"]["message"].as_str().unwrap();
    assert!(stderr(&output).contains(&format!("round trips: {message}")), "{}", stderr(&output));
    abandon(&url);
    drop(script.join().unwrap());

    let (url, script) = relay(Some(Fault::GoodbyeCode));
    let output = program(&[&url, "--count", "5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).ends_with("FAIL goodbye\nverdict: failed\n"), "{}", stdout(&output));
    drop(script.join().unwrap());
}

#[test]
fn a_changed_byte_is_found_and_shown() {
    assert_failure(
        Fault::ByteChanged,
        "round trips",
        &[
            "at the phone, is not what it must be",
            r#"expected 'p","e""#,
            r#"received 'q","e""#,
            "(256 bytes in all)",
        ],
    );
}

#[test]
fn re_encoding_is_found() {
    assert_failure(
        Fault::ReEncoded,
        "round trips",
        &["at the binary, is not what it must be", "expected ' "],
    );
}

#[test]
fn a_binary_message_is_refused() {
    assert_failure(Fault::SentAsBinary, "round trips", &["a binary message (256 bytes)", "only text"]);
}

#[test]
fn the_conn_id_must_have_its_form_and_keep_it() {
    assert_failure(Fault::ConnIdForm, "round trips", &["16 hex digits", "c-0123"]);
    assert_failure(Fault::ConnIdChanges, "round trips", &["expected 'a1", "received 'cc"]);
    assert_failure(Fault::ConnIdReused, "close notice", &["conn_id of its own", "the first phone"]);
}

#[test]
fn the_close_directive_must_be_followed_to_the_letter() {
    assert_failure(
        Fault::DirectiveCode,
        "close directive",
        &["4999 without a reason", "received a close with 1000"],
    );
    assert_failure(Fault::DirectiveReason, "close directive", &["a close with 4999 \"bye\""]);
    assert_failure(
        Fault::SpeaksAfterClose,
        "close directive",
        &["expected nothing after the close", "phone"],
    );
    assert_failure(
        Fault::KeptOpen,
        "close directive",
        &["waited 1 s in vain for the end of the TCP connection"],
    );
}

#[test]
fn a_notice_of_a_close_that_the_binary_asked_for_is_found() {
    let (failure, report) = failure_of(Fault::ExtraNotice);
    // It is noticed wherever the probe is by the time it comes; that is never later than the close notice.
    assert!(["close directive", "close notice"].contains(&failure.step), "{failure:?}");
    assert!(
        failure.message.contains(r#"'{"conn_id":"c-00000000000000a1","close_code":4999}'"#),
        "{failure:?}"
    );
    assert_eq!(report.round_trips.len(), 5);
}

#[test]
fn the_close_notice_must_come_last_and_be_exact() {
    assert_failure(Fault::NoNotice, "close notice", &["waited 1 s in vain for the close notice"]);
    assert_failure(
        Fault::NoticeCode,
        "close notice",
        &["the close notice", "expected '4001}'", "received '1001}'"],
    );
    assert_failure(Fault::NoticeFirst, "close notice", &["the phone's frame in its envelope"]);
}

#[test]
fn a_close_after_the_upgrade_is_explained() {
    assert_failure(
        Fault::ClaimRefused,
        "claim",
        &["4409 \"server-id already claimed\"", "another binary holds this server-id"],
    );
    assert_failure(Fault::PhoneRefused, "phone", &["4404", "knows no binary with this server-id"]);
    assert_failure(Fault::GoodbyeCode, "goodbye", &["1000 without a reason", "received a close with 1001"]);
}

#[test]
fn a_close_on_the_other_connection_is_reported_instead_of_silence() {
    assert_failure(
        Fault::BinaryClosedMidway,
        "round trips",
        &["closed the binary's connection with 1011 \"heartbeat timeout\"", "its log says why"],
    );
    assert_failure(Fault::Silence, "round trips", &["waited 1 s in vain for the phone's frame"]);
}

#[test]
fn a_notice_in_place_of_a_frame_leads_to_the_phones_own_close() {
    // Whichever the probe sees first: the words are the same.
    let expected = "the relay closed the phone's connection with 1009 \"message too big\" while nothing was due: \
                    frames of 256 bytes (--size) are larger than the relay's session.max_frame allows";
    assert_failure(Fault::TooBig, "round trips", &[expected]);
    assert_failure(
        Fault::AnswerFails,
        "round trips",
        &["closed the phone's connection with 1011 \"phone write failed\"", "its log says why"],
    );
}

#[test]
fn a_notice_without_a_close_is_reported_with_its_code() {
    let (failure, report) = failure_of(Fault::NoticeAlone);
    assert_eq!((failure.step, report.frames_sent, report.frames_received), ("round trips", 1, 0));
    for part in [
        "told the binary that the phone was closed with 1009 (frames of 256 bytes",
        "session.max_frame",
        "on the phone's own connection: waited 1 s in vain for its close",
    ] {
        assert!(failure.message.contains(part), "{part:?} is not in: {}", failure.message);
    }
}

#[test]
fn nobody_there_is_said_with_the_address() {
    // Bound and given up again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = program(&[&format!("ws://{address}")]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("connect: cannot connect to {address}: connection refused; is the relay running");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    let drains = "(one that is shutting down refuses connections as well), and is this the address";
    assert!(stderr(&output).contains(drains), "{}", stderr(&output));
    assert_eq!(stdout(&output), "FAIL connect\nverdict: failed\n");
}

#[test]
fn a_password_is_not_shown() {
    for url in [
        "ws://user:secret@relay.example",
        "wss://user:secret@relay.example",
        "ws://user:sec/secret@relay.example",
        "user:secret@relay.example",
    ] {
        let output = program(&[url, "--json"]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(64), ""), "{url}");
        let text = stderr(&output);
        assert!(text.contains("…@relay.example\": "), "{text}");
        assert!(!text.contains("sec") && !text.contains("user:"), "{text}");
    }
    let output = program(&["ws://user:secret@relay.example"]);
    assert!(stderr(&output).contains("has no user name and no password"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_is_a_usage_error() {
    let too_small = (SMALLEST_FRAME - 1).to_string();
    for (arguments, expected) in [
        (vec!["relay.example:8080"], "examples: ws://127.0.0.1:8080"),
        (vec!["ws://relay.example/v1/server"], "no path"),
        (vec!["https://relay.example"], "with wss:// if it is to be reached through TLS"),
        (vec!["wss://relay..example"], "the host must be an address or a name that a certificate can have"),
        (vec!["ws://127.0.0.1:1", "--size", &too_small], "72 to 16777216 bytes"),
        (vec!["ws://127.0.0.1:1", "--size", "16777217", "--json"], "the relay's session.max_frame allows it"),
    ] {
        let output = program(&arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}
