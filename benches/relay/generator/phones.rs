//! What the phones of a case send, and how it is recognized: each phone's frames differ in a number and are otherwise the
//! same, so that they are made beforehand, numbered with a copy of eight bytes, and checked with one comparison.

use std::ops::Range;

use super::clients::Clients;
use super::dial::{Dialler, Who};
use crate::Result;
use crate::case::Order;
use crate::wire::{AFTER_DIGITS, BEFORE_DIGITS, DIGITS, ENVELOPE_START};

/// Where a frame has its phone, and its number, each in hex.
const PHONE: Range<usize> = 6..10;
const NUMBER: Range<usize> = 19..27;

/// The frames that go one way between a phone and its binary: made, or expected, one after the other.
pub(crate) struct Frames {
    frame: Vec<u8>,
    /// The number of the next one.
    pub(crate) next: u32,
}

impl Frames {
    pub(crate) fn new(phone: usize, len: usize) -> Result<Self> {
        let mut frame = format!("{{\"p\":\"{phone:04x}\",\"seq\":\"00000000\",\"d\":\"").into_bytes();
        if len < frame.len() + 2 {
            return Err("such small frames are not made".into());
        }
        frame.resize(len - 2, b'x');
        frame.extend_from_slice(b"\"}");
        Ok(Self { frame, next: 0 })
    }

    /// The next frame.
    #[inline]
    pub(crate) fn make(&mut self) -> &[u8] {
        self.frame[NUMBER].copy_from_slice(&hex(self.next));
        self.next = self.next.wrapping_add(1);
        &self.frame
    }

    /// Makes sure that this is the next frame.
    #[inline]
    pub(crate) fn check(&mut self, came: &[u8]) -> Result<()> {
        if came == self.make() { Ok(()) } else { Err(self.is_wrong(came)) }
    }

    #[cold]
    fn is_wrong(&self, came: &[u8]) -> Box<dyn std::error::Error> {
        let show = |bytes: &[u8]| bytes[..bytes.len().min(60)].escape_ascii().to_string();
        format!(
            "not the frame that was to come: {} ({} bytes) in place of {} ({} bytes)",
            show(came),
            came.len(),
            show(&self.frame),
            self.frame.len()
        )
        .into()
    }
}

/// A phone, and its side of its binary.
pub(crate) struct Phone {
    pub(crate) client: usize,
    pub(crate) binary: usize,
    /// What it is to its binary: an envelope with an empty frame, for copying.
    envelope: Option<[u8; ENVELOPE_START]>,
}

impl Phone {
    /// What stands in front of a frame for this phone.
    pub(crate) fn envelope(&self) -> Result<&[u8; ENVELOPE_START]> {
        Ok(self.envelope.as_ref().ok_or("the binary has not heard of this phone yet")?)
    }
}

/// The binaries and phones of a case.
pub(crate) struct Phones {
    pub(crate) list: Vec<Phone>,
    /// The phone of a client; for a binary `None`.
    by_client: Vec<Option<usize>>,
}

impl Phones {
    /// Connects all of them: each binary and then its phones.
    pub(crate) fn connect(
        clients: &mut Clients,
        dialler: &mut Dialler,
        servers: Range<usize>,
        phones: usize,
    ) -> Result<Self> {
        let mut all = Self { list: Vec::new(), by_client: Vec::new() };
        for server in servers {
            let binary = clients.connect(dialler, Who::Binary, server)?;
            all.by_client.resize(binary + 1, None);
            for _ in 0..phones {
                let client = clients.connect(dialler, Who::Phone, server)?;
                all.by_client.resize(client + 1, None);
                all.by_client[client] = Some(all.list.len());
                all.list.push(Phone { client, binary, envelope: None });
            }
        }
        Ok(all)
    }

    /// Those of an order.
    pub(crate) fn of(order: &Order, clients: &mut Clients) -> Result<Self> {
        let mut dialler = Dialler::new(order)?;
        Self::connect(clients, &mut dialler, 0..order.case.binaries, order.case.phones)
    }

    /// The phone that a client is, unless it is a binary.
    #[inline]
    pub(crate) fn at(&self, client: usize) -> Option<usize> {
        self.by_client.get(client).copied().flatten()
    }

    /// The phone that an envelope is from, and the frame in it. A phone keeps the `conn_id` with which it came first.
    #[inline]
    pub(crate) fn open<'a>(&mut self, binary: usize, envelope: &'a [u8]) -> Result<(usize, &'a [u8])> {
        let opened = envelope.split_first_chunk::<ENVELOPE_START>().and_then(|(start, rest)| {
            let frame = rest.strip_suffix(b"}")?;
            let is_proper = start.starts_with(BEFORE_DIGITS) && start.ends_with(AFTER_DIGITS);
            let phone = std::str::from_utf8(frame.get(PHONE)?).ok()?;
            let phone = usize::from_str_radix(phone, 16).ok()?;
            let known = self.list.get_mut(phone).filter(|known| known.binary == binary && is_proper)?;
            (*known.envelope.get_or_insert(*start) == *start).then_some((phone, frame))
        });
        opened.ok_or_else(|| {
            let show = envelope[..envelope.len().min(100)].escape_ascii();
            format!("an envelope that is not of a phone of this binary: {show}").into()
        })
    }

    /// Makes sure that no two phones of a binary have the same `conn_id`.
    pub(crate) fn are_distinct(&self) -> Result<()> {
        let mut seen = std::collections::HashSet::new();
        let all = self.list.iter().filter_map(|phone| Some((phone.binary, phone.envelope?[DIGITS].to_vec())));
        for one in all {
            if !seen.insert(one) {
                return Err("two phones of one binary have the same conn_id".into());
            }
        }
        Ok(())
    }
}

/// Whether an envelope says that a phone has gone, and has no frame.
pub(crate) fn is_notice(envelope: &[u8]) -> bool {
    envelope.get(DIGITS.end..).is_some_and(|rest| rest.starts_with(b"\",\"close_code\":"))
}

/// A number as eight hex digits.
#[inline]
fn hex(number: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (digit, shift) in digits.iter_mut().zip([28, 24, 20, 16, 12, 8, 4, 0]) {
        *digit = b"0123456789abcdef"[(number >> shift) as usize & 0xf];
    }
    digits
}
