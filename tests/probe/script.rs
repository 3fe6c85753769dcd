//! A relay as a script: it serves one binary and two phones in the order in which the probe makes its steps, and
//! strays from the protocol in at most one place.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{self, Message, WebSocket};

/// How many round trips the script serves.
pub(crate) const COUNT: u32 = 5;

/// Where a relay strays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    pub(crate) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The binary is closed 4409 after its upgrade.
    ClaimRefused,
    /// The phone is closed 4404 after its upgrade.
    PhoneRefused,
    /// The phone's frame is printed anew on its way to the binary.
    ReEncoded,
    /// One byte of the third frame to the phone is another.
    ByteChanged,
    /// The frame to the phone comes as a binary message.
    SentAsBinary,
    /// The `conn_id` is too short.
    ConnIdForm,
    /// The `conn_id` of the second frame is another.
    ConnIdChanges,
    /// The third frame never comes, and the binary's connection is closed instead.
    BinaryClosedMidway,
    /// The third frame never comes.
    Silence,
    /// The first frame is too big: the binary gets a notice of that, and the phone its close.
    TooBig,
    /// The binary gets that notice, and the phone is neither answered nor closed.
    NoticeAlone,
    /// The third answer is not delivered: the binary gets a notice, and the phone its close.
    AnswerFails,
    /// The phone is closed with another code than the binary asked for.
    DirectiveCode,
    /// The phone is closed with a reason.
    DirectiveReason,
    /// The binary gets a notice of the phone that it had closed itself.
    ExtraNotice,
    /// The phone gets a message after its close.
    SpeaksAfterClose,
    /// The TCP connection stays open after the close.
    KeptOpen,
    /// The binary gets no notice of the second phone.
    NoNotice,
    /// The notice carries another code.
    NoticeCode,
    /// The notice comes before the frame.
    NoticeFirst,
    /// Both phones have the same `conn_id`.
    ConnIdReused,
    /// The binary's close is answered with another code.
    GoodbyeCode,
}

/// The next connection, upgraded; it ends when this is dropped.
pub(crate) fn upgraded(listener: &TcpListener) -> WebSocket<TcpStream> {
    let mut conn = Conn::accept(listener).unwrap();
    // Read, so that the end is not a reset.
    assert!(conn.socket.read().unwrap().is_ping());
    conn.socket
}

struct Conn {
    socket: WebSocket<TcpStream>,
    path: String,
    headers: Vec<(String, String)>,
}

pub(crate) type Done<T> = Result<T, Box<tungstenite::Error>>;

fn boxed<T>(result: tungstenite::Result<T>) -> Done<T> {
    result.map_err(Box::new)
}

impl Conn {
    /// Takes the next connection through its upgrade.
    #[allow(clippy::result_large_err, reason = "the type of the callback is the library's")]
    fn accept(listener: &TcpListener) -> Done<Self> {
        let (stream, _) = boxed(listener.accept().map_err(Into::into))?;
        stream.set_nodelay(true).unwrap();
        let (mut path, mut headers) = (String::new(), Vec::new());
        let callback = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut path);
            for (name, value) in request.headers() {
                headers.push((name.to_string(), value.to_str().unwrap().to_owned()));
            }
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, callback)
            .map_err(|error| Box::new(std::io::Error::other(error.to_string()).into()))?;
        Ok(Self { socket, path, headers })
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    fn answer_ping(&mut self) -> Done<()> {
        assert!(boxed(self.socket.read())?.is_ping());
        boxed(self.socket.flush())
    }

    fn text(&mut self) -> Done<String> {
        Ok(boxed(self.socket.read())?.to_text().unwrap().to_owned())
    }

    fn send(&mut self, text: &str) -> Done<()> {
        boxed(self.socket.send(Message::text(text)))
    }

    fn close(&mut self, code: u16, reason: &str) -> Done<()> {
        boxed(self.socket.close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() })))?;
        self.until_end()
    }

    /// Sends what the library would not.
    fn raw(&mut self, bytes: &[u8]) -> Done<()> {
        self.socket.get_mut().write_all(bytes).map_err(|error| Box::new(error.into()))
    }

    /// Reads to the end of the closing handshake, answering where it must.
    fn until_end(&mut self) -> Done<()> {
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(Box::new(error)),
            }
        }
    }
}

