//! Answers to an upgrade request that are not an upgrade.

use std::io;
use std::time::Duration;

use async_tungstenite::tungstenite::Error as WsError;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::client::Response;
use async_tungstenite::tungstenite::http::HeaderMap;
use futures_lite::AsyncReadExt;

use super::answer::Witnessed;
use super::clock::Clock;
use super::dial::io_text;
use super::explain::{self, Trouble};
use super::tls::wants_our_certificate;
use super::transport::Transport;

/// How much of a refusal's body is read.
const MAX_BODY: usize = 1024;

/// How long the rest of a refusal's body is waited for; the status says enough without it.
const BODY_WAIT: Duration = Duration::from_secs(1);

/// What an answer is that does not come.
const ENDED: &str = "ended the connection instead of answering an HTTP request";

/// What the servers in use say to a request without TLS on a port with TLS.
const EXPECTS_TLS: [&str; 3] = ["to HTTPS port", "to an HTTPS server", "SSL-enabled server port"];

/// What an answer that is no WebSocket upgrade looks like.
pub(super) fn oddity(error: &WsError) -> String {
    match error {
        WsError::Protocol(ProtocolError::HandshakeIncomplete) => ENDED.to_owned(),
        // TLS tells an end that the peer did not announce from one that it did; here they mean the same.
        WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => ENDED.to_owned(),
        WsError::Io(error) if wants_our_certificate(error) => {
            "wants a certificate of its clients (TLS alert certificate_required), as no relay does".to_owned()
        }
        WsError::Protocol(ProtocolError::HttparseError(_) | ProtocolError::WrongHttpVersion)
        | WsError::Capacity(_)
        | WsError::AttackAttempt => "answers, but not in HTTP/1.1".to_owned(),
        WsError::Protocol(error) => format!("answers with a broken WebSocket upgrade ({error})"),
        WsError::Io(error) => format!("broke off during the HTTP request ({})", io_text(error)),
        other => format!("cannot be spoken to ({other})"),
    }
}

/// What a refusal says: its status, the first line of its body, when to come again.
pub(super) async fn refusal(
    clock: &Clock,
    path: &'static str,
    response: &Response,
    stream: Witnessed<Transport>,
) -> Trouble {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let body =
        read_body(clock, response.headers(), response.body().clone().unwrap_or_default(), stream).await;
    let body = String::from_utf8_lossy(&body);
    // A chunk begins with a line that is its size.
    let chunked = header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let line = if chunked { body.split_once('\n').map_or("", |(_, chunk)| chunk) } else { &body };
    Trouble::Refused {
        path,
        status: response.status().as_u16(),
        line: explain::first_line(line),
        retry_after: header("retry-after").map(|value| explain::clean(value, 40)),
        expects_tls: response.status() == 400 && EXPECTS_TLS.iter().any(|words| body.contains(words)),
    }
}

/// The beginning of the body: what came together with the head, and what follows shortly.
async fn read_body(
    clock: &Clock,
    headers: &HeaderMap,
    mut body: Vec<u8>,
    mut stream: Witnessed<Transport>,
) -> Vec<u8> {
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let wanted = length.unwrap_or(MAX_BODY).min(MAX_BODY);
    let reading = async {
        let mut buffer = [0; MAX_BODY];
        while body.len() < wanted {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => body.extend(buffer.iter().take(count)),
            }
        }
        Ok(())
    };
    // Whatever has come by then is what there is to show.
    let _ = clock.within(BODY_WAIT, "the body", reading).await;
    body
}
