//! Grace periods, their expiry and their counters, on the real hub (PROTOCOL §§ 2, 6).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;
use pyrycode_relay::relay::clock::SystemClock;
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::hub::{Claimed, Hub, PhoneRefused, PhoneRegistration};
use pyrycode_relay::relay::item::{Frame, Item};
use pyrycode_relay::relay::observer::{Census, Counts, DropReason, Endpoint};
use pyrycode_relay::relay::outbox::{Cut, Outbox, Refused};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;
use smol::LocalExecutor;

#[path = "support/recording.rs"]
mod recording;

use recording::Recording;

/// How long a test waits for a fact before it fails.
const DEADLINE: Duration = Duration::from_secs(10);

const GRACE: Duration = Duration::from_secs(30);

fn hub(grace: Duration) -> (Arc<Hub>, Arc<Recording>) {
    let recording = Arc::new(Recording::default());
    let clock = SystemClock::default();
    let keeping = clock.clone().keep();
    std::thread::spawn(|| async_io::block_on(keeping));
    let settings = Settings { grace, ..Settings::default() };
    (Hub::new(settings, recording.clone(), Arc::new(clock)), recording)
}

fn far_future() -> Instant {
    Instant::now() + 1000 * GRACE
}

fn cut_of(outbox: &Outbox) -> Option<Cut> {
    outbox.poll_take(&mut Context::from_waker(Waker::noop()), 0, &mut VecDeque::new()).cut
}

fn frame() -> Item {
    Item::Frame(Frame { text: "1".into(), payload: 1, read_at: Instant::now() })
}

fn counts(connected_binaries: usize, connected_phones: usize, gracing_binaries: usize) -> Counts {
    Counts { connected_binaries, connected_phones, gracing_binaries }
}

fn phone(hub: &Arc<Hub>, id: &ServerId) -> PhoneRegistration {
    let phone = hub.register_phone(id);
    assert!(phone.is_ok(), "{phone:?}");
    phone.unwrap_or_else(|_| unreachable!())
}

#[test]
fn grace_counts_only_real_evictions() {
    let (hub, recording) = hub(GRACE);
    let id = ServerId::from("counted");
    let (claim, claimed) = hub.claim(&id).unwrap();
    assert_eq!(claimed, Claimed::Fresh);
    let early_bird = phone(&hub, &id);

    // Released and reclaimed: the first timer, when it fires, is stale.
    drop(claim);
    assert_eq!(hub.count(), counts(0, 1, 1));
    let (claim, claimed) = hub.claim(&id).unwrap();
    assert_eq!(claimed, Claimed::Reclaimed { phones: 1 });
    let reclaimed = Cut { close: Close::BinaryReclaimed, reason: DropReason::ReceiverClosed };
    assert_eq!(cut_of(&early_bird.link().outbox), Some(reclaimed));
    assert_eq!((recording.reclaims(), recording.evicted()), (1, 1));
    let bystander = phone(&hub, &id);
    hub.expire_due(Instant::now() + 2 * GRACE);
    assert_eq!(recording.grace_expiries(), 0, "a stale fire was counted");
    assert_eq!(cut_of(&bystander.link().outbox), None, "a stale fire evicted somebody");
    assert_eq!(hub.count(), counts(1, 1, 0));

    // Released, reclaimed and released: the first timer of these two is stale, though the slot is gracing again.
    drop(claim);
    let between = Instant::now();
    let (claim, claimed) = hub.claim(&id).unwrap();
    assert_eq!(claimed, Claimed::Reclaimed { phones: 1 });
    let waiting = [phone(&hub, &id), phone(&hub, &id)];
    while Instant::now() == between {}
    drop(claim);
    hub.expire_due(between + GRACE);
    assert_eq!((recording.grace_expiries(), hub.count()), (0, counts(0, 2, 1)));
    let late_comer = phone(&hub, &id);

    // Nobody comes: the phones are gone before the counter moves.
    let outboxes: Vec<_> =
        waiting.iter().chain([&late_comer]).map(|phone| Arc::clone(&phone.link().outbox)).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    recording.before_expiry({
        let (asked, hub, recording) = (Arc::clone(&asked), Arc::clone(&hub), Arc::downgrade(&recording));
        move || {
            let expired = Cut { close: Close::BinaryDidNotReconnect, reason: DropReason::ReceiverClosed };
            assert!(outboxes.iter().all(|outbox| cut_of(outbox) == Some(expired)));
            assert!(outboxes.iter().all(|outbox| outbox.push(frame()) == Err(Refused::Closed)));
            // The hub answers: it is not locked while it reports.
            assert_eq!(hub.count(), counts(0, 0, 0));
            assert_eq!(recording.upgrade().map(|recording| recording.grace_expiries()), Some(0));
            asked.fetch_add(1, Ordering::SeqCst);
        }
    });
    hub.expire_due(Instant::now() + GRACE);
    assert_eq!((recording.grace_expiries(), asked.load(Ordering::SeqCst)), (1, 1));
    assert!(matches!(hub.register_phone(&id), Err(PhoneRefused::NoServer)));

    // The phones' sessions notice and leave; no timer is left.
    drop((early_bird, bystander, waiting, late_comer));
    hub.expire_due(Instant::now() + 10 * GRACE);
    assert_eq!((recording.grace_expiries(), recording.reclaims(), recording.evicted()), (1, 2, 2));
    assert_eq!((hub.count(), hub.check_invariants()), (counts(0, 0, 0), Ok(())));
}

