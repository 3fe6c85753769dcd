//! What a reload needs: which keys have changed, and a refusal in one line.

use std::fs;
use std::path::{Path, PathBuf};

use pyrycode_relay::config::{Config, LoadError, keys};

fn refusal(path: &Path) -> LoadError {
    Config::load(Some(path)).unwrap_err()
}

/// A file of this name and content, in a directory that lives as long as the first value.
fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn is_one_line(text: &str) -> bool {
    text.lines().count() == 1
        && !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

#[test]
fn changed_keys_are_named_in_the_order_of_the_file() {
    let old = Config::default();
    assert!(old.changed_keys(&old).is_empty());
    let new = Config::parse(
        "[runtime]\nworkers = 2\n[log]\nlevel = \"warn\"\nformat = \"auto\"\n\
         [session]\ngrace = \"30000ms\"\nmax_frame = \"1KiB\"\n[listen]\nmetrics = \"off\"\n",
        "f",
    )
    .unwrap();
    // The grace is written in another way and is the same.
    let expected = ["listen.metrics", "session.max_frame", "log.level", "runtime.workers"];
    assert_eq!(old.changed_keys(&new), expected);
    assert_eq!(new.changed_keys(&old), expected);
}

#[test]
fn no_key_escapes_the_comparison() {
    let old = Config::default();
    let mut new = old.clone();
    new.tls.domains = Some(vec!["a.example".to_owned()]);
    new.access.servers = vec!["home".to_owned()];
    new.drain.spread += std::time::Duration::from_millis(1);
    assert_eq!(old.changed_keys(&new), ["tls.domains", "access.servers", "drain.spread"]);
    for key in keys() {
        // Every key that has a default prints it, so no difference can hide behind a value that is not written.
        assert!(key.default().is_some() || key.table == "tls", "{}", key.path());
    }
}

#[test]
fn a_summary_names_the_first_problem_and_counts_the_rest() {
    let (_directory, path) = file("relay.toml", "\n[sesion]\n");
    let shown = path.display();
    assert_eq!(
        refusal(&path).summary(),
        format!(
            "{shown}:2: sesion: unknown table; did you mean [session]?; see: pyrycode-relay check --config {shown}"
        )
    );

    let lines: Vec<_> = (0..40).map(|n| format!("k{n} = 1")).collect();
    let (_directory, path) = file("relay.toml", lines.join("\n"));
    let shown = path.display();
    let summary = refusal(&path).summary();
    assert!(summary.starts_with(&format!("{shown}:1: k0: unknown key; ")), "{summary}");
    assert!(
        summary.ends_with(&format!("; and 39 more; see: pyrycode-relay check --config {shown}")),
        "{summary}"
    );
    assert!(is_one_line(&summary), "{summary}");
    assert_eq!(refusal(&path).to_string().lines().count(), 41, "the report itself stays whole");
}

#[test]
fn a_summary_is_one_line_whatever_the_file_and_its_name_hold() {
    let content = "\"a\\nb\\u2028\" = 1\n[\"c\\r\"]\n[session]\ngrace = \"\\n\\u2029\\u001b\"\n";
    let (directory, path) = file("re\nlay\r\u{2028}\u{1b}.toml", content);
    let missing = directory.path().join("no\nne.toml");
    let (_keep, large) = file("la\u{85}rge.toml", "#\n".repeat(600_000));
    let (_keep, latin1) = file("lat\nin.toml", b"\xe9");
    for (path, what) in [
        (path, "unknown key"),
        (missing, "there is no such file"),
        (large, "larger than 1 MiB"),
        (latin1, "not UTF-8 text"),
    ] {
        let summary = refusal(&path).summary();
        assert!(is_one_line(&summary), "{summary:?}");
        assert!(summary.contains(what), "{summary:?}");
    }
    // Other refusals are told as they are.
    let error = refusal(directory.path());
    assert_eq!(error.summary(), error.to_string());
}

#[test]
fn a_summary_of_a_long_list_still_ends_with_what_to_do() {
    let (_directory, path) = file("relay.toml", format!("tls.domains = [{}]", "\"a b\", ".repeat(5000)));
    let error = refusal(&path);
    let report = error.to_string();
    assert_eq!(report.matches(" is not a host name").count(), 5000);
    let summary = error.summary();
    let first = report.lines().next().unwrap();
    assert!(summary.starts_with(&format!("{first}; and 4999 more")), "{summary}");
    assert!(summary.contains("; see: pyrycode-relay check --config "), "{summary}");
    assert!(summary.len() < 1000, "{summary}");
}
