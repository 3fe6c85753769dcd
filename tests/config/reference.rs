//! The table of keys, the reference file, the page for operators and the printed configuration say the same.

use std::collections::BTreeSet;
use std::time::Duration;

use pyrycode_relay::config::{Config, Key, MetricsListen, PublicListen, keys};
use pyrycode_relay::event::{Format, Level};

use crate::REFERENCE;

const PAGE: &str = include_str!("../../docs/configuration.md");

#[test]
fn the_reference_file_is_the_defaults() {
    assert_eq!(Config::parse(REFERENCE, "relay.toml").unwrap(), Config::default());
    assert_eq!(Config::parse("", "relay.toml").unwrap(), Config::default());

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
fn the_reference_file_and_the_table_have_the_same_keys_in_the_same_order() {
    let mut table = "";
    let mut found = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name;
        } else if let Some((name, value)) = line.trim_start_matches("# ").split_once(" = ") {
            if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                found.push((format!("{table}.{name}"), line.starts_with('#'), value.to_owned()));
            }
        }
    }
    let paths: Vec<_> = found.iter().map(|(path, ..)| path.clone()).collect();
    assert_eq!(paths, keys().iter().map(Key::path).collect::<Vec<_>>());
    for (key, (path, commented, value)) in keys().iter().zip(&found) {
        assert_eq!(*commented, key.default().is_none(), "{path}");
        assert!(*commented || key.default().as_ref() == Some(value), "{path}: {value}");
    }
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
        assert!(!key.doc.is_empty() && !key.allowed().is_empty(), "{}", key.path());
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys().len(), "the page has a row for a key that does not exist");
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
