//! The answers to requests that are not upgraded, and the one to those that are.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::upgrade::{Refusal, Upgrade};
use crate::relay::observer::Counts;

/// What is written back.
pub(super) type Answer = Response<Full<Bytes>>;

/// The health document, its keys in the protocol's order.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    connected_binaries: usize,
    connected_phones: usize,
    uptime_seconds: u64,
}

/// `101`: the connection is a WebSocket from here on.
pub(super) fn switching(upgrade: &Upgrade) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, upgrade.accept.clone());
    answer
}

/// The health document (PROTOCOL § 1).
pub(super) fn health(counts: Counts, draining: bool, uptime_seconds: u64) -> Answer {
    let health = Health {
        status: if draining { "draining" } else { "ok" },
        version: env!("CARGO_PKG_VERSION"),
        connected_binaries: counts.connected_binaries,
        connected_phones: counts.connected_phones,
        uptime_seconds,
    };
    // A struct of numbers and fixed strings always has a JSON form.
    let mut answer = Response::new(Full::from(serde_json::to_vec(&health).unwrap_or_default()));
    if draining {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        // Whoever asks again and again would keep the process waiting.
        close_behind(&mut answer);
    }
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Nothing is at this path, or it is not for this method.
pub(super) fn not_found() -> Answer {
    plain(StatusCode::NOT_FOUND, "nothing here; the endpoints are /v2/server, /v2/client and /healthz")
}

/// The request is for a host that is not served here.
pub(super) fn misdirected() -> Answer {
    let line = "this host is not served here; the Host header must be one of the names in tls.domains";
    let mut answer = plain(StatusCode::MISDIRECTED_REQUEST, line);
    close_behind(&mut answer);
    answer
}

/// A request came with a body, and there is nothing here that takes one.
pub(super) fn no_bodies() -> Answer {
    let mut answer = plain(StatusCode::BAD_REQUEST, "a request here has no body");
    close_behind(&mut answer);
    answer
}

/// An upgrade is refused.
pub(super) fn refuse(refusal: Refusal) -> Answer {
    let mut answer = plain(refusal.status, &refusal.message);
    if let Some((name, value)) = refusal.header {
        answer.headers_mut().insert(name, value);
    }
    // A client that was refused here has no further use for the connection.
    close_behind(&mut answer);
    answer
}

/// The connection ends behind this answer.
pub(super) fn close_behind(answer: &mut Answer) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn plain(status: StatusCode, line: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{line}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