#[test]
fn an_expiry_is_due_at_its_deadline_and_not_before() {
    let (hub, recording) = hub(GRACE);
    let before = Instant::now();
    drop(hub.claim(&ServerId::from("punctual")).unwrap());
    let after = Instant::now();
    hub.expire_due(before + GRACE.saturating_sub(Duration::from_nanos(1)));
    assert_eq!((recording.grace_expiries(), hub.count()), (0, counts(0, 0, 1)));
    hub.expire_due(after + GRACE);
    assert_eq!((recording.grace_expiries(), hub.count()), (1, counts(0, 0, 0)));
}

/// What the workers of one run saw.
#[derive(Default)]
struct Seen {
    fresh: AtomicU64,
    reclaimed: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl Seen {
    fn work(&self, hub: &Arc<Hub>, ids: &[ServerId], worker: usize) {
        for round in 0..200 {
            let id = &ids[(worker + round) % ids.len()];
            // Somebody else may hold it: it is tried until it is had.
            let until = Instant::now() + DEADLINE;
            let (claim, claimed) = loop {
                if let Ok(claim) = hub.claim(id) {
                    break claim;
                }
                self.refused.fetch_add(1, Ordering::SeqCst);
                assert!(Instant::now() < until, "{id} is held for ever");
                thread::yield_now();
            };
            assert!(!matches!(claimed, Claimed::TakenOver { .. }), "nobody probes here");
            match claimed {
                Claimed::Fresh => self.fresh.fetch_add(1, Ordering::SeqCst),
                Claimed::Reclaimed { phones } | Claimed::TakenOver { phones } => {
                    self.evicted.fetch_add(phones as u64, Ordering::SeqCst);
                    self.reclaimed.fetch_add(1, Ordering::SeqCst)
                }
            };
            // Nobody else may have it now, and a phone finds this very binary.
            assert!(hub.claim(id).is_err());
            let phone = hub.register_phone(id).ok();
            assert!(phone.as_ref().is_none_or(|phone| Arc::ptr_eq(phone.binary(), claim.link())));
            if round % 3 == 0 {
                drop(phone);
                drop(claim);
            } else {
                // The phone outlives its binary: into the grace period, and perhaps beyond it.
                drop(claim);
                thread::yield_now();
                drop(phone);
            }
            if round % 7 == 0 {
                hub.expire_due(far_future());
            }
        }
    }

    fn all(&self) -> [u64; 4] {
        [&self.fresh, &self.reclaimed, &self.evicted, &self.refused].map(|count| count.load(Ordering::SeqCst))
    }
}

#[test]
fn counters_survive_concurrent_claim_release_cycles() {
    const WORKERS: usize = 16;
    let (hub, recording) = hub(GRACE);
    let ids: Vec<ServerId> = (0..5).map(|id| ServerId::from(format!("shared-{id}"))).collect();
    let seen = Seen::default();
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (seen, hub, ids) = (&seen, &hub, &ids);
                scope.spawn(move || seen.work(hub, ids, worker))
            })
            .collect();
        // Every grace period is over at once, for whoever comes in between.
        let keeper = scope.spawn(|| {
            while working.load(Ordering::SeqCst) {
                hub.expire_due(far_future());
                assert_eq!(hub.check_invariants(), Ok(()));
                thread::yield_now();
            }
        });
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        working.store(false, Ordering::SeqCst);
        assert!(results.iter().all(Result::is_ok), "a worker failed");
        assert!(keeper.join().is_ok(), "the keeper failed");
    });

    let [fresh, reclaimed, evicted, refused] = seen.all();
    let claims = (WORKERS * 200) as u64;
    assert_eq!(fresh + reclaimed, claims, "{refused} refused");
    assert!(
        fresh > ids.len() as u64 && reclaimed > 0,
        "{fresh} fresh, {reclaimed} reclaimed: nothing was tried"
    );
    let counted = hub.count();
    assert_eq!((counted.connected_binaries, counted.connected_phones), (0, 0));
    // Every claim was released; every release was reclaimed, expired or still waits. And every fresh claim found
    // its server-id free: for the first time, or because of an expiry.
    let waiting = counted.gracing_binaries as u64;
    assert_eq!(recording.grace_expiries() + reclaimed + waiting, claims);
    assert_eq!(recording.grace_expiries(), fresh - waiting);
    assert_eq!((recording.reclaims(), recording.evicted()), (reclaimed, evicted));

    hub.expire_due(far_future());
    assert_eq!(recording.grace_expiries(), fresh);
    assert_eq!((hub.count(), hub.check_invariants()), (Counts::default(), Ok(())));
    assert_eq!(recording.queued_bytes(Endpoint::Client), 0);
}

