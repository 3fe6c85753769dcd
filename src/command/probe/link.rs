//! One connection of the probe: the binary's or a phone's WebSocket, every wait under a deadline.

use std::convert::Infallible;
use std::io;

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::client::Request;
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error as WsError, Message, Utf8Bytes};
use async_tungstenite::{WebSocketStream, client_async_with_config};
use futures_lite::StreamExt;

use super::USER_AGENT;
use super::answer::Witnessed;
use super::clock::Clock;
use super::dial::io_text;
use super::envelope::notice_code;
use super::explain::{self, Trouble};
use super::refusal::{oddity, refusal};
use super::target::Target;
use super::transport::Transport;

/// What a message from the relay may have beyond the probe's own frame, in bytes: far more than an envelope needs, far
/// less than would hurt.
const BEYOND_FRAME: usize = 1024 * 1024;

/// How a connection is lost that simply ends.
const DROPPED: &str = "the relay dropped it without a close frame";

/// Which end of the protocol a connection plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    Binary,
    Phone,
}

impl Leg {
    fn who(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Phone => "phone",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Binary => "/v2/server",
            Self::Phone => "/v2/client",
        }
    }

    fn request(self, target: &Target, server_id: &str) -> Result<Request, WsError> {
        let url = format!("{}://{}{}", target.scheme(), target.host_field(), self.path());
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("x-pyrycode-server", HeaderValue::from_str(server_id)?);
        headers.insert("user-agent", HeaderValue::from_static(USER_AGENT));
        match self {
            Self::Binary => headers.insert(
                "x-pyrycode-version",
                HeaderValue::from_static(concat!("probe/", env!("CARGO_PKG_VERSION"))),
            ),
            Self::Phone => headers.insert("x-pyrycode-device-name", HeaderValue::from_static("probe")),
        };
        Ok(request)
    }
}

/// An upgraded connection.
pub(super) struct Link {
    leg: Leg,
    clock: Clock,
    /// How large the probe's frames are.
    size: usize,
    socket: WebSocketStream<Witnessed<Transport>>,
}

/// What a connection brings.
enum Event {
    Text(Utf8Bytes),
    Binary(Bytes),
    Pong(Bytes),
    Closed(Option<CloseFrame>),
    /// The connection ended after its close.
    Ended,
}

impl Link {
    /// Upgrades a connection, and waits until the relay answers a ping on it: the registry decides after the upgrade,
    /// and the first sign of a refusal is the close that comes instead of the pong.
    pub(super) async fn open(
        clock: &Clock,
        stream: Transport,
        leg: Leg,
        target: &Target,
        server_id: &str,
        size: usize,
    ) -> Result<Self, Trouble> {
        let limit = clock.deadlines.step;
        let authority = target.authority();
        let tls = target.is_tls();
        let odd =
            |error: &WsError| Trouble::NotARelay { authority: authority.clone(), what: oddity(error), tls };
        let request = leg.request(target, server_id).map_err(|error| odd(&error))?;
        let (stream, beginning) = Witnessed::new(stream);
        let spare = stream.clone();
        let max = Some(max_message(size));
        let config = WebSocketConfig::default().max_message_size(max).max_frame_size(max);
        let upgrading = async { Ok(client_async_with_config(request, stream, Some(config)).await) };
        let due = format!("{authority} to answer an HTTP request");
        let socket = match clock.within(limit, &due, upgrading).await? {
            Ok((socket, _)) => socket,
            Err(WsError::Http(response)) => return Err(refusal(clock, leg.path(), &response, spare).await),
            Err(error) => {
                return Err(match beginning.old_http() {
                    Some(status) => Trouble::OldHttp { authority, path: leg.path(), status, tls },
                    None if beginning.is_tls_alert() && !tls => Trouble::ExpectsTls { authority },
                    None => odd(&error),
                });
            }
        };
        let mut link = Self { leg, clock: *clock, size, socket };
        link.ping().await?;
        Ok(link)
    }

