//! Frames over TLS without a tunnel: byte for byte, through a change of certificates, and what hostile peers do to a connection
//! that is established.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned};
use support::client::{Client, binary_headers, frame, phone_headers, upgrade_over};
use support::relay::{Options, Relay};
use support::secured::{Secured, Tls};
use support::tls::{NAME, Secure};
use support::{connect_from, eventually};

/// Waits until both directions have as many frames behind them, and nothing was dropped.
fn forwarded(relay: &Relay, to_binary: usize, to_phone: usize) {
    eventually("every frame", || {
        let metrics = relay.try_metrics().unwrap();
        let seen = [metrics.forwarded("phone_to_binary"), metrics.forwarded("binary_to_phone")];
        if seen == [to_binary as f64, to_phone as f64] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let metrics = relay.try_metrics().unwrap();
    assert_eq!(metrics.dropped_in_all("phone_to_binary") + metrics.dropped_in_all("binary_to_phone"), 0.0);
}

#[test]
fn frames_of_every_size_arrive_byte_for_byte() {
    let secured = Secured::start();
    for (number, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let name = format!("sizes-{number}");
        let mut binary = secured.upgrade("/v2/server", &binary_headers(&name), &client);
        let mut phone = secured.upgrade("/v2/client", &phone_headers(&name), &client);
        let conn_id = phone.conn_id(&mut binary);
        let mut sent = 1;
        // Around the ends of a record and of what is sealed at once, and the largest.
        for size in [2, 100, 16_383, 16_384, 16_385, 32_768, 65_536, 100_000, 262_144] {
            let frame = format!("\"{}\"", "s".repeat(size - 2));
            phone.send(&frame);
            assert_eq!(binary.text(), format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}"));
            binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}"));
            assert!(phone.text() == frame, "{size}");
            sent += 1;
        }
        forwarded(&secured.relay, sent * (number + 1), (sent - 1) * (number + 1));
        assert_eq!(binary.close(Some(1000)), Some((1000, String::new())));
    }
}

#[test]
fn a_new_certificate_is_for_newcomers_and_nobody_loses_a_frame() {
    const PHONES: usize = 4;
    let secured = Secured::start();
    let before = secured.shown();
    let mut binary = secured.binary("busy");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let phones: Vec<_> = (0..PHONES)
        .map(|_| {
            let mut phone = secured.phone("busy");
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Acquire) {
                    phone.send(format!("[{sent}]"));
                    assert_eq!(phone.text(), format!("[{sent}]"));
                    sent += 1;
                    done.fetch_add(1, Ordering::AcqRel);
                }
                sent
            })
        })
        .collect();
    let echo = std::thread::spawn(move || {
        let mut echoed = 0;
        loop {
            match binary.next_raw() {
                // What a phone sent has the form of what it is to be sent.
                Ok(message) if message.is_text() => {
                    if message.to_text().unwrap().contains("close_code") {
                        continue;
                    }
                    binary.send_message(message);
                    echoed += 1;
                }
                Ok(_) => {}
                Err(_) => return echoed,
            }
        }
    });
    let rounds = |number: usize| {
        eventually("some traffic", || match done.load(Ordering::Acquire) {
            seen if seen >= number => Ok(()),
            seen => Err(seen.to_string()),
        });
    };
    rounds(500);
    for number in 1..=5_u32 {
        let begin = SystemTime::now() - Duration::from_secs(60);
        secured.write(&secured.ca.issue_for(&[NAME], begin, Duration::from_secs(86_400 * u64::from(number))));
        secured.reload("ok", f64::from(number));
        assert!(secured.shown() < before && secured.shown() > before.min(0));
        let ends = secured.metrics().get("certificate_expiry_timestamp_seconds");
        assert_eq!(secured.shown() as f64, ends);
        rounds(done.load(Ordering::Acquire) + 300);
    }
    stop.store(true, Ordering::Release);
    let sent: usize = phones.into_iter().map(|phone| phone.join().unwrap()).sum();
    assert!(sent >= 2000, "{sent}");
    forwarded(&secured.relay, sent, sent);
    assert_eq!(secured.relay.wait_for_events("reloaded", 5).len(), 5);
    assert_eq!(secured.relay.wait_for_events("certificate_loaded", 6).len(), 6);
    drop(secured);
    assert_eq!(echo.join().unwrap(), sent);
}

#[test]
fn keys_may_be_renewed_in_the_middle_of_everything() {
    let secured = Secured::start();
    let client = Arc::new(secured.ca.client_of(&[&TLS13]));
    let mut binary = secured.upgrade("/v2/server", &binary_headers("keys"), &client);
    let mut phone = secured.upgrade("/v2/client", &phone_headers("keys"), &client);
    let conn_id = phone.conn_id(&mut binary);
    for round in 0..50 {
        phone.stream().conn.refresh_traffic_keys().unwrap();
        phone.send(format!("[{round}]"));
        binary.stream().conn.refresh_traffic_keys().unwrap();
        let envelope = format!("{{\"conn_id\":\"{conn_id}\",\"frame\":[{round}]}}");
        assert_eq!(binary.text(), envelope);
        binary.send(&envelope);
        assert_eq!(phone.text(), format!("[{round}]"));
    }
    forwarded(&secured.relay, 51, 50);
}

