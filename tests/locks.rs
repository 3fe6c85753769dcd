//! Nobody's frames wait for a lock that is held for another server-id.
//!
//! An outbox replaces its session's waker under its lock, and the one that it replaces is dropped there. So whoever makes that
//! drop last has the lock held for as long as it likes: here until frames of another server-id were forwarded.
//! That the hub's lock is not on a frame's way is in `tests/boundaries.rs`: nothing outside the hub runs under it.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "support/hand_polled.rs"]
mod hand_polled;
#[path = "support/memory_socket.rs"]
mod memory_socket;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use hand_polled::Relay;
use memory_socket::text;
use pyrycode_relay::relay::outbox::Outbox;
use pyrycode_relay::relay::registry::ServerId;

/// How long forwarding may take until it counts as held up.
const DEADLINE: Duration = Duration::from_secs(20);

/// A waker whose end lasts until somebody lets it go.
struct LongGoodbye {
    began: Sender<()>,
    let_go: Mutex<Receiver<()>>,
}

impl Wake for LongGoodbye {
    fn wake(self: Arc<Self>) {}
}

impl Drop for LongGoodbye {
    fn drop(&mut self) {
        let _ = self.began.send(());
        // Also over when the other end is gone, as it is after a test that failed.
        let _ = self.let_go.get_mut().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

/// Polls as the outbox's session would.
fn take(outbox: &Outbox, waker: &Waker) {
    outbox.poll_take(&mut Context::from_waker(waker), 0, &mut VecDeque::new());
}

/// Forwards a frame each way under `mine`.
fn forwards(relay: &mut Relay) {
    let binary = relay.binary("mine");
    let (phone, conn_id) = relay.phone("mine", &binary);
    phone.send(&text("1"));
    relay.settle();
    let texts = binary.texts().unwrap();
    assert_eq!(texts.last(), Some(&format!(r#"{{"conn_id":"{conn_id}","frame":1}}"#)));
    binary.send(&text(&format!(r#"{{"conn_id":"{conn_id}","frame":2}}"#)));
    relay.settle();
    assert_eq!(phone.texts(), Ok(vec!["2".to_owned()]));
}

#[test]
fn frames_pass_while_the_locks_of_another_server_id_are_held() {
    let mut relay = Relay::new(Arc::new(()));
    let other: ServerId = ServerId::from("other");
    let (claim, _) = relay.hub.claim(&other).unwrap();
    let registration = relay.hub.register_phone(&other).unwrap();
    let outboxes = [Arc::clone(&claim.link().outbox), Arc::clone(&registration.link().outbox)];

    let held = outboxes.map(|outbox| {
        let ((began, has_begun), (let_go, lets_go)) = (channel(), channel());
        take(&outbox, &Waker::from(Arc::new(LongGoodbye { began, let_go: Mutex::new(lets_go) })));
        let holder = thread::spawn({
            let outbox = Arc::clone(&outbox);
            move || take(&outbox, Waker::noop())
        });
        has_begun.recv_timeout(DEADLINE).expect("the lock is held");
        // It is the lock: who needs it waits, now and until it is let go.
        let (got, has_got) = channel();
        let waits = thread::spawn(move || {
            let open = outbox.is_open();
            let _ = got.send(open);
        });
        assert!(has_got.recv_timeout(Duration::from_millis(100)).is_err(), "it is not the lock that is held");
        (let_go, has_got, [holder, waits])
    });

    let (done, is_done) = channel();
    let forwarder = thread::spawn(move || {
        forwards(&mut relay);
        let _ = done.send(());
    });
    let forwarded = is_done.recv_timeout(DEADLINE);
    let still_held = held.iter().all(|(_, has_got, _)| has_got.try_recv().is_err());
    for (let_go, has_got, threads) in held {
        drop(let_go);
        assert_eq!(has_got.recv_timeout(DEADLINE), Ok(true), "who waited for the lock has it in the end");
        for thread in threads {
            thread.join().unwrap();
        }
    }
    assert!(still_held, "the locks were not held all the while");
    assert_eq!(forwarded, Ok(()), "held up by another server-id");
    forwarder.join().unwrap();
}
