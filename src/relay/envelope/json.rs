//! Whether a text is exactly one JSON value (RFC 8259), without finding out which.
//!
//! Every byte of every frame from a phone is looked at here, and of most from a binary, so this is a scanner of its own: it does what
//! `serde_json` does when a value is ignored, a few times as fast, because nearly all bytes of a frame are inside strings and those
//! are looked at many at a time. Both are held against each other in tests/envelope.rs.
//!
//! It does not recurse: an open bracket costs a bit, the first 64 of them no memory.

/// Bytes of a string that are looked at together. The compiler makes vector instructions of it.
const LANES: usize = 64;

/// And of what is left of it.
const FEW: usize = 8;

/// Whether `text` is one JSON value, with white space around it if need be.
pub(super) fn is_one_value(text: &str) -> bool {
    let mut scanner = Scanner { rest: text.as_bytes(), open: Open::default() };
    scanner.values().is_some() && scanner.rest.is_empty()
}

/// What is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

/// The brackets that are open, a bit for each.
#[derive(Default)]
struct Open {
    /// The innermost, up to 64 of them.
    inner: u64,
    depth: usize,
    /// Those around them, 64 at a time.
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, bracket: Bracket) {
        if self.depth > 0 && self.depth % 64 == 0 {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(bracket == Bracket::Object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.inner >>= 1;
        if self.depth > 0 && self.depth % 64 == 0 {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<Bracket> {
        match (self.depth, self.inner & 1) {
            (0, _) => None,
            (_, 0) => Some(Bracket::Array),
            _ => Some(Bracket::Object),
        }
    }
}

/// Takes what it understands from the beginning of `rest`. `None`: it is not JSON.
struct Scanner<'a> {
    rest: &'a [u8],
    open: Open,
}

impl Scanner<'_> {
    /// One value, with all that is in it, and the white space behind it.
    fn values(&mut self) -> Option<()> {
        loop {
            self.white_space();
            // A value begins here.
            match self.next()? {
                b'"' => self.string()?,
                b'{' => {
                    self.white_space();
                    if !self.takes(b'}') {
                        self.open.push(Bracket::Object);
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.white_space();
                    if !self.takes(b']') {
                        self.open.push(Bracket::Array);
                        continue;
                    }
                }
                b'-' => {
                    let digit = self.next()?;
                    self.number(digit)?;
                }
                digit @ b'0'..=b'9' => self.number(digit)?,
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                _ => return None,
            }
            // A value ended here, and maybe some that it is in.
            loop {
                self.white_space();
                let Some(innermost) = self.open.innermost() else { return Some(()) };
                match (self.next()?, innermost) {
                    (b',', Bracket::Array) => break,
                    (b',', Bracket::Object) => {
                        self.white_space();
                        self.key()?;
                        break;
                    }
                    (b']', Bracket::Array) | (b'}', Bracket::Object) => self.open.pop(),
                    _ => return None,
                }
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn takes(&mut self, byte: u8) -> bool {
        let takes = self.rest.first() == Some(&byte);
        if takes {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        takes
    }

    fn white_space(&mut self) {
        // Mostly there is none.
        if self.rest.first().is_some_and(|byte| *byte > b' ') {
            return;
        }
        while let Some((b' ' | b'\n' | b'\r' | b'\t', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(rest)?;
        Some(())
    }

    /// A key and the colon behind it.
    fn key(&mut self) -> Option<()> {
        if !self.takes(b'"') {
            return None;
        }
        self.string()?;
        self.white_space();
        self.takes(b':').then_some(())
    }

    /// A string, behind its opening quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.skip_plain::<LANES>();
            self.skip_plain::<FEW>();
            let end = self.rest.iter().position(|byte| special(*byte) != 0)?;
            let special = self.rest.get(end);
            let behind = self.rest.get(end + 1..).unwrap_or_default();
            self.rest = behind;
            match special {
                Some(b'"') => return Some(()),
                Some(b'\\') => self.escape()?,
                _ => return None,
            }
        }
    }

    /// Passes over bytes of a string that are nothing special, so many at a time, as long as there are so many.
    fn skip_plain<const N: usize>(&mut self) {
        while let Some((lanes, rest)) = self.rest.split_first_chunk::<N>() {
            // Not `any`: that would stop at the first, and so look at one after the other. Not `bool`, which the compiler takes
            // for something to branch on.
            if lanes.iter().fold(0, |found, byte| found | special(*byte)) != 0 {
                return;
            }
            self.rest = rest;
        }
    }

    /// What is behind a backslash. Which halves of surrogate pairs stand together is no matter of the grammar.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.rest.split_first_chunk::<4>()?;
                self.rest = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    /// A number, behind its sign and its first digit.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.takes(b'.') {
            self.some_digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.some_digits()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn some_digits(&mut self) -> Option<()> {
        self.rest.first().filter(|byte| byte.is_ascii_digit())?;
        self.digits();
        Some(())
    }
}

/// 1 for a byte that ends a string, may not be in one, or gives the next byte another meaning; else 0.
fn special(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ')
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn serde_says(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    /// Every text of up to five of these pieces.
    #[test]
    fn short_texts_are_what_the_library_says() {
        let pieces = [
            "{", "}", "[", "]", ",", ":", "\"", "\\", "1", "0", "-", ".", "e", "+", " ", "null", "\\u12aF",
            "x",
        ];
        let mut texts = vec![String::new()];
        let (mut seen, mut valid) = (0, 0);
        for _ in 0..5 {
            texts = texts
                .iter()
                .flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}")))
                .inspect(|text| {
                    seen += 1;
                    valid += usize::from(serde_says(text));
                    assert_eq!(is_one_value(text), serde_says(text), "{text}");
                })
                .collect();
        }
        assert!(seen > 1_900_000 && valid > 1_000, "{valid} of {seen}");
    }

    #[test]
    fn long_strings_are_looked_at_to_their_last_byte() {
        for length in 0..3 * LANES {
            for at in 0..=length {
                for (special, valid) in
                    [("\"", false), ("\\", false), ("\\n", true), ("\n", false), ("\u{7f}", true)]
                {
                    let text = format!("\"{}{special}{}\"", "x".repeat(at), "ä".repeat(length - at));
                    // A backslash before the last quote leaves the string open; before an `ä` it is an error.
                    assert_eq!(is_one_value(&text), valid, "{text:?}");
                    assert_eq!(serde_says(&text), valid, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn brackets_may_be_as_deep_as_there_are_bytes() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 1000, 100_000] {
            let mixed = |open: bool| {
                let pairs = [("[", "]"), ("{\"\":", "}"), ("{\"a\":[", "]}")];
                let of = move |level: usize| pairs[level * level % 3];
                let levels: Vec<_> = (0..depth).collect();
                if open {
                    levels.iter().map(|level| of(*level).0).collect::<String>()
                } else {
                    levels.iter().rev().map(|level| of(*level).1).collect()
                }
            };
            let (opening, closing) = (mixed(true), mixed(false));
            assert!(is_one_value(&format!("{opening}1{closing}")), "{depth}");
            assert!(!is_one_value(&format!("{opening}1{}", &closing[1..])), "{depth}");
            assert!(!is_one_value(&format!("{opening}1{closing}]")), "{depth}");
            let wrong = closing.replacen(']', "}", 1);
            assert!(wrong == closing || !is_one_value(&format!("{opening}1{wrong}")), "{depth}");
        }
    }
}
