//! What the probe says where no TLS handshake comes to its end, for another reason than the certificate.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;
use std::time::Duration;

use pyrycode_relay::command::probe::{Deadlines, Plan, Target, execute};

use crate::certificates::{Authority, leaf};
use crate::forwarder::{
    Forwarder, config, config_for_known_clients, config_with, config_without_certificate,
};
use crate::support::relay::Relay;
use crate::{program, start, stderr, stdout};

/// Reads what the probe says first and answers with `bytes`.
fn answering(bytes: Vec<u8>) -> (String, thread::JoinHandle<()>) {
    let (url, server) = start(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        // All of it: an end of the connection with something unread would not be a clean one.
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[..2], [22, 3]);
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut hello).unwrap();
        assert!(hello.windows(8).any(|part| part == b"http/1.1"));
        stream.write_all(&bytes).unwrap();
    });
    (secured(&url), server)
}

fn secured(url: &str) -> String {
    url.replace("ws://", "wss://")
}

fn probed(url: &str) -> Output {
    program(&[url, "--ca", Authority::new("Test CA").file().path().to_str().unwrap()])
}

fn assert_fails(output: &Output, parts: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(stdout(output).ends_with("FAIL tls\nverdict: failed\n"), "{}", stdout(output));
    for part in [": no TLS with "].iter().chain(parts) {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains('\u{1b}') && said.lines().count() == 1, "{said}");
}

#[test]
fn an_answer_without_tls_leads_to_ws() {
    for (bytes, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
            "it answers in HTTP without TLS; probe ws://",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n\x1b[2J", "it answers, but not in TLS; is it the right port"),
        (b"no", "it answers, but not in TLS"),
    ] {
        let (url, server) = answering(bytes.to_vec());
        assert_fails(&probed(&url), &[expected, &url.replace("wss://", "ws://")]);
        server.join().unwrap();
    }
}

#[test]
fn the_relay_s_own_listener_without_tls_leads_to_ws() {
    let relay = Relay::start();
    let output = probed(&format!("wss://{}", relay.address));
    assert_fails(&output, &["without TLS", &format!("ws://{}", relay.address)]);
    assert_eq!(program(&[&format!("ws://{}", relay.address), "--count", "1"]).status.code(), Some(0));
}

#[test]
fn a_listener_with_tls_leads_from_ws_to_wss() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Forwarder::new(nowhere, config(Authority::new("Test CA").issue(leaf())));
    let output = program(&[&format!("ws://{}", server.address)]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("answers with a TLS alert, so it expects TLS; probe wss://{}", server.address);
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn a_connection_that_ends_in_the_handshake_is_said_to() {
    for bytes in [&b""[..], &[22, 3]] {
        let (url, server) = answering(bytes.to_vec());
        assert_fails(
            &probed(&url),
            &["the connection ended in the middle of the handshake (connection closed)", "PROXY protocol"],
        );
        server.join().unwrap();
    }
}

#[test]
fn a_handshake_that_nobody_answers_has_a_deadline() {
    // Never accepted by the program, but by the kernel.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    let deadlines = Deadlines {
        connect: Duration::from_secs(5),
        step: Duration::from_millis(200),
        overall: Duration::from_secs(30),
    };
    let plan = Plan::new(Target::parse(&url).unwrap(), 1, 256).unwrap().with_deadlines(deadlines);
    let authority = Authority::new("Test CA").file();
    let failure = execute(&plan.with_ca(authority.path()).unwrap(), &mut |_| {}).failure.unwrap();
    assert_eq!(failure.step, "tls");
    assert_eq!(failure.message, "waited 200 ms in vain for the TLS handshake");
}

#[test]
fn every_alert_is_explained() {
    for (alert, parts) in [
        (
            40,
            &[
                "no certificate for an IP address (TLS alert handshake_failure)",
                "probe the relay by one of its tls.domains",
            ][..],
        ),
        (49, &["(TLS alert access_denied)", "waits for its first certificate from ACME"]),
        (112, &["(TLS alert unrecognized_name)", "tls.domains"]),
        (120, &["it offers no HTTP/1.1 (TLS alert no_application_protocol)"]),
        (70, &["neither TLS 1.2 nor TLS 1.3 (TLS alert protocol_version)"]),
        (116, &["wants a certificate of its clients (TLS alert certificate_required)"]),
        (80, &["it broke the handshake off with the TLS alert InternalError"]),
        (99, &["it broke the handshake off with the TLS alert 99; its log"]),
    ] {
        let (url, server) = answering(vec![21, 3, 3, 0, 2, 2, alert]);
        assert_fails(&probed(&url), parts);
        server.join().unwrap();
    }
}

#[test]
fn a_relay_that_has_no_certificate_yet_is_thought_of() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Forwarder::new(nowhere, config_without_certificate());
    assert_fails(
        &probed(&server.named()),
        &[
            "it has no certificate for the name localhost (TLS alert access_denied), or none yet",
            "the name must be one of the relay's tls.domains",
            "first certificate from ACME",
        ],
    );
}

#[test]
fn a_server_for_other_protocols_is_not_a_relay() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let identity = Authority::new("Test CA").issue(leaf());
    let server = Forwarder::new(nowhere, config_with(identity, rustls::ALL_VERSIONS, b"acme-tls/1"));
    let output = probed(&server.named());
    assert_fails(&output, &["it offers no HTTP/1.1 (TLS alert no_application_protocol)", "WebSocket needs"]);
    assert!(stdout(&output).starts_with("ok   connect          127.0.0.1:"), "{}", stdout(&output));
}

#[test]
fn a_server_that_wants_to_know_its_clients_is_not_a_relay() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let authority = Authority::new("Test CA");
    // In TLS 1.3 the handshake is over for the client before the server has seen that there is no certificate.
    for (version, step, expected) in [
        (
            &rustls::version::TLS12,
            "tls",
            "it wants a certificate of its clients (TLS alert certificate_required)",
        ),
        (
            &rustls::version::TLS13,
            "claim",
            "wants a certificate of its clients (TLS alert certificate_required)",
        ),
    ] {
        let server_config = config_for_known_clients(authority.issue(leaf()), authority.der(), version);
        let server = Forwarder::new(nowhere, server_config);
        let output = program(&[&server.url(), "--ca", authority.file().path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.starts_with(&format!("{step}: ")) && said.contains(expected), "{version:?}: {said}");
    }
}

#[test]
fn a_server_that_breaks_tls_is_shown_what_it_broke() {
    // A handshake record whose message has a kind that there is not.
    let (url, server) = answering(vec![22, 3, 3, 0, 4, 250, 0, 0, 0]);
    let output = probed(&url);
    assert_fails(&output, &["it does not speak TLS as it must ("]);
    assert!(!stderr(&output).contains("ws://"), "{}", stderr(&output));
    server.join().unwrap();
}
