//! What is wrong with a configuration, and where: one line of text for each problem, all of them together.

use std::fmt;

/// The most characters of the first problem that a summary repeats. Whoever logs a summary may cut it at 1 KiB, and
/// the end of it, which says how to see the rest, must survive that.
const SUMMARY: usize = 500;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// The dotted key, such as `session.grace`; a table name; empty when the text is not TOML there.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub text: String,
}

impl Problem {
    /// The problem as a line of the report on `file`.
    fn line_in(&self, file: &str) -> String {
        let Self { line, key, text } = self;
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{file}:{line}: {key}{colon}{text}")
    }
}

/// Everything that is wrong with one configuration; never empty.
///
/// Its text is one line for each problem, in the order of the file, and a last line that counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Puts the problems in the order of the file.
    pub(super) fn new(file: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.line);
        Self { file: file.to_owned(), list }
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The first problem, how many more there are, and how to see them all; in one line if the file's name is.
    pub(super) fn summary(&self) -> String {
        let first = self.list.first().map(|problem| problem.line_in(&self.file)).unwrap_or_default();
        let first = cut(&first, SUMMARY);
        let more = match self.list.len() {
            0 | 1 => String::new(),
            count => format!("; and {} more", count - 1),
        };
        format!("{first}{more}; see: pyrycode-relay check --config {}", self.file)
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{}", problem.line_in(&self.file))?;
        }
        let plural = if self.list.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {plural} in {}", self.list.len(), self.file)
    }
}

impl std::error::Error for Problems {}

/// What is wrong with one value, and what to write instead: the two halves of a problem's text.
///
/// They are apart because the advice misleads where no other value than the default is accepted.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong, such as `0 is out of range`.
    pub(super) what: String,
    /// What to do about it, such as `allowed: a whole number from 1 to 64`.
    pub(super) advice: String,
}

impl Fault {
    /// The same fault, of an element of a list.
    pub(super) fn of_element(self, nth: usize) -> Self {
        Self { what: format!("element {nth}: {}", self.what), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.advice)
    }
}

/// Turns byte offsets into line numbers.
pub(super) struct Lines {
    /// The offset at which each line starts.
    starts: Vec<usize>,
}

impl Lines {
    pub(super) fn new(text: &[u8]) -> Self {
        let after_breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The line, counted from 1, that holds the byte at `offset`.
    pub(super) fn of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

/// The most characters of somebody's text that a message repeats.
const EXCERPT: usize = 60;

/// The start of a text that may be of any length.
pub(super) fn shorten(text: &str) -> String {
    cut(text, EXCERPT)
}

/// The first `most` characters of a text, and a sign if there were more.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The text without anything that ends a line or steers a terminal: such characters are escaped.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // U+2028 and U+2029 separate lines and paragraphs, and are no control characters.
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Quotes text from the file for a message: escaped, so that it cannot break the line, and not at any length.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

/// A key as it is written in a message: bare when TOML would let it be bare.
pub(super) fn show_key(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare && !name.is_empty() && name.len() <= EXCERPT { name.to_owned() } else { quote(name) }
}

/// The candidate that somebody probably meant by `word`, if one is close enough to be worth a question.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time in proportion to the length, and nobody mistypes a key into a page of text.
    if word.len() > EXCERPT {
        return None;
    }
    candidates
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
