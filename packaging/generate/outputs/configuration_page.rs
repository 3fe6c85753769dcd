//! pyrycode-relay.toml(5): the configuration, every key with what it means, what may be written and its default.

use pyrycode_relay::cli::DEFAULT_CONFIG;
use pyrycode_relay::config::{keys, tables};

use super::page::Page;
use super::text::{paragraphs, with_code};
use super::{PROGRAM, prose};

/// The page.
pub(super) fn render(date: &str) -> String {
    let name = format!("{PROGRAM}.toml");
    let mut page = Page::new(&name, 5, date, "File Formats");
    page.section("NAME");
    page.line(vec![format!("{name} - configuration of the relay {PROGRAM}").into()]);
    page.section("SYNOPSIS");
    page.paragraph(&format!("`{DEFAULT_CONFIG}`"));

    page.section("DESCRIPTION");
    for paragraph in prose::THE_FILE.iter().chain(prose::READING_AGAIN) {
        page.paragraph(paragraph);
    }
    page.part("Checking a file");
    for paragraph in prose::CHECKING {
        page.paragraph(paragraph);
    }
    page.part("Values");
    for (what, how) in prose::VALUES {
        page.paragraph(&format!("`{what}` {how}"));
    }

    for table in tables() {
        page.section(&format!("[{}]", table.name));
        let about = paragraphs(table.doc);
        let (title, rules) =
            about.split_first().map_or(("", &[][..]), |(title, rules)| (title.as_str(), rules));
        page.paragraph(title);
        for key in keys().iter().filter(|key| key.table == table.name) {
            let mut lines = vec![paragraphs(key.doc).join(" ")];
            lines.push(format!("Allowed: {}.", with_code(&key.allowed())));
            lines.push(match (key.default(), key.example) {
                (Some(default), _) => format!("Default: `{default}`."),
                (None, Some(example)) => format!("Not set by default. Example: `{example}`."),
                (None, None) => "Not set by default.".to_owned(),
            });
            page.entry(key.name, &lines);
        }
        for rule in rules {
            page.paragraph(rule);
        }
    }

    page.section("EXAMPLES");
    for (purpose, file) in prose::EXAMPLES {
        page.paragraph(purpose);
        page.example(file);
    }
    page.section("FILES");
    for (path, what) in prose::FILES {
        page.entry(path, &[String::from(*what)]);
    }
    page.section("SEE ALSO");
    page.paragraph(&format!("{PROGRAM}(8), systemd.socket(5), systemd.exec(5)"));
    page.finish()
}
