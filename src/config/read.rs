//! From TOML text to a [`Config`]: walks what the parser could make of the text along the table of keys.
//!
//! The parser recovers from most syntax errors and still delivers the rest of the document. Where it could not
//! read a line it delivers a made-up value, so whatever stands on a line with a syntax error is not judged again.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Config, keys};
use super::kind::type_name;
use super::problem::{Lines, Problem, Problems, closest, quote, show_key};
use super::rules::{self, Written};

/// The walk through one document.
struct Reader<'a> {
    text: &'a str,
    lines: Lines,
    config: Config,
    written: Written,
    problems: Vec<Problem>,
    /// Lines with a syntax error.
    broken: BTreeSet<usize>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<(Config, Written), Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        lines: Lines::new(text.as_bytes()),
        config: Config::default(),
        written: Written::default(),
        problems: Vec::new(),
        broken: BTreeSet::new(),
    };
    for error in &errors {
        reader.syntax(error);
    }
    // What a mistyped table says counts only where the table that was meant says nothing, so that is read first.
    let (known, unknown): (Vec<_>, Vec<_>) =
        document.get_ref().iter().partition(|(name, _)| is_table(name.get_ref()));
    for (name, value) in known.into_iter().chain(unknown) {
        reader.top_level(name, value);
    }
    let Reader { config, written, mut problems, .. } = reader;
    rules::check(&config, &written, &mut problems);
    if problems.is_empty() { Ok((config, written)) } else { Err(Problems::new(file, problems)) }
}

impl Reader<'_> {
    fn syntax(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(self.text.len()..self.text.len());
        let line = self.lines.of(span.start);
        let what = self.text.get(span).map(str::trim).filter(|what| !what.is_empty());
        let at = what.map(|what| format!(", at {}", quote(what))).unwrap_or_default();
        // One slip often makes the parser complain several times; the first complaint is about the slip.
        if self.broken.insert(line) {
            let text = format!("not valid TOML: {}{at}", error.message());
            self.problems.push(Problem { line, key: String::new(), text });
        }
    }

    fn report(&mut self, line: usize, key: String, text: String) {
        if !self.broken.contains(&line) {
            self.problems.push(Problem { line, key, text });
        }
    }

    fn top_level(&mut self, name: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let line = self.lines.of(name.span().start);
        let name = name.get_ref().as_ref();
        let known = is_table(name);
        match value.get_ref() {
            DeValue::Table(entries) if known => self.entries(name, entries),
            other if known => {
                let text = format!("expected a table, found {}; write [{name}]", type_name(other));
                self.report(line, name.to_owned(), text);
            }
            DeValue::Table(entries) => {
                let tables = tables();
                let Some(meant) = closest(name, tables.iter().copied()) else {
                    let text = format!("unknown table; the tables are: {}", tables.join(", "));
                    return self.report(line, show_key(name), text);
                };
                self.report(line, show_key(name), format!("unknown table; did you mean [{meant}]?"));
                self.entries(meant, entries);
            }
            _ => self.report(line, show_key(name), unknown_key("", name)),
        }
    }

    fn entries(&mut self, table: &str, entries: &DeTable<'_>) {
        for (key, value) in entries {
            self.entry(table, key, value);
        }
    }

    fn entry(&mut self, table: &str, name: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let line = self.lines.of(name.span().start);
        let name = name.get_ref().as_ref();
        let Some(key) = keys().iter().find(|key| key.table == table && key.name == name) else {
            self.report(line, format!("{table}.{}", show_key(name)), unknown_key(table, name));
            return;
        };
        // A value can end on another line than it starts on; a syntax error in any of them makes it a guess.
        let last = self.lines.of(value.span().end);
        let guessed = self.broken.range(line..=last.max(line)).next().is_some();
        let mut read = self.config.clone();
        let faults = (key.read)(&mut read, value.get_ref()).err().unwrap_or_default();
        if guessed {
            // The syntax error is the problem of this line.
        } else {
            for fault in &faults {
                self.report(line, key.path(), fault.to_string());
            }
        }
        if let Entry::Vacant(first) = self.written.keys.entry(key.path()) {
            let good = !guessed && faults.is_empty();
            first.insert((line, good));
            if good {
                self.config = read;
            }
        }
    }
}

/// The tables, in the order of the reference file.
fn tables() -> Vec<&'static str> {
    let mut tables: Vec<_> = keys().iter().map(|key| key.table).collect();
    tables.dedup();
    tables
}

fn is_table(name: &str) -> bool {
    keys().iter().any(|key| key.table == name)
}

/// Says what could have been meant by a key that is not in `table`; an empty `table` is the top of the file.
fn unknown_key(table: &str, name: &str) -> String {
    let here = || keys().iter().filter(|key| key.table == table).map(|key| key.name);
    if let Some(name) = closest(name, here()) {
        return format!("unknown key; did you mean \"{name}\"?");
    }
    if let Some(key) = keys().iter().find(|key| key.name == name) {
        return format!("unknown key here; did you mean \"{name}\" in [{}]?", key.table);
    }
    if table.is_empty() {
        return "unknown key; every key stands in a table, such as [listen]".to_owned();
    }
    format!("unknown key; allowed in [{table}]: {}", here().collect::<Vec<_>>().join(", "))
}