/// What a binary's envelope holds: the frame, cut out of the text, and the code.
fn unwrapped(envelope: &str, id: &str) -> (String, Option<u16>) {
    let inner = envelope.strip_prefix(&format!(r#"{{"conn_id":"{id}","frame":"#)).unwrap();
    let inner = inner.strip_suffix('}').unwrap();
    match inner.rsplit_once(r#","close_code":"#) {
        Some((frame, code)) => (frame.to_owned(), Some(code.parse().unwrap())),
        None => (inner.to_owned(), None),
    }
}

fn wrapped(id: &str, frame: &str) -> String {
    format!(r#"{{"conn_id":"{id}","frame":{frame}}}"#)
}

impl Script {
    fn strays(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Plays the relay. The error of a probe that gave up is not the script's concern.
    pub(crate) fn play(self, listener: &TcpListener) -> Done<()> {
        let mut binary = Conn::accept(listener)?;
        assert_eq!(binary.path, "/v2/server");
        assert!(binary.header("x-pyrycode-version").unwrap().starts_with("probe/"));
        assert!(binary.header("user-agent").is_some());
        if self.strays(Fault::ClaimRefused) {
            return binary.close(4409, "server-id already claimed");
        }
        binary.answer_ping()?;

        let mut phone = Conn::accept(listener)?;
        assert_eq!(phone.path, "/v2/client");
        assert_eq!(phone.header("x-pyrycode-device-name"), Some("probe"));
        assert_eq!(phone.header("x-pyrycode-server"), binary.header("x-pyrycode-server"));
        if self.strays(Fault::PhoneRefused) {
            return phone.close(4404, "no server with that id");
        }
        phone.answer_ping()?;

        let first = if self.strays(Fault::ConnIdForm) { "c-0123" } else { "c-00000000000000a1" };
        for number in 0..COUNT {
            self.round_trip(number, first, &mut binary, &mut phone)?;
        }
        self.directive(first, &mut binary, phone)?;

        let second = if self.strays(Fault::ConnIdReused) { first } else { "c-00000000000000b2" };
        let mut phone = Conn::accept(listener)?;
        phone.answer_ping()?;
        let frame = phone.text()?;
        let code = if self.strays(Fault::NoticeCode) { 1001 } else { 4001 };
        let notice = format!(r#"{{"conn_id":"{second}","close_code":{code}}}"#);
        if self.strays(Fault::NoticeFirst) {
            binary.send(&notice)?;
        }
        binary.send(&wrapped(second, &frame))?;
        if !self.strays(Fault::NoNotice) && !self.strays(Fault::NoticeFirst) {
            binary.send(&notice)?;
        }
        phone.until_end()?;
        drop(phone);

        if self.strays(Fault::GoodbyeCode) {
            // The library has its answer ready, and would send it with the next call.
            assert!(boxed(binary.socket.read())?.is_close());
            return binary.raw(&[0x88, 2, 0x03, 0xe9]);
        }
        binary.until_end()
    }

    fn round_trip(self, number: u32, id: &str, binary: &mut Conn, phone: &mut Conn) -> Done<()> {
        let frame = phone.text()?;
        if number == 2 && self.strays(Fault::BinaryClosedMidway) {
            return binary.close(1011, "heartbeat timeout");
        }
        if number == 2 && self.strays(Fault::Silence) {
            return phone.until_end();
        }
        if self.strays(Fault::TooBig) || self.strays(Fault::NoticeAlone) {
            // The notice first, so that the probe is most likely to see it first.
            binary.send(&format!(r#"{{"conn_id":"{id}","close_code":1009}}"#))?;
            return match self.fault {
                Some(Fault::TooBig) => phone.close(1009, "message too big"),
                _ => phone.until_end(),
            };
        }
        let id = if number == 1 && self.strays(Fault::ConnIdChanges) { "c-00000000000000cc" } else { id };
        let frame = if self.strays(Fault::ReEncoded) {
            serde_json::from_str::<serde_json::Value>(&frame).unwrap().to_string()
        } else {
            frame
        };
        binary.send(&wrapped(id, &frame))?;
        let (frame, code) = unwrapped(&binary.text()?, id);
        assert_eq!(code, None);
        if number == 2 && self.strays(Fault::AnswerFails) {
            binary.send(&format!(r#"{{"conn_id":"{id}","close_code":1011}}"#))?;
            return phone.close(1011, "phone write failed");
        }
        if self.strays(Fault::SentAsBinary) {
            return boxed(phone.socket.send(Message::binary(frame.into_bytes())));
        }
        let changed = number == 2 && self.strays(Fault::ByteChanged);
        phone.send(&if changed { frame.replace("\"to\":\"p\"", "\"to\":\"q\"") } else { frame })
    }

    fn directive(self, id: &str, binary: &mut Conn, mut phone: Conn) -> Done<()> {
        let (frame, code) = unwrapped(&binary.text()?, id);
        phone.send(&frame)?;
        let code = if self.strays(Fault::DirectiveCode) { 1000 } else { code.unwrap() };
        if self.strays(Fault::SpeaksAfterClose) {
            // A close with 4999, then the text message "1".
            return phone.raw(&[0x88, 2, 0x13, 0x87, 0x81, 1, b'1']);
        }
        phone.close(code, if self.strays(Fault::DirectiveReason) { "bye" } else { "" })?;
        if self.strays(Fault::KeptOpen) {
            return binary.until_end();
        }
        if self.strays(Fault::ExtraNotice) {
            binary.send(&format!(r#"{{"conn_id":"{id}","close_code":{code}}}"#))?;
        }
        Ok(())
    }
}
