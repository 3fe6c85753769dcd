//! What a running relay takes is no more than docs/sizing.md says, and not so much less that the page says nothing.
//!
//! The page's figures were measured with an optimized build. One that is not optimized takes as much: what it holds for a
//! connection is the same.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use pyrycode_relay::config::Config;
use support::client::{Client, frame, header, phone_headers, raw};
use support::held::Held;
use support::relay::Relay;
use support::secured::Secured;
use support::{connect_from, eventually};

const PAGE: &str = include_str!("../docs/sizing.md");
const KIB: f64 = 1024.0;

/// How long a relay on the same machine that does not read has to take nothing until it counts as waiting.
const QUIET: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
enum Form {
    Plain,
    Tls,
}

/// A figure of the page's table, in bytes if it has a unit.
fn figure(name: &str, form: Form) -> f64 {
    let row = PAGE.lines().find(|line| line.starts_with(&format!("| {name} | "))).expect("the figure's row");
    let column = match form {
        Form::Plain => 2,
        Form::Tls => 3,
    };
    size(row.split('|').nth(column).expect("its column"))
}

/// `5 KiB`, or a number without a unit.
fn size(text: &str) -> f64 {
    let (number, unit) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let unit = match unit {
        "" => 1.0,
        "KiB" => KIB,
        "MiB" => KIB * KIB,
        other => panic!("{other} is no unit"),
    };
    number.parse::<f64>().expect("a number") * unit
}

/// Growth since `before` kibibytes, in bytes.
fn grown(relay: &Relay, before: u64) -> f64 {
    relay.memory().saturating_sub(before) as f64 * KIB
}

/// Connects a few clients, so that what every process needs once is there; then `number` of them, of four a binary and
/// three phones, and has a frame go both ways between each pair. What that took for each.
fn cost_of_connections<C>(
    relay: &Relay,
    number: usize,
    connect: impl Fn(&str) -> (C, Vec<C>),
    exchange: impl Fn(&mut C, &mut C),
) -> f64 {
    let group = |prefix: &str, index: usize| {
        let (mut binary, mut phones) = connect(&format!("{prefix}-{index}-0123456789abcdef0123"));
        for phone in &mut phones {
            exchange(&mut binary, phone);
        }
        (binary, phones)
    };
    let first: Vec<_> = (0..20).map(|index| group("first", index)).collect();
    let before = relay.memory();
    let others: Vec<_> = (0..number / 4).map(|index| group("other", index)).collect();
    let cost = grown(relay, before) / number as f64;
    drop((first, others));
    cost
}

/// A frame to the binary and one back.
fn exchange<S: Read + Write>(binary: &mut Client<S>, phone: &mut Client<S>) {
    let conn_id = {
        phone.send(format!("\"{}\"", "x".repeat(254)));
        binary.json()["conn_id"].as_str().expect("a conn_id").to_owned()
    };
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"{}\"}}", "y".repeat(254)));
    phone.text();
}

/// The resident size is counted in pages and in what the allocator fetched ahead.
const SLACK: f64 = 1.1;

/// `measured` is within what the page says, and is a good part of it.
fn within(what: &str, measured: f64, page: f64) {
    println!("{what}: {measured:.2} measured, {page:.2} on the page");
    assert!(measured <= page * SLACK, "{what}: {measured:.2} measured, {page:.2} on the page");
    assert!(measured >= page / 3.0, "{what}: {page:.2} on the page is far beyond the {measured:.2} measured");
}

#[test]
fn a_relay_that_has_just_started_takes_no_more_than_the_base() {
    let relay = Relay::start();
    // A program that is not optimized is larger than all that it holds at its start: its own pages are left out then.
    let taken = if cfg!(debug_assertions) { relay.anonymous_memory() } else { relay.memory() };
    let (taken, base) = (taken as f64 * KIB, figure("base", Form::Plain));
    println!("base: {taken:.0} measured, {base:.0} on the page");
    assert!(taken > 0.0 && taken <= base, "{taken:.0} measured, {base:.0} on the page");
}

