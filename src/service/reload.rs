//! SIGHUP: the configuration is read again, and what can change at run time changes.
//!
//! The file is read on a helper thread. It may lie on a disk that hangs, or be something that never ends, and neither
//! may keep a frame waiting or a signal to stop from being heard. Reloads take their turns: each sees the file as it
//! was when the one before was done.

use std::sync::{Arc, Mutex, PoisonError};

use smol::{Executor, Task};

use crate::config::{Config, LoadError};
use crate::event;

/// Reads the configuration as the start did.
pub type Load = Arc<dyn Fn() -> Result<Config, LoadError> + Send + Sync>;

/// What a reload works on.
struct State {
    /// What is in effect.
    config: Config,
    log: event::Handle,
}

/// The reloads of one process.
pub(super) struct Reloads {
    state: Arc<Mutex<State>>,
    load: Load,
    last: Option<Task<()>>,
}

impl Reloads {
    pub(super) fn new(config: Config, log: event::Handle, load: Load) -> Self {
        Self { state: Arc::new(Mutex::new(State { config, log })), load, last: None }
    }

    /// Begins a reload, which waits for those before it.
    pub(super) fn begin(&mut self, executor: &Executor<'static>) {
        let before = self.last.take();
        let load = Arc::clone(&self.load);
        let state = Arc::clone(&self.state);
        self.last = Some(executor.spawn(async move {
            if let Some(before) = before {
                before.await;
            }
            let loaded = smol::unblock(move || load()).await;
            state.lock().unwrap_or_else(PoisonError::into_inner).apply(loaded);
        }));
    }
}

impl State {
    /// The log level changes at once; what else was changed takes a restart, and the log says so.
    fn apply(&mut self, loaded: Result<Config, LoadError>) {
        match loaded {
            Ok(new) => {
                self.log.set_level(new.log.level);
                self.config.log.level = new.log.level;
                let changed = self.config.changed_keys(&new);
                let changed = (!changed.is_empty()).then(|| changed.join(", "));
                event::reloaded(new.log.level, changed.as_deref());
            }
            Err(error) => event::reload_failed(&error.summary()),
        }
    }
}
