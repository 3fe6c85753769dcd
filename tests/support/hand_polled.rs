//! The relay's core with its tasks polled by hand, so that what happens in a poll is the relay's alone: no executor, and
//! sockets in memory that need no more of it once they had as much to carry as they will have again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use pyrycode_relay::relay::binary::{self, BinaryHello};
use pyrycode_relay::relay::clock::SystemClock;
use pyrycode_relay::relay::hub::Hub;
use pyrycode_relay::relay::observer::Observer;
use pyrycode_relay::relay::phone::{self, PhoneHello};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;

use crate::memory_socket::{Peer, pair, text};

/// Rounds after which the relay is taken to be busy for ever.
const ROUNDS: usize = 100_000;

/// Whether a task wants to be polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    woken: Arc<Woken>,
    waker: Waker,
    ended: bool,
}

/// A relay without an executor.
pub(crate) struct Relay {
    pub(crate) hub: Arc<Hub>,
    tasks: Vec<Task>,
}

impl Relay {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        let clock = Arc::<SystemClock>::default();
        Self { hub: Hub::new(Settings::default(), observer, clock), tasks: Vec::new() }
    }

    fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        self.tasks.push(Task { future: Box::pin(future), woken, waker, ended: false });
        self.settle();
    }

    /// Polls every task until it waits for a peer.
    pub(crate) fn settle(&mut self) {
        let rounds = (0..ROUNDS).take_while(|_| self.poll_the_woken()).count();
        assert!(rounds < ROUNDS, "a task is busy for ever");
    }

    /// Polls every task that was woken, once. Returns whether there was one.
    fn poll_the_woken(&mut self) -> bool {
        let mut any = false;
        for task in self.tasks.iter_mut().filter(|task| !task.ended) {
            if task.woken.0.swap(false, Ordering::SeqCst) {
                any = true;
                let poll = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
                task.ended = matches!(poll, Poll::Ready(()));
            }
        }
        any
    }

    /// A binary of `server_id`.
    pub(crate) fn binary(&mut self, server_id: &str) -> Peer {
        let (socket, peer) = pair();
        let hello = BinaryHello {
            server_id: ServerId::from(server_id),
            version: Box::default(),
            remote: [127, 0, 0, 1].into(),
        };
        self.spawn(binary::serve(Arc::clone(&self.hub), self.hub.enter(), socket, Vec::new(), hello));
        peer
    }

    /// A phone of `server_id` that has introduced itself to `binary` with one frame, and its `conn_id`.
    pub(crate) fn phone(&mut self, server_id: &str, binary: &Peer) -> (Peer, String) {
        let (socket, peer) = pair();
        let hello = PhoneHello {
            server_id: ServerId::from(server_id),
            device_name: None,
            remote: [127, 0, 0, 1].into(),
        };
        self.spawn(phone::serve(Arc::clone(&self.hub), self.hub.enter(), socket, Vec::new(), hello));
        peer.send(&text("\"hello\""));
        self.settle();
        let texts = binary.texts().unwrap_or_default();
        let hello: serde_json::Value =
            texts.last().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        assert_eq!(hello["frame"], "hello");
        (peer, hello["conn_id"].as_str().unwrap_or_default().to_owned())
    }
}