#[test]
fn a_connection_takes_what_the_page_says() {
    let relay = Relay::start();
    let connect = |server_id: &str| {
        (Client::binary(&relay, server_id), (0..3).map(|_| Client::phone(&relay, server_id)).collect())
    };
    let cost = cost_of_connections(&relay, 800, connect, exchange);
    within("a connection", cost, figure("connection", Form::Plain));
}

#[test]
fn a_connection_with_tls_takes_what_the_page_says() {
    let secured = Secured::start();
    let connect =
        |server_id: &str| (secured.binary(server_id), (0..3).map(|_| secured.phone(server_id)).collect());
    let cost = cost_of_connections(&secured.relay, 400, connect, exchange);
    within("a connection with TLS", cost, figure("connection", Form::Tls));
}

#[test]
fn a_handshake_takes_what_the_page_says() {
    const NUMBER: usize = 400;
    let relay = Relay::with("[limits]\nhandshake_timeout = \"60s\"\n");
    let head = format!("GET /v2/server HTTP/1.1\r\nHost: relay\r\nX-Filler: {}", "a".repeat(15_000));
    let before = relay.memory();
    let _slow: Vec<_> = (0..NUMBER)
        .map(|_| {
            let mut stream = connect_from(Ipv4Addr::LOCALHOST, relay.address);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    has_read(&relay);
    let cost = grown(&relay, before) / NUMBER as f64;
    within("a handshake", cost, figure("handshake", Form::Plain));
}

/// Waits until the relay has read everything that was sent to it: nothing is with the kernel for any of its connections.
fn has_read(relay: &Relay) {
    let port = format!(":{:04X}", relay.address.port());
    eventually("the relay to read", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let of_relay = rows.filter(|row| row[1].ends_with(&port) || row[2].ends_with(&port));
        let unread = of_relay.filter(|row| row[4] != "00000000:00000000").count();
        if unread == 0 { Ok(()) } else { Err(format!("{unread} connections have something left")) }
    });
}

#[test]
fn what_is_queued_takes_what_the_page_says() {
    // Half of each queue is filled, and all of them hold much beside what one connection costs.
    const QUEUED: f64 = 6.0 * KIB * KIB;
    for (length, name) in [(1, "queue, one byte"), (100, "queue"), (65_536, "queue")] {
        let relay = Relay::with(
            "[limits]\nphone_queue = \"16MiB\"\nbinary_queue = \"16MiB\"\nall_queues = \"16MiB\"\n",
        );
        let mut binary = Client::binary(&relay, "queues");
        let (mut phone, conn_id) = Held::phone_of(&relay, &mut binary, "queues");
        let before = relay.memory();
        let text = if length == 1 { "1".to_owned() } else { format!("\"{}\"", "y".repeat(length - 2)) };
        let message = frame(0x81, format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{text}}}").as_bytes());
        let many = message.repeat((512 * 1024 / (length + 64)).max(1));
        let queued = eventually("enough to be queued", || {
            binary.socket().write_all(&many).expect("sends");
            assert_eq!(binary.admitted(), Ok(()));
            let queued = relay.metrics().queued("client");
            if queued >= QUEUED { Ok(queued) } else { Err(queued.to_string()) }
        });
        let cost = grown(&relay, before) / queued;
        within(&format!("a queued byte, frames of {length} B"), cost, figure(name, Form::Plain));
        assert!(phone.socket().peer_addr().is_ok());
    }
}

/// The most that one connection may hold of what it is sending, at the default `session.max_frame`.
fn under_way() -> f64 {
    2.0 * 256.0 * KIB + figure("rest", Form::Plain)
}

