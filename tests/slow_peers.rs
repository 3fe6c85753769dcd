//! Phones that do not read: what waits for them, what they lose, and that nobody else notices (PROTOCOL § 4).

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::frame::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use serde_json::Value;
use support::client::{Client, STALLING, close_frame};
use support::held::Held;
use support::relay::Relay;

const TO_PHONE: &str = "binary_to_phone";

/// How long somebody who is not to blame may wait: less than any timeout that could be behind it.
const PROMPT: Duration = Duration::from_secs(4);

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

fn envelope(conn_id: &str, frame: &str) -> String {
    format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{frame}}}")
}

/// A frame of `length` bytes that carries a number.
fn numbered(number: usize, length: usize) -> String {
    let number = number.to_string();
    format!("[{number},\"{}\"]", "n".repeat(length - number.len() - 5))
}

fn number_of(frame: &str) -> usize {
    let frame: Value = serde_json::from_str(frame).unwrap();
    frame[0].as_u64().unwrap().try_into().unwrap()
}

/// The numbers from 0 on.
fn count_up(frames: &[String]) -> bool {
    frames.iter().enumerate().all(|(at, frame)| number_of(frame) == at)
}

/// A binary, one of its phones that reads, and one that does not.
struct Scene {
    binary: Client,
    sibling: Client,
    sibling_id: String,
    slow: Held,
    slow_id: String,
}

impl Scene {
    fn new(relay: &Relay, server_id: &str) -> Self {
        let mut binary = Client::binary(relay, server_id);
        let mut sibling = Client::phone(relay, server_id);
        let sibling_id = sibling.conn_id(&mut binary);
        let (slow, slow_id) = Held::phone_of(relay, &mut binary, server_id);
        Self { binary, sibling, sibling_id, slow, slow_id }
    }

    /// Both directions between the binary and the phone that reads, and the binary's pong, each in good time.
    fn others_are_served(&mut self) -> Vec<String> {
        let asked = Instant::now();
        self.binary.send(envelope(&self.sibling_id, "\"down\""));
        assert_eq!(self.sibling.text(), "\"down\"");
        self.sibling.send("\"up\"");
        let mut before = Vec::new();
        loop {
            let text = self.binary.text();
            if text.ends_with("\"frame\":\"up\"}") {
                break;
            }
            before.push(text);
        }
        before.extend(self.binary.served());
        assert!(asked.elapsed() < PROMPT, "the others waited {:?}", asked.elapsed());
        before
    }
}

fn notice(conn_id: &str, code: u16) -> String {
    format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":{code}}}")
}

#[test]
fn three_hundred_frames_wait_for_a_phone_that_is_briefly_not_reading() {
    let relay = Relay::start();
    let mut scene = Scene::new(&relay, "brief");
    for number in 0..300 {
        scene.binary.send(envelope(&scene.slow_id, &numbered(number, 1024)));
    }
    assert!(scene.others_are_served().is_empty());
    let waiting = relay.metrics();
    assert!(waiting.queued("client") > 100_000.0, "the kernel alone took {:?}", waiting.queued("client"));
    for number in 0..300 {
        assert_eq!(scene.slow.text(), numbered(number, 1024));
    }
    let metrics = relay.quiet(3, 301);
    assert!(is(metrics.forwarded(TO_PHONE), 301) && is(metrics.dropped_in_all(TO_PHONE), 0));
}

