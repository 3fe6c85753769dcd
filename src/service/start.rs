//! Everything that must be there before the relay is ready.

use std::io;
use std::iter;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use smol::Task;
use smol::channel::{Sender, bounded};

use super::ServiceError;
use super::descriptors::Capacity;
use super::notes::Notes;
use super::reload;
use super::sockets::{Place, Places};
use super::tls::{self, Hearing, Opened};
use super::watch::Manager;
use crate::cli::DEFAULT_CONFIG;
use crate::config::{Config, Loaded, Source};
use crate::event;
use crate::ingress::admission::Admission;
use crate::ingress::handshakes::Handshakes;
use crate::ingress::http::Ingress;
use crate::ingress::listener::{self, PublicListener};
use crate::metrics::families::Families;
use crate::metrics::server::{MetricsServer, MetricsThread};
use crate::relay::clock::SystemClock;
use crate::relay::hub::Hub;
use crate::relay::observer::{Census, Counts};
use crate::relay::settings::Settings;
use crate::runtime::worker::{Worker, Workers};
use crate::tls::material::Material;
use crate::tls::{Tls, expiry};

/// How long the metrics thread may take to answer its first scrape.
const FIRST_SCRAPE: Duration = Duration::from_secs(5);

/// What is running.
pub(super) struct Running {
    pub(super) hub: Arc<Hub>,
    pub(super) ingress: Arc<Ingress>,
    /// Where connections are that have not become a WebSocket, and tasks that must not wait for frames.
    doorway: Worker,
    sessions: Arc<Workers>,
    pub(super) accepting: Accepting,
    pub(super) notes: Arc<Notes>,
    pub(super) families: Arc<Families>,
    tls: Option<Arc<Tls>>,
    /// To the client of a certificate authority, if there is one: try again.
    acme: Option<Sender<()>>,
    /// Serves scrapes until it is dropped.
    pub(super) metrics: Option<MetricsThread>,
    /// What a client is told to wait before it redials, in seconds.
    pub(super) retry_after: u64,
}

impl Running {
    /// Binds both addresses, or takes the sockets that were passed for them; then starts the metrics thread and has it
    /// answer, then accepts.
    pub(super) fn start(
        loaded: &Loaded,
        places: Places,
        capacity: Capacity,
        material: Material,
        main: &Worker,
    ) -> Result<Self, ServiceError> {
        let config = &loaded.config;
        let settings = settings(config);
        let public = open_public(places.public, settings.dead_after())?;
        let metrics = places.metrics.map(open_metrics).transpose()?;
        let census = Arc::new(HubCensus::default());
        let families = Arc::new(Families::new(census.clone()).map_err(ServiceError::Metrics)?);
        families.limits(capacity.connections, capacity.handshakes);
        families.queues_limit(config.limits.all_queues);
        let notes = Arc::<Notes>::default();
        let hearing = Hearing { families: Arc::clone(&families), notes: Arc::clone(&notes) };
        let Opened { tls, acme } = tls::open(material, loaded, Arc::new(hearing))?;
        families.speaks_tls(tls.is_some());
        let clock = SystemClock::default();
        main.spawn(clock.clone().keep()).detach();
        let hub = Hub::new(settings, families.clone(), Arc::new(clock));
        census.watch(&hub);
        let metrics = match metrics {
            Some(server) => Some(start_metrics(server, Arc::clone(&families))?),
            None => None,
        };
        let retry_after = config.drain.spread.as_secs().max(1);
        let observer = Arc::clone(hub.observer());
        let dead_after = hub.shared().settings.silence();
        let admission = Admission::new(config, capacity.connections, dead_after, Arc::clone(&observer));
        let handshakes = Handshakes::new(capacity.handshakes, config.limits.handshake_timeout, observer);
        let workers = Workers::start(main, config.runtime.workers)
            .map_err(|error| ServiceError::System { what: "start a worker thread", error })?;
        let sessions = Arc::new(workers);
        let ingress = Ingress::new(
            Arc::clone(&hub),
            Arc::clone(&sessions),
            Arc::clone(&admission),
            Arc::clone(&handshakes),
            tls.clone(),
            Duration::from_secs(retry_after),
        );
        let doorway = Worker::start("ingress")
            .map_err(|error| ServiceError::System { what: "start the ingress thread", error })?;
        doorway.spawn(admission.keep()).detach();
        doorway.spawn(handshakes.keep()).detach();
        if let Some(tls) = &tls {
            doorway.spawn(expiry::keep(Arc::clone(tls))).detach();
        }
        let acme = acme.map(|acme| {
            let (ask, asked) = bounded(1);
            doorway.spawn(acme.keep(asked)).detach();
            ask
        });
        let accepting = Accepting::start(public, Arc::clone(&ingress), &doorway)
            .map_err(|error| ServiceError::System { what: "watch listen.public", error })?;
        Ok(Self {
            hub,
            ingress,
            doorway,
            sessions,
            accepting,
            notes,
            families,
            tls,
            acme,
            metrics,
            retry_after,
        })
    }