#[test]
fn a_message_that_is_not_complete_takes_what_the_page_says() {
    const NUMBER: usize = 60;
    let relay = Relay::with("[limits]\nphones_per_server = 100\n");
    let headers = phone_headers("sends");
    let mut binary = Client::binary(&relay, "sends");
    let before = relay.memory();
    // A first fragment of nearly all, and the beginning of the last: the relay has joined the one and waits for the other.
    let begun = [frame(0x01, &vec![b'x'; 250_000]), header(0x80, 10_000), vec![b'x'; 9000]].concat();
    let _phones: Vec<_> = (0..NUMBER)
        .map(|_| {
            let mut phone = raw(relay.address, "/v2/client", &headers);
            phone.write_all(&begun).unwrap();
            phone
        })
        .collect();
    has_read(&relay);
    within("a message under way", grown(&relay, before) / NUMBER as f64, under_way());
    assert_eq!(binary.admitted(), Ok(()));
}

#[test]
fn a_phone_that_waits_for_its_binary_takes_what_the_page_says() {
    const NUMBER: usize = 60;
    let relay = Relay::with("[limits]\nphones_per_server = 100\n");
    let _binary = Held::binary(&relay, "waits");
    let message = frame(0x81, format!("\"{}\"", "x".repeat(256 * 1024 - 2)).as_bytes());
    // Sends until nobody reads any more.
    let stuck = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            match stream.write(&message[sent % message.len()..]) {
                Ok(bytes) => (sent, quiet_since) = (sent + bytes, Instant::now()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    std::thread::park_timeout(Duration::from_millis(2));
                }
            }
        }
        assert!(sent > message.len(), "{sent}");
    };
    let mut first = raw(relay.address, "/v2/client", &phone_headers("waits"));
    stuck(&mut first);
    assert!(relay.metrics().queued("server") > 3.0 * KIB * KIB, "the binary's queue is full");
    let before = relay.memory();
    let mut phones: Vec<_> =
        (0..NUMBER).map(|_| raw(relay.address, "/v2/client", &phone_headers("waits"))).collect();
    std::thread::scope(|scope| {
        for phone in &mut phones {
            scope.spawn(|| stuck(phone));
        }
    });
    within("a phone that waits", grown(&relay, before) / NUMBER as f64, under_way());
}

/// What the formula of the page comes to.
fn formula(form: Form, row: &Row) -> f64 {
    figure("base", form)
        + row.connections * figure("connection", form)
        + row.handshakes * figure("handshake", form)
        + row.all_queues * figure("queue", form)
        + row.under_way * (2.0 * row.max_frame + figure("rest", form))
}

/// A worked example of the page.
struct Row {
    connections: f64,
    handshakes: f64,
    all_queues: f64,
    max_frame: f64,
    under_way: f64,
    /// What the page says that it comes to, in mebibytes: without TLS and with it.
    results: [f64; 2],
}

fn examples() -> Vec<Row> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| Example | ")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').skip(2).map(str::trim).collect();
            let result = |text: &str| text.strip_suffix(" MiB").expect("MiB").parse().expect("a number");
            Row {
                connections: size(cells[0]),
                handshakes: size(cells[1]),
                all_queues: size(cells[2]),
                max_frame: size(cells[3]),
                under_way: size(cells[4]),
                results: [result(cells[5]), result(cells[6])],
            }
        })
        .collect()
}

#[test]
fn the_examples_are_what_the_formula_comes_to() {
    let examples = examples();
    assert!(examples.len() >= 3);
    for row in &examples {
        for (form, said) in [Form::Plain, Form::Tls].into_iter().zip(row.results) {
            let result = formula(form, row) / (KIB * KIB);
            assert!((result - said).abs() <= 1.0, "{said} MiB on the page, {result:.1} by the formula");
        }
    }
}

#[test]
fn the_first_example_has_the_defaults() {
    let defaults = Config::default();
    let first = &examples()[0];
    let said = [first.connections, first.handshakes, first.all_queues, first.max_frame];
    let limits = &defaults.limits;
    let are = [limits.connections, limits.handshakes, limits.all_queues, defaults.session.max_frame];
    assert_eq!(said.map(|figure| format!("{figure}")), are.map(|figure| figure.to_string()));
}
