//! Open loop: frames are due at fixed times, whatever became of those before; every other one goes up, the rest down.
//! Latency counts from when a frame was due, so that a relay that falls behind cannot hide it by slowing the sender.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Figures;
use super::clients::{Clients, Play};
use super::meter::{Durations, Meter};
use super::phones::{Frames, Phones};
use crate::Result;
use crate::case::Order;

/// The frames that go one way between a phone and its binary.
struct Lane {
    sent: Frames,
    come: Frames,
    /// When those under way were due.
    due: VecDeque<Instant>,
}

struct Open {
    phones: Phones,
    up: Vec<Lane>,
    down: Vec<Lane>,
    come: u64,
    is_recording: bool,
    latencies: Durations,
    envelope: Vec<u8>,
}

impl Play for Open {
    fn message(&mut self, _: &mut Clients, index: usize, message: &[u8], now: Instant) -> Result<()> {
        let (lane, frame) = if let Some(phone) = self.phones.at(index) {
            (&mut self.down[phone], message)
        } else {
            let (phone, frame) = self.phones.open(index, message)?;
            (&mut self.up[phone], frame)
        };
        lane.come.check(frame)?;
        let due = lane.due.pop_front().ok_or("a frame that was not sent")?;
        self.come += 1;
        if self.is_recording {
            self.latencies.record(now.saturating_duration_since(due))?;
        }
        Ok(())
    }
}

impl Open {
    fn send_up(&mut self, clients: &mut Clients, phone: usize, due: Instant) {
        let lane = &mut self.up[phone];
        lane.due.push_back(due);
        clients.send(self.phones.list[phone].client, lane.sent.make());
    }

    fn send_down(&mut self, clients: &mut Clients, phone: usize, due: Instant) -> Result<()> {
        let lane = &mut self.down[phone];
        lane.due.push_back(due);
        self.envelope.clear();
        self.envelope.extend_from_slice(self.phones.list[phone].envelope()?);
        self.envelope.extend_from_slice(lane.sent.make());
        self.envelope.push(b'}');
        clients.send(self.phones.list[phone].binary, &self.envelope);
        Ok(())
    }
}

pub(crate) fn play(order: &Order, rate: u32) -> Result<Figures> {
    let mut clients = Clients::new()?;
    let phones = Phones::of(order, &mut clients)?;
    let count = phones.list.len();
    let lanes = || {
        let frames = |phone| Frames::new(phone, order.case.frame);
        let lane = |phone| Ok(Lane { sent: frames(phone)?, come: frames(phone)?, due: VecDeque::new() });
        (0..count).map(lane).collect::<Result<Vec<_>>>()
    };
    let mut open = Open {
        phones,
        up: lanes()?,
        down: lanes()?,
        come: 0,
        is_recording: false,
        latencies: Durations::new()?,
        envelope: Vec::new(),
    };
    // With its first frame a phone makes itself known to its binary.
    for phone in 0..count {
        open.send_up(&mut clients, phone, Instant::now());
    }
    clients.flush()?;
    while open.come < count as u64 {
        clients.turn(&mut open, None)?;
    }
    let mut meter = Meter::start(order);
    let interval = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    let mut sent = 0;
    loop {
        let now = Instant::now();
        while due <= now {
            let phone = sent / 2 % count;
            if sent % 2 == 0 {
                open.send_up(&mut clients, phone, due);
            } else {
                open.send_down(&mut clients, phone, due)?;
            }
            sent += 1;
            due += interval;
        }
        clients.flush()?;
        // Never asleep, so that no frame is late because of this program's own waking up.
        clients.turn(&mut open, Some(Duration::ZERO))?;
        if let Some(mut figures) = meter.look(now, open.come)? {
            open.is_recording = false;
            while open.come < (sent + count) as u64 {
                clients.turn(&mut open, None)?;
            }
            open.phones.are_distinct()?;
            open.latencies.add_quantiles(&mut figures);
            return Ok(figures);
        }
        open.is_recording = meter.is_open();
    }
}
