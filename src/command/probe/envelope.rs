//! What the relay sends to the binary: envelopes around a phone's frames, and notices of a phone that is gone.

use serde::Deserialize;

use super::explain::{self, Trouble, must_equal};

/// A frame as the binary must get it, and as it must send it.
pub(super) fn wrapped(id: &str, frame: &str) -> String {
    format!(r#"{{"conn_id":"{id}","frame":{frame}}}"#)
}

/// The envelope must be `frame` in the envelope of `id`.
pub(super) fn must_wrap(due: &'static str, id: &str, frame: &str, envelope: &str) -> Result<(), Trouble> {
    let after = [r#"{"conn_id":""#, id, r#"","frame":"#, frame]
        .into_iter()
        .try_fold(envelope, |rest, part| rest.strip_prefix(part));
    // What it must be is only put together where it is to be shown: it may be large.
    if after == Some("}") { Ok(()) } else { must_equal(due, &wrapped(id, frame), envelope) }
}

#[derive(Deserialize)]
struct Addressed {
    conn_id: String,
}

/// The `conn_id` of an envelope, if it has the form that the protocol gives it.
pub(super) fn conn_id(due: &'static str, envelope: &str) -> Result<String, Trouble> {
    let wrong = |what: &str| Trouble::Wrong {
        due: format!("{due} with a conn_id of c- and 16 hex digits"),
        received: format!("{what}: {}", explain::shown(envelope)),
    };
    let Ok(Addressed { conn_id }) = serde_json::from_str(envelope) else {
        return Err(wrong("no JSON object with a conn_id"));
    };
    let digits = conn_id.strip_prefix("c-").unwrap_or_default();
    if digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(conn_id)
    } else {
        Err(wrong("another form"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice {
    #[serde(rename = "conn_id")]
    _conn_id: String,
    close_code: u16,
}

/// The code of a close notice; nothing if the text is something else. An envelope is told apart by the name of its
/// second member, so that the frame in it is not parsed.
pub(super) fn notice_code(text: &str) -> Option<u16> {
    serde_json::from_str(text).ok().map(|Notice { close_code, .. }| close_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "c-0123456789abcdef";

    #[test]
    fn a_conn_id_has_one_form() {
        assert_eq!(conn_id("it", &wrapped(ID, "1")).unwrap(), ID);
        for bad in ["c-0123456789abcde", "0123456789abcdef", "c-0123456789abcdeg", "c-0123456789abcdef0", ""]
        {
            let text = conn_id("it", &wrapped(bad, "1")).unwrap_err().to_string();
            assert!(text.contains("c- and 16 hex digits"), "{text}");
        }
        assert!(conn_id("it", "[]").unwrap_err().to_string().contains("no JSON object with a conn_id"));
    }

    #[test]
    fn an_envelope_is_compared_byte_for_byte() {
        assert!(must_wrap("it", ID, r#"{ "a":1}"#, &wrapped(ID, r#"{ "a":1}"#)).is_ok());
        assert!(must_wrap("it", ID, "1", &wrapped(ID, "1")).is_ok());
        for other in [
            wrapped(ID, r#"{"a":1}"#),
            wrapped("c-0123456789abcdee", r#"{ "a":1}"#),
            format!("{} ", wrapped(ID, r#"{ "a":1}"#)),
            wrapped(ID, r#"{ "a":1},"close_code":1000"#),
            String::new(),
        ] {
            let text = must_wrap("it", ID, r#"{ "a":1}"#, &other).unwrap_err().to_string();
            assert!(text.contains("byte for byte"), "{other}: {text}");
        }
    }

    #[test]
    fn a_notice_is_a_conn_id_and_a_code_and_nothing_else() {
        assert_eq!(notice_code(&format!(r#"{{"conn_id":"{ID}","close_code":1009}}"#)), Some(1009));
        for other in [
            wrapped(ID, "1"),
            format!(r#"{{"conn_id":"{ID}","frame":1,"close_code":1009}}"#),
            format!(r#"{{"conn_id":"{ID}"}}"#),
            format!(r#"{{"conn_id":"{ID}","close_code":65536}}"#),
            r#"{"close_code":1009}"#.to_owned(),
            "1009".to_owned(),
        ] {
            assert_eq!(notice_code(&other), None, "{other}");
        }
    }
}
