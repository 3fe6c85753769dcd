//! A new version, or a restart, while clients are there.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Given;
use crate::install::apt_install;
use crate::sessions::{Back, Knocking, Rooms};
use crate::system::{CONFIG, UNIT, ok, probed, process_after, property, series};

/// Server-ids that are open meanwhile.
const ROOMS: usize = 8;
/// `drain.spread`, which is what clients are told to wait at most.
const SPREAD: Duration = Duration::from_secs(5);

fn installed() -> String {
    ok("dpkg-query --show --showformat='${Version}' pyrycode-relay")
}

/// Installs the package while sessions are open. Everybody is told when to come back, and comes back within the spread.
fn upgrade_to(package: &Path) -> Vec<Back> {
    let (pid, config, version) = (process_after(""), fs::read_to_string(CONFIG).unwrap(), installed());
    let rooms = Rooms::open(ROOMS);
    assert!((series("pyrycode_relay_connected_phones") - ROOMS as f64).abs() < f64::EPSILON);
    apt_install(package, "--allow-downgrades");
    // The installation ends when the new relay is ready.
    let ready = Instant::now();
    assert_ne!(installed(), version);
    assert_ne!(process_after(&pid), pid);
    assert_eq!(property(UNIT, "UnitFileState"), "enabled");
    let back = rooms.back();
    for Back { told, when, .. } in &back {
        let goodbye = (1001, format!("shutting down; retry-after={}", SPREAD.as_secs()));
        assert_eq!(told, &[goodbye.clone(), goodbye]);
        assert!(
            when.saturating_duration_since(ready) < SPREAD,
            "{:?}",
            when.saturating_duration_since(ready)
        );
    }
    let latest = back.iter().map(|back| back.when).max().expect("rooms");
    println!(
        "   {ROOMS} server-ids were back {:?} after the new relay was ready; {} connections were refused meanwhile",
        latest.saturating_duration_since(ready),
        back.iter().map(|back| back.refused).sum::<usize>()
    );
    assert_eq!(fs::read_to_string(CONFIG).unwrap(), config, "the configuration was edited, and stays so");
    assert_eq!(ok("find /etc/pyrycode-relay -name '*.dpkg-*'"), "");
    probed();
    back
}

pub fn with_sessions(given: &Given) {
    upgrade_to(&given.successor);
}

/// The way back is an upgrade as well; here nobody may be refused.
pub fn back_without_a_refusal(given: &Given) {
    let back = upgrade_to(&given.package);
    assert!(
        back.iter().all(|back| back.refused == 0),
        "{:?}",
        back.iter().map(|back| back.refused).collect::<Vec<_>>()
    );
}

pub fn without_a_refusal(_: &Given) {
    let pid = process_after("");
    // They hold the drain up, so that there is a time when nobody accepts.
    let rooms = Rooms::open(ROOMS);
    let knocking = Knocking::start(8);
    ok(&format!("systemctl restart {UNIT}"));
    assert_ne!(process_after(&pid), pid);
    let back = rooms.back();
    let knocks = knocking.stop();
    println!("   {} knocks were answered, {} of them late", knocks.answered, knocks.late);
    assert_eq!(knocks.refused, Vec::<String>::new());
    assert!(knocks.late > 0 && knocks.answered > knocks.late, "{} of {}", knocks.late, knocks.answered);
    assert!(back.iter().all(|back| back.refused == 0));
}
