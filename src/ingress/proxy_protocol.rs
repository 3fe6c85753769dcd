//! The PROXY protocol, versions 1 and 2: the header that a TCP load balancer puts before everything else on a connection, to
//! say whose it is.
//!
//! The header is peeked at and then taken to its last byte and no further, so what follows, be it TLS or HTTP, finds the socket
//! as if there had been no header. How long a header is, is found out here; what it says is for the crate `ppp` to read.
//!
//! Specification: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::IpAddr;

use ppp::v1::{Addresses as AddressesV1, Header as HeaderV1};
use ppp::v2::{Addresses as AddressesV2, Command, Header as HeaderV2, Protocol};
use smol::io::AsyncReadExt;

use super::socket::Socket;

/// How version 2 begins (§ 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, a version, a family and a length.
const FIXED: usize = SIGNATURE.len() + 4;
/// How version 1 begins (§ 2.1), and the most bytes that it has.
const WORD: &[u8] = b"PROXY ";
const LONGEST_LINE: usize = 107;

/// The longest header that is taken: addresses, and what load balancers add about TLS and their network.
const LONGEST: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The connection of this client is passed on.
    Client(IpAddr),
    /// The load balancer speaks for itself, to see whether somebody is here (`LOCAL`), or does not know for whom (`UNKNOWN`).
    Nobody,
}

/// Why there is no header.
#[derive(Debug)]
pub enum NoHeader {
    /// The connection ended before its first byte.
    HungUp,
    /// What came is not a header, or not one that names a TCP client.
    Malformed,
    /// The socket failed, or ended in the middle of the header.
    Failed(io::Error),
}

/// Takes the header off a connection.
///
/// # Errors
/// There is none; the connection is good for nothing else then.
pub async fn read(socket: &mut Socket) -> Result<Named, NoHeader> {
    let mut header = vec![0; LONGEST];
    let mut taken = 0;
    loop {
        let room = header.get_mut(taken..).unwrap_or_default();
        let seen = match socket.peek(room).await.map_err(NoHeader::Failed)? {
            0 if taken == 0 => return Err(NoHeader::HungUp),
            0 => return Err(NoHeader::Failed(io::ErrorKind::UnexpectedEof.into())),
            seen => taken + seen,
        };
        let extent = extent(header.get(..seen).unwrap_or_default());
        let end = match extent {
            Extent::Whole(end) => end,
            Extent::Incomplete => seen,
            Extent::Malformed => return Err(NoHeader::Malformed),
        };
        let part = header.get_mut(taken..end).unwrap_or_default();
        socket.read_exact(part).await.map_err(NoHeader::Failed)?;
        taken = end;
        if let Extent::Whole(end) = extent {
            return parse(header.get(..end).unwrap_or_default()).ok_or(NoHeader::Malformed);
        }
    }
}

/// How far a header goes, as far as its beginning tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Incomplete,
    Whole(usize),
    Malformed,
}

fn extent(bytes: &[u8]) -> Extent {
    let begins_like = |begin: &[u8]| bytes.iter().zip(begin).all(|(byte, wanted)| byte == wanted);
    let whole = if begins_like(SIGNATURE) {
        let length = bytes.get(FIXED - 2).zip(bytes.get(FIXED - 1));
        length.map(|(high, low)| FIXED + usize::from(u16::from_be_bytes([*high, *low])))
    } else if begins_like(WORD) {
        let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
        match line.iter().position(|byte| *byte == b'\n') {
            None if line.len() == LONGEST_LINE => return Extent::Malformed,
            end => end.map(|end| end + 1),
        }
    } else {
        return Extent::Malformed;
    };
    match whole {
        Some(end) if end > LONGEST => Extent::Malformed,
        Some(end) if end <= bytes.len() => Extent::Whole(end),
        _ => Extent::Incomplete,
    }
}

