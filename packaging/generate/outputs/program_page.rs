//! pyrycode-relay(8): the program with all its commands, on one page.
//!
//! Everything that `--help` says comes from where `--help` has it. The options are `clap_mangen`'s; the page is put
//! together here, because it has one page for each command, and an operator types `man pyrycode-relay`.

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, bold, italic, roman};
use pyrycode_relay::cli::Cli;

use super::help::{Block, blocks};
use super::page::Page;
use super::{Failure, PROGRAM, prose};

/// Where the blocks of the program's own help go. A block that is not named here has no place, and the page cannot be
/// made.
const PLACES: [(&str, &str); 4] = [
    ("Configuration", "DESCRIPTION"),
    ("Signals", "SIGNALS"),
    ("Exit codes", "EXIT STATUS"),
    ("Examples", "EXAMPLES"),
];

/// The page.
pub(super) fn render(date: &str) -> Result<String, Failure> {
    let program = Cli::command();
    let own = blocks(&program);
    if let Some(block) = own.iter().find(|block| !PLACES.iter().any(|(title, _)| *title == block.title)) {
        return Err(format!("the page has no place for \"{}:\" of --help", block.title).into());
    }
    let mut page = Page::new(PROGRAM, 8, date, "System Administration");
    page.section("NAME");
    page.line(vec![roman(PROGRAM), roman(" - "), roman(in_a_sentence(&about(&program)))]);

    page.section("SYNOPSIS");
    page.line(synopsis(&program, PROGRAM));
    for command in program.get_subcommands() {
        page.line_break();
        page.line(synopsis(command, &format!("{PROGRAM} {}", command.get_name())));
    }

    page.section("DESCRIPTION");
    for paragraph in program.get_long_about().map(ToString::to_string).unwrap_or_default().split("\n\n") {
        page.paragraph(paragraph);
    }
    page.part("Configuration");
    place(&mut page, &own, "DESCRIPTION");
    page.paragraph("Every key of the configuration is in pyrycode-relay.toml(5).");

    page.section("OPTIONS");
    page.raw(&options(&program)?);

    page.section("COMMANDS");
    page.paragraph("Without a command, the relay runs. Each command has its own --help.");
    for command in program.get_subcommands() {
        page.part(command.get_name());
        page.paragraph(&format!("{}.", about(command)));
        page.raw(&options(&command.clone().disable_help_flag(true))?);
        for block in blocks(command) {
            match block.title.as_str() {
                "" => page.paragraph(&block.text),
                // All of them stand together below.
                "Examples" => {}
                title => {
                    page.paragraph(&format!("{title}:"));
                    page.shift();
                    entries(&mut page, &block);
                    page.shift_back();
                }
            }
        }
    }

    for section in ["SIGNALS", "EXIT STATUS"] {
        page.section(section);
        place(&mut page, &own, section);
    }
    for (section, entries) in [("ENVIRONMENT", prose::ENVIRONMENT), ("FILES", prose::FILES)] {
        page.section(section);
        for (term, meaning) in entries {
            page.entry(term, &[String::from(*meaning)]);
        }
    }
    page.section("EXAMPLES");
    place(&mut page, &own, "EXAMPLES");
    for block in program.get_subcommands().flat_map(blocks).filter(|block| block.title == "Examples") {
        entries(&mut page, &block);
    }
    page.section("SEE ALSO");
    page.paragraph(
        "pyrycode-relay.toml(5), systemctl(1), journalctl(1), systemd.service(5), systemd.socket(5)",
    );
    Ok(page.finish())
}

/// Adds the blocks that belong into a section.
fn place(page: &mut Page, own: &[Block], section: &str) {
    let here =
        |block: &&Block| PLACES.iter().any(|(title, place)| *title == block.title && *place == section);
    for block in own.iter().filter(here) {
        entries(page, block);
    }
}

fn entries(page: &mut Page, block: &Block) {
    if !block.text.is_empty() {
        page.paragraph(&block.text);
    }
    for (term, meaning) in &block.entries {
        page.entry(term, std::slice::from_ref(meaning));
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// The sentence as it stands behind a name and a dash.
fn in_a_sentence(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut letters = sentence.chars();
    match letters.next() {
        // A name such as WebSocket stays as it is.
        Some(first)
            if !sentence
                .split(' ')
                .next()
                .is_some_and(|word| word.chars().skip(1).any(char::is_uppercase)) =>
        {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence.to_owned(),
    }
}

/// How a command is called.
fn synopsis(command: &Command, called: &str) -> Vec<Inline> {
    let mut line = vec![bold(called)];
    let value = |arg: &Arg| {
        let names = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        italic(names.unwrap_or_default().join(" "))
    };
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        line.extend([roman(" ["), bold(format!("--{}", arg.get_long().unwrap_or_default()))]);
        if arg.get_action().takes_values() {
            line.extend([roman(" "), value(arg)]);
        }
        line.push(roman("]"));
    }
    for arg in command.get_arguments().filter(|arg| arg.is_positional()) {
        line.extend([roman(" "), value(arg)]);
    }
    line
}

/// The options and arguments of a command, without the title of the section and in paragraphs that a page can hold.
fn options(command: &Command) -> Result<String, Failure> {
    let mut rendered = Vec::new();
    Man::new(command.clone()).render_options_section(&mut rendered)?;
    let rendered = String::from_utf8(rendered)?;
    let (_, list) = rendered.split_once(".SH OPTIONS\n").ok_or("clap_mangen wrote no options")?;
    Ok(list.replace("\n\n", "\n.IP\n"))
}
