//! A connection from its accept until it hangs up or becomes a WebSocket.
//!
//! If load balancers speak the PROXY protocol here, its header comes first; then the TLS handshake, if the relay makes it
//! itself. Then hyper reads the requests and writes the answers. When a request was answered with `101`, hyper's connection is taken apart: the bare stream, and what was read
//! behind the request, go to a task of their own ([`crate::relay`]), and everything HTTP needed is freed with this one.
//!
//! With `tls.domains`, a request that asks for another host is told so before anything else is looked at.
//!
//! All this runs on the ingress thread, so that a flood of handshakes competes for a processor with those who forward frames,
//! and is not in their queue. The task that the stream goes to runs with them, and the stream is told to their reactor.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use smol::io::AsyncWriteExt;
use smol_hyper::rt::FuturesIo;

use super::admission::{Admission, Admitted};
use super::answers::{self, Answer};
use super::client_address::ClientKey;
use super::handshakes::{Handshake, Handshakes};
use super::host;
use super::proxy_protocol::{self, Named, NoHeader};
use super::socket::Socket;
use super::stream::Stream;
use super::tls::{self, Handshaken, NoTls};
use super::upgrade::{self, About, Refusal, Upgrade};
use crate::event;
use crate::relay::binary::{self, BinaryHello};
use crate::relay::hub::Hub;
use crate::relay::observer::{Census, Endpoint, HandshakeStage, UpgradeOutcome};
use crate::relay::phone::{self, PhoneHello};
use crate::runtime::worker::Workers;
use crate::tls::{Domains, Tls};

/// The largest request head, in bytes, and the most header fields in it.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_FIELDS: usize = 64;

/// How long a connection that is only refused may keep a descriptor of the reserve.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What every connection needs to know.
#[derive(Debug)]
pub struct Ingress {
    hub: Arc<Hub>,
    sessions: Arc<Workers>,
    admission: Arc<Admission>,
    handshakes: Arc<Handshakes>,
    tls: Option<Arc<Tls>>,
    started: Instant,
    draining: AtomicBool,
    retry_after: Duration,
}

/// How a connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// As connections are.
    Open,
    /// With a descriptor of the reserve, because there was no other: it can be told to come later, and no more.
    Reserve,
}

/// What is left of a connection when HTTP is done with it: the bare stream, and what was read and not used.
type Remains = (Stream, Vec<u8>);

