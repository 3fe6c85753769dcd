//! The package under a real systemd: installed, used, broken, upgraded and removed as an operator does it.
//!
//! This program is not run by `cargo test`: it takes the machine over. `tests/package/run` starts it as root in a minimal
//! Debian that systemd has booted in a container. Its steps build on one another, so they run in order, and the first
//! that fails ends the test; what the relay and systemd logged is printed then.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod forms;
mod install;
mod leftovers;
mod prometheus;
mod sandbox;
mod sessions;
mod system;
mod upgrade;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What the test was given.
struct Given {
    /// The package.
    package: PathBuf,
    /// The same with a later version.
    successor: PathBuf,
    /// Where the other files of the test are.
    directory: PathBuf,
}

type Step = (&'static str, fn(&Given));

const STEPS: &[Step] = &[
    ("before anything is installed", leftovers::note),
    ("apt installs, enables and starts it", install::install),
    ("what the documentation points at is there", install::documentation),
    ("a Prometheus agent scrapes it", prometheus::scraped),
    ("an edited configuration: check, reload, restart", install::edited),
    ("a reload with a broken configuration is refused", faults::broken_reload),
    ("killed, it is started again", faults::killed),
    ("stopped, the watchdog starts it again", faults::wedged),
    ("an upgrade with sessions open", upgrade::with_sessions),
    ("the sandbox holds", sandbox::default_form),
    ("a key that only root can read, as a credential", forms::credentials),
    ("an account that stays, and certbot's hook", forms::account_that_stays),
    ("a port below 1024", forms::privileged_port),
    ("sockets of systemd, shut off from every network", forms::locked_down),
    ("locked down: a Prometheus agent scrapes it", prometheus::scraped),
    ("locked down: a reload", install::reloaded),
    ("locked down: a reload with a broken configuration is refused", faults::broken_reload),
    ("locked down: killed, it is started again", faults::killed),
    ("locked down: stopped, the watchdog starts it again", faults::wedged),
    ("locked down: who connects during a restart is served late", upgrade::without_a_refusal),
    ("locked down: an upgrade with sessions open", upgrade::back_without_a_refusal),
    ("locked down: the sandbox holds", sandbox::locked_down),
    ("locked down: a broken configuration makes clients wait", forms::broken_while_clients_wait),
    ("locked down: another address", forms::another_address),
    ("a socket on another address than loopback is refused for metrics", forms::open_metrics_socket),
    ("back to the default form", forms::default_again),
    ("a broken configuration does not start, and the status says why", faults::broken_start),
    ("remove keeps the configuration, purge leaves nothing", leftovers::none),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [package, successor, directory] = arguments.as_slice() else {
        eprintln!("usage: package PACKAGE SUCCESSOR DIRECTORY; tests/package/run starts it in a container");
        return ExitCode::from(64);
    };
    if !Path::new("/run/host/container-manager").exists() {
        eprintln!("this is no container: refusing to take the machine over");
        return ExitCode::from(64);
    }
    let given =
        Given { package: package.clone(), successor: successor.clone(), directory: directory.clone() };
    for (name, step) in STEPS {
        println!("-- {name}");
        let began = Instant::now();
        if catch_unwind(|| step(&given)).is_err() {
            println!("FAILED: {name}");
            println!("{}", system::circumstances());
            return ExitCode::FAILURE;
        }
        println!("   ok, {:.1} s", began.elapsed().as_secs_f64());
    }
    println!("all {} steps passed", STEPS.len());
    ExitCode::SUCCESS
}
