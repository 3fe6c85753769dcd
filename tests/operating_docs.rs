//! What the operator's pages name exists: events and their keys, metrics, keys of the configuration, close codes with their
//! reasons, commands, files of the package, sections of other pages.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test, with its line"
)]

#[allow(dead_code, reason = "each test program uses its own part")]
#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/promql.rs"]
mod promql;
#[allow(dead_code, reason = "recording rules are of no concern here")]
#[path = "support/series.rs"]
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use pyrycode_relay::cli::Cli;
use pyrycode_relay::config::{Config, keys, tables};
use pyrycode_relay::metrics::families::Families;
use pyrycode_relay::relay::close::Close;
use pyrycode_relay::relay::observer::{Census, Counts};
use series::Series;

const PAGES: [(&str, &str); 3] = [
    ("operating.md", include_str!("../docs/operating.md")),
    ("troubleshooting.md", include_str!("../docs/troubleshooting.md")),
    ("sizing.md", include_str!("../docs/sizing.md")),
];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// What `judge` finds wrong with the things that `find` finds on each page. There must be `at_least` so many things.
fn problems(
    at_least: usize,
    find: impl Fn(&'static str) -> Vec<String>,
    judge: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut found = 0;
    let mut problems = Vec::new();
    for (name, page) in PAGES {
        for thing in find(page) {
            found += 1;
            problems.extend(judge(&thing).map(|problem| format!("docs/{name}: {problem}")));
        }
    }
    assert!(found >= at_least, "only {found} were found");
    problems
}

/// The fenced blocks of a language.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for piece in page.split("```").skip(1).step_by(2) {
        let (info, block) = piece.split_once('\n').expect("a block");
        if info == language {
            found.push(block);
        }
    }
    found
}

/// What stands in backquotes in the running text and the tables.
fn quoted(page: &'static str) -> Vec<String> {
    let text: String = page.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    text.split('`').skip(1).step_by(2).map(|piece| piece.replace('\n', " ")).collect()
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Every event with its keys, as docs/logging.md has them; that page is held to the catalogue by `logging_docs`.
fn events() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/logging.md");
    let mut events = BTreeMap::<String, BTreeSet<String>>::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let keys = cells[3].split('`').skip(1).step_by(2).map(str::to_owned);
        events.entry(cells[1].trim_matches('`').to_owned()).or_default().extend(keys);
    }
    assert!(events.len() > 30);
    events
}

struct Nobody;

impl Census for Nobody {
    fn count(&self) -> Counts {
        Counts::default()
    }
}

fn exposed() -> String {
    Families::new(Arc::new(Nobody)).and_then(|families| families.encode()).expect("a page")
}

