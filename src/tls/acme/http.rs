//! Requests to an authority, each over a connection of its own.
//!
//! hyper speaks HTTP and rustls TLS. What is here is patience with an end: every address of a name gets its chance, every
//! step has its time, and an answer is only so large. A stranger's server can be slow, mad or gone; that must cost no
//! more than one failed attempt.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

use super::failure::Failure;

/// How long one address may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the TLS handshake may take, and then the answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The largest answer that is read: a chain of certificates has some kilobytes.
const LARGEST: usize = 256 * 1024;

const USER_AGENT: &str = concat!("pyrycode-relay/", env!("CARGO_PKG_VERSION"));

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header that is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the authority asks to wait, if it says so in seconds (RFC 9110 § 10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.header(&header::RETRY_AFTER)?.parse().ok().map(Duration::from_secs)
    }

    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Asks for `url` once. `body` is a signed message.
pub(super) async fn ask(
    trust: &Arc<ClientConfig>,
    method: Method,
    url: &str,
    body: Option<String>,
) -> Result<Answer, Failure> {
    let uri: Uri = url.parse().map_err(|_| Failure::lasting(format!("{url} is not a URL")))?;
    let stream = connect(&uri, url).await?;
    let answering = exchange(trust, stream, method, &uri, body);
    within(ANSWER, answering).await.unwrap_or_else(|| {
        Err(Failure::passing(format!("no answer from {} within {} s", shown(&uri), ANSWER.as_secs())))
    })
}

/// A connection to one of the server's addresses.
async fn connect(uri: &Uri, url: &str) -> Result<TcpStream, Failure> {
    let host = host(uri).ok_or_else(|| Failure::lasting(format!("{url} names no host")))?;
    let port = uri.port_u16().unwrap_or(443);
    let resolving = smol::net::resolve((host, port));
    let addresses = match within(ANSWER, resolving).await {
        Some(Ok(addresses)) => addresses,
        Some(Err(error)) => return Err(Failure::passing(format!("{host} cannot be resolved: {error}"))),
        None => {
            return Err(Failure::passing(format!("{host} was not resolved within {} s", ANSWER.as_secs())));
        }
    };
    let mut tried = Vec::new();
    for address in addresses {
        match within(CONNECT, TcpStream::connect(address)).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => tried.push(unconnected(address, &error.to_string())),
            None => tried.push(unconnected(address, &format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }
    Err(Failure::passing(format!("cannot connect to {host}: {}", tried.join(", "))))
}

fn unconnected(address: SocketAddr, why: &str) -> String {
    format!("{address}: {why}")
}

async fn exchange(
    trust: &Arc<ClientConfig>,
    stream: TcpStream,
    method: Method,
    uri: &Uri,
    body: Option<String>,
) -> Result<Answer, Failure> {
    let stream = secure(trust, stream, uri).await?;
    let broken = |error: hyper::Error| Failure::passing(format!("{} broke off: {error}", shown(uri)));
    let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::USER_AGENT, USER_AGENT);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/jose+json");
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| Failure::lasting(format!("{uri}: {error}")))?;
    let answering = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| {
            Failure::passing(format!("the answer of {} cannot be read: {error}", shown(uri)))
        })?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    };
    // Whatever ends the connection, the request hears of it.
    let driving = async {
        let _ = connection.await;
        future::pending().await
    };
    future::or(answering, driving).await
}

async fn secure(
    trust: &Arc<ClientConfig>,
    stream: TcpStream,
    uri: &Uri,
) -> Result<TlsStream<TcpStream>, Failure> {
    let host = host(uri).unwrap_or_default();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::lasting(format!("{host} is not a name that a certificate can have")))?;
    let connected = TlsConnector::from(Arc::clone(trust)).connect(name, stream).await;
    connected.map_err(|error| Failure::passing(untrusted(&shown(uri), &error)))
}

fn untrusted(server: &str, error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => format!(
            "the certificate of {server} is not of an authority that this host trusts; for one of your own, set \
             tls.directory_ca, else see the package ca-certificates"
        ),
        Some(rustls::Error::InvalidCertificate(verdict)) => {
            format!("the certificate of {server} is not good: {verdict}; is the clock of this host right?")
        }
        Some(other) => format!("no TLS with {server}: {other}"),
        None => format!("no TLS with {server}: {error}"),
    }
}

/// The host, without the brackets of an IPv6 address.
fn host(uri: &Uri) -> Option<&str> {
    let host = uri.host()?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn shown(uri: &Uri) -> String {
    uri.authority().map_or_else(|| "it".to_owned(), |authority| authority.host().to_owned())
}

async fn within<T>(time: Duration, doing: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(doing.await) }, async {
        Timer::after(time).await;
        None
    })
    .await
}
