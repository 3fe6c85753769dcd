//! The frames that the probe sends: JSON of an exact size, made to be damaged by anything that re-encodes it.
//!
//! A frame holds what a parser and printer would normalise (white space between tokens, `-1.50E+2`, `\/`, `\u00E9`
//! beside `é`), so a relay that does not pass bytes on as they are cannot pass. It carries a sequence number and
//! pseudo-random padding, so that no two frames of a run are equal and a stale one cannot pass for the right one.

/// The smallest frame, in bytes: everything but the padding.
pub const SMALLEST_FRAME: usize = 72;

/// The largest frame, in bytes: what a relay can be configured to let a phone send.
pub const LARGEST_FRAME: usize = 16 * 1024 * 1024;

/// What the padding is made of: JSON string content of one to twelve bytes.
const PIECES: [&str; 20] = [
    "a",
    "Z",
    "7",
    " ",
    "{",
    "}",
    "[",
    ",",
    ":",
    "é",
    "€",
    "😀",
    "\u{2028}",
    "\u{7f}",
    r"\n",
    r#"\""#,
    r"\\",
    r"\/",
    r"\u00e9",
    r"\uD83D\uDE00",
];

/// Which side a frame is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Towards {
    Binary,
    Phone,
}

/// Makes the frames of one run.
#[derive(Debug)]
pub(super) struct Frames {
    size: usize,
    random: u64,
}

impl Frames {
    /// Frames of `size` bytes, padded from `seed`.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        // The generator stays at zero for ever if it starts there.
        Self { size, random: seed | 1 }
    }

    /// The next frame; `number` says which one it is.
    pub(super) fn next(&mut self, number: u32, towards: Towards) -> String {
        let to = match towards {
            Towards::Binary => 'b',
            Towards::Phone => 'p',
        };
        let mut frame = format!(
            "{{ \"n\" :{number:>8},\t\"x\":-1.50E+2,\n\"to\":\"{to}\",\"e\":\"\\u00E9\\/é€😀\",\"p\":\""
        );
        frame.reserve(self.size);
        let end = "\" }";
        while frame.len() + end.len() < self.size {
            let room = self.size - frame.len() - end.len();
            let piece = self.piece();
            frame.push_str(if piece.len() <= room { piece } else { "x" });
        }
        frame.push_str(end);
        frame
    }

    fn piece(&mut self) -> &'static str {
        // xorshift64: speed matters more than quality, and the seed comes from the operating system.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let choice = usize::try_from(self.random >> 33).unwrap_or(0) % PIECES.len();
        PIECES.get(choice).copied().unwrap_or("x")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_json_of_exactly_the_size() {
        for seed in 0..200_u64 {
            for size in (SMALLEST_FRAME..SMALLEST_FRAME + 40).chain([4096]) {
                let frame = Frames::new(size, seed).next(1_000_001, Towards::Binary);
                assert_eq!(frame.len(), size);
                let value: serde_json::Value = serde_json::from_str(&frame).unwrap();
                assert_eq!(value["n"], 1_000_001);
            }
        }
        assert_eq!(Frames::new(LARGEST_FRAME, 7).next(0, Towards::Phone).len(), LARGEST_FRAME);
    }

    #[test]
    fn no_two_frames_are_equal_and_re_encoding_shows() {
        let mut frames = Frames::new(SMALLEST_FRAME, 3);
        let made = [
            frames.next(0, Towards::Binary),
            frames.next(0, Towards::Phone),
            frames.next(1, Towards::Binary),
            frames.next(1, Towards::Phone),
        ];
        let distinct: std::collections::HashSet<_> = made.iter().collect();
        assert_eq!(distinct.len(), made.len());
        for frame in &made {
            let value: serde_json::Value = serde_json::from_str(frame).unwrap();
            assert_ne!(&value.to_string(), frame);
        }
    }

    #[test]
    fn smaller_than_the_smallest_is_not_possible() {
        assert_eq!(Frames::new(0, 1).next(0, Towards::Binary).len(), SMALLEST_FRAME);
        assert_eq!(Frames::new(SMALLEST_FRAME, 1).next(0, Towards::Phone).len(), SMALLEST_FRAME);
    }
}
