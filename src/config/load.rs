//! Finds the configuration file and reads it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Lines, Problem, Problems, one_line};
use super::rules::Written;
use super::{Config, read as reader};
use crate::cli::DEFAULT_CONFIG;

/// More than any configuration needs, and little enough to read when a wrong path names something endless.
const LARGEST_FILE: u64 = 1 << 20;

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a file.
    File(PathBuf),
    /// No path was given and there is no file at [`DEFAULT_CONFIG`].
    Defaults,
}

/// A configuration, and what is known about where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What is configured.
    pub config: Config,
    /// Where it was written.
    pub source: Source,
    /// Which keys stand there.
    pub written: Written,
}

impl Loaded {
    /// Problems that show only on this host, each the key and what is wrong, in the form of those that show in the file.
    #[must_use]
    pub fn problems(&self, found: Vec<(&'static str, String)>) -> Problems {
        let file = match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Defaults => DEFAULT_CONFIG.to_owned(),
        };
        let placed = |(key, text): (&'static str, String)| {
            let line = self.written.line(key).unwrap_or(1);
            Problem { line, key: key.to_owned(), text }
        };
        Problems::new(&file, found.into_iter().map(placed).collect())
    }
}

/// Why there is no configuration. Its text is complete: it names the file and says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The file that was asked for does not exist.
    Missing(PathBuf),
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file is larger than any configuration.
    TooLarge(PathBuf),
    /// The file was read, and this is wrong with it.
    Invalid(Problems),
}

impl LoadError {
    /// What is wrong, in one line: for an event of the log, which is no place for a list. It names the first
    /// problem, counts the others, and says how to see them all.
    #[must_use]
    pub fn summary(&self) -> String {
        // The name of a file may hold a line break, and so may what a file system says.
        one_line(&match self {
            Self::Invalid(problems) => problems.summary(),
            other => other.to_string(),
        })
    }
}

impl Config {
    /// Reads the configuration file at `path`, or else at [`DEFAULT_CONFIG`] if there is one, or else takes the
    /// built-in defaults.
    ///
    /// # Errors
    ///
    /// A `path` that does not exist, a file that exists and cannot be read, at whichever path, and everything
    /// that [`Config::parse`] refuses.
    pub fn load(path: Option<&Path>) -> Result<Loaded, LoadError> {
        load(path, Path::new(DEFAULT_CONFIG))
    }
}

fn load(path: Option<&Path>, default: &Path) -> Result<Loaded, LoadError> {
    let file = path.unwrap_or(default);
    match read(file) {
        Ok((config, written)) => Ok(Loaded { config, source: Source::File(file.to_owned()), written }),
        Err(LoadError::Missing(_)) if path.is_none() => {
            Ok(Loaded { config: Config::default(), source: Source::Defaults, written: Written::default() })
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<(Config, Written), LoadError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)).map_err(
        |error| match error.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(path.to_owned()),
            _ => LoadError::Unreadable(path.to_owned(), error),
        },
    )?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    let name = path.display().to_string();
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = Lines::new(&bytes).of(error.valid_up_to());
        let text = "not valid TOML: this line is not UTF-8 text".to_owned();
        LoadError::Invalid(Problems::new(&name, vec![Problem { line, key: String::new(), text }]))
    })?;
    reader::parse(text, &name).map_err(LoadError::Invalid)
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{}: there is no such file", path.display()),
            Self::Unreadable(path, error) => write!(f, "{}: cannot be read: {error}", path.display()),
            Self::TooLarge(path) => {
                write!(f, "{}: larger than 1 MiB, so not a configuration", path.display())
            }
            Self::Invalid(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::Invalid(problems) => Some(problems),
            Self::Missing(_) | Self::TooLarge(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_file_may_be_missing_but_not_unreadable() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("relay.toml");

        let loaded = load(None, &absent).unwrap();
        assert_eq!((loaded.config, loaded.source), (Config::default(), Source::Defaults));
        assert!(matches!(load(Some(&absent), &absent), Err(LoadError::Missing(_))));

        // A directory opens and then cannot be read, for any user.
        let error = load(None, directory.path()).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable(..)), "{error}");

        std::fs::write(&absent, "[session]\ngrace = \"7s\"").unwrap();
        let loaded = load(None, &absent).unwrap();
        assert_eq!(loaded.config.session.grace.as_secs(), 7);
        assert_eq!(loaded.written.line("session.grace"), Some(2));
        let problem = loaded.problems(vec![("session.grace", "too long for this host".to_owned())]);
        let name = absent.display();
        let listed = format!("{name}:2: session.grace: too long for this host\n1 problem in {name}");
        assert_eq!(problem.to_string(), listed);
        assert_eq!(loaded.source, Source::File(absent));
    }
}
