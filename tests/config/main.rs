//! The configuration: what is accepted, what is refused, and how a refusal reads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test, with its line")]

mod any_text;
mod reference;
mod reload;
mod rounds;
mod values;

use pyrycode_relay::config::{Config, Key, Problems, keys};

const REFERENCE: &str = include_str!("../../packaging/relay.toml");

fn refuse(text: &str) -> Problems {
    match Config::parse(text, "relay.toml") {
        Ok(_) => panic!("accepted, and should not be:\n{text}"),
        Err(problems) => problems,
    }
}

/// The one problem of a text: its line, its key and its message.
fn only_problem(text: &str) -> (usize, String, String) {
    let problems = refuse(text);
    assert_eq!(problems.count(), 1, "{problems}");
    let problem = problems.iter().next().unwrap();
    (problem.line, problem.key.clone(), problem.text.clone())
}

/// The installed file with the lines of some keys uncommented.
fn uncommented(wanted: impl Fn(&Key) -> bool) -> String {
    let is_wanted = |name: &str| keys().iter().any(|key| key.name == name && wanted(key));
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if rest.split_once(" = ").is_some_and(|(name, _)| is_wanted(name)) => rest,
        _ => line,
    };
    REFERENCE.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn with(key: &Key, value: &str) -> String {
    format!("[{}]\n{} = {value}\n", key.table, key.name)
}

#[test]
fn all_problems_are_reported_at_once_with_their_lines() {
    let problems = refuse(
        "grace = \"1s\"\n\
         [listen]\n\
         public = \"0.0.0.0:80\"\n\
         metrics = \"localhost:9090\"\n\
         plaintxt = \"loopback\"\n\
         [sesion]\n\
         [session]\n\
         grace = \"30 parsecs\"\n\
         max_frame = 262144\n\
         ping_interval = \"0s\"\n\
         grace = \"4s\"\n\
         write_timeout = 30 parsecs\n\
         [limits]\n\
         phones_per_server = 65536\n\
         phone_queue = \"64KiB\"\n\
         [tls]\n\
         mode = \"off\"\n\
         certificate = \"/a\"\n\
         [drain]\n\
         timeout = \"4s\"\n\
         pace = 1\n\
         [metrics]\n",
    );
    let text = problems.to_string();
    let expected = [
        "1: grace: unknown key here; did you mean \"grace\" in [session]?",
        "3: listen.public: \"0.0.0.0:80\" is not a loopback address, and listen.plaintext = \"loopback\" serves",
        "4: listen.metrics: \"localhost:9090\" is not an IP literal with a port; allowed: an address in 127",
        "5: listen.plaintxt: unknown key; did you mean \"plaintext\"?",
        "6: sesion: unknown table; did you mean [session]?",
        "8: session.grace: \"30 parsecs\" is not a duration; write \"500ms\", \"30s\", \"5m\" or \"1h\"",
        "9: session.max_frame: expected a string, found an integer; allowed: a size such as",
        "10: session.ping_interval: \"0s\" is out of range; allowed: a duration from \"1ms\" to \"24h\"",
        "11: not valid TOML: duplicate key, at \"grace\"",
        "12: not valid TOML: ",
        "14: limits.phones_per_server: 65536 is out of range; allowed: a whole number from 1 to 65535",
        "18: tls.certificate: goes with tls.mode = \"files\" only",
        "20: drain.timeout: \"4s\" is shorter than drain.spread (\"5s\")",
        "21: drain.pace: unknown key; allowed in [drain]: spread, timeout",
        "22: metrics: unknown table; the tables are: listen, tls, session, limits, client_address, access, drain",
    ];
    for (line, expected) in text.lines().zip(expected) {
        let expected = format!("relay.toml:{expected}");
        assert!(line.starts_with(&expected), "expected: {expected}\n   found: {line}");
    }
    assert_eq!(text.lines().count(), expected.len() + 1, "{text}");
    assert_eq!(text.lines().last(), Some("15 problems in relay.toml"));
}

#[test]
fn a_queue_holds_a_frame_and_its_envelope() {
    let file = |queue: usize| format!("session.max_frame = \"1MiB\"\nlimits.phone_queue = \"{queue}B\"\n");
    let least = 1_048_576 + 1024 + 64;
    assert_eq!(Config::parse(&file(least), "f").unwrap().limits.phone_queue, least);
    let (line, key, text) = only_problem(&file(least - 1));
    assert_eq!((line, key.as_str()), (2, "limits.phone_queue"));
    assert!(text.contains("\"1049663B\" cannot hold one frame of session.max_frame (\"1MiB\")"), "{text}");

    // Both defaults are too small then; the line is that of the key that was written.
    let problems = refuse("\n[session]\nmax_frame = \"8MiB\"");
    let found: Vec<_> = problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    assert_eq!(found, [(3, "limits.phone_queue"), (3, "limits.binary_queue")]);
    // A default that stands in for a value that could not be read proves nothing.
    let (line, key, _) =
        only_problem("session.max_frame = \"8MiB\"\nlimits = { phone_queue = 1, binary_queue = \"9MiB\" }");
    assert_eq!((line, key.as_str()), (2, "limits.phone_queue"));
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let rows = [
        ("listen.public = \"127.0.0.1:9090\"", "listen.public", "claim the same address and port"),
        ("listen.metrics = \"127.0.0.1:8080\"", "listen.metrics", "claim the same address and port"),
        (
            "limits.phone_queue = \"512MiB\"",
            "limits.phone_queue",
            "is more than limits.all_queues (\"256MiB\")",
        ),
        ("drain.timeout = \"4999ms\"", "drain.timeout", "\"4999ms\" is shorter than drain.spread (\"5s\")"),
    ];
    for (text, key, message) in rows {
        // A problem elsewhere, even in the syntax, does not hide the contradiction.
        for text in [format!("{text}\n"), format!("{text}\n[session]\ngrace = 30s\nmax = 1\n")] {
            let problems = refuse(&text);
            let found = problems.iter().find(|problem| problem.text.contains(message));
            let found = found.unwrap_or_else(|| panic!("{message} is not in\n{problems}"));
            assert_eq!((found.line, found.key.as_str()), (1, key), "{problems}");
        }
    }
}

#[test]
fn text_from_the_file_cannot_break_a_line_of_the_report() {
    let problems = refuse("\"a\\nb\\u001b[31m\" = 1\n[session]\ngrace = \"1\\n\\u001b[2J\"\n");
    let text = problems.to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{text:?}");

    let (_, _, message) = only_problem(&format!("session.grace = \"{}\"", "x".repeat(10_000)));
    assert!(message.len() < 200, "{message}");
    assert!(message.contains('…'));
}
