//! What a binary's message asks for: [`unwrap`] and what it returns.
//!
//! A message in the form that the relay itself writes is read at once. Any other takes two steps. The walk over the top-level object yields, for each known key, its value as a slice
//! of the message; unknown values are skipped. Then the slices are judged: their meaning is in their text, so that
//! `4401.0` is not 4401 and `null` is not absent unless a rule says so. Nothing is allocated unless a known string
//! holds an escape or brackets are nested.

use std::borrow::Cow;
use std::fmt;

use super::close_code::CloseCode;
use super::fields::{Fields, unquote};
use super::{BEFORE_CONN_ID, BEFORE_FRAME, END, check_frame_text};
use crate::relay::conn_id::ConnId;

/// What a binary asks for with one message (PROTOCOL § 3).
///
/// A `conn_id` of `None` is an address that no phone can have, because it is not in the form of a [`ConnId`]:
/// to be handled as one that no phone happens to have.
#[derive(Clone, PartialEq, Eq)]
pub enum FromBinary<'a> {
    /// Deliver a frame to a phone and, with a close code, close the phone after it.
    Deliver {
        /// Which phone.
        conn_id: Option<ConnId>,
        /// The frame, byte for byte.
        frame: &'a str,
        /// The code to close the phone with once the frame is delivered.
        close_code: Option<CloseCode>,
    },
    /// Close a phone.
    CloseOnly {
        /// Which phone.
        conn_id: Option<ConnId>,
        /// The code to close it with.
        close_code: CloseCode,
    },
    /// Wake a phone that is not connected.
    PushWake {
        /// The push service's name.
        platform: Cow<'a, str>,
        /// What the push service knows the phone by.
        token: Cow<'a, str>,
    },
}

/// Says nothing of the frame and the token: neither may reach a log (PROTOCOL § 7).
impl fmt::Debug for FromBinary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver { conn_id, frame, close_code } => f
                .debug_struct("Deliver")
                .field("conn_id", conn_id)
                .field("frame_bytes", &frame.len())
                .field("close_code", close_code)
                .finish(),
            Self::CloseOnly { conn_id, close_code } => {
                f.debug_struct("CloseOnly").field("conn_id", conn_id).field("close_code", close_code).finish()
            }
            Self::PushWake { .. } => f.debug_struct("PushWake").finish_non_exhaustive(),
        }
    }
}

/// Why a binary's message is not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// Not UTF-8, be it in a part that would be ignored.
    NotUtf8,
    /// Not one complete JSON value.
    NotJson,
    /// A JSON value, but no object.
    NotAnObject,
    /// One of the known keys occurs twice.
    DuplicateKey,
    /// `conn_id` is neither a string nor null.
    ConnIdNotAString,
    /// `conn_id` is absent, null or empty, and there is no `push_wake`.
    NoConnId,
    /// `close_code` is neither 0 nor a legal close code, written as an integer.
    BadCloseCode,
    /// `frame` is absent or null, and there is no close code.
    NoFrame,
    /// `push_wake` is not an object with one string `platform` and one string `token`.
    BadPushWake,
}

impl Malformed {
    /// A fixed text for the log, which never repeats anything of the message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not UTF-8",
            Self::NotJson => "not valid JSON",
            Self::NotAnObject => "not a JSON object",
            Self::DuplicateKey => "a key occurs twice",
            Self::ConnIdNotAString => "conn_id is not a string",
            Self::NoConnId => "no conn_id",
            Self::BadCloseCode => "close_code is not allowed",
            Self::NoFrame => "no frame and no close_code",
            Self::BadPushWake => "push_wake is not valid",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Malformed {}

/// Reads a binary's message (PROTOCOL § 3). What it returns borrows from the message.
///
/// Unknown fields are ignored, whatever they hold; a known one that occurs twice is refused, because two readers
/// could understand it differently. `push_wake` is an unknown field when the message names a phone, except that
/// it may not occur twice either.
///
/// # Errors
///
/// When the message is not an envelope: the cause, for the log. The binary keeps its connection.
///
/// ```
/// use pyrycode_relay::relay::{conn_id::ConnId, envelope::{FromBinary, Malformed, unwrap}};
///
/// let message = br#"{"conn_id":"c-0000000000000007","frame":[1, 2]}"#;
/// let expected =
///     FromBinary::Deliver { conn_id: Some(ConnId::from_u64(7)), frame: "[1, 2]", close_code: None };
/// assert_eq!(unwrap(message), Ok(expected));
/// assert_eq!(unwrap(br#"{"frame":[1, 2]}"#), Err(Malformed::NoConnId));
/// ```
pub fn unwrap(message: &[u8]) -> Result<FromBinary<'_>, Malformed> {
    unwrap_text(std::str::from_utf8(message).map_err(|_| Malformed::NotUtf8)?)
}

