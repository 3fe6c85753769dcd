//! The command line: what it prints where, and with which code it ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, with its line")]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pyrycode_relay::cli::DEFAULT_CONFIG;
use pyrycode_relay::config::Config;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrycode-relay"));
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A directory with `relay.toml` in it, and the path of that file.
fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.toml");
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    for args in [
        &["--frobnicate"][..],
        &["chek"],
        &["check", "--config"],
        &["check", "extra"],
        &["probe"],
        &["probe", "ws://127.0.0.1:1", "--count", "0"],
        &["--config", "a", "check"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(stdout(&output).is_empty(), "{args:?}");
        assert!(stderr(&output).contains("error: "), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn help_teaches() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).is_empty());
    let help = stdout(&output);
    for fact in [
        DEFAULT_CONFIG,
        "--config",
        "Signals:",
        "TERM, INT",
        "HUP",
        "Exit codes:",
        "Examples:",
        "check --print",
    ] {
        assert!(help.contains(fact), "{fact} is not in\n{help}");
    }
    for code in ["0", "1", "64", "69", "70", "78"] {
        assert!(
            help.lines().any(|line| line.starts_with(&format!("  {code:<4}"))),
            "{code} is not in\n{help}"
        );
    }
    for command in ["check", "probe"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            stdout(&output).contains("Exit codes:") && stdout(&output).contains("Examples:"),
            "{command}"
        );
    }
    let probe = run(&["probe", "--help"]);
    assert!(stdout(&probe).contains("length of the frame as JSON text"), "{}", stdout(&probe));
}

#[test]
fn version_is_one_line() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), concat!("pyrycode-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_good_file_is_confirmed() {
    let (_directory, path) = file("[session]\ngrace = \"2s\"\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("configuration ok: {path}\n"));
    assert!(stderr(&output).is_empty());
}

#[test]
fn without_a_file_the_defaults_are_confirmed() {
    if Path::new(DEFAULT_CONFIG).exists() {
        // This host has the relay installed; then the file is what is checked.
        let output = run(&["check"]);
        assert!(format!("{}{}", stdout(&output), stderr(&output)).contains(DEFAULT_CONFIG));
        assert!(matches!(output.status.code(), Some(0 | 78)));
        return;
    }
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("configuration ok: built-in defaults (no {DEFAULT_CONFIG})\n"));
}

#[test]
fn a_bad_file_is_refused_with_every_problem() {
    let (_directory, path) = file("[session]\ngrace = \"x\"\nmax_frame = 1\n[lgo]\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stdout(&output).is_empty());
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, start) in lines.iter().zip(["2: session.grace: ", "3: session.max_frame: ", "4: lgo: "]) {
        assert!(line.starts_with(&format!("{path}:{start}")), "{line}");
    }
    assert_eq!(lines[3], format!("3 problems in {path}"));

    // The verdict does not depend on --print, and a refused configuration is not printed.
    let printed = run(&["check", "--print", "--config", &path]);
    assert_eq!(printed.status.code(), Some(78));
    assert_eq!((stdout(&printed), stderr(&printed)), ("", stderr(&output)));
}

/// What stands in the fenced blocks of a language on the page about the configuration.
fn blocks(language: &str) -> Vec<&'static str> {
    let page = include_str!("../docs/configuration.md");
    let fence = format!("\n```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

#[test]
fn the_page_shows_what_check_says() {
    let (inputs, outputs) = (blocks("toml"), blocks("console"));
    assert_eq!((inputs.len(), outputs.len()), (1, 1), "an example without its counterpart");
    for (input, shown) in inputs.iter().zip(outputs) {
        let (command, expected) = shown.split_once('\n').unwrap();
        let args: Vec<_> = command.strip_prefix("$ pyrycode-relay ").unwrap().split(' ').collect();
        let (directory, _) = file(input);
        let output = program().args(args).current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert_eq!((stdout(&output), stderr(&output)), ("", expected), "for\n{input}");
    }
}

#[test]
fn two_listeners_on_one_address_are_one_problem() {
    let (_directory, path) = file("[listen]\npublic = \"127.0.0.1:9090\"\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(78));
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{path}:2: listen.public")), "{lines:?}");
    assert!(lines[0].contains("listen.metrics = \"127.0.0.1:9090\""), "{lines:?}");
}

#[test]
fn the_printed_configuration_is_a_configuration() {
    let (_directory, path) = file("[session]\ngrace = \"2s\"\n[log]\nformat = \"json\"\n");
    let output = run(&["check", "--print", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), format!("configuration ok: {path}\n"));
    let printed = stdout(&output);
    assert!(printed.starts_with("[listen]\npublic = \"127.0.0.1:8080\"\n"), "{printed}");
    let read = Config::parse(printed, "printed").unwrap();
    assert_eq!(read, Config::parse(&fs::read_to_string(&path).unwrap(), "f").unwrap());

    let (_directory, again) = file(printed);
    let second = run(&["check", "--print", "--config", &again]);
    assert_eq!(stdout(&second), printed);
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml").to_str().unwrap().to_owned();
    let folder = directory.path().to_str().unwrap().to_owned();
    let (_keep, latin1) = file(b"[session]\n# caf\xe9\n");
    let (_keep, large) = file("#\n".repeat(600_000));
    for (path, what) in [
        (missing, ": there is no such file"),
        (folder, ": cannot be read: "),
        (latin1, ":2: not valid TOML: this line is not UTF-8 text"),
        (large, ": larger than 1 MiB"),
        ("/dev/zero".to_owned(), ": larger than 1 MiB"),
    ] {
        let output = run(&["check", "--config", &path]);
        assert_eq!(output.status.code(), Some(78), "{path}");
        assert!(stdout(&output).is_empty());
        assert!(stderr(&output).starts_with(&format!("{path}{what}")), "{}", stderr(&output));
    }
}

#[test]
fn the_relay_refuses_what_check_refuses() {
    let (_directory, path) = file("[sesion]\n");
    let output = run(&["--config", &path]);
    let check = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains(&format!("{path}:1: sesion: unknown table; did you mean [session]?")));
    assert_eq!(check.status.code(), Some(78));
}

#[test]
fn a_reader_that_went_away_is_no_fault() {
    let (_directory, path) = file("");
    for args in [&["check", "--print", "--config", &path][..], &["check", "--config", &path], &["--help"]] {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let output =
            program().args(args).stdout(OwnedFd::from(writer)).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (_directory, path) = file("");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = program().args(["check", "--config", &path]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(stderr(&output).starts_with("cannot write to standard output: "), "{}", stderr(&output));
}
