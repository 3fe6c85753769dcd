//! No command: runs the relay.

use std::sync::Arc;
use std::time::Duration;

use super::{CommandError, Exit};
use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::event::{self, InitError};
use crate::service::sockets::Passed;
use crate::service::{self, ServiceError};

/// How long the end of the process waits for the last lines of the log to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs the relay until it is told to stop.
///
/// # Errors
///
/// [`Exit::Config`] for a configuration that is refused, [`Exit::Unavailable`] for an address that cannot be bound,
/// [`Exit::Internal`] for everything else that the relay cannot do without.
pub fn run(args: &ConfigArgs) -> Result<(), CommandError> {
    let passed = Passed::take();
    let path = args.config.clone();
    let load = move || Config::load(path.as_deref());
    let loaded = load()?;
    let log = event::init(loaded.config.log.level, loaded.config.log.format).map_err(|error| {
        let exit = if matches!(error, InitError::Journald(_)) { Exit::Config } else { Exit::Internal };
        CommandError::new(exit, format!("log.format: {error}"))
    })?;
    let ended = service::run(&loaded, passed, log.clone(), Arc::new(load));
    log.flush(LAST_LINES);
    ended.map_err(|error| {
        let exit = match error {
            ServiceError::Bind { .. } => Exit::Unavailable,
            ServiceError::Refused(_) => Exit::Config,
            _ => Exit::Internal,
        };
        CommandError::new(exit, error.to_string())
    })
}