/// Runs the keeper, as a task of its own, until `done`. Returns how often it was polled.
fn keep_until(hub: &Arc<Hub>, done: impl Future<Output = ()>) -> usize {
    let polls = Arc::new(AtomicUsize::new(0));
    let executor = LocalExecutor::new();
    let mut keeper = Box::pin(Arc::clone(hub).keep_grace());
    let keeper = executor.spawn(poll_fn({
        let polls = Arc::clone(&polls);
        move |cx| {
            polls.fetch_add(1, Ordering::SeqCst);
            keeper.as_mut().poll(cx)
        }
    }));
    let done = async {
        done.await;
        true
    };
    let late = async {
        Timer::after(DEADLINE).await;
        false
    };
    let finished = future::block_on(executor.run(future::or(done, late)));
    assert!(finished, "not within {DEADLINE:?}");
    assert!(!keeper.is_finished(), "the keeper ended");
    polls.load(Ordering::SeqCst)
}

/// Lets a future wait for reported expiries.
#[derive(Clone, Default)]
struct Expiries(Arc<Mutex<(Vec<Instant>, Option<Waker>)>>);

impl Expiries {
    fn of(recording: &Recording) -> Self {
        let expiries = Self::default();
        let reported = expiries.clone();
        recording.before_expiry(move || {
            let mut state = reported.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            state.0.push(Instant::now());
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        });
        expiries
    }

    /// Waits for the first `count`, and returns when each of them was.
    async fn reached(&self, count: usize) -> Vec<Instant> {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if state.0.len() >= count {
                return Poll::Ready(state.0.clone());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[test]
fn one_keeper_ends_every_grace_period_at_its_time() {
    let grace = Duration::from_millis(50);
    let (hub, recording) = hub(grace);
    let expiries = Expiries::of(&recording);
    let mut released = Vec::new();
    let polls = keep_until(&hub, async {
        // Armed while the keeper waits for the first, while it sleeps on an earlier one, and while it is idle again.
        for (round, pause) in [0_u64, 10, 20, 0, 0].into_iter().enumerate() {
            if pause == 0 {
                expiries.reached(released.len()).await;
            } else {
                Timer::after(Duration::from_millis(pause)).await;
            }
            let id = ServerId::from(format!("timed-{round}"));
            let claim = hub.claim(&id);
            assert!(claim.is_ok(), "{claim:?}");
            released.push(Instant::now());
        }
        expiries.reached(released.len()).await;
    });
    let ended = future::block_on(expiries.reached(5));
    assert_eq!((ended.len(), recording.grace_expiries()), (5, 5));
    for (began, ended) in released.iter().zip(&ended) {
        let took = *ended - *began;
        assert!(took >= grace, "{took:?}: too early");
        assert!(took < grace + Duration::from_secs(2), "{took:?}: too late");
    }
    assert_eq!((hub.count(), hub.check_invariants()), (Counts::default(), Ok(())));
    assert!(polls < 60, "polled {polls} times for five periods");
}

#[test]
fn a_cancelled_period_costs_the_keeper_one_look_and_a_replaced_one_ends_later() {
    let grace = Duration::from_millis(50);
    let (hub, recording) = hub(grace);
    let expiries = Expiries::of(&recording);
    let id = ServerId::from("replaced");
    let began = Mutex::new(Instant::now());
    let polls = keep_until(&hub, async {
        drop(hub.claim(&id));
        Timer::after(Duration::from_millis(25)).await;
        let again = hub.claim(&id);
        assert!(matches!(again, Ok((_, Claimed::Reclaimed { phones: 0 }))), "{again:?}");
        *began.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        drop(again);
        expiries.reached(1).await;
    });
    let ended = future::block_on(expiries.reached(1));
    let began = *began.lock().unwrap();
    assert!(ended[0] >= began + grace, "the first timer ended the second period");
    assert_eq!((recording.grace_expiries(), recording.reclaims()), (1, 1));
    assert_eq!(hub.count(), Counts::default());
    assert!(polls < 30, "polled {polls} times for two periods");
}
