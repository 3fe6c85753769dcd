//! The text of a definition, taken apart: paragraphs, and within them what stands in backquotes.

/// A piece of a sentence.
pub(super) enum Span<'a> {
    /// Words.
    Plain(&'a str),
    /// What is typed or read literally.
    Code(&'a str),
}

/// The paragraphs of a comment in the code, each in one line.
pub(super) fn paragraphs(doc: &str) -> Vec<String> {
    let mut paragraphs = vec![Vec::new()];
    for line in doc.lines().map(str::trim) {
        match paragraphs.last_mut() {
            Some(paragraph) if !line.is_empty() => paragraph.push(line),
            _ => paragraphs.push(Vec::new()),
        }
    }
    paragraphs.into_iter().filter(|lines| !lines.is_empty()).map(|lines| lines.join(" ")).collect()
}

/// What stands between backquotes, and what stands around it.
pub(super) fn spans(text: &str) -> impl Iterator<Item = Span<'_>> {
    let pieces = text.split('`').enumerate().filter(|(_, piece)| !piece.is_empty());
    pieces.map(|(nth, piece)| if nth % 2 == 1 { Span::Code(piece) } else { Span::Plain(piece) })
}

/// The text without its backquotes, for where nothing can be set like code.
pub(super) fn bare(text: &str) -> String {
    text.replace('`', "")
}

/// The text with backquotes around each quoted value.
pub(super) fn with_code(text: &str) -> String {
    let piece = |(nth, piece)| if nth % 2 == 1 { format!("`\"{piece}\"`") } else { String::from(piece) };
    text.split('"').enumerate().map(piece).collect()
}

/// Lines of at most `width` characters, unless a word is longer. What stands in backquotes is not broken.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut word = String::new();
    for piece in text.split(' ') {
        if !word.is_empty() {
            word.push(' ');
        }
        word.push_str(piece);
        if word.matches('`').count() % 2 == 1 {
            continue;
        }
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word.clone()),
        }
        word.clear();
    }
    if !word.is_empty() {
        lines.push(word);
    }
    lines
}