impl Ingress {
    /// The door to `hub`. Sessions run on `sessions`; who is refused during a drain is told to wait for `retry_after`. With
    /// `tls`, everybody has to speak it.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        sessions: Arc<Workers>,
        admission: Arc<Admission>,
        handshakes: Arc<Handshakes>,
        tls: Option<Arc<Tls>>,
        retry_after: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            hub,
            sessions,
            admission,
            handshakes,
            tls,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            retry_after,
        })
    }

    /// From now on upgrades are refused and `/healthz` says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The connections that are not upgraded.
    #[must_use]
    pub fn handshakes(&self) -> &Arc<Handshakes> {
        &self.handshakes
    }

    /// Who may come in.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// When a peer that acknowledges nothing counts as dead.
    #[must_use]
    pub fn dead_after(&self) -> Duration {
        self.hub.shared().settings.dead_after()
    }

    /// Serves a connection, and hands it on if it is upgraded. How it ends otherwise is its client's business: it is
    /// counted, and a line for each would let a stranger fill the log.
    pub async fn serve(
        self: Arc<Self>,
        mut socket: Socket,
        peer: IpAddr,
        mut handshake: Handshake,
        door: Door,
    ) {
        let progress = Progress::new(door);
        let work = async {
            let Some(peer) = self.arrive(&mut socket, peer).await? else { return Ok(None) };
            handshake.is_of(ClientKey::from(peer));
            let Some(secured) = self.secure(socket, peer).await? else { return Ok(None) };
            self.speak_http(secured, peer, &handshake, &progress).await.map(Some)
        };
        let cut = async {
            match door {
                Door::Open => handshake.cut().await,
                Door::Reserve => future::or(handshake.cut(), sleep(REFUSAL_TIMEOUT)).await,
            }
            Err(HandshakeStage::Timeout)
        };
        let ended = future::or(work, cut).await;
        if let (Err(stage), 0) = (&ended, progress.answered()) {
            handshake.fail(*stage);
        }
        match (ended, progress.admitted()) {
            (Ok(Some((stream, read))), Some(admitted)) => self.hand_on(stream, read, admitted),
            // The client left, or was too slow, before its answer was on the wire.
            (_, Some(admitted)) => {
                self.hub.observer().upgrade(admitted.endpoint, UpgradeOutcome::RejectBadRequest);
            }
            (_, None) => {}
        }
    }

    /// Whose connection it is; nothing if it hung up. Nothing is written to a peer that may not speak for others, or does
    /// not say for whom: it is hung up on.
    async fn arrive(&self, socket: &mut Socket, peer: IpAddr) -> Result<Option<IpAddr>, HandshakeStage> {
        let proxies = self.admission.proxies();
        if !proxies.speak_proxy_protocol() {
            return Ok(Some(peer));
        }
        let closed = |why| self.admission.lines().unusable(peer, why, Instant::now());
        if !proxies.trust(peer) {
            closed("not an address in client_address.trusted");
            return Err(HandshakeStage::Proxy);
        }
        match proxy_protocol::read(socket).await {
            Ok(Named::Client(client)) => Ok(Some(client)),
            Ok(Named::Nobody) => Ok(Some(peer)),
            Err(NoHeader::HungUp) => Ok(None),
            Err(NoHeader::Malformed) => {
                closed("no PROXY protocol header");
                Err(HandshakeStage::Proxy)
            }
            Err(NoHeader::Failed(_)) => Err(HandshakeStage::Proxy),
        }
    }

    /// Makes the TLS handshake, if there is to be one; nothing if that was all that was wanted.
    async fn secure(&self, socket: Socket, peer: IpAddr) -> Result<Option<Secured>, HandshakeStage> {
        let Some(tls) = &self.tls else {
            return Ok(Some(Secured { stream: Stream::Plain(socket), domains: None }));
        };
        let identity = tls.identity();
        match tls::accept(socket, Arc::clone(&identity.config)).await {
            Ok(Handshaken::Client { socket, resumed }) => {
                self.hub.observer().tls_handshake(resumed);
                Ok(Some(Secured { stream: Stream::Tls(socket), domains: identity.domains.clone() }))
            }
            Ok(Handshaken::Authority) | Err(NoTls::HungUp) => Ok(None),
            Err(NoTls::Failed(cause)) => {
                event::tls_handshake_failed(peer, &cause);
                Err(HandshakeStage::Tls)
            }
        }
    }

    /// Answers requests until the connection ends or is upgraded.
    async fn speak_http(
        &self,
        Secured { stream, domains }: Secured,
        peer: IpAddr,
        handshake: &Handshake,
        progress: &Progress,
    ) -> Result<Remains, HandshakeStage> {
        let service = service_fn(|request| {
            // A connection that goes on asking for /healthz goes on.
            handshake.answered();
            let answer = if domains.as_ref().is_none_or(|domains| host::is_meant(&request, domains)) {
                self.answer(&request, peer, progress)
            } else {
                self.misdirect(&request)
            };
            std::future::ready(Ok::<_, Infallible>(progress.answer(answer)))
        });
        let mut connection = http1::Builder::new()
            .half_close(true)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEAD_FIELDS)
            .serve_connection(FuturesIo::new(stream), service);
        let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        if ended.is_err() || !progress.has_admitted() {
            // TLS has an end of its own, without which a client may take what it got for cut off.
            let _ = stream.close().await;
        }
        ended.map(|()| (stream, parts.read_buf.to_vec())).map_err(|_| HandshakeStage::Http)
    }

    fn hand_on(&self, mut stream: Stream, already_read: Vec<u8>, admitted: Admitted) {
        let hub = Arc::clone(&self.hub);
        let Admitted { upgrade: Upgrade { server_id, about, .. }, remote, place, .. } = admitted;
        // It counts as running from this moment, so that a drain cannot overlook it.
        let held = (hub.enter(), place.used());
        let worker = self.sessions.of(&server_id);
        stream.move_to(worker);
        match about {
            About::Binary { version } => {
                let hello = BinaryHello { server_id, version, remote };
                worker.spawn(binary::serve(hub, held, stream, already_read, hello)).detach();
            }
            About::Phone { device_name } => {
                let hello = PhoneHello { server_id, device_name, remote };
                worker.spawn(phone::serve(hub, held, stream, already_read, hello)).detach();
            }
        }
    }

    fn answer(&self, request: &Request<Incoming>, peer: IpAddr, progress: &Progress) -> Answer {
        let path = request.uri().path();
        match upgrade::endpoint(path) {
            Some(endpoint) => match self.decide(request, endpoint, peer, progress.door) {
                Ok(admitted) => {
                    let answer = answers::switching(&admitted.upgrade);
                    progress.admit(admitted);
                    answer
                }
                Err(refusal) => {
                    self.hub.observer().upgrade(endpoint, refusal.outcome);
                    answers::refuse(refusal)
                }
            },
            None if !request.body().is_end_stream() => answers::no_bodies(),
            None if path == "/healthz" && matches!(*request.method(), Method::GET | Method::HEAD) => {
                answers::health(self.hub.count(), self.is_draining(), self.started.elapsed().as_secs())
            }
            None => answers::not_found(),
        }
    }

    /// The request is for another host than this one (RFC 9110 § 15.5.20).
    fn misdirect(&self, request: &Request<Incoming>) -> Answer {
        if let Some(endpoint) = upgrade::endpoint(request.uri().path()) {
            self.hub.observer().upgrade(endpoint, UpgradeOutcome::RejectBadRequest);
        }
        answers::misdirected()
    }

    /// The order of PROTOCOL § 1.
    fn decide(
        &self,
        request: &Request<Incoming>,
        endpoint: Endpoint,
        peer: IpAddr,
        door: Door,
    ) -> Result<Admitted, Refusal> {
        if self.is_draining() {
            return Err(Refusal::for_now(
                StatusCode::SERVICE_UNAVAILABLE,
                self.retry_after,
                "the relay is shutting down".to_owned(),
                UpgradeOutcome::RejectDraining,
            ));
        }
        self.admission.decide(request, endpoint, peer, door == Door::Open)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// A connection that has its TLS handshake behind it, or needs none.
struct Secured {
    stream: Stream,
    /// The hosts that may be asked for; nothing if any may.
    domains: Option<Domains>,
}

async fn sleep(time: Duration) {
    Timer::after(time).await;
}

/// How far a connection has come.
#[derive(Debug)]
struct Progress {
    door: Door,
    answered: AtomicUsize,
    admitted: Mutex<Option<Admitted>>,
}

impl Progress {
    fn new(door: Door) -> Self {
        Self { door, answered: AtomicUsize::new(0), admitted: Mutex::new(None) }
    }

    /// An answer is on its way.
    fn answer(&self, mut answer: Answer) -> Answer {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.door == Door::Reserve {
            answers::close_behind(&mut answer);
        }
        answer
    }

    fn admit(&self, admitted: Admitted) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(admitted);
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    fn has_admitted(&self) -> bool {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn admitted(self) -> Option<Admitted> {
        self.admitted.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