/// Values of labels, such as causes.
fn label_values() -> BTreeSet<String> {
    let samples = exposition::samples(&exposed());
    samples.keys().flat_map(|series| series.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

#[test]
fn every_event_and_key_exists() {
    let events = events();
    // `event key=value …`, alone in backquotes or in a block, with the time before it or without.
    let lines = |page| {
        let blocks = ["", "console"].into_iter().flat_map(|language| blocks(page, language));
        let lines = blocks.flat_map(str::lines).map(|line| line.rsplit("]: ").next().unwrap().to_owned());
        lines.chain(quoted(page)).filter(|line| is_line(line)).collect()
    };
    let judge = |line: &str| {
        let mut words = line.split(' ');
        let event = words.next().unwrap();
        let Some(known) = events.get(event) else { return Some(format!("there is no event {event}")) };
        let outside_of_quotes: String = line.split('"').step_by(2).collect();
        let keys: Vec<_> =
            outside_of_quotes.split(' ').skip(1).filter_map(|word| word.split_once('=')).collect();
        keys.iter().find(|(key, _)| !known.contains(*key)).map(|(key, _)| format!("{event} has no key {key}"))
    };
    assert_eq!(problems(8, lines, judge), Vec::<String>::new());
    assert!(judge("started version=1").is_some() && judge("starting release=1").is_some());
    let named = |page: &'static str| {
        page.split("EVENT=")
            .skip(1)
            .map(|rest| rest.split(|c| !is_word(&String::from(c))).next().unwrap().to_owned())
            .collect()
    };
    let judge = |event: &str| (!events.contains_key(event)).then(|| format!("there is no event {event}"));
    assert_eq!(problems(3, named, judge), Vec::<String>::new());
}

/// Whether it has the form of a line of the log: an event, and keys with values.
fn is_line(text: &str) -> bool {
    let (event, rest) = text.split_once(' ').unwrap_or((text, ""));
    let key = rest.split('=').next().unwrap_or_default();
    is_word(event)
        && event.contains(|c: char| c != '_')
        && rest.contains('=')
        && is_word(key)
        && !key.is_empty()
}

#[test]
fn every_name_in_lower_case_is_one_of_ours() {
    let mut known: BTreeSet<String> = events().into_keys().collect();
    known.extend(events().into_values().flatten());
    known.extend(label_values());
    known.extend(keys().iter().map(|key| key.name.to_owned()));
    // A series that Prometheus itself serves, and an alert of TLS.
    known.extend(["go_goroutines", "access_denied"].map(str::to_owned));
    // Series are the next test's.
    let series = |word: &str| ["pyrycode_relay_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    let ours = |word: &String| is_word(word) && word.contains('_') && !series(word);
    let names = |page| quoted(page).into_iter().filter(ours).collect();
    let judge = |name: &str| (!known.contains(name)).then(|| format!("what is {name}?"));
    assert_eq!(problems(50, names, judge), Vec::<String>::new());
    assert!(judge("phone_gone").is_some());
}

#[test]
fn every_series_and_label_exists() {
    let page = exposed();
    let known = Series::scraped(exposition::samples(&page).keys(), "pyrycode-relay");
    let queries = |page| {
        let ours = |text: &String| text.contains("pyrycode_relay_") || text.contains("process_");
        quoted(page).into_iter().filter(ours).collect()
    };
    let judge = |query: &str| {
        let found = known.problems(query, &[]);
        (!found.is_empty()).then(|| found.join(", "))
    };
    assert_eq!(problems(12, queries, judge), Vec::<String>::new());
    assert!(judge("pyrycode_relay_phones").is_some());
    assert!(judge("pyrycode_relay_connections_closed_total{cause=\"tired\"}").is_some());
}

#[test]
fn every_key_of_the_configuration_exists() {
    let paths: BTreeSet<_> = keys().iter().map(pyrycode_relay::config::Key::path).collect();
    let of_a_table = |text: &str| {
        let (table, name) = text.split(" = ").next()?.split_once('.')?;
        let table = tables().iter().any(|known| known.name == table);
        (table && is_word(name)).then(|| text.split(" = ").next().unwrap().to_owned())
    };
    let named = |page| quoted(page).iter().filter_map(|text| of_a_table(text)).collect();
    let judge = |path: &str| (!paths.contains(path)).then(|| format!("there is no {path}"));
    assert_eq!(problems(40, named, judge), Vec::<String>::new());
    assert!(judge("limits.phones").is_some());
}

#[test]
fn every_configuration_is_accepted() {
    let load = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path)).err().map(|problem| problem.to_string())
    };
    let files = |page| blocks(page, "toml").into_iter().map(str::to_owned).collect();
    assert_eq!(problems(5, files, load), Vec::<String>::new());
    assert!(load("[limits]\nphones = 3\n").is_some());
}

#[test]
fn every_close_code_has_its_reason() {
    let closes = [
        Close::ShuttingDown { retry_after: 5 },
        Close::InvalidJson,
        Close::MessageTooBig,
        Close::HeartbeatTimeout,
        Close::MessageTimedOut,
        Close::PhoneBacklogFull,
        Close::PhoneWriteFailed,
        Close::BinaryDidNotReconnect,
        Close::BinaryWriteFailed,
        Close::NoServer,
        Close::BinaryReclaimed,
        Close::BinaryDisconnected,
        Close::AlreadyClaimed,
        Close::TooManyPhones,
    ]
    .map(|close| format!("{} {}", close.code(), close.reason()));
    // `1011 `heartbeat timeout``, with a comma between or without.
    let told = |page: &'static str| {
        let pieces: Vec<_> = page.split('`').collect();
        let code = |before: &str| {
            let code = before.strip_suffix(' ')?.trim_end_matches(',');
            let digits = code.get(code.len().checked_sub(4)?..)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
        };
        let told = pieces.windows(2).step_by(2);
        told.filter_map(|pair| Some(format!("{} {}", code(pair[0])?, pair[1]))).collect()
    };
    let judge =
        |told: &str| (!closes.iter().any(|close| close == told)).then(|| format!("nobody is told {told}"));
    assert_eq!(problems(12, told, judge), Vec::<String>::new());
    assert!(judge("4404 no server").is_some());
}

#[test]
fn every_command_line_is_understood() {
    let commands = |page: &'static str| {
        let shown = blocks(page, "console");
        let typed = shown.iter().flat_map(|block| block.lines()).filter_map(|line| {
            line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")).map(str::to_owned)
        });
        // Behind a pipe as well.
        let all = typed.chain(quoted(page));
        let parts =
            all.flat_map(|line| line.split('|').map(|part| part.trim().to_owned()).collect::<Vec<_>>());
        parts.filter(|line| line.starts_with("pyrycode-relay ")).collect()
    };
    let judge = |line: &str| {
        Cli::try_parse_from(line.split_whitespace()).err().map(|error| format!("{line}: {error}"))
    };
    assert_eq!(problems(6, commands, judge), Vec::<String>::new());
    assert!(judge("pyrycode-relay status").is_some());
}

/// The pages that operators read, as they are on disk: name and text.
fn all_pages() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let names = docs.read_dir().expect("docs").map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.filter_map(|name| name.strip_suffix(".md").map(|stem| format!("docs/{stem}.md")));
    pages.chain(["README.md".to_owned()]).map(|name| (name.clone(), read(&name))).collect()
}

