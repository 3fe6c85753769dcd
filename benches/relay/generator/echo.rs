//! Closed loop: each phone has so many frames under way, its binary sends each back, and the next goes when one has come back.

use std::time::Instant;

use super::Figures;
use super::clients::{Clients, Play};
use super::meter::{Meter, add_quantiles};
use super::phones::{Frames, Phones};
use crate::Result;
use crate::case::Order;

struct Echo {
    phones: Phones,
    lanes: Vec<Lane>,
    /// Frames that were forwarded, in both directions.
    forwarded: u64,
    is_recording: bool,
    round_trips: Vec<u64>,
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
            self.round_trips.push(u64::try_from((now - lane.times[slot]).as_nanos())?);
        }
        self.send(clients, phone);
        Ok(())
    }
}

pub(crate) fn play(order: &Order, in_flight: usize) -> Result<Figures> {
    let mut clients = Clients::new()?;
    let phones = Phones::of(order, &mut clients)?;
    let frames = |phone| Frames::new(phone, order.case.frame);
    let lanes = (0..phones.list.len()).map(|phone| {
        let times = vec![Instant::now(); in_flight];
        Ok(Lane { sent: frames(phone)?, at_binary: frames(phone)?, back: frames(phone)?, times })
    });
    let lanes = lanes.collect::<Result<Vec<_>>>()?;
    let mut echo = Echo { phones, lanes, forwarded: 0, is_recording: false, round_trips: Vec::new() };
    for phone in 0..echo.lanes.len() {
        for _ in 0..in_flight {
            echo.send(&mut clients, phone);
        }
    }
    clients.flush()?;
    let mut meter = Meter::start(order);
    loop {
        clients.turn(&mut echo, None)?;
        if let Some(mut figures) = meter.look(Instant::now(), echo.forwarded)? {
            echo.phones.are_distinct()?;
            add_quantiles(&mut figures, &mut echo.round_trips);
            return Ok(figures);
        }
        echo.is_recording = meter.is_open();
    }
}
