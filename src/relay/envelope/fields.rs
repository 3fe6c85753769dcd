//! An object's known keys, found in one walk that leaves their values unread.
//!
//! [`Fields::read`] walks the object and keeps each known key's value as a slice of the text; unknown values are
//! skipped. Keys are taken as slices too and unescaped only if they hold a backslash: see the module above for why
//! they are not simply read as strings. Nothing is copied but an escaped key.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text of a JSON string, borrowed unless it holds an escape. `None` if `raw`, a valid JSON value, is no
/// string, or one with a lone surrogate: that one is no text at all.
pub(super) fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The values of an object's `N` known keys, each as a slice of the message.
pub(super) struct Fields<'a, const N: usize> {
    /// In the order of the names.
    pub(super) values: [Option<&'a str>; N],
    /// Whether a known key occurred twice. Not an error on the spot, so that the rest is still read: text that is
    /// no JSON is reported as that, wherever the fault is.
    pub(super) duplicate: bool,
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads `object`, which must be one JSON object and nothing else, for the keys `names`.
    pub(super) fn read(object: &'a str, names: [&'static str; N]) -> serde_json::Result<Self> {
        let mut json = serde_json::Deserializer::from_str(object);
        let fields = json.deserialize_map(FieldsVisitor(names))?;
        json.end()?;
        Ok(fields)
    }
}

/// Collects [`Fields`]. By hand: a derived implementation would also take an array for the object.
struct FieldsVisitor<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for FieldsVisitor<N> {
    type Value = Fields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields { values: [None; N], duplicate: false };
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            // A key that is no text is none of the known ones.
            let Some(key) = unquote(key.get()) else { continue };
            for (name, slot) in self.0.iter().zip(&mut fields.values) {
                if *name == key {
                    fields.duplicate |= slot.replace(value.get()).is_some();
                }
            }
        }
        Ok(fields)
    }
}
