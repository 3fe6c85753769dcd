//! Who waits for an outbox or for the budget is woken, in whatever order the threads come to run (PROTOCOL § 4).
//!
//! The sources of the outbox and of the budget are compiled into this test once more, with loom's locks and atomics in
//! the place of the standard library's. Each test is a model of two or three threads: loom runs it again and again, for
//! every order in which the threads' uses of the same lock or atomic can follow each other, and for every value that a
//! load may find. None of them is bounded, so what passes here holds for every schedule of its model. A wait that nobody ends leaves no thread that could run;
//! loom reports that as a deadlock.
//!
//! What happens in the same way in every order, such as who was first in line, is done before the threads begin: that
//! keeps a model small.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::{model, thread};

#[path = "support/loom_actors.rs"]
mod actors;
#[allow(dead_code, unreachable_pub, reason = "made for the relay, not for the models")]
#[path = "../src/relay/budget.rs"]
mod budget;
#[allow(dead_code, unreachable_pub, reason = "made for the relay, not for the models")]
#[path = "../src/relay/outbox.rs"]
mod outbox;
#[path = "support/loom_sync.rs"]
mod sync;

mod close {
    pub(super) use pyrycode_relay::relay::close::Close;
}

mod item {
    pub(super) use pyrycode_relay::relay::item::{Frame, ITEM_OVERHEAD, Item};
}

mod sparse {
    pub(super) use pyrycode_relay::relay::sparse::shrunk;
}

mod observer {
    pub(super) use pyrycode_relay::relay::observer::{Direction, DropReason, Endpoint, Observer};
}

use actors::{
    CLOSINGS, ONE, Relay, close_behind, cut, end, frame, in_line, nobody, pusher, take, wait_and_push, with,
    write_until, write_up_to,
};
use budget::{Budget, Request};
use item::ITEM_OVERHEAD;
use outbox::{Outbox, Taken, Turn};

#[test]
fn who_waits_for_room_gets_it_when_the_session_writes() {
    model(|| {
        let relay = Relay::new(usize::MAX);
        let outbox = relay.outbox(1, 1);
        let pusher = pusher(&outbox, &["1", "2"]);
        write_up_to(&outbox, "2");
        assert!(pusher.join().unwrap());
        relay.finish([&outbox]);
    });
}

#[test]
fn all_who_waited_get_room_when_half_of_it_is_free() {
    model(|| {
        let relay = Relay::new(usize::MAX);
        let outbox = relay.outbox(2, 2);
        take(&outbox, 2);
        let pushers = [pusher(&outbox, &["1"]), pusher(&outbox, &["2"])];
        outbox.settle(ONE);
        outbox.settle(ONE);
        for pusher in pushers {
            assert!(pusher.join().unwrap());
        }
        relay.finish([&outbox]);
    });
}

#[test]
fn who_waits_for_room_is_told_of_a_close() {
    for close in CLOSINGS {
        model(move || {
            let relay = Relay::new(usize::MAX);
            let outbox = relay.outbox(1, 1);
            let pushers = [pusher(&outbox, &["1"]), pusher(&outbox, &["2"])];
            close(&outbox);
            for pusher in pushers {
                assert!(!pusher.join().unwrap());
            }
            relay.finish([&outbox]);
        });
    }
}

#[test]
fn a_close_while_the_session_writes_leaves_nobody_waiting() {
    for close in CLOSINGS {
        model(move || {
            let relay = Relay::new(usize::MAX);
            let outbox = relay.outbox(1, 1);
            let (pusher, closer) = (pusher(&outbox, &["1"]), with(&outbox, close));
            outbox.settle(take(&outbox, 1));
            pusher.join().unwrap();
            closer.join().unwrap();
            relay.finish([&outbox]);
        });
    }
}

#[test]
fn who_gives_up_the_first_place_passes_it_on() {
    model(|| {
        let relay = Relay::new(usize::MAX);
        let outbox = relay.outbox(1, 1);
        let mut turn = in_line(&outbox);
        let second = pusher(&outbox, &["2"]);
        let first = with(&outbox, move |outbox| outbox.leave(&mut turn));
        write_up_to(&outbox, "2");
        assert!(second.join().unwrap());
        first.join().unwrap();
        relay.finish([&outbox]);
    });
}

#[test]
fn who_looks_again_before_it_gives_up_passes_the_first_place_on() {
    model(|| {
        let relay = Relay::new(usize::MAX);
        let outbox = relay.outbox(2, 2);
        take(&outbox, 2);
        let mut turn = in_line(&outbox);
        let second = pusher(&outbox, &["2"]);
        let first = with(&outbox, move |outbox| {
            let _ = outbox.poll_push(&mut nobody(), &mut turn, &mut VecDeque::from([frame("1")]));
            outbox.leave(&mut turn);
        });
        outbox.settle(2 * ONE);
        assert!(second.join().unwrap());
        first.join().unwrap();
        relay.finish([&outbox]);
    });
}