    /// Every thread that a connection can live on.
    pub(super) fn workers(&self) -> Vec<Worker> {
        iter::once(&self.doorway).chain(self.sessions.all()).cloned().collect()
    }

    /// What a reload works on.
    pub(super) fn reloading(
        &self,
        config: Config,
        log: event::Handle,
        manager: &Arc<Manager>,
    ) -> reload::State {
        reload::State {
            config,
            log,
            tls: self.tls.clone(),
            acme: self.acme.clone(),
            families: Arc::clone(&self.families),
            notes: Arc::clone(&self.notes),
            manager: Arc::clone(manager),
        }
    }
}

/// Accepts connections until it is stopped.
pub(super) struct Accepting {
    task: Task<()>,
    stop: Sender<()>,
}

impl Accepting {
    fn start(listener: PublicListener, ingress: Arc<Ingress>, worker: &Worker) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let task = worker.spawn(listener::accept(listener, ingress, worker.clone(), stopped)?);
        Ok(Self { task, stop })
    }

    /// Waits for the end of accepting, which comes with [`Self::stop`] or not at all. If the task panicked, so does this:
    /// a relay that lets nobody in is better started anew.
    pub(super) async fn ended(&mut self) {
        (&mut self.task).await;
    }

    /// Closes the listener, after taking the connections that nobody else could take.
    pub(super) async fn stop(self) {
        self.stop.close();
        self.task.await;
    }
}

/// The hub as the metrics see it. They are made first, because the hub tells them what happens.
#[derive(Debug, Default)]
struct HubCensus(OnceLock<Weak<Hub>>);

impl HubCensus {
    fn watch(&self, hub: &Arc<Hub>) {
        self.0.get_or_init(|| Arc::downgrade(hub));
    }
}

impl Census for HubCensus {
    fn count(&self) -> Counts {
        self.0.get().and_then(Weak::upgrade).map(|hub| hub.count()).unwrap_or_default()
    }
}

/// The first line of the log: which program, with which configuration.
pub(super) fn announce(source: &Source) {
    let config = match source {
        Source::File(path) => path.display().to_string(),
        Source::Defaults => format!("built-in defaults (no {DEFAULT_CONFIG})"),
    };
    event::starting(env!("CARGO_PKG_VERSION"), &config);
}

/// A line about built-in limits that had to shrink, if they had to.
pub(super) fn announce_reduced(capacity: Capacity) {
    if let Some(descriptors) = capacity.reduced_by {
        event::limits_reduced(capacity.connections, capacity.handshakes, descriptors);
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        grace: config.session.grace,
        ping_interval: config.session.ping_interval,
        pong_timeout: config.session.pong_timeout,
        conflict_probe: config.session.conflict_probe,
        message_timeout: config.session.message_timeout,
        write_timeout: config.session.write_timeout,
        phones_per_server: config.limits.phones_per_server,
        max_frame: config.session.max_frame,
        phone_queue: config.limits.phone_queue,
        binary_queue: config.limits.binary_queue,
        all_queues: config.limits.all_queues,
    }
}

fn open_public(place: Place, dead_after: Duration) -> Result<PublicListener, ServiceError> {
    let failed = failed("listen.public", &place);
    let opened = match place {
        Place::Address(address) => PublicListener::bind(address, dead_after),
        Place::Passed(socket, _) => PublicListener::passed(socket),
    };
    let listener = opened.map_err(&failed)?;
    event::listening(listener.local_addr().map_err(&failed)?);
    Ok(listener)
}

fn open_metrics(place: Place) -> Result<MetricsServer, ServiceError> {
    let failed = failed("listen.metrics", &place);
    let opened = match place {
        Place::Address(address) => MetricsServer::bind(address),
        Place::Passed(socket, _) => MetricsServer::from_listener(socket),
    };
    let server = opened.map_err(&failed)?;
    event::listening_metrics(server.local_addr().map_err(&failed)?);
    Ok(server)
}

fn failed(key: &'static str, place: &Place) -> impl Fn(io::Error) -> ServiceError + use<> {
    let (Place::Address(address) | Place::Passed(_, address)) = *place;
    move |error| ServiceError::Bind { key, address, error }
}

fn start_metrics(server: MetricsServer, families: Arc<Families>) -> Result<MetricsThread, ServiceError> {
    let thread = server
        .start(families)
        .map_err(|error| ServiceError::System { what: "start the metrics thread", error })?;
    if thread.answers(FIRST_SCRAPE) {
        Ok(thread)
    } else {
        Err(ServiceError::MetricsSilent { address: thread.local_addr() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_and_the_configuration_have_the_same_defaults() {
        assert_eq!(settings(&Config::default()), Settings::default());
        assert_eq!(settings(&Config::default()).phones_per_server, 16);
    }
}
