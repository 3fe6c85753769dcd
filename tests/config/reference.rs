//! The table of keys, the installed file, the page for operators, the manual page and the printed configuration say the
//! same. (tests/generated.rs holds that the first four are made from one source; here is what that source must give.)

use std::collections::BTreeSet;
use std::time::Duration;

use pyrycode_relay::config::{Config, Key, MetricsListen, PublicListen, keys, tables};
use pyrycode_relay::event::{Format, Level};

use crate::{REFERENCE, uncommented};

const PAGE: &str = include_str!("../../docs/configuration.md");
const MANUAL: &str = include_str!("../../packaging/man/pyrycode-relay.toml.5");

/// What the installed file shows for a key, by its dotted name.
fn shown() -> Vec<(String, String)> {
    let mut table = "";
    let mut shown = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name;
        } else if let Some((name, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                shown.push((format!("{table}.{name}"), value.to_owned()));
            }
        }
    }
    shown
}

#[test]
fn the_installed_file_is_the_defaults() {
    assert_eq!(Config::parse(REFERENCE, "relay.toml").unwrap(), Config::default());
    assert_eq!(Config::parse("", "relay.toml").unwrap(), Config::default());
    let live: Vec<_> =
        REFERENCE.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])).collect();
    assert!(live.is_empty(), "a default that stands in the file outlives a better one: {live:?}");

    let config = Config::default();
    assert_eq!(config.listen.public, PublicListen::Address("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(config.listen.metrics, MetricsListen::Address("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.session.grace, Duration::from_secs(30));
    assert_eq!(config.session.max_frame, 262_144);
    assert_eq!(config.limits.phone_queue, 4_194_304);
    assert_eq!(config.drain.timeout, Duration::from_secs(20));
    assert_eq!((config.log.level, config.log.format), (Level::Info, Format::Auto));
}

#[test]
fn the_installed_file_and_the_table_have_the_same_keys_in_the_same_order() {
    let shown = shown();
    let paths: Vec<_> = shown.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(paths, keys().iter().map(Key::path).collect::<Vec<_>>());
    for (key, (path, value)) in keys().iter().zip(&shown) {
        assert_ne!(key.default().is_some(), key.example.is_some(), "{path} has a default or an example");
        let expected = key.default().or(key.example.map(str::to_owned));
        assert_eq!(expected.as_ref(), Some(value), "{path}");
    }
}

#[test]
fn what_the_installed_file_shows_can_be_uncommented() {
    let all = uncommented(|key| key.default().is_some());
    let defaults = keys().iter().filter(|key| key.default().is_some()).count();
    assert_eq!(Config::parse(&all, "relay.toml").unwrap(), Config::default());
    assert_eq!(all.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(), defaults);

    // Each example goes with one mode or the other.
    let files = ["certificate", "key", "domains"];
    let acme = ["domains", "contact", "directory", "directory_ca", "state"];
    for (mode, names) in [("files", &files[..]), ("acme", &acme)] {
        let text = uncommented(|key| key.example.is_some() && names.contains(&key.name))
            .replace("#mode = \"off\"", &format!("mode = \"{mode}\""));
        let config = Config::parse(&text, "relay.toml").unwrap();
        assert_eq!(config.changed_keys(&Config::default()).len(), names.len() + 1, "{mode}");
    }
    let examples: BTreeSet<_> =
        keys().iter().filter(|key| key.example.is_some()).map(|key| key.name).collect();
    assert_eq!(examples, files.into_iter().chain(acme).collect());
}

#[test]
fn every_key_is_documented_with_its_default() {
    for key in keys() {
        let default = key.default().map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let row = format!("| `{}` | {default} |", key.name);
        let section = PAGE.split("\n## ").find(|section| section.starts_with(&format!("`[{}]`", key.table)));
        let section = section.unwrap_or_else(|| panic!("no section for [{}]", key.table));
        let line = section.lines().find(|line| line.starts_with(&row));
        assert!(line.is_some(), "no row {row} in [{}]", key.table);
        assert!(!key.doc.trim().is_empty() && !key.allowed().is_empty(), "{}", key.path());
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys().len(), "the page has a row for a key that does not exist");
}

#[test]
fn every_key_is_on_the_manual_page_with_its_default() {
    let plain = MANUAL.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
    for key in keys() {
        let section =
            plain.split("\n.SH ").find(|section| section.starts_with(&format!("[{}]\n", key.table)));
        let section = section.unwrap_or_else(|| panic!("no section for [{}]", key.table));
        let entry = section.split("\n.TP\n").find(|entry| entry.starts_with(&format!("{}\n", key.name)));
        let entry = entry.unwrap_or_else(|| panic!("no entry for {}", key.path()));
        let default =
            key.default().map_or("Not set by default.".to_owned(), |value| format!("Default: {value}."));
        assert!(entry.contains(&format!("\n{default}")), "{default} is not in\n{entry}");
        assert!(
            entry.contains(&format!("\nAllowed: {}.\n", key.allowed())),
            "{} is not in\n{entry}",
            key.allowed()
        );
    }
    let sections = plain.matches("\n.SH [").count();
    assert_eq!(sections, tables().len());
}

#[test]
fn what_is_said_of_a_key_can_be_set_everywhere() {
    let docs = keys().iter().map(|key| (key.path(), key.doc));
    for (name, doc) in docs.chain(tables().iter().map(|table| (table.name.to_owned(), table.doc))) {
        assert_eq!(doc.matches('`').count() % 2, 0, "{name}: a backquote has no counterpart");
        assert!(!doc.contains('|'), "{name}: this would end the cell of a table");
        assert!(doc.trim_end().ends_with('.'), "{name}: this is not a sentence");
    }
}

#[test]
fn what_is_printed_reads_back() {
    let changed = Config::parse(
        "[listen]\npublic = \"[::]:443\"\nmetrics = \"off\"\nplaintext = \"anywhere\"\n\
         [session]\ngrace = \"90s\"\nmax_frame = \"1000KiB\"\n\
         [limits]\nphones_per_server = 65535\nconnections = 2\nhandshakes = 0x200\nphone_queue = \"5000001B\"\nhandshake_timeout = \"1500ms\"\n\
         [client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.1/32\", \"::1/128\"]\n\
         [access]\nservers = [\"home\", \"~!\"]\n\
         [drain]\ntimeout = \"24h\"\n[log]\nlevel = \"error\"\nformat = \"json\"\n[runtime]\nworkers = 64\n",
        "f",
    )
    .unwrap();
    for config in [Config::default(), changed.clone()] {
        let printed = config.to_toml();
        assert_eq!(Config::parse(&printed, "printed").unwrap(), config);
        let tables: Vec<_> = printed.lines().filter(|line| line.starts_with('[')).collect();
        let expected: BTreeSet<_> = keys().iter().map(|key| format!("[{}]", key.table)).collect();
        assert_eq!(tables.len(), expected.len());
        for key in keys() {
            let written = printed
                .lines()
                .filter(|line| line.trim_start_matches("# ").starts_with(&format!("{} ", key.name)));
            assert_eq!(written.count(), 1, "{} in\n{printed}", key.path());
        }
    }
    let printed = changed.to_toml();
    for line in
        ["grace = \"90s\"", "max_frame = \"1000KiB\"", "phone_queue = \"5000001B\"", "timeout = \"24h\""]
    {
        assert!(printed.contains(&format!("\n{line}\n")), "{line} in\n{printed}");
    }
}
