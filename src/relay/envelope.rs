//! The envelope around every frame on the binary's leg (PROTOCOL § 3).
//!
//! From a phone to its binary, [`check_frame`] makes sure that the message is one JSON value and [`wrap`] splices
//! it, byte for byte, between a prefix and a `}`. That check is all that stands between a hostile phone and a
//! forged envelope: text that is one complete value cannot end the object that is put around it.
//!
//! From a binary, [`unwrap`] reads an envelope in the relay's own form at once, and of any other walks the top-level object once. It takes each known key's value as a slice of the
//! message, unread, and looks into the slices after the walk; a frame is never looked into.
//!
//! The walk is `serde_json`'s and does not recurse (it keeps one byte per open bracket), so nesting costs no stack.
//! Three of its habits decide how it is used here. It checks UTF-8 only in what it returns, not in what it skips:
//! so the whole message is checked first. It refuses a lone surrogate (`"\ud800"`, which the grammar of JSON
//! allows) in what it unescapes: so keys, too, are taken as slices, and unescaped only if they hold a backslash.
//! And it reads strings as bytes without refusing control characters: so strings are never asked for as bytes.

mod close_code;
mod fields;
mod from_binary;
mod json;

use std::fmt;

use super::conn_id::ConnId;
use super::text::Text;

pub use close_code::{CloseCode, is_legal_close_code};
pub use from_binary::{FromBinary, Malformed, unwrap, unwrap_text};

const BEFORE_CONN_ID: &str = r#"{"conn_id":""#;
const BEFORE_FRAME: &str = r#"","frame":"#;
const BEFORE_CLOSE_CODE: &str = r#"","close_code":"#;
const END: &str = "}";

/// How many bytes [`wrap`] adds to a frame.
pub const WRAP_OVERHEAD: usize = BEFORE_CONN_ID.len() + ConnId::TEXT_LEN + BEFORE_FRAME.len() + END.len();

/// A phone's message is not exactly one JSON value in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("frame is not valid JSON")
    }
}

impl std::error::Error for NotJson {}

/// Checks that a phone's message is exactly one JSON value in UTF-8 and returns it as text, unchanged, with
/// whatever white space surrounds the value (PROTOCOL § 3).
///
/// The grammar is that of RFC 8259 and nothing but the grammar: a number that no machine type can hold and an
/// escaped lone surrogate are valid, and nesting may be as deep as the message is long.
///
/// # Errors
///
/// When the message is anything else: empty, not UTF-8, with a byte order mark, two values, something after the
/// value.
///
/// ```
/// use pyrycode_relay::relay::envelope::{NotJson, check_frame};
///
/// assert_eq!(check_frame(br#" {"v":2} "#), Ok(r#" {"v":2} "#));
/// assert_eq!(check_frame(br#"1,"conn_id":"c-0000000000000000""#), Err(NotJson));
/// ```
pub fn check_frame(message: &[u8]) -> Result<&str, NotJson> {
    check_frame_text(std::str::from_utf8(message).map_err(|_| NotJson)?)
}

/// [`check_frame`] for a message that is known to be UTF-8.
///
/// # Errors
///
/// As for [`check_frame`].
pub fn check_frame_text(message: &str) -> Result<&str, NotJson> {
    if json::is_one_value(message) { Ok(message) } else { Err(NotJson) }
}

/// Puts the envelope around a phone's frame: `{"conn_id":"c-…","frame":<frame>}` (PROTOCOL § 3).
///
/// `frame` must have passed [`check_frame`]; it is spliced in as it is.
///
/// ```
/// use pyrycode_relay::relay::{conn_id::ConnId, envelope::wrap};
///
/// let text = wrap(ConnId::from_u64(7), "[1, 2]");
/// assert_eq!(text.as_bytes(), br#"{"conn_id":"c-0000000000000007","frame":[1, 2]}"#);
/// ```
#[must_use]
pub fn wrap(conn_id: ConnId, frame: &str) -> Text {
    Text::new(WRAP_OVERHEAD + frame.len(), |out| {
        out.extend_from_slice(BEFORE_CONN_ID.as_bytes());
        conn_id.push_to(out);
        out.extend_from_slice(BEFORE_FRAME.as_bytes());
        out.extend_from_slice(frame.as_bytes());
        out.extend_from_slice(END.as_bytes());
    })
}

