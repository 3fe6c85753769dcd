//! No command: runs the relay.

use super::{CommandError, Exit};
use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::event;
use crate::service::{self, ServiceError};

/// Runs the relay until it is told to stop.
///
/// # Errors
///
/// [`Exit::Config`] for a configuration that is refused, [`Exit::Unavailable`] for an address that cannot be bound,
/// [`Exit::Internal`] for everything else that the relay cannot do without.
pub fn run(args: &ConfigArgs) -> Result<(), CommandError> {
    let load = || Config::load(args.config.as_deref());
    let (config, source) = load()?;
    let log = event::init(config.log.level, config.log.format)
        .map_err(|error| CommandError::new(Exit::Config, format!("log.format: {error}")))?;
    let reload = || load().map(|(config, _)| config);
    service::run(&config, &source, &log, &reload).map_err(|error| {
        let exit = match error {
            ServiceError::Bind { .. } => Exit::Unavailable,
            _ => Exit::Internal,
        };
        CommandError::new(exit, error.to_string())
    })
}