/// [`unwrap`] for a message that is known to be UTF-8.
///
/// # Errors
///
/// As for [`unwrap`].
pub fn unwrap_text(message: &str) -> Result<FromBinary<'_>, Malformed> {
    if let Some(plain) = unwrap_plain(message) {
        return Ok(plain);
    }
    let fields = Fields::read(message, ["conn_id", "frame", "close_code", "push_wake"]).map_err(|_| {
        // Not what the walk says: it looks at a value that is no object only as far as it has to, and then more
        // closely than the grammar does (`1e999`).
        if check_frame_text(message).is_ok() { Malformed::NotAnObject } else { Malformed::NotJson }
    })?;
    if fields.duplicate {
        return Err(Malformed::DuplicateKey);
    }
    let [conn_id, frame, close_code, push_wake] = fields.values;

    let close_code = match close_code {
        Some(raw) => CloseCode::parse(raw)?,
        None => None,
    };
    // Outer `None`: the message names no phone. Inner `None`: it names one that cannot exist.
    let conn_id = match conn_id {
        None | Some("null" | "\"\"") => None,
        Some(raw) if raw.starts_with('"') => Some(unquote(raw).as_deref().and_then(ConnId::parse)),
        Some(_) => return Err(Malformed::ConnIdNotAString),
    };
    let frame = frame.filter(|&raw| raw != "null");

    match (conn_id, frame, close_code) {
        (Some(conn_id), Some(frame), close_code) => Ok(FromBinary::Deliver { conn_id, frame, close_code }),
        (Some(conn_id), None, Some(close_code)) => Ok(FromBinary::CloseOnly { conn_id, close_code }),
        (Some(_), None, None) => Err(Malformed::NoFrame),
        (None, ..) => parse_push_wake(push_wake.ok_or(Malformed::NoConnId)?),
    }
}

/// Reads a message in the form in which [`super::wrap`] writes one: just these two keys, in this order, without white space or escapes.
/// Between the prefix and the last `}` must be one JSON value, so that it cannot be anything else. `None`: it may have another form.
fn unwrap_plain(message: &str) -> Option<FromBinary<'_>> {
    let (conn_id, rest) = message.strip_prefix(BEFORE_CONN_ID)?.split_at_checked(ConnId::TEXT_LEN)?;
    let frame = rest.strip_prefix(BEFORE_FRAME)?.strip_suffix(END)?;
    let conn_id = ConnId::parse(conn_id)?;
    // White space around a value is not part of it, and null is no frame.
    let is_bare = frame.trim_matches([' ', '\t', '\r', '\n']).len() == frame.len();
    (is_bare && frame != "null" && check_frame_text(frame).is_ok()).then_some(FromBinary::Deliver {
        conn_id: Some(conn_id),
        frame,
        close_code: None,
    })
}

