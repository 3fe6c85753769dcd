//! The kinds of value that a key can have: how each is read from TOML, written back, and described.
//!
//! Every kind refuses what it does not know and says what it would have taken. Reading what was written gives
//! the same value again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::problem::{Fault, quote, shorten};

/// How the values of a key look in the file.
pub(super) trait Kind {
    /// What the program works with.
    type Value;

    /// What may be written, for a message and the documentation.
    fn allowed(&self) -> String;

    /// Reads a value, or says everything that is wrong with it.
    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, Vec<Fault>>;

    /// The value as TOML; nothing for a value that means that the key is not set.
    fn write(&self, value: &Self::Value) -> Option<String>;
}

/// The TOML name of a value's type, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// The only fault of a value.
fn fault(what: String, advice: impl Into<String>) -> Vec<Fault> {
    vec![Fault { what, advice: advice.into() }]
}

/// A value of another type than the expected one.
fn mistyped(expected: &str, value: &DeValue<'_>, allowed: &str) -> Vec<Fault> {
    fault(format!("expected {expected}, found {}", type_name(value)), format!("allowed: {allowed}"))
}

/// The text of a string value; for another type, what was expected and found.
fn string<'a>(value: &'a DeValue<'_>, allowed: &str) -> Result<&'a str, Vec<Fault>> {
    value.as_str().ok_or_else(|| mistyped("a string", value, allowed))
}

/// Text as a TOML string.
pub(super) fn toml_string(text: &str) -> String {
    use fmt::Write as _;

    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Units, smallest first: what is written after the number, and how many of the smallest it stands for.
type Units = [(&'static str, u64)];

const TIME: &Units = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZE: &Units = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads digits followed by a unit. A number too large to hold becomes the largest, which no range allows.
fn with_unit(text: &str, units: &Units) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    if number.is_empty() {
        return None;
    }
    Some(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*scale))
}

/// Writes a number with the largest unit that divides it.
fn in_largest_unit(number: u64, units: &Units) -> String {
    units
        .iter()
        .rev()
        .find(|(_, scale)| number != 0 && number % scale == 0)
        .map_or_else(|| number.to_string(), |(name, scale)| format!("{}{name}", number / scale))
}

/// A number of bytes as the file writes it, such as `4MiB`.
pub(super) fn human_bytes(bytes: usize) -> String {
    in_largest_unit(bytes as u64, SIZE)
}

/// A length of time as the file writes it, such as `30s`.
pub(super) fn human_time(time: Duration) -> String {
    in_largest_unit(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), TIME)
}

/// A value of the right form that is beyond the bounds of its kind.
fn out_of_range(value: &str, kind: &impl Kind) -> Vec<Fault> {
    fault(format!("{value} is out of range"), format!("allowed: {}", kind.allowed()))
}

/// A length of time, more than nothing and at most `hours`: `"500ms"`, `"30s"`, `"5m"`, `"1h"`.
pub(super) struct Time {
    /// The longest allowed.
    pub(super) hours: u64,
}

impl Kind for Time {
    type Value = Duration;

    fn allowed(&self) -> String {
        format!("a duration from \"1ms\" to \"{}h\"", self.hours)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Duration, Vec<Fault>> {
        let text = string(value, "a duration such as \"500ms\", \"30s\", \"5m\" or \"1h\"")?;
        let Some(millis) = with_unit(text, TIME) else {
            let what = format!("{} is not a duration", quote(text));
            return Err(fault(what, "write \"500ms\", \"30s\", \"5m\" or \"1h\""));
        };
        if millis == 0 || millis > self.hours * 3_600_000 {
            return Err(out_of_range(&quote(text), self));
        }
        Ok(Duration::from_millis(millis))
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(toml_string(&human_time(*value)))
    }
}

/// A number of bytes between two bounds: `"512B"`, `"64KiB"`, `"4MiB"`, `"1GiB"`.
pub(super) struct Size {
    /// The fewest bytes allowed.
    pub(super) min: usize,
    /// The most bytes allowed.
    pub(super) max: usize,
}

impl Kind for Size {
    type Value = usize;