#[test]
fn a_phone_that_falls_behind_pays_alone_and_to_the_frame() {
    let relay = Relay::with("[limits]\nphone_queue = \"300KiB\"\n");
    let mut scene = Scene::new(&relay, "behind");
    let (mut sent, mut served, mut notices) = (0, 0, Vec::new());
    while is(relay.metrics().closed("client", "phone_backlog_full"), 0) {
        assert!(relay.metrics().queued("client") <= 300.0 * 1024.0);
        assert!(sent < 500, "5 MB were taken");
        scene.binary.send(envelope(&scene.slow_id, &numbered(sent, 10_000)));
        sent += 1;
        notices = scene.others_are_served();
        served += 1;
    }
    if notices.is_empty() {
        notices.push(scene.binary.text());
    }
    assert_eq!(notices, [notice(&scene.slow_id, 1011)]);
    let (frames, close) = scene.slow.texts_and_close();
    assert_eq!(close, close_frame(1011, "phone backlog full"));
    assert!(count_up(&frames), "what arrives is the beginning, without a gap");
    let metrics = relay.quiet(2 + served, sent + served);
    assert!(is(metrics.dropped(TO_PHONE, "backlog"), sent - frames.len()));
    assert!(is(metrics.dropped_in_all(TO_PHONE), sent - frames.len()) && sent - frames.len() >= 29);
    assert!(is(metrics.closed("client", "phone_backlog_full"), 1));
    assert_eq!(relay.wait_for_event("phone_unregistered")["cause"], "phone_backlog_full");
    assert!(is(metrics.get("connected_phones"), 1) && is(metrics.get("connected_binaries"), 1));
    assert!(scene.others_are_served().is_empty(), "one notice and no more");
}

#[test]
fn a_directive_that_overflows_closes_with_its_own_code() {
    const QUEUE: usize = 300 * 1024;
    let relay = Relay::with("[limits]\nphone_queue = \"300KiB\"\n");
    let mut scene = Scene::new(&relay, "directive");
    let (mut other, other_id) = Held::phone_of(&relay, &mut scene.binary, "directive");
    let (mut to_phone, mut dropped) = (0, 0);
    for (phone, id, with_frame, code) in
        [(&mut scene.slow, &scene.slow_id, false, 4401), (&mut other, &other_id, true, 4426)]
    {
        // The first one is more than the kernel takes, so it counts to its last byte; the second one fills the queue.
        let lengths = [250_000, QUEUE - 250_064 - 64];
        for (number, length) in lengths.into_iter().enumerate() {
            scene.binary.send(envelope(id, &numbered(number, length)));
        }
        assert!(scene.binary.served().is_empty() && is(relay.metrics().queued("client"), QUEUE));
        let frame = if with_frame { "\"frame\":\"last words\"," } else { "" };
        scene.binary.send(format!("{{\"conn_id\":\"{id}\",{frame}\"close_code\":{code}}}"));
        assert!(scene.binary.served().is_empty(), "it asked for the close itself");
        let (frames, close) = phone.texts_and_close();
        assert_eq!(close, close_frame(code, ""));
        assert!(count_up(&frames) && frames.len() == 1, "the one that was half written");
        to_phone += 2 + usize::from(with_frame);
        dropped += 1 + usize::from(with_frame);
        let metrics = relay.quiet(3, to_phone);
        assert!(is(metrics.dropped(TO_PHONE, "backlog"), dropped), "{dropped}");
        assert!(is(metrics.dropped_in_all(TO_PHONE), dropped));
    }
    let metrics = relay.metrics();
    assert!(is(metrics.closed("client", "binary_request"), 2));
    assert!(is(metrics.closed("client", "phone_backlog_full"), 0));
    assert!(scene.others_are_served().is_empty());
}

