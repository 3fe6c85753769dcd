//! The generated parts of docs/configuration.md. Each stands between `<!-- generated: NAME -->` and
//! `<!-- end of generated -->`; what stands around them is written by hand and left alone.

use std::collections::BTreeSet;

use pyrycode_relay::config::{Table, keys, tables};

use super::text::{paragraphs, with_code, wrap};
use super::{Failure, prose};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end of generated -->";

/// The page with its generated parts as they should be.
pub(super) fn filled(page: &str) -> Result<String, Failure> {
    let wrong = |what: &str| Failure::from(format!("docs/configuration.md: {what}"));
    let mut pieces = page.split(BEGIN);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    let mut places = BTreeSet::new();
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->\n").ok_or_else(|| wrong("a marker does not end"))?;
        let (_, after) = rest.split_once(END).ok_or_else(|| wrong(&format!("part {name} does not end")))?;
        let text = named(name).ok_or_else(|| wrong(&format!("there is no part {name}")))?;
        if !places.insert(name) {
            return Err(wrong(&format!("part {name} has two places")));
        }
        out.extend([BEGIN, name, " -->\n", &text, END, after]);
    }
    match names().into_iter().find(|name| !places.contains(name)) {
        Some(name) => Err(wrong(&format!("part {name} has no place"))),
        None => Ok(out),
    }
}

fn names() -> Vec<&'static str> {
    let prose = ["the file", "checking", "reading again", "values"];
    prose.into_iter().chain(tables().iter().map(|table| table.name)).collect()
}

fn named(name: &str) -> Option<String> {
    match name {
        "the file" => Some(prose_part(prose::THE_FILE)),
        "checking" => Some(prose_part(prose::CHECKING)),
        "reading again" => Some(prose_part(prose::READING_AGAIN)),
        "values" => {
            let item =
                |(what, how): &(&str, &str)| wrap(&format!("- **{what}** {how}"), 118).join("\n  ") + "\n";
            Some(prose::VALUES.iter().map(item).collect())
        }
        name => tables().iter().find(|table| table.name == name).map(table_part),
    }
}

/// What a table is about, its keys, and its rules.
fn table_part(table: &Table) -> String {
    let mut parts: Vec<_> =
        paragraphs(table.doc).iter().map(|paragraph| wrap(paragraph, 120).join("\n")).collect();
    let mut rows = vec!["| Key | Default | Meaning | Allowed |".to_owned(), "|---|---|---|---|".to_owned()];
    for key in keys().iter().filter(|key| key.table == table.name) {
        let default = key.default().map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let (meaning, allowed) = (paragraphs(key.doc).join(" "), with_code(&key.allowed()));
        rows.push(format!("| `{}` | {default} | {meaning} | {allowed} |", key.name));
    }
    parts.insert(parts.len().min(1), rows.join("\n"));
    parts.join("\n\n") + "\n"
}

/// Paragraphs, in which the name of a table leads to its section.
fn prose_part(paragraphs: &[&str]) -> String {
    let linked = |text: &str| {
        tables().iter().map(|table| table.name).fold(text.to_owned(), |text, name| {
            text.replace(&format!("`[{name}]`"), &format!("[`[{name}]`](#{name})"))
        })
    };
    paragraphs.iter().map(|text| wrap(&linked(text), 120).join("\n") + "\n").collect::<Vec<_>>().join("\n")
}
