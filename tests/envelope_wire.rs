//! The routing envelope on the wire: what a bad one costs, close directives, and close notices (PROTOCOL § 3).

mod support;

use std::io::Write;
use std::net::Shutdown;

use async_tungstenite::tungstenite::{Bytes, Message};
use support::client::{self, Client, binary_headers, phone_headers};
use support::eventually;
use support::relay::{Metrics, Relay};

const TO_PHONE: &str = "binary_to_phone";
const TO_BINARY: &str = "phone_to_binary";

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

/// A binary with one phone, and the phone's name.
fn pair(relay: &Relay, server_id: &str) -> (Client, Client, String) {
    let mut binary = Client::binary(relay, server_id);
    let mut phone = Client::phone(relay, server_id);
    let conn_id = phone.conn_id(&mut binary);
    (binary, phone, conn_id)
}

/// Waits until so many frames to phones were dropped for a reason.
fn dropped(relay: &Relay, reason: &str, count: f64) -> Metrics {
    relay.wait_for_metric(
        &format!("frames_dropped_total{{direction=\"{TO_PHONE}\",reason=\"{reason}\"}}"),
        count,
    )
}

fn notice(conn_id: &str, code: u16) -> String {
    format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":{code}}}")
}

#[test]
fn a_malformed_envelope_costs_its_frame_and_nothing_else() {
    let relay = Relay::start();
    let (mut binary, mut phone, conn_id) = pair(&relay, "malformed");
    let id = format!("\"conn_id\":\"{conn_id}\"");
    let mut bad: Vec<String> = [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"text\"",
        "{}",
        "{} {}",
        "\u{feff}{}",
        "{\"frame\":1}",
        "{\"conn_id\":null,\"frame\":1}",
        "{\"conn_id\":\"\",\"frame\":1}",
        "{\"conn_id\":7,\"frame\":1}",
        "{\"push_wake\":{}}",
        "{\"push_wake\":null}",
    ]
    .map(str::to_owned)
    .to_vec();
    let rests = [
        "",
        ",\"frame\":null",
        ",\"frame\":1,\"frame\":1",
        ",\"frame\":01",
        ",\"frame\":1,",
        ",\"frame\":null,\"close_code\":0",
    ];
    bad.extend(rests.map(|rest| format!("{{{id}{rest}}}")));
    bad.extend(
        ["999", "1004", "1005", "1006", "1015", "5000", "65536", "-1", "4401.0", "\"4401\"", "null", "1e3"]
            .map(|code| format!("{{{id},\"frame\":1,\"close_code\":{code}}}")),
    );
    for envelope in &bad {
        binary.send(envelope);
    }
    for bytes in [&b"\xff"[..], b"{\"conn_id\":\"\xc0\xaf\"}"] {
        binary.send_message(Message::Binary(Bytes::from_static(bytes)));
    }
    binary.send(format!("{{{id},\"frame\":\"good\"}}"));
    assert_eq!(phone.text(), "\"good\"", "nothing else came to the phone");
    assert_eq!(binary.admitted(), Ok(()));

    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", 1.0);
    let count = u32::try_from(bad.len() + 2).unwrap();
    assert!(is(metrics.dropped(TO_PHONE, "malformed"), count), "{}", metrics.dropped(TO_PHONE, "malformed"));
    assert!(is(metrics.dropped_in_all(TO_PHONE), count));
}

#[test]
fn text_that_is_not_utf8_is_dropped_whole_or_in_fragments() {
    let relay = Relay::start();
    let mut binary = client::raw(relay.address, "/v2/server", &binary_headers("utf8"));
    let mut phone = client::raw(relay.address, "/v2/client", &phone_headers("utf8"));
    phone.write_all(&client::frame(0x81, b"0")).unwrap();
    let (_, envelope) = client::read_frame(&mut binary).unwrap();
    let conn_id = String::from_utf8(envelope[12..30].to_vec()).unwrap();

    for message in [
        client::frame(0x81, b"\"\xff\""),
        [client::frame(0x01, b"\"\xff"), client::frame(0x00, b"and"), client::frame(0x80, b"so on\"")]
            .concat(),
        [client::frame(0x01, b"\"good"), client::frame(0x00, b"\xc0\xaf"), client::frame(0x80, b"good\"")]
            .concat(),
        [client::frame(0x01, b"\"good"), client::frame(0x80, b"\xed\xa0\x80\"")].concat(),
        [client::frame(0x01, b"\"caf"), client::frame(0x80, b"\xc3")].concat(),
    ] {
        // Byte by byte, so that every boundary falls between two reads.
        for byte in message {
            binary.write_all(&[byte]).unwrap();
        }
    }
    // A character may be cut in two by a fragment's end.
    let good = format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"caf\u{e9}\"}}").into_bytes();
    let (first, second) = good.split_at(good.len() - 3);
    binary.write_all(&[client::frame(0x01, first), client::frame(0x80, second)].concat()).unwrap();
    assert_eq!(client::read_frame(&mut phone), Some((0x81, "\"caf\u{e9}\"".as_bytes().to_vec())));
    let metrics = dropped(&relay, "malformed", 5.0);
    assert!(is(metrics.forwarded(TO_PHONE), 1) && is(metrics.get("connected_binaries"), 1));
    assert_eq!(relay.wait_for_event("envelope_rejected")["cause"], "not UTF-8");
}

