//! Whether a request to `/v1/server` or `/v1/client` may become a WebSocket (PROTOCOL § 1).
//!
//! [`check`] looks at the request alone, in the order that the protocol lays down: first whether it is a WebSocket
//! upgrade at all, then the relay's own headers, then that nothing follows them. What is said about a header names it and never quotes it.

use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use data_encoding::BASE64;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};

use crate::relay::observer::{Endpoint, UpgradeOutcome};
use crate::relay::registry::ServerId;

const SERVER_ID: HeaderName = HeaderName::from_static("x-pyrycode-server");
const BINARY_VERSION: HeaderName = HeaderName::from_static("x-pyrycode-version");
const DEVICE_NAME: HeaderName = HeaderName::from_static("x-pyrycode-device-name");

/// The longest server-id and device name, in bytes.
const SHORT: usize = 128;
/// The longest version and user agent, in bytes.
const LONG: usize = 256;

/// Which endpoint a path names, if it names one. The version in the path has no meaning here.
#[must_use]
pub fn endpoint(path: &str) -> Option<Endpoint> {
    match path {
        "/v1/server" | "/v2/server" => Some(Endpoint::Server),
        "/v1/client" | "/v2/client" => Some(Endpoint::Client),
        _ => None,
    }
}

/// A request that may be upgraded.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: HeaderValue,
    /// The server-id it names.
    pub server_id: ServerId,
    /// What else it says about itself.
    pub about: About,
}

/// What a request says about who sends it.
#[derive(Debug, PartialEq, Eq)]
pub enum About {
    /// A binary.
    Binary {
        /// Its version.
        version: Box<[u8]>,
    },
    /// A phone.
    Phone {
        /// What it calls itself, if it does.
        device_name: Option<Box<[u8]>>,
    },
}

/// A request that may not.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// A header that the answer must have.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// One line for whoever reads the answer.
    pub message: String,
    /// What it counts as.
    pub outcome: UpgradeOutcome,
}

impl Refusal {
    /// One that holds for now: after `wait` the answer may be another. It is told in whole seconds, rounded up.
    #[must_use]
    pub fn for_now(status: StatusCode, wait: Duration, message: String, outcome: UpgradeOutcome) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let header = (header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Self { status, header: Some(header), message, outcome }
    }

    fn bad(status: StatusCode, message: &str) -> Self {
        Self { status, header: None, message: message.to_owned(), outcome: UpgradeOutcome::RejectBadRequest }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    fn header(name: &HeaderName, problem: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            header: None,
            message: format!("{name}: {problem}"),
            outcome: UpgradeOutcome::RejectHeaders,
        }
    }
}

/// Decides about one request to `endpoint`.
///
/// # Errors
/// The answer to give instead.
pub fn check<B: Body>(request: &Request<B>, endpoint: Endpoint) -> Result<Upgrade, Refusal> {
    let accept = check_websocket(request)?;
    let headers = request.headers();
    let server_id = required(headers, &SERVER_ID, SHORT)?;
    let server_id = match server_id.to_str() {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => ServerId::from(text),
        _ => {
            return Err(Refusal::header(&SERVER_ID, "must be visible ASCII without spaces"));
        }
    };
    let about = match endpoint {
        Endpoint::Server => {
            About::Binary { version: required(headers, &BINARY_VERSION, LONG)?.as_bytes().into() }
        }
        Endpoint::Client => {
            let device_name = single(headers, &DEVICE_NAME)?;
            if device_name.is_some_and(|name| name.len() > SHORT) {
                return Err(Refusal::header(&DEVICE_NAME, &format!("must have at most {SHORT} bytes")));
            }
            About::Phone { device_name: device_name.map(|name| name.as_bytes().into()) }
        }
    };
    required(headers, &header::USER_AGENT, LONG)?;
    if !request.body().is_end_stream() {
        return Err(Refusal::bad(StatusCode::BAD_REQUEST, "an upgrade request has no body"));
    }
    Ok(Upgrade { accept, server_id, about })
}

/// Whether the request is a WebSocket upgrade (RFC 6455 § 4.2.1), and the key that accepts it.
fn check_websocket<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    let headers = request.headers();
    if *request.method() != Method::GET {
        return Err(Refusal::bad(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket upgrade is a GET request")
            .with(header::ALLOW, "GET"));
    }
    if request.version() != Version::HTTP_11
        || !lists(headers, &header::CONNECTION, "upgrade")
        || !lists(headers, &header::UPGRADE, "websocket")
    {
        return Err(Refusal::bad(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint")
            .with(header::UPGRADE, "websocket"));
    }
    let version = single(headers, &header::SEC_WEBSOCKET_VERSION);
    if !matches!(version, Ok(Some(version)) if version == "13") {
        return Err(Refusal::bad(StatusCode::UPGRADE_REQUIRED, "the WebSocket version must be 13")
            .with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let bad_key = || Refusal::bad(StatusCode::BAD_REQUEST, "sec-websocket-key: must be 16 bytes in base64");
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).ok().flatten().ok_or_else(bad_key)?;
    if BASE64.decode(key.as_bytes()).map_or(0, |key| key.len()) != 16 {
        return Err(bad_key());
    }
    // A digest in base64 is a valid header value.
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| bad_key())
}

/// Whether a header that is a comma-separated list has `token` in it, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The one value of a header, if it is there.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Refusal::header(name, "must be sent once")),
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &HeaderName, most: usize) -> Result<&'a HeaderValue, Refusal> {
    match single(headers, name)? {
        None => Err(Refusal::header(name, "missing")),
        Some(value) if value.is_empty() => Err(Refusal::header(name, "must not be empty")),
        Some(value) if value.len() > most => {
            Err(Refusal::header(name, &format!("must have at most {most} bytes")))
        }
        Some(value) => Ok(value),
    }
}
