//! What can go wrong on the way, in words that help the person who runs the relay.
//!
//! A [`Trouble`] is one thing that went wrong. Its text says what was due, what came instead, and, where the protocol
//! gives it a meaning, what that usually means. Nothing that a peer sent reaches a terminal unfiltered or in full
//! length.

use std::fmt;
use std::time::Duration;

/// How much of a peer's text is shown around the point of interest, in characters.
const SHOWN: usize = 60;

/// How much of a refusal's first line is shown, in characters.
const SHOWN_LINE: usize = 200;

/// One thing that went wrong.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The host has no address, or no connection could be made.
    Connect { authority: String, why: String },
    /// The answer to the upgrade request is not HTTP, or not an upgrade.
    NotARelay { authority: String, what: String },
    /// The answer to the upgrade request is an HTTP status other than 101.
    Refused { path: &'static str, status: u16, line: String, retry_after: Option<String> },
    /// The relay closed a connection that was to stay.
    Closed { who: &'static str, due: &'static str, code: Option<u16>, reason: String },
    /// A connection ended without a close frame.
    Lost { who: &'static str, due: &'static str, why: String },
    /// What was due did not come.
    Late { due: String, after: Duration },
    /// The whole probe took too long.
    OutOfTime { due: String, after: Duration },
    /// Something else than what was due.
    Wrong { due: String, received: String },
    /// The bytes differ.
    Differs { due: &'static str, expected: String, received: String, at: usize },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { authority, why } => write!(
                f,
                "cannot connect to {authority}: {why}; is the relay running, and is this the address it listens on?"
            ),
            Self::NotARelay { authority, what } => write!(
                f,
                "{authority} {what}; is it a relay's plain WebSocket listener, or one that expects TLS or the PROXY \
                 protocol?"
            ),
            Self::Refused { path, status, line, retry_after } => {
                write!(f, "{path} was answered with HTTP status {status}")?;
                if !line.is_empty() {
                    write!(f, " \"{line}\"")?;
                }
                if let Some(seconds) = retry_after {
                    write!(f, " (Retry-After: {seconds})")?;
                }
                write!(f, ": {}", status_means(*status))
            }
            Self::Closed { who, due, code, reason } => {
                write!(f, "the relay closed the {who}'s connection with ")?;
                match code {
                    Some(code) => write!(f, "{code}")?,
                    None => f.write_str("no code")?,
                }
                if !reason.is_empty() {
                    write!(f, " \"{reason}\"")?;
                }
                write!(f, " while {due} was due: {}", code_means(*code))
            }
            Self::Lost { who, due, why } => {
                write!(f, "the {who}'s connection ended while {due} was due: {why}")
            }
            Self::Late { due, after } => write!(f, "waited {} in vain for {due}", seconds(*after)),
            Self::OutOfTime { due, after } => {
                write!(f, "the whole probe took longer than {}; {due} was due", seconds(*after))
            }
            Self::Wrong { due, received } => write!(f, "expected {due}, received {received}"),
            Self::Differs { due, expected, received, at } => write!(
                f,
                "{due} is not what it must be, byte for byte: from byte {at} on expected {} ({} bytes in all), \
                 received {} ({} bytes in all)",
                excerpt(expected, *at),
                expected.len(),
                excerpt(received, *at),
                received.len(),
            ),
        }
    }
}

/// Both texts must be equal.
pub(super) fn must_equal(due: &'static str, expected: &str, received: &str) -> Result<(), Trouble> {
    if expected == received {
        return Ok(());
    }
    let at = expected.bytes().zip(received.bytes()).take_while(|(left, right)| left == right).count();
    Err(Trouble::Differs { due, expected: expected.to_owned(), received: received.to_owned(), at })
}

/// Text for a terminal: quoted, without control characters, at most `SHOWN` characters from shortly before `at`.
fn excerpt(text: &str, at: usize) -> String {
    let mut start = at.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let rest = text.get(start..).unwrap_or_default();
    match rest {
        "" if text.is_empty() => "nothing".to_owned(),
        "" => "its end".to_owned(),
        _ => format!("'{}'", clean(rest, SHOWN)),
    }
}

