//! What stands behind the options in `--help`, taken apart: paragraphs, and blocks with a title.
//!
//! A block begins with a line that ends in a colon. Under it, a line with an indent of two begins an entry, one with
//! a deeper indent continues it. An entry is a term, two spaces or more, and what it means (exit codes, signals); or
//! a term in a line of its own and what it means below (examples); or neither, and the whole block is one paragraph.

/// A paragraph without a title, or a block with one.
pub(super) struct Block {
    /// Its title without the colon; empty for a paragraph.
    pub(super) title: String,
    /// The terms and what they mean.
    pub(super) entries: Vec<(String, String)>,
    /// What belongs to no term.
    pub(super) text: String,
}

/// The blocks of a command's help, in their order.
pub(super) fn blocks(command: &clap::Command) -> Vec<Block> {
    let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    help.split("\n\n").map(block).collect()
}

fn block(text: &str) -> Block {
    let Some((title, lines)) = text.split_once(":\n").filter(|(_, lines)| lines.starts_with("  ")) else {
        return Block { title: String::new(), entries: Vec::new(), text: text.replace('\n', " ") };
    };
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in lines.lines() {
        let words = line.trim();
        match entries.last_mut() {
            Some((_, meaning)) if line.starts_with("   ") => {
                if !meaning.is_empty() {
                    meaning.push(' ');
                }
                meaning.push_str(words);
            }
            _ => {
                let (term, meaning) = words.split_once("  ").unwrap_or((words, ""));
                entries.push((term.to_owned(), meaning.trim().to_owned()));
            }
        }
    }
    let mut text = String::new();
    if entries.iter().all(|(_, meaning)| meaning.is_empty()) {
        let lines: Vec<_> = entries.drain(..).map(|(line, _)| line).collect();
        text = lines.join(" ");
    }
    Block { title: title.to_owned(), entries, text }
}