#[test]
fn a_phone_that_takes_nothing_for_write_timeout_is_closed() {
    let relay = Relay::with("[session]\nwrite_timeout = \"1s\"\n");
    let mut scene = Scene::new(&relay, "deaf");
    let began = Instant::now();
    let sent = 60;
    for number in 0..sent {
        scene.binary.send(envelope(&scene.slow_id, &numbered(number, 20_000)));
    }
    let mut served = 0;
    let notices = loop {
        let heard = scene.others_are_served();
        served += 1;
        if !heard.is_empty() {
            break heard;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert_eq!(notices, [notice(&scene.slow_id, 1011)]);
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    // It reads again, in time to hear the end.
    let (frames, close) = scene.slow.texts_and_close();
    assert_eq!(close, close_frame(1011, "phone write failed"));
    assert!(count_up(&frames));
    let metrics = relay.quiet(2 + served, sent + served);
    // In flight are at most the 64 KiB of the outgoing buffer and a frame; of them the one that was half written arrived.
    let (in_flight, queued) =
        (metrics.dropped(TO_PHONE, "write_failed"), metrics.dropped(TO_PHONE, "receiver_closed"));
    assert!((1.0..=4.0).contains(&in_flight) && queued >= 30.0, "{in_flight} and {queued}");
    assert!(
        is(in_flight + queued, sent - frames.len())
            && is(metrics.dropped_in_all(TO_PHONE), sent - frames.len())
    );
    assert!(is(metrics.closed("client", "phone_write_failed"), 1) && is(metrics.get("connected_phones"), 1));
    assert!(scene.others_are_served().is_empty(), "one notice and no more");
}

#[test]
fn a_phone_that_never_reads_again_is_gone_all_the_same() {
    let relay = Relay::with("[session]\nwrite_timeout = \"500ms\"\n");
    let mut scene = Scene::new(&relay, "never");
    let sent = 60;
    for number in 0..sent {
        scene.binary.send(envelope(&scene.slow_id, &numbered(number, 20_000)));
    }
    assert_eq!(scene.binary.text(), notice(&scene.slow_id, 1011));
    // The frame that was half written is given up last, with the socket.
    let metrics = relay.quiet(2, sent);
    let in_flight = metrics.dropped(TO_PHONE, "write_failed");
    assert!((1.0..=5.0).contains(&in_flight), "{in_flight}");
    assert!(is(metrics.closed("client", "phone_write_failed"), 1) && is(metrics.get("connected_phones"), 1));
    assert!(is(metrics.settled(TO_PHONE), sent) && metrics.forwarded(TO_PHONE) >= 1.0);
}

#[test]
fn a_phone_that_reads_slowly_and_steadily_is_left_alone() {
    let relay = Relay::with("[session]\nwrite_timeout = \"1s\"\n");
    let mut scene = Scene::new(&relay, "steady");
    let began = Instant::now();
    let frames = [numbered(0, 250_000), numbered(1, 250_000)];
    for frame in &frames {
        scene.binary.send(envelope(&scene.slow_id, frame));
    }
    let (mut received, mut chunk) = (Vec::new(), [0; 4000]);
    // Each frame has a header of ten bytes.
    while received.len() < 2 * 250_010 {
        let count = scene.slow.socket().read(&mut chunk).unwrap();
        assert!(count > 0, "the end after {} bytes", received.len());
        received.extend_from_slice(&chunk[..count]);
        // The phone's pace: a frame takes longer than a write may stand still.
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    let (first, second) = received.split_at(250_010);
    assert_eq!([&first[10..], &second[10..]], frames.each_ref().map(String::as_bytes));
    let metrics = relay.quiet(2, 2);
    assert!(is(metrics.dropped_in_all(TO_PHONE), 0) && is(metrics.get("connected_phones"), 2));
    assert!(scene.others_are_served().is_empty());
}

/// Closing a socket with unread bytes resets the connection, and the relay may notice that by a write before it reads.
#[test]
fn what_somebody_with_a_backlog_says_last_is_heard() {
    let relay = Relay::with(STALLING);
    let mut binary = Client::binary(&relay, "last-words");
    let phones = 12;
    for number in 0..phones {
        let mut phone = Client::phone(&relay, "last-words");
        let id = phone.conn_id(&mut binary);
        binary.stall(&relay, &id);
        let last = numbered(number, 100);
        phone.send(&last);
        let goodbye = CloseFrame { code: CloseCode::Library(4000), reason: "".into() };
        phone.send_message(Message::Close(Some(goodbye)));
        drop(phone);
        assert_eq!(binary.text(), envelope(&id, &last), "phone {number}");
        assert_eq!(binary.text(), notice(&id, 4000), "phone {number}");
    }
    relay.wait_for_metric("connected_phones", 0.0);
    let metrics = relay.metrics();
    assert!(is(metrics.closed("client", "peer_closed"), phones), "{metrics:?}");
    assert!(is(metrics.closed("client", "phone_write_failed"), 0));
}
