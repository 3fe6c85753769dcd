//! What is counted as forwarded and as dropped, to the byte, on sockets in memory (PROTOCOL §§ 4, 6).
//!
//! Nothing here waits for time: after each thing that a peer does, the executor runs until no task can move.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pyrycode_relay::relay::binary::{self, BinaryHello};
use pyrycode_relay::relay::clock::SystemClock;
use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::hub::Hub;
use pyrycode_relay::relay::observer::{Census, Direction, DropReason, Endpoint};
use pyrycode_relay::relay::phone::{self, PhoneHello};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;

#[path = "support/memory_relay.rs"]
mod memory_relay;
#[path = "support/memory_socket.rs"]
mod memory_socket;
#[path = "support/recording.rs"]
mod recording;

use Direction::{BinaryToPhone, PhoneToBinary};
use memory_relay::{Relay, close_frame, text_frame, to};
use memory_socket::{frame, pair, text};

#[test]
fn phone_to_binary_counts_only_on_success() {
    let relay = Relay::new(Settings::default());
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    let sent = ["{\"n\": 1}", " 2 ", "[\"\\u0033\"]"];
    for (before, one) in sent.into_iter().enumerate() {
        assert_eq!(relay.recording.forwarded(PhoneToBinary), before as u64 + 1);
        relay.send(&phone, &text(one));
    }
    let expected: Vec<String> = ["\"hello\""]
        .iter()
        .chain(&sent)
        .map(|frame| format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#))
        .collect();
    assert_eq!(binary.texts(), Ok(expected.clone()));
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 4);
    let bytes: usize = 7 + sent.iter().map(|frame| frame.len()).sum::<usize>();
    assert_eq!(relay.recording.forwarded_bytes(PhoneToBinary), bytes as u64);
    assert_eq!(relay.recording.drops(PhoneToBinary), []);

    // The binary's socket fails under a frame.
    binary.fail_writes();
    relay.send(&phone, &text("\"lost\""));
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 4);
    assert_eq!(relay.recording.drops(PhoneToBinary), [(DropReason::WriteFailed, 1)]);
    assert_eq!(relay.recording.closed(), [(Endpoint::Server, CloseCause::BinaryWriteFailed)]);
    assert_eq!((relay.hub.count().gracing_binaries, relay.hub.count().connected_phones), (1, 1));

    // During the grace period there is no binary that the next one could go to.
    relay.send(&phone, &text("\"too late\""));
    let expected_drops = [(DropReason::WriteFailed, 1), (DropReason::NoBinary, 1)];
    assert_eq!(relay.recording.drops(PhoneToBinary), expected_drops);
    assert_eq!(phone.frames(), Ok(vec![close_frame(4404, "binary disconnected")]));
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 4);
    assert_eq!((binary.texts(), relay.recording.accounted(PhoneToBinary)), (Ok(expected), 6));
    relay.end(&[&binary, &phone]);
}

