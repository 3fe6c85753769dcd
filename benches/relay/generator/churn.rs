//! Phones of claimed server-ids connect, are upgraded, close and go, so many at a time. What is counted is the whole of it.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::Figures;
use super::clients::put_masked;
use super::dial::{Dialler, Who, ended_early};
use super::meter::{Durations, Meter};
use super::stream::Stream;
use crate::Result;
use crate::case::Order;
use crate::wire::{CLOSE, Header};

/// What an event of a binary carries in place of a visit's place is above this.
const BINARIES: u64 = 1 << 32;

/// A phone that comes and goes.
struct Visit {
    stream: Stream,
    is_upgraded: bool,
    has_code: bool,
    came: Vec<u8>,
    began: Instant,
}

struct Churn {
    epoll: OwnedFd,
    dialler: Dialler,
    binaries: Vec<Stream>,
    visits: Vec<Option<Visit>>,
    next_server: usize,
}

impl Churn {
    fn begin(&mut self, place: usize) -> Result<()> {
        let began = Instant::now();
        self.next_server = (self.next_server + 1) % self.binaries.len();
        let stream = self.dialler.ask(Who::Phone, self.next_server)?;
        stream.socket().set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(place as u64), EventFlags::IN)?;
        self.visits[place] =
            Some(Visit { stream, is_upgraded: false, has_code: false, came: Vec::new(), began });
        Ok(())
    }

    /// Reads once. How long the visit took, if it is over.
    fn proceed(&mut self, place: usize) -> Result<Option<Duration>> {
        let Some(visit) = &mut self.visits[place] else { return Ok(None) };
        let mut bytes = [0; 1024];
        let count = match visit.stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            read => read?,
        };
        visit.came.extend_from_slice(&bytes[..count]);
        if !visit.is_upgraded {
            if let Some(head) = self.dialler.answered(&visit.came)? {
                visit.came.drain(..head);
                visit.is_upgraded = true;
                let mut close = Vec::with_capacity(8);
                put_masked(&mut close, CLOSE, &1000_u16.to_be_bytes());
                visit.stream.write_all(&close)?;
            }
        }
        if visit.is_upgraded && !visit.has_code {
            if let Some(header) = Header::read(&visit.came).filter(|header| header.end <= visit.came.len()) {
                let code = &visit.came[header.start..header.end];
                if header.opcode != CLOSE || !code.starts_with(&1000_u16.to_be_bytes()) {
                    return Err(format!("a phone got {}", visit.came.escape_ascii()).into());
                }
                visit.has_code = true;
            }
        }
        if count > 0 {
            return Ok(None);
        }
        if !visit.is_upgraded {
            return Err(ended_early(&visit.came));
        }
        if !visit.has_code {
            return Err("a phone's connection ended without a close frame".into());
        }
        let took = visit.began.elapsed();
        self.visits[place] = None;
        Ok(Some(took))
    }
}

/// A binary reads what is said of its phones, and answers nothing.
fn hear(binary: &mut Stream) -> Result<()> {
    let mut bytes = [0; 16 * 1024];
    match binary.read(&mut bytes) {
        Ok(0) => Err("a binary was disconnected".into()),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(()),
    }
}

pub(crate) fn play(order: &Order, under_way: usize) -> Result<Figures> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut dialler = Dialler::new(order)?;
    let mut binaries = Vec::new();
    for server in 0..order.case.binaries {
        let (stream, _) = dialler.connect(Who::Binary, server)?;
        epoll::add(&epoll, &stream, EventData::new_u64(BINARIES + server as u64), EventFlags::IN)?;
        binaries.push(stream);
    }
    let visits = (0..under_way).map(|_| None).collect();
    let mut churn = Churn { epoll, dialler, binaries, visits, next_server: 0 };
    for place in 0..under_way {
        churn.begin(place)?;
    }
    let (mut count, mut durations) = (0, Durations::new()?);
    let mut meter = Meter::start(order);
    let mut events = Vec::with_capacity(128);
    loop {
        events.clear();
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(&churn.epoll, spare_capacity(&mut events), Some(&patience))?;
        if events.is_empty() {
            return Err("nothing came for 10 s".into());
        }
        for event in &events {
            let data = event.data.u64();
            if let Some(binary) = data.checked_sub(BINARIES) {
                hear(&mut churn.binaries[usize::try_from(binary)?])?;
                continue;
            }
            let place = usize::try_from(data)?;
            if let Some(took) = churn.proceed(place)? {
                count += 1;
                if meter.is_open() {
                    durations.record(took)?;
                }
                churn.begin(place)?;
            }
        }
        if let Some(mut figures) = meter.look(Instant::now(), count)? {
            durations.add_quantiles(&mut figures);
            return Ok(figures);
        }
    }
}
