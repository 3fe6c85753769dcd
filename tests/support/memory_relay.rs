//! The relay's core on one executor, with peers in memory. Nothing waits for time: after each thing that a peer does, the
//! executor runs until no task can move.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::sync::Arc;

use pyrycode_relay::relay::binary::{self, BinaryHello};
use pyrycode_relay::relay::clock::{Clock, SystemClock};
use pyrycode_relay::relay::hub::Hub;
use pyrycode_relay::relay::observer::{Census, Endpoint};
use pyrycode_relay::relay::phone::{self, PhoneHello};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;
use smol::Executor;

use crate::memory_socket::{Peer, pair, text};
use crate::recording::Recording;

/// Turns of the executor after which it is taken to be busy for ever.
const TURNS: usize = 100_000;

/// A relay on one executor, and what it counted.
pub(crate) struct Relay {
    pub(crate) executor: Executor<'static>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) recording: Arc<Recording>,
}

impl Relay {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::with_clock(settings, Arc::<SystemClock>::default())
    }

    /// One that goes by another clock than the system's.
    pub(crate) fn with_clock(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let recording = Arc::new(Recording::default());
        let hub = Hub::new(settings, recording.clone(), clock);
        Self { executor: Executor::new(), hub, recording }
    }

    /// Runs every task until it waits for a peer.
    pub(crate) fn settle(&self) {
        let turns = (0..TURNS).take_while(|_| self.executor.try_tick()).count();
        assert!(turns < TURNS, "a task is busy for ever");
    }

    pub(crate) fn binary(&self) -> Peer {
        let (socket, peer) = pair();
        let hello = BinaryHello {
            server_id: ServerId::from("counted"),
            version: Box::default(),
            remote: [127, 0, 0, 1].into(),
        };
        self.executor
            .spawn(binary::serve(Arc::clone(&self.hub), self.hub.enter(), socket, Vec::new(), hello))
            .detach();
        self.settle();
        peer
    }

    pub(crate) fn phone(&self) -> Peer {
        let (socket, peer) = pair();
        let hello = PhoneHello {
            server_id: ServerId::from("counted"),
            device_name: None,
            remote: [127, 0, 0, 1].into(),
        };
        self.executor
            .spawn(phone::serve(Arc::clone(&self.hub), self.hub.enter(), socket, Vec::new(), hello))
            .detach();
        self.settle();
        peer
    }

    /// A phone that has introduced itself to `binary` with one frame, and its `conn_id`.
    pub(crate) fn known_phone(&self, binary: &Peer) -> (Peer, String) {
        let phone = self.phone();
        self.send(&phone, &text("\"hello\""));
        let texts = binary.texts().unwrap_or_default();
        let hello: serde_json::Value =
            texts.last().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        assert_eq!(hello["frame"], "hello");
        (phone, hello["conn_id"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn send(&self, peer: &Peer, bytes: &[u8]) {
        peer.send(bytes);
        self.settle();
    }

    /// Ends every connection. Afterwards nothing may be left of them.
    pub(crate) fn end(self, peers: &[&Peer]) {
        for peer in peers {
            peer.accept_all();
            peer.hang_up();
        }
        self.settle();
        assert_eq!((self.hub.live(), self.hub.count().connected_phones), (0, 0));
        assert_eq!(Endpoint::ALL.map(|endpoint| self.recording.queued_bytes(endpoint)), [0, 0]);
        assert_eq!(self.hub.check_invariants(), Ok(()));
    }
}

pub(crate) fn to(conn_id: &str, frame: &str) -> Vec<u8> {
    text(&format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#))
}

pub(crate) fn close_frame(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (0x88, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

pub(crate) fn text_frame(text: &str) -> (u8, Vec<u8>) {
    (0x81, text.as_bytes().to_vec())
}
