//! Closed loop: so many frames are under way, a binary sends each back to the phone that it is from, and when one is back the
//! next goes.

use std::ops::Range;
use std::time::Instant;

use super::Figures;
use super::clients::{Clients, Play};
use super::dial::Dialler;
use super::meter::{Durations, Meter};
use super::phones::{Frames, Phones};
use crate::Result;
use crate::case::{IDLE_PHONES, Order};

/// Servers beyond this number have the connections that say nothing.
const NEIGHBOURS: usize = 10_000;

/// Who sends when a frame is back.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// The phone that got it.
    Same,
    /// The next in a row, of all.
    InTurn,
}

pub(crate) struct Echo {
    pub(crate) phones: Phones,
    lanes: Vec<Lane>,
    next: Next,
    turn: usize,
    /// Of each phone, or of all that take turns.
    in_flight: usize,
    /// Frames that were forwarded, in both directions.
    pub(crate) forwarded: u64,
    pub(crate) is_recording: bool,
    /// Whether no more frames are sent.
    is_ending: bool,
    pub(crate) round_trips: Durations,
}

/// One phone's traffic.
struct Lane {
    sent: Frames,
    at_binary: Frames,
    back: Frames,
    /// When each frame that is under way was sent, by its number.
    times: Vec<Instant>,
}

impl Echo {
    pub(crate) fn new(phones: Phones, len: usize, in_flight: usize, next: Next) -> Result<Self> {
        let frames = |phone| Frames::new(phone, len);
        let lanes = (0..phones.list.len()).map(|phone| {
            let times = vec![Instant::now(); in_flight];
            Ok(Lane { sent: frames(phone)?, at_binary: frames(phone)?, back: frames(phone)?, times })
        });
        let lanes = lanes.collect::<Result<Vec<_>>>()?;
        let (turn, forwarded, round_trips) = (0, 0, Durations::new()?);
        let (is_recording, is_ending) = (false, false);
        Ok(Self { phones, lanes, next, turn, in_flight, forwarded, is_recording, is_ending, round_trips })
    }

    /// Sends the first frames.
    pub(crate) fn begin(&mut self, clients: &mut Clients) -> Result<()> {
        let rounds = if self.next == Next::Same { self.lanes.len() } else { 1 };
        for number in 0..rounds * self.in_flight {
            self.send(clients, number % self.lanes.len());
        }
        self.turn = self.in_flight % self.lanes.len();
        clients.flush()
    }

    /// Sends no more.
    pub(crate) fn stop(&mut self) {
        self.is_recording = false;
        self.is_ending = true;
    }

    /// Whether everything that was sent has come back.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lanes.iter().all(|lane| lane.sent.next == lane.back.next)
    }

    #[inline]
    fn send(&mut self, clients: &mut Clients, phone: usize) {
        let lane = &mut self.lanes[phone];
        let slot = lane.sent.next as usize % lane.times.len();
        lane.times[slot] = Instant::now();
        clients.send(self.phones.list[phone].client, lane.sent.make());
    }
}

impl Play for Echo {
    #[inline]
    fn message(&mut self, clients: &mut Clients, index: usize, message: &[u8], now: Instant) -> Result<()> {
        self.forwarded += 1;
        let Some(phone) = self.phones.at(index) else {
            let (phone, frame) = self.phones.open(index, message)?;
            self.lanes[phone].at_binary.check(frame)?;
            clients.send(index, message);
            return Ok(());
        };
        let lane = &mut self.lanes[phone];
        let slot = lane.back.next as usize % lane.times.len();
        lane.back.check(message)?;
        if self.is_recording {
            self.round_trips.record(now - lane.times[slot])?;
        }
        match self.next {
            _ if self.is_ending => {}
            Next::Same => self.send(clients, phone),
            Next::InTurn => {
                self.send(clients, self.turn);
                self.turn = (self.turn + 1) % self.lanes.len();
            }
        }
        Ok(())
    }
}

/// Plays it with these servers, each with so many phones.
pub(crate) fn play(
    order: &Order,
    dialler: &mut Dialler,
    servers: Range<usize>,
    phones: usize,
    in_flight: usize,
    next: Next,
) -> Result<Figures> {
    let case = &order.case;
    let mut clients = Clients::new()?;
    let phones = Phones::connect(&mut clients, dialler, servers, phones)?;
    let idle = NEIGHBOURS..NEIGHBOURS + case.neighbours.div_ceil(IDLE_PHONES + 1);
    Phones::connect(&mut clients, dialler, idle, IDLE_PHONES)?;
    let mut echo = Echo::new(phones, case.frame, in_flight, next)?;
    echo.begin(&mut clients)?;
    let mut meter = Meter::start(order);
    loop {
        clients.turn(&mut echo, None)?;
        if let Some(mut figures) = meter.look(Instant::now(), echo.forwarded)? {
            echo.round_trips.add_quantiles(&mut figures);
            // A frame that was lost would only have ended its phone's traffic.
            echo.stop();
            while !echo.is_at_rest() {
                clients.turn(&mut echo, None)?;
            }
            echo.phones.are_distinct()?;
            return Ok(figures);
        }
        echo.is_recording = meter.is_open();
    }
}
