//! The machine, as an operator sees it: commands, units, the journal.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::eventually_within;
use crate::support::relay::Relay;

pub const UNIT: &str = "pyrycode-relay.service";
pub const CONFIG: &str = "/etc/pyrycode-relay/relay.toml";
pub const PUBLIC: &str = "127.0.0.1:8080";
pub const METRICS: &str = "127.0.0.1:9090";

/// Longer than the watchdog (15 s) and a restart (2 s) take together.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// What a line of shell does: its exit code, and what it printed.
pub fn sh(line: &str) -> (i32, String) {
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().expect("a shell");
    (output.status.code().unwrap_or(-1), text(&output))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What a line of shell prints that has to succeed.
pub fn ok(line: &str) -> String {
    let (code, said) = sh(line);
    assert_eq!(code, 0, "{line}: {said}");
    said
}

/// A property of a unit.
pub fn property(unit: &str, name: &str) -> String {
    ok(&format!("systemctl show --property={name} --value {unit}")).trim().to_owned()
}

/// The relay's process, once the unit is active; never the one in `not`.
pub fn process_after(not: &str) -> String {
    eventually_within(PATIENCE, "the relay is active", || {
        let (state, pid) = (property(UNIT, "ActiveState"), property(UNIT, "MainPID"));
        if state == "active" && pid != "0" && pid != not { Ok(pid) } else { Err(format!("{state}, {pid}")) }
    })
}

/// How often systemd has restarted the unit by itself.
pub fn restarts() -> u32 {
    property(UNIT, "NRestarts").parse().expect("a number")
}

/// A place in the journal: what comes later is after it.
pub fn cursor() -> String {
    let said = ok("journalctl --sync && journalctl --lines=1 --quiet --show-cursor --output=cat");
    said.lines().find_map(|line| line.strip_prefix("-- cursor: ")).expect("a cursor").to_owned()
}

/// Waits for a line in the unit's journal, written after the cursor.
pub fn journal_says(cursor: &str, part: &str) -> String {
    eventually_within(PATIENCE, part, || {
        let lines =
            ok(&format!("journalctl --unit={UNIT} --after-cursor='{cursor}' --output=cat --no-pager"));
        let found = lines.lines().find(|line| line.contains(part)).map(str::to_owned);
        found.ok_or(lines)
    })
}

/// Writes the configuration.
pub fn configure(change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(CONFIG).expect("the configuration");
    let changed = change(text.clone());
    assert_ne!(text, changed, "nothing was changed");
    std::fs::write(CONFIG, changed).expect("writes");
}

/// In the configuration: `key` of `[table]` becomes `value`, wherever the shipped file has it.
pub fn set(text: &str, table: &str, key: &str, value: &str) -> String {
    let mut here = false;
    let mut done = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            here = line.trim() == format!("[{table}]");
        }
        let bare = line.trim_start_matches(['#', ' ']);
        if here && !done && bare.split('=').next().is_some_and(|name| name.trim() == key) {
            lines.push(format!("{key} = {value}"));
            done = true;
        } else {
            lines.push(line.to_owned());
        }
    }
    assert!(done, "{table}.{key} is not in the shipped configuration:\n{text}");
    lines.push(String::new());
    lines.join("\n")
}

/// `probe`, which runs outside of the sandbox, with these arguments finds a relay that works.
pub fn probed_at(arguments: &str) {
    let said = ok(&format!("pyrycode-relay probe {arguments}"));
    assert!(said.contains("verdict: the relay works"), "{said}");
}

/// The same where the shipped configuration has it.
pub fn probed() {
    probed_at(&format!("ws://{PUBLIC}"));
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A page, without its head.
pub fn page(at: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    let answer = Relay::http(address(at), &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// The value of a series of the relay.
fn series(name: &str) -> f64 {
    let scrape = page(METRICS, "/metrics");
    let value = scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in the scrape: {scrape}")).parse().expect("a number")
}

/// Waits until a series of the relay has a value: what is counted comes behind what is seen of it.
pub fn wait_for_series(name: &str, value: f64) {
    eventually_within(PATIENCE, name, || {
        let seen = series(name);
        if (seen - value).abs() < f64::EPSILON { Ok(()) } else { Err(format!("{seen}, not {value}")) }
    });
}

/// What helps to understand a failure.
pub fn circumstances() -> String {
    let commands = [
        "systemctl --no-pager --full status 'pyrycode-relay*'",
        "journalctl --no-pager --lines=80 --output=short-precise",
        "cat /etc/pyrycode-relay/relay.toml | grep -v '^ *#' | grep .",
    ];
    commands.map(|command| format!("$ {command}\n{}", sh(command).1)).join("\n")
}
