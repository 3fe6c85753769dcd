//! The whole core under a virtual clock and a scheduler that goes by chance, one seed after the other.
//!
//! Each seed is a relay with small limits, and clients that do at random what clients do: well, badly, slowly or not at
//! all. After each step of each task, what the relay counts, what it has queued, and what every client has received are
//! held against a model of the protocol. A seed always plays the same; `SIM_SEED=7` plays that one alone and prints
//! what happened, `SIM_SEEDS=100000` (and `SIM_FROM`) plays that many.

#![allow(unreachable_pub, reason = "the harness is shared with other test programs")]

use std::hash::DefaultHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

#[path = "../support/memory_socket.rs"]
mod memory_socket;
#[path = "../support/recording.rs"]
mod recording;

mod actions;
mod client;
mod clock;
mod closes;
mod coverage;
mod executor;
mod facts;
mod line;
mod messages;
mod model;
mod patience;
mod quiet;
mod steps;
mod world;

use actions::{choose, weights};
use client::{Asks, Client, Envelope, Meaning};
use coverage::Coverage;
use fastrand::Rng;
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::item::ITEM_OVERHEAD;
use pyrycode_relay::relay::observer::{Endpoint, UpgradeOutcome};
use pyrycode_relay::relay::settings::Settings;
use world::World;

/// Seeds of one run, unless `SIM_SEEDS` asks for more.
const SEEDS: u64 = 600;

/// Alarms that may ring after everybody left.
const ALARMS: usize = 10_000;

/// Fails a check unless something holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($otherwise:tt)+) => {
        if !$holds {
            return Err(format!($($otherwise)+));
        }
    };
}

/// A hash of everything that was observed, in order.
#[derive(Debug, Default)]
pub(crate) struct Digest(pub(crate) DefaultHasher);

/// Plays a seed. What it returns is empty if all held.
fn play(world: &mut World) -> Result<(), String> {
    let weights = weights(&mut world.rng);
    for server in 0..world.slots.len() {
        world.dial_to(Endpoint::Server, server);
        world.dial_to(Endpoint::Client, server);
    }
    for _ in 0..world.rng.usize(50..350) {
        let steps = [0, 0, 1, 3, 10, 1000][world.rng.usize(..6)];
        for _ in 0..steps {
            if !world.run_one()? {
                break;
            }
        }
        let action = choose(&mut world.rng, &weights);
        world.act(action)?;
    }
    world.note(|| "everybody behaves".to_owned());
    world.behave();
    world.settle()?;
    world.check_delivered()?;
    if world.draining && !world.cut {
        // A drain ends by itself, when everybody takes what comes.
        while world.hub.live() > 0 && world.advance(true)? {}
        ensure!(world.hub.live() == 0, "the drain does not end");
        world.coverage.saw("drain to its end");
    }
    world.note(|| "everybody leaves".to_owned());
    world.leave();
    let alarms = (0..ALARMS).take_while(|_| world.advance(true).is_ok_and(|more| more)).count();
    ensure!(alarms < ALARMS, "alarms ring for ever");
    world.settle()?;
    world.check_end()
}

/// A seed, played to its end.
struct Played {
    fault: Option<String>,
    digest: u64,
    coverage: Coverage,
    trace: Vec<String>,
}

fn run(seed: u64, traced: bool) -> Played {
    let mut world = World::new(seed, traced);
    let fault = catch_unwind(AssertUnwindSafe(|| play(&mut world)))
        .unwrap_or_else(|_| Err("a panic".to_owned()))
        .err();
    let digest = std::hash::Hasher::finish(&world.digest.0);
    let trace = world.trace.take().unwrap_or_default();
    let coverage = std::mem::take(&mut world.coverage);
    Played { fault, digest, coverage, trace }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn print(seed: u64, played: &Played) {
    for line in &played.trace {
        println!("{line}");
    }
    println!("seed {seed}: {}", played.fault.as_deref().unwrap_or("all held"));
}

#[test]
fn every_seed_keeps_the_protocol() {
    if let Some(seed) = number("SIM_SEED") {
        let played = run(seed, true);
        print(seed, &played);
        assert_eq!(played.fault, None);
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let from = number("SIM_FROM").unwrap_or(0);
    let next = AtomicU64::new(from);
    let result = Mutex::new((Coverage::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let played = run(seed, false);
                    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
                    result.0.add(played.coverage);
                    result.1.extend(played.fault.map(|fault| (seed, fault)));
                }
            });
        }
    });
    let (coverage, mut faults) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    faults.sort();
    if let Some((seed, _)) = faults.first() {
        print(*seed, &run(*seed, true));
        for (seed, fault) in &faults {
            println!("SIM_SEED={seed}: {fault}");
        }
    }
    println!("{coverage}");
    assert!(faults.is_empty(), "{} of {seeds} seeds failed, the first is {}", faults.len(), faults[0].0);
    assert_eq!(coverage.missing(), [""; 0], "none of {seeds} seeds did this");
}

