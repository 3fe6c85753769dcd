//! HTTP with one socket, until it hangs up or becomes a WebSocket.
//!
//! hyper reads the requests and writes the answers. When a request was answered with `101`, hyper's connection is
//! taken apart: the bare socket, and what was read behind the request, go to a task of their own
//! ([`crate::relay`]), and everything HTTP needed is freed with this one.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use smol::Executor;
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::FuturesIo;

use super::upgrade::{self, About, Refusal, Upgrade};
use crate::relay::binary::{self, BinaryHello};
use crate::relay::hub::Hub;
use crate::relay::live::{Live, LiveGuard};
use crate::relay::observer::{Census, Endpoint, HandshakeStage, Observer, UpgradeOutcome};
use crate::relay::phone::{self, PhoneHello};

/// The largest request head, in bytes, and the most header fields in it.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_FIELDS: usize = 64;

/// What every connection needs to know.
#[derive(Debug)]
pub struct Ingress {
    hub: Arc<Hub>,
    executor: Arc<Executor<'static>>,
    handshake_timeout: Duration,
    started: Instant,
    live: Arc<Live>,
    draining: AtomicBool,
    retry_after: u64,
}

impl Ingress {
    /// The door to `hub`. Sessions run on `executor`; a connection on which no request comes for
    /// `handshake_timeout` is hung up; who is refused during a drain is told to wait `retry_after` seconds.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        executor: Arc<Executor<'static>>,
        handshake_timeout: Duration,
        retry_after: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            hub,
            executor,
            handshake_timeout,
            started: Instant::now(),
            live: Arc::default(),
            draining: AtomicBool::new(false),
            retry_after,
        })
    }

    /// From now on upgrades are refused and `/healthz` says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The connections that are in HTTP.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// When a peer that acknowledges nothing counts as dead.
    #[must_use]
    pub fn dead_after(&self) -> Duration {
        self.hub.shared().settings.dead_after()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Speaks HTTP with `socket`, and hands it on if it is upgraded. How it ends otherwise is its client's business:
    /// it is counted, and a line for each would let a stranger fill the log. `_live` counts it until it has left HTTP.
    pub async fn serve<S>(self: Arc<Self>, socket: S, remote: SocketAddr, _live: LiveGuard)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut handshake = Handshake::begin(self.hub.observer());
        let admitted = Mutex::new(None);
        let answered = AtomicUsize::new(0);
        let parts = {
            let service = service_fn(|request| {
                answered.fetch_add(1, Ordering::Relaxed);
                let response = self.answer(&request, &admitted);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .half_close(true)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEAD_FIELDS)
                .serve_connection(FuturesIo::new(socket), service)
                .without_shutdown();
            // A connection that goes on asking for /healthz goes on.
            let deadline = async {
                let mut before = usize::MAX;
                while answered.load(Ordering::Relaxed) != before {
                    before = answered.load(Ordering::Relaxed);
                    Timer::after(self.handshake_timeout).await;
                }
                Err(io::ErrorKind::TimedOut.into())
            };
            let parts = future::or(async { connection.await.map_err(io::Error::other) }, deadline).await;
            parts.map(|parts| (parts.io.into_inner(), parts.read_buf))
        };
        if let (Err(error), 0) = (&parts, answered.into_inner()) {
            handshake.failed = Some(match error.kind() {
                io::ErrorKind::TimedOut => HandshakeStage::Timeout,
                _ => HandshakeStage::Http,
            });
        }
        drop(handshake);
        let admitted = admitted.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (parts, admitted) {
            (Ok((socket, read)), Some((_, upgrade))) => {
                self.hand_on(socket, read.to_vec(), upgrade, remote);
            }
            (Err(_), Some((endpoint, _))) => {
                // The client left, or was too slow, before its answer was on the wire.
                self.hub.observer().upgrade(endpoint, UpgradeOutcome::RejectBadRequest);
            }
            (_, None) => {}
        }
    }

    fn hand_on<S>(&self, socket: S, already_read: Vec<u8>, upgrade: Upgrade, remote: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hub = Arc::clone(&self.hub);
        // It counts as running from this moment, so that a drain cannot overlook it.
        let live = hub.enter();
        let Upgrade { server_id, about, .. } = upgrade;
        match about {
            About::Binary { version } => {
                let hello = BinaryHello { server_id, version, remote };
                self.executor.spawn(binary::serve(hub, live, socket, already_read, hello)).detach();
            }
            About::Phone { device_name } => {
                let hello = PhoneHello { server_id, device_name, remote };
                self.executor.spawn(phone::serve(hub, live, socket, already_read, hello)).detach();
            }
        }
    }

    fn answer(
        &self,
        request: &Request<Incoming>,
        admitted: &Mutex<Option<(Endpoint, Upgrade)>>,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let Some(endpoint) = upgrade::endpoint(path) else {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            return if path == "/healthz" && reads { self.health() } else { not_found() };
        };
        match self.decide(request, endpoint) {
            Ok(upgrade) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, upgrade.accept.clone());
                *admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some((endpoint, upgrade));
                response
            }
            Err(refusal) => {
                self.hub.observer().upgrade(endpoint, refusal.outcome);
                refuse(refusal)
            }
        }
    }

    /// The order of PROTOCOL § 1.
    fn decide(&self, request: &Request<Incoming>, endpoint: Endpoint) -> Result<Upgrade, Refusal> {
        if self.is_draining() {
            return Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                header: Some((header::RETRY_AFTER, HeaderValue::from(self.retry_after))),
                message: "the relay is shutting down".to_owned(),
                outcome: UpgradeOutcome::RejectDraining,
            });
        }
        upgrade::check(request, endpoint)
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let counts = self.hub.count();
        let draining = self.is_draining();
        let health = Health {
            status: if draining { "draining" } else { "ok" },
            version: env!("CARGO_PKG_VERSION"),
            connected_binaries: counts.connected_binaries,
            connected_phones: counts.connected_phones,
            uptime_seconds: self.started.elapsed().as_secs(),
        };
        // A struct of numbers and fixed strings always has a JSON form.
        let body = serde_json::to_vec(&health).unwrap_or_default();
        let mut response = Response::new(Full::from(body));
        if draining {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            // Whoever asks again and again would keep the process waiting.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A connection on its way to the upgrade, counted until this is dropped.
struct Handshake<'a> {
    observer: &'a dyn Observer,
    failed: Option<HandshakeStage>,
}

impl<'a> Handshake<'a> {
    fn begin(observer: &'a Arc<dyn Observer>) -> Self {
        observer.handshake_began();
        Self { observer: &**observer, failed: None }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.observer.handshake_ended(self.failed);
    }
}

/// The health document, its keys in the protocol's order.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    connected_binaries: usize,
    connected_phones: usize,
    uptime_seconds: u64,
}

fn not_found() -> Response<Full<Bytes>> {
    plain(StatusCode::NOT_FOUND, "nothing here; the endpoints are /v2/server, /v2/client and /healthz")
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = plain(refusal.status, &refusal.message);
    if let Some((name, value)) = refusal.header {
        response.headers_mut().insert(name, value);
    }
    // A client that was refused here has no further use for the connection.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{line}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
