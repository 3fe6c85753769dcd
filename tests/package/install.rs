//! Installing, and what an operator does first.

use std::fs;
use std::path::Path;

use crate::Given;
use crate::support::eventually_within;
use crate::system::{
    CONFIG, METRICS, PATIENCE, PUBLIC, UNIT, configure, cursor, journal_says, ok, page, probed,
    process_after, property, set, wait_for_series,
};

const DOCUMENTATION: &str = "/usr/share/doc/pyrycode-relay";

/// `apt install` as the README has it; without a network, as everything in here.
pub fn apt_install(package: &Path, options: &str) -> String {
    ok(&format!("DEBIAN_FRONTEND=noninteractive apt-get install -y {options} {}", package.display()))
}

pub fn install(given: &Given) {
    apt_install(&given.package, "");
    // Not "at some time": the installation ends when the relay is ready, because systemd waits for its word.
    assert_eq!(property(UNIT, "ActiveState"), "active");
    assert_eq!(property(UNIT, "UnitFileState"), "enabled");
    assert_eq!(property(UNIT, "Type"), "notify");
    let status = eventually_within(PATIENCE, "a status line", || {
        let status = property(UNIT, "StatusText");
        if status.contains("binaries") { Ok(status) } else { Err(status) }
    });
    assert!(status.starts_with('0'), "{status}");
    for socket in ["pyrycode-relay.socket", "pyrycode-relay-metrics.socket"] {
        assert_eq!(property(socket, "ActiveState"), "inactive");
        assert_eq!(property(socket, "UnitFileState"), "disabled");
    }
    let units = "pyrycode-relay.service pyrycode-relay.socket pyrycode-relay-metrics.socket";
    assert_eq!(ok(&format!("systemd-analyze verify --man=no {units}")), "");
    assert_eq!(ok("dpkg --verify pyrycode-relay"), "", "every file is as it was shipped");
    probed();
    assert!(page(PUBLIC, "/healthz").starts_with("{\"status\":\"ok\""));
    assert!(page(METRICS, "/metrics").contains("pyrycode_relay_build_info{"));
    wait_for_series("pyrycode_relay_ready", 1.0);
    // As the page about the log has it: events can be asked for by their name.
    let ready = ok("journalctl EVENT=ready --output=export --no-pager");
    assert!(ready.contains("\n_COMM=pyrycode-relay\n") && ready.contains("\nPRIORITY=6\n"), "{ready}");
}

/// What the installed pages point at is there.
pub fn documentation(_: &Given) {
    let pages = ok(&format!("find {DOCUMENTATION} -name '*.md'"));
    let pages: Vec<_> = pages.lines().map(Path::new).collect();
    let mut links = 0;
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("text");
        let directory = page.parent().expect("a directory");
        let relative = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let relative = relative.filter(|link| !link.is_empty() && !link.contains("://"));
        // Debian has the licence in the file `copyright`.
        for link in relative.filter(|link| *link != "LICENSE") {
            links += 1;
            if !directory.join(link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
        let ends = |c: char| c.is_whitespace() || "`'\"),;#".contains(c);
        for (start, _) in text.match_indices(DOCUMENTATION) {
            let path = text[start..].split(ends).next().unwrap_or_default().trim_end_matches('.');
            links += 1;
            if !Path::new(path).exists() {
                broken.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(links > 40 && pages.len() > 10, "{links} in {} pages", pages.len());
    for manual in ["pyrycode-relay.8", "pyrycode-relay.toml.5"] {
        assert_eq!(ok(&format!("zcat /usr/share/man/man*/{manual}.gz | grep -c '^\\.TH'")).trim(), "1");
    }
}

/// What takes effect without a restart, in the form that runs.
pub fn reloaded(_: &Given) {
    let pid = process_after("");
    for level in ["info", "debug"] {
        let mark = cursor();
        configure(|text| set(&text, "log", "level", &format!("\"{level}\"")));
        ok(&format!("systemctl reload {UNIT}"));
        assert!(journal_says(&mark, "reloaded").contains(level));
    }
    assert_eq!(property(UNIT, "MainPID"), pid);
}

pub fn edited(_: &Given) {
    let pid = process_after("");
    let mark = cursor();
    configure(|text| set(&text, "log", "level", "\"debug\""));
    assert_eq!(ok("pyrycode-relay check"), format!("configuration ok: {CONFIG}\n"));
    ok(&format!("systemctl reload {UNIT}"));
    assert!(journal_says(&mark, "reloaded").contains("debug"));
    assert_eq!(property(UNIT, "MainPID"), pid);
    // Room for what comes; a restart takes it up.
    configure(|text| {
        set(&set(&text, "limits", "upgrade_burst", "1000"), "limits", "upgrades_per_minute", "1000")
    });
    let mark = cursor();
    ok(&format!("systemctl reload {UNIT}"));
    assert!(journal_says(&mark, "needs_restart").contains("limits.upgrade_burst"));
    ok(&format!("systemctl restart {UNIT}"));
    assert_ne!(process_after(&pid), pid);
    probed();
    assert!(fs::read_to_string(CONFIG).unwrap().contains("level = \"debug\""));
}
