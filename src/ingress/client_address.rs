//! Whose request it is: the other end of the TCP connection, or whom a trusted proxy names.
//!
//! A header is believed only from a peer in `client_address.trusted`; from anybody else it is ignored. A trusted peer that
//! names nobody is not taken for a client itself: then everybody behind it would share one limit, and nobody would notice.
//! Its requests are refused until it does.
//!
//! For the limits an address is reduced to a [`ClientKey`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

use crate::config::{ClientAddress, ClientAddressSource};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the limits count a client by: an IPv4 address, or the /64 of an IPv6 one, which is what one customer has. An
/// IPv4 address that is written as IPv6 counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl ClientKey {
    /// The address; of an IPv6 network its first.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(bits) => Ipv4Addr::from_bits(bits).into(),
            Self::V6(network) => Ipv6Addr::from_bits(u128::from(network) << 64).into(),
        }
    }
}

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                // What is left after the shift always fits.
                let network = u64::try_from(address.to_bits() >> 64).unwrap_or_default();
                Self::V6(network)
            }
        }
    }
}

/// Why a request has no usable client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The proxy sent no `X-Forwarded-For`.
    Missing,
    /// The entry that counts is no IP address.
    Malformed,
}

impl Unusable {
    /// In words, for the log and for whoever reads the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "the proxy sent no x-forwarded-for",
            Self::Malformed => "x-forwarded-for does not end in an IP address",
        }
    }
}

/// What is configured about proxies.
#[derive(Clone, Debug)]
pub struct Proxies {
    source: ClientAddressSource,
    trusted: Vec<IpNet>,
}

impl Proxies {
    /// As configured.
    #[must_use]
    pub fn new(config: &ClientAddress) -> Self {
        Self { source: config.source, trusted: config.trusted.iter().map(canonical).collect() }
    }

    /// Whether connections begin with a PROXY protocol header.
    #[must_use]
    pub fn speak_proxy_protocol(&self) -> bool {
        self.source == ClientAddressSource::ProxyProtocol
    }

    /// Whether what this peer says about others is believed.
    #[must_use]
    pub fn trust(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    /// Whose request this is. `peer` is the other end of the connection, or whom the PROXY protocol named.
    ///
    /// Of `X-Forwarded-For` it is the right-most entry that is not a trusted proxy itself, all lines of the header taken
    /// together in their order. What stands left of it was sent by the client and is not looked at. If all entries are
    /// trusted, the request comes from one of those hosts: the left-most.
    ///
    /// # Errors
    /// A trusted peer named nobody.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Unusable> {
        let peer = peer.to_canonical();
        if self.source != ClientAddressSource::XForwardedFor || !self.trust(peer) {
            return Ok(peer);
        }
        let mut client = Err(Unusable::Missing);
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        for entry in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
            let address = entry_address(entry).ok_or(Unusable::Malformed)?;
            client = Ok(address);
            if !self.trust(address) {
                break;
            }
        }
        client
    }
}

