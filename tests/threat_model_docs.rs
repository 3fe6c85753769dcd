//! Every test that the threat model names exists.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../docs/threat-model.md");

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands in backquotes in the last column of the tables.
fn named() -> Vec<&'static str> {
    let cells =
        PAGE.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_holds_a_claim_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    let sources: Vec<_> = files.iter().map(|path| (path, fs::read_to_string(path).unwrap())).collect();
    let exists = |name: &str| {
        let (file, test) = name.split_once("::").unwrap_or(("", name));
        sources.iter().any(|(path, source)| {
            let in_file = file.is_empty() || path.ends_with(format!("tests/{file}.rs"));
            in_file && source.contains(&format!("fn {test}("))
        })
    };
    let named = named();
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(named.len() > 30, "{named:?}");
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
    assert!(!exists("handshakes::a_test_that_is_not_there"));
}

#[test]
fn every_claim_has_a_test() {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Cannot |"));
    let without: Vec<_> =
        rows.clone().filter(|line| !line.contains('`') && !line.ends_with("| the same |")).collect();
    assert!(rows.count() > 20);
    assert!(without.is_empty(), "{without:?}");
}
