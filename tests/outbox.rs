//! What waits to be written to one connection: its bound, its line of those who wait, its ends, and its wake-ups
//! (PROTOCOL § 4).

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use pyrycode_relay::relay::budget::Budget;
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::item::{ITEM_OVERHEAD, Item};
use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint};
use pyrycode_relay::relay::outbox::{Cut, Outbox, Refused, Taken, Turn};

#[path = "support/pollers.rs"]
mod pollers;
#[path = "support/recording.rs"]
mod recording;

use pollers::{Poller, Pusher, block_on, frame, name};
use recording::Recording;

/// What frames of one byte cost.
const ONE: usize = ITEM_OVERHEAD + 1;

fn outbox(limit: usize) -> (Outbox, Arc<Recording>) {
    let recording = Arc::new(Recording::default());
    let budget = Arc::new(Budget::new(usize::MAX));
    (Outbox::new(Endpoint::Server, limit, budget, recording.clone()), recording)
}

fn everything(outbox: &Outbox) -> (Taken, Vec<String>) {
    Poller::new().take(outbox, usize::MAX)
}

#[test]
fn the_bound_is_exact_and_holds_until_the_last_byte_was_written() {
    for (limit, fits) in [(ONE - 1, false), (ONE, true), (ONE + 1, true)] {
        let (outbox, recording) = outbox(limit);
        assert_eq!(outbox.push(frame("1")).is_ok(), fits, "{limit}");
        assert_eq!(outbox.charged(), if fits { ONE } else { 0 }, "{limit}");
        assert_eq!(recording.queued_bytes(Endpoint::Server), if fits { 65 } else { 0 }, "{limit}");
    }
    let (outbox, recording) = outbox(3 * ONE);
    assert_eq!(outbox.direction(), Direction::PhoneToBinary);
    outbox.push(frame("1")).unwrap();
    outbox.push(frame("22")).unwrap();
    assert_eq!(outbox.push(frame("3")), Err(Refused::Full));

    // Taken is not written: it is still charged.
    assert_eq!(everything(&outbox), (Taken::default(), vec!["1".to_owned(), "22".to_owned()]));
    assert_eq!(outbox.charged(), 2 * ONE + 1);
    assert_eq!(outbox.push(frame("3")), Err(Refused::Full));
    outbox.settle(ONE);
    outbox.push(frame("3")).unwrap();
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (131, 131));
    outbox.settle(ONE + 1);
    outbox.settle(0);
    assert_eq!(everything(&outbox).1, ["3"]);
    outbox.settle(ONE);
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0));
    assert_eq!((recording.ever_queued(Endpoint::Server), recording.ever_queued(Endpoint::Client)), (196, 0));
}

#[test]
fn a_session_takes_no_more_than_it_has_room_for() {
    let (outbox, _) = outbox(100 * ONE);
    for text in ["1", "2", "3", "4"] {
        outbox.push(frame(text)).unwrap();
    }
    let session = Poller::new();
    let more = Taken { more: true, ..Taken::default() };
    assert_eq!(session.take(&outbox, 0), (more, vec![]));
    assert_eq!(session.take(&outbox, 1), (more, vec!["1".to_owned()]));
    assert_eq!(session.take(&outbox, ONE + 1), (more, vec!["2".to_owned(), "3".to_owned()]));
    assert_eq!(session.take(&outbox, ONE), (Taken::default(), vec!["4".to_owned()]));
    assert_eq!(session.woken(), 0);
    outbox.push(frame("5")).unwrap();
    outbox.push(frame("6")).unwrap();
    assert_eq!(session.woken(), 1, "woken once for all that is queued before it looks again");
}

