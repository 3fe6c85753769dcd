//! Phones that have one frame under way each, and among them one that never reads while its binary floods it. When the relay has
//! closed that one, the next takes its place. What counts is what the others notice.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Figures;
use super::clients::{Clients, Play, put_masked};
use super::dial::{Dialler, Who};
use super::echo::{Echo, Next};
use super::meter::Meter;
use super::phones::{Frames, Phones, is_notice};
use super::stream::Stream;
use crate::Result;
use crate::case::{Flood, Order};
use crate::wire::{ENVELOPE_START, TEXT};

/// Bytes of a flood that are written at once.
const BATCH: usize = 16 * 1024;

/// Bytes in frames to a phone that does not read after which the relay must have closed it: what it queues, and what two
/// sockets hold.
const PLENTY: usize = 64 * 1024 * 1024;

/// After so many the next one takes its place with the yardstick, which closes nobody.
const ENOUGH: usize = 8 * 1024 * 1024;

/// The number of the phone that does not read, in its frames.
const NUMBER: usize = 0xffff;

struct Slow {
    echo: Echo,
    /// Its binary, which some of the others have too.
    binary: usize,
    /// What is in front of the frames for it, when its binary knows it.
    envelope: Option<[u8; ENVELOPE_START]>,
    sent: usize,
    sent_to_all: usize,
    is_closed: bool,
}

impl Play for Slow {
    fn message(&mut self, clients: &mut Clients, index: usize, message: &[u8], now: Instant) -> Result<()> {
        if index != self.binary {
            return self.echo.message(clients, index, message, now);
        }
        if is_notice(message) {
            self.is_closed = true;
            return Ok(());
        }
        match message.split_first_chunk() {
            Some((envelope, frame)) if frame.starts_with(b"{\"p\":\"ffff\"") => {
                self.envelope = Some(*envelope);
                Ok(())
            }
            _ => self.echo.message(clients, index, message, now),
        }
    }
}

impl Slow {
    /// A phone that will not read. It makes itself known to its binary with a frame.
    fn dial(&mut self, dialler: &mut Dialler, frame: &[u8]) -> Result<Stream> {
        let (mut stream, _) = dialler.connect(Who::Phone, 0)?;
        let mut hello = Vec::new();
        put_masked(&mut hello, TEXT, frame);
        stream.write_all(&hello)?;
        self.envelope = None;
        self.is_closed = false;
        self.sent = 0;
        Ok(stream)
    }

    /// Waits until the others have got everything that is under way.
    fn end(&mut self, clients: &mut Clients) -> Result<()> {
        self.echo.stop();
        while !self.echo.is_at_rest() {
            clients.turn(self, None)?;
        }
        self.echo.phones.are_distinct()
    }

    /// Whether the binary has sent something.
    fn flood(&mut self, clients: &mut Clients, frame: &[u8]) -> Result<bool> {
        let Some(envelope) = self.envelope.filter(|_| !self.is_closed) else { return Ok(false) };
        if clients.waiting(self.binary) > 0 {
            return Ok(false);
        }
        let message = [envelope.as_slice(), frame, b"}"].concat();
        for _ in 0..(BATCH / frame.len()).max(1) {
            clients.send(self.binary, &message);
            self.sent += frame.len();
            self.sent_to_all += frame.len();
        }
        clients.flush()?;
        Ok(true)
    }
}

pub(crate) fn play(order: &Order, flood: Flood) -> Result<Figures> {
    let mut clients = Clients::new()?;
    let mut dialler = Dialler::new(order)?;
    let phones = Phones::connect(&mut clients, &mut dialler, 0..order.case.binaries, order.case.phones)?;
    let echo = Echo::new(phones, order.case.frame, 1, Next::Same)?;
    let binary = echo.phones.list[0].binary;
    let mut slow = Slow { echo, binary, envelope: None, sent: 0, sent_to_all: 0, is_closed: false };
    let frame = Frames::new(NUMBER, order.case.frame)?.make().to_vec();
    let mut silent = Vec::new();
    if flood != Flood::None {
        silent.push(slow.dial(&mut dialler, &frame)?);
    }
    slow.echo.begin(&mut clients)?;
    let mut meter = Meter::start(order);
    let begun = Instant::now();
    let mut closed = 0.0;
    loop {
        let may_send = match flood {
            Flood::None => false,
            Flood::Paced(rate) => (slow.sent_to_all as f64) < begun.elapsed().as_secs_f64() * f64::from(rate),
            Flood::Full => true,
        };
        let has_sent = may_send && slow.flood(&mut clients, &frame)?;
        clients.turn(&mut slow, has_sent.then_some(Duration::ZERO))?;
        if slow.sent > PLENTY {
            return Err("the relay does not close a phone that does not read".into());
        }
        if slow.is_closed || (order.metrics.is_none() && slow.sent > ENOUGH) {
            // The yardstick would give its place to the next connection while frames for it are still under way.
            silent.retain(|_| order.metrics.is_none());
            silent.push(slow.dial(&mut dialler, &frame)?);
            closed += 1.0;
        }
        if let Some(mut figures) = meter.look(Instant::now(), slow.echo.forwarded)? {
            slow.echo.round_trips.add_quantiles(&mut figures);
            slow.end(&mut clients)?;
            figures.insert("closed".to_owned(), closed);
            return Ok(figures);
        }
        slow.echo.is_recording = meter.is_open();
    }
}
