//! Everything that is generated, as text in memory.
//!
//! The sources are three: the table of keys (`config::keys`, `config::tables`), the command line (`cli::Cli`), and
//! what neither knows (`prose`). The program in `main.rs` writes the outputs into the tree, and tests/generated.rs,
//! which shares these modules, compares them with the tree.

mod configuration_page;
mod help;
mod markdown;
mod page;
mod program_page;
pub(crate) mod prose;
mod text;
mod toml;

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use pyrycode_relay::cli::Cli;

/// What writes every output into the tree.
pub(crate) const COMMAND: &str = "cargo run --example generate";

/// The name of the program, and of what belongs to it.
const PROGRAM: &str = "pyrycode-relay";

/// A source that cannot be read, or is not as it should be.
pub(crate) type Failure = Box<dyn Error>;

/// One generated file.
pub(crate) struct Output {
    /// Where it lies in the tree.
    pub(crate) path: &'static str,
    /// What should stand in it.
    pub(crate) text: String,
}

impl Output {
    /// What differs from the file in the tree, and what to do about it; nothing when they are the same.
    pub(crate) fn difference(&self, root: &Path) -> Option<String> {
        let there = match fs::read_to_string(root.join(self.path)) {
            Ok(there) => there,
            Err(error) => return Some(format!("{}: {error}; run: {COMMAND}", self.path)),
        };
        if there == self.text {
            return None;
        }
        let (mut is, mut should_be) = (there.split('\n'), self.text.split('\n'));
        let mut number = 1;
        loop {
            let pair = (is.next(), should_be.next());
            if pair.0 != pair.1 || pair.0.is_none() {
                let show =
                    |line: Option<&str>| line.map_or("the end of the file".to_owned(), |l| format!("{l:?}"));
                let (is, should_be) = (show(pair.0), show(pair.1));
                return Some(format!(
                    "{}:{number}: is {is}, the definitions in the code give {should_be}; run: {COMMAND}",
                    self.path
                ));
            }
            number += 1;
        }
    }
}

/// Every generated file, from the definitions that this was built with and the hand-written files under `root`.
pub(crate) fn all(root: &Path) -> Result<Vec<Output>, Failure> {
    let page = fs::read_to_string(root.join("docs/configuration.md"))?;
    let date = release_date(&fs::read_to_string(root.join("CHANGELOG.md"))?);
    Ok(vec![
        Output { path: "packaging/relay.toml", text: toml::reference() },
        Output { path: "docs/configuration.md", text: markdown::filled(&page)? },
        Output { path: "packaging/man/pyrycode-relay.8", text: program_page::render(&date)? },
        Output { path: "packaging/man/pyrycode-relay.toml.5", text: configuration_page::render(&date) },
        Output { path: "packaging/completions/pyrycode-relay.bash", text: completions(Shell::Bash)? },
        Output { path: "packaging/completions/_pyrycode-relay", text: completions(Shell::Zsh)? },
        Output { path: "packaging/completions/pyrycode-relay.fish", text: completions(Shell::Fish)? },
    ])
}

fn completions(shell: Shell) -> Result<String, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    let script = String::from_utf8(script)?;
    // For bash, clap_complete writes the hyphen of a program's name in two ways, and then no command's options are
    // found (https://github.com/clap-rs/clap/issues/6421). Where that is mended, there is nothing to replace.
    let (one, other) = (PROGRAM.replace('-', "__subcmd__"), PROGRAM.replace('-', "__"));
    Ok(script.replace(&format!("{one}__subcmd__"), &format!("{other}__subcmd__")))
}

/// The day of this version's release, as the changelog has it: a build has no say in what stands on a page. Until a
/// version is released, it has none.
fn release_date(changelog: &str) -> String {
    let heading = concat!("## [", env!("CARGO_PKG_VERSION"), "] - ");
    changelog.lines().find_map(|line| line.strip_prefix(heading)).unwrap_or_default().trim().to_owned()
}