#[test]
fn places_are_given_in_the_order_of_the_line() {
    let (outbox, recording) = outbox(ONE);
    let mut early = Pusher::new("0");
    assert_eq!(early.poll(&outbox), Poll::Ready(true));
    assert_eq!(early.poll(&outbox), Poll::Ready(true), "nothing to push is no reason to wait");
    let mut line = ["1", "2", "3"].map(Pusher::new);
    for pusher in &mut line {
        assert!(pusher.poll(&outbox).is_pending() && pusher.has_frame());
    }
    everything(&outbox);
    assert!(line.iter().all(|pusher| pusher.poller.woken() == 0));

    let [first, second, third] = &mut line;
    outbox.settle(ONE);
    assert_eq!([first.poller.woken(), second.poller.woken(), third.poller.woken()], [1, 0, 0]);
    // There is room, and it is the first one's: neither one behind it nor a newcomer gets it.
    let mut newcomer = Pusher::new("4");
    assert!(third.poll(&outbox).is_pending() && newcomer.poll(&outbox).is_pending());
    assert_eq!(outbox.push(frame("5")), Err(Refused::Full));
    assert_eq!(first.poll(&outbox), Poll::Ready(true));
    assert!(!first.has_frame() && first.poll(&outbox).is_ready());
    // It keeps its turn until it leaves; then there is no room to wake the next for.
    outbox.leave(&mut first.turn);
    assert_eq!([second.poller.woken(), third.poller.woken(), newcomer.poller.woken()], [0, 0, 0]);
    assert!(second.poll(&outbox).is_pending());

    for (pusher, expected) in [second, third, &mut newcomer].into_iter().zip(["1", "2", "3"]) {
        assert_eq!(everything(&outbox).1, [expected]);
        outbox.settle(ONE);
        assert!(pusher.poller.woken() > 0, "room after {expected}, and the next was not woken");
        assert_eq!(pusher.poll(&outbox), Poll::Ready(true));
        outbox.leave(&mut pusher.turn);
    }
    assert_eq!(everything(&outbox).1, ["4"]);
    outbox.settle(ONE);
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0));
    outbox.push(frame("the line is empty again")).unwrap_err();
    outbox.push(frame("6")).unwrap();
}

#[test]
fn the_line_moves_when_half_is_free_and_the_first_pushes_all_it_has() {
    let (outbox, _) = outbox(4 * ONE);
    for text in ["1", "2", "3", "4"] {
        outbox.push(frame(text)).unwrap();
    }
    let (mut first, mut second) = (Pusher::new("5"), Pusher::new("7"));
    assert!(first.poll(&outbox).is_pending() && second.poll(&outbox).is_pending());
    everything(&outbox);
    outbox.settle(ONE);
    assert_eq!([first.poller.woken(), second.poller.woken()], [0, 0], "a quarter is free");
    outbox.settle(ONE);
    assert_eq!([first.poller.woken(), second.poller.woken()], [1, 0], "half is free");
    assert_eq!(first.poll(&outbox), Poll::Ready(true));
    first.give("6");
    assert_eq!(first.poll(&outbox), Poll::Ready(true), "it is still its turn");
    outbox.leave(&mut first.turn);
    assert_eq!(everything(&outbox).1, ["5", "6"]);
    outbox.settle(4 * ONE);
    assert_eq!((second.poller.woken(), second.poll(&outbox)), (1, Poll::Ready(true)));
}

#[test]
fn a_leaver_in_front_passes_its_place_on() {
    let (outbox, _) = outbox(2 * ONE);
    outbox.push(frame("1")).unwrap();
    // The first wants more than there is room for, the second does not.
    let (mut big, mut small, mut last) = (Pusher::new("22"), Pusher::new("3"), Pusher::new("4"));
    for pusher in [&mut big, &mut small, &mut last] {
        assert!(pusher.poll(&outbox).is_pending());
    }
    outbox.leave(&mut last.turn);
    assert_eq!([big.poller.woken(), small.poller.woken()], [0, 0], "who leaves from behind changes nothing");
    outbox.leave(&mut big.turn);
    assert_eq!([big.poller.woken(), small.poller.woken(), last.poller.woken()], [0, 1, 0]);
    outbox.leave(&mut big.turn);
    assert_eq!(small.poller.woken(), 0, "it left before");
    assert_eq!(small.poll(&outbox), Poll::Ready(true));
    outbox.leave(&mut small.turn);
    assert_eq!(everything(&outbox).1, ["1", "3"]);
    assert!(last.poll(&outbox).is_pending() && last.has_frame());
    outbox.settle(2 * ONE);
    assert_eq!((last.poller.woken(), last.poll(&outbox)), (1, Poll::Ready(true)));
}