#[test]
fn a_seed_always_plays_the_same() {
    let mut digests = Vec::new();
    for seed in 0..10 {
        let (once, again) = (run(seed, false), run(seed, true));
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_eq!(once.fault, again.fault);
        digests.push(once.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 10, "every seed plays its own");
}

#[test]
fn a_directive_does_not_overtake_a_drain() {
    let settings = Settings { phone_queue: 300, ..Settings::DEFAULT };
    let mut world = World::with_settings(Rng::with_seed(1), settings, false);
    world.slots = vec![None];
    for endpoint in [Endpoint::Server, Endpoint::Client] {
        let number = world.dial(endpoint, 0, Client::new(world.clock.clone()));
        world.serve(number, Vec::new());
        assert_eq!(world.settle(), Ok(()));
    }
    world.message(1);
    assert_eq!(world.settle(), Ok(()));
    let conn_id = world.conns[1].name.clone().unwrap_or_default();
    let say = |world: &mut World, text: String, asks| {
        let meaning = Meaning::Envelope(Envelope { to: Some(1), asks });
        world.conns[0].client.begin([client::frame(0x81, text.as_bytes())], meaning);
        world.send_some(0, usize::MAX);
        assert_eq!(world.settle(), Ok(()));
    };
    // It fills the phone's outbox, and stays there.
    world.conns[1].client.line.borrow_mut().accept(0);
    let frame = "1".repeat(settings.phone_queue - ITEM_OVERHEAD);
    let text = format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#);
    say(&mut world, text, Asks::Deliver { frame, close: None });
    world.draining = true;
    world.moments = vec![Some(world.now())];
    let close = Close::ShuttingDown { retry_after: closes::RETRY_AFTER };
    for server_id in world.hub.begin_drain(close) {
        world.hub.close_server(&server_id, close);
    }
    say(&mut world, format!(r#"{{"conn_id":"{conn_id}","close_code":4401}}"#), Asks::Close(4401));
    world.conns[1].client.line.borrow_mut().accept(usize::MAX);
    assert_eq!(world.settle(), Ok(()));
    assert_eq!(world.conns[1].received, 1);
}

#[test]
fn the_second_of_two_newcomers_gets_what_the_first_has_left() {
    let mut world = World::with_settings(Rng::with_seed(1), Settings::DEFAULT, false);
    let dial = |world: &mut World| {
        let number = world.dial(Endpoint::Server, 0, Client::new(world.clock.clone()));
        world.serve(number, Vec::new());
        assert_eq!(world.settle(), Ok(()));
        number
    };
    let incumbent = dial(&mut world);
    world.conns[incumbent].client.silent = true;
    // Both wait until the same moment; whoever is first takes the place, is found to break the rules, and is gone.
    for newcomer in [dial(&mut world), dial(&mut world)] {
        let client = &mut world.conns[newcomer].client;
        client.send_raw(&[0xc1, 0x80, 0, 0, 0, 0]);
        client.ends.broke_rules = true;
    }
    while world.now() < Settings::DEFAULT.conflict_probe + model::LAST_LOOK {
        assert_eq!(world.advance(true), Ok(true));
        assert_eq!(world.settle(), Ok(()));
    }
    let sums = &world.facts.sums;
    assert_eq!((sums.takeovers(), sums.reclaims()), (1, 1));
    assert_eq!(sums.upgrades(), [(Endpoint::Server, UpgradeOutcome::Accept); 3]);
}
