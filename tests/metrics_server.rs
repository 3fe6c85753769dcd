//! The metrics page over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test, with its line"
)]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

#[path = "support/exposition.rs"]
mod exposition;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use pyrycode_relay::metrics::families::Families;
use pyrycode_relay::metrics::server::{MetricsServer, MetricsThread};
use pyrycode_relay::relay::observer::{Census, Counts, Direction, Observer};

/// No fact takes longer than this to show, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

struct Nobody;

impl Census for Nobody {
    fn count(&self) -> Counts {
        Counts::default()
    }
}

fn start() -> (Arc<Families>, MetricsThread) {
    start_with(Nobody)
}

fn start_with(census: impl Census) -> (Arc<Families>, MetricsThread) {
    let families = Arc::new(Families::new(Arc::new(census)).unwrap());
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let thread = server.start(Arc::clone(&families)).unwrap();
    (families, thread)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends `request` and returns everything up to the end of the connection.
fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// Status line, headers in lower case, body.
fn parts(answer: &str) -> (&str, String, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let (status, headers) = head.split_once("\r\n").expect("a head has headers");
    (status, headers.to_ascii_lowercase(), body)
}

/// Reads exactly one answer from a connection that stays open.
fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let head = String::from_utf8(answer).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
        .expect("an answer says how long it is");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn get_serves_the_figures_in_the_text_format() {
    let (families, thread) = start();
    families.frame_forwarded(Direction::PhoneToBinary, 5, Duration::from_micros(5));
    let answer = exchange(thread.local_addr(), request("GET", "/metrics").as_bytes());
    let (status, headers, body) = parts(&answer);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains("content-type: text/plain; version=0.0.4"), "{headers}");
    let samples = exposition::samples(body);
    assert_eq!(samples["pyrycode_relay_frames_forwarded_total{direction=\"phone_to_binary\"}"], 1.0);
}

#[test]
fn head_serves_the_same_head_without_a_body() {
    let (_, thread) = start();
    let answer = exchange(thread.local_addr(), request("HEAD", "/metrics").as_bytes());
    let (status, headers, body) = parts(&answer);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains("content-type: text/plain; version=0.0.4"), "{headers}");
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    assert!(length.is_some_and(|length| length.parse::<usize>().unwrap() > 1000), "{headers}");
    assert_eq!(body, "");
}

#[test]
fn another_path_is_not_found() {
    let (_, thread) = start();
    for path in ["/", "/metrics/", "/healthz", "/v1/server"] {
        let answer = exchange(thread.local_addr(), request("GET", path).as_bytes());
        let (status, _, body) = parts(&answer);
        assert_eq!(status, "HTTP/1.1 404 Not Found", "{path}");
        assert_eq!(body.lines().count(), 1, "{body}");
    }
    let answer = exchange(thread.local_addr(), request("GET", "/metrics?name=x").as_bytes());
    assert_eq!(parts(&answer).0, "HTTP/1.1 200 OK", "a query is ignored");
}

#[test]
fn another_method_is_not_allowed() {
    let (_, thread) = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = exchange(thread.local_addr(), request(method, "/metrics").as_bytes());
        let (status, headers, body) = parts(&answer);
        assert_eq!(status, "HTTP/1.1 405 Method Not Allowed", "{method}");
        assert!(headers.contains("allow: get, head"), "{headers}");
        assert_eq!(body.lines().count(), 1, "{body}");
    }
}

#[test]
fn a_connection_is_kept_alive() {
    let (_, thread) = start();
    let mut stream = connect(thread.local_addr());
    for _ in 0..3 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        let (status, _, body) = parts(&answer);
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(!exposition::samples(body).is_empty());
    }
}

#[test]
fn a_hundred_scrapes_at_once_are_all_answered() {
    const SCRAPES: usize = 100;
    let (_, thread) = start();
    let addr = thread.local_addr();
    let together = Barrier::new(SCRAPES);
    let answered = thread::scope(|scope| {
        let scrapes: Vec<_> = (0..SCRAPES)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    exchange(addr, request("GET", "/metrics").as_bytes())
                })
            })
            .collect();
        scrapes.into_iter().map(|scrape| scrape.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answered.len(), SCRAPES);
    for answer in answered {
        let (status, _, body) = parts(&answer);
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(body.ends_with('\n') && exposition::families(body).len() > 15);
    }
}