#[test]
fn what_breaks_the_protocol_ends_one_connection_and_is_counted() {
    let secured = Secured::start();
    let _binary = secured.binary("there");
    let mut number = 0.0;
    for rubbish in [
        &[0x17, 3, 3, 0, 4, 1, 2, 3, 4][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 3, 0, 5, 1, 2, 3, 4, 5],
        &[0; 100],
    ] {
        let mut phone = secured.phone("there");
        phone.send("\"a whole frame\"");
        phone.stream().sock.write_all(rubbish).unwrap();
        let mut rest = Vec::new();
        // An alert, and the end.
        let end = phone.stream().read_to_end(&mut rest).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::InvalidData), "{rubbish:x?}");
        number += 1.0;
        let series = "connections_closed_total{cause=\"peer_lost\",endpoint=\"client\"}";
        eventually("it is counted", || match secured.metrics().get(series) {
            seen if seen == number => Ok(()),
            seen => Err(seen.to_string()),
        });
    }
    forwarded(&secured.relay, 4, 0);
    let mut phone = secured.phone("there");
    phone.send("\"still served\"");
    forwarded(&secured.relay, 5, 0);
}

#[test]
fn the_end_is_told_in_tls_as_well() {
    let secured = Secured::start();
    let mut binary = secured.binary("end");
    assert_eq!(binary.close(Some(1000)), Some((1000, String::new())));
    // With a goodbye: rustls calls an end without one an error.
    let mut rest = Vec::new();
    assert_eq!(binary.stream().read_to_end(&mut rest).map_err(|error| error.kind()), Ok(0));

    // A peer that says goodbye in TLS and nothing else is lost, with all that it sent before.
    let mut binary = secured.binary("end");
    let mut phone = secured.phone("end");
    phone.send("\"last\"");
    phone.stream().conn.send_close_notify();
    phone.stream().flush().unwrap();
    assert!(binary.text().contains("\"last\""));
    assert!(binary.text().contains("\"close_code\":1001"));
    let metrics = secured.metrics();
    assert_eq!(metrics.closed("client", "peer_lost"), 1.0);
}

#[test]
fn frames_in_one_flight_with_the_end_of_the_handshake_are_not_lost() {
    let secured = Secured::start();
    let _binary = secured.binary("early");
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
        let mut tls = ClientConnection::new(client, ServerName::try_from(NAME).unwrap()).unwrap();
        let mut early = support::http::upgrade("/v2/client", &phone_headers("early")).into_bytes();
        for number in 0..200 {
            early.extend(frame(0x81, format!("[{number}]").as_bytes()));
        }
        // Buffered until the handshake is made, and then sent with its last message.
        tls.writer().write_all(&early).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut stream).unwrap();
        }
        let mut tls = StreamOwned::new(tls, stream);
        let mut first = [0; 12];
        tls.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 101");
        eventually("all of them", || {
            let metrics = secured.metrics();
            let seen = metrics.forwarded("phone_to_binary") % 200.0;
            if seen == 0.0 && metrics.forwarded("phone_to_binary") > 0.0 {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        });
    }
    forwarded(&secured.relay, 400, 0);
}

#[test]
fn many_small_records_in_one_burst_are_answered_while_they_are_opened() {
    const ROUNDS: usize = 400;
    let secured = Secured::start();
    for (number, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let name = format!("burst-{number}");
        let mut binary = secured.binary(&name);
        let mut phone = secured.upgrade("/v2/client", &phone_headers(&name), &client);
        assert_eq!(phone.admitted(), Ok(()));
        // Each ping and each frame in a record of its own, and all of them in one write.
        let mut burst = Vec::new();
        let tls = &mut phone.stream().conn;
        for round in 0..ROUNDS {
            let text = format!("[{round}]");
            for (first, payload) in [(0x89, text.as_bytes()), (0x81, text.as_bytes())] {
                tls.writer().write_all(&frame(first, payload)).unwrap();
                while tls.wants_write() {
                    tls.write_tls(&mut burst).unwrap();
                }
            }
        }
        phone.stream().sock.write_all(&burst).unwrap();
        for round in 0..ROUNDS {
            assert!(binary.text().ends_with(&format!("\"frame\":[{round}]}}")), "{round}");
        }
        for round in 0..ROUNDS {
            let pong = phone.next_raw().unwrap();
            assert_eq!(pong.into_data(), format!("[{round}]").as_bytes(), "a pong for each");
        }
    }
    forwarded(&secured.relay, 2 * ROUNDS, 0);
}

/// A binary whose one message of this many bytes stands in one record, cut into pieces.
struct Slow {
    client: Client<Tls>,
    record: Vec<u8>,
}