#[test]
fn binary_to_phone_counts_only_on_success() {
    let relay = Relay::new(Settings::default());
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    let (broken, broken_id) = relay.known_phone(&binary);
    assert_ne!(conn_id, broken_id);
    broken.fail_writes();

    let messages = [
        to(&conn_id, "1"),
        text(&format!(r#"{{"conn_id":"{conn_id}","frame":"#)),
        to(&conn_id, "[2]"),
        to("c-0000000000000000", "\"nobody\""),
        to(&broken_id, "\"unwritable\""),
        to(&conn_id, "{\"three\":3}"),
    ];
    relay.send(&binary, &messages.concat());
    assert_eq!(phone.texts(), Ok(vec!["1".to_owned(), "[2]".to_owned(), "{\"three\":3}".to_owned()]));
    assert_eq!(
        (relay.recording.forwarded(BinaryToPhone), relay.recording.forwarded_bytes(BinaryToPhone)),
        (3, 15)
    );
    let drops = [(DropReason::Malformed, 1), (DropReason::UnknownConnId, 1), (DropReason::WriteFailed, 1)];
    assert_eq!(relay.recording.drops(BinaryToPhone), drops);
    assert_eq!(relay.recording.accounted(BinaryToPhone), messages.len() as u64);
    assert!(broken.received().is_empty());

    // It cost one phone its connection, and the binary nothing. A close notice is no frame.
    assert_eq!(relay.recording.closed(), [(Endpoint::Client, CloseCause::PhoneWriteFailed)]);
    let notice = format!(r#"{{"conn_id":"{broken_id}","close_code":1011}}"#);
    assert_eq!(binary.texts().unwrap().last(), Some(&notice));
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 2);
    relay.send(&binary, &to(&conn_id, "4"));
    assert_eq!(relay.recording.forwarded(BinaryToPhone), 4);
    relay.end(&[&binary, &phone, &broken]);
}

#[test]
fn a_frame_counts_with_its_last_byte() {
    let relay = Relay::new(Settings::default());
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    let body = format!("\"{}\"", "x".repeat(1000));
    let on_the_wire = 4 + body.len();
    phone.accept(on_the_wire - 1);
    relay.send(&binary, &to(&conn_id, &body));
    assert_eq!((phone.received().len(), relay.recording.forwarded(BinaryToPhone)), (on_the_wire - 1, 0));
    // It is charged until then, and so is one behind it.
    assert_eq!(relay.recording.queued_bytes(Endpoint::Client), 64 + 1002);
    relay.send(&binary, &to(&conn_id, "2"));
    assert_eq!(relay.recording.queued_bytes(Endpoint::Client), 64 + 1002 + 65);

    phone.accept(1);
    relay.settle();
    assert_eq!((phone.received().len(), relay.recording.forwarded(BinaryToPhone)), (on_the_wire, 1));
    assert_eq!(relay.recording.queued_bytes(Endpoint::Client), 65);
    for (byte, counted) in [(1, 1), (2, 1), (3, 2)] {
        phone.accept(1);
        relay.settle();
        assert_eq!(
            (phone.received().len(), relay.recording.forwarded(BinaryToPhone)),
            (on_the_wire + byte, counted)
        );
    }
    assert_eq!(phone.texts(), Ok(vec![body, "2".to_owned()]));
    assert_eq!(relay.recording.queued_bytes(Endpoint::Client), 0);
    relay.end(&[&binary, &phone]);
}

/// Cuts a phone that has `accepted` bytes, by a reclaim, while frames are written and queued for it. Returns what
/// the phone had received in the end.
fn cut_after(accepted: usize, before: &[u8], frames: &[&str], whole: u64) -> Vec<(u8, Vec<u8>)> {
    let relay = Relay::new(Settings::default());
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    phone.accept(accepted);
    relay.send(&phone, before);
    for frame in frames {
        relay.send(&binary, &to(&conn_id, frame));
    }
    assert_eq!(phone.received().len(), accepted);

    binary.hang_up();
    relay.settle();
    let successor = relay.binary();
    assert_eq!((relay.recording.reclaims(), relay.recording.evicted()), (1, 1));
    // It lost its place at once. What is half written is still to be finished.
    assert_eq!(relay.hub.count().connected_phones, 0);
    assert_eq!(phone.received().len(), accepted);
    let dropped = frames.len() as u64 - whole;
    assert_eq!(relay.recording.drops(BinaryToPhone), [(DropReason::ReceiverClosed, dropped)]);

    phone.accept_all();
    relay.settle();
    assert_eq!(relay.recording.forwarded(BinaryToPhone), whole);
    assert_eq!(relay.recording.accounted(BinaryToPhone), frames.len() as u64);
    assert!(relay.recording.closed().contains(&(Endpoint::Client, CloseCause::BinaryReclaimed)));
    assert!(phone.is_closed());
    let received = phone.frames();
    relay.end(&[&phone, &successor]);
    assert!(received.is_ok(), "{received:?}");
    received.unwrap_or_default()
}

#[test]
fn a_half_written_frame_is_finished_before_the_close_frame() {
    let close = close_frame(4404, "binary reclaimed server-id");
    let big = format!("\"{}\"", "x".repeat(40_000));
    let frames = [big.as_str(), "2", &big, "4"];
    // Within its header, its payload, or all but its last byte.
    for accepted in [1, 3, 4, 20_000, 4 + big.len() - 1] {
        assert_eq!(
            cut_after(accepted, b"", &frames, 1),
            [text_frame(&big), close.clone()],
            "{accepted} bytes"
        );
    }
    // With one whole frame in front of the half one.
    let frames = ["\"first\"", "\"second\"", "3", "4"];
    let received = cut_after(9 + 5, b"", &frames, 2);
    assert_eq!(received, [text_frame("\"first\""), text_frame("\"second\""), close]);
}

#[test]
fn a_half_written_pong_is_finished_before_the_close_frame() {
    let close = close_frame(4404, "binary reclaimed server-id");
    let pong = (0x8a, b"are you there".to_vec());
    let ping = frame(0x89, b"are you there");
    for accepted in [1, 2, 9, 14] {
        let received = cut_after(accepted, &ping, &["1", "\"two\"", "3"], 0);
        assert_eq!(received, [pong.clone(), close.clone()], "{accepted} bytes");
    }
    // All of the pong and some of the frame behind it.
    let received = cut_after(15 + 2, &ping, &["1", "\"two\"", "3"], 1);
    assert_eq!(received, [pong, text_frame("1"), close]);
}

#[test]
fn a_peer_that_pings_and_never_reads_is_not_read_from_for_ever() {
    let relay = Relay::new(Settings::default());
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    phone.accept(0);
    let ping = frame(0x89, &[b'p'; 125]);
    phone.send_for_ever(&ping);
    relay.settle();
    let consumed = phone.consumed();
    assert!(
        consumed < 2 * 1024 * 1024,
        "{consumed} bytes of pings were read while no answer could be written"
    );
    // It is not read from, so it does not get further by being written to.
    relay.send(&binary, &to(&conn_id, "1"));
    assert_eq!((phone.consumed(), relay.recording.forwarded(BinaryToPhone)), (consumed, 0));

    // Once it reads, every ping is answered, and then comes the frame.
    phone.send_for_ever(&[]);
    // The last one may have been read in part; its rest does not come any more.
    let pings = consumed / ping.len();
    phone.accept_all();
    relay.settle();
    let frames = phone.frames().unwrap();
    let pongs = frames.iter().filter(|(first, payload)| *first == 0x8a && payload.len() == 125).count();
    assert!(
        pongs == pings && frames.len() == pongs + 1,
        "{pings} pings, {pongs} pongs, {} frames",
        frames.len()
    );
    assert_eq!((phone.texts(), relay.recording.forwarded(BinaryToPhone)), (Ok(vec!["1".to_owned()]), 1));
    relay.end(&[&binary, &phone]);
}

#[test]
fn frames_that_were_read_together_all_arrive_when_a_full_outbox_empties() {
    // Room for one frame; a phone that sends many in one go waits with the second, and the rest is in its hands.
    let relay = Relay::new(Settings { binary_queue: 128, ..Settings::default() });
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    binary.accept(0);
    let frames: Vec<String> = (0..9).map(|number: u8| number.to_string()).collect();
    relay.send(&phone, &frames.iter().flat_map(|frame| text(frame)).collect::<Vec<u8>>());
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 1);
    assert!(relay.recording.queued_bytes(Endpoint::Server) <= 128);

    binary.accept_all();
    relay.settle();
    let arrived = binary.texts().unwrap();
    let expected = frames.iter().map(|frame| format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#));
    assert_eq!(arrived[1..], expected.collect::<Vec<_>>());
    assert_eq!(relay.recording.forwarded(PhoneToBinary), 10);
    relay.end(&[&binary, &phone]);
}

#[test]
fn a_peer_that_never_stops_sending_does_not_keep_its_farewell_going() {
    let (finished, is_finished) = mpsc::channel();
    thread::spawn(move || {
        let relay = Relay::new(Settings::default());
        let phone = relay.phone();
        let refused = (phone.frames(), relay.recording.closed());
        let (socket, flooder) = pair();
        flooder.send_for_ever(&text("1"));
        let hello = PhoneHello {
            server_id: ServerId::from("nobody's"),
            device_name: None,
            remote: [127, 0, 0, 1].into(),
        };
        relay
            .executor
            .spawn(phone::serve(Arc::clone(&relay.hub), relay.hub.enter(), socket, Vec::new(), hello))
            .detach();
        // Each turn ends, so that others have theirs.
        let turns = (0..20).take_while(|_| relay.executor.try_tick()).count();
        let _ = finished.send((refused, turns, flooder.frames()));
    });
    let result = is_finished.recv_timeout(Duration::from_secs(10));
    assert!(result.is_ok(), "one turn of the executor never ended");
    let ((frames, closed), turns, flooded) = result.unwrap();
    let no_server = vec![close_frame(4404, "no server with that id")];
    assert_eq!((frames, flooded), (Ok(no_server.clone()), Ok(no_server)));
    assert_eq!(closed, [(Endpoint::Client, CloseCause::NoServer)]);
    assert!(turns > 1, "{turns}");
}

#[test]
fn the_future_of_a_session_stays_small() {
    // Every idle connection costs this much and its buffers. A future that is awaited inside another one by value
    // is easily held twice.
    let hub = Hub::new(Settings::default(), Arc::new(()), Arc::<SystemClock>::default());
    let remote = [127, 0, 0, 1].into();
    let hello = PhoneHello { server_id: "small".into(), device_name: None, remote };
    let phone = phone::serve(Arc::clone(&hub), hub.enter(), pair().0, Vec::new(), hello);
    let hello = BinaryHello { server_id: "small".into(), version: Box::default(), remote };
    let binary = binary::serve(Arc::clone(&hub), hub.enter(), pair().0, Vec::new(), hello);
    let sizes = (size_of_val(&phone), size_of_val(&binary));
    assert!(sizes.0 <= 1100 && sizes.1 <= 1100, "{sizes:?} bytes");
}
