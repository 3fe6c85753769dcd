//! A new version, or a restart, while clients are there.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Given;
use crate::install::apt_install;
use crate::sessions::{Back, Knocking, Knocks, Rooms};
use crate::system::{CONFIG, UNIT, ok, probed, process_after, property, wait_for_series};

/// Those who knock at the same time.
const KNOCKERS: usize = 8;
/// Server-ids that are open meanwhile.
const ROOMS: usize = 8;
/// `drain.spread`, which is what clients are told to wait at most.
const SPREAD: Duration = Duration::from_secs(5);

fn installed() -> String {
    ok("dpkg-query --show --showformat='${Version}' pyrycode-relay")
}

/// When the relay that runs said that it is ready.
fn ready_since() -> SystemTime {
    let said = ok(&format!(
        "date --date=\"$(systemctl show --property=ActiveEnterTimestamp --value --timestamp=us {UNIT})\" +%s%6N"
    ));
    UNIX_EPOCH + Duration::from_micros(said.trim().parse().expect("microseconds"))
}

/// Installs the package while sessions are open. Everybody is told when to come back, and comes back within the spread.
fn upgrade_to(package: &Path) -> Vec<Back> {
    let (pid, config, version) = (process_after(""), fs::read_to_string(CONFIG).unwrap(), installed());
    let rooms = Rooms::open(ROOMS);
    // Those of the step before may be leaving still.
    wait_for_series("pyrycode_relay_connected_phones", ROOMS as f64);
    apt_install(package, "--allow-downgrades");
    assert_ne!(installed(), version);
    assert_ne!(process_after(&pid), pid);
    assert_eq!(property(UNIT, "UnitFileState"), "enabled");
    let ready = ready_since();
    let back = rooms.back();
    let mut latest = Duration::ZERO;
    for Back { told, when, .. } in &back {
        let goodbye = (1001, format!("shutting down; retry-after={}", SPREAD.as_secs()));
        assert_eq!(told, &[goodbye.clone(), goodbye]);
        // systemd hears of it a moment after who waits in line.
        latest = latest.max(when.duration_since(ready).unwrap_or_default());
    }
    // Each waited for a part of the spread, beginning with its own close, which came before the relay's end.
    assert!(latest < SPREAD + Duration::from_secs(1), "{latest:?}");
    let closes = back.iter().map(|back| back.closed);
    let burst =
        closes.clone().max().zip(closes.min()).map(|(last, first)| last.duration_since(first).unwrap());
    assert!(burst > Some(SPREAD / 10) && burst < Some(SPREAD), "closed within {burst:?}");
    println!(
        "   {ROOMS} server-ids were back within {latest:?} of the new relay's READY=1; {} connections were refused before",
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
    let knocking = Knocking::start(KNOCKERS);
    ok(&format!("systemctl restart {UNIT}"));
    assert_ne!(process_after(&pid), pid);
    let back = rooms.back();
    let knocks = knocking.stop();
    let Knocks { answered, draining, late, .. } = &knocks;
    println!("   {answered} knocks were answered, {late} late; {draining} had been let in before the drain");
    assert_eq!(knocks.refused, Vec::<String>::new());
    assert!(*late > 0 && answered > late, "{late} of {answered}");
    // At most the one that each of them had open.
    assert!(*draining <= KNOCKERS, "{draining}");
    assert!(back.iter().all(|back| back.refused == 0));
}
