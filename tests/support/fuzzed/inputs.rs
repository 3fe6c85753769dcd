//! Reads the inputs that were kept: for each a line that says what comes of it, and a line with its bytes, escaped as in
//! a byte string. Lines that begin with `#` are for people.

/// What comes of each input, and the input.
pub(crate) fn kept(text: &str) -> Vec<(&str, Vec<u8>)> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut kept = Vec::new();
    while let (Some(outcome), Some(input)) = (lines.next(), lines.next()) {
        let input = unescaped(input.trim_start());
        assert!(input.is_some(), "not in the form of a byte string, below {outcome:?}");
        kept.push((outcome, input.unwrap_or_default()));
    }
    kept
}

/// The bytes that `[u8]::escape_ascii` wrote.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::new();
    while let Some(byte) = bytes.next() {
        unescaped.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                itself @ (b'\\' | b'\'' | b'"') => itself,
                _ => return None,
            },
            b' '..=b'~' => byte,
            _ => return None,
        });
    }
    Some(unescaped)
}
