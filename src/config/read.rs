//! From TOML text to a [`Config`]: walks what the parser could make of the text along the table of keys.
//!
//! The parser recovers from most syntax errors and still delivers the rest of the document. Where it could not
//! read a line it delivers a made-up value, so whatever stands on a line with a syntax error is not judged again.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Config, Key, keys};
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

pub(super) fn parse(text: &str, file: &str) -> Result<Config, Problems> {
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
    for (name, value) in document.get_ref() {
        reader.top_level(name, value);
    }
    let Reader { config, written, mut problems, .. } = reader;
    rules::check(&config, &written, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(Problems::new(file, problems)) }
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
        let known = keys().iter().any(|key| key.table == name);
        match value.get_ref() {
            DeValue::Table(entries) if known => {
                for (key, value) in entries {
                    self.entry(name, key, value);
                }
            }
            other if known => {
                let text = format!("expected a table, found {}; write [{name}]", type_name(other));
                self.report(line, name.to_owned(), text);
            }
            DeValue::Table(_) => self.report(line, show_key(name), unknown_table(name)),
            _ => self.report(line, show_key(name), unknown_key("", name)),
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
        if self.broken.range(line..=last.max(line)).next().is_some() {
            self.written.keys.insert(key.path(), (line, false));
            return;
        }
        let read = (key.read)(&mut self.config, value.get_ref());
        self.written.keys.insert(key.path(), (line, read.is_ok()));
        match read {
            Err(text) => self.report(line, key.path(), text),
            Ok(()) => {
                if let Some(text) = not_built(key, &self.config) {
                    self.report(line, key.path(), text);
                }
            }
        }
    }
}

/// What is wrong with a value that nothing acts on yet.
fn not_built(key: &Key, config: &Config) -> Option<String> {
    let (value, default) = ((key.write)(config), key.default());
    if key.built || value == default {
        return None;
    }
    let value = super::problem::shorten(&value.unwrap_or_default());
    let only = match default {
        Some(default) => format!("only {default} is built in this version"),
        None => "not built in this version, leave it out".to_owned(),
    };
    Some(format!("{only}; {value} is refused rather than ignored"))
}

fn unknown_table(name: &str) -> String {
    let mut tables: Vec<_> = keys().iter().map(|key| key.table).collect();
    tables.dedup();
    match closest(name, tables.iter().copied()) {
        Some(table) => format!("unknown table; did you mean [{table}]?"),
        None => format!("unknown table; the tables are: {}", tables.join(", ")),
    }
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