    fn allowed(&self) -> String {
        format!("a size from \"{}\" to \"{}\"", human_bytes(self.min), human_bytes(self.max))
    }

    fn read(&self, value: &DeValue<'_>) -> Result<usize, Vec<Fault>> {
        let text = string(value, "a size such as \"512B\", \"64KiB\", \"4MiB\" or \"1GiB\"")?;
        let Some(bytes) = with_unit(text, SIZE) else {
            let what = format!("{} is not a size", quote(text));
            return Err(fault(what, "write \"512B\", \"64KiB\", \"4MiB\" or \"1GiB\""));
        };
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| (self.min..=self.max).contains(bytes))
            .ok_or_else(|| out_of_range(&quote(text), self))
    }

    fn write(&self, value: &usize) -> Option<String> {
        Some(toml_string(&human_bytes(*value)))
    }
}

/// A whole number between two bounds.
pub(super) struct Count {
    /// The smallest allowed.
    pub(super) min: usize,
    /// The largest allowed.
    pub(super) max: usize,
}

impl Kind for Count {
    type Value = usize;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<usize, Vec<Fault>> {
        let Some(integer) = value.as_integer() else {
            return Err(mistyped("an integer", value, &self.allowed()));
        };
        usize::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| out_of_range(&shorten(&integer.to_string()), self))
    }

    fn write(&self, value: &usize) -> Option<String> {
        Some(value.to_string())
    }
}

/// One of a few words.
pub(super) struct Word<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Word<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.as_slice() {
            [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            words => words.concat(),
        }
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, Vec<Fault>> {
        let text = string(value, &self.allowed())?;
        self.0.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            fault(format!("{} is not known", quote(text)), format!("write {}", self.allowed()))
        })
    }

    fn write(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, meaning)| meaning == value).map(|(word, _)| toml_string(word))
    }
}

/// Text that a type reads by its own rules. Its error continues a sentence that starts with the text: what is wrong,
/// a semicolon, and what to do about it.
pub(super) struct Text<T> {
    /// What may be written.
    allowed: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

/// A kind for a type that reads itself.
pub(super) const fn text<T>(allowed: &'static str) -> Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    Text { allowed, parse: |text| text.parse().map_err(|error: T::Err| error.to_string()) }
}

/// A kind for text that a function checks.
pub(super) const fn checked<T>(allowed: &'static str, parse: fn(&str) -> Result<T, String>) -> Text<T> {
    Text { allowed, parse }
}

impl<T: fmt::Display> Kind for Text<T> {
    type Value = T;

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, Vec<Fault>> {
        let text = string(value, self.allowed)?;
        (self.parse)(text).map_err(|error| {
            let (what, advice) = error.split_once("; ").unwrap_or((&error, self.allowed));
            fault(format!("{} {what}", quote(text)), advice)
        })
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(toml_string(&value.to_string()))
    }
}

/// A list, each element of which is of one kind.
pub(super) struct List<K>(pub(super) K);

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn allowed(&self) -> String {
        format!("an array; each element {}", self.0.allowed())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, Vec<Fault>> {
        let Some(array) = value.as_array() else {
            return Err(mistyped("an array", value, &self.allowed()));
        };
        let (mut elements, mut faults) = (Vec::new(), Vec::new());
        for (element, nth) in array.iter().zip(1..) {
            match self.0.read(element.get_ref()) {
                Ok(element) => elements.push(element),
                Err(found) => faults.extend(found.into_iter().map(|fault| fault.of_element(nth))),
            }
        }
        if faults.is_empty() { Ok(elements) } else { Err(faults) }
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        let elements: Vec<_> = value.iter().filter_map(|element| self.0.write(element)).collect();
        Some(format!("[{}]", elements.join(", ")))
    }
}

/// A key that may be left out and then has no value at all.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, Vec<Fault>> {
        self.0.read(value).map(Some)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(|value| self.0.write(value))
    }
}
