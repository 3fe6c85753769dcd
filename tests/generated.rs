//! What is generated from the definitions in the code is what lies in the tree, and the programs that it is for take
//! it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test, with its line")]

#[path = "../packaging/generate/outputs/mod.rs"]
mod outputs;
#[path = "support/programs.rs"]
#[allow(unreachable_pub, clippy::expect_used, reason = "made for many test programs")]
mod programs;

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use outputs::Output;
use pyrycode_relay::cli::Cli;
use pyrycode_relay::config::{Config, keys};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(path: &str) -> String {
    outputs::all(root()).unwrap().into_iter().find(|output| output.path == path).unwrap().text
}

fn path_of(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}

#[test]
fn the_tree_has_what_the_definitions_give() {
    let outputs = outputs::all(root()).unwrap();
    let differences: Vec<_> = outputs.iter().filter_map(|output| output.difference(root())).collect();
    assert_eq!(outputs.len(), 7);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn a_difference_is_told_with_its_line_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let output = Output { path: "file", text: "one\ntwo\nthree\n".to_owned() };
    let mut told = Vec::new();
    for there in ["one\ntwo\nthree\n", "one\n2\nthree\n", "one\ntwo\n", "one\ntwo\nthree\n\n"] {
        fs::write(directory.path().join("file"), there).unwrap();
        told.push(output.difference(directory.path()).unwrap_or_default());
    }
    let run = "run: cargo run --example generate";
    assert_eq!(told[0], "");
    assert_eq!(told[1], format!("file:2: is \"2\", the definitions in the code give \"two\"; {run}"));
    assert_eq!(told[2], format!("file:3: is \"\", the definitions in the code give \"three\"; {run}"));
    assert_eq!(
        told[3],
        format!("file:5: is \"\", the definitions in the code give the end of the file; {run}")
    );
    fs::remove_file(directory.path().join("file")).unwrap();
    let missing = output.difference(directory.path()).unwrap();
    assert!(missing.starts_with("file: No such file") && missing.ends_with(run), "{missing}");
}

#[test]
fn the_program_s_page_has_every_option_and_every_exit_code_of_the_help() {
    let page = text_of("packaging/man/pyrycode-relay.8").replace("\\-", "-").replace("\\*(Aq", "'");
    let page = page.replace(".SH \"", ".SH ").replace("\"\n", "\n");
    let program = Cli::command();
    let mut options = 0;
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("\n\\fB--{long}\\fR")), "--{long} of {}", command.get_name());
            options += 1;
        }
        let help = command.get_after_long_help().unwrap().to_string();
        let codes = help.split_once("Exit codes:\n").unwrap().1.lines().take_while(|line| !line.is_empty());
        for line in codes.filter(|line| !line.starts_with("   ")) {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            let entry = format!("\n\\fB{code}\\fR\n{}", meaning.trim());
            assert!(page.contains(&entry), "{code} of {}", command.get_name());
        }
    }
    assert!(options >= 8, "{options}");
    for title in
        ["SYNOPSIS", "COMMANDS", "SIGNALS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"]
    {
        let section = page.split("\n.SH ").find(|section| section.starts_with(&format!("{title}\n")));
        assert!(section.is_some_and(|section| section.lines().count() > 1), "{title} is empty");
    }
}

#[test]
fn the_examples_of_the_configuration_s_page_are_accepted() {
    assert!(outputs::prose::EXAMPLES.len() >= 3);
    for (purpose, file) in outputs::prose::EXAMPLES {
        let config =
            Config::parse(file, "relay.toml").unwrap_or_else(|problems| panic!("{purpose}\n{problems}"));
        assert_ne!(config, Config::default(), "{purpose}");
    }
}

#[test]
fn what_the_installed_file_says_of_durations_holds() {
    let file = text_of("packaging/relay.toml");
    let most = keys().iter().filter(|key| key.allowed() == outputs::prose::ANY_DURATION).count();
    let said = keys().iter().filter(|key| key.allowed().starts_with("a duration")).count();
    assert!(most > 1 && file.contains("from \"1ms\" to \"24h\" if nothing else is"), "{file}");
    assert_eq!(file.replace("\n# ", " ").matches("Allowed: a duration").count(), said - most);
}