#[test]
fn the_waker_that_counts_is_the_last_one() {
    let (outbox, _) = outbox(ONE);
    outbox.push(frame("1")).unwrap();
    let mut pusher = Pusher::new("2");
    assert!(pusher.poll(&outbox).is_pending());
    let old = std::mem::replace(&mut pusher.poller, Poller::new());
    assert!(pusher.poll(&outbox).is_pending());
    everything(&outbox);
    let (before, now) = (Poller::new(), Poller::new());
    before.take(&outbox, 0);
    now.take(&outbox, 0);
    outbox.settle(ONE);
    assert_eq!((old.woken(), pusher.poller.woken()), (0, 1));
    assert_eq!(pusher.poll(&outbox), Poll::Ready(true));
    assert_eq!((before.woken(), now.woken()), (0, 1));
}

#[test]
fn closing_wakes_everybody_who_waits_and_gives_the_frames_back() {
    type Closing = fn(&Outbox);
    let ways: [Closing; 3] = [
        |outbox| outbox.close_behind(Close::HeartbeatTimeout),
        |outbox| assert!(outbox.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed)),
        |outbox| assert_eq!(outbox.end().len(), 1),
    ];
    for (way, close) in ways.into_iter().enumerate() {
        let (outbox, recording) = outbox(ONE);
        outbox.push(frame("1")).unwrap();
        let mut line = ["2", "3", "4"].map(Pusher::new);
        assert!(line.iter_mut().all(|pusher| pusher.poll(&outbox).is_pending()));
        close(&outbox);
        let mut late = Pusher::new("5");
        assert_eq!(line.each_ref().map(|pusher| pusher.poller.woken()), [1, 1, 1], "{way}");
        for pusher in line.iter_mut().chain([&mut late]) {
            assert_eq!((pusher.poll(&outbox), pusher.has_frame()), (Poll::Ready(false), true), "{way}");
            outbox.leave(&mut pusher.turn);
        }
        assert_eq!(outbox.push(frame("6")), Err(Refused::Closed), "{way}");
        outbox.end();
        assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0), "{way}");
    }
}

#[test]
fn nothing_is_taken_in_behind_a_close() {
    let (outbox, recording) = outbox(1000);
    let session = Poller::new();
    session.take(&outbox, 0);
    outbox.push(frame("1")).unwrap();
    assert_eq!(session.woken(), 1);
    session.take(&outbox, 0);
    outbox.close_behind(Close::BinaryReclaimed);
    assert_eq!(session.woken(), 1);
    outbox.close_behind(Close::TooManyPhones);
    assert_eq!(outbox.push(frame("2")), Err(Refused::Closed));
    assert_eq!(outbox.charged(), ONE, "the close costs nothing");
    let taken = Taken { closing: Some(Close::BinaryReclaimed), ..Taken::default() };
    assert_eq!(session.take(&outbox, 1000), (taken, vec!["1".to_owned()]));
    outbox.settle(ONE);
    assert_eq!(recording.queued_bytes(Endpoint::Server), 0);
}

#[test]
fn the_first_cut_overtakes_what_is_queued() {
    let (outbox, recording) = outbox(1000);
    let session = Poller::new();
    outbox.push(frame("1")).unwrap();
    session.take(&outbox, 0);
    assert!(outbox.cut(Close::PhoneBacklogFull, DropReason::Backlog));
    assert!(!outbox.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed), "the second cut");
    assert_eq!(session.woken(), 1);
    let cut = Some(Cut { close: Close::PhoneBacklogFull, reason: DropReason::Backlog });
    assert_eq!(session.take(&outbox, 1000), (Taken { cut, more: true, ..Taken::default() }, vec![]));
    outbox.close_behind(Close::HeartbeatTimeout);
    assert_eq!(outbox.push(frame("2")), Err(Refused::Closed));
    let left: Vec<String> = outbox.end().iter().map(name).collect();
    assert_eq!(left, ["1"]);
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0));
}

#[test]
fn a_cut_behind_a_close_ends_the_wait_and_keeps_the_close() {
    let (outbox, recording) = outbox(1000);
    outbox.push(frame("1")).unwrap();
    outbox.close_behind(Close::BinaryReclaimed);
    assert!(outbox.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed));
    let (taken, items) = everything(&outbox);
    let cut = Cut { close: Close::BinaryReclaimed, reason: DropReason::ReceiverClosed };
    assert_eq!((taken.cut, items.len()), (Some(cut), 0));
    assert_eq!((outbox.end().len(), recording.queued_bytes(Endpoint::Server)), (1, 0));
}