/// The meaning of a `push_wake`, unread so far.
fn parse_push_wake(raw: &str) -> Result<FromBinary<'_>, Malformed> {
    let fields = Fields::read(raw, ["platform", "token"]).map_err(|_| Malformed::BadPushWake)?;
    match fields.values {
        [Some(platform), Some(token)] if !fields.duplicate => Ok(FromBinary::PushWake {
            platform: unquote(platform).ok_or(Malformed::BadPushWake)?,
            token: unquote(token).ok_or(Malformed::BadPushWake)?,
        }),
        _ => Err(Malformed::BadPushWake),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: &str = "c-00000000000000ab";

    /// The message with `@` for a `conn_id` that a phone may have.
    fn read(template: &str) -> (String, Option<ConnId>) {
        (template.replace('@', PHONE), ConnId::parse(PHONE))
    }

    #[test]
    fn a_frame_is_delivered_byte_for_byte() {
        for (template, frame, code) in [
            (r#"{"conn_id":"@","frame":1}"#, "1", None),
            (r#" { "frame" : [ 1 , 2.0 ] , "conn_id" : "@" } "#, "[ 1 , 2.0 ]", None),
            (r#"{"conn_id":"@","frame":"\ud800","close_code":0}"#, r#""\ud800""#, None),
            (r#"{"conn_id":"@","frame":{"a":1,"a":2},"close_code":4401}"#, r#"{"a":1,"a":2}"#, Some(4401)),
            (r#"{"close_code":1000,"frame":"","conn_id":"@"}"#, r#""""#, Some(1000)),
            (r#"{"conn_id":"@","frame":false,"push_wake":7}"#, "false", None),
            (r#"{"conn_id":"@","frame":1,"x":{},"x":[],"\ud800":null,"":0}"#, "1", None),
            (r#"{"conn_id":"@","frame":1,"$serde_json::private::RawValue":"2"}"#, "1", None),
            (r#"{"conn\u005fid":"\u0063-00000000000000ab","\u0066rame":1}"#, "1", None),
        ] {
            let (message, conn_id) = read(template);
            assert!(conn_id.is_some());
            let close_code = code.map(|code| CloseCode::new(code).unwrap());
            let expected = Ok(FromBinary::Deliver { conn_id, frame, close_code });
            assert_eq!(unwrap(message.as_bytes()), expected, "{message}");
            assert_eq!(unwrap_text(&message), expected, "{message}");
        }
    }

    #[test]
    fn a_close_code_alone_closes() {
        for template in [
            r#"{"conn_id":"@","close_code":4401}"#,
            r#"{"conn_id":"@","close_code":4401,"frame":null,"push_wake":null}"#,
        ] {
            let (message, conn_id) = read(template);
            let close_code = CloseCode::new(4401).unwrap();
            assert_eq!(unwrap_text(&message), Ok(FromBinary::CloseOnly { conn_id, close_code }));
            assert_eq!(close_code.get(), 4401);
        }
    }

    #[test]
    fn an_address_that_no_phone_can_have_is_unknown_and_not_malformed() {
        for conn_id in ["x", " ", "null", "C-00000000000000ab", "c-00000000000000AB", r"\ud800", "\u{e9}"] {
            let message = format!(r#"{{"conn_id":"{conn_id}","frame":1,"push_wake":{{}}}}"#);
            let expected = Ok(FromBinary::Deliver { conn_id: None, frame: "1", close_code: None });
            assert_eq!(unwrap_text(&message), expected, "{message}");
            let message = format!(r#"{{"conn_id":"{conn_id}"}}"#);
            assert_eq!(unwrap_text(&message), Err(Malformed::NoFrame), "{message}");
        }
    }

    #[test]
    fn a_push_wake_needs_no_phone() {
        for rest in [
            "",
            r#","conn_id":null"#,
            r#","conn_id":"""#,
            r#","frame":[1],"close_code":4401"#,
            r#","frame":null,"close_code":0,"other":1"#,
        ] {
            let message = format!(r#"{{"push_wake":{{"token":"a\"b","x":1,"x":2,"platform":"fcm"}}{rest}}}"#);
            let expected = FromBinary::PushWake { platform: "fcm".into(), token: "a\"b".into() };
            let asked = unwrap_text(&message);
            assert_eq!(asked, Ok(expected), "{message}");
            // The token must not reach a log.
            assert_eq!(format!("{asked:?}"), "Ok(PushWake { .. })");
        }
        let borrowed = unwrap(br#"{"push_wake":{"platform":"fcm","token":"t"}}"#);
        assert!(matches!(
            borrowed,
            Ok(FromBinary::PushWake { platform: Cow::Borrowed(_), token: Cow::Borrowed(_) })
        ));
    }

    #[test]
    fn every_fault_has_its_cause() {
        for (template, cause) in [
            ("", Malformed::NotJson),
            ("{", Malformed::NotJson),
            ("\u{feff}{}", Malformed::NotJson),
            (r#"{"conn_id":"@","frame":1}}"#, Malformed::NotJson),
            (r#"{"conn_id":"@","frame":1} 2"#, Malformed::NotJson),
            (r#"{"conn_id":"@","frame":01}"#, Malformed::NotJson),
            (r#"{"conn_id":"@","frame":1,}"#, Malformed::NotJson),
            ("{\"conn_id\":\"@\",\"frame\":1,\"a\nb\":1}", Malformed::NotJson),
            (r#"{"frame":1,"frame":2,"#, Malformed::NotJson),
            (r#"["@",1]"#, Malformed::NotAnObject),
            ("null", Malformed::NotAnObject),
            ("7", Malformed::NotAnObject),
            (r#""@""#, Malformed::NotAnObject),
            ("1e999", Malformed::NotAnObject),
            (r#""\ud800""#, Malformed::NotAnObject),
            ("null,", Malformed::NotJson),
            ("[1", Malformed::NotJson),
            (r#"{"conn_id":"@","frame":1,"frame":1}"#, Malformed::DuplicateKey),
            (r#"{"conn_id":"@","frame":1,"\u0066rame":null}"#, Malformed::DuplicateKey),
            (r#"{"conn_id":null,"conn_id":"@","frame":1}"#, Malformed::DuplicateKey),
            (r#"{"conn_id":"@","close_code":0,"close_code":0,"frame":1}"#, Malformed::DuplicateKey),
            (r#"{"conn_id":"@","frame":1,"push_wake":1,"push_wake":1}"#, Malformed::DuplicateKey),
            (r#"{"conn_id":7,"frame":1}"#, Malformed::ConnIdNotAString),
            (r#"{"conn_id":["@"],"frame":1}"#, Malformed::ConnIdNotAString),
            (r#"{"conn_id":false,"push_wake":{"platform":"a","token":"b"}}"#, Malformed::ConnIdNotAString),
            ("{}", Malformed::NoConnId),
            (r#"{"frame":1,"close_code":4401}"#, Malformed::NoConnId),
            (r#"{"conn_id":null,"frame":1}"#, Malformed::NoConnId),
            (r#"{"conn_id":"","frame":1}"#, Malformed::NoConnId),
            (r#"{"conn_id":"@"}"#, Malformed::NoFrame),
            (r#"{"conn_id":"@","frame":null,"close_code":0}"#, Malformed::NoFrame),
            (r#"{"push_wake":null}"#, Malformed::BadPushWake),
            (r#"{"push_wake":["fcm","t"]}"#, Malformed::BadPushWake),
            (r#"{"push_wake":{"platform":"fcm"}}"#, Malformed::BadPushWake),
            (r#"{"push_wake":{"platform":"fcm","token":null}}"#, Malformed::BadPushWake),
            (r#"{"push_wake":{"platform":"fcm","token":"\ud800"}}"#, Malformed::BadPushWake),
            (r#"{"push_wake":{"platform":"fcm","token":"t","token":"t"}}"#, Malformed::BadPushWake),
            (r#"{"push_wake":{"platform":"fcm","token":"t"},"close_code":1}"#, Malformed::BadCloseCode),
        ] {
            let (message, _) = read(template);
            assert_eq!(unwrap_text(&message), Err(cause), "{message}");
            assert_eq!(cause.to_string(), cause.as_str());
        }
        for message in [&b"\xff"[..], b"{\"x\":\"\xed\xa0\x80\"}", b"{\"\xc0\xaf\":1}"] {
            assert_eq!(unwrap(message), Err(Malformed::NotUtf8), "{}", message.escape_ascii());
        }
    }
}
