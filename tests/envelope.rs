//! The routing envelope (PROTOCOL § 3) against an independent reading of the same rules, on generated input.

use std::cell::Cell;
use std::fmt::Debug;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseResult, TestRunner};
use pyrycode_relay::relay::conn_id::ConnId;
use pyrycode_relay::relay::envelope::{
    CloseCode, FromBinary, Malformed, NotJson, WRAP_OVERHEAD, check_frame, check_frame_text, unwrap,
    unwrap_text, wrap,
};

#[path = "support/generated_json.rs"]
mod generated_json;
#[path = "support/reference_json.rs"]
mod reference_json;

use generated_json::{envelope, json, mutated, noise};
use reference_json::Meaning;

/// Cases per property, unless `PROPTEST_CASES` asks for more.
const CASES: u32 = 3000;

/// Runs a property on generated input. The seed of a failure is added to `tests/envelope.proptest-regressions`,
/// which belongs under version control: every later run tries it first.
fn check<S: Strategy>(strategy: S, property: impl Fn(S::Value) -> TestCaseResult) -> Result<(), String>
where
    S::Value: Debug,
{
    let default = Config::default();
    let mut runner = TestRunner::new(Config {
        cases: default.cases.max(CASES),
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..default
    });
    runner.run(&strategy, property).map_err(|error| error.to_string())
}

/// Ours, in the reference's words.
fn meaning(message: &[u8]) -> Option<Meaning> {
    let text = |conn_id: Option<ConnId>| conn_id.map(|id| id.to_string());
    Some(match unwrap(message).ok()? {
        FromBinary::Deliver { conn_id, frame, close_code } => Meaning::Deliver {
            conn_id: text(conn_id),
            frame: frame.to_owned(),
            close_code: close_code.map(CloseCode::get),
        },
        FromBinary::CloseOnly { conn_id, close_code } => {
            Meaning::Close { conn_id: text(conn_id), close_code: close_code.get() }
        }
        FromBinary::PushWake { platform, token } => {
            Meaning::Wake { platform: platform.into_owned(), token: token.into_owned() }
        }
    })
}

/// What holds for a phone's message, whatever it is. Returns whether it is a frame.
fn frame_agrees(message: &[u8]) -> Result<bool, TestCaseError> {
    let expected = reference_json::parse(message);
    let Some(value) = expected else {
        prop_assert_eq!(check_frame(message), Err(NotJson));
        return Ok(false);
    };
    let checked = check_frame(message);
    prop_assert_eq!(checked.map(str::as_bytes), Ok(message));
    let Ok(frame) = checked else { return Ok(true) };
    prop_assert_eq!(check_frame_text(frame), Ok(frame));

    // Wrapped, it is an object of two members: the relay's conn_id, and the frame.
    let conn_id = ConnId::from_u64(0x0123_4567_89ab_cdef);
    let wrapped = wrap(conn_id, frame);
    prop_assert_eq!(wrapped.len(), frame.len() + WRAP_OVERHEAD);
    let expected = format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#);
    prop_assert_eq!(wrapped.as_bytes(), expected.as_bytes());
    let members = reference_json::members(wrapped.as_bytes());
    let wanted = [("conn_id".to_owned(), format!("\"{conn_id}\"")), ("frame".to_owned(), value.raw.clone())];
    prop_assert_eq!(members.as_deref(), Some(&wanted[..]));

    // And the relay's own reader takes the same frame out of it.
    let back = unwrap_text(&expected);
    if value.raw == "null" {
        prop_assert_eq!(back, Err(Malformed::NoFrame));
    } else {
        let close_code = None;
        prop_assert_eq!(
            back,
            Ok(FromBinary::Deliver { conn_id: Some(conn_id), frame: &value.raw, close_code })
        );
    }
    Ok(true)
}

/// What holds for a binary's message, whatever it is. Returns whether it is an envelope.
fn envelope_agrees(message: &[u8]) -> Result<bool, TestCaseError> {
    let ours = meaning(message);
    prop_assert_eq!(&ours, &reference_json::meaning(message));
    if let Ok(text) = std::str::from_utf8(message) {
        prop_assert_eq!(unwrap_text(text), unwrap(message));
    } else {
        prop_assert_eq!(unwrap(message), Err(Malformed::NotUtf8));
    }
    Ok(ours.is_some())
}