#[test]
fn a_thousand_rejected_envelopes_are_a_handful_of_lines() {
    let relay = Relay::start();
    let (mut binary, mut phone, conn_id) = pair(&relay, "flood");
    for _ in 0..1000 {
        binary.send("not an envelope, and secret");
        binary.send("{\"conn_id\":\"c-ffffffffffffffff\",\"frame\":\"secret\"}");
    }
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":1}}"));
    assert_eq!(phone.text(), "1");
    let metrics = dropped(&relay, "malformed", 1000.0);
    assert!(is(metrics.dropped(TO_PHONE, "unknown_conn_id"), 1000));
    for name in ["envelope_rejected", "unknown_conn_id"] {
        let lines = relay.events_named(name);
        // One at once and one every ten seconds.
        assert!((1..=3).contains(&lines.len()), "{name}: {} lines", lines.len());
        assert_eq!(lines[0]["suppressed"], 0, "{name}");
        assert_eq!(lines[0]["server_id"], "flood", "{name}");
    }
    assert_eq!(relay.wait_for_event("envelope_rejected")["cause"], "not valid JSON");
    assert!(!format!("{:?}", relay.events()).contains("secret"), "payload is never logged");
}

#[test]
fn a_binary_reaches_its_own_phones_only() {
    let relay = Relay::start();
    let (mut own, mut phone, conn_id) = pair(&relay, "own");
    let (mut other, mut others_phone, others_id) = pair(&relay, "other");
    other.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"forged\"}}"));
    other.send(format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":4401}}"));
    for unknown in ["c-0000000000000000", "c-", "x", &conn_id.to_uppercase(), &format!("{conn_id} ")] {
        own.send(format!("{{\"conn_id\":\"{unknown}\",\"frame\":\"lost\",\"close_code\":4401}}"));
    }
    own.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"own\"}}"));
    other.send(format!("{{\"conn_id\":\"{others_id}\",\"frame\":\"others\"}}"));
    assert_eq!((phone.text(), others_phone.text()), ("\"own\"".to_owned(), "\"others\"".to_owned()));
    let metrics = dropped(&relay, "unknown_conn_id", 7.0);
    assert!(is(metrics.dropped_in_all(TO_PHONE), 7) && is(metrics.get("connected_phones"), 2));
    assert_eq!(phone.admitted(), Ok(()));
}

#[test]
fn a_close_directive_closes_its_phone_behind_the_frame_and_without_a_notice() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "directive");
    for (rest, frame, code) in [
        (",\"frame\":\"bye\",\"close_code\":4401", Some("\"bye\""), 4401_u16),
        (",\"close_code\":1000", None, 1000),
        (",\"frame\":null,\"close_code\":4999", None, 4999),
        (",\"close_code\":4421,\"frame\":[]", Some("[]"), 4421),
        (",\"close_code\":1016", None, 1016),
        (",\"close_code\":2999", None, 2999),
        (",\"frame\":1,\"close_code\":1014", Some("1"), 1014),
    ] {
        let mut phone = client::raw(relay.address, "/v2/client", &phone_headers("directive"));
        phone.write_all(&client::frame(0x81, b"0")).unwrap();
        let conn_id = binary.json()["conn_id"].as_str().unwrap().to_owned();
        binary.send(format!("{{\"conn_id\":\"{conn_id}\"{rest}}}"));
        // What comes after the directive finds no phone: it is closing, or gone.
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"too late\"}}"));
        let mut expected: Vec<_> = frame.iter().map(|frame| (0x81, frame.as_bytes().to_vec())).collect();
        expected.push(client::close_frame(code, ""));
        assert_eq!(client::read_to_end(&mut phone), expected, "{rest}");
    }
    let metrics = relay.wait_for_metric("connected_phones", 0.0);
    assert!(is(metrics.closed("client", "binary_request"), 7) && is(metrics.forwarded(TO_PHONE), 3));
    // The last of the late ones may still be on its way when its phone is gone.
    let metrics = eventually("seven late frames dropped", || {
        let metrics = relay.metrics();
        let seen = metrics.dropped_in_all(TO_PHONE);
        if is(seen, 7) { Ok(metrics) } else { Err(seen.to_string()) }
    });
    let late = metrics.dropped(TO_PHONE, "receiver_closed") + metrics.dropped(TO_PHONE, "unknown_conn_id");
    assert!(is(late, 7));

    // The next thing that the binary hears is the next phone, not a notice.
    let mut phone = Client::phone(&relay, "directive");
    let conn_id = phone.conn_id(&mut binary);
    // A code of 0 is none.
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"stay\",\"close_code\":0}}"));
    assert_eq!(phone.text(), "\"stay\"");
    assert_eq!(phone.admitted(), Ok(()));
}

