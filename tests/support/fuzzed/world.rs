//! A relay, its clock and its peers, and the story that an input tells of them.

use std::sync::Arc;
use std::time::Duration;

use pyrycode_relay::relay::binary::{self, BinaryHello};
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::hub::Hub;
use pyrycode_relay::relay::observer::{Census, Counts, Endpoint};
use pyrycode_relay::relay::phone::{self, PhoneHello};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;
use smol::Executor;

use crate::clock::VirtualClock;
use crate::memory_socket::{Peer, frame, pair};
use crate::recording::Recording;
use crate::steps::{self, Step, Style};

/// Turns of the executor after which it is taken to be busy for ever.
const TURNS: usize = 100_000;

/// Connections in one story.
const MOST_CONNECTIONS: usize = 20;

/// Bytes of long messages and pings in one story.
const MOST_BYTES: usize = 100_000;

/// Small enough that a few frames fill every queue: the least that the configuration allows, but for the phones.
const SMALL: Settings = Settings {
    max_frame: 1024,
    phone_queue: 2 * 1024,
    binary_queue: 2 * 1024,
    phones_per_server: 2,
    ..Settings::DEFAULT
};

/// The settings that an input may choose.
const SETTINGS: [Settings; 4] = [
    Settings::DEFAULT,
    SMALL,
    Settings { all_queues: 2 * 1024, ..SMALL },
    Settings { phone_queue: 64 * 1024, ..SMALL },
];

const SERVER_IDS: [&str; 2] = ["fuzzed", "beside"];

/// Where a story has a `conn_id`, the digit at the end is the number of the connection that is meant.
const PLACEHOLDER: &[u8] = b"c-000000000000000";

/// What a binary may ask a phone to be closed with: nothing, legal codes and others.
const CLOSE_CODES: [&str; 8] = ["", "0", "1000", "4401", "4999", "1006", "5000", "-0"];

/// One connection and what is known of it.
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) endpoint: Endpoint,
    pub(crate) server: usize,
    pub(crate) sent: Vec<u8>,
    conn_id: Option<String>,
    hung_up: bool,
}

/// A relay on one executor with everybody who ever connected to it.
pub(crate) struct World {
    executor: Executor<'static>,
    clock: VirtualClock,
    pub(crate) settings: Settings,
    pub(crate) hub: Arc<Hub>,
    pub(crate) recording: Arc<Recording>,
    pub(crate) connections: Vec<Connection>,
    /// Bytes of long messages and pings that may still be sent.
    bytes_left: usize,
}

impl World {
    /// A relay with one binary and one phone that the binary knows, after everything that `input` tells.
    pub(crate) fn after(input: &[u8]) -> Self {
        let (first, steps) = steps::read(input);
        let mut world = Self::new(SETTINGS[usize::from(first) % SETTINGS.len()]);
        world.connect(true, 0);
        world.connect(false, u8::from(first & 0x80 == 0));
        for step in steps {
            world.step(&step);
        }
        world.settle();
        world
    }

    fn new(settings: Settings) -> Self {
        let (clock, recording) = (VirtualClock::new(), Arc::new(Recording::default()));
        let hub = Hub::new(settings, recording.clone(), Arc::new(clock.clone()));
        let executor = Executor::new();
        executor.spawn(Arc::clone(&hub).keep_grace()).detach();
        Self { executor, clock, settings, hub, recording, connections: Vec::new(), bytes_left: MOST_BYTES }
    }

    /// Runs every task until it waits for a peer or for time.
    fn settle(&self) {
        let turns = (0..TURNS).take_while(|_| self.executor.try_tick()).count();
        assert!(turns < TURNS, "a task is busy for ever");
        assert_eq!(self.hub.check_invariants(), Ok(()));
    }

    /// Lets time pass, alarm by alarm.
    fn wait(&self, time: Duration) {
        let until = self.clock.elapsed() + time;
        let mut rings = 0;
        while let Some(next) = self.clock.next_alarm().filter(|next| *next <= until) {
            self.clock.advance_to(next);
            self.settle();
            rings += 1;
            assert!(rings < 2000, "the alarm rings without an end");
        }
        self.clock.advance_to(until);
        self.settle();
    }

    fn connect(&mut self, is_binary: bool, flags: u8) {
        if self.connections.len() >= MOST_CONNECTIONS {
            return;
        }
        let (socket, peer) = pair();
        let server = usize::from(flags >> 1 & 1);
        let server_id = ServerId::from(SERVER_IDS[server]);
        let remote = [127, 0, 0, 1].into();
        let (hub, live, early) = (Arc::clone(&self.hub), self.hub.enter(), Vec::new());
        let endpoint = if is_binary {
            let hello = BinaryHello { server_id, version: Box::default(), remote };
            self.executor.spawn(binary::serve(hub, live, socket, early, hello)).detach();
            Endpoint::Server
        } else {
            let hello = PhoneHello { server_id, device_name: None, remote };
            self.executor.spawn(phone::serve(hub, live, socket, early, hello)).detach();
            Endpoint::Client
        };
        self.settle();
        let number = self.connections.len();
        let (conn_id, sent) = (None, Vec::new());
        self.connections.push(Connection { peer, endpoint, server, sent, conn_id, hung_up: false });
        if !is_binary && flags & 1 != 0 {
            let hello = format!("\"hello {number}\"");
            self.send_frame(number, 0x81, Style(1), hello.as_bytes());
            let end = format!(",\"frame\":{hello}}}");
            let met = self.connections.iter().filter(|other| other.endpoint == Endpoint::Server);
            // Whoever cannot be read to its last byte has not met anybody.
            let mut texts = met.flat_map(|other| other.peer.texts().unwrap_or_default());
            let known = texts.rfind(|text| text.ends_with(&end));
            self.connections[number].conn_id = known.and_then(|text| text.get(12..30).map(str::to_owned));
        }
    }

