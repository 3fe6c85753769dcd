//! What clients do, as chance has it.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::drain::{close_in_turn, moments};
use pyrycode_relay::relay::observer::Endpoint;
use pyrycode_relay::relay::settings::Settings;

use crate::client::{Client, frame};
use crate::closes::RETRY_AFTER;
use crate::world::World;

/// The most connections of one simulation.
const CONNECTIONS: usize = 40;

/// One thing that somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Binary,
    Phone,
    Message,
    Flood,
    Part,
    GoOn,
    Ping,
    PingFlood,
    Stall,
    Trickle,
    Resume,
    Silent,
    Vanish,
    Close,
    HangUp,
    Reset,
    Nonsense,
    TooBig,
    Pass,
    Drain,
    Cut,
    Crowd,
}

/// How likely each is. For each seed they are weighed anew, so that each has its own kind of trouble.
const WEIGHTS: [(Action, u32); 22] = [
    (Action::Binary, 10),
    (Action::Phone, 14),
    (Action::Message, 60),
    (Action::Flood, 14),
    (Action::Part, 12),
    (Action::GoOn, 16),
    (Action::Ping, 8),
    (Action::PingFlood, 1),
    (Action::Stall, 9),
    (Action::Trickle, 14),
    (Action::Resume, 8),
    (Action::Silent, 4),
    (Action::Vanish, 3),
    (Action::Close, 3),
    (Action::HangUp, 4),
    (Action::Reset, 2),
    (Action::Nonsense, 3),
    (Action::TooBig, 1),
    (Action::Pass, 40),
    (Action::Drain, 1),
    (Action::Cut, 1),
    (Action::Crowd, 1),
];

/// Settings under which limits are met often.
pub(crate) fn settings(rng: &mut Rng) -> Settings {
    let max_frame = if rng.u8(..8) == 0 { rng.usize(50_000..150_000) } else { rng.usize(200..2000) };
    let item = max_frame + 200;
    let millis = |rng: &mut Rng, range| Duration::from_millis(rng.u64(range));
    Settings {
        grace: millis(rng, 200..6000),
        ping_interval: millis(rng, 200..5000),
        pong_timeout: millis(rng, 100..5000),
        conflict_probe: millis(rng, 100..3000),
        message_timeout: millis(rng, 200..5000),
        // Often so long that a phone whose binary does not read outlasts every other deadline.
        write_timeout: if rng.u8(..3) == 0 { millis(rng, 5000..30_000) } else { millis(rng, 100..5000) },
        phones_per_server: rng.usize(1..6),
        max_frame,
        phone_queue: rng.usize(item / 2..item * 4),
        binary_queue: rng.usize(item..item * 4),
        all_queues: if rng.bool() { rng.usize(item..item * 3) } else { item * 100 },
    }
}

/// The actions of this seed, each as likely as this.
pub(crate) fn weights(rng: &mut Rng) -> Vec<(Action, u32)> {
    WEIGHTS
        .into_iter()
        .map(|(action, weight)| {
            let keep = matches!(action, Action::Binary | Action::Phone | Action::Message | Action::Pass);
            let factor = if keep { rng.u32(1..4) } else { rng.u32(0..4) };
            (action, weight * factor)
        })
        .collect()
}

/// One of them.
pub(crate) fn choose(rng: &mut Rng, weights: &[(Action, u32)]) -> Action {
    let mut left = rng.u32(..weights.iter().map(|(_, weight)| weight).sum::<u32>());
    for (action, weight) in weights {
        if left < *weight {
            return *action;
        }
        left -= weight;
    }
    Action::Pass
}