#[test]
fn the_end_returns_what_is_left_and_settles_it() {
    let (outbox, recording) = outbox(1000);
    for text in ["1", "2", "3"] {
        outbox.push(frame(text)).unwrap();
    }
    outbox.push(Item::Notice("4".into())).unwrap();
    let session = Poller::new();
    assert_eq!(session.take(&outbox, 1).1, ["1"]);
    let left: Vec<String> = outbox.end().iter().map(name).collect();
    assert_eq!(left, ["2", "3", "notice 4"]);
    // What the session has taken is its own to settle.
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (ONE, 65));
    outbox.settle(ONE);
    assert!(outbox.end().is_empty());
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0));
    outbox.close_behind(Close::HeartbeatTimeout);
    assert_eq!((outbox.push(frame("5")), outbox.charged(), session.woken()), (Err(Refused::Closed), 0, 0));
}

#[test]
fn outboxes_share_a_budget_and_wait_for_each_other() {
    let recording = Arc::new(Recording::default());
    let budget = Arc::new(Budget::new(3 * ONE));
    let of = |endpoint| Outbox::new(endpoint, 100 * ONE, Arc::clone(&budget), recording.clone());
    let hogs = [of(Endpoint::Client), of(Endpoint::Client), of(Endpoint::Client)];
    let (phone, binaries) = (of(Endpoint::Client), [of(Endpoint::Server), of(Endpoint::Server)]);
    for hog in &hogs {
        hog.push(frame("1")).unwrap();
    }
    assert_eq!((budget.taken(), phone.push(frame("4"))), (3 * ONE, Err(Refused::Full)), "nothing is left");
    let mut line = [Pusher::new("5"), Pusher::new("6")];
    for (pusher, binary) in line.iter_mut().zip(&binaries) {
        assert!(pusher.poll(binary).is_pending() && pusher.has_frame());
    }

    // Room anywhere is room for whoever waits longest, and what that one leaves is the next one's.
    for hog in &hogs[..2] {
        everything(hog);
        hog.settle(ONE);
    }
    let [first, second] = &mut line;
    assert_eq!([first.poller.woken(), second.poller.woken()], [2, 0]);
    assert!(second.poll(&binaries[1]).is_pending(), "it is not first");
    assert_eq!(first.poller.woken(), 1, "who is first hears of it again");
    assert_eq!(first.poll(&binaries[0]), Poll::Ready(true));
    assert_eq!([first.poller.woken(), second.poller.woken()], [0, 1]);
    assert_eq!(second.poll(&binaries[1]), Poll::Ready(true));
    assert_eq!((budget.taken(), phone.push(frame("4"))), (3 * ONE, Err(Refused::Full)));
    for (pusher, binary) in line.iter_mut().zip(&binaries) {
        binary.leave(&mut pusher.turn);
        assert_eq!(binary.end().len(), 1);
    }
    assert_eq!(hogs[2].end().len(), 1);
    assert_eq!((budget.taken(), phone.push(frame("4"))), (0, Ok(())));
    assert_eq!((budget.taken(), recording.queued_bytes(Endpoint::Client)), (ONE, 65));
}

#[test]
fn who_leaves_the_line_of_the_budget_passes_its_place_on() {
    let recording = Arc::new(Recording::default());
    let budget = Arc::new(Budget::new(2 * ONE));
    let of = || Outbox::new(Endpoint::Server, 100 * ONE, Arc::clone(&budget), recording.clone());
    let (hogs, leaving, staying) = ([of(), of()], of(), of());
    for hog in &hogs {
        hog.push(frame("1")).unwrap();
    }
    let (mut one, mut other) = (Pusher::new("2"), Pusher::new("3"));
    assert!(one.poll(&leaving).is_pending() && other.poll(&staying).is_pending());
    hogs[0].end();
    assert_eq!([one.poller.woken(), other.poller.woken()], [1, 0]);
    leaving.cut(Close::HeartbeatTimeout, DropReason::ReceiverClosed);
    assert_eq!(one.poll(&leaving), Poll::Ready(false));
    leaving.leave(&mut one.turn);
    assert_eq!((other.poller.woken(), other.poll(&staying)), (1, Poll::Ready(true)));
    staying.leave(&mut other.turn);
    assert_eq!(budget.taken(), 2 * ONE);
}

