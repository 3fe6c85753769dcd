//! The close codes that a binary may ask for (PROTOCOL § 3).
//!
//! A [`CloseCode`] can only be made of a legal number, so whoever holds one may put it into a close frame.

use super::Malformed;

/// Whether a binary may ask for this close code: 1000 to 4999 without 1004, 1005, 1006 and 1015, which must not
/// be sent in a close frame (PROTOCOL § 3).
#[must_use]
pub const fn is_legal_close_code(code: u16) -> bool {
    matches!(code, 1000..=4999) && !matches!(code, 1004..=1006 | 1015)
}

/// A close code for which [`is_legal_close_code`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The close code with this number, if it is legal.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if is_legal_close_code(code) { Some(Self(code)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The meaning of a `close_code`, given as the text of a JSON value: 0 is none. Only the plain notation of an
    /// integer is understood: `4.4e3`, `4401.0` and `-0` are refused, whatever they are equal to.
    pub(super) fn parse(raw: &str) -> Result<Option<Self>, Malformed> {
        if !raw.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed::BadCloseCode);
        }
        // JSON has no leading zeros, so nothing but "0" is zero; what does not fit is not legal either.
        match raw.parse() {
            Ok(0) => Ok(None),
            Ok(code) => Self::new(code).map(Some).ok_or(Malformed::BadCloseCode),
            Err(_) => Err(Malformed::BadCloseCode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::envelope::unwrap_text;

    #[test]
    fn a_close_code_is_a_plain_legal_integer() {
        for code in (1000..=4999).filter(|code| ![1004, 1005, 1006, 1015].contains(code)) {
            assert!(is_legal_close_code(code), "{code}");
            assert_eq!(CloseCode::parse(&code.to_string()), Ok(CloseCode::new(code)), "{code}");
        }
        for code in (0..1000).chain([1004, 1005, 1006, 1015]).chain(5000..=u16::MAX) {
            assert!(!is_legal_close_code(code), "{code}");
            assert_eq!(CloseCode::new(code), None, "{code}");
            let expected = if code == 0 { Ok(None) } else { Err(Malformed::BadCloseCode) };
            assert_eq!(CloseCode::parse(&code.to_string()), expected, "{code}");
        }
        for raw in [
            "null",
            "true",
            "\"4401\"",
            "[4401]",
            "{}",
            "4401.0",
            "4.4e3",
            "44e2",
            "-0",
            "0.0",
            "0e0",
            "-1000",
            "-4401",
            "65536",
            "69937",
            "18446744073709551616",
            "99999999999999999999999999",
        ] {
            let message = format!(r#"{{"conn_id":"x","frame":1,"close_code":{raw}}}"#);
            assert_eq!(unwrap_text(&message), Err(Malformed::BadCloseCode), "{message}");
            assert_eq!(CloseCode::parse(raw), Err(Malformed::BadCloseCode), "{raw}");
        }
    }
}