#[test]
fn a_binary_is_told_once_how_a_phone_went() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "notices");
    let mut forwarded = 0.0;
    let close = |code: u16| client::frame(0x88, &client::close_payload(code, "my own reason"));
    let big =
        [client::frame(0x01, &vec![b' '; 200 * 1024]), client::frame(0x80, &vec![b' '; 100 * 1024])].concat();
    for (last, code, cause) in [
        (close(1000), 1000, "peer_closed"),
        (close(1001), 1001, "peer_closed"),
        (close(3000), 3000, "peer_closed"),
        (close(4999), 4999, "peer_closed"),
        (client::frame(0x88, b""), 1001, "peer_closed"),
        (Vec::new(), 1001, "peer_lost"),
        (vec![0x81, 0x01, b'1'], 1001, "peer_lost"),
        (client::frame(0x81, b"{\"not\": json}"), 1007, "invalid_json"),
        (client::frame(0x82, b"1 2"), 1007, "invalid_json"),
        (client::frame(0x81, b""), 1007, "invalid_json"),
        (client::frame(0x81, b"\"\xff\""), 1007, "invalid_json"),
        (client::header(0x82, 262_145), 1009, "message_too_big"),
        (big, 1009, "message_too_big"),
    ] {
        let before = relay.metrics();
        let mut phone = client::raw(relay.address, "/v2/client", &phone_headers("notices"));
        // The last frames come right before the end, in one write with it.
        let bytes = [client::frame(0x81, b"1"), client::frame(0x81, b"2"), last].concat();
        phone.write_all(&bytes).unwrap();
        phone.shutdown(Shutdown::Write).unwrap();
        let first = binary.json();
        let conn_id = first["conn_id"].as_str().unwrap();
        assert_eq!((&first["frame"], binary.json()["frame"].as_u64()), (&1.into(), Some(2)), "{cause}");
        assert_eq!(binary.text(), notice(conn_id, code), "{cause}");
        let series = format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"client\"}}");
        let after = relay.wait_for_metric(&series, before.closed("client", cause) + 1.0);
        let malformed = u32::from(cause == "invalid_json");
        let more = after.dropped(TO_BINARY, "malformed") - before.dropped(TO_BINARY, "malformed");
        assert!(is(more, malformed), "{cause}: a message is counted once, when it is complete");
        forwarded += 2.0;
    }
    // A notice is no frame.
    relay.wait_for_metric("frames_forwarded_total{direction=\"phone_to_binary\"}", forwarded);
    // Nothing is left over for the binary.
    assert_eq!(binary.admitted(), Ok(()));
    let mut phone = Client::phone(&relay, "notices");
    phone.send("\"next\"");
    assert_eq!(binary.json()["frame"], "next");
}

#[test]
fn a_phone_that_sends_no_json_is_closed_alone() {
    let relay = Relay::start();
    let (mut binary, mut sibling, sibling_id) = pair(&relay, "json");
    for bad in ["{", "1 2", "'x'", "{\"a\":1}}", "nul", "\u{feff}1", "01", "\"\u{1}\"", "}", "1}"] {
        let mut phone = Client::phone(&relay, "json");
        phone.send(bad);
        assert_eq!(phone.closed(), (1007, "frame is not valid JSON".to_owned()), "{bad}");
        assert_eq!(binary.json()["close_code"], 1007, "{bad}");
    }
    binary.send(format!("{{\"conn_id\":\"{sibling_id}\",\"frame\":\"untouched\"}}"));
    assert_eq!(sibling.text(), "\"untouched\"");
    let metrics = relay.wait_for_metric("connected_phones", 1.0);
    assert!(
        is(metrics.dropped(TO_BINARY, "malformed"), 10) && is(metrics.closed("client", "invalid_json"), 10)
    );
    let events = relay.events_named("phone_unregistered");
    assert!(events.iter().all(|event| event["cause"] == "invalid_json"), "{events:?}");
}

#[test]
fn a_wake_request_is_counted_and_harmless() {
    let relay = Relay::start();
    let (mut binary, mut phone, conn_id) = pair(&relay, "wake");
    let wake = "\"push_wake\":{\"platform\":\"fcm\",\"token\":\"very-secret\"}";
    for envelope in [
        format!("{{{wake}}}"),
        format!("{{{wake},\"conn_id\":null}}"),
        format!("{{\"conn_id\":\"\",{wake},\"frame\":1}}"),
    ] {
        binary.send(envelope);
    }
    // With a phone named, it is a frame like any other.
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"frame\",{wake}}}"));
    assert_eq!(phone.text(), "\"frame\"");
    let metrics = relay.wait_for_metric("push_wakes_total{outcome=\"off\"}", 3.0);
    assert!(is(metrics.dropped_in_all(TO_PHONE), 0), "wake requests are not frames");
    assert!(!format!("{:?}", relay.events()).contains("very-secret"));
}
