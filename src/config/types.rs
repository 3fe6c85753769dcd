//! The values of keys that are neither times, sizes, numbers nor addresses to listen on.

use std::net::Ipv6Addr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::event::{Format, Level};

use super::kind::Word;

/// Who may be served without TLS (`listen.plaintext`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Only clients on this host: the public address must be a loopback address.
    Loopback,
    /// Any client: the operator vouches that a TLS proxy on another host stands in front.
    Anywhere,
}

/// Where the certificate comes from (`tls.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// The relay does not speak TLS itself.
    Off,
    /// From files.
    Files,
    /// From a certificate authority, through ACME.
    Acme,
}

/// What tells the address of a client (`client_address.source`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddressSource {
    /// The other end of the TCP connection.
    Peer,
    /// The `X-Forwarded-For` header of a trusted proxy.
    XForwardedFor,
    /// The PROXY protocol header of a trusted proxy.
    ProxyProtocol,
}

pub(super) const PLAINTEXT: Word<Plaintext> =
    Word(&[("loopback", Plaintext::Loopback), ("anywhere", Plaintext::Anywhere)]);

pub(super) const TLS_MODE: Word<TlsMode> =
    Word(&[("off", TlsMode::Off), ("files", TlsMode::Files), ("acme", TlsMode::Acme)]);

pub(super) const CLIENT_ADDRESS_SOURCE: Word<ClientAddressSource> = Word(&[
    ("peer", ClientAddressSource::Peer),
    ("x-forwarded-for", ClientAddressSource::XForwardedFor),
    ("proxy-protocol", ClientAddressSource::ProxyProtocol),
]);

pub(super) const LOG_LEVEL: Word<Level> = Word(&[
    (Level::Error.as_str(), Level::Error),
    (Level::Warn.as_str(), Level::Warn),
    (Level::Info.as_str(), Level::Info),
    (Level::Debug.as_str(), Level::Debug),
]);

pub(super) const LOG_FORMAT: Word<Format> = Word(&[
    (Format::Auto.as_str(), Format::Auto),
    (Format::Journald.as_str(), Format::Journald),
    (Format::Text.as_str(), Format::Text),
    (Format::Json.as_str(), Format::Json),
]);

/// A path of this host's file system, as far as its text can tell.
pub(super) fn absolute_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err("is not an absolute path; it must start with \"/\"".to_owned())
    }
}

/// A path, or the name of a systemd credential.
pub(super) fn path_or_credential(text: &str) -> Result<String, String> {
    match text.strip_prefix("credential:") {
        Some(name) if !name.is_empty() && !name.contains(['/', '\0']) => Ok(text.to_owned()),
        Some(_) => Err("names no credential; write \"credential:NAME\"".to_owned()),
        None => absolute_path(text).map_err(|error| format!("{error}, or name a \"credential:NAME\"")),
    }
}

/// A host name as it stands in a certificate, or an IPv4 address.
pub(super) fn domain(text: &str) -> Result<String, String> {
    if is_host(text) {
        // Names are equal whatever their case, and later they are compared byte by byte.
        return Ok(text.to_ascii_lowercase());
    }
    // Whatever the slip is, it gets its own words.
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    Err(if !text.is_ascii() {
        "is not ASCII; write the name in punycode (xn--...), as DNS has it"
    } else if text.contains('/') {
        "is a URL or a path; write the host name alone, such as \"relay.example.com\""
    } else if bare.parse::<Ipv6Addr>().is_ok() {
        "is an IPv6 address, which cannot stand here; write a host name, or leave tls.domains out in mode \"files\" \
         to serve any"
    } else if text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok()) {
        "has a port; write the host name alone, such as \"relay.example.com\""
    } else if text.starts_with("*.") {
        "is a wildcard; write each name that is to be served (in mode \"files\" a wildcard in the certificate covers \
         them)"
    } else if text.strip_suffix('.').is_some_and(is_host) {
        "ends in a dot; write it without, clients may add it as they like"
    } else {
        "is not a host name; write one such as \"relay.example.com\""
    }
    .to_owned())
}

fn is_host(text: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label_ok)
}

/// The address that a certificate authority writes to.
pub(super) fn contact(text: &str) -> Result<String, String> {
    // Authorities refuse these, and say so in their own words and later.
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has a space, a control character or one that is not ASCII; write one contact such as \
                    \"mailto:ops@example.com\""
            .to_owned());
    }
    match text.strip_prefix("mailto:").and_then(|address| address.split_once('@')) {
        Some((user, host)) if !user.is_empty() && is_host(host) => Ok(text.to_owned()),
        _ => Err("is not a contact; write one such as \"mailto:ops@example.com\"".to_owned()),
    }
}

/// The longest URL of a directory: it stands in every event about the authority.
const MAX_URL: usize = 200;

/// The directory of an ACME certificate authority.
pub(super) fn https_url(text: &str) -> Result<String, String> {
    // A rule refuses it, because what is refused here is shown, and a password should not be.
    if has_user(text) {
        return Ok(text.to_owned());
    }
    let Some(rest) = text.strip_prefix("https://").filter(|_| text.bytes().all(|b| b.is_ascii_graphic()))
    else {
        return Err("is not an https URL; write \"https://…\"".to_owned());
    };
    if text.len() > MAX_URL {
        return Err(format!("is too long; allowed: an https URL of at most {MAX_URL} bytes"));
    }
    let authority = authority_of(rest);
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets is the address's own.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err("names no host; write \"https://HOST/…\"".to_owned());
    }
    let is_address = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
    };
    // Hosts in DNS may have underscores and a dot at their end, certificates may not.
    let name = host.strip_suffix('.').unwrap_or(host).replace('_', "-");
    if !is_host(&name) && !is_address(host) {
        return Err("names a host that is none; write \"https://HOST/…\" with a host name, an IPv4 address, or an IPv6 \
                    address in brackets"
            .to_owned());
    }
    if port.is_some_and(|port| port.parse::<NonZeroU16>().is_err()) {
        return Err(
            "names a port that is none; write \"https://HOST/…\" or \"https://HOST:PORT/…\"".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Whether a URL has a user, and perhaps a password, before its host.
pub(super) fn has_user(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| authority_of(rest).contains('@'))
}

/// What stands between the scheme and the path.
fn authority_of(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// A network in CIDR notation.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "is not a network; write one such as \"127.0.0.1/32\" or \"::1/128\"".to_owned())
}

/// A server-id as PROTOCOL § 1 bounds it.
pub(crate) fn server_id(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("is not a server-id; allowed: 1 to 128 bytes of visible ASCII, without spaces".to_owned())
    }
}
