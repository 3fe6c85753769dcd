//! What goes wrong, and what systemd makes of it.

use crate::Given;
use crate::support::eventually_within;
use crate::system::{
    CONFIG, PATIENCE, UNIT, configure, cursor, journal_says, ok, probed, process_after, property, restarts,
    set, sh, wait_for_series,
};

pub fn killed(_: &Given) {
    let (pid, before) = (process_after(""), restarts());
    ok(&format!("kill -KILL {pid}"));
    process_after(&pid);
    assert_eq!(restarts(), before + 1);
    probed();
}

/// A process that does nothing any more but is there.
pub fn wedged(_: &Given) {
    let (pid, before, mark) = (process_after(""), restarts(), cursor());
    ok(&format!("kill -STOP {pid}"));
    process_after(&pid);
    assert_eq!(restarts(), before + 1);
    journal_says(&mark, "Watchdog timeout");
    probed();
}

/// Which line of the configuration has this text.
fn line_of(part: &str) -> usize {
    let text = std::fs::read_to_string(CONFIG).unwrap();
    text.lines().position(|line| line.contains(part)).expect("the line") + 1
}

pub fn broken_reload(_: &Given) {
    let (pid, good) = (process_after(""), std::fs::read_to_string(CONFIG).unwrap());
    let mark = cursor();
    configure(|text| set(&text, "session", "grace", "\"30 parsecs\""));
    let (code, said) = sh(&format!("systemctl reload {UNIT}"));
    assert_ne!(code, 0, "{said}");
    // The relay was asked as well, and says so where it is looked for.
    journal_says(&mark, "reload_failed");
    wait_for_series("pyrycode_relay_reloads_total{outcome=\"failed\"}", 1.0);
    let expected =
        format!("{CONFIG}:{}: session.grace: \"30 parsecs\" is not a duration", line_of("parsecs"));
    journal_says(&mark, &expected);
    assert_eq!((property(UNIT, "ActiveState"), property(UNIT, "MainPID")), ("active".to_owned(), pid));
    probed();
    std::fs::write(CONFIG, good).unwrap();
    ok(&format!("systemctl reload {UNIT}"));
    wait_for_series("pyrycode_relay_ready", 1.0);
}

pub fn broken_start(_: &Given) {
    let good = std::fs::read_to_string(CONFIG).unwrap();
    configure(|text| set(&set(&text, "session", "grace", "\"30 parsecs\""), "limits", "handshakes", "-1"));
    let (code, said) = sh(&format!("systemctl restart {UNIT}"));
    assert_ne!(code, 0, "{said}");
    // It is what stands before the relay that fails, not the relay.
    assert!(property(UNIT, "ExecStartPre").contains("status=78"), "{}", property(UNIT, "ExecStartPre"));
    assert_eq!(property(UNIT, "MainPID"), "0");
    for (part, key) in [("parsecs", "session.grace"), ("handshakes = -1", "limits.handshakes")] {
        let expected = format!("{CONFIG}:{}: {key}: ", line_of(part));
        // The journal may be a moment behind.
        eventually_within(PATIENCE, &expected, || {
            let (_, status) = sh(&format!("systemctl status --full --no-pager {UNIT}"));
            if status.contains(&expected) { Ok(()) } else { Err(status) }
        });
    }
    // It does not go on trying for ever.
    eventually_within(PATIENCE, "systemd gives up", || {
        let state = property(UNIT, "ActiveState");
        if state == "failed" { Ok(()) } else { Err(state) }
    });
    std::fs::write(CONFIG, good).unwrap();
    ok(&format!("systemctl reset-failed {UNIT} && systemctl restart {UNIT}"));
    probed();
}