/// A message of a peer, for a terminal.
pub(super) fn shown(text: &str) -> String {
    excerpt(text, 0)
}

/// The first line of a refusal's body, for a terminal.
pub(super) fn first_line(body: &str) -> String {
    clean(body.lines().next().unwrap_or_default().trim(), SHOWN_LINE)
}

/// At most `limit` characters, each control character spelled out.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (position, character) in text.chars().enumerate() {
        if position == limit {
            out.push('…');
            break;
        }
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A duration as a person writes it.
pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}

fn status_means(status: u16) -> &'static str {
    match status {
        200..=299 => "this is an HTTP server, not a relay",
        300..=399 => "it points elsewhere; probe the relay itself",
        400 => "a header that the protocol requires was refused, or a proxy on the way removed it",
        403 => {
            "the relay has an access list, and the random server-id of a probe is not on it; probe a relay without one"
        }
        404 => "this is not a relay, or a proxy on the way does not pass this path on",
        405 => "this path does not take upgrade requests; is it a relay?",
        426 => "the upgrade headers did not arrive; a proxy on the way probably removes them",
        429 => "too many connections from this address in a short time; wait and probe again",
        502 | 504 => "a proxy answered, and could not reach the relay behind it",
        503 => {
            "the relay is shutting down or has no free place for a connection, or a proxy has no relay to pass it to"
        }
        _ => "no relay answers so; something else listens here or stands in between",
    }
}

fn code_means(code: Option<u16>) -> &'static str {
    match code {
        Some(1000) => "the relay had no reason to end it",
        Some(1001) => "the relay is shutting down; probe again when it is back",
        Some(1002) => "the relay took the probe's messages for a breach of the WebSocket protocol",
        Some(1007) => "the relay took a frame for invalid JSON, though it is valid",
        Some(1009) => "the relay took a message for too big; its limit is smaller than the protocol's",
        Some(1011) => "the relay gave up on this connection; its log says why",
        Some(4404) => {
            "the relay knows no binary with this server-id, though one holds it (several relays behind one name?)"
        }
        Some(4409) => {
            "the relay says that another binary holds this server-id, though it is fresh and random"
        }
        Some(4429) => "the relay says that this server-id has too many phones, though it has one",
        _ => "the protocol has no such close here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_where_it_begins() {
        assert!(must_equal("it", "same", "same").is_ok());
        let long = "x".repeat(1000);
        let text =
            must_equal("the frame", &format!("{long}é1"), &format!("{long}è1")).unwrap_err().to_string();
        assert!(text.contains("from byte 1001 on expected 'é1' (1003 bytes in all)"), "{text}");
        assert!(text.contains("received 'è1'"), "{text}");
        let short = must_equal("the frame", "abc", "ab").unwrap_err().to_string();
        assert!(
            short.contains("from byte 2 on expected 'c'") && short.contains("received its end"),
            "{short}"
        );
    }

    #[test]
    fn a_peers_text_is_cleaned_and_cut() {
        assert_eq!(clean("a\u{1b}[31m\n", 20), "a\\u{1b}[31m\\n");
        assert_eq!(clean("ééééé", 3), "ééé…");
        assert_eq!(shown(""), "nothing");
        assert_eq!(first_line("one\r\ntwo"), "one");
    }

    #[test]
    fn a_refusal_says_what_came_and_what_it_means() {
        let refused = Trouble::Refused {
            path: "/v2/server",
            status: 429,
            line: "slow down".to_owned(),
            retry_after: Some("7".to_owned()),
        };
        let text = refused.to_string();
        assert!(
            text.starts_with("/v2/server was answered with HTTP status 429 \"slow down\" (Retry-After: 7): ")
        );
        assert!(text.contains("too many connections"), "{text}");
        let closed = Trouble::Closed { who: "phone", due: "a pong", code: Some(4404), reason: String::new() };
        assert!(closed.to_string().contains("with 4404 while a pong was due: the relay knows no binary"));
    }
}
