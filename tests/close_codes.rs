//! Close codes, message sizes, and the end of the process, on the wire (PROTOCOL §§ 4, 5, 8).

mod support;

use std::io::Write;
use std::net::TcpStream;

use support::client::{self, Client, binary_headers, close_frame, phone_headers};
use support::eventually;
use support::relay::Relay;

const MAX: usize = 256 * 1024;

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

/// A JSON string that is `length` bytes long with its quotes.
fn json_of(length: usize) -> String {
    format!("\"{}\"", "j".repeat(length - 2))
}

/// The bare socket of a phone or binary.
fn raw(relay: &Relay, endpoint: &str, server_id: &str) -> TcpStream {
    match endpoint {
        "client" => client::raw(relay.address, "/v2/client", &phone_headers(server_id)),
        _ => client::raw(relay.address, "/v2/server", &binary_headers(server_id)),
    }
}

#[test]
fn a_close_is_answered_with_its_own_code_and_no_reason() {
    let relay = Relay::start();
    let _binary = Client::binary(&relay, "answered");
    for endpoint in ["client", "server"] {
        for code in [1000, 1001, 1002, 1011, 1014, 1016, 2000, 2999, 3000, 4000, 4409, 4999] {
            let id = if endpoint == "client" { "answered".to_owned() } else { format!("answered-{code}") };
            let mut socket = raw(&relay, endpoint, &id);
            // Nothing behind a close frame is read.
            let reason = if code == 1002 { "Protocol violation" } else { "a reason that is not echoed" };
            let close = client::frame(0x88, &client::close_payload(code, reason));
            socket
                .write_all(&[close, client::frame(0x81, b"{"), client::frame(0x89, b"ping")].concat())
                .unwrap();
            assert_eq!(client::read_to_end(&mut socket), [close_frame(code, "")], "{endpoint} {code}");
        }
        let id = if endpoint == "client" { "answered" } else { "answered-nothing" };
        let mut socket = raw(&relay, endpoint, id);
        socket.write_all(&client::frame(0x88, b"")).unwrap();
        assert_eq!(client::read_to_end(&mut socket), [close_frame(1000, "")], "{endpoint}");
        let metrics = relay.wait_for_metric(
            &format!("connections_closed_total{{cause=\"peer_closed\",endpoint=\"{endpoint}\"}}"),
            13.0,
        );
        assert!(is(metrics.dropped_in_all("phone_to_binary"), 0));
    }
    assert!(relay.events_named("connection_lost").is_empty(), "a goodbye is no loss");

    // Codes that must not be on the wire cannot be answered with themselves.
    for code in [0, 999, 1004, 1005, 1006, 1015, 5000, 65535] {
        let mut socket = raw(&relay, "client", "answered");
        socket.write_all(&client::frame(0x88, &client::close_payload(code, ""))).unwrap();
        assert_eq!(client::read_to_end(&mut socket), [], "{code}");
    }
    relay.wait_for_metric("connections_closed_total{cause=\"peer_lost\",endpoint=\"client\"}", 8.0);
}