/// What a binary is told when one of its phones is gone: `{"conn_id":"c-…","close_code":N}` (PROTOCOL § 3).
#[must_use]
pub fn close_notice(conn_id: ConnId, code: u16) -> Text {
    format!("{BEFORE_CONN_ID}{conn_id}{BEFORE_CLOSE_CODE}{code}{END}").as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One JSON value each.
    const VALID: &[&str] = &[
        "0",
        "-0",
        "1e999",
        "-1.5E-400",
        "123456789012345678901234567890",
        "null",
        "true",
        "\"\"",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\u0000""#,
        "\"\u{7f}\u{2028}\u{feff}\"",
        "[]",
        "{}",
        " \t\r\n{ } \t\r\n",
        r#"{"a":1,"a":2}"#,
        r#"{"":{"":[[],{}]}}"#,
        r#"{"$serde_json::private::RawValue":"1"}"#,
    ];

    /// None of these is one JSON value.
    const INVALID: &[&[u8]] = &[
        b"",
        b" ",
        b"\xef\xbb\xbf1",
        b"1}",
        b"1,\"conn_id\":\"x\"",
        b"{}}{",
        b"\"a\",\"frame\":2",
        b"1 2",
        b"1\0",
        b"\0",
        b"\x0b1",
        b"\xc2\xa01",
        b"01",
        b"-",
        b"+1",
        b".5",
        b"1.",
        b"1e",
        b"0x1",
        b"NaN",
        b"Infinity",
        b"'a'",
        b"nul",
        b"True",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1}",
        b"[",
        b"]",
        b"{\"a\"}",
        b"{\"a\":1,}",
        b"{\"a\":}",
        b"{1:2}",
        b"{a:1}",
        b"1 // one",
        b"/* */1",
        b"\"\x01\"",
        b"\"\n\"",
        b"{\"\n\":1}",
        b"\"\\x\"",
        b"\"\\u12\"",
        b"\"\\u+123\"",
        b"\"\\\"",
        b"\"a",
        b"\"\xc0\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xff\"",
        b"{\"\xff\":1}",
    ];

    #[test]
    fn one_json_value_passes_unchanged() {
        for &text in VALID {
            assert_eq!(check_frame(text.as_bytes()), Ok(text), "{text:?}");
            assert_eq!(check_frame_text(text), Ok(text), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for &message in INVALID {
            assert_eq!(check_frame(message), Err(NotJson), "{}", message.escape_ascii());
            if let Ok(text) = std::str::from_utf8(message) {
                assert_eq!(check_frame_text(text), Err(NotJson), "{text:?}");
            }
        }
        assert_eq!(NotJson.to_string(), "frame is not valid JSON");
    }

    #[test]
    fn wrapping_splices() {
        let conn_id = ConnId::from_u64(0xab);
        let text = wrap(conn_id, " {\"v\" : 2.50 } ");
        assert_eq!(text.as_bytes(), br#"{"conn_id":"c-00000000000000ab","frame": {"v" : 2.50 } }"#);
        for frame in ["1", "\"\u{20ac}\"", "[[[]]]"] {
            let text = wrap(conn_id, frame);
            assert_eq!(text.len(), frame.len() + WRAP_OVERHEAD);
        }
    }

    #[test]
    fn a_close_notice_has_two_keys() {
        let conn_id = ConnId::from_u64(u64::MAX);
        for code in [1001, 4999] {
            let expected = format!(r#"{{"conn_id":"c-ffffffffffffffff","close_code":{code}}}"#);
            assert_eq!(close_notice(conn_id, code).as_bytes(), expected.as_bytes());
        }
    }
}
