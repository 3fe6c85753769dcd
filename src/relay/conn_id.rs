//! The name of one phone's connection, as the binary sees it.
//!
//! A [`ConnId`] is 64 bits from the operating system's random source. On the wire it is `c-` and 16 lowercase
//! hex digits (PROTOCOL § 2); inside the relay it is the number, which is cheap to copy, compare and hash.
//! There is exactly one text for each number, so two different texts never name the same phone.

use std::fmt;
use std::str::FromStr;

/// What every `conn_id` starts with.
const PREFIX: &str = "c-";

/// Hex digits after the prefix.
const DIGITS: usize = 16;

/// The name of one phone's connection within its server-id.
///
/// ```
/// use pyrycode_relay::relay::conn_id::ConnId;
///
/// let id = ConnId::from_u64(0xfeed);
/// assert_eq!(id.to_string(), "c-000000000000feed");
/// assert_eq!(ConnId::parse("c-000000000000feed"), Some(id));
/// assert_eq!(ConnId::parse("c-000000000000FEED"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The length of the text in bytes.
    pub const TEXT_LEN: usize = PREFIX.len() + DIGITS;

    /// A new one from the operating system's random source (PROTOCOL § 2).
    ///
    /// Whoever registers it still checks that it is unique within its server-id.
    ///
    /// # Errors
    ///
    /// When the operating system has no random bytes to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        getrandom::u64().map(Self)
    }

    /// The one with this number: for tests and simulations, which must be repeatable.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Reads the text that `Display` writes. Anything else, also an upper-case digit, is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?.as_bytes();
        if digits.len() != DIGITS {
            return None;
        }
        // By hand: `u64::from_str_radix` would also take upper case and a plus sign.
        digits
            .iter()
            .try_fold(0_u64, |number, &digit| {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                Some(number << 4 | u64::from(value))
            })
            .map(Self)
    }

    /// Appends the text to `out`. The path of every frame: it does without the formatting machinery.
    pub(crate) fn push_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX.as_bytes());
        let digits = self.0.to_be_bytes().map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        out.extend_from_slice(digits.as_flattened());
    }
}

/// The lowercase hex digit for a value below 16.
fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + (value - 10) }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0DIGITS$x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// The text is not that of a [`ConnId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAConnId;

impl fmt::Display for NotAConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a conn_id: c- and 16 lowercase hex digits are expected")
    }
}

impl std::error::Error for NotAConnId {}

impl FromStr for ConnId {
    type Err = NotAConnId;

    fn from_str(text: &str) -> Result<Self, NotAConnId> {
        Self::parse(text).ok_or(NotAConnId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_two_forms_of_one_thing() {
        for (number, text) in [
            (0, "c-0000000000000000"),
            (1, "c-0000000000000001"),
            (0x0123_4567_89ab_cdef, "c-0123456789abcdef"),
            (0xdead_beef, "c-00000000deadbeef"),
            (u64::MAX, "c-ffffffffffffffff"),
        ] {
            let id = ConnId::from_u64(number);
            let mut pushed = Vec::new();
            id.push_to(&mut pushed);
            assert_eq!(pushed, text.as_bytes());
            assert_eq!(id.to_string(), text);
            assert_eq!(ConnId::parse(text), Some(id));
            assert_eq!(text.len(), ConnId::TEXT_LEN);
        }
    }

    #[test]
    fn every_other_text_is_refused() {
        for text in [
            "",
            "c-",
            "c",
            "0123456789abcdef",
            "c-0123456789abcde",
            "c-0123456789abcdef0",
            "c-0123456789ABCDEF",
            "c-0123456789abcdeF",
            "C-0123456789abcdef",
            "c_0123456789abcdef",
            "c-0123456789abcdeg",
            "c-0123456789abcde/",
            "c-0123456789abcde:",
            "c-0123456789abcde`",
            "c-+123456789abcdef",
            "c--123456789abcdef",
            "c-0x23456789abcdef",
            "c-0123456789abcde ",
            " c-0123456789abcdef",
            "c-0123456789abcd\u{e9}",
            "c-\u{ff10}123456789abc1",
            "c-0123456789abcde\0",
            "\u{e9}-0123456789abcdef",
        ] {
            assert_eq!(ConnId::parse(text), None, "{text:?}");
            assert_eq!(text.parse::<ConnId>(), Err(NotAConnId), "{text:?}");
        }
    }

    #[test]
    fn random_ones_differ_and_read_back() {
        let first = ConnId::random().unwrap();
        let second = ConnId::random().unwrap();
        assert_ne!(first, second);
        assert_eq!(ConnId::parse(&first.to_string()), Some(first));
        assert_eq!(format!("{first:?}"), format!("ConnId({first})"));
    }
}
