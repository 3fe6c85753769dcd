//! Frames through the built program, over real sockets (PROTOCOL §§ 3, 4).

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::Write;
use std::sync::{Arc, Barrier};

use async_tungstenite::tungstenite::{Bytes, Message};
use support::client::{self, Client};
use support::eventually;
use support::relay::Relay;

#[test]
fn a_frame_crosses_both_ways_byte_for_byte() {
    let relay = Relay::start();
    let before = relay.metrics();
    let mut binary = Client::binary(&relay, "both-ways");
    let mut phone = Client::phone(&relay, "both-ways");

    let frame = " {\"v\":2,\t\"type\":\"noise_msg\",\"data\":\"\\u00e4\u{e4}\\/ \u{1F980}\"}\n";
    phone.send(frame);
    let envelope = binary.text();
    let conn_id = serde_json::from_str::<serde_json::Value>(&envelope).unwrap()["conn_id"].clone();
    let conn_id = conn_id.as_str().unwrap();
    assert_eq!(envelope, format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}"));
    assert!(conn_id.len() == 18 && conn_id.starts_with("c-"), "{conn_id}");

    let answer = "[1,  2.50e+1, \"\\ud83e\\udd80\", {\"b\":null,\"a\":true}]";
    binary.send(format!("{{\"frame\": {answer} ,\"x\":[[]],\"conn_id\":\"{conn_id}\"}}"));
    assert_eq!(phone.text(), answer);

    let after = relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", 1.0);
    assert!((after.forwarded("phone_to_binary") - 1.0).abs() < f64::EPSILON);
    let bytes = |direction| after.get(&format!("forwarded_bytes_total{{direction=\"{direction}\"}}"));
    assert!((bytes("phone_to_binary") - frame.len() as f64).abs() < f64::EPSILON);
    assert!((bytes("binary_to_phone") - answer.len() as f64).abs() < f64::EPSILON);
    assert!(after.since(&before).keys().all(|name| !name.contains("dropped")));
}

#[test]
fn fragments_with_control_frames_between_them_are_one_message() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "fragments");
    let mut phone = client::raw(relay.address, "/v2/client", &client::phone_headers("fragments"));

    phone.write_all(&client::frame(0x01, b"{\"part\":")).unwrap();
    phone.write_all(&client::frame(0x89, b"are you there")).unwrap();
    assert_eq!(client::read_frame(&mut phone), Some((0x8a, b"are you there".to_vec())));
    phone.write_all(&client::frame(0x00, b"\"one ")).unwrap();
    phone.write_all(&client::frame(0x8a, b"unasked pong")).unwrap();
    phone.write_all(&client::frame(0x80, b"and two\"}")).unwrap();
    assert_eq!(binary.json()["frame"]["part"], "one and two");

    phone.write_all(&client::frame(0x82, b"\"binary message\"")).unwrap();
    assert_eq!(binary.json()["frame"], "binary message");
    relay.wait_for_metric("frames_forwarded_total{direction=\"phone_to_binary\"}", 2.0);
}

#[test]
fn bytes_behind_the_upgrade_request_are_websocket_bytes() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "eager");
    let mut behind = client::frame(0x81, b"1");
    behind.extend(client::frame(0x81, b"2"));
    let mut phone = client::raw_with(relay.address, "/v1/client", &client::phone_headers("eager"), &behind);
    assert_eq!(binary.json()["frame"], 1);
    assert_eq!(binary.json()["frame"], 2);
    phone.write_all(&client::frame(0x81, b"3")).unwrap();
    assert_eq!(binary.json()["frame"], 3);
}

#[test]
fn a_binary_may_send_envelopes_as_binary_messages() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "bin");
    let mut phone = Client::phone(&relay, "bin");
    let conn_id = phone.conn_id(&mut binary);
    let envelope = format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"as bytes\"}}");
    binary.send_message(Message::Binary(Bytes::from(envelope)));
    assert_eq!(phone.text(), "\"as bytes\"", "outbound is always text");
    relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", 1.0);
}

#[test]
fn frames_of_one_phone_keep_their_order_and_every_phone_gets_its_own() {
    keep_their_order(&Relay::start());
}

#[test]
fn frames_keep_their_order_on_several_workers() {
    let relay = Relay::with("[runtime]\nworkers = 3");
    // A thread names itself once it runs.
    eventually("two workers beside the main thread", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", relay.pid())).unwrap();
        let names =
            threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
        match names.filter(|name| name.starts_with("worker-")).count() {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    keep_their_order(&relay);
}

fn keep_their_order(relay: &Relay) {
    const PHONES: usize = 16;
    const FRAMES: usize = 200;
    let mut binary = Client::binary(relay, "order");
    // On several threads a phone may be faster than a binary that was upgraded just before.
    assert_eq!(binary.admitted(), Ok(()));
    let start = Arc::new(Barrier::new(PHONES));
    let phones: Vec<_> = (0..PHONES)
        .map(|number| {
            let mut phone = Client::phone(relay, "order");
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                for frame in 0..FRAMES {
                    phone.send(format!("[{number},{frame}]"));
                }
                for frame in 0..FRAMES {
                    assert_eq!(phone.text(), format!("[\"echo\",{number},{frame}]"));
                }
                // It stays until all are done: its leaving would put a close notice between the frames.
                phone
            })
        })
        .collect();
    let mut next = [0; PHONES];
    for _ in 0..PHONES * FRAMES {
        let envelope = binary.json();
        let number = usize::try_from(envelope["frame"][0].as_u64().unwrap()).unwrap();
        let frame = envelope["frame"][1].as_u64().unwrap();
        assert_eq!(frame, next[number], "frames of phone {number} out of order");
        next[number] += 1;
        let conn_id = &envelope["conn_id"];
        binary.send(format!("{{\"conn_id\":{conn_id},\"frame\":[\"echo\",{number},{frame}]}}"));
    }
    let phones: Vec<_> = phones.into_iter().map(|phone| phone.join().unwrap()).collect();
    assert_eq!(phones.len(), PHONES);
    let total = (PHONES * FRAMES) as f64;
    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", total);
    assert!((metrics.forwarded("phone_to_binary") - total).abs() < f64::EPSILON);
}

#[test]
fn three_hundred_frames_wait_for_a_phone_that_is_briefly_not_reading() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "brief");
    let mut phone = Client::phone(&relay, "brief");
    let conn_id = phone.conn_id(&mut binary);
    let padding = "x".repeat(1000);
    for number in 0..300 {
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":[{number},\"{padding}\"]}}"));
    }
    // The binary's own pings are answered meanwhile: nobody waits for the phone.
    binary.send_message(Message::Ping(Bytes::from_static(b"still there?")));
    assert!(matches!(binary.next_raw(), Ok(Message::Pong(payload)) if payload == "still there?"));
    for number in 0..300 {
        assert_eq!(phone.json()[0], number);
    }
    let metrics = relay.wait_for_metric("frames_forwarded_total{direction=\"binary_to_phone\"}", 300.0);
    assert!(metrics.dropped_in_all("binary_to_phone").abs() < f64::EPSILON);
}