/// What a whole header says.
fn parse(header: &[u8]) -> Option<Named> {
    let client = |address: IpAddr| Some(Named::Client(address.to_canonical()));
    if header.starts_with(WORD) {
        return match HeaderV1::try_from(header).ok()?.addresses {
            AddressesV1::Tcp4(addresses) => client(addresses.source_address.into()),
            AddressesV1::Tcp6(addresses) => client(addresses.source_address.into()),
            AddressesV1::Unknown => Some(Named::Nobody),
        };
    }
    let header = HeaderV2::try_from(header).ok()?;
    match (header.command, header.protocol, header.addresses) {
        (Command::Local, ..) | (Command::Proxy, _, AddressesV2::Unspecified) => Some(Named::Nobody),
        (Command::Proxy, Protocol::Stream, AddressesV2::IPv4(addresses)) => {
            client(addresses.source_address.into())
        }
        (Command::Proxy, Protocol::Stream, AddressesV2::IPv6(addresses)) => {
            client(addresses.source_address.into())
        }
        // A datagram's or a local socket's client has no address that could be limited.
        (Command::Proxy, ..) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    fn v4_body(source: [u8; 4]) -> Vec<u8> {
        [&source[..], &[192, 0, 2, 1], &[0x12, 0x34, 0, 80]].concat()
    }

    /// What a header says that is followed by something else.
    fn said(header: &[u8]) -> Option<Named> {
        let bytes = [header, b"GET / HTTP/1.1\r\n"].concat();
        match extent(&bytes) {
            Extent::Whole(end) => {
                assert_eq!(end, header.len(), "{:?}", String::from_utf8_lossy(header));
                parse(&bytes[..end])
            }
            Extent::Incomplete | Extent::Malformed => None,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what it is compared with")]
    fn named(address: &str) -> Option<Named> {
        Some(Named::Client(address.parse().unwrap()))
    }

    #[test]
    fn a_line_of_version_1() {
        for (line, says) in [
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", named("203.0.113.9")),
            ("PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n", named("2001:db8::9")),
            ("PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n", named("203.0.113.9")),
            ("PROXY UNKNOWN\r\n", Some(Named::Nobody)),
            ("PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n", Some(Named::Nobody)),
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\n", None),
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n", None),
            ("PROXY TCP4\r\n", None),
            ("PROXY TCP4 203.0.113.256 192.0.2.1 4711 443\r\n", None),
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n", None),
            ("PROXY TCP4 2001:db8::9 2001:db8::1 4711 443\r\n", None),
            ("PROXY TCP6 203.0.113.9 192.0.2.1 4711 443\r\n", None),
            ("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 \r\n", None),
            ("PROXY UDP4 203.0.113.9 192.0.2.1 4711 443\r\n", None),
            ("PROXY \r\n", None),
        ] {
            assert_eq!(said(line.as_bytes()), says, "{line:?}");
        }
    }

    #[test]
    fn a_header_of_version_2() {
        let v6 =
            [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 16], &[0, 1, 0, 2]].concat();
        let mapped =
            [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9][..], &[0; 16], &[0; 4]].concat();
        let v4 = v4_body([203, 0, 113, 9]);
        let with_more = [&v4[..], &[0x20, 0, 5, 1, 2, 3, 4, 5]].concat();
        for (what, header, says) in [
            ("IPv4", v2(1, 0x11, &v4), named("203.0.113.9")),
            ("IPv4 and more", v2(1, 0x11, &with_more), named("203.0.113.9")),
            ("IPv6", v2(1, 0x21, &v6), named("2001:db8::9")),
            ("IPv4 as IPv6", v2(1, 0x21, &mapped), named("203.0.113.9")),
            ("local", v2(0, 0, &[]), Some(Named::Nobody)),
            ("local with addresses", v2(0, 0x11, &v4), Some(Named::Nobody)),
            ("unspecified", v2(1, 0, &[]), Some(Named::Nobody)),
            ("datagrams", v2(1, 0x12, &v4), None),
            ("a local socket", v2(1, 0x31, &[0; 216]), None),
            ("too short for its addresses", v2(1, 0x11, &v4[..11]), None),
            ("an unknown command", v2(2, 0x11, &v4), None),
            ("an unknown family", v2(1, 0x41, &v4), None),
            (
                "the longest",
                v2(1, 0x11, &[&v4[..], &vec![4; LONGEST - FIXED - 12]].concat()),
                named("203.0.113.9"),
            ),
        ] {
            assert_eq!(said(&header), says, "{what}");
        }
        let mut another_version = v2(1, 0x11, &v4);
        another_version[12] = 0x31;
        assert_eq!(said(&another_version), None);
        assert_eq!(extent(&v2(1, 0x11, &vec![0; LONGEST - FIXED + 1])), Extent::Malformed);
    }

    #[test]
    fn what_is_no_header_is_seen_by_its_first_wrong_byte() {
        for bytes in
            [&b"GET "[..], b"\x16\x03\x01", b"PROXX", b"\r\n\r\n\0\r\nQUIT\r", b"\r\n\r\nx", b"proxy"]
        {
            assert_eq!(extent(bytes), Extent::Malformed, "{bytes:?}");
            assert_eq!(
                extent(&bytes[..bytes.len() - 1]) == Extent::Malformed,
                bytes == b"GET " || bytes == b"\x16\x03\x01" || bytes == b"proxy"
            );
        }
        let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
        assert_eq!(extent(&endless[..106]), Extent::Incomplete);
        assert_eq!(extent(&endless[..107]), Extent::Malformed);
        let longest = [b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat();
        assert_eq!((longest.len(), said(&longest)), (107, Some(Named::Nobody)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_alike_whole_and_in_pieces(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300))
                    .prop_map(|(command, family, body)| v2(command & 3, family & 0x33, &body)),
                "PROXY (TCP4|TCP6|UNKNOWN)[ 0-9a-f.:\r]{0,100}\r?\n?".prop_map(String::into_bytes),
            ],
        ) {
            let whole = extent(&bytes);
            for end in 0..bytes.len() {
                match extent(&bytes[..end]) {
                    Extent::Incomplete => {}
                    Extent::Malformed => prop_assert_eq!(whole, Extent::Malformed),
                    Extent::Whole(length) => prop_assert_eq!(whole, Extent::Whole(length)),
                }
            }
            if let Extent::Whole(end) = whole {
                let _ = parse(&bytes[..end]);
            }
        }
    }
}
