//! One side sends as fast as it goes, the other takes what comes. What is under way is bounded, so that no phone falls
//! behind by as much as the relay would close it for.

use std::time::{Duration, Instant};

use super::Figures;
use super::clients::{Clients, Play};
use super::meter::Meter;
use super::phones::{Frames, Phones};
use crate::Result;
use crate::case::Order;

/// Bytes of frames that may be under way for one phone: a quarter of what the relay queues for it by default.
const WINDOW: usize = 1024 * 1024;

/// Bytes that are written at once.
const BATCH: usize = 32 * 1024;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Up,
    Down,
}

struct Flood {
    phones: Phones,
    sent: Vec<Frames>,
    come: Vec<Frames>,
    forwarded: u64,
    direction: Direction,
    senders: Vec<(usize, Vec<usize>)>,
    /// Of the sender whose turn it is: the phones whose window has room.
    ready: Vec<usize>,
    envelope: Vec<u8>,
    /// Phones whose first frame is still to come to its binary, which makes it known there.
    unknown: usize,
}

impl Play for Flood {
    #[inline]
    fn message(&mut self, _: &mut Clients, index: usize, message: &[u8], _: Instant) -> Result<()> {
        let (phone, frame) = match self.phones.at(index) {
            Some(phone) => (phone, message),
            None => self.phones.open(index, message)?,
        };
        self.unknown = self.unknown.saturating_sub(1);
        self.forwarded += 1;
        self.come[phone].check(frame)
    }
}

impl Flood {
    /// Sends what may be sent, in batches; a binary to its phones in turn. Whether that was anything.
    fn send(&mut self, clients: &mut Clients, len: usize) -> Result<bool> {
        let mut has_sent = false;
        for (sender, phones) in &self.senders {
            let rounds = (BATCH / len / phones.len()).max(1);
            if clients.waiting(*sender) >= BATCH {
                continue;
            }
            self.ready.clear();
            for &phone in phones {
                let under_way = self.sent[phone].next.wrapping_sub(self.come[phone].next) as usize;
                if under_way + rounds <= WINDOW / len {
                    self.ready.push(phone);
                }
            }
            has_sent |= !self.ready.is_empty();
            for _ in 0..rounds {
                for &phone in &self.ready {
                    let frame = self.sent[phone].make();
                    if self.direction == Direction::Up {
                        clients.send(*sender, frame);
                        continue;
                    }
                    self.envelope.clear();
                    self.envelope.extend_from_slice(self.phones.list[phone].envelope()?);
                    self.envelope.extend_from_slice(frame);
                    self.envelope.push(b'}');
                    clients.send(*sender, &self.envelope);
                }
            }
        }
        clients.flush()?;
        Ok(has_sent)
    }
}

/// Who sends, and for which phones.
fn senders(phones: &Phones, direction: Direction) -> Vec<(usize, Vec<usize>)> {
    let mut senders: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, phone) in phones.list.iter().enumerate() {
        let sender = if direction == Direction::Up { phone.client } else { phone.binary };
        match senders.last_mut() {
            Some((last, phones)) if *last == sender => phones.push(index),
            _ => senders.push((sender, vec![index])),
        }
    }
    senders
}

pub(crate) fn play(order: &Order, direction: Direction) -> Result<Figures> {
    let mut clients = Clients::new()?;
    let phones = Phones::of(order, &mut clients)?;
    let (count, len) = (phones.list.len(), order.case.frame);
    let frames = || (0..count).map(|phone| Frames::new(phone, len)).collect::<Result<Vec<_>>>();
    let mut flood = Flood {
        senders: senders(&phones, direction),
        phones,
        sent: frames()?,
        come: frames()?,
        forwarded: 0,
        direction,
        ready: Vec::new(),
        envelope: Vec::new(),
        unknown: count,
    };
    for phone in 0..count {
        clients.send(flood.phones.list[phone].client, flood.sent[phone].make());
    }
    clients.flush()?;
    while flood.unknown > 0 {
        clients.turn(&mut flood, None)?;
    }
    let mut meter = Meter::start(order);
    loop {
        let has_sent = flood.send(&mut clients, len)?;
        // When nothing may be sent, something will come, or somebody take what waits.
        clients.turn(&mut flood, has_sent.then_some(Duration::ZERO))?;
        if let Some(figures) = meter.look(Instant::now(), flood.forwarded)? {
            while flood.sent.iter().zip(&flood.come).any(|(sent, come)| sent.next != come.next) {
                clients.turn(&mut flood, None)?;
            }
            flood.phones.are_distinct()?;
            return Ok(figures);
        }
    }
}
