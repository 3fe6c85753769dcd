//! Frames of each kind and size, exactly as long as asked for.

/// Bytes in the frames that are measured.
pub(crate) const SIZES: [usize; 4] = [64, 256, 4 * 1024, 64 * 1024];

/// A kind of JSON, by what makes it long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One long string, with an escape now and then.
    Strings,
    /// Numbers with signs, fractions and exponents.
    Numbers,
    /// Brackets within brackets, as deep as the frame is long.
    Nested,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Strings, Self::Numbers, Self::Nested];

    /// The word for it in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Strings => "strings",
            Self::Numbers => "numbers",
            Self::Nested => "nested",
        }
    }

    /// A frame of that kind of `size` bytes.
    pub(crate) fn frame(self, size: usize) -> String {
        let mut frame = match self {
            Self::Strings => {
                let text = r"a sealed box is text to whoever carries it\n".chars().cycle();
                let text: String = text.take(size - 11).collect();
                // An escape must not be cut in two.
                format!(r#"{{"text":"{}"}}"#, text.trim_end_matches('\\'))
            }
            Self::Numbers => {
                let numbers = ["3.14159265", "-42", "6.02e23", "1700000000", "0"].iter().cycle();
                let mut text = String::from("[0");
                for number in numbers {
                    if text.len() + number.len() + 2 > size {
                        break;
                    }
                    text.push(',');
                    text.push_str(number);
                }
                text + "]"
            }
            Self::Nested => {
                let depth = (size - 1) / 8;
                format!("{}0{}", r#"{"a":["#.repeat(depth), "]}".repeat(depth))
            }
        };
        frame.extend(std::iter::repeat_n(' ', size - frame.len()));
        frame
    }
}

/// A text message as a client sends it.
pub(crate) fn masked(message: &str) -> Vec<u8> {
    const MASK: [u8; 4] = [0x13, 0x37, 0xc0, 0xde];
    let mut bytes = vec![0x81];
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(length @ 0..126), _) => bytes.push(0x80 | length),
        (_, Ok(length)) => {
            bytes.push(0xfe);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((message.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(message.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