    async fn ping(&mut self) -> Result<(), Trouble> {
        const DUE: &str = "the answer to its first ping";
        let payload = Bytes::from_static(b"probe");
        self.send(Message::Ping(payload.clone()), "room for a ping").await?;
        let clock = self.clock;
        let answer = async {
            loop {
                match self.event(DUE).await? {
                    Event::Pong(answer) if answer == payload => return Ok(()),
                    Event::Pong(_) => {}
                    other => return Err(self.unexpected(DUE, other)),
                }
            }
        };
        clock.within(clock.deadlines.step, DUE, answer).await
    }

    /// Sends a text message.
    pub(super) async fn send_text(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Trouble> {
        self.send(Message::text(text), "room for a message").await
    }

    /// The next message, which must be text.
    pub(super) async fn text(&mut self, due: &'static str) -> Result<Utf8Bytes, Trouble> {
        let clock = self.clock;
        let message = async {
            loop {
                match self.event(due).await? {
                    Event::Text(text) => return Ok(text),
                    Event::Pong(_) => {}
                    other => return Err(self.unexpected(due, other)),
                }
            }
        };
        clock.within(clock.deadlines.step, due, message).await
    }

    /// The next message, which must be text, and not the notice that a phone is gone.
    pub(super) async fn frame(&mut self, due: &'static str) -> Result<Utf8Bytes, Trouble> {
        let text = self.text(due).await?;
        match notice_code(&text) {
            Some(_) => Err(self.unexpected(due, Event::Text(text))),
            None => Ok(text),
        }
    }

    /// Begins to close the connection with `code`.
    pub(super) async fn send_close(&mut self, code: u16) -> Result<(), Trouble> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::default() };
        self.send(Message::Close(Some(frame)), "room for a close").await
    }

    /// The relay's close frame, which must carry `code` and no reason, and the end of the connection after it.
    pub(super) async fn closed(&mut self, code: u16, due: &'static str) -> Result<(), Trouble> {
        let clock = self.clock;
        let limit = clock.deadlines.step;
        let close = async {
            loop {
                match self.event(due).await? {
                    Event::Closed(Some(frame))
                        if u16::from(frame.code) == code && frame.reason.is_empty() =>
                    {
                        return Ok(());
                    }
                    Event::Pong(_) => {}
                    other => {
                        let received = describe(other);
                        return Err(Trouble::Wrong {
                            due: format!("{due}, {code} without a reason"),
                            received,
                        });
                    }
                }
            }
        };
        clock.within(limit, due, close).await?;
        // This wait also carries the answer to the close out, if the relay was first. The server ends the TCP
        // connection; one that does not leaks it.
        let end = async {
            match self.event("the end of the connection").await {
                Ok(Event::Ended) | Err(Trouble::Lost { .. }) => Ok(()),
                Ok(other) => Err(self.unexpected("the end of the connection", other)),
                Err(trouble) => Err(trouble),
            }
        };
        clock.within(limit, "the end of the TCP connection after the close", end).await
    }

    /// What comes on this connection while nothing is due on it. Never ready as long as nothing does.
    pub(super) async fn intruder(&mut self) -> Trouble {
        const DUE: &str = "nothing";
        loop {
            match self.event(DUE).await {
                Ok(Event::Pong(_)) => {}
                Ok(other) => return self.unexpected(DUE, other),
                Err(trouble) => return trouble,
            }
        }
    }

    /// Why the relay closed this connection, of which a notice to the binary told with `code`. The notice may come
    /// first; the close has more to say.
    pub(super) async fn announced_close(&mut self, code: u16) -> Trouble {
        let clock = self.clock;
        let close = async { Err::<Infallible, _>(self.intruder().await) };
        let Err(own) = clock.within(clock.deadlines.step, "its close", close).await;
        match own {
            Trouble::Closed { .. } => own,
            instead => Trouble::OnlyNotice { code, size: self.size, instead: Box::new(instead) },
        }
    }

    async fn send(&mut self, message: Message, due: &'static str) -> Result<(), Trouble> {
        let clock = self.clock;
        let sending = async {
            let Err(error) = self.socket.send(message).await else {
                return Ok(());
            };
            let lost = self.lost(due, &error);
            // Whoever closes says why before the socket breaks: that says more than the broken socket.
            match self.event(due).await {
                Ok(close @ Event::Closed(_)) => Err(self.unexpected(due, close)),
                _ => Err(lost),
            }
        };
        clock.within(clock.deadlines.step, due, sending).await
    }

    async fn event(&mut self, due: &'static str) -> Result<Event, Trouble> {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => Ok(Event::Text(text)),
                Some(Ok(Message::Binary(bytes))) => Ok(Event::Binary(bytes)),
                Some(Ok(Message::Pong(bytes))) => Ok(Event::Pong(bytes)),
                Some(Ok(Message::Close(frame))) => Ok(Event::Closed(frame)),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Err(self.lost(due, &error)),
                None => Ok(Event::Ended),
            };
        }
    }

    fn lost(&self, due: &'static str, error: &WsError) -> Trouble {
        if matches!(error, WsError::Protocol(ProtocolError::ReceivedAfterClosing)) {
            // Not a lost connection: a relay sends one close frame, and it is the last thing it sends.
            let due = format!("nothing after the close on the {}'s connection", self.leg.who());
            return Trouble::Wrong { due, received: "another message".to_owned() };
        }
        let why = match error {
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => DROPPED.to_owned(),
            // An end of TCP that TLS did not announce.
            WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => DROPPED.to_owned(),
            WsError::Io(error) => io_text(error),
            WsError::Utf8(_) => "the relay sent text that is not UTF-8".to_owned(),
            WsError::Capacity(_) => {
                format!("the relay sent a message of more than {} bytes", max_message(self.size))
            }
            WsError::Protocol(error) => format!("the relay broke the WebSocket protocol ({error})"),
            other => other.to_string(),
        };
        Trouble::Lost { who: self.leg.who(), due, why }
    }

    fn unexpected(&self, due: &'static str, event: Event) -> Trouble {
        let who = self.leg.who();
        if let Event::Closed(frame) = &event {
            let (code, reason) = match frame {
                Some(frame) => (Some(u16::from(frame.code)), explain::first_line(&frame.reason)),
                None => (None, String::new()),
            };
            return Trouble::Closed { who, due, code, reason, size: self.size };
        }
        let notice = match &event {
            Event::Text(text) if self.leg == Leg::Binary => notice_code(text),
            _ => None,
        };
        let received = describe(event);
        match notice {
            Some(code) => Trouble::Notice { due, code, received },
            None => Trouble::Wrong { due: format!("{due} on the {who}'s connection"), received },
        }
    }
}

/// The largest message that is taken from the relay, if the probe's frames have `size` bytes.
fn max_message(size: usize) -> usize {
    size.saturating_add(BEYOND_FRAME)
}

/// What an event is, for a message.
fn describe(event: Event) -> String {
    match event {
        Event::Text(text) => format!("{} ({} bytes)", explain::shown(&text), text.len()),
        Event::Binary(bytes) => {
            format!("a binary message ({} bytes); the relay sends only text", bytes.len())
        }
        Event::Pong(_) => "a pong".to_owned(),
        Event::Closed(None) => "a close frame without a code".to_owned(),
        Event::Closed(Some(frame)) => {
            let code = u16::from(frame.code);
            match explain::first_line(&frame.reason).as_str() {
                "" => format!("a close with {code}"),
                reason => format!("a close with {code} \"{reason}\""),
            }
        }
        Event::Ended => "the end of the connection".to_owned(),
    }
}
