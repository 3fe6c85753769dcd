//! The page about logging and the catalogue in the source say the same.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every `emit!` in the catalogue: level, name and keys, as a row of the page shows them.
fn catalogue(source: &str) -> BTreeSet<String> {
    source
        .split("emit!(")
        .skip(1)
        .map(|call| {
            let call = call.split(");\n}").next().unwrap();
            let mut parts = call.splitn(3, ',').map(str::trim);
            let level = parts.next().unwrap().to_lowercase();
            let name = parts.next().unwrap().trim_end_matches(')').trim_matches('"');
            let arguments = parts.next().unwrap_or_default();
            let keys: Vec<_> = arguments
                .split(" = ")
                .filter_map(|piece| piece.rsplit([' ', ',', '\n']).next())
                .filter(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
                .map(|key| format!("`{key}`"))
                .collect();
            format!("| `{name}` | {level} | {} |", keys.join(", "))
        })
        .collect()
}

#[test]
fn every_event_is_on_the_page_with_its_level_and_keys() {
    let page = read("docs/logging.md");
    let rows: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split(" | ").take(3).collect::<Vec<_>>().join(" | ") + " |")
        .collect();
    let general = read("src/event/mod.rs");
    let mut events = catalogue(general.split("macro_rules! emit").nth(1).unwrap());
    events.extend(catalogue(&read("src/event/certificates.rs")));
    assert!(events.len() > 20, "the catalogue was read: {events:?}");
    assert_eq!(rows, events);
}

#[test]
fn the_reader_of_the_catalogue_sees_names_levels_and_keys() {
    let source = "fn a() {\n    emit!(INFO, \"plain\");\n}\nfn b() {\n    emit!(\n        WARN,\n        \
                  \"two\",\n        first = Plain(x),\n        second = Count(y),\n    );\n}\n";
    let rows = catalogue(source);
    assert!(rows.contains("| `plain` | info |  |"), "{rows:?}");
    assert!(rows.contains("| `two` | warn | `first`, `second` |"), "{rows:?}");
}
