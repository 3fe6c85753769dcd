//! The rule for the metrics address: an IP literal on the loopback interface, with a port.
//!
//! Metrics tell how many machines are connected and how busy they are, and nothing asks a scraper who it is, so
//! the address is what protects them. [`LoopbackAddr`] can only be made through [`LoopbackAddr::check`]: whoever
//! holds one has passed the rule, whether the address came from the file or from a socket that was handed over.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A socket address that only this host can reach: in 127.0.0.0/8 or `[::1]`, with a port from 1 to 65535.
///
/// ```
/// use pyrycode_relay::config::LoopbackAddr;
///
/// let address: LoopbackAddr = "127.0.0.1:9090".parse().unwrap();
/// assert_eq!(address.get().port(), 9090);
/// assert!("0.0.0.0:9090".parse::<LoopbackAddr>().is_err());
/// assert!("localhost:9090".parse::<LoopbackAddr>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopbackAddr(SocketAddr);

/// Why an address is not a [`LoopbackAddr`]. Its text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopbackError {
    /// The text is not an IP literal with a port: a name, a missing port, a port above 65535.
    NotALiteral,
    /// The address can be reached from other hosts, or is an IPv4 address written as IPv6.
    NotLoopback,
    /// Port 0 lets the kernel choose, and then no scraper knows where to look.
    PortZero,
}

impl LoopbackAddr {
    /// Applies the rule to an address, wherever it came from.
    ///
    /// # Errors
    ///
    /// [`LoopbackError::NotLoopback`] and [`LoopbackError::PortZero`]. An IPv4-mapped IPv6 address such as
    /// `[::ffff:127.0.0.1]` is refused: whether it stays on this host depends on the system's settings.
    pub fn check(address: SocketAddr) -> Result<Self, LoopbackError> {
        if !is_loopback(address.ip()) {
            return Err(LoopbackError::NotLoopback);
        }
        if address.port() == 0 {
            return Err(LoopbackError::PortZero);
        }
        // Built anew, so that an IPv6 scope or flow label does not travel along.
        Ok(Self(SocketAddr::new(address.ip(), address.port())))
    }

    /// The address itself.
    #[must_use]
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

/// Whether only this host can reach the address: 127.0.0.0/8 and `[::1]`. An IPv4-mapped IPv6 address does not count.
///
/// The rule itself, apart from the port: a socket that is already bound has one.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST,
    }
}

impl FromStr for LoopbackAddr {
    type Err = LoopbackError;

    fn from_str(text: &str) -> Result<Self, LoopbackError> {
        let address = text.parse().map_err(|_| LoopbackError::NotALiteral)?;
        Self::check(address)
    }
}

impl From<LoopbackAddr> for SocketAddr {
    fn from(address: LoopbackAddr) -> Self {
        address.0
    }
}

impl fmt::Display for LoopbackAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LoopbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotALiteral => "is not an IP literal with a port",
            Self::NotLoopback => "is not a loopback address",
            Self::PortZero => "has port 0, where no scraper could find it",
        })?;
        f.write_str("; allowed: an address in 127.0.0.0/8 or [::1] with a port from 1 to 65535, such as \"127.0.0.1:9090\"")
    }
}

impl std::error::Error for LoopbackError {}
