//! Generated messages for the tests of the routing envelope: JSON values of every shape, envelopes of known and
//! unknown members, and damaged copies of both.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use pyrycode_relay::relay::conn_id::ConnId;

/// White space of JSON, mostly none.
fn white_space() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

fn number() -> impl Strategy<Value = String> {
    r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,4})?"
}

/// A JSON string with everything that one can hold: plain text of any script, escapes, lone surrogates.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => r#"[^\x00-\x1f"\\]{1,4}"#,
        1 => r#"\\["\\/bfnrt]"#,
        1 => r"\\u[0-9a-fA-F]{4}",
        1 => r"\\u[dD][89a-fA-F][0-9a-f]{2}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// Any JSON value, with white space wherever it may be.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![select(vec!["null", "true", "false"]).prop_map(str::to_owned), number(), string()];
    let padded = (white_space(), leaf, white_space()).prop_map(|(a, leaf, b)| a + &leaf + &b);
    padded.prop_recursive(5, 24, 4, |inner| {
        let member = (white_space(), string(), white_space(), inner.clone())
            .prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        let list = |item: BoxedStrategy<String>, open: &'static str, close: &'static str| {
            (white_space(), prop::collection::vec(item, 0..4), white_space(), white_space()).prop_map(
                move |(a, items, b, c)| {
                    let inside = if items.is_empty() { b } else { items.join(",") };
                    format!("{a}{open}{inside}{close}{c}")
                },
            )
        };
        prop_oneof![list(inner.boxed(), "[", "]"), list(member.boxed(), "{", "}")]
    })
}

/// A message from a binary, made of known and unknown keys in any order and number, with values that are mostly of
/// the right kind.
pub(crate) fn envelope() -> impl Strategy<Value = String> {
    let conn_id = prop_oneof![
        8 => any::<u64>().prop_map(|number| format!("\"{}\"", ConnId::from_u64(number))),
        1 => Just(r#""\u0063-\u0030123456789abcdef""#.to_owned()),
        2 => select(vec!["null", r#""""#, r#""c-""#, r#""c-0123456789ABCDEF""#, r#""\ud800""#, "0", "[]"])
            .prop_map(str::to_owned),
        1 => string(),
    ];
    let close_code = prop_oneof![
        4 => (900_u16..5100).prop_map(|code| code.to_string()),
        2 => Just("0".to_owned()),
        1 => select(vec!["1004", "1005", "1006", "1015", "null", "-0", "4401.0", "4.4e3", "\"4401\"", "69937"])
            .prop_map(str::to_owned),
        1 => number(),
    ];
    let wake_key = select(vec!["platform", "token", r"\u0070latform", "other"]);
    let wake_value = prop_oneof![6 => string().boxed(), 1 => json().boxed()];
    let wake_members = prop::collection::vec((wake_key, wake_value), 0..4);
    let push_wake = prop_oneof![
        4 => (string(), string(), any::<bool>()).prop_map(|(a, b, swap)| {
            let (first, second) = if swap { ("token", "platform") } else { ("platform", "token") };
            format!(r#"{{"{first}":{a},"{second}":{b}}}"#)
        }),
        2 => wake_members.prop_map(|members| object(members.into_iter())),
        1 => json(),
    ];
    let pair = |key: &'static str, value: BoxedStrategy<String>| value.prop_map(move |value| (key, value));
    let (conn_id, close_code, push_wake) = (conn_id.boxed(), close_code.boxed(), push_wake.boxed());
    let known = (
        prop::option::weighted(0.7, pair("conn_id", conn_id.clone())),
        prop::option::weighted(0.7, pair("frame", json().boxed())),
        prop::option::weighted(0.3, pair("close_code", close_code.clone())),
        prop::option::weighted(0.4, pair("push_wake", push_wake.clone())),
    );
    let extra = prop_oneof![
        1 => pair("conn_id", conn_id),
        1 => pair("frame", json().boxed()),
        1 => pair(r"\u0066ram\u0065", json().boxed()),
        1 => pair("close_code", close_code),
        1 => pair("push_wake", push_wake),
        3 => (select(vec!["conn_id", "frame", "close_code", "push_wake"]), Just("null".to_owned())),
        6 => (select(vec!["x", "", "Frame", "frame ", r"\ud800", "conn_id\\u0000"]), json()),
    ];
    let extra = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(extra, 1..3)];
    let members = (known, extra).prop_map(|((a, b, c, d), extra)| {
        let mut members: Vec<_> = [a, b, c, d].into_iter().flatten().collect();
        members.extend(extra);
        members
    });
    let text = members.prop_shuffle().prop_map(|members| object(members.into_iter()));
    (white_space(), text, white_space()).prop_map(|(a, text, b)| a + &text + &b)
}

fn object<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    let members: Vec<_> = members.map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A byte that matters to JSON or UTF-8, or any byte.
fn byte() -> impl Strategy<Value = u8> {
    let telling =
        b"{}[]\",:\\/ \t\n\r\0\x1f\x7f-+.eE0123459utfnabcr_\xef\xbb\xbf\xc0\xc3\xa9\xed\xa0\x80\xff";
    prop_oneof![4 => select(telling.to_vec()), 1 => any::<u8>()]
}

/// Bytes that a failed test shows as text.
pub(crate) struct Bytes(Vec<u8>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Fewer than `limit` bytes, of no sense.
pub(crate) fn noise(limit: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(byte(), 0..limit).prop_map(Bytes)
}

/// The message after a few random edits.
pub(crate) fn mutated(message: impl Strategy<Value = String>) -> impl Strategy<Value = Bytes> {
    let edit = (0..4_u8, any::<Index>(), any::<Index>(), byte());
    (message, prop::collection::vec(edit, 1..4)).prop_map(|(message, edits)| {
        let mut message = message.into_bytes();
        for (kind, first, second, byte) in edits {
            if message.is_empty() || kind == 0 {
                message.insert(first.index(message.len() + 1), byte);
                continue;
            }
            let (at, other) = (first.index(message.len()), second.index(message.len()));
            let (from, to) = (at.min(other), at.max(other));
            match kind {
                1 => drop(message.remove(at)),
                2 => drop(message.splice(at..=at, [byte])),
                _ => drop(message.splice(from..from, message[from..to].to_vec())),
            }
        }
        Bytes(message)
    })
}