#[test]
fn the_session_hears_of_everything() {
    type Act = fn(&Outbox);
    type Found = fn(Taken, &[String]) -> bool;
    let acts: [(Act, Found); 5] = [
        (|outbox| outbox.push(frame("1")).unwrap(), |_, written| !written.is_empty()),
        (|outbox| assert!(wait_and_push(outbox, &["1"])), |_, written| !written.is_empty()),
        (cut, |taken, _| taken.cut.is_some()),
        (close_behind, |taken, _| taken.closing.is_some()),
        (Outbox::request_ping, |taken, _| taken.ping),
    ];
    for (act, found) in acts {
        model(move || {
            let relay = Relay::new(usize::MAX);
            let outbox = relay.outbox(1, 0);
            let other = with(&outbox, act);
            write_until(&outbox, found);
            other.join().unwrap();
            relay.finish([&outbox]);
        });
    }
}

#[test]
fn the_session_hears_of_everything_that_comes_at_once() {
    for close in [close_behind, cut] {
        model(move || {
            let relay = Relay::new(usize::MAX);
            let outbox = relay.outbox(2, 0);
            let pings = with(&outbox, Outbox::request_ping);
            let closes = with(&outbox, move |outbox| {
                assert!(wait_and_push(outbox, &["1"]));
                close(outbox);
            });
            let (mut pinged, mut closed) = (false, false);
            write_until(&outbox, |taken, written| {
                pinged |= taken.ping;
                closed |= taken.cut.is_some() || taken.closing.is_some() && !written.is_empty();
                pinged && closed
            });
            pings.join().unwrap();
            closes.join().unwrap();
            relay.finish([&outbox]);
        });
    }
}

#[test]
fn who_waits_for_the_budget_gets_what_another_outbox_gives_back() {
    let ways: [fn(&Outbox); 2] = [end, |hog| write_up_to(hog, "0")];
    for give_back in ways {
        model(move || {
            let relay = Relay::new(ONE);
            let (hog, waits) = (relay.outbox(1, 1), relay.outbox(1, 0));
            let pusher = pusher(&waits, &["1", "2"]);
            give_back(&hog);
            write_up_to(&waits, "2");
            assert!(pusher.join().unwrap());
            relay.finish([&hog, &waits]);
        });
    }
}

#[test]
fn who_waits_for_the_budget_is_told_of_a_close() {
    for close in CLOSINGS {
        model(move || {
            let relay = Relay::new(ONE);
            let (hog, waits) = (relay.outbox(1, 1), relay.outbox(1, 0));
            let pusher = pusher(&waits, &["1"]);
            close(&waits);
            assert!(!pusher.join().unwrap());
            relay.finish([&hog, &waits]);
        });
    }
}

#[test]
fn what_the_first_in_the_budgets_line_leaves_over_is_the_next_ones() {
    model(|| {
        let relay = Relay::new(2 * ONE);
        let (hog, one, two) = (relay.outbox(2, 0), relay.outbox(1, 0), relay.outbox(1, 0));
        // As large as what the other two wait for.
        assert!(hog.push(frame(&"0".repeat(2 * ONE - ITEM_OVERHEAD))).is_ok());
        let pushers = [pusher(&one, &["1"]), pusher(&two, &["2"])];
        hog.end();
        for pusher in pushers {
            assert!(pusher.join().unwrap());
        }
        relay.finish([&hog, &one, &two]);
    });
}

#[test]
fn who_leaves_the_budgets_line_passes_its_place_on() {
    model(|| {
        let relay = Relay::new(ONE);
        let (hog, leaving, staying) = (relay.outbox(1, 1), relay.outbox(1, 0), relay.outbox(1, 0));
        let mut turn = in_line(&leaving);
        let stays = pusher(&staying, &["1"]);
        let leaves = with(&leaving, move |outbox| outbox.leave(&mut turn));
        hog.end();
        assert!(stays.join().unwrap());
        leaves.join().unwrap();
        relay.finish([&hog, &leaving, &staying]);
    });
}

#[test]
fn who_is_cut_may_have_waited_for_the_budget() {
    model(|| {
        let relay = Relay::new(ONE);
        let (hog, closed, staying) = (relay.outbox(1, 1), relay.outbox(1, 0), relay.outbox(1, 0));
        let (waits, stays) = (pusher(&closed, &["1"]), pusher(&staying, &["2"]));
        cut(&closed);
        hog.end();
        waits.join().unwrap();
        closed.end();
        assert!(stays.join().unwrap());
        relay.finish([&hog, &closed, &staying]);
    });
}

