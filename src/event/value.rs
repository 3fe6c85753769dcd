//! How one value of an event is shown, so that nobody can forge a line or a field.
//!
//! Three kinds of values exist. What comes from outside the program (a header, an identifier from an envelope,
//! a file name, an error text) is an [`Outside`]: escaped to printable ASCII and, in text, always quoted. What
//! the program itself made (an address, a word of a closed set) is [`Plain`]. Figures are [`Count`] and
//! [`Seconds`], so that they stay figures in JSON.
//!
//! Nothing is formatted when a value is made, only when an output asks for it: a filtered event costs no
//! formatting.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

/// More of an outside value than this many bytes is not logged: whoever chooses the value must not choose how
/// much of the log it fills. Every header that the relay accepts is shorter.
const OUTSIDE_MAX: usize = 1024;

/// Stands for what [`OUTSIDE_MAX`] cut off.
const CUT: &str = "...";

/// A value that somebody else chose. Shows as printable ASCII without line breaks, every other byte as `\xHH`, and
/// cut after 1024 bytes. In the readable line (`{:#}`) it stands in quotes, so there `"` and `\` are escaped too; the
/// structured outputs have their own ways to keep values apart.
#[derive(Clone, Copy)]
pub(super) enum Outside<'a> {
    /// Something that shows itself as text.
    Text(&'a dyn Display),
    /// Bytes that need not be UTF-8.
    Bytes(&'a [u8]),
}

impl Display for Outside<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut escape = Escape { quoted: f.alternate(), out: f, left: OUTSIDE_MAX };
        match self {
            Self::Text(text) => {
                // The cut makes the writer fail on purpose, and a value whose own `Display` fails has at least
                // shown what it could: neither may spoil the line.
                let _ = write!(escape, "{text}");
                Ok(())
            }
            Self::Bytes(bytes) => escape.bytes(bytes).or(Ok(())),
        }
    }
}

/// Escapes what is written through it.
struct Escape<'a, 'b> {
    quoted: bool,
    out: &'a mut Formatter<'b>,
    left: usize,
}

impl Escape<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> fmt::Result {
        for &byte in bytes {
            let Some(left) = self.left.checked_sub(1) else {
                self.out.write_str(CUT)?;
                return Err(fmt::Error);
            };
            self.left = left;
            match byte {
                b'"' if self.quoted => self.out.write_str("\\\"")?,
                b'\\' if self.quoted => self.out.write_str("\\\\")?,
                b' '..=b'~' => self.out.write_char(char::from(byte))?,
                _ => write!(self.out, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes())
    }
}

/// A value that the program made and that cannot hold a space, a quote or a line break.
pub(super) struct Plain<T>(pub(super) T);

/// A number of things.
pub(super) struct Count(pub(super) u64);

impl From<usize> for Count {
    fn from(count: usize) -> Self {
        Self(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

/// A duration, shown as seconds with milliseconds.
pub(super) struct Seconds(pub(super) Duration);

/// How a value shows in the readable line and in the structured outputs.
pub(super) trait Value {
    /// What the structured outputs get.
    type Field<'a>: tracing::Value
    where
        Self: 'a;

    /// For the structured outputs, without quotes.
    fn field(&self) -> Self::Field<'_>;

    /// For the readable line: ` key=value`, or nothing for a value that is absent.
    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result;
}

impl<'v> Value for Outside<'v> {
    type Field<'a>
        = tracing::field::DisplayValue<Outside<'v>>
    where
        Self: 'a;

    fn field(&self) -> Self::Field<'_> {
        tracing::field::display(*self)
    }

    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {key}=\"{self:#}\"")
    }
}

impl<T: Display> Value for Plain<T> {
    type Field<'a>
        = tracing::field::DisplayValue<&'a T>
    where
        Self: 'a;

    fn field(&self) -> Self::Field<'_> {
        tracing::field::display(&self.0)
    }

    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {key}={}", self.0)
    }
}

impl Value for Count {
    type Field<'a> = u64;

    fn field(&self) -> u64 {
        self.0
    }

    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {key}={}", self.0)
    }
}

impl Value for Seconds {
    type Field<'a> = f64;

    fn field(&self) -> f64 {
        // Whole milliseconds: the digits beyond say nothing here and differ between outputs.
        (self.0.as_secs_f64() * 1000.0).round() / 1000.0
    }

    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {key}={:.3}s", self.0.as_secs_f64())
    }
}

impl<T: Value> Value for Option<T> {
    type Field<'a>
        = Option<T::Field<'a>>
    where
        Self: 'a;

    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "Rust 1.85 rejects the method's own path here"
    )]
    fn field(&self) -> Self::Field<'_> {
        self.as_ref().map(|value| value.field())
    }

    fn pair(&self, key: &str, f: &mut Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |value| value.pair(key, f))
    }
}

/// One ` key=value` of a readable line.
pub(super) struct Pair<'a, V>(pub(super) &'static str, pub(super) &'a V);

impl<V: Value> Display for Pair<'_, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.1.pair(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outside_value_is_printable_ascii_on_one_line() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let shown = Outside::Bytes(&every_byte).to_string();
        assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown}");
        assert!(shown.starts_with("\\x00\\x01"));
        assert!(shown.contains(" !\"#$"), "{shown}");
        let quoted = format!("{:#}", Outside::Bytes(&every_byte));
        assert!(quoted.contains(" !\\\"#$") && quoted.contains("[\\\\]"), "{quoted}");
        assert_eq!(
            Outside::Text(&"a\u{1b}[31m\u{2028}\u{e9}").to_string(),
            "a\\x1b[31m\\xe2\\x80\\xa8\\xc3\\xa9"
        );
    }

    #[test]
    fn an_outside_value_is_cut() {
        let long = "x".repeat(OUTSIDE_MAX + 1);
        assert_eq!(Outside::Text(&long).to_string(), format!("{}...", "x".repeat(OUTSIDE_MAX)));
        assert_eq!(Outside::Bytes(long.as_bytes()).to_string(), Outside::Text(&long).to_string());
        let fits = "x".repeat(OUTSIDE_MAX);
        assert_eq!(Outside::Text(&fits).to_string(), fits);
    }

    #[test]
    fn a_value_that_fails_to_show_itself_spoils_nothing() {
        struct Broken;
        impl Display for Broken {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(Outside::Text(&Broken).to_string(), "half");
        assert_eq!(Pair("cause", &Outside::Text(&Broken)).to_string(), " cause=\"half\"");
    }

    #[test]
    fn seconds_are_whole_milliseconds_in_every_output() {
        let value = Seconds(Duration::from_micros(1_234_567));
        assert_eq!(Pair("duration", &value).to_string(), " duration=1.235s");
        assert!((value.field() - 1.235).abs() < 1e-9);
    }
}
