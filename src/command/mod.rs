//! What the program can be told to do: one module for each command, and the error that all of them end with.

pub mod check;
pub mod probe;
pub mod run;

use std::fmt;
use std::process::ExitCode;

use crate::config::LoadError;

/// What an exit code of the program means; apart from the probe's verdict, the numbers are those of sysexits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The probed relay is not there, refuses, or does not answer as it must.
    ProbeFailed = 1,
    /// The arguments make no sense.
    Usage = 64,
    /// An address cannot be bound.
    Unavailable = 69,
    /// A fault inside the program, or of the system under it.
    Internal = 70,
    /// The configuration is refused.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How a command failed: what to tell the user, and the exit code of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The code that the program exits with.
    pub exit: Exit,
    /// The final text for standard error, of one or several lines, without a line break at its end.
    pub message: String,
}

impl CommandError {
    /// A failure with its exit code and final text.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}
