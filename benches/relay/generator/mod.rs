//! The generator: binaries and phones of one case, in a process of their own, on one thread; only
//! the bystander of `beside` has a second.
//!
//! It gets an order on its command line, plays it, and prints one JSON object of figures by name. Every frame that arrives is
//! compared, byte by byte, with the one that was sent, and must be the next of its phone; anything unexpected ends the
//! run with a message, so no figure comes from a relay that loses or mixes up frames.
//!
//! What the program under test costs is what the operating system has charged to its threads between two moments.

mod beside;
mod churn;
mod clients;
mod dial;
mod echo;
mod flood;
mod idle;
mod meter;
mod open;
mod phones;
mod slow;
mod stream;

use std::collections::BTreeMap;

use crate::Result;
use crate::case::{Order, Play};
use crate::process;

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Plays the order and prints what was measured.
pub(crate) fn run(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    process::raise_descriptor_limit()?;
    let (all, phones) = (0..order.case.binaries, order.case.phones);
    let echo =
        |in_flight, next| echo::play(&order, &mut dial::Dialler::new(&order)?, all, phones, in_flight, next);
    let figures = match order.case.play {
        Play::Echo { in_flight } => echo(in_flight, echo::Next::Same)?,
        Play::EchoInTurn { in_flight } => echo(in_flight, echo::Next::InTurn)?,
        Play::Beside => beside::play(&order)?,
        Play::Open { rate } => open::play(&order, rate)?,
        Play::Slow { flood } => slow::play(&order, flood)?,
        Play::FloodUp => flood::play(&order, flood::Direction::Up)?,
        Play::FloodDown => flood::play(&order, flood::Direction::Down)?,
        Play::Idle { connections } => idle::play(&order, connections)?,
        Play::Churn { under_way } => churn::play(&order, under_way)?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
