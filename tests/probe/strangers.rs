//! What the probe says of an answer that is no upgrade, or no HTTP, or none.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use pyrycode_relay::command::probe::{Deadlines, Plan, Target, execute};

use crate::{probe, start};

/// Answers the first request with `parts`, each written and sent apart.
fn answering(parts: &'static [&'static str]) -> (String, thread::JoinHandle<()>) {
    start(move |listener| answer(listener, parts))
}

/// The same on this listener.
pub(crate) fn answer(listener: &TcpListener, parts: &[&str]) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    for part in parts {
        stream.write_all(part.as_bytes()).unwrap();
    }
}

#[test]
fn an_http_refusal_is_shown_and_explained() {
    for (parts, expected) in [
        (
            &["HTTP/1.1 400 Bad Request\r\nContent-Length: 27\r\n\r\n", "missing x-pyrycode-server\r\n"][..],
            &["HTTP status 400 \"missing x-pyrycode-server\": ", "a header that the protocol requires"][..],
        ),
        (
            &["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"],
            &["/v2/server was answered with HTTP status 403: ", "access list"],
        ),
        (
            &["HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\n", "draining"],
            &["HTTP status 503 \"draining\" (Retry-After: 7): ", "shutting down or has no free place"],
        ),
        (
            &["HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\n\r\n"],
            &["HTTP status 429 (Retry-After: 2): ", "too many connections"],
        ),
        (
            &["HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwho\r\n0\r\n\r\n"],
            &["HTTP status 404 \"who\": ", "not a relay"],
        ),
        (
            &["HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n"],
            &["HTTP status 421: the relay's tls.domains does not have this host name", "one of them"],
        ),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], &["HTTP status 200: ", "not a relay"]),
    ] {
        let (url, server) = answering(parts);
        let (report, lines) = probe(&url, Duration::from_secs(10));
        let failure = report.failure.unwrap();
        assert_eq!(failure.step, "claim");
        for part in expected {
            assert!(failure.message.contains(part), "{part:?} is not in: {}", failure.message);
        }
        assert_eq!(lines.len(), 1, "{lines:?}");
        server.join().unwrap();
    }
}

#[test]
fn what_does_not_speak_http_is_named_as_such() {
    for (parts, expected) in [
        (&["SSH-2.0-OpenSSH_9.9\r\n\u{1b}[2J"][..], "answers, but not in HTTP/1.1"),
        (&[], "ended the connection instead of answering"),
    ] {
        let (url, server) = answering(parts);
        let (report, _) = probe(&url, Duration::from_secs(10));
        let failure = report.failure.unwrap();
        assert_eq!(failure.step, "claim");
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert!(failure.message.contains("is it a relay's plain WebSocket listener"), "{}", failure.message);
        server.join().unwrap();
    }
}

#[test]
fn a_listener_that_expects_tls_is_named_as_such() {
    for (parts, expected) in [
        (
            &["\u{15}\u{3}\u{1}\0\u{2}\u{2}F"][..],
            "answers with a TLS alert, so it expects TLS; probe wss://127.0.0.1:",
        ),
        (&["\u{15}", "\u{3}\u{3}\0\u{2}\u{2}2"], "answers with a TLS alert, so it expects TLS"),
        (
            &[
                "HTTP/1.1 400 Bad Request\r\nContent-Length: 88\r\n\r\n<html>\r\n",
                "<title>400 The plain HTTP request was sent to HTTPS port</title>\r\n",
            ],
            "HTTP status 400 \"<html>\": this port expects TLS; probe it with wss://",
        ),
        (
            &["HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"],
            "some servers that expect TLS answer so: then probe wss://",
        ),
    ] {
        let (url, server) = answering(parts);
        let (report, lines) = probe(&url, Duration::from_secs(10));
        let failure = report.failure.unwrap();
        assert_eq!((failure.step, lines.len()), ("claim", 1));
        assert!(failure.message.contains(expected), "{}", failure.message);
        server.join().unwrap();
    }
}

#[test]
fn an_answer_in_http_1_0_is_shown_with_its_status() {
    for (parts, status) in [
        (&["HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6\r\n\r\n<!DOCTYPE HTML>"][..], "404"),
        (&["HTTP/1", ".0 50", "1 Unsupported\r\n", "\r\n"], "501"),
        (&["HTTP/1.0 200 OK\r\n"], "200"),
    ] {
        let (url, server) = answering(parts);
        let (report, _) = probe(&url, Duration::from_secs(10));
        let failure = report.failure.unwrap();
        assert_eq!(failure.step, "claim");
        let expected =
            format!("/v2/server was answered in HTTP/1.0, with status {status}; a relay answers in");
        assert!(failure.message.contains(&expected), "{}", failure.message);
        assert!(!failure.message.contains("TLS"), "{}", failure.message);
        server.join().unwrap();
    }
}

#[test]
fn what_takes_the_connection_and_says_nothing_is_not_waited_for_for_ever() {
    // Never accepted by the program, but by the kernel.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (report, lines) = probe(&url, Duration::from_millis(200));
    let failure = report.failure.unwrap();
    assert_eq!((failure.step, lines.len()), ("claim", 1));
    assert!(failure.message.contains("waited 200 ms in vain for 127.0.0.1"), "{}", failure.message);

    let deadlines = Deadlines {
        connect: Duration::from_secs(5),
        step: Duration::from_secs(60),
        overall: Duration::from_millis(200),
    };
    let plan = Plan::new(Target::parse(&url).unwrap(), 1, 256).unwrap().with_deadlines(deadlines);
    let failure = execute(&plan, &mut |_| {}).failure.unwrap();
    assert!(failure.message.contains("the whole probe took longer than 200 ms"), "{}", failure.message);
}