#[test]
fn garbage_is_refused_and_costs_nothing_else() {
    let (_, thread) = start();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n"[..], b"\r\n\r\nGET\r\n\r\n"]
    {
        let mut stream = connect(thread.local_addr());
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        // The peer may also be cut off with a reset, because its garbage was not read to the end.
        match stream.read_to_end(&mut answer) {
            Ok(_) => assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    let answer = exchange(thread.local_addr(), request("GET", "/metrics").as_bytes());
    assert_eq!(parts(&answer).0, "HTTP/1.1 200 OK");
    assert!(thread.is_running());
}

#[test]
fn a_request_head_that_is_too_large_is_refused() {
    let (_, thread) = start();
    let mut stream = connect(thread.local_addr());
    let head = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-pad: {}\r\n\r\n", "x".repeat(40_000));
    // The server may close before it has read everything.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(read.is_err() || answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    assert!(thread.answers(DEADLINE));
}

#[test]
fn idle_connections_up_to_the_limit_do_not_shut_others_out_for_good() {
    let (_, thread) = start();
    let idle: Vec<TcpStream> = (0..32).map(|_| connect(thread.local_addr())).collect();
    let began = Instant::now();
    assert!(thread.answers(DEADLINE), "the idle ones lose their places after 10 s");
    assert!(began.elapsed() < DEADLINE);
    drop(idle);
}

#[test]
fn a_panic_while_collecting_costs_one_scrape() {
    struct PanicsOnce(AtomicBool);
    impl Census for PanicsOnce {
        fn count(&self) -> Counts {
            assert!(self.0.swap(true, Ordering::Relaxed), "the first count panics, on purpose");
            Counts { connected_phones: 4, ..Counts::default() }
        }
    }
    let (_, thread) = start_with(PanicsOnce(AtomicBool::new(false)));
    let first = exchange(thread.local_addr(), request("GET", "/metrics").as_bytes());
    assert_eq!(parts(&first).0, "HTTP/1.1 500 Internal Server Error");
    let second = exchange(thread.local_addr(), request("GET", "/metrics").as_bytes());
    assert_eq!(parts(&second).0, "HTTP/1.1 200 OK");
    assert_eq!(exposition::samples(parts(&second).2)["pyrycode_relay_connected_phones"], 4.0);
}

#[test]
fn it_answers_from_the_start_and_only_while_it_runs() {
    let (families, thread) = start();
    assert!(thread.answers(DEADLINE));
    assert!(!thread.answers(Duration::ZERO), "no time, no answer");
    drop(families);
    assert!(thread.answers(DEADLINE), "the thread keeps its own hold on the families");
}

#[test]
fn stop_ends_the_thread_and_closes_everything() {
    let (_, thread) = start();
    let addr = thread.local_addr();
    let mut kept_alive = connect(addr);
    kept_alive.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(parts(&read_answer(&mut kept_alive)).0, "HTTP/1.1 200 OK");

    let began = Instant::now();
    thread.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "stopping waits for nobody");
    assert_eq!(kept_alive.read(&mut [0]).unwrap_or(0), 0, "an open connection is closed");
    let again = TcpListener::bind(addr);
    assert!(again.is_ok(), "the address is free again: {again:?}");
}

#[test]
fn only_loopback_is_bound() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9100", "[::ffff:127.0.0.1]:0"] {
        let refused = MetricsServer::bind(addr.parse().unwrap());
        let error = refused.expect_err(addr);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{addr}");
        assert!(error.to_string().contains("127.0.0.0/8"), "{error}");
    }
    let passed = TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(MetricsServer::from_listener(passed).is_err(), "a passed socket is held to the same rule");
    assert!(MetricsServer::bind("127.0.0.7:0".parse().unwrap()).is_ok(), "all of 127.0.0.0/8 is loopback");
}

#[test]
fn an_address_in_use_is_an_error_at_bind() {
    let (_, thread) = start();
    let error = MetricsServer::bind(thread.local_addr()).expect_err("the address is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(thread.answers(DEADLINE), "the first one is not disturbed");
}