#[test]
fn the_readers_of_manual_pages_have_no_complaint() {
    for page in ["packaging/man/pyrycode-relay.8", "packaging/man/pyrycode-relay.toml.5"] {
        let path = path_of(page);
        match programs::said("mandoc", &["-T", "lint", "-W", "warning", &path], "") {
            None => println!("skipped: mandoc is not installed"),
            Some(said) => {
                // The date of a page is that of the release: before it, there is none.
                let complaints: Vec<_> =
                    said.lines().filter(|line| !line.contains("missing date, using \"\"")).collect();
                assert!(complaints.is_empty(), "{complaints:#?}");
                assert!(said.lines().count() <= 1, "{said}");
            }
        }
        let script = "man --warnings -E UTF-8 -l -Tutf8 -Z \"$0\" 2>&1 >/dev/null && lexgrog \"$0\"";
        if programs::said("man", &["--version"], "").is_none() {
            println!("skipped: man is not installed");
            continue;
        }
        let said = programs::said("sh", &["-c", script, &path], "").unwrap();
        let name = page.rsplit('/').next().unwrap().rsplit_once('.').unwrap().0;
        assert!(said.starts_with(&format!("{path}: \"{name} - ")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// What a shell offers: for the first word, for `check`'s options, and for `probe`'s.
fn assert_offers(shell: &str, [first, check, probe]: [&str; 3]) {
    for (offered, expected) in [
        (first, &["check", "probe", "--config", "--version"][..]),
        (check, &["--config", "--print"]),
        (probe, &["--count", "--server-id", "--ca"]),
    ] {
        let words: Vec<_> = offered.split_whitespace().collect();
        for word in expected {
            assert!(words.contains(word), "{shell} does not offer {word}: {offered}");
        }
    }
    assert!(!check.contains("--count") && !probe.contains("--print"), "{shell}: {check}\n{probe}");
}

#[test]
fn bash_completes() {
    let file = path_of("packaging/completions/pyrycode-relay.bash");
    let syntax = programs::said("bash", &["-n", &file], "").unwrap();
    assert_eq!(syntax, "");
    // Asks the function that the script registered, as the shell does when somebody presses the tabulator.
    let script = "source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
        [[ $(complete -p \"$1\") =~ -F\\ ([^ ]+) ]] && \"${BASH_REMATCH[1]}\" \"$1\" \"${!#}\" \"${COMP_WORDS[-2]}\"
        echo \"${COMPREPLY[@]}\"";
    let offered = |words: &[&str]| {
        let arguments = [&["--norc", "-c", script, &file, "pyrycode-relay"], words].concat();
        programs::said("bash", &arguments, "").unwrap()
    };
    assert_offers(
        "bash",
        [&offered(&[""]), &offered(&["check", "--"]), &offered(&["probe", "--"])].map(String::as_str),
    );
    assert_eq!(offered(&["ch"]), "check\n");
}

#[test]
fn zsh_completes() {
    let file = path_of("packaging/completions/_pyrycode-relay");
    let Some(syntax) = programs::said("zsh", &["-f", "-n", &file], "") else {
        return println!("skipped: zsh is not installed");
    };
    assert_eq!(syntax, "");
    // An interactive shell on a terminal, in which somebody types and presses the tabulator twice.
    let script = "zmodload zsh/zpty
        zpty shell 'TERM=dumb zsh -f -i'
        zpty -w shell \"PROMPT=; fpath=(${1:h} \\$fpath); autoload -Uz compinit; compinit -u -D\"
        zpty -w shell 'setopt list_ambiguous; LISTMAX=1000; COLUMNS=200; LINES=100; print rea''dy'
        zpty -r shell said '*ready*'
        zpty -w -n shell \"$2\"$'\\t\\t'
        zpty -r shell said \"*$3*\"
        print -r -- $said
        zpty -d shell";
    let offered = |typed: &str, last: &str| {
        programs::said("zsh", &["-f", "-c", script, "zsh", &file, typed, last], "").unwrap()
    };
    let first = offered("pyrycode-relay ", "probe") + &offered("pyrycode-relay --", "--version");
    let check = offered("pyrycode-relay check --", "--print");
    let probe = offered("pyrycode-relay probe --", "--size");
    assert_offers("zsh", [&first, &check, &probe].map(String::as_str));
}

#[test]
fn fish_completes() {
    let file = path_of("packaging/completions/pyrycode-relay.fish");
    let Some(syntax) = programs::said("fish", &["--no-config", "-n", &file], "") else {
        return println!("skipped: fish is not installed");
    };
    assert_eq!(syntax, "");
    let offered = |typed: &str| {
        let script = format!("source {file}; complete -C 'pyrycode-relay {typed}'");
        programs::said("fish", &["--no-config", "-c", &script], "").unwrap()
    };
    let first = offered("") + &offered("--");
    assert_offers("fish", [&first, &offered("check --"), &offered("probe --")].map(String::as_str));
}