#[test]
fn who_is_closed_while_first_in_the_budgets_line_passes_its_place_on_late() {
    for close in CLOSINGS {
        model(move || {
            let relay = Relay::new(ONE);
            let (hog, closed, staying) = (relay.outbox(1, 1), relay.outbox(1, 0), relay.outbox(1, 0));
            let mut turn = in_line(&closed);
            close(&closed);
            let stays = pusher(&staying, &["1"]);
            let leaves = with(&closed, move |outbox| {
                let polled = outbox.poll_push(&mut nobody(), &mut turn, &mut VecDeque::from([frame("a")]));
                assert_eq!(polled, Poll::Ready(false));
                outbox.leave(&mut turn);
            });
            hog.end();
            assert!(stays.join().unwrap());
            leaves.join().unwrap();
            relay.finish([&hog, &closed, &staying]);
        });
    }
}

#[test]
fn a_newcomer_may_overtake_the_budgets_line_and_holds_nobody_up() {
    model(|| {
        let relay = Relay::new(ONE);
        let (hog, phone, waits) = (relay.outbox(1, 1), relay.outbox(1, 0), relay.outbox(1, 0));
        let newcomer = with(&phone, |phone| {
            let _ = phone.push(frame("1"));
            phone.end();
        });
        let pusher = pusher(&waits, &["2"]);
        hog.end();
        assert!(pusher.join().unwrap());
        newcomer.join().unwrap();
        relay.finish([&hog, &phone, &waits]);
    });
}

#[test]
fn the_budget_is_never_exceeded() {
    model(|| {
        let budget = Arc::new(Budget::new(2));
        assert!(budget.try_take(Request { cost: 1, held: 0 }));
        let takers = [1, 2].map(|cost| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let taken = if budget.try_take(Request { cost, held: 0 }) { cost } else { 0 };
                assert!(budget.taken() <= 2);
                taken
            })
        });
        budget.give_back(1);
        let taken = takers.map(|taker| taker.join().unwrap()).iter().sum::<usize>();
        assert!(taken == 1 || taken == 2, "there was room for one of them");
        assert_eq!(budget.taken(), taken);
    });
}

#[test]
fn whatever_comes_in_around_the_end_is_settled() {
    model(|| {
        let relay = Relay::new(2 * ONE);
        let outbox = relay.outbox(2, 1);
        let pushes = with(&outbox, |outbox| outbox.push(frame("1")).is_ok());
        let waits = pusher(&outbox, &["2"]);
        let taken = take(&outbox, 1);
        outbox.end();
        outbox.settle(taken);
        pushes.join().unwrap();
        waits.join().unwrap();
        relay.finish([&outbox]);
    });
}

/// Looks at an outbox and at the budget when it is woken.
struct Looks {
    outboxes: Vec<Arc<Outbox>>,
    budget: Arc<Budget>,
    looking: AtomicBool,
    woken: AtomicUsize,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        // Looking may wake again.
        if !self.looking.swap(true, Ordering::SeqCst) {
            assert!(self.outboxes.iter().all(|outbox| outbox.charged() <= ONE));
            self.budget.give_back(0);
            self.looking.store(false, Ordering::SeqCst);
        }
    }
}

#[test]
fn nobody_is_woken_under_a_lock() {
    // One thread: a lock that it holds already is one that it waits for without end.
    model(|| {
        let relay = Relay::new(ONE);
        let [hog, one, two] = [relay.outbox(1, 1), relay.outbox(1, 0), relay.outbox(1, 0)];
        let looks = Arc::new(Looks {
            outboxes: [&hog, &one, &two].map(Arc::clone).to_vec(),
            budget: Arc::clone(&relay.budget),
            looking: AtomicBool::new(false),
            woken: AtomicUsize::new(0),
        });
        let waker = Waker::from(Arc::clone(&looks));
        let mut cx = Context::from_waker(&waker);
        let woken = |who| assert!(looks.woken.swap(0, Ordering::SeqCst) > 0, "{who} was not woken");
        let mut push = |outbox: &Outbox, turn: &mut Turn| {
            // The session looks, too, so that there is somebody to wake whatever happens to the outbox.
            outbox.poll_take(&mut cx, 0, &mut VecDeque::new());
            outbox.poll_push(&mut cx, turn, &mut VecDeque::from([frame("1")]))
        };
        let [mut first, mut second, mut other] = [Turn::default(), Turn::default(), Turn::default()];
        assert!(push(&one, &mut first).is_pending() && push(&one, &mut second).is_pending());
        assert!(push(&two, &mut other).is_pending());
        hog.settle(take(&hog, 1));
        woken("the first in the budget's line");
        assert_eq!(push(&one, &mut first), Poll::Ready(true));
        woken("the next in the budget's line");
        one.settle(take(&one, 1));
        woken("the first in the outbox's line");
        one.leave(&mut first);
        woken("the next in the outbox's line");
        assert!(push(&one, &mut second).is_pending());
        two.leave(&mut other);
        woken("the next in the budget's line");
        assert_eq!(push(&one, &mut second), Poll::Ready(true));
        woken("the session");
        for close in CLOSINGS {
            let outbox = relay.outbox(1, 0);
            assert!(push(&outbox, &mut Turn::default()).is_pending());
            close(&outbox);
            woken("whoever waits when the outbox closes");
        }
    });
}