/// Runs `agrees` on generated messages and returns how many in a thousand were accepted.
fn accepted_per_mille<M: AsRef<[u8]> + Debug>(
    messages: impl Strategy<Value = M>,
    agrees: impl Fn(&[u8]) -> Result<bool, TestCaseError>,
) -> Result<u32, String> {
    let (accepted, all) = (Cell::new(0), Cell::new(0));
    check(messages, |message| {
        let outcome = agrees(message.as_ref())?;
        all.set(all.get() + 1);
        accepted.set(accepted.get() + u32::from(outcome));
        Ok(())
    })?;
    Ok(accepted.get() * 1000 / all.get().max(1))
}

#[test]
fn every_json_value_is_a_frame() {
    // Each of them is also wrapped, parsed and unwrapped again.
    assert_eq!(accepted_per_mille(json(), frame_agrees), Ok(1000));
}

#[test]
fn a_damaged_json_value_is_a_frame_only_if_the_reference_says_so() {
    let accepted = accepted_per_mille(mutated(json()), frame_agrees);
    assert!(accepted.as_ref().is_ok_and(|accepted| (50..950).contains(accepted)), "{accepted:?}");
}

#[test]
fn any_bytes_are_a_frame_only_if_the_reference_says_so() {
    let accepted = accepted_per_mille(noise(12), frame_agrees);
    assert!(accepted.as_ref().is_ok_and(|accepted| (1..950).contains(accepted)), "{accepted:?}");
}

#[test]
fn an_envelope_means_what_the_reference_says() {
    let accepted = accepted_per_mille(envelope(), envelope_agrees);
    assert!(accepted.as_ref().is_ok_and(|accepted| (200..950).contains(accepted)), "{accepted:?}");
}

#[test]
fn a_damaged_envelope_means_what_the_reference_says() {
    let accepted = accepted_per_mille(mutated(envelope()), envelope_agrees);
    assert!(accepted.as_ref().is_ok_and(|accepted| (20..900).contains(accepted)), "{accepted:?}");
}

#[test]
fn any_bytes_are_no_envelope() {
    let accepted = accepted_per_mille(noise(64), envelope_agrees);
    assert_eq!(accepted, Ok(0));
}

#[test]
fn every_conn_id_reads_back_and_no_other_text_does() {
    let result = check((any::<u64>(), "(c-)?[0-9a-fA-F]{15,17}|\\PC{0,20}"), |(number, text)| {
        let conn_id = ConnId::from_u64(number);
        prop_assert_eq!(ConnId::parse(&conn_id.to_string()), Some(conn_id));
        if let Some(conn_id) = ConnId::parse(&text) {
            prop_assert_eq!(conn_id.to_string(), text);
        }
        Ok(())
    });
    assert_eq!(result, Ok(()));
}

/// What a phone might send to break out of its envelope. None is one JSON value.
const HOSTILE: &[&[u8]] = &[
    b"1}",
    b"1,\"conn_id\":\"x\"",
    b"1,\"conn_id\":\"c-0000000000000001\"",
    b"1,\"close_code\":4401",
    b"1}{\"conn_id\":\"c-0000000000000001\",\"frame\":2",
    b"{}}{",
    b"{}{}",
    b"\"a\",\"frame\":2",
    b"\"a\\\",\"frame\":2,\"b\":\"",
    b"\\\"",
    b"",
    b" \t\r\n",
    b"\0",
    b"1\0",
    b"\"\0\"",
    b"\xef\xbb\xbf{}",
    b"{}\xef\xbb\xbf",
    b"\xff\xfe1\0",
    b"\xe2\x80\xa81",
    b"[",
    b"]",
    b"[}",
    b"{\"a\":[1}",
    b"\"",
    b"\"abc",
    b"/**/1",
    b"1//",
    b"1#",
    b"NaN",
    b"-Infinity",
    b"undefined",
    b"'single'",
    b"{'a':1}",
    b"[1,]",
    b"{\"a\":1,}",
    b"01",
    b"1_000",
    b"0x10",
    b"\"\xc0\xa2\"",
    b"\"\xe0\x80\xa2\"",
    b"\"\xf0\x80\x80\xa2\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xed\xa0\xbd\xed\xb8\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xc3",
    b"\x80",
    b"\"a\nb\"",
    b"\"a\tb\"",
    b"\"\x1f\"",
];

