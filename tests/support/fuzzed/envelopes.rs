//! What must hold of the routing envelope, whatever the message (PROTOCOL § 3).

use pyrycode_relay::relay::conn_id::ConnId;
use pyrycode_relay::relay::envelope::{
    CloseCode, FromBinary, Malformed, NotJson, WRAP_OVERHEAD, check_frame, check_frame_text,
    is_legal_close_code, unwrap, unwrap_text, wrap,
};

use crate::reference_json::{self, Meaning};

/// Reads a message as a phone's and as a binary's, and checks everything. Returns what it is, in a few words.
pub(crate) fn read(message: &[u8]) -> String {
    let frame = read_frame(message);
    format!("{frame}, {}", read_envelope(message))
}

fn read_frame(message: &[u8]) -> &'static str {
    // Another reader that accepts less: no lone surrogates, no deep nesting, no number beyond its types.
    let is_plain = serde_json::from_slice::<serde_json::Value>(message).is_ok();
    let Some(value) = reference_json::parse(message) else {
        assert_eq!(check_frame(message), Err(NotJson));
        assert!(!is_plain);
        return "no frame";
    };
    let text = std::str::from_utf8(message).unwrap_or_default();
    assert_eq!(check_frame(message), Ok(text));
    assert_eq!(check_frame_text(text), Ok(text));

    let conn_id = ConnId::from_u64(0x0123_4567_89ab_cdef);
    let wrapped = wrap(conn_id, text);
    assert_eq!(wrapped.len(), text.len() + WRAP_OVERHEAD);
    let expected = format!(r#"{{"conn_id":"c-0123456789abcdef","frame":{text}}}"#);
    assert_eq!(wrapped.as_bytes(), expected.as_bytes());
    let members = reference_json::members(wrapped.as_bytes());
    let wanted = [("conn_id".to_owned(), format!("\"{conn_id}\"")), ("frame".to_owned(), value.raw.clone())];
    assert_eq!(members.as_deref(), Some(&wanted[..]));
    let expected = if value.raw == "null" {
        Err(Malformed::NoFrame)
    } else {
        Ok(FromBinary::Deliver { conn_id: Some(conn_id), frame: &value.raw, close_code: None })
    };
    assert_eq!(unwrap(wrapped.as_bytes()), expected);
    if is_plain {
        let wrapped: serde_json::Value = serde_json::from_slice(wrapped.as_bytes()).unwrap_or_default();
        assert_eq!(Some(&wrapped["frame"]), serde_json::from_slice(message).ok().as_ref());
    }
    "a frame"
}

fn read_envelope(message: &[u8]) -> String {
    let ours = unwrap(message);
    if let Ok(text) = std::str::from_utf8(message) {
        assert_eq!(unwrap_text(text), ours);
    } else {
        assert_eq!(ours, Err(Malformed::NotUtf8));
    }
    if let Ok(FromBinary::Deliver { frame, .. }) = ours {
        assert_eq!(check_frame_text(frame), Ok(frame));
        assert!(frame != "null" && frame.trim() == frame);
        let inside = message.as_ptr_range();
        assert!(inside.contains(&frame.as_ptr()), "the frame is not a part of the message");
    }
    let legal = |code: Option<CloseCode>| code.is_none_or(|code| is_legal_close_code(code.get()));
    let named = |conn_id: Option<ConnId>| conn_id.map(|conn_id| conn_id.to_string());
    let (words, meaning) = match ours {
        Ok(FromBinary::Deliver { conn_id, frame, close_code }) => {
            assert!(legal(close_code));
            let words = match (conn_id, close_code) {
                (Some(_), None) => "delivers",
                (Some(_), Some(_)) => "delivers and closes",
                (None, _) => "delivers to nobody",
            };
            let close_code = close_code.map(CloseCode::get);
            (words, Some(Meaning::Deliver { conn_id: named(conn_id), frame: frame.to_owned(), close_code }))
        }
        Ok(FromBinary::CloseOnly { conn_id, close_code }) => {
            assert!(legal(Some(close_code)));
            let words = if conn_id.is_some() { "closes" } else { "closes nobody" };
            (words, Some(Meaning::Close { conn_id: named(conn_id), close_code: close_code.get() }))
        }
        Ok(FromBinary::PushWake { platform, token }) => {
            let meaning = Meaning::Wake { platform: platform.into_owned(), token: token.into_owned() };
            ("wakes", Some(meaning))
        }
        Err(cause) => {
            let value = reference_json::parse(message).map(|node| node.value);
            let is_object = matches!(value, Some(reference_json::Value::Object(_)));
            match cause {
                Malformed::NotUtf8 | Malformed::NotJson => assert!(value.is_none()),
                Malformed::NotAnObject => assert!(value.is_some() && !is_object),
                _ => assert!(is_object),
            }
            (cause.as_str(), None)
        }
    };
    assert_eq!(meaning, reference_json::meaning(message));
    words.to_owned()
}
