//! The address of the relay: from the URL on the command line to a host and a port.
//!
//! Only what a probe needs is accepted, `ws://host[:port][/]`. The paths belong to the protocol (`/v2/server` and
//! `/v2/client`), so a URL that brings its own would be half ignored; it is refused instead.

use std::fmt;
use std::net::Ipv6Addr;

/// The port of `ws://` when the URL names none.
const DEFAULT_PORT: u16 = 80;

/// The longest name that DNS allows.
const MAX_NAME: usize = 253;

/// Where the relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

/// Why a URL is not an address that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// It does not begin with `ws://`.
    Scheme,
    /// It begins with `wss://`.
    Tls,
    /// It carries a user name or a password.
    UserInfo,
    /// It has a path, a query or a fragment.
    Path,
    /// The host is missing or is not a name, an IPv4 address or an IPv6 address in brackets.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a relay's address begins with ws://",
            Self::Tls => {
                "the probe speaks no TLS in this version; give the address of the relay itself, behind the TLS proxy, \
                 with ws://"
            }
            Self::UserInfo => "a relay's address has no user name and no password",
            Self::Path => {
                "no path, query or fragment is allowed: the probe uses the relay's own /v2/server and /v2/client"
            }
            Self::Host => "the host must be a name, an IPv4 address or an IPv6 address in brackets",
            Self::Port => "the port must be a number from 1 to 65535",
        })?;
        f.write_str(" (examples: ws://127.0.0.1:8080, ws://relay.example, ws://[::1]:8080)")
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// Reads a URL.
    ///
    /// ```
    /// use pyrycode_relay::command::probe::Target;
    ///
    /// assert_eq!(Target::parse("ws://relay.example").unwrap().authority(), "relay.example:80");
    /// assert!(Target::parse("ws://relay.example/v1/server").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`TargetError`] names the part that is wrong and what is allowed there.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        if scheme.eq_ignore_ascii_case("wss") {
            return Err(TargetError::Tls);
        }
        if !scheme.eq_ignore_ascii_case("ws") {
            return Err(TargetError::Scheme);
        }
        let (authority, tail) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        if !matches!(tail, "" | "/") {
            return Err(TargetError::Path);
        }
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => {
                let (address, after) = literal.split_once(']').ok_or(TargetError::Host)?;
                let address: Ipv6Addr = address.parse().map_err(|_| TargetError::Host)?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or(TargetError::Host)?),
                };
                (address.to_string(), port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (name(host)?, Some(port)),
                None => (name(authority)?, None),
            },
        };
        Ok(Self { host, port: port.map_or(Ok(DEFAULT_PORT), number)? })
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port the way a URL and a `Host` header write them.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A URL for a terminal: quoted, without control characters, and without anything that may be a password.
pub(super) fn shown(url: &str) -> String {
    // The last @, wherever it is: a password that was pasted as it is may hold every other delimiter.
    let Some((secret, rest)) = url.rsplit_once('@') else {
        return format!("\"{}\"", url.escape_debug());
    };
    let scheme = secret.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.filter(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let start = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    format!("\"{start}…@{}\"", rest.escape_debug())
}

fn name(text: &str) -> Result<String, TargetError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(allowed) {
        return Err(TargetError::Host);
    }
    Ok(text.to_owned())
}

fn number(text: &str) -> Result<u16, TargetError> {
    // `parse` alone would take "+80".
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(TargetError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (url, host, port, authority) in [
            ("ws://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
            ("ws://relay.example", "relay.example", 80, "relay.example:80"),
            ("WS://relay_1.example:65535/", "relay_1.example", 65535, "relay_1.example:65535"),
            ("ws://[::1]:1", "::1", 1, "[::1]:1"),
            ("ws://[2001:DB8:0::1]", "2001:db8::1", 80, "[2001:db8::1]:80"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert_eq!(target.authority(), authority, "{url}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_an_example() {
        for (url, error) in [
            ("", TargetError::Scheme),
            ("127.0.0.1:8080", TargetError::Scheme),
            ("http://relay.example", TargetError::Scheme),
            ("wss://relay.example", TargetError::Tls),
            ("ws://user:secret@relay.example", TargetError::UserInfo),
            ("ws://relay.example/v2/server", TargetError::Path),
            ("ws://relay.example?x", TargetError::Path),
            ("ws://relay.example#x", TargetError::Path),
            ("ws://", TargetError::Host),
            ("ws:///", TargetError::Host),
            ("ws://:80", TargetError::Host),
            ("ws://a b", TargetError::Host),
            ("ws://relé", TargetError::Host),
            ("ws://[::1", TargetError::Host),
            ("ws://[::1]80", TargetError::Host),
            ("ws://[fe80::1%eth0]:80", TargetError::Host),
            ("ws://[127.0.0.1]:80", TargetError::Host),
            ("ws://::1", TargetError::Host),
            ("ws://h:", TargetError::Port),
            ("ws://h:0", TargetError::Port),
            ("ws://h:+80", TargetError::Port),
            ("ws://h:65536", TargetError::Port),
            ("ws://[::1]:", TargetError::Port),
            ("ws://2001:db8::1", TargetError::Port),
        ] {
            let refused = Target::parse(url).unwrap_err();
            assert_eq!(refused, error, "{url}");
            assert!(refused.to_string().contains("ws://127.0.0.1:8080"), "{url}");
        }
        assert!(TargetError::Tls.to_string().contains("TLS"));
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, expected) in [
            ("ws://user:secret@relay.example:80", "\"ws://…@relay.example:80\""),
            ("wss://user:se@cret@relay.example", "\"wss://…@relay.example\""),
            ("ws://user:se/cr?et#secret@relay.example", "\"ws://…@relay.example\""),
            ("user:secret@relay.example", "\"…@relay.example\""),
            ("user:secret://secret@relay.example", "\"…@relay.example\""),
            ("ws://relay.example/v1\u{1b}[2J", "\"ws://relay.example/v1\\u{1b}[2J\""),
        ] {
            let text = shown(url);
            assert_eq!(text, expected, "{url}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
