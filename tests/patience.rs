//! What the relay owes to slow and paused peers, and to itself when it was paused, under a clock that the test moves
//! (PROTOCOL §§ 2, 4).

use std::sync::Arc;
use std::time::Duration;

use pyrycode_relay::relay::close::{Close, CloseCause};
use pyrycode_relay::relay::observer::{Census, Direction, DropReason, Endpoint, UpgradeOutcome};
use pyrycode_relay::relay::settings::Settings;

#[path = "simulation/clock.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod clock;
#[path = "support/memory_relay.rs"]
mod memory_relay;
#[path = "support/memory_socket.rs"]
mod memory_socket;
#[path = "support/recording.rs"]
mod recording;

use Direction::{BinaryToPhone, PhoneToBinary};
use clock::VirtualClock;
use memory_relay::{Relay, close_frame, to};
use memory_socket::{Peer, frame, text};

/// A binary's queue for about thirty small frames.
const SMALL: Settings = Settings { max_frame: 1024, binary_queue: 2112, ..Settings::DEFAULT };

const GOODBYE: Close = Close::ShuttingDown { retry_after: 1 };

/// Frames that were sent in one go while the binary took nothing: all of them are read, few of them fit.
fn behind_a_full_binary(relay: &Relay) -> (Peer, Peer) {
    let (binary, phone) = (relay.binary(), relay.phone());
    binary.accept(0);
    let frames: Vec<u8> = (0..1000).flat_map(|number| text(&number.to_string())).collect();
    relay.send(&phone, &frames);
    assert_eq!(phone.consumed(), frames.len());
    (binary, phone)
}

fn drain(relay: &Relay) {
    for server_id in relay.hub.begin_drain(GOODBYE) {
        relay.hub.close_server(&server_id, GOODBYE);
    }
    relay.settle();
}

#[test]
fn what_was_read_of_a_phone_is_delivered_although_the_phone_has_gone() {
    let relay = Relay::new(SMALL);
    let (binary, phone) = behind_a_full_binary(&relay);
    drain(&relay);
    assert_eq!(phone.frames(), Ok(vec![close_frame(1001, "shutting down; retry-after=1")]));
    assert_eq!(
        relay.hub.count().connected_phones,
        1,
        "its place is kept until the binary knows that it went"
    );
    binary.accept_all();
    relay.settle();
    let texts = binary.texts().unwrap();
    assert_eq!(texts.len(), 1001);
    for (number, envelope) in texts[..1000].iter().enumerate() {
        assert!(envelope.ends_with(&format!(",\"frame\":{number}}}")), "{envelope}");
    }
    assert!(texts[1000].ends_with(",\"close_code\":1001}"), "{}", texts[1000]);
    assert_eq!(binary.frames().unwrap().last(), Some(&close_frame(1001, "shutting down; retry-after=1")));
    assert_eq!((relay.recording.forwarded(PhoneToBinary), relay.recording.read(PhoneToBinary)), (1000, 1000));
    relay.end(&[&binary, &phone]);
}

#[test]
fn a_binary_that_goes_takes_what_was_read_for_it_along_and_not_the_phone() {
    let relay = Relay::new(SMALL);
    let (binary, phone) = behind_a_full_binary(&relay);
    binary.hang_up();
    relay.settle();
    assert_eq!(relay.recording.drops(PhoneToBinary), [(DropReason::ReceiverClosed, 1000)]);
    assert_eq!(phone.frames(), Ok(vec![]), "it did nothing wrong");
    assert_eq!((relay.hub.count().connected_phones, relay.hub.count().gracing_binaries), (1, 1));
    relay.send(&phone, &text("1"));
    assert_eq!(phone.frames(), Ok(vec![close_frame(4404, "binary disconnected")]));
    assert_eq!(relay.recording.dropped(PhoneToBinary, DropReason::NoBinary), 1);
    assert_eq!(relay.recording.read(PhoneToBinary), 1001);
    relay.end(&[&binary, &phone]);
}

