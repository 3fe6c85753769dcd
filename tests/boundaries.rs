//! Which room of the house may name what: the sources, read as text.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines in the longest file that still holds one thing.
const MAX_LINES: usize = 420;

/// A source file below `src/`.
struct Source {
    /// Its path below `src/`.
    path: String,
    text: String,
    /// What the compiler sees of it in the program: no comments, no text, no tests.
    code: String,
}

/// A rule that some files keep and others need not.
struct Rule {
    /// What it is about.
    what: &'static str,
    /// Whether the file at this path keeps it.
    applies: fn(&str) -> bool,
    /// What must not be named. A word is found as a whole word.
    banned: &'static [&'static str],
}

/// What a frame passes through, besides the legs in `relay/phone.rs` and `relay/binary.rs`.
const FORWARDING: &[&str] = &[
    "relay/session",
    "relay/wire",
    "relay/incoming",
    "relay/outgoing",
    "relay/spare",
    "relay/text",
    "relay/follower",
    "relay/envelope",
    "relay/link",
    "relay/outbox",
    "relay/budget",
    "relay/ledger",
    "relay/deadlines",
    "relay/transport",
    "relay/shared",
];

/// Every lock of the forwarding side, and who may have to wait for whom at it. A new one is a new reason for a frame to wait for another
/// server-id's: whoever adds it says here why that is none.
const LOCKS: &[(&str, &str)] = &[
    (
        "relay/alarms.rs",
        "everybody's, when an alarm is set earlier, rings or is given up; not when it is asked for",
    ),
    ("relay/budget.rs", "everybody's, while somebody waits for room in the budget of all"),
    ("relay/grace.rs", "a binary that goes, and the keeper"),
    ("relay/hub.rs", "everybody who comes or goes"),
    ("relay/link.rs", "a binary and its phones"),
    ("relay/live.rs", "everybody who comes or goes"),
    ("relay/outbox.rs", "a connection and those who send to it"),
    ("runtime/reactor.rs", "a worker, once in each of its waits, and who hands a connection over to it"),
    ("runtime/source.rs", "a connection and its worker's reactor"),
];

const RULES: &[Rule] = &[
    Rule {
        what: "the relay is free of HTTP, TLS, systemd, signals and metrics, and logs through the catalogue only",
        applies: |path| path.starts_with("relay/"),
        banned: &[
            "prometheus",
            "hyper",
            "smol_hyper",
            "http_body_util",
            "rustls",
            "futures_rustls",
            "sd_notify",
            "signal_hook",
            "tracing",
            "tracing_subscriber",
            "tracing_journald",
            "crate::ingress",
            "crate::metrics",
            "crate::runtime",
            "crate::service",
            "crate::config",
            "crate::command",
            "crate::cli",
            // What hides one of the above.
            "crate::{",
            "crate::*",
            "super::super::super",
        ],
    },
    Rule {
        what: "the registry and the envelope are plain data: no socket, clock or lock",
        applies: |path| path == "relay/registry.rs" || path.starts_with("relay/envelope"),
        banned: &[
            "std::net",
            "async_io",
            "smol",
            "Mutex",
            "RwLock",
            "Instant::now",
            "SystemTime",
            "Timer",
            "Observer",
            "async",
        ],
    },
    Rule {
        what: "a frame on its way never comes to the hub, whose lock is everybody's",
        applies: |path| {
            FORWARDING.iter().any(|file| {
                path.strip_prefix(file).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            })
        },
        banned: &["hub", "Hub", "Registry"],
    },
    Rule {
        what: "events are logged by the catalogue only",
        applies: |path| !path.starts_with("event/"),
        banned: &["tracing", "tracing_subscriber", "tracing_journald"],
    },
    Rule {
        what: "only the program and its commands write to the standard streams",
        applies: |path| !path.starts_with("event/") && !path.starts_with("command/") && path != "main.rs",
        banned: &["println!", "eprintln!", "print!", "eprint!", "stdout", "stderr"],
    },
    Rule {
        what: "nothing is unsafe but the declaration of a function of the C library",
        applies: |path| path != "runtime/memory.rs",
        banned: &["unsafe"],
    },
    Rule {
        what: "nothing is tokio's, nothing panics on purpose, nothing is left to be written",
        applies: |_| true,
        banned: &[
            "tokio",
            ".unwrap()",
            ".unwrap_err()",
            ".expect(",
            ".expect_err(",
            "panic!",
            "todo!",
            "unimplemented!",
            "dbg!",
        ],
    },
];

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(read(&root, &path));
            }
        }
    }
    found
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap_or_default();
    let below = path.strip_prefix(root).unwrap_or(path);
    let path = below.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
    let code = without_tests(&without_comments_and_text(&text));
    Source { path, text, code }
}

