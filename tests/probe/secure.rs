//! The probe through TLS: relays whose certificates are good, and relays whose certificates are not.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use pyrycode_relay::command::probe::{Deadlines, Plan, Report, Target, execute};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::NamedTempFile;

use crate::certificates::{Authority, Identity, authority_named, leaf, leaf_for, self_signed, valid};
use crate::forwarder::{Forwarder, Manners, config, config_with};
use crate::script::{COUNT, Fault};
use crate::support::relay::Relay;
use crate::{abandon, program, relay, start, stderr, stdout};

/// Probes with these certificates within deadlines that a failing test can wait for.
pub(crate) fn probe(url: &str, ca: &Path) -> (Report, Vec<String>) {
    let deadlines = Deadlines {
        connect: Duration::from_secs(5),
        step: Duration::from_secs(10),
        overall: Duration::from_secs(30),
    };
    let plan = Plan::new(Target::parse(url).unwrap(), COUNT, 256).unwrap().with_deadlines(deadlines);
    let mut lines = Vec::new();
    let report = execute(&plan.with_ca(ca).unwrap(), &mut |line| lines.push(line.to_owned()));
    (report, lines)
}

pub(crate) fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("ws://").parse().unwrap()
}

pub(crate) fn text(path: &NamedTempFile) -> &str {
    path.path().to_str().unwrap()
}

/// A server that shows `identity` and has nothing behind it.
fn showing(identity: Identity) -> Forwarder {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Forwarder::new(nowhere, config(identity))
}

