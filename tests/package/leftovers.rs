//! What is there before, and must be all that is there after.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;

use crate::Given;
use crate::forms;
use crate::system::{CONFIG, METRICS, PUBLIC, UNIT, ok, property, sh};

const NOTED: &str = "/run/before-the-package";

/// Every path of the machine but those that change by themselves: what the kernel shows, logs, caches, and the databases of the
/// package manager.
fn paths() -> BTreeSet<String> {
    let ignored = [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/var/tmp",
        "/var/log",
        "/var/cache",
        "/var/lib/apt",
        "/var/lib/dpkg",
    ]
    .map(|path| format!("-path {path}"))
    .join(" -o ");
    ok(&format!("find / \\( {ignored} \\) -prune -o -print")).lines().map(str::to_owned).collect()
}

fn accounts() -> String {
    format!("{}{}", fs::read_to_string("/etc/passwd").unwrap(), fs::read_to_string("/etc/group").unwrap())
}

pub fn note(_: &Given) {
    let lines: Vec<_> = paths().into_iter().collect();
    fs::write(NOTED, lines.join("\n")).unwrap();
    fs::write(format!("{NOTED}.accounts"), accounts()).unwrap();
    assert!(
        lines.iter().any(|path| path == "/etc/passwd") && !lines.iter().any(|path| path.contains("pyrycode"))
    );
}

pub fn none(given: &Given) {
    assert_eq!(property(UNIT, "ActiveState"), "active");
    // What runs when it is removed is the form with most units.
    forms::locked_down(given);
    forms::take_the_drop_ins_away();
    assert!(sh("ls -A /var/lib/private/pyrycode-relay").0 == 0, "its state directory");
    // Like what an authority's certificates are kept in, and like what somebody else's are.
    ok("touch /etc/pyrycode-relay/tls/privkey.pem");
    ok(
        "mkdir -m 0700 /var/lib/private/pyrycode-relay/acme && touch /var/lib/private/pyrycode-relay/acme/account",
    );
    ok("DEBIAN_FRONTEND=noninteractive apt-get remove -y pyrycode-relay");
    assert_eq!(sh(&format!("systemctl is-active {UNIT}")).1.trim(), "inactive");
    assert_eq!(sh("cat /proc/[0-9]*/comm | grep -x pyrycode-relay").0, 1, "no process");
    assert_eq!(sh("ls /usr/bin/pyrycode-relay").0, 2, "no program");
    for address in [PUBLIC, METRICS] {
        assert!(TcpStream::connect(address).is_err(), "{address} is closed");
    }
    assert!(fs::read_to_string(CONFIG).unwrap().contains("upgrade_burst = 1000"), "the configuration stays");
    assert!(sh("ls /var/lib/private/pyrycode-relay/acme/account").0 == 0, "so does the state");
    ok("DEBIAN_FRONTEND=noninteractive apt-get purge -y pyrycode-relay");
    let before: BTreeSet<_> = fs::read_to_string(NOTED).unwrap().lines().map(str::to_owned).collect();
    let now = paths();
    let left: Vec<_> = now.difference(&before).collect();
    assert_eq!(left, Vec::<&String>::new(), "left behind");
    assert_eq!(accounts(), fs::read_to_string(format!("{NOTED}.accounts")).unwrap());
    assert!(!sh("getent passwd pyrycode-relay; getent group pyrycode-relay").1.contains("pyrycode"));
    assert_eq!(ok("find / -xdev -name '*pyrycode*' -not -path '/proc/*' -not -path '/var/tmp/*'"), "");
    assert!(
        !sh("systemctl list-units --all --no-legend 'pyrycode*'").1.contains("loaded"),
        "no unit is left"
    );
    assert!(!ok("dpkg --list").contains("pyrycode"));
}
