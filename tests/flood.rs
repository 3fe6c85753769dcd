//! Those who are connected do not pay for those who try to be: round trips under a flood, beside quiet ones.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use support::client::{Client, phone_headers};
use support::eventually;
use support::http::{Http, upgrade};
use support::relay::Relay;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// How much longer a round trip may take at the median.
const FACTOR: u32 = 3;

/// Each of the tests has the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

/// A binary, and its phone.
struct Pair {
    binary: Client,
    phone: Client,
    conn_id: String,
}

impl Pair {
    fn new(relay: &Relay) -> Self {
        let mut binary = Client::binary(relay, "paired");
        let mut phone = Client::phone(relay, "paired");
        let conn_id = phone.conn_id(&mut binary);
        Self { binary, phone, conn_id }
    }

    /// The median of many round trips, from the phone to the binary and back.
    fn round_trip(&mut self) -> Duration {
        let mut times: Vec<_> = (0..400)
            .map(|number| {
                let began = Instant::now();
                self.phone.send(format!("{{\"number\":{number}}}"));
                assert_eq!(self.binary.json()["frame"]["number"], number);
                self.binary.send(format!("{{\"conn_id\":\"{}\",\"frame\":{number}}}", self.conn_id));
                assert_eq!(self.phone.json(), number);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
}

/// Threads that do something again and again until they are told to stop, and how often they did it.
struct Flood {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(threads: usize, once: impl Fn() + Clone + Send + 'static) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..threads)
            .map(|_| {
                let (stop, done, once) = (Arc::clone(&stop), Arc::clone(&done), once.clone());
                std::thread::spawn(move || {
                    // What is measured is the relay, not who of the test's threads has a processor (Linux: this thread's).
                    setpriority_process(None, 19).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        once();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// Compares the best of several rounds each: what else the machine does can only lengthen a round, and what the relay does
/// shows in all of them.
fn compare(what: &str, quiet: &[Duration], flooded: &[Duration]) {
    let best = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    let (quiet, flooded) = (best(quiet), best(flooded));
    eprintln!("round trip, {what}: {flooded:?}, quiet {quiet:?}");
    assert!(flooded <= quiet * FACTOR, "{what}: {flooded:?} against {quiet:?}");
}

#[test]
fn a_flood_of_refused_upgrades_does_not_stand_before_frames() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let relay = Relay::with("[limits]\nupgrades_per_minute = 1\nupgrade_burst = 4\n");
    let mut pair = Pair::new(&relay);
    let address = relay.address;
    let (mut quiet, mut flooded, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        quiet.push(pair.round_trip());
        let flood = Flood::of(16, move || {
            let mut http = Http::connect_from(ATTACKER, address);
            http.send(upgrade("/v2/client", &phone_headers("nobody")));
            http.hung_up();
        });
        eventually("the flood", || if flood.done() > 100 { Ok(()) } else { Err(flood.done().to_string()) });
        let before = flood.done();
        flooded.push(pair.round_trip());
        let meanwhile = flood.done() - before;
        assert!(meanwhile > 20, "it was no flood: {meanwhile}");
        refused += flood.stop();
    }
    compare("flooded with refused upgrades", &quiet, &flooded);
    let metrics = relay.metrics();
    let counted = metrics.upgrades("client", "reject_rate_limit") + metrics.upgrades("client", "reject_404");
    assert!(
        counted >= refused as f64 - 4.0 && metrics.upgrades("client", "reject_rate_limit") > 100.0,
        "{counted}"
    );
    assert!(relay.events_named("rate_limited").len() < 60);
}

#[test]
fn thousands_of_slow_handshakes_cost_next_to_nothing() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let relay = Relay::with("[limits]\nhandshakes = 512\nhandshake_timeout = \"120s\"\n");
    let mut pair = Pair::new(&relay);
    let quiet: Vec<_> = (0..3).map(|_| pair.round_trip()).collect();
    let memory = relay.memory();
    let slow: Vec<_> = (0..5000)
        .map(|_| {
            let mut http = Http::connect_from(ATTACKER, relay.address);
            http.send("GET /v2/client HTTP/1.1\r\nHost: ");
            http
        })
        .collect();
    eventually("those for whom there is no room to be cut", || {
        let metrics = relay.try_metrics().ok_or("no metrics")?;
        let cut = metrics.get("handshake_failures_total{stage=\"timeout\"}");
        if cut == 5000.0 - 512.0 { Ok(()) } else { Err(cut.to_string()) }
    });
    let flooded: Vec<_> = (0..3).map(|_| pair.round_trip()).collect();
    compare("beside 5000 slow handshakes", &quiet, &flooded);
    let grown = relay.memory().saturating_sub(memory);
    assert!(grown < 16 * 1024, "{grown} KiB more for 512 slow handshakes");
    assert_eq!(slow.iter().filter(|http| http.is_open()).count(), 512);
    // And still somebody else gets in.
    let mut late = Client::phone(&relay, "paired");
    assert_eq!(late.admitted(), Ok(()));
}
