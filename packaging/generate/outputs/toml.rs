//! packaging/relay.toml, which is installed as the host's configuration.
//!
//! Every key is commented out: a key that stands in a file is a decision, which holds against a later version's better
//! default, and a limit that stands in a file is refused where a default would shrink to what fits. `#key` can be
//! uncommented, `# text` is to be read.

use pyrycode_relay::config::{Key, keys, tables};

use super::prose;
use super::text::{bare, paragraphs, wrap};

/// The whole file.
pub(super) fn reference() -> String {
    let header: Vec<_> = prose::FILE_HEADER.iter().map(|paragraph| comment(paragraph)).collect();
    let mut parts = vec![header.join("\n#\n")];
    for table in tables() {
        let about = paragraphs(table.doc);
        let title = about.first().map(|title| comment(title)).unwrap_or_default();
        parts.push(format!("{title}\n[{}]", table.name));
        for key in keys().iter().filter(|key| key.table == table.name) {
            let value = key.default().or(key.example.map(str::to_owned)).unwrap_or_default();
            parts.push(format!("{}\n#{} = {value}", comment(&explanation(key)), key.name));
        }
    }
    parts.join("\n\n") + "\n"
}

/// What a key means, what may be written, and whether the line below is its default.
fn explanation(key: &Key) -> String {
    let mut sentences = paragraphs(key.doc);
    // What holds for every duration stands at the top of the file.
    if key.allowed() != prose::ANY_DURATION {
        sentences.push(format!("Allowed: {}.", key.allowed()));
    }
    if key.default().is_none() {
        sentences.push("Not set; for example:".to_owned());
    }
    sentences.join(" ")
}

fn comment(text: &str) -> String {
    let lines: Vec<_> = wrap(&bare(text), 110).into_iter().map(|line| format!("# {line}")).collect();
    lines.join("\n")
}