#[test]
fn every_close_that_the_relay_originates_is_one_frame_and_the_end() {
    let relay = Relay::with("[session]\ngrace = \"300ms\"\n");
    let mut binary = Client::binary(&relay, "one");
    let mut expected =
        vec![("server", "already_claimed", raw(&relay, "server", "one"), 4409, "server-id already claimed")];
    expected.push(("client", "no_server", raw(&relay, "client", "nobody"), 4404, "no server with that id"));
    let mut bad = raw(&relay, "client", "one");
    bad.write_all(&[client::frame(0x81, b"{"), client::frame(0x81, b"{")].concat()).unwrap();
    expected.push(("client", "invalid_json", bad, 1007, "frame is not valid JSON"));
    for endpoint in ["client", "server"] {
        let mut big = raw(&relay, endpoint, if endpoint == "client" { "one" } else { "big" });
        big.write_all(&client::header(0x82, 1 << 40)).unwrap();
        expected.push((endpoint, "message_too_big", big, 1009, "message too big"));
    }
    let full: Vec<_> = (0..16).map(|_| Client::phone(&relay, "one").admitted_client()).collect();
    expected.push((
        "client",
        "too_many_phones",
        raw(&relay, "client", "one"),
        4429,
        "too many phones for server-id",
    ));
    let count = expected.len();
    for (endpoint, cause, mut socket, code, reason) in expected {
        if cause == "already_claimed" {
            binary.answer_probe_of(&socket);
        }
        assert_eq!(client::read_to_end(&mut socket), [close_frame(code, reason)], "{cause}");
        let series = format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"{endpoint}\"}}");
        relay.wait_for_metric(&series, 1.0);
    }
    drop(full);
    relay.wait_for_metric("connected_phones", 0.0);

    // The rest needs the binary to go.
    let mut directed = raw(&relay, "client", "one");
    directed.write_all(&client::frame(0x81, b"\"directed\"")).unwrap();
    let conn_id = loop {
        let envelope = binary.json();
        if envelope["frame"] == "directed" {
            break envelope["conn_id"].as_str().unwrap().to_owned();
        }
    };
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":4426}}"));
    assert_eq!(client::read_to_end(&mut directed), [close_frame(4426, "")]);
    let mut reclaimed = raw(&relay, "client", "one");
    relay.wait_for_metric("connected_phones", 1.0);
    assert_eq!(binary.close(Some(1000)), Some((1000, String::new())));
    let binary = Client::binary(&relay, "one");
    assert_eq!(client::read_to_end(&mut reclaimed), [close_frame(4404, "binary reclaimed server-id")]);
    let (mut disconnected, mut expired) = (raw(&relay, "client", "one"), raw(&relay, "client", "one"));
    relay.wait_for_metric("connected_phones", 2.0);
    binary.drop_connection();
    relay.wait_for_metric("gracing_binaries", 1.0);
    disconnected.write_all(&client::frame(0x81, b"1")).unwrap();
    assert_eq!(client::read_to_end(&mut disconnected), [close_frame(4404, "binary disconnected")]);
    assert_eq!(client::read_to_end(&mut expired), [close_frame(1011, "binary did not reconnect")]);
    let metrics = relay.wait_for_metric("grace_expiries_total", 2.0);
    for cause in ["binary_request", "binary_reclaimed", "binary_disconnected", "binary_did_not_reconnect"] {
        assert!(is(metrics.closed("client", cause), 1), "{cause}");
    }
    assert!(is(metrics.upgrades("client", "accept"), 22) && count == 6);
}

#[test]
fn the_largest_frame_crosses_both_ways_and_one_byte_more_does_not() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "sizes");
    let mut phone = Client::phone(&relay, "sizes");
    let conn_id = phone.conn_id(&mut binary);
    let largest = json_of(MAX);
    phone.send(&largest);
    assert_eq!(binary.text(), format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{largest}}}"));
    let envelope = format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{largest}}}");
    binary.send(&envelope);
    assert_eq!(phone.text(), largest);
    // The envelope may have a kibibyte beyond the frame in it.
    let room = MAX + 1024 - envelope.len();
    let padded = |room: usize| envelope.replace("\"frame\"", &format!("{}\"frame\"", " ".repeat(room)));
    binary.send(padded(room));
    assert_eq!(phone.text(), largest);

    let mut other = Client::phone(&relay, "sizes");
    other.send(json_of(MAX + 1));
    assert_eq!(other.closed(), (1009, "message too big".to_owned()));
    assert_eq!(binary.json()["close_code"], 1009);
    binary.send(padded(room + 1));
    assert_eq!(binary.closed(), (1009, "message too big".to_owned()));
    assert_eq!(phone.admitted(), Ok(()));
    let metrics = relay.wait_for_metric("gracing_binaries", 1.0);
    assert!(is(metrics.forwarded("phone_to_binary"), 2) && is(metrics.forwarded("binary_to_phone"), 2));
    assert!(is(metrics.dropped_in_all("phone_to_binary"), 0), "what was never complete was never read");
    assert!(is(metrics.dropped_in_all("binary_to_phone"), 0));
}

#[test]
fn a_size_is_refused_from_the_header_and_reserves_nothing() {
    let relay = Relay::start();
    let _binary = Client::binary(&relay, "header");
    let before = relay.peak_memory();
    for length in [MAX as u64 + 1, 1 << 31, 1 << 40, 1 << 62, u64::MAX >> 1, u64::MAX] {
        for first_byte in [0x81, 0x02, 0x89] {
            let mut phone = raw(&relay, "client", "header");
            phone.write_all(&client::header(first_byte, length)).unwrap();
            assert_eq!(client::read_to_end(&mut phone), [close_frame(1009, "message too big")], "{length}");
        }
    }
    // Fragments that add up: each is small, together they are one byte too many.
    let mut phone = raw(&relay, "client", "header");
    let half = vec![b' '; MAX / 2];
    phone.write_all(&client::frame(0x01, &half)).unwrap();
    phone.write_all(&client::frame(0x00, &half)).unwrap();
    phone.write_all(&client::frame(0x00, b"")).unwrap();
    phone.write_all(&client::frame(0x89, b"fine so far")).unwrap();
    assert_eq!(client::read_frame(&mut phone), Some((0x8a, b"fine so far".to_vec())));
    phone.write_all(&client::header(0x80, 1)).unwrap();
    assert_eq!(client::read_to_end(&mut phone), [close_frame(1009, "message too big")]);
    let grown = relay.peak_memory() - before;
    assert!(grown < 8 * 1024, "{grown} KiB for messages that were refused");
    relay.wait_for_metric("connections_closed_total{cause=\"message_too_big\",endpoint=\"client\"}", 19.0);
}