/// Why a command is not for everybody.
fn needs_root(command: &str) -> Option<&'static str> {
    const READS: [&str; 6] = ["status", "show", "cat", "is-active", "is-enabled", "list-sockets"];
    const FOR_ROOT: [&str; 8] =
        ["apt", "certbot", "deluser", "editor", "install", "journalctl", "rm", "sysctl"];
    let words = |part: &str| part.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    command.split('|').map(words).find_map(|words| match words.first()?.as_str() {
        "journalctl" => Some("the journal is for root and two groups"),
        "systemctl" if !READS.contains(&words.get(1)?.as_str()) => Some("it changes the service"),
        "ls" if words.iter().any(|word| word.starts_with("/proc/")) => Some("/proc/PID/fd is for its owner"),
        name if FOR_ROOT.contains(&name) => Some("it changes the host"),
        _ => None,
    })
}

#[test]
fn what_only_root_may_do_is_marked_so() {
    let (mut anybodys, mut roots) = (0, 0);
    let mut problems = Vec::new();
    for (name, page) in all_pages() {
        for line in
            page.split("```console\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap().lines())
        {
            if let Some(command) = line.strip_prefix("$ ") {
                anybodys += 1;
                problems.extend(needs_root(command).map(|reason| format!("{name}: $ {command}: {reason}")));
            } else if line.strip_prefix("# ").and_then(needs_root).is_some() {
                roots += 1;
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new());
    assert!(anybodys > 30 && roots > 50, "{anybodys} and {roots}");
    assert_eq!(needs_root("systemctl status pyrycode-relay"), None);
    assert!(needs_root("systemctl reload pyrycode-relay").is_some());
    assert!(needs_root("ls -l /proc/1/fd | wc -l").is_some());
}

/// Where the package puts each of its files.
fn packaged() -> BTreeSet<String> {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("the manifest");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("assets");
    let mut files = BTreeSet::new();
    // The others are links.
    for asset in assets.iter().filter_map(toml::Value::as_array) {
        let [source, target] = [&asset[0], &asset[1]].map(|part| part.as_str().expect("a path"));
        let (directory, pattern) = source.rsplit_once('/').unwrap_or((".", source));
        let sources = match pattern.strip_prefix('*') {
            None => vec![pattern.to_owned()],
            Some(suffix) => {
                let entries = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).read_dir().expect(source);
                let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                names.filter(|name| name.ends_with(suffix)).collect()
            }
        };
        assert!(!sources.is_empty(), "{source}");
        for name in sources {
            let is_directory = target.ends_with('/');
            files.insert(if is_directory { format!("/{target}{name}") } else { format!("/{target}") });
        }
    }
    files
}

#[test]
fn every_file_of_the_package_is_in_it() {
    let files = packaged();
    let ends = |c: char| c.is_whitespace() || "`'\"),:;|".contains(c);
    let paths = |page: &'static str| {
        let mut paths = Vec::new();
        for beginning in ["/usr/", "examples/", "/etc/pyrycode-relay/relay"] {
            for (start, _) in page.match_indices(beginning) {
                let path = page[start..].split(ends).next().unwrap().trim_end_matches('.');
                let inside = page[..start].ends_with(|c: char| c == '/' || c.is_ascii_alphanumeric());
                let root = if beginning == "examples/" { "/usr/share/doc/pyrycode-relay/" } else { "" };
                if !inside {
                    paths.push(format!("{root}{path}"));
                }
            }
        }
        paths
    };
    let judge = |path: &str| {
        let directory = format!("{}/", path.trim_end_matches('/'));
        let there = files.iter().any(|file| file == path || file.starts_with(&directory));
        (!there).then(|| format!("{path} is not in the package"))
    };
    assert_eq!(problems(15, paths, judge), Vec::<String>::new());
    assert!(judge("/usr/share/doc/pyrycode-relay/examples/nginx.conf").is_some());
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading
        .trim_start_matches(['#', ' '])
        .chars()
        .filter(kept)
        .collect::<String>()
        .to_lowercase()
        .replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let links = |page: &'static str| {
        let targets = page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        let own = PAGES.iter().find(|(_, text)| *text == page).unwrap().0;
        let whole =
            |target: &str| if target.starts_with('#') { format!("{own}{target}") } else { target.to_owned() };
        targets.map(whole).collect()
    };
    let judge = |link: &str| {
        let (file, section) = link.split_once('#').unwrap_or((link, ""));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
        let Ok(text) = std::fs::read_to_string(path) else { return Some(format!("there is no {file}")) };
        let found =
            section.is_empty() || text.lines().any(|line| line.starts_with('#') && anchor(line) == section);
        (!found).then(|| format!("{link}: there is no such section"))
    };
    assert_eq!(problems(20, links, judge), Vec::<String>::new());
    assert!(judge("tls.md#when-it-rains").is_some() && judge("weather.md").is_some());
}