impl World {
    pub(crate) fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Binary => self.newcomer(Endpoint::Server),
            Action::Phone => self.newcomer(Endpoint::Client),
            Action::Pass => {
                let all_the_way = self.rng.bool();
                self.advance(all_the_way)?;
            }
            Action::Drain => self.drain(),
            Action::Cut => self.cut_all(),
            Action::Crowd => self.crowd(),
            action => {
                let able: Vec<usize> = (0..self.conns.len())
                    .filter(|number| self.executor.is_running(self.conns[*number].task))
                    .collect();
                if !able.is_empty() {
                    let number = able[self.rng.usize(..able.len())];
                    self.act_as(number, action);
                }
            }
        }
        Ok(())
    }

    fn newcomer(&mut self, endpoint: Endpoint) {
        let server = self.rng.usize(..self.slots.len());
        self.dial_to(endpoint, server);
    }

    /// Many binaries want the same server-id; now and then its holder is silent.
    fn crowd(&mut self) {
        let server = self.rng.usize(..self.slots.len());
        let silent = self.rng.bool();
        if let Some(slot) = self.slots[server].filter(|_| silent) {
            self.conns[slot.binary].client.silent = true;
        }
        for _ in 0..self.rng.usize(4..11) {
            self.dial_to(Endpoint::Server, server);
        }
    }

    /// Somebody dials, and often says something at once.
    pub(crate) fn dial_to(&mut self, endpoint: Endpoint, server: usize) {
        if self.conns.len() >= CONNECTIONS {
            return;
        }
        let client = Client::new(self.clock.clone());
        client.line.borrow_mut().flushes = self.rng.u8(..4) == 0;
        client.line.borrow_mut().seals = self.rng.u8(..3) == 0;
        if self.rng.u8(..4) == 0 {
            let mut line = client.line.borrow_mut();
            // A large frame in pieces of one byte would take all the time there is.
            let scale = 1 + self.settings.max_frame / 1000;
            line.read_chunk = self.rng.usize(1..60) * scale;
            line.write_chunk = self.rng.usize(1..400) * scale;
        }
        let number = self.dial(endpoint, server, client);
        self.note(|| format!("{endpoint:?} {number} dials server-{server}"));
        match self.rng.u8(..16) {
            0 => self.act_as(number, Action::Close),
            1 => self.part(number),
            2 => self.ping(number),
            3..11 => self.message(number),
            _ => {}
        }
        let early = if self.rng.bool() {
            self.conns[number].client.line.borrow_mut().take_early()
        } else {
            Vec::new()
        };
        self.serve(number, early);
    }

    fn act_as(&mut self, number: usize, action: Action) {
        self.note(|| format!("{number}: {action:?}"));
        let client = &mut self.conns[number].client;
        let line = std::rc::Rc::clone(&client.line);
        match action {
            Action::Stall => line.borrow_mut().accept(0),
            Action::Trickle => line.borrow_mut().accept(self.rng.usize(1..200)),
            Action::Resume => {
                client.silent = false;
                line.borrow_mut().accept(usize::MAX);
                client.pay_pongs();
            }
            Action::Silent => client.silent = true,
            Action::Vanish => {
                client.silent = true;
                line.borrow_mut().accept(0);
            }
            Action::Reset => {
                client.ends.reset = true;
                line.borrow_mut().fail_writes();
            }
            Action::HangUp => {
                client.ends.hung_up = true;
                line.borrow_mut().hang_up();
            }
            Action::Close if client.can_begin() => {
                let codes = [None, Some(1000), Some(1001), Some(3000), Some(4401), Some(1005), Some(999)];
                let code = codes[self.rng.usize(..codes.len())];
                client.send_raw(&frame(
                    0x88,
                    &code.map(u16::to_be_bytes).unwrap_or_default()[..code.map_or(0, |_| 2)],
                ));
                if matches!(code, Some(999 | 1005)) {
                    client.ends.broke_rules = true;
                } else {
                    client.ends.closed = true;
                    client.ends.code = code;
                }
            }
            Action::TooBig if client.can_begin() => {
                let extra = if self.conns[number].endpoint == Endpoint::Server { 1025 } else { 1 };
                let length = (self.settings.max_frame + extra) as u64;
                let header = [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
                let client = &mut self.conns[number].client;
                client.send_raw(&header);
                client.ends.too_big = true;
            }
            Action::GoOn => {
                let (all, piece) = self.conns[number].client.left();
                let count = [all, piece, self.rng.usize(..=all)][self.rng.usize(..3)];
                self.send_some(number, count);
            }
            Action::Message => self.message(number),
            Action::Flood => {
                for _ in 0..self.rng.usize(2..30) {
                    self.message(number);
                }
            }
            Action::Part => self.part(number),
            Action::Ping => self.ping(number),
            Action::PingFlood => {
                if self.rng.u8(..8) == 0 {
                    // More than the relay wants to answer at a time, to somebody who does not take the answers.
                    line.borrow_mut().accept(0);
                    for _ in 0..700 {
                        self.ping_of(number, 125);
                    }
                } else {
                    for _ in 0..self.rng.usize(2..30) {
                        self.ping(number);
                    }
                }
            }
            Action::Nonsense => self.nonsense(number),
            _ => {}
        }
    }

    /// Begins to shut down, as the service does.
    fn drain(&mut self) {
        if self.draining || self.conns.len() < CONNECTIONS / 3 {
            return;
        }
        self.draining = true;
        self.coverage.saw("drain");
        let close = Close::ShuttingDown { retry_after: RETRY_AFTER };
        let mut servers = self.hub.begin_drain(close);
        servers.sort();
        let spread = Duration::from_millis(self.rng.u64(0..4000));
        let moments = moments(servers, spread, || Some(self.rng.u64(..)));
        for (moment, server_id) in &moments {
            let server = server_id.strip_prefix("server-").and_then(|server| server.parse::<usize>().ok());
            if let Some(server) = server {
                self.moments[server] = Some(self.now() + *moment);
            }
        }
        self.note(|| format!("drain: {moments:?}"));
        let hub = Arc::clone(&self.hub);
        self.spawn(
            async move {
                close_in_turn(&hub, moments, close).await;
                hub.emptied().await;
            },
            None,
        );
    }

    /// A second signal, or the end of the drain's time.
    fn cut_all(&mut self) {
        if self.draining {
            self.cut = true;
            self.coverage.saw("drain cut");
            self.note(|| "cut".to_owned());
            self.hub.cut_everybody(Close::ShuttingDown { retry_after: RETRY_AFTER });
        }
    }

    /// From now on everybody does what it should: takes everything, finishes its message, answers.
    pub(crate) fn behave(&mut self) {
        for number in 0..self.conns.len() {
            let client = &mut self.conns[number].client;
            client.silent = false;
            client.line.borrow_mut().accept(usize::MAX);
            if client.can_send() {
                let (all, _) = client.left();
                self.send_some(number, all);
            }
            self.conns[number].client.pay_pongs();
        }
    }

    /// Everybody goes away.
    pub(crate) fn leave(&mut self) {
        for conn in &mut self.conns {
            conn.client.ends.hung_up = true;
            conn.client.line.borrow_mut().hang_up();
        }
    }
}