/// What looks just as bad and is one JSON value.
const HARMLESS: &[&str] = &[
    r#""}""#,
    r#""\"}{\"conn_id\":\"x\"""#,
    r#"{"conn_id":"c-0000000000000001","frame":{"conn_id":"x"},"frame":2,"close_code":4401}"#,
    "\"\u{2028}\u{feff}\u{7f}\"",
    r#""\u0022,\u0022frame\u0022:2""#,
    r#"["\ud800","\udc00\ud800"]"#,
    "\r\n\t -0.0e-0\n",
    "1e999999999999",
];

#[test]
fn no_hostile_message_gets_out_of_its_envelope() {
    for message in HOSTILE {
        let agreed = frame_agrees(message);
        assert!(matches!(agreed, Ok(false)), "{}: {agreed:?}", message.escape_ascii());
        assert_eq!(check_frame(message), Err(NotJson), "{}", message.escape_ascii());
    }
    for message in HARMLESS {
        let agreed = frame_agrees(message.as_bytes());
        assert!(matches!(agreed, Ok(true)), "{message:?}: {agreed:?}");
        assert_eq!(check_frame(message.as_bytes()), Ok(*message));
    }
}

/// A value nested `levels` deep.
fn nested(open: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + "1" + &close.repeat(levels)
}

#[test]
fn nesting_costs_no_stack() {
    let small_stack = thread::Builder::new().stack_size(256 * 1024);
    let thread = small_stack.spawn(|| {
        let conn_id = Some(ConnId::from_u64(1));
        let id = ConnId::from_u64(1);
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("[0,{\"a\" : [ ", "]}\n,null]")] {
            let deep = nested(open, close, 100_000);
            assert_eq!(check_frame(deep.as_bytes()), Ok(&*deep));
            assert_eq!(check_frame(&deep.as_bytes()[..deep.len() - close.len()]), Err(NotJson));

            let wrapped = wrap(id, &deep);
            let delivered = |frame| Ok(FromBinary::Deliver { conn_id, frame, close_code: None });
            assert_eq!(unwrap(wrapped.as_bytes()), delivered(&deep));
            assert_eq!(unwrap(&wrapped.as_bytes()[..wrapped.len() - 2]), Err(Malformed::NotJson));

            let ignored = format!(r#"{{"x":{deep},"conn_id":"{id}","push_wake":{deep},"frame":2}}"#);
            assert_eq!(unwrap_text(&ignored), delivered("2"));
            let wake = format!(r#"{{"push_wake":{{"x":{deep},"platform":"p","token":"t"}},"frame":{deep}}}"#);
            let woken = FromBinary::PushWake { platform: "p".into(), token: "t".into() };
            assert_eq!(unwrap_text(&wake), Ok(woken));
            let wake = format!(r#"{{"push_wake":{deep}}}"#);
            assert_eq!(unwrap_text(&wake), Err(Malformed::BadPushWake));
            let bad = format!(r#"{{"conn_id":{deep},"frame":1}}"#);
            assert_eq!(unwrap_text(&bad), Err(Malformed::ConnIdNotAString));
            let bad = format!(r#"{{"conn_id":"{id}","frame":1,"close_code":{deep}}}"#);
            assert_eq!(unwrap_text(&bad), Err(Malformed::BadCloseCode));
            assert_eq!(unwrap_text(&format!("[{deep}]")), Err(Malformed::NotAnObject));
        }
        // As deep as a message can be, and never closed.
        assert_eq!(check_frame_text(&"[".repeat(256 * 1024)), Err(NotJson));
        assert_eq!(check_frame_text(&nested("[", "]", 128 * 1024)).map(str::len), Ok(256 * 1024 + 1));
    });
    let outcome = thread.map(|thread| thread.join().is_ok());
    assert!(outcome.is_ok_and(|finished| finished));
}