/// The program says that there is no TLS, and why, in one line.
pub(crate) fn assert_untrusted(output: &Output, parts: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(stdout(output).ends_with("FAIL tls\nverdict: failed\n"), "{}", stdout(output));
    for part in [": no TLS with "].iter().chain(parts) {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// The same of a server that shows `identity`, where `ca` is trusted.
pub(crate) fn assert_refused(identity: Identity, ca: &NamedTempFile, parts: &[&str]) {
    let server = showing(identity);
    assert_untrusted(&program(&[&server.named(), "--ca", text(ca)]), parts);
}

#[test]
fn the_relay_passes_behind_tls() {
    let (relay, authority) = (Relay::start(), Authority::new("Test CA"));
    let server = Forwarder::new(relay.address, config(authority.issue(leaf())));
    for url in [server.url(), server.named()] {
        let output = program(&[&url, "--ca", text(&authority.file()), "--count", "20"]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        let said = stdout(&output);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("ok   connect          127.0.0.1:"), "{said}");
        let tls = "ok   tls              TLSv1.3, certificate for localhost, 127.0.0.1, valid until 20";
        assert!(lines[1].starts_with(tls) && lines[1].ends_with(" (90 days)"), "{said}");
        assert!(said.contains("20 frames of 256 B each way, bytes verified\n"), "{said}");
        assert!(said.ends_with("verdict: the relay works\n"), "{said}");
    }
    assert_eq!(relay.events_named("server_claimed").len(), 2);
}

#[test]
fn the_relay_passes_behind_tls_with_large_frames() {
    let (relay, authority) = (Relay::start(), Authority::new("Test CA"));
    let server = Forwarder::new(relay.address, config(authority.issue(leaf())));
    let output =
        program(&[&server.url(), "--ca", text(&authority.file()), "--count", "5", "--size", "262144"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("5 frames of 262144 B each way"), "{}", stdout(&output));
}

#[test]
fn the_session_is_in_the_json() {
    let (url, script) = relay(None);
    let authority = Authority::new("Test CA");
    let server = Forwarder::new(address(&url), config(authority.issue(leaf())));
    let output = program(&[&server.url(), "--ca", text(&authority.file()), "--count", "5", "--json"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["url"], &json["verdict"]), (&server.url().into(), &"ok".into()));
    let tls = &json["tls"];
    assert_eq!((&tls["version"], &tls["certificate_days_left"]), (&"TLSv1.3".into(), &90.into()));
    assert_eq!(tls["certificate_names"], serde_json::json!(["localhost", "127.0.0.1"]));
    let until = tls["certificate_valid_until"].as_str().unwrap();
    assert!(until.len() == 20 && until.starts_with("20") && until.ends_with('Z'), "{until}");
    script.join().unwrap().unwrap();

    let server = showing(self_signed(leaf()));
    let output = program(&[&server.url(), "--ca", text(&authority.file()), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["tls"]), (Some(1), &serde_json::Value::Null));
    assert_eq!((&json["verdict"], &json["failure"]["step"]), (&"failed".into(), &"tls".into()));
}

#[test]
fn tls_1_2_will_do() {
    let (url, script) = relay(None);
    let authority = Authority::new("Test CA");
    let only_1_2 = config_with(authority.issue(leaf()), &[&rustls::version::TLS12], b"http/1.1");
    let server = Forwarder::new(address(&url), only_1_2);
    let (report, lines) = probe(&server.named(), authority.file().path());
    assert_eq!(report.failure, None);
    assert_eq!(report.tls.unwrap().version, "TLSv1.2");
    assert!(lines[1].starts_with("ok   tls              TLSv1.2, certificate for localhost"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("ok ")).count(), 8, "{lines:?}");
    script.join().unwrap().unwrap();
}

#[test]
fn a_certificate_that_expired_is_said_with_its_date() {
    let authority = Authority::new("Test CA");
    let expired = authority.issue(valid(leaf(), -90, -3));
    assert_refused(
        expired,
        &authority.file(),
        &["its certificate expired on 20", " UTC (2 days ago): the relay needs a new one", "clock says 20"],
    );
}

#[test]
fn a_certificate_of_the_chain_that_expired_is_told_from_the_relay_s_own() {
    let authority = Authority::new("Test CA");
    let below = authority.intermediate(valid(authority_named("Old Intermediate"), -90, -3));
    assert_refused(
        below.issue(leaf()),
        &authority.file(),
        &[
            "the certificate of \"Old Intermediate\" in its chain expired on 20",
            "the chain that its authority",
        ],
    );
}

#[test]
fn a_certificate_that_is_not_valid_yet_makes_the_clock_suspect() {
    let authority = Authority::new("Test CA");
    let early = authority.issue(valid(leaf(), 2, 90));
    assert_refused(
        early,
        &authority.file(),
        &[
            "its certificate is not valid before 20",
            "(in 2 days); this host's clock says 20",
            "Set the clock if it is wrong",
        ],
    );
}

#[test]
fn a_certificate_for_other_names_is_said_with_them() {
    let authority = Authority::new("Test CA");
    let names = ["relay.example.com", "*.example.org", "192.0.2.7"];
    assert_refused(
        authority.issue(leaf_for(&names)),
        &authority.file(),
        &[
            "its certificate is for relay.example.com, *.example.org, 192.0.2.7, not for localhost",
            "probe it by a name that it has",
        ],
    );
    let server = showing(authority.issue(leaf_for(&["localhost"])));
    let output = program(&[&server.url(), "--ca", text(&authority.file())]);
    assert_untrusted(&output, &["its certificate is for localhost, not for 127.0.0.1"]);
    assert_refused(
        authority.issue(leaf_for(&[])),
        &authority.file(),
        &["its certificate names no host", "a common name does not count", "one for localhost"],
    );
}

#[test]
fn names_of_a_certificate_reach_the_terminal_filtered() {
    let authority = Authority::new("Test CA");
    let mut parameters = leaf_for(&["relay.example.com"]);
    let strange = "\u{1b}[2J.example.com".try_into().unwrap();
    parameters.subject_alt_names.push(rcgen::SanType::DnsName(strange));
    let server = showing(authority.issue(parameters));
    let output = program(&[&server.named(), "--ca", text(&authority.file())]);
    assert_untrusted(&output, &[]);
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

#[test]
fn an_issuer_that_is_not_in_the_file_is_named() {
    let (trusted, other) = (Authority::new("Test CA"), Authority::new("Another CA"));
    let below = other.intermediate(authority_named("Its Intermediate"));
    assert_refused(
        below.issue(leaf()),
        &trusted.file(),
        &[
            "its chain of 2 certificates ends with one issued by \"Another CA\", which is not in \"",
            "\" (--ca). If it is an authority of your own, name the file of its certificate",
        ],
    );
}

#[test]
fn a_chain_that_lacks_its_intermediate_is_called_incomplete() {
    let authority = Authority::new("Test CA");
    let below = authority.intermediate(authority_named("Its Intermediate"));
    let mut identity = below.issue(leaf());
    identity.chain.truncate(1);
    assert_refused(
        identity,
        &authority.file(),
        &[
            "its certificate was issued by \"Its Intermediate\", which is not in \"",
            "The relay sent no other certificate, so its chain may be incomplete",
            "give the relay the whole chain (a fullchain.pem)",
        ],
    );
    let mut identity = below.issue(leaf());
    identity.chain[1] = Authority::new("Unrelated CA").der().clone();
    assert_refused(
        identity,
        &authority.file(),
        &[
            "issued by \"Its Intermediate\"",
            "None of the other certificates that the relay sent is that authority's",
        ],
    );
    // Nothing else was wrong with it.
    let (url, script) = relay(None);
    let server = Forwarder::new(address(&url), config(below.issue(leaf())));
    assert_eq!(probe(&server.url(), authority.file().path()).0.failure, None);
    script.join().unwrap().unwrap();
}

#[test]
fn an_authority_s_certificate_is_not_a_relay_s() {
    let authority = Authority::new("Test CA");
    assert_refused(
        authority.identity(),
        &authority.file(),
        &[
            "it shows the certificate of an authority (CA:TRUE) as its own, that of \"Test CA\"",
            "basicConstraints=critical,CA:FALSE",
        ],
    );
}

#[test]
fn a_signature_by_another_key_is_told_from_an_unknown_issuer() {
    let (old, new) = (Authority::new("Test CA"), Authority::new("Test CA"));
    assert_refused(
        new.issue(leaf()),
        &old.file(),
        &["its certificate is not signed by the key that \"", "(--ca) has for \"Test CA\"", "made anew"],
    );
}

#[test]
fn a_relay_without_the_key_of_its_certificate_is_found() {
    let authority = Authority::new("Test CA");
    let key = authority.issue(leaf()).key;
    let identity = Identity { key, ..authority.issue(leaf()) };
    assert_refused(
        identity,
        &authority.file(),
        &["it does not have the key of the certificate that it shows", "that belong together"],
    );
}

#[test]
fn a_certificate_for_clients_is_not_for_a_relay() {
    let authority = Authority::new("Test CA");
    let mut parameters = leaf();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_refused(
        authority.issue(parameters),
        &authority.file(),
        &["its certificate is for client authentication only", "extendedKeyUsage serverAuth"],
    );
}

#[test]
fn what_goes_wrong_inside_tls_is_said_as_without_it() {
    let authority = Authority::new("Test CA");
    let (url, script) = relay(Some(Fault::ByteChanged));
    let server = Forwarder::new(address(&url), config(authority.issue(leaf())));
    let failure = probe(&server.url(), authority.file().path()).0.failure.unwrap();
    assert_eq!(failure.step, "round trips");
    assert!(failure.message.contains("at the phone, is not what it must be"), "{}", failure.message);
    abandon(&url);
    drop(script.join().unwrap());
}

#[test]
fn the_rest_of_a_refusal_is_read_through_tls() {
    let authority = Authority::new("Test CA");
    for manners in [Manners::Polite, Manners::Rude] {
        let (url, answers) = start(|listener| {
            crate::strangers::answer(
                listener,
                &[
                    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\n",
                    "draining",
                ],
            );
        });
        let server = Forwarder::with(address(&url), config(authority.issue(leaf())), manners);
        let (report, lines) = probe(&server.url(), authority.file().path());
        let failure = report.failure.unwrap();
        assert_eq!((failure.step, lines.len()), ("claim", 2));
        let expected = "HTTP status 503 \"draining\" (Retry-After: 7): ";
        assert!(failure.message.contains(expected), "{}", failure.message);
        answers.join().unwrap();
    }
}

#[test]
fn an_end_inside_tls_is_an_end_with_or_without_its_notice() {
    let authority = Authority::new("Test CA");
    for manners in [Manners::Polite, Manners::Rude] {
        let (url, answers) = start(|listener| crate::strangers::answer(listener, &[]));
        let server = Forwarder::with(address(&url), config(authority.issue(leaf())), manners);
        let failure = probe(&server.url(), authority.file().path()).0.failure.unwrap();
        assert_eq!(failure.step, "claim");
        let expected = "ended the connection instead of answering an HTTP request, in TLS; is it a relay's";
        assert!(failure.message.contains(expected), "{manners:?}: {}", failure.message);
        answers.join().unwrap();

        let (url, drops) = start(|listener| drop(crate::script::upgraded(listener)));
        let server = Forwarder::with(address(&url), config(authority.issue(leaf())), manners);
        let failure = probe(&server.url(), authority.file().path()).0.failure.unwrap();
        assert_eq!(failure.step, "claim");
        let expected =
            "while the answer to its first ping was due: the relay dropped it without a close frame";
        assert!(failure.message.contains(expected), "{manners:?}: {}", failure.message);
        drops.join().unwrap();
    }
}
