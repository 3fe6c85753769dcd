//! A manual page: text in the language of roff, by the crate that `clap_mangen` writes with.

use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::PROGRAM;
use super::text::{Span, spans};

/// What every rendering of the crate begins with, and what a page has once: how an apostrophe is written.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A page under construction.
pub(super) struct Page {
    text: String,
    /// Whether a title was the last thing, which is space enough before a paragraph.
    titled: bool,
}

impl Page {
    /// An empty page of a section of the manual. `date` may be empty.
    pub(super) fn new(name: &str, section: u8, date: &str, manual: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let title = format!(".TH {name} {section} \"{date}\" \"{PROGRAM} {version}\" \"{manual}\"\n");
        let notice = format!(".\\\" Generated from the definitions in the code: {}\n", super::COMMAND);
        // Words are not hyphenated and lines not stretched: what is looked for, or copied, stands there as it is.
        Self { text: format!("{notice}{PREAMBLE}{title}.nh\n.ad l\n"), titled: false }
    }

    /// The page as the file has it.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Adds what the crate rendered elsewhere.
    pub(super) fn raw(&mut self, rendered: &str) {
        self.text.push_str(rendered.strip_prefix(PREAMBLE).unwrap_or(rendered));
        self.titled = false;
    }

    fn control<'a>(&mut self, name: &str, arguments: impl IntoIterator<Item = &'a str>) {
        self.raw(&Roff::new().control(name, arguments).render());
    }

    /// Adds a line of text as it is given.
    pub(super) fn line(&mut self, inlines: Vec<Inline>) {
        self.raw(&Roff::new().text(inlines).render());
    }

    /// Adds text in which backquotes mark what is set like code.
    fn text(&mut self, text: &str) {
        self.line(
            spans(text)
                .map(|span| match span {
                    Span::Plain(words) => roman(words),
                    Span::Code(code) => bold(code),
                })
                .collect(),
        );
    }

    /// Begins a section.
    pub(super) fn section(&mut self, title: &str) {
        self.control("SH", [title]);
        self.titled = true;
    }

    /// Begins a part of a section.
    pub(super) fn part(&mut self, title: &str) {
        self.control("SS", [title]);
        self.titled = true;
    }

    /// Adds a paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        if !self.titled {
            self.control("PP", []);
        }
        self.text(text);
    }

    /// Adds a term and what it means, in one or several lines of their own.
    pub(super) fn entry(&mut self, term: &str, meaning: &[String]) {
        self.control("TP", []);
        self.line(vec![bold(term)]);
        for (nth, line) in meaning.iter().enumerate() {
            if nth > 0 {
                self.control("br", []);
            }
            self.text(line);
        }
    }

    /// Moves what follows to the right, until `shift_back`.
    pub(super) fn shift(&mut self) {
        self.control("RS", []);
    }

    /// Ends what `shift` began.
    pub(super) fn shift_back(&mut self) {
        self.control("RE", []);
    }

    /// Adds lines as they are, moved to the right.
    pub(super) fn example(&mut self, lines: &str) {
        self.shift();
        self.control("EX", []);
        for line in lines.lines() {
            self.line(vec![roman(line)]);
        }
        self.control("EE", []);
        self.shift_back();
    }

    /// Begins the next line anew.
    pub(super) fn line_break(&mut self) {
        self.control("br", []);
    }
}
