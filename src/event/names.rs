//! The names that the configuration uses for levels and formats.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// From which level on events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Only what needs a human.
    Error,
    /// Also what may need one.
    Warn,
    /// Also every claim, registration and end of a connection.
    #[default]
    Info,
    /// Everything.
    Debug,
}

impl Level {
    /// Every level, from few events to many.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The same in `tracing`'s terms.
    pub(super) const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == name)
            .ok_or(UnknownName { allowed: "error, warn, info, debug" })
    }
}

/// The shape of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The journal if stderr is connected to it, else text.
    #[default]
    Auto,
    /// The systemd journal, with structured fields.
    Journald,
    /// One readable line per event on stderr.
    Text,
    /// One flat JSON object per event on stderr.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Journald, Self::Text, Self::Json];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Journald => "journald",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or(UnknownName { allowed: "auto, journald, text, json" })
    }
}

/// A name that is no [`Level`] or [`Format`]; shows what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    allowed: &'static str,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed are {}", self.allowed)
    }
}

impl std::error::Error for UnknownName {}