#[test]
fn who_was_told_to_go_is_not_listened_to_any_more() {
    let relay = Relay::new(Settings::DEFAULT);
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    phone.accept(0);
    relay.send(&binary, &to(&conn_id, "\"last\""));
    relay.send(&binary, &text(&format!(r#"{{"conn_id":"{conn_id}","close_code":4401}}"#)));
    relay.send(&phone, &[text("1"), text("{bad"), frame(0x89, b"ping")].concat());
    assert_eq!((relay.recording.read(PhoneToBinary), relay.recording.forwarded(PhoneToBinary)), (1, 1));
    phone.accept_all();
    relay.settle();
    assert_eq!(phone.frames(), Ok(vec![(0x81, b"\"last\"".to_vec()), close_frame(4401, "")]));
    assert_eq!(relay.recording.forwarded(BinaryToPhone), 1);
    assert_eq!(relay.recording.closed(), [(Endpoint::Client, CloseCause::BinaryRequest)]);
    relay.end(&[&binary, &phone]);
}

#[test]
fn a_write_that_ends_within_the_next_frame_is_accounted_and_followed_by_control() {
    let relay = Relay::new(Settings::DEFAULT);
    let binary = relay.binary();
    let (phone, conn_id) = relay.known_phone(&binary);
    phone.accept(0);
    let frames: Vec<u8> = (0..4).flat_map(|number| to(&conn_id, &format!("\"{number} aaaaaaaa\""))).collect();
    relay.send(&binary, &frames);
    phone.accept(20);
    relay.settle();
    assert_eq!(relay.recording.forwarded(BinaryToPhone), 1);
    relay.send(&phone, &frame(0x89, b"now"));
    phone.accept_all();
    relay.settle();
    let kinds: Vec<u8> = phone.frames().unwrap().iter().map(|(first, _)| *first).collect();
    assert_eq!(kinds, [0x81, 0x81, 0x8a, 0x81, 0x81], "behind the frame that was begun");
    assert_eq!(relay.recording.forwarded(BinaryToPhone), 4);
    relay.end(&[&binary, &phone]);
}

#[test]
fn sessions_that_are_dropped_leave_nothing_charged() {
    let relay = Relay::new(SMALL);
    let (binary, phone) = behind_a_full_binary(&relay);
    let (Relay { executor, hub, recording }, peers) = (relay, [binary, phone]);
    assert!(hub.shared().budget.taken() > 0 && recording.queued_bytes(Endpoint::Server) > 0);
    drop(executor);
    assert_eq!((hub.shared().budget.taken(), recording.queued_bytes(Endpoint::Server)), (0, 0));
    assert_eq!((hub.live(), hub.count().connected_phones, peers.len()), (0, 0, 2));
}

#[test]
fn pings_that_are_not_read_do_not_lengthen_a_message() {
    let clock = VirtualClock::new();
    let relay = Relay::with_clock(Settings::DEFAULT, Arc::new(clock.clone()));
    let (binary, phone) = (relay.binary(), relay.phone());
    relay.send(&phone, &frame(0x01, b"[1,"));
    for seconds in (4..=28).step_by(4) {
        clock.advance_to(Duration::from_secs(seconds));
        // More answers than the relay is ready to keep: it stops reading until some are taken.
        phone.accept(0);
        relay.send(&phone, &frame(0x89, &[b'p'; 125]).repeat(1000));
        phone.accept_all();
        relay.settle();
    }
    assert!(relay.recording.closed().is_empty());
    clock.advance_to(Duration::from_secs(30));
    relay.settle();
    assert_eq!(phone.frames().unwrap().last(), Some(&close_frame(1011, "message timed out")));
    assert_eq!(relay.recording.closed(), [(Endpoint::Client, CloseCause::MessageTimedOut)]);
    relay.end(&[&binary, &phone]);
}

#[test]
fn a_message_that_came_in_time_is_taken_after_a_pause_of_the_relay() {
    let clock = VirtualClock::new();
    let relay = Relay::with_clock(Settings::DEFAULT, Arc::new(clock.clone()));
    let (binary, phone) = (relay.binary(), relay.phone());
    let message = text(&format!("\"{}\"", "m".repeat(200_000)));
    relay.send(&phone, &message[..10]);
    phone.send(&message[10..]);
    clock.advance_to(Duration::from_secs(90));
    relay.settle();
    assert_eq!(binary.texts().unwrap().len(), 1);
    assert!(relay.recording.closed().is_empty());
    relay.end(&[&binary, &phone]);
}

#[test]
fn an_incumbent_that_answered_in_time_stays_after_a_pause_of_the_relay() {
    let clock = VirtualClock::new();
    let relay = Relay::with_clock(Settings::DEFAULT, Arc::new(clock.clone()));
    let incumbent = relay.binary();
    let newcomer = relay.binary();
    assert_eq!(incumbent.frames(), Ok(vec![(0x89, Vec::new())]), "it is asked");
    // The answer came, and the time is over: the relay hears of both in the same moment, the time first.
    clock.advance_to(Settings::DEFAULT.conflict_probe);
    incumbent.send(&frame(0x8a, b""));
    relay.settle();
    assert_eq!(newcomer.frames(), Ok(vec![close_frame(4409, "server-id already claimed")]));
    assert_eq!((relay.recording.takeovers(), relay.hub.count().connected_binaries), (0, 1));
    relay.end(&[&incumbent, &newcomer]);
}

#[test]
fn a_newcomer_that_says_goodbye_while_it_waits_takes_nothing() {
    let clock = VirtualClock::new();
    let relay = Relay::with_clock(Settings::DEFAULT, Arc::new(clock.clone()));
    let (incumbent, phone) = (relay.binary(), relay.phone());
    let newcomer = relay.binary();
    relay.send(&newcomer, &[text("{}"), frame(0x88, &1000_u16.to_be_bytes())].concat());
    for seconds in [1, 2] {
        clock.advance_to(Settings::DEFAULT.conflict_probe + Duration::from_secs(seconds));
        relay.settle();
    }
    assert_eq!((relay.recording.takeovers(), relay.hub.count().connected_phones), (0, 1));
    assert_eq!(relay.recording.upgrades().last(), Some(&(Endpoint::Server, UpgradeOutcome::Reject409)));
    assert_eq!(relay.recording.closed(), [(Endpoint::Server, CloseCause::PeerClosed)]);
    assert_eq!(newcomer.frames(), Ok(vec![close_frame(1000, "")]));
    relay.end(&[&incumbent, &phone, &newcomer]);
}

#[test]
fn only_so_many_newcomers_wait_for_one_answer() {
    let clock = VirtualClock::new();
    let relay = Relay::with_clock(Settings::DEFAULT, Arc::new(clock.clone()));
    let incumbent = relay.binary();
    let newcomers: Vec<Peer> = (0..9).map(|_| relay.binary()).collect();
    let refused = vec![close_frame(4409, "server-id already claimed")];
    let told = |expected: usize| {
        newcomers.iter().filter(|peer| peer.frames() == Ok(refused.clone())).count() == expected
    };
    assert!(told(1) && newcomers[8].frames() == Ok(refused.clone()), "one too many");
    for seconds in [1, 2] {
        clock.advance_to(Settings::DEFAULT.conflict_probe + Duration::from_secs(seconds));
        relay.settle();
    }
    assert!(told(8));
    assert_eq!((relay.recording.takeovers(), relay.hub.count().connected_binaries), (1, 1));
    assert_eq!(incumbent.frames().unwrap().last(), Some(&close_frame(1011, "heartbeat timeout")));
    let peers: Vec<&Peer> = newcomers.iter().chain([&incumbent]).collect();
    relay.end(&peers);
}
