//! The values of `listen.public` and `listen.metrics`: an address that the relay binds itself, or the name of a socket that
//! systemd has bound and passes ([`SocketName`]).
//!
//! What a passed socket listens on shows only at start, so the rules for addresses are applied to it there
//! (`service::sockets`), with the same functions and the same words as here.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::loopback::{LoopbackAddr, LoopbackError, is_loopback};

/// What stands before the name of a socket.
const SYSTEMD: &str = "systemd:";

/// The longest name that systemd takes (`FDNAME_MAX`).
const LONGEST_NAME: usize = 255;

/// The name of a socket that systemd passes: `FileDescriptorName=` of its unit (`systemd.socket(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketName(String);

impl SocketName {
    /// The name alone, without `systemd:`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SocketName {
    type Err = String;

    /// Reads the name alone; the rule is that of systemd for `FileDescriptorName=`.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = |c: char| (c.is_ascii_graphic() || c == ' ') && c != ':';
        if !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(named) {
            Ok(Self(text.to_owned()))
        } else {
            Err("names no socket; write \"systemd:NAME\" with the FileDescriptorName= of a socket unit, 1 to 255 \
                 characters of printable ASCII without \":\""
                .to_owned())
        }
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SYSTEMD}{}", self.0)
    }
}

/// Where binaries and phones connect (`listen.public`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicListen {
    /// The relay binds this address itself. With port 0 the kernel chooses one, and the log says which.
    Address(SocketAddr),
    /// systemd has bound a socket and passes it.
    Systemd(SocketName),
}

/// Where `/metrics` is served (`listen.metrics`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    /// Nowhere.
    Off,
    /// The relay binds this address itself.
    Address(LoopbackAddr),
    /// systemd has bound a socket and passes it.
    Systemd(SocketName),
}

impl PublicListen {
    /// The name of the passed socket, if it is to be one.
    #[must_use]
    pub fn socket_name(&self) -> Option<&SocketName> {
        match self {
            Self::Systemd(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl MetricsListen {
    /// The name of the passed socket, if it is to be one.
    #[must_use]
    pub fn socket_name(&self) -> Option<&SocketName> {
        match self {
            Self::Systemd(name) => Some(name),
            Self::Off | Self::Address(_) => None,
        }
    }
}

/// What is wrong with serving this address without TLS when `listen.plaintext = "loopback"`; nothing if only this host can
/// reach it.
pub(crate) fn plaintext_problem(address: SocketAddr) -> Option<String> {
    (!is_loopback(address.ip())).then(|| {
        format!(
            "\"{address}\" is not a loopback address, and listen.plaintext = \"loopback\" serves no other without \
             TLS; use tls.mode = \"files\" or \"acme\", or a loopback address behind a TLS proxy on this host, or \
             listen.plaintext = \"anywhere\" if the TLS proxy runs on another host"
        )
    })
}

impl FromStr for PublicListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(SYSTEMD) {
            return name.parse().map(Self::Systemd);
        }
        text.parse().map(Self::Address).map_err(|_| {
            "is not an IP literal with a port; allowed: such as \"127.0.0.1:8080\" or \"[::1]:8080\"; port 0 lets \
             the kernel choose; or \"systemd:NAME\""
                .to_owned()
        })
    }
}

impl fmt::Display for PublicListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Systemd(name) => name.fmt(f),
        }
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(name) = text.strip_prefix(SYSTEMD) {
            return name.parse().map(Self::Systemd);
        }
        text.parse()
            .map(Self::Address)
            .map_err(|error: LoopbackError| format!("{error}, or \"systemd:NAME\", or \"off\""))
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Address(address) => address.fmt(f),
            Self::Systemd(name) => name.fmt(f),
        }
    }
}