impl Slow {
    fn binary(secured: &Secured, server_id: &str, bytes: usize) -> Self {
        let mut client = secured.binary(server_id);
        let message = format!("{{\"conn_id\":\"c-0123456789abcdef\",\"frame\":\"{}\"}}", "x".repeat(bytes));
        let mut record = Vec::new();
        let tls = &mut client.stream().conn;
        tls.writer().write_all(&frame(0x81, message.as_bytes())).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut record).unwrap();
        }
        Self { client, record }
    }

    /// Sends some more of it; nothing once the relay has hung up.
    fn go_on(&mut self, bytes: usize) -> Option<usize> {
        let piece: Vec<u8> = self.record.drain(..bytes.min(self.record.len())).collect();
        self.client.stream().sock.write_all(&piece).ok()?;
        Some(self.record.len())
    }
}

#[test]
fn who_sends_a_record_slowly_is_heard() {
    let secured = Secured::with_options(
        Options {
            config:
                "[session]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"\nconflict_probe = \"300ms\"\n"
                    .to_owned(),
            ..Options::default()
        },
        "",
    );
    let mut slow = Slow::binary(&secured, "slow", 15_000);
    let began = Instant::now();
    let mut challenger = None;
    let mut sent = 1;
    eventually("the whole record", || {
        if Instant::now() < began + Duration::from_millis(25 * sent) {
            return Err(format!("{sent} pieces"));
        }
        sent += 1;
        // Half way, another binary claims the server-id: it is not free while its holder speaks.
        if sent == 30 {
            let secure = Secure::connect(secured.relay.address, NAME, &secured.client()).unwrap();
            let url = format!("wss://{NAME}/v2/server");
            challenger = Some(upgrade_over(secure.into_stream(), &url, &binary_headers("slow")).unwrap());
        }
        match slow.go_on(150) {
            Some(0) => Ok(()),
            Some(left) => Err(format!("{left} left")),
            None => panic!("hung up on"),
        }
    });
    assert!(
        began.elapsed() > Duration::from_millis(1500),
        "far longer than the relay is patient with silence"
    );
    assert_eq!(challenger.unwrap().closed(), (4409, "server-id already claimed".to_owned()));
    assert_eq!(slow.client.admitted(), Ok(()));
    let metrics = secured.metrics();
    assert_eq!((metrics.get("takeovers_total"), metrics.closed("server", "heartbeat_timeout")), (0.0, 0.0));
    assert_eq!(metrics.dropped("binary_to_phone", "unknown_conn_id"), 1.0);
}

#[test]
fn a_record_that_never_ends_is_a_message_that_is_not_finished() {
    let config = "[session]\nping_interval = \"300ms\"\npong_timeout = \"300ms\"\nmessage_timeout = \"1s\"\n";
    let secured = Secured::with_options(Options { config: config.to_owned(), ..Options::default() }, "");
    let mut slow = Slow::binary(&secured, "drip", 15_000);
    let began = Instant::now();
    let mut sent = 1;
    eventually("the end", || {
        if Instant::now() >= began + Duration::from_millis(25 * sent) {
            sent += 1;
            let _ = slow.go_on(20);
        }
        let ended = secured.metrics().closed("server", "message_timed_out");
        if ended == 1.0 { Ok(()) } else { Err(format!("{sent} pieces")) }
    });
    let after = began.elapsed();
    assert!(after >= Duration::from_millis(950) && after < Duration::from_secs(5), "{after:?}");
    assert!(!slow.record.is_empty());
}

#[test]
fn what_comes_behind_the_goodbye_is_not_looked_at() {
    let secured = Secured::start();
    let _binary = secured.binary("bye");
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let mut phone = secured.upgrade("/v2/client", &phone_headers("bye"), &client);
        phone.send("no JSON");
        assert_eq!(phone.closed().0, 1007);
        for _ in 0..3 {
            // It may be gone by then.
            let _ = phone
                .stream()
                .sock
                .write_all(&[0x17, 3, 3, 0, 32])
                .and_then(|()| phone.stream().sock.write_all(&[7; 32]));
        }
        let _ = phone.stream().sock.read_to_end(&mut Vec::new());
    }
    secured.wait_for("connections_closed_total{cause=\"invalid_json\",endpoint=\"client\"}", 2.0);
    secured.serves();
    let words = secured.relay.events().into_iter().filter(serde_json::Value::is_string).collect::<Vec<_>>();
    assert!(words.is_empty(), "nothing panicked: {words:?}");
}

#[test]
fn an_answer_that_ends_the_connection_ends_it_in_tls_as_well() {
    let secured = Secured::start();
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        "BAD\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let mut tls = Secure::connect(secured.relay.address, NAME, &secured.client()).unwrap().into_stream();
        tls.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let end = tls.read_to_end(&mut answer).map_err(|error| error.to_string());
        assert!(end.is_ok() && answer.starts_with(b"HTTP/1.1 "), "{request}: {end:?}");
    }
    // A peer that says goodbye is answered with one.
    let mut phone = secured.binary("polite");
    phone.stream().conn.send_close_notify();
    phone.stream().flush().unwrap();
    assert_eq!(phone.stream().read_to_end(&mut Vec::new()).map_err(|error| error.to_string()), Ok(0));
}
