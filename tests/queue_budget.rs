//! One budget for all queues: who wants to grow beyond it overflows or waits, and nobody else notices (PROTOCOL § 4).

mod support;

use support::client::{Client, close_frame};
use support::held::Held;
use support::kept::Kept;
use support::relay::Relay;

const ALL_QUEUES: usize = 600 * 1024;
const BUDGET: &str =
    "[limits]\nphone_queue = \"300KiB\"\nbinary_queue = \"300KiB\"\nall_queues = \"600KiB\"\n";

/// More than the kernel takes for a phone that does not read: a frame of this length is never written to its end, so
/// what waits behind it stays where it is.
const PLUG: usize = 250_000;

/// What a queued frame is charged beyond its length.
const CHARGE: usize = 64;

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

/// A frame of that many bytes.
fn frame(length: usize) -> String {
    format!("\"{}\"", "b".repeat(length - 2))
}

/// Sends frames of these lengths to a phone, and waits until the relay has read them.
fn fill(binary: &mut Client, conn_id: &str, lengths: &[usize]) {
    for length in lengths {
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":{}}}", frame(*length)));
    }
    assert!(binary.served().is_empty(), "nobody overflows");
}

/// Bytes in all queues.
fn queued(relay: &Relay) -> f64 {
    let metrics = relay.metrics();
    let queued = metrics.queued("client") + metrics.queued("server");
    assert!(queued <= ALL_QUEUES as f64, "{queued} bytes are queued");
    queued
}

#[test]
fn when_the_budget_is_spent_only_the_phone_whose_queue_would_grow_overflows() {
    let relay = Relay::with(BUDGET);
    let mut binary = Client::binary(&relay, "spent");
    let mut phones: Vec<_> = (0..3).map(|_| Held::phone_of(&relay, &mut binary, "spent")).collect();
    let mut other = Client::binary(&relay, "other");
    let (mut bystander, bystander_id) = Held::phone_of(&relay, &mut other, "other");
    for (_, conn_id) in &phones[..2] {
        fill(&mut binary, conn_id, &[PLUG, 10_000]);
    }
    fill(&mut other, &bystander_id, &[10_000; 3]);
    let held = 2 * (PLUG + 10_000 + 2 * CHARGE);
    assert!(queued(&relay) >= held as f64, "{}", queued(&relay));

    // The third one's own queue is far from full when nothing is left of what all have together.
    let (mut slow, slow_id) = phones.pop().unwrap();
    let (mut sent, mut notices) = (0, Vec::new());
    while is(relay.metrics().closed("client", "phone_backlog_full"), 0) {
        assert!(queued(&relay) - (held as f64) < 150_000.0, "its own limit is twice as high");
        binary.send(format!("{{\"conn_id\":\"{slow_id}\",\"frame\":{}}}", frame(20_000)));
        sent += 1;
        notices = binary.served();
    }
    if notices.is_empty() {
        notices.push(binary.text());
    }
    assert_eq!(notices, [format!("{{\"conn_id\":\"{slow_id}\",\"close_code\":1011}}")]);
    let (frames, close) = slow.texts_and_close();
    assert_eq!(close, close_frame(1011, "phone backlog full"));
    for (phone, _) in &mut phones {
        assert_eq!([phone.text().len(), phone.text().len()], [PLUG, 10_000]);
    }
    for _ in 0..3 {
        assert_eq!(bystander.text().len(), 10_000);
    }
    let metrics = relay.quiet(4, 4 + 3 + sent);
    let dropped = sent - frames.len();
    assert!(is(metrics.dropped("binary_to_phone", "backlog"), dropped) && dropped >= 2);
    assert!(is(metrics.dropped_in_all("binary_to_phone"), dropped));
    assert!(is(metrics.closed("client", "phone_backlog_full"), 1) && is(metrics.get("connected_phones"), 3));
}

#[test]
fn phones_wait_for_the_budget_until_another_queue_is_freed_and_hold_up_nobody_elsewhere() {
    let relay = Relay::with(BUDGET);
    let mut hoarder = Client::binary(&relay, "hoarder");
    let mut slow: Vec<_> = (0..3).map(|_| Held::phone_of(&relay, &mut hoarder, "hoarder")).collect();
    // These binaries read all the time, and their queues are empty.
    let binaries = [Kept::binary(&relay, "first"), Kept::binary(&relay, "second")];
    let mut large = Held::phone(&relay, "first");
    let mut small = [Held::phone(&relay, "first"), Held::phone(&relay, "second")];
    fill(&mut hoarder, &slow[0].1, &[PLUG, 40_000]);
    fill(&mut hoarder, &slow[1].1, &[PLUG, 20_000]);
    let hoarded = 2 * PLUG + 60_000 + 4 * CHARGE;
    let mut received = [0; 2];
    for round in 0..2 {
        assert!(is(queued(&relay), hoarded));
        let before = relay.metrics().settled("phone_to_binary");
        large.send(&frame(ALL_QUEUES - hoarded));
        large.was_read(&relay);
        // What these send would fit. In the same queue, somebody is before them; elsewhere nobody has to wait for it.
        for phone in &mut small {
            phone.send("\"small\"");
            phone.was_read(&relay);
        }
        received[1] += binaries[1].json()["frame"].as_str().unwrap().len();
        assert!(is(relay.metrics().settled("phone_to_binary") - before, 1) && is(queued(&relay), hoarded));

        if round == 0 {
            let (phone, _) = &mut slow[0];
            assert_eq!([phone.text().len(), phone.text().len()], [PLUG, 40_000]);
        } else {
            // It goes, with its frames unread.
            drop(slow.remove(1));
        }
        for _ in 0..2 {
            received[0] += binaries[0].json()["frame"].as_str().unwrap().len();
        }
        let small_ones = (round + 1) * "small".len();
        assert_eq!(received, [(round + 1) * (ALL_QUEUES - hoarded - 2) + small_ones, small_ones]);
        if round == 0 {
            fill(&mut hoarder, &slow[2].1, &[PLUG, 40_000]);
        }
    }
    let (phone, _) = &mut slow[1];
    assert_eq!([phone.text().len(), phone.text().len()], [PLUG, 40_000]);
    let metrics = relay.quiet(3 + 6, 6);
    assert!(is(metrics.forwarded("phone_to_binary"), 9) && is(metrics.dropped_in_all("phone_to_binary"), 0));
    assert!(
        is(metrics.forwarded("binary_to_phone"), 4) && is(metrics.dropped("binary_to_phone", "backlog"), 0)
    );
    assert!(is(metrics.get("connected_phones"), 5) && is(metrics.get("connected_binaries"), 3));
}
