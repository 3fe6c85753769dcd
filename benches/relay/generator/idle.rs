//! Connections come, send one frame each way, and go; then as many come and go again. What is measured is the resident memory
//! of the program under test, before and after each step.

use std::time::{Duration, Instant};

use super::Figures;
use super::clients::{Clients, Play};
use super::dial::Dialler;
use super::phones::{Frames, Phones, is_notice};
use crate::Result;
use crate::case::{IDLE_PHONES, Order};
use crate::process::{get, resident};

/// Twice the interval in which the relay looks whether memory is to be given back, and a little more.
const GIVES_BACK: Duration = Duration::from_secs(11);

/// Phones whose frames are under way at the same time.
const AT_ONCE: usize = 64;

struct Idle {
    phones: Phones,
    frames: Vec<Frames>,
    back: usize,
}

impl Play for Idle {
    fn message(&mut self, clients: &mut Clients, index: usize, message: &[u8], _: Instant) -> Result<()> {
        if let Some(phone) = self.phones.at(index) {
            self.back += 1;
            self.frames[phone].next = 0;
            return self.frames[phone].check(message);
        }
        // When phones are gone, their binary is told so.
        if is_notice(message) {
            return Ok(());
        }
        let (phone, frame) = self.phones.open(index, message)?;
        self.frames[phone].next = 0;
        self.frames[phone].check(frame)?;
        clients.send(index, message);
        Ok(())
    }
}

/// Connections of one wave, which have come.
fn come(dialler: &mut Dialler, connections: usize, frame: usize) -> Result<(Clients, Idle)> {
    let mut clients = Clients::new()?;
    let binaries = (connections / (IDLE_PHONES + 1)).max(1);
    let phones = Phones::connect(&mut clients, dialler, 0..binaries, IDLE_PHONES)?;
    let frames = (0..phones.list.len()).map(|phone| Frames::new(phone, frame)).collect::<Result<Vec<_>>>()?;
    Ok((clients, Idle { phones, frames, back: 0 }))
}

/// Every phone sends a frame and gets it back.
fn talk(clients: &mut Clients, idle: &mut Idle) -> Result<()> {
    let count = idle.frames.len();
    for first in (0..count).step_by(AT_ONCE) {
        let behind = count.min(first + AT_ONCE);
        for phone in first..behind {
            clients.send(idle.phones.list[phone].client, idle.frames[phone].make());
        }
        clients.flush()?;
        while idle.back < behind {
            clients.turn(idle, None)?;
        }
    }
    idle.phones.are_distinct()
}

/// All phones go, and then their binaries; until the relay has forgotten them.
fn go(order: &Order, clients: &mut Clients, idle: &mut Idle) -> Result<()> {
    let is_phone = |idle: &Idle, client: &usize| idle.phones.at(*client).is_some();
    let (phones, binaries): (Vec<_>, Vec<_>) = (0..clients.len()).partition(|client| is_phone(idle, client));
    for (leaving, left) in [(phones, binaries.len()), (binaries, 0)] {
        for chunk in leaving.chunks(AT_ONCE) {
            for &client in chunk {
                clients.close(client);
            }
            clients.flush()?;
            let open = clients.open();
            while clients.open() > open - chunk.len() {
                clients.turn(idle, None)?;
            }
        }
        if clients.open() != left {
            return Err("more are gone than have left".into());
        }
    }
    let Some(metrics) = order.metrics else { return Ok(()) };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let page = get(metrics, "/metrics")?;
        let gauges = ["connected_binaries", "connected_phones", "gracing_binaries"];
        if gauges.iter().all(|gauge| page.contains(&format!("\npyrycode_relay_{gauge} 0\n"))) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the relay does not forget who is gone".into())
}

/// The resident memory when it does not change any more.
fn settled(pid: u32) -> Result<f64> {
    let mut last = resident(pid)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let now = resident(pid)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last as f64)
}

/// The resident memory some time after everybody went: the relay gives back what is free within seconds.
fn given_back(pid: u32) -> Result<f64> {
    std::thread::sleep(GIVES_BACK);
    settled(pid)
}

pub(crate) fn play(order: &Order, connections: usize) -> Result<Figures> {
    let mut dialler = Dialler::new(order)?;
    let before = settled(order.pid)?;
    let (mut clients, mut idle) = come(&mut dialler, connections, order.case.frame)?;
    let count = clients.open() as f64;
    let fresh = settled(order.pid)?;
    talk(&mut clients, &mut idle)?;
    let used = settled(order.pid)?;
    go(order, &mut clients, &mut idle)?;
    drop((clients, idle));
    let gone = given_back(order.pid)?;
    let (mut clients, mut idle) = come(&mut dialler, connections, order.case.frame)?;
    talk(&mut clients, &mut idle)?;
    go(order, &mut clients, &mut idle)?;
    drop((clients, idle));
    let gone_again = given_back(order.pid)?;
    Ok(Figures::from([
        ("connections".to_owned(), count),
        ("fresh_b".to_owned(), (fresh - before) / count),
        ("used_b".to_owned(), (used - before) / count),
        ("before_kib".to_owned(), before / 1024.0),
        ("gone_kib".to_owned(), gone / 1024.0),
        ("gone_again_kib".to_owned(), gone_again / 1024.0),
        ("gone_by_before".to_owned(), gone / before),
        ("again_by_before".to_owned(), gone_again / before),
        ("again_by_gone".to_owned(), gone_again / gone),
    ]))
}