#[test]
fn a_large_message_does_not_pin_its_size_in_memory() {
    let relay = Relay::with("[limits]\nphones_per_server = 1000\n");
    let mut binary = Client::binary(&relay, "pinned");
    let mut phones: Vec<_> = (0..240).map(|_| Client::phone(&relay, "pinned")).collect();
    let frame = json_of(60_000);
    // One phone brings the process to the size that one such message needs.
    phones[0].send(&frame);
    assert_eq!(binary.text().len(), 41 + frame.len());
    let before = relay.memory();
    for phone in &mut phones {
        phone.send(&frame);
        assert_eq!(binary.text().len(), 41 + frame.len());
    }
    let pinned = phones.len() as u64 * 60;
    eventually("memory after the burst", || {
        let grown = relay.memory().saturating_sub(before);
        if grown < pinned / 4 { Ok(()) } else { Err(format!("{grown} KiB grown, {pinned} KiB were read")) }
    });
    assert!(is(relay.metrics().get("queued_bytes{endpoint=\"server\"}"), 0));
}

#[test]
fn a_close_frame_arrives_although_the_client_is_still_sending() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "sending");
    let mut sibling = Client::phone(&relay, "sending");
    let mut phones: Vec<_> = (0..2).map(|_| raw(&relay, "client", "sending")).collect();
    let senders: Vec<_> = phones
        .iter_mut()
        .map(|phone| {
            let mut sender = phone.try_clone().unwrap();
            std::thread::spawn(move || {
                let _ = sender.write_all(&client::frame(0x81, b"{"));
                // Until the relay has hung up, at full speed.
                let flood = client::frame(0x81, &vec![b'x'; 60_000]);
                while sender.write_all(&flood).is_ok() {}
            })
        })
        .collect();
    for phone in &mut phones {
        assert_eq!(client::read_frame(phone), Some(close_frame(1007, "frame is not valid JSON")));
        assert_eq!(binary.json()["close_code"], 1007);
    }
    // Meanwhile the others are served, and the flood comes to its end by the relay's clock, not by the client's.
    sibling.send("\"served\"");
    assert_eq!(binary.json()["frame"], "served");
    for sender in senders {
        sender.join().unwrap();
    }
    let metrics = relay.wait_for_metric("connected_phones", 1.0);
    assert!(is(metrics.closed("client", "invalid_json"), 2));
    assert!(is(metrics.dropped("phone_to_binary", "malformed"), 2), "nothing is read after the close");
}

#[test]
fn a_hangup_changes_the_log_level_and_nothing_else() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "reload");
    let mut phone = Client::phone(&relay, "reload");
    let good = std::fs::read_to_string(relay.config_path()).unwrap();
    let reloaded = |count: usize| {
        eventually("reloads", || {
            let lines = relay.events_named("reloaded").len() + relay.events_named("reload_failed").len();
            if lines == count { Ok(()) } else { Err(lines.to_string()) }
        });
    };
    std::fs::write(relay.config_path(), good.replace("\"info\"", "\"nonsense\"")).unwrap();
    relay.signal("HUP");
    relay.wait_for_event("reload_failed");
    phone.conn_id(&mut binary);
    let other = Client::binary(&relay, "still-info");
    other.drop_connection();
    eventually("the old level in use", || {
        let lines = relay.events_named("server_released");
        if lines.len() == 1 { Ok(()) } else { Err(format!("{lines:?}")) }
    });

    std::fs::write(relay.config_path(), good.replace("\"info\"", "\"warn\"")).unwrap();
    relay.signal("HUP");
    // At the new level neither the reload nor a claim is logged; a rejected envelope is.
    eventually("the new level", || {
        let claims = relay.events_named("server_claimed").len();
        drop(Client::binary(&relay, &format!("quiet-{}", support::random())));
        binary.send("rejected");
        relay.wait_for_event("envelope_rejected");
        binary.admitted().unwrap();
        if relay.events_named("server_claimed").len() == claims { Ok(()) } else { Err(claims.to_string()) }
    });
    std::fs::write(relay.config_path(), &good).unwrap();
    relay.signal("HUP");
    let known = relay.events_named("reloaded").len();
    reloaded(known.max(1) + 1);
    phone.send("\"untouched\"");
    assert_eq!(binary.json()["frame"], "untouched");
    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"phone_to_binary\"}", 2.0);
    assert!(is(metrics.closed("client", "peer_lost"), 0) && is(metrics.get("connected_phones"), 1));
}