/// The source with comments and the insides of literals blanked. Lines stay where they are.
fn without_comments_and_text(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut code = String::new();
    let mut here = 0;
    while here < chars.len() {
        let word_before = here > 0 && (at(here - 1).is_alphanumeric() || at(here - 1) == '_');
        let end = match (at(here), at(here + 1)) {
            ('/', '/') => (here..chars.len()).find(|&end| at(end) == '\n').unwrap_or(chars.len()),
            ('/', '*') => end_of_comment(&chars, here),
            ('r', '"' | '#') if !word_before => end_of_raw_text(&chars, here + 1),
            ('b' | 'c', 'r') if !word_before && matches!(at(here + 2), '"' | '#') => {
                end_of_raw_text(&chars, here + 2)
            }
            ('"', _) => end_of_quotes(&chars, here, '"'),
            ('\'', '\\') => end_of_quotes(&chars, here, '\''),
            ('\'', _) if at(here + 2) == '\'' => here + 3,
            _ => here,
        };
        if end == here {
            code.push(at(here));
            here += 1;
        }
        for blanked in here..end.max(here) {
            code.push(if at(blanked) == '\n' { '\n' } else { ' ' });
        }
        here = here.max(end);
    }
    code
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut here) = (0, start);
    while here < chars.len() {
        match (chars.get(here), chars.get(here + 1)) {
            (Some('/'), Some('*')) => depth += 1,
            (Some('*'), Some('/')) => depth -= 1,
            _ => {
                here += 1;
                continue;
            }
        }
        here += 2;
        if depth == 0 {
            return here;
        }
    }
    chars.len()
}

/// Where the raw text ends whose hashes begin at `start`, or a raw identifier's hash.
fn end_of_raw_text(chars: &[char], start: usize) -> usize {
    let hashes = chars[start..].iter().take_while(|one| **one == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return start + hashes;
    }
    let closes = |end: &usize| {
        chars[*end] == '"' && chars[end + 1..].iter().take_while(|one| **one == '#').count() >= hashes
    };
    (start + hashes + 1..chars.len()).find(closes).map_or(chars.len(), |end| end + 1 + hashes)
}

fn end_of_quotes(chars: &[char], start: usize, quote: char) -> usize {
    let mut here = start + 1;
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            one if one == quote => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

/// The code with every item under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let mut depth = 0_i32;
        let end = after.char_indices().find(|(_, one)| {
            depth += i32::from(*one == '{') - i32::from(*one == '}');
            depth == 0 && matches!(one, '}' | ';')
        });
        let (item, behind) = after.split_at(end.map_or(after.len(), |(end, _)| end + 1));
        kept.extend(item.chars().filter(|one| *one == '\n'));
        rest = behind;
    }
    kept.push_str(rest);
    kept
}

