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
    Connect { authority: String, why: String, refused: bool },
    /// There is no TLS with the relay.
    NoTls { authority: String, why: String },
    /// The answer to a request without TLS is a TLS alert.
    ExpectsTls { authority: String },
    /// The answer to the upgrade request is not HTTP, or not an upgrade. `tls` says whether it came in TLS.
    NotARelay { authority: String, what: String, tls: bool },
    /// The answer to the upgrade request is in HTTP/1.0. `tls` says whether it came in TLS.
    OldHttp { authority: String, path: &'static str, status: u16, tls: bool },
    /// The answer to the upgrade request is an HTTP status other than 101. `expects_tls` says whether its body asks
    /// for TLS.
    Refused { path: &'static str, status: u16, line: String, retry_after: Option<String>, expects_tls: bool },
    /// The relay closed a connection that was to stay. `size` is that of the probe's frames.
    Closed { who: &'static str, due: &'static str, code: Option<u16>, reason: String, size: usize },
    /// The binary got a notice that its phone was closed.
    Notice { due: &'static str, code: u16, received: String },
    /// The binary got such a notice, and the phone got `instead` of its close. `size` is that of the probe's frames.
    OnlyNotice { code: u16, size: usize, instead: Box<Trouble> },
    /// A connection ended without a close frame.
    Lost { who: &'static str, due: &'static str, why: String },
    /// What was due did not come.
    Late { due: String, after: Duration },
    /// The whole probe took too long.
    OutOfTime { due: String, after: Duration },
    /// Something else than what was due.
    Wrong { due: String, received: String },
    /// The bytes differ.
    Differs { due: &'static str, at: usize, expected: Excerpt, received: Excerpt },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { authority, why, refused } => {
                // A relay stops listening as soon as it drains, though its connections live on for a while.
                let down =
                    if *refused { " (one that is shutting down refuses connections as well)" } else { "" };
                write!(
                    f,
                    "cannot connect to {authority}: {why}; is the relay running{down}, and is this the address it \
                     listens on?"
                )
            }
            Self::NoTls { authority, why } => write!(f, "no TLS with {authority}: {why}"),
            Self::ExpectsTls { authority } => write!(
                f,
                "{authority} answers with a TLS alert, so it expects TLS; probe wss://{authority}, with the name that \
                 its certificate is for"
            ),
            Self::NotARelay { authority, what, tls: true } => {
                write!(f, "{authority} {what}, in TLS; is it a relay's WebSocket listener?")
            }
            Self::NotARelay { authority, what, tls: false } => write!(
                f,
                "{authority} {what}; is it a relay's plain WebSocket listener, or one that expects TLS (wss://) or the \
                 PROXY protocol?"
            ),
            Self::OldHttp { authority, path, status, tls } => {
                write!(
                    f,
                    "{path} was answered in HTTP/1.0, with status {status}; a relay answers in HTTP/1.1, so something \
                     else listens on {authority} or stands in between"
                )?;
                match (status, tls) {
                    (400, false) => {
                        f.write_str(" (some servers that expect TLS answer so: then probe wss://)")
                    }
                    _ => Ok(()),
                }
            }
            Self::Refused { path, status, line, retry_after, expects_tls } => {
                write!(f, "{path} was answered with HTTP status {status}")?;
                if !line.is_empty() {
                    write!(f, " \"{line}\"")?;
                }
                if let Some(seconds) = retry_after {
                    write!(f, " (Retry-After: {seconds})")?;
                }
                match expects_tls {
                    true => f.write_str(": this port expects TLS; probe it with wss://"),
                    false => write!(f, ": {}", status_means(*status, line)),
                }
            }
            Self::Closed { who, due, code, reason, size } => {
                write!(f, "the relay closed the {who}'s connection with ")?;
                match code {
                    Some(code) => write!(f, "{code}")?,
                    None => f.write_str("no code")?,
                }
                if !reason.is_empty() {
                    write!(f, " \"{reason}\"")?;
                }
                write!(f, " while {due} was due: {}", code_means(*code, *size))
            }
            Self::Notice { due, received, .. } => {
                write!(f, "expected {due} on the binary's connection, received {received}")
            }
            Self::OnlyNotice { code, size, instead } => {
                let means = match code {
                    // To the binary, this also stands for a phone that is gone without a word.
                    1001 => "the relay lost the phone, or is shutting down".to_owned(),
                    _ => code_means(Some(*code), *size),
                };
                write!(
                    f,
                    "the relay told the binary that the phone was closed with {code} ({means}), but on the phone's \
                     own connection: {instead}"
                )
            }
            Self::Lost { who, due, why } => {
                write!(f, "the {who}'s connection ended while {due} was due: {why}")
            }
            Self::Late { due, after } => write!(f, "waited {} in vain for {due}", seconds(*after)),
            Self::OutOfTime { due, after } => {
                write!(f, "the whole probe took longer than {}; {due} was due", seconds(*after))
            }
            Self::Wrong { due, received } => write!(f, "expected {due}, received {received}"),
            Self::Differs { due, at, expected, received } => write!(
                f,
                "{due} is not what it must be, byte for byte: from byte {at} on expected {expected}, received \
                 {received}"
            ),
        }
    }
}