    /// So many bytes, or what is left of them.
    fn at_most(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.bytes_left);
        self.bytes_left -= bytes;
        bytes
    }

    /// The connection that a step is about.
    fn at(&self, who: u8) -> usize {
        usize::from(who) % self.connections.len()
    }

    /// The bytes with the `conn_id`s that are meant.
    fn named(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let mut from = 0;
        while let Some(found) =
            bytes[from..].windows(PLACEHOLDER.len()).position(|window| window == PLACEHOLDER)
        {
            let (start, end) = (from + found, from + found + PLACEHOLDER.len() + 1);
            let digit = bytes.get(end - 1).and_then(|digit| char::from(*digit).to_digit(16));
            let meant = digit.and_then(|number| self.connections.get(number as usize));
            if let Some(conn_id) = meant.and_then(|meant| meant.conn_id.as_ref()) {
                bytes[start..end].copy_from_slice(conn_id.as_bytes());
            }
            from = end.min(bytes.len());
        }
        bytes
    }

    fn send(&mut self, number: usize, bytes: &[u8], piece: usize, at_once: bool) {
        let connection = &mut self.connections[number];
        if connection.hung_up {
            return;
        }
        connection.sent.extend(bytes);
        // So many pieces that every place is a border, or a few hundred.
        let piece = if piece == 0 { bytes.len() } else { piece.max(bytes.len() / 300) };
        for piece in bytes.chunks(piece.max(1)) {
            self.connections[number].peer.send(piece);
            if !at_once {
                self.settle();
            }
        }
    }

    fn send_frame(&mut self, number: usize, first: u8, style: Style, payload: &[u8]) {
        let payload = self.named(payload);
        let mask = style.mask();
        let (least, beyond) = style.length();
        let length = payload.len() as u64 + beyond;
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match (least, length) {
            (1, 0..=125) => bytes.push(masked | u8::try_from(length).unwrap_or_default()),
            (1 | 3, 0..=0xffff) => {
                bytes.push(masked | 0x7e);
                bytes.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
            }
            _ => {
                bytes.push(masked | 0x7f);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(mask.iter().flatten());
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        if style.stops_short() {
            bytes.pop();
        }
        self.send(number, &bytes, style.piece(), style.at_once());
    }

    fn envelope(to: usize, frame: &str, close: &str) -> String {
        let (frame_key, close_key) = (
            if frame.is_empty() { "" } else { ",\"frame\":" },
            if close.is_empty() { "" } else { ",\"close_code\":" },
        );
        format!("{{\"conn_id\":\"c-000000000000000{to:x}\"{frame_key}{frame}{close_key}{close}}}")
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Raw { who, piece, bytes } => {
                let bytes = self.named(bytes);
                self.send(self.at(who), &bytes, piece, false);
            }
            Step::Frame { who, first, style, payload } => {
                self.send_frame(self.at(who), first, style, payload);
            }
            Step::Envelope { who, to, close, style, frame } => {
                let close = CLOSE_CODES[usize::from(close) % CLOSE_CODES.len()];
                let frame = String::from_utf8_lossy(frame);
                let text = Self::envelope(self.at(to) % 16, &frame, close);
                self.send_frame(self.at(who), 0x81, style, text.as_bytes());
            }
            Step::Long { who, to, style, length } => {
                let mut text = format!("\"{}\"", "x".repeat(self.at_most(length)));
                let number = self.at(who);
                if self.connections[number].endpoint == Endpoint::Server {
                    text = Self::envelope(self.at(to) % 16, &text, "");
                }
                self.send_frame(number, 0x81, style, text.as_bytes());
            }
            Step::Pings { who, count } => {
                let ping = frame(0x89, &[b'p'; 125]);
                let bytes = ping.repeat(self.at_most(count * ping.len()) / ping.len());
                self.send(self.at(who), &bytes, 0, false);
            }
            Step::Accept { who, room } => {
                self.connections[self.at(who)].peer.accept(room.unwrap_or(usize::MAX));
                self.settle();
            }
            Step::FailWrites { who } => {
                let number = self.at(who);
                self.connections[number].peer.fail_writes();
            }
            Step::HangUp { who } => {
                let number = self.at(who);
                self.connections[number].hung_up = true;
                self.connections[number].peer.hang_up();
                self.settle();
            }
            Step::Wait { millis } => self.wait(Duration::from_millis(millis)),
            Step::Connect { binary, flags } => self.connect(binary, flags),
            Step::Operator { what } => self.operate(what),
        }
    }

    fn operate(&self, what: u8) {
        let close = Close::ShuttingDown { retry_after: 5 };
        match what % 3 {
            0 => self.hub.close_server(&ServerId::from(SERVER_IDS[0]), close),
            1 => {
                for server_id in self.hub.begin_drain(close) {
                    self.hub.close_server(&server_id, close);
                }
            }
            _ => self.hub.cut_everybody(close),
        }
        self.settle();
    }

    /// Every peer takes all that there is for it.
    pub(crate) fn take_all(&self) {
        self.connections.iter().for_each(|connection| connection.peer.accept_all());
        self.settle();
    }

    /// Everybody hangs up. Afterwards, without any time passing, nobody may be left.
    pub(crate) fn hang_up(&self) {
        self.connections.iter().for_each(|connection| connection.peer.hang_up());
        self.settle();
        assert_eq!(self.hub.live(), 0, "a session outlives its peers");
        self.wait(self.settings.grace + self.settings.conflict_probe);
        assert_eq!(self.hub.count(), Counts::default());
        assert_eq!(self.clock.alarms(), 0, "somebody waits for a time");
    }
}