/// The lines that name `banned`.
fn lines_with(code: &str, banned: &str) -> Vec<usize> {
    let is_word = |one: Option<char>| one.is_some_and(|one| one.is_alphanumeric() || one == '_');
    let named = |line: &str| {
        line.match_indices(banned).any(|(start, _)| {
            let (before, after) =
                (line[..start].chars().next_back(), line[start + banned.len()..].chars().next());
            let begins = !is_word(banned.chars().next()) || !is_word(before);
            begins && (!is_word(banned.chars().next_back()) || !is_word(after))
        })
    };
    code.lines().enumerate().filter(|(_, line)| named(line)).map(|(number, _)| number + 1).collect()
}

/// Everything that is wrong with a file.
fn problems(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let path = &source.path;
    for rule in RULES.iter().filter(|rule| (rule.applies)(path)) {
        for banned in rule.banned {
            for line in lines_with(&source.code, banned) {
                problems.push(format!("src/{path}:{line}: {banned}: {}", rule.what));
            }
        }
    }
    if !source.text.starts_with("//! ") {
        problems.push(format!("src/{path}:1: does not begin with what the file is for"));
    }
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("src/{path}: {lines} lines, allowed: {MAX_LINES}"));
    }
    problems
}

#[test]
fn every_room_keeps_its_boundaries() {
    let sources = sources();
    let problems: Vec<String> = sources.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // Every rule had files to be applied to, the ones it was made for among them.
    let has = |path: &str| sources.iter().any(|source| source.path == path && source.text.len() > 100);
    for path in
        ["main.rs", "lib.rs", "relay/registry.rs", "relay/envelope.rs", "relay/session.rs", "event/mod.rs"]
    {
        assert!(has(path), "src/{path} was not read");
    }
}

/// A leg is handed its link when its connection registers, and from then on has no way to the hub: what follows its definition
/// does not name it.
#[test]
fn what_is_declared_unsafe_is_one_function_that_is_safe_to_call() {
    let sources = sources();
    let memory = sources.iter().find(|source| source.path == "runtime/memory.rs").unwrap();
    let lines = lines_with(&memory.code, "unsafe");
    let words = |line: &usize| {
        let line = memory.code.lines().nth(line - 1).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines.iter().map(words).collect::<Vec<_>>(), [["unsafe", "extern", "{"]]);
    assert_eq!(memory.code.matches("safe fn ").count(), 1);
}

#[test]
fn no_leg_knows_the_hub() {
    let sources = sources();
    for (path, leg) in [("relay/phone.rs", "struct PhoneLeg {"), ("relay/binary.rs", "struct BinaryLeg {")] {
        let source = sources.iter().find(|source| source.path == path).unwrap();
        let (registers, forwards) = source.code.split_once(leg).unwrap();
        assert_eq!(lines_with(forwards, "hub"), [] as [usize; 0], "behind `{leg}` in src/{path}");
        assert!(!lines_with(registers, "hub").is_empty() && forwards.contains(" Leg for "), "src/{path}");
    }
    for file in FORWARDING {
        assert!(
            sources.iter().any(|source| source.path == format!("{file}.rs")),
            "src/{file}.rs was not read"
        );
    }
}

#[test]
fn every_lock_on_the_forwarding_side_is_known() {
    let mut found = Vec::new();
    for source in sources() {
        if source.path.starts_with("relay/") || source.path.starts_with("runtime/") {
            let locks = source.code.matches("Mutex<").count() + source.code.matches("RwLock<").count();
            found.extend(std::iter::repeat_n(source.path, locks));
        }
    }
    found.sort();
    let known: Vec<_> = LOCKS.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, known);
}

/// What is wrong with `text`, were it at `path`, without the rule's explanation.
fn verdict(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(&without_comments_and_text(text));
    let source = Source { path: path.to_owned(), text: text.to_owned(), code };
    let short = |problem: String| problem.split(": ").take(2).collect::<Vec<_>>().join(": ");
    problems(&source).into_iter().map(short).collect()
}