/// A piece of a text and how long the whole is, for a terminal.
#[derive(Debug)]
pub(super) struct Excerpt {
    text: String,
    of: usize,
}

impl Excerpt {
    fn new(text: &str, at: usize) -> Self {
        Self { text: excerpt(text, at), of: text.len() }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes in all)", self.text, self.of)
    }
}

/// Both texts must be equal.
pub(super) fn must_equal(due: &'static str, expected: &str, received: &str) -> Result<(), Trouble> {
    if expected == received {
        return Ok(());
    }
    let at = expected.bytes().zip(received.bytes()).take_while(|(left, right)| left == right).count();
    let (expected, received) = (Excerpt::new(expected, at), Excerpt::new(received, at));
    Err(Trouble::Differs { due, at, expected, received })
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

fn status_means(status: u16, line: &str) -> &'static str {
    match status {
        200..=299 => "this is an HTTP server, not a relay",
        300..=399 => "it points elsewhere; probe the relay itself",
        400 => "a header that the protocol requires was refused, or a proxy on the way removed it",
        403 => {
            "the relay has an access list (access.servers), and this server-id is not on it; name one that is and that \
             nobody uses with --server-id"
        }
        404 => "this is not a relay, or a proxy on the way does not pass this path on",
        405 => "this path does not take upgrade requests; is it a relay?",
        421 => {
            "the relay's tls.domains does not have this host name; the URL of the probe must have one of them, and a \
             proxy on the way must pass it on (Host)"
        }
        426 => "the upgrade headers did not arrive; a proxy on the way probably removes them",
        429 if line.starts_with("no usable client address") => {
            "the relay stands behind a proxy and takes nobody who comes past it; probe through the proxy"
        }
        429 => "too many connections from this address in a short time; wait and probe again",
        502 | 504 => "a proxy answered, and could not reach the relay behind it",
        503 => {
            "the relay is shutting down or has no free place for a connection, or a proxy has no relay to pass it to"
        }
        _ => "no relay answers so; something else listens here or stands in between",
    }
}

fn code_means(code: Option<u16>, size: usize) -> String {
    let means = match code {
        Some(1000) => "the relay had no reason to end it",
        Some(1001) => "the relay is shutting down; probe again when it is back",
        Some(1002) => "the relay took the probe's messages for a breach of the WebSocket protocol",
        Some(1007) => "the relay took a frame for invalid JSON, though it is valid",
        Some(1009) => {
            return format!(
                "frames of {size} bytes (--size) are larger than the relay's session.max_frame allows"
            );
        }
        Some(1011) => "the relay gave up on this connection; its log says why",
        Some(4404) => {
            "the relay knows no binary with this server-id, though one holds it (several relays behind one name?)"
        }
        Some(4409) => {
            "the relay says that another binary holds this server-id, though it is fresh and random"
        }
        Some(4429) => "the relay says that this server-id has too many phones, though it has one",
        _ => "the protocol has no such close here",
    };
    means.to_owned()
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
            expects_tls: false,
        };
        let text = refused.to_string();
        assert!(
            text.starts_with("/v2/server was answered with HTTP status 429 \"slow down\" (Retry-After: 7): ")
        );
        assert!(text.contains("too many connections"), "{text}");
        assert!(status_means(429, "no usable client address: none").contains("behind a proxy"));
        assert!(status_means(403, "").contains("--server-id"));
        assert!(status_means(421, "").contains("tls.domains does not have this host name"));
        let closed = |code| {
            Trouble::Closed { who: "phone", due: "a pong", code, reason: String::new(), size: 300_000 }
                .to_string()
        };
        assert!(closed(Some(4404)).contains("with 4404 while a pong was due: the relay knows no binary"));
        let big = closed(Some(1009));
        assert!(big.contains("300000 bytes (--size)") && big.contains("session.max_frame"), "{big}");
    }

    #[test]
    fn a_notice_speaks_for_a_close_that_did_not_come() {
        let only = |code| {
            let late = Trouble::Late { due: "its close".to_owned(), after: Duration::from_secs(10) };
            Trouble::OnlyNotice { code, size: 300_000, instead: Box::new(late) }.to_string()
        };
        let big = only(1009);
        assert!(big.contains("closed with 1009 (frames of 300000 bytes (--size) are larger"), "{big}");
        assert!(big.ends_with("connection: waited 10 s in vain for its close"), "{big}");
        assert!(only(1001).contains("(the relay lost the phone, or is shutting down)"));
    }

    #[test]
    fn a_relay_that_drains_is_thought_of_where_a_connection_is_refused() {
        let connect = |refused| {
            Trouble::Connect { authority: "h:1".to_owned(), why: "so".to_owned(), refused }.to_string()
        };
        assert!(
            connect(true).contains("is the relay running (one that is shutting down refuses connections")
        );
        assert!(connect(false).contains("h:1: so; is the relay running, and is this the address"));
    }
}
