//! SIGHUP: configuration and certificate are read again, and what can change at run time changes.
//!
//! The files are read on a helper thread. They may lie on a disk that hangs, or be something that never ends, and neither
//! may keep a frame waiting or a signal to stop from being heard. Reloads take their turns: each sees the files as they
//! were when the one before was done.
//!
//! A reload is taken up as a whole or refused as a whole. systemd is told when it begins and when it is done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use smol::Task;
use smol::channel::Sender;

use super::notes::Notes;
use super::systemd;
use super::watch::Manager;
use crate::config::{Config, LoadError, Loaded, TlsMode};
use crate::event;
use crate::metrics::families::Families;
use crate::runtime::worker::Worker;
use crate::tls::certificate::Certificate;
use crate::tls::{Domains, Tls, files};

/// Reads the configuration as the start did.
pub type Load = Arc<dyn Fn() -> Result<Loaded, LoadError> + Send + Sync>;

/// What a reload works on.
pub(super) struct State {
    /// What is in effect.
    pub(super) config: Config,
    pub(super) log: event::Handle,
    pub(super) tls: Option<Arc<Tls>>,
    /// To the client of a certificate authority: somebody may have mended what it failed on.
    pub(super) acme: Option<Sender<()>>,
    pub(super) families: Arc<Families>,
    pub(super) notes: Arc<Notes>,
    pub(super) manager: Arc<Manager>,
}

/// The reloads of one process.
pub(super) struct Reloads {
    state: Arc<Mutex<State>>,
    load: Load,
    last: Option<Task<()>>,
}

impl Reloads {
    pub(super) fn new(state: State, load: Load) -> Self {
        Self { state: Arc::new(Mutex::new(state)), load, last: None }
    }

    /// Begins a reload, which waits for those before it.
    pub(super) fn begin(&mut self, main: &Worker) {
        let before = self.last.take();
        let load = Arc::clone(&self.load);
        let state = Arc::clone(&self.state);
        self.last = Some(main.spawn(async move {
            if let Some(before) = before {
                before.await;
            }
            let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
            lock().manager.tell(systemd::reloading);
            let mode = lock().config.tls.mode;
            let read = smol::unblock(move || read(&load, mode)).await;
            lock().finish(read);
        }));
    }
}

/// What was read.
struct Read {
    config: Config,
    /// If it comes from files, as it did before.
    certificate: Option<Certificate>,
}

fn read(load: &Load, mode: TlsMode) -> Result<Read, LoadError> {
    let loaded = load()?;
    // Another mode takes a restart, so its files have not to be good yet.
    let from_files = mode == TlsMode::Files && loaded.config.tls.mode == TlsMode::Files;
    let certificate = from_files
        .then(|| files::load(&loaded, SystemTime::now()))
        .transpose()
        .map_err(LoadError::Invalid)?;
    Ok(Read { config: loaded.config, certificate })
}

impl State {
    fn finish(&mut self, read: Result<Read, LoadError>) {
        let refused = match read {
            Ok(read) => self.apply(read).err(),
            Err(error) => Some(error.summary()),
        };
        if let Some(cause) = &refused {
            event::reload_failed(cause);
        }
        self.families.reloaded(refused.is_none());
        self.notes.reload(refused.as_deref());
        self.manager.tell_status();
        self.manager.tell(systemd::ready);
    }

    /// Certificate and log level change at once; what else was changed takes a restart, and the log says so.
    fn apply(&mut self, Read { config: new, certificate }: Read) -> Result<(), String> {
        if let (Some(tls), Some(certificate)) = (&self.tls, certificate) {
            let domains = new.tls.domains.as_deref().map(Domains::new);
            tls.present(&certificate, domains)
                .map_err(|error| format!("the certificate cannot be used: {error}"))?;
            self.config.tls = new.tls.clone();
        }
        if let Some(acme) = &self.acme {
            // One that waits already is as good.
            let _ = acme.try_send(());
        }
        self.log.set_level(new.log.level);
        self.config.log.level = new.log.level;
        let changed = self.config.changed_keys(&new);
        let changed = (!changed.is_empty()).then(|| changed.join(", "));
        event::reloaded(new.log.level, changed.as_deref());
        Ok(())
    }
}
