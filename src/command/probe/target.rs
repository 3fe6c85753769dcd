//! The address of the relay: from the URL on the command line to a host and a port.
//!
//! Only what a probe needs is accepted, `ws://host[:port][/]` and `wss://host[:port][/]`. The paths belong to the
//! protocol (`/v2/server` and `/v2/client`), so a URL that brings its own would be half ignored; it is refused instead.

use std::fmt;
use std::net::Ipv6Addr;

use rustls::pki_types::ServerName;

/// The port of `ws://` when the URL names none.
const PLAIN_PORT: u16 = 80;

/// The port of `wss://` when the URL names none.
const TLS_PORT: u16 = 443;

/// The longest name that DNS allows.
const MAX_NAME: usize = 253;

/// Where the relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    /// The host as TLS has it, for `wss://`.
    tls_name: Option<ServerName<'static>>,
}

/// Why a URL is not an address that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetError {
    /// It begins neither with `ws://` nor with `wss://`.
    Scheme,
    /// It carries a user name or a password.
    UserInfo,
    /// It has a path, a query or a fragment.
    Path,
    /// The host is missing or is not a name, an IPv4 address or an IPv6 address in brackets.
    Host,
    /// The host is neither an address nor a name that a certificate can have, though the URL begins with `wss://`.
    TlsHost,
    /// The port is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a relay's address begins with ws://, or with wss:// if it is to be reached through TLS",
            Self::UserInfo => "a relay's address has no user name and no password",
            Self::Path => {
                "no path, query or fragment is allowed: the probe uses the relay's own /v2/server and /v2/client"
            }
            Self::Host => "the host must be a name, an IPv4 address or an IPv6 address in brackets",
            Self::TlsHost => {
                "with wss:// the host must be an address or a name that a certificate can have: parts of at most 63 \
                 letters, digits, hyphens and underscores, the last not a number, between single dots"
            }
            Self::Port => "the port must be a number from 1 to 65535",
        })?;
        f.write_str(" (examples: ws://127.0.0.1:8080, wss://relay.example, ws://[::1]:8080)")
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
    /// assert_eq!(Target::parse("wss://relay.example").unwrap().authority(), "relay.example:443");
    /// assert!(Target::parse("ws://relay.example/v1/server").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`TargetError`] names the part that is wrong and what is allowed there.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let tls = scheme.eq_ignore_ascii_case("wss");
        if !tls && !scheme.eq_ignore_ascii_case("ws") {
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
        let port = port.map_or(Ok(if tls { TLS_PORT } else { PLAIN_PORT }), number)?;
        let tls_name = tls.then(|| ServerName::try_from(host.clone())).transpose();
        Ok(Self { host, port, tls_name: tls_name.map_err(|_| TargetError::TlsHost)? })
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

    /// Whether the relay is reached through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls_name.is_some()
    }

    /// Host and port the way a URL writes them.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.url_host(), self.port)
    }

    /// What the `Host` header says: the port belongs there only if it is not the scheme's own (RFC 6455, 4.1).
    pub(super) fn host_field(&self) -> String {
        match (self.is_tls(), self.port) {
            (true, TLS_PORT) | (false, PLAIN_PORT) => self.url_host(),
            _ => self.authority(),
        }
    }

    /// `ws` or `wss`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls() { "wss" } else { "ws" }
    }

    /// The host as TLS has it, if there is to be TLS.
    pub(super) fn tls_name(&self) -> Option<&ServerName<'static>> {
        self.tls_name.as_ref()
    }

    fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
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
            ("wss://relay.example", "relay.example", 443, "relay.example:443"),
            ("WSS://relay_1.example.:8443/", "relay_1.example.", 8443, "relay_1.example.:8443"),
            ("wss://[::1]", "::1", 443, "[::1]:443"),
            ("wss://192.0.2.1:80", "192.0.2.1", 80, "192.0.2.1:80"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert_eq!(target.authority(), authority, "{url}");
            assert_eq!(target.is_tls(), url.to_ascii_lowercase().starts_with("wss"), "{url}");
        }
    }

    #[test]
    fn the_host_field_has_no_port_that_the_scheme_implies() {
        for (url, host_field) in [
            ("ws://relay.example", "relay.example"),
            ("ws://relay.example:80", "relay.example"),
            ("ws://relay.example:443", "relay.example:443"),
            ("ws://[::1]", "[::1]"),
            ("ws://[::1]:8080", "[::1]:8080"),
            ("wss://relay.example", "relay.example"),
            ("wss://relay.example:443", "relay.example"),
            ("wss://relay.example:80", "relay.example:80"),
            ("wss://[::1]:443", "[::1]"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.host_field(), host_field, "{url}");
            assert!(url.starts_with(&format!("{}://", target.scheme())), "{url}");
        }
    }

    #[test]
    fn what_tls_asks_for_is_a_name_or_an_address() {
        let asked = |url| Target::parse(url).unwrap().tls_name().cloned();
        assert!(matches!(asked("wss://relay.example"), Some(ServerName::DnsName(_))));
        for url in ["wss://127.0.0.1", "wss://[2001:db8::1]:8443"] {
            assert!(matches!(asked(url), Some(ServerName::IpAddress(_))), "{url}");
        }
        assert_eq!(asked("ws://relay.example"), None);
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_an_example() {
        for (url, error) in [
            ("", TargetError::Scheme),
            ("127.0.0.1:8080", TargetError::Scheme),
            ("http://relay.example", TargetError::Scheme),
            ("https://relay.example", TargetError::Scheme),
            ("wss://user:secret@relay.example", TargetError::UserInfo),
            ("wss://relay.example/v2/server", TargetError::Path),
            ("wss://", TargetError::Host),
            ("wss://relay..example", TargetError::TlsHost),
            ("wss://127.1", TargetError::TlsHost),
            ("wss://h:0", TargetError::Port),
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
        assert!(TargetError::Scheme.to_string().contains("wss:// if it is to be reached through TLS"));
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