#[test]
fn the_scanner_finds_what_is_banned() {
    for (path, line, banned) in [
        ("relay/hub.rs", "use prometheus::IntCounter;", "prometheus"),
        ("relay/hub.rs", "use hyper::body::Incoming;", "hyper"),
        ("relay/a/deep/file.rs", "let now = rustls::now();", "rustls"),
        ("relay/hub.rs", "sd_notify::notify(&[])?;", "sd_notify"),
        ("relay/hub.rs", "signal_hook::flag();", "signal_hook"),
        ("relay/hub.rs", "use crate::ingress::http;", "crate::ingress"),
        ("relay/hub.rs", "    crate::metrics::families();", "crate::metrics"),
        ("relay/hub.rs", "use crate::service;", "crate::service"),
        ("relay/hub.rs", "use crate::config::Config;", "crate::config"),
        ("relay/registry.rs", "use std::net::SocketAddr;", "std::net"),
        ("relay/envelope/fields.rs", "static A: Mutex<u8> = Mutex::new(1);", "Mutex"),
        ("relay/registry.rs", "let now = Instant::now();", "Instant::now"),
        ("relay/registry.rs", "async_io::block_on(x);", "async_io"),
        ("relay/envelope.rs", "SystemTime::UNIX_EPOCH;", "SystemTime"),
        ("relay/session/reading.rs", "let hub = &self.hub;", "hub"),
        ("relay/outbox.rs", "use super::registry::Registry;", "Registry"),
        ("ingress/http.rs", "tracing::info!(a);", "tracing"),
        ("metrics/server.rs", "println!();", "println!"),
        ("config.rs", "std::io::stderr().lock();", "stderr"),
        ("cli.rs", "unsafe { core::hint::unreachable_unchecked() }", "unsafe"),
        ("service/mod.rs", "tokio::spawn(async {});", "tokio"),
        ("cli.rs", "a.unwrap();", ".unwrap()"),
        ("cli.rs", "let a = '\"'; a.expect(\"it\");", ".expect("),
        ("event/mod.rs", "_ => panic!(\"never\"),", "panic!"),
        ("cli.rs", "todo!()", "todo!"),
        ("cli.rs", "/* a /* nested */ comment */ unimplemented!()", "unimplemented!"),
    ] {
        let text = format!("//! A file.\n\nfn f<'a>(x: &'a str) -> char {{ '\\'' }}\n{line}\n");
        let found = verdict(path, &text);
        assert!(found.contains(&format!("src/{path}:4: {banned}")), "{line}: {found:?}");
    }
    assert_eq!(verdict("cli.rs", "fn a() {}"), ["src/cli.rs:1: does not begin with what the file is for"]);
    let long = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
    assert_eq!(verdict("cli.rs", &long), [format!("src/cli.rs: {} lines, allowed", MAX_LINES + 1)]);
}

#[test]
fn the_scanner_leaves_the_rest_alone() {
    let text = r###"//! A file that says hyper, tokio and `unsafe`; and it may.

/// Not `crate::metrics`. a.unwrap() in an example.
fn a<'a>(hyperlink: &'a str) -> &'a str {
    /* panic! /* in */ a comment, todo!() */
    let text = "quoted \" prometheus .unwrap()";
    let raw = r#"say "rustls" and .expect( in it"#;
    let bytes = (b"tracing::", br"println!", '"', b'\'', '\u{7b}', r##"x"# "##);
    text.unwrap_or("hyper")
}

#[cfg(test)]
mod tests {
    fn b() { "}".parse::<u8>().unwrap(); panic!("{") }
}

#[cfg(test)]
use tokio::test;

fn c() { "x".unwrap_or_default() }
"###;
    assert_eq!(verdict("relay/hub.rs", text), Vec::<String>::new());
    // And it had not gone blind behind what it left alone.
    let spoilt = text.replace("\"x\".unwrap_or_default()", "\"x\".unwrap()");
    assert_eq!(verdict("relay/hub.rs", &spoilt), ["src/relay/hub.rs:20: .unwrap()"]);
}