/// An entry of `X-Forwarded-For`: an address, which may have a port, and brackets if it is IPv6.
fn entry_address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = entry
        .parse::<IpAddr>()
        .ok()
        .or_else(bracketed)
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// A network of IPv4 addresses that is written as IPv6, as what it is.
fn canonical(network: &IpNet) -> IpNet {
    let IpNet::V6(wide) = network else { return *network };
    let address = wide.addr().to_ipv4_mapped().zip(wide.prefix_len().checked_sub(96));
    address.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(*network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(source: ClientAddressSource, trusted: &[&str]) -> Proxies {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Proxies::new(&ClientAddress { source, trusted })
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap());
        lines.map(|line| (X_FORWARDED_FOR, line)).collect()
    }

    fn behind(trusted: &[&str], peer: &str, lines: &[&str]) -> Result<String, Unusable> {
        let proxies = proxies(ClientAddressSource::XForwardedFor, trusted);
        proxies.client(peer.parse().unwrap(), &headers(lines)).map(|client| client.to_string())
    }

    #[expect(clippy::unnecessary_wraps, reason = "what it is compared with")]
    fn ok(address: &str) -> Result<String, Unusable> {
        Ok(address.to_owned())
    }

    #[test]
    fn a_header_is_believed_from_a_trusted_peer_only() {
        let trusted = ["10.0.0.0/8", "::1/128"];
        assert_eq!(behind(&trusted, "10.1.2.3", &["203.0.113.9"]), ok("203.0.113.9"));
        assert_eq!(behind(&trusted, "::ffff:10.1.2.3", &["203.0.113.9"]), ok("203.0.113.9"));
        assert_eq!(behind(&trusted, "::1", &["2001:db8::7"]), ok("2001:db8::7"));
        for stranger in ["11.0.0.1", "::2", "203.0.113.7"] {
            assert_eq!(behind(&trusted, stranger, &["203.0.113.9"]), ok(stranger));
            assert_eq!(behind(&trusted, stranger, &["garbage"]), ok(stranger));
        }
        let peer = proxies(ClientAddressSource::Peer, &[]);
        let address = "10.1.2.3".parse().unwrap();
        assert_eq!(peer.client(address, &headers(&["203.0.113.9"])), Ok(address));
    }

    #[test]
    fn of_several_entries_the_right_most_that_is_not_trusted_counts() {
        let trusted = ["10.0.0.0/8", "192.0.2.0/24"];
        for (lines, client) in [
            (&["1.1.1.1, 203.0.113.9"][..], "203.0.113.9"),
            (&["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            (&["203.0.113.9, 192.0.2.7", "10.0.0.2"], "203.0.113.9"),
            (&["garbage, 203.0.113.9 ,\t10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["::ffff:10.9.9.9,203.0.113.9, ::ffff:10.0.0.1"], "203.0.113.9"),
            // Nobody but proxies: the farthest of them asks for itself.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(behind(&trusted, "10.0.0.1", lines), ok(client), "{lines:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_that_names_nobody_is_no_client() {
        for (lines, why) in [
            (&[][..], Unusable::Missing),
            (&[""], Unusable::Malformed),
            (&["unknown"], Unusable::Malformed),
            (&["203.0.113.9,"], Unusable::Malformed),
            (&["203.0.113.9, 203.0.113.256"], Unusable::Malformed),
            (&["203.0.113.9 203.0.113.8"], Unusable::Malformed),
            (&["garbage, 10.0.0.2"], Unusable::Malformed),
            (&["fe80::1%eth0"], Unusable::Malformed),
            (&["203.0.113.9;for=1.1.1.1"], Unusable::Malformed),
            (&["caf\u{e9}"], Unusable::Malformed),
        ] {
            assert_eq!(behind(&["10.0.0.0/8"], "10.0.0.1", lines), Err(why), "{lines:?}");
        }
        assert!(Unusable::Missing.as_str().contains("no x-forwarded-for"));
    }

    #[test]
    fn a_trusted_network_may_be_written_as_ipv6() {
        let proxies = proxies(ClientAddressSource::XForwardedFor, &["::ffff:10.0.0.0/104", "2001:db8::/32"]);
        let trusts = |peer: &str| proxies.trust(peer.parse().unwrap());
        assert!(trusts("10.255.0.1") && trusts("::ffff:10.0.0.1") && trusts("2001:db8:1::1"));
        assert!(!trusts("11.0.0.1") && !trusts("2001:db9::1"));
    }

    #[test]
    fn ipv6_counts_by_its_64_bits_and_mapped_ipv4_as_ipv4() {
        let key = |address: &str| ClientKey::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1").address().to_string(), "192.0.2.1");
        assert_eq!(key("2001:db8:1:2:3::4").address().to_string(), "2001:db8:1:2::");
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
            any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()))
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_moves_the_address_that_the_proxy_saw(
            forged in proptest::collection::vec("[ -~\u{80}-\u{ff}]{0,40}", 0..4),
            client in any_address(),
            port in proptest::option::of(any::<u16>()),
        ) {
            let proxies = proxies(ClientAddressSource::XForwardedFor, &["192.0.2.1/32"]);
            prop_assume!(!proxies.trust(client));
            let seen = port.map_or_else(|| client.to_string(), |port| SocketAddr::new(client, port).to_string());
            let peer = "192.0.2.1".parse().unwrap();
            // A proxy appends to the last line, or adds a line of its own.
            let forged: Vec<_> = forged.iter().map(String::as_str).collect();
            let mut appended = forged.clone();
            let last = appended.pop().map_or_else(|| seen.clone(), |last| format!("{last}, {seen}"));
            appended.push(&last);
            let own_line = [&forged[..], &[seen.as_str()]].concat();
            for lines in [appended, own_line] {
                prop_assert_eq!(proxies.client(peer, &headers(&lines)), Ok(client.to_canonical()));
            }
        }

        #[test]
        fn any_bytes_are_an_address_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let proxies = proxies(ClientAddressSource::XForwardedFor, &["192.0.2.1/32"]);
            let peer = "192.0.2.1".parse().unwrap();
            if let Ok(line) = HeaderValue::from_bytes(&bytes) {
                let client = proxies.client(peer, &HeaderMap::from_iter([(X_FORWARDED_FOR, line)]));
                prop_assert!(!matches!(client, Err(Unusable::Missing)));
            }
        }
    }
}