#[test]
fn who_holds_much_leaves_room_for_those_who_hold_little() {
    let recording = Arc::new(Recording::default());
    let budget = Arc::new(Budget::new(100 * ONE));
    let of = || Outbox::new(Endpoint::Server, 1000 * ONE, Arc::clone(&budget), recording.clone());
    let fill = |outbox: &Outbox| (0..1000).take_while(|_| outbox.push(frame("1")).is_ok()).count();
    let hog = of();
    // Nearly all of it, if there is nobody else: when it holds 88, eight times the 11 that would be left are enough.
    assert_eq!((fill(&hog), budget.taken()), (89, 89 * ONE));
    // However many there are, somebody new finds room.
    let more: Vec<Outbox> = (0..8).map(|_| of()).collect();
    assert_eq!(more.iter().map(fill).collect::<Vec<_>>(), [9, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(budget.taken(), 100 * ONE);

    // Who holds too much to get more does not keep those behind it waiting.
    let (mut much, mut little) = (Pusher::new("2"), Pusher::new("3"));
    assert!(much.poll(&hog).is_pending() && little.poll(&more[7]).is_pending());
    everything(&more[0]);
    more[0].settle(ONE);
    assert_eq!([much.poller.woken(), little.poller.woken()], [0, 1]);
    assert!(much.poll(&hog).is_pending());
    assert_eq!((little.poller.woken(), little.poll(&more[7])), (1, Poll::Ready(true)));
    hog.leave(&mut much.turn);
    more[7].leave(&mut little.turn);
}

#[test]
fn threads_that_push_and_one_that_drains_lose_no_wake_up_and_no_frame() {
    const PUSHERS: usize = 6;
    const FRAMES: usize = 2000;
    let (outbox, recording) = outbox(4 * (ITEM_OVERHEAD + 8));
    let until = Instant::now() + Duration::from_secs(15);
    let (arrived, arrivals) = mpsc::channel();
    let push = |pusher: usize| {
        let mut turn = Turn::default();
        for number in 0..FRAMES {
            let mut slot = VecDeque::from([frame(&format!("{pusher} {number}"))]);
            // Every now and then somebody gives up its place, and asks again.
            if number % 5 == pusher % 5 {
                let _ = outbox.poll_push(&mut Context::from_waker(Waker::noop()), &mut turn, &mut slot);
                outbox.leave(&mut turn);
            }
            assert!(block_on(until, |cx| outbox.poll_push(cx, &mut turn, &mut slot)));
            // Some keep their turn for a second frame.
            if number % 7 != pusher % 7 {
                outbox.leave(&mut turn);
            }
        }
        outbox.leave(&mut turn);
    };
    let drain = || {
        for round in 0.. {
            let mut items = VecDeque::new();
            let done = block_on(until, |cx| {
                let taken = outbox.poll_take(cx, 1 + round % 200, &mut items);
                match (taken.closing, items.is_empty() && !taken.more) {
                    (Some(_), true) => Poll::Ready(true),
                    (None, true) => Poll::Pending,
                    (_, false) => Poll::Ready(false),
                }
            });
            if done {
                return;
            }
            for item in items {
                outbox.settle(item.cost());
                let _ = arrived.send(name(&item));
            }
        }
    };
    thread::scope(|scope| {
        let drainer = scope.spawn(drain);
        let pushers: Vec<_> = (0..PUSHERS).map(|pusher| scope.spawn(move || push(pusher))).collect();
        let results: Vec<_> = pushers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        outbox.close_behind(Close::HeartbeatTimeout);
        assert!(drainer.join().is_ok() && results.iter().all(Result::is_ok));
    });
    drop(arrived);
    let mut next = [0; PUSHERS];
    for text in arrivals {
        let (pusher, number) = text.split_once(' ').unwrap();
        let next = &mut next[pusher.parse::<usize>().unwrap()];
        assert_eq!(number.parse(), Ok(*next), "out of order: {text}");
        *next += 1;
    }
    assert_eq!(next, [FRAMES; PUSHERS]);
    assert_eq!((outbox.charged(), recording.queued_bytes(Endpoint::Server)), (0, 0));
}
