//! Stories from a seed: connections that mostly behave, and sometimes do not.

/// JSON, nearly JSON, and what a binary may say; `c-…1` is the phone that every story begins with.
const SAID: [&str; 24] = [
    "1",
    " {\"v\":2,\"type\":\"noise_msg\",\"data\":\"AAAA\"} ",
    "\"\\ud800\"",
    "[[[]]]",
    "null",
    "nul",
    "{",
    "\u{fffd}",
    "1}",
    "",
    r#"{"conn_id":"c-0000000000000001","frame":[1, 2]}"#,
    r#"{"conn_id":"c-0000000000000002","frame":"two"}"#,
    r#"{"conn_id":"c-0000000000000001","frame":null,"close_code":4401}"#,
    r#"{"conn_id":"c-0000000000000001","frame":1,"close_code":1000}"#,
    r#"{"conn_id":"c-0000000000000001","close_code":1006}"#,
    r#"{"conn_id":"c-0000000000000001","close_code":0}"#,
    r#"{"conn_id":"c-0000000000000009","frame":1}"#,
    r#"{"conn_id":"c-000000000000000","close_code":4000}"#,
    r#"{"conn_id":7,"frame":1}"#,
    r#"{"frame":1}"#,
    r#"{"push_wake":{"platform":"fcm","token":"t"}}"#,
    r#"{"push_wake":{"platform":"fcm"}}"#,
    r#"{"conn_id":"c-0000000000000001","frame":1,"frame":2}"#,
    r#"{"x":[1],"\u0063onn_id":"c-0000000000000001","frame":"\u20ac"}"#,
];

/// First bytes of frames: all that are allowed, and some that are not.
const FIRST: [u8; 12] = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88, 0x09, 0xc1, 0x83];

/// Numbers by chance.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }

    fn byte(&mut self, limit: usize) -> u8 {
        u8::try_from(self.below(limit)).unwrap_or(u8::MAX)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Mostly well formed, whole, and read at once.
    fn style(&mut self) -> u8 {
        let mask = [0, 1, 1, 2, 0, 1, 2, 1, 0, 1, 1, 3][self.below(12)];
        let length = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 1, 3][self.below(12)] << 2;
        let piece = if self.below(3) == 0 { self.byte(8) << 4 } else { 0 };
        let piece = if piece == 0x70 && self.below(4) > 0 { 0 } else { piece };
        mask | length | piece | if self.below(3) == 0 { 0x80 } else { 0 }
    }
}

/// An input that tells a story.
pub(crate) fn story(seed: u64) -> Vec<u8> {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let mut input = vec![random.byte(4) | if random.below(16) == 0 { 0x80 } else { 0 }];
    for _ in 0..=random.below(20) {
        step(&mut random, &mut input);
    }
    input
}

fn step(random: &mut Random, input: &mut Vec<u8>) {
    // The two that are always there are met most.
    let who = [0, 1, 0, 1, 0, 1, 2, 3][random.below(8)];
    if random.below(16) == 0 {
        return fragments(random, input, who);
    }
    let kind =
        [0, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15][random.below(25)];
    input.push(kind | who << 4);
    let said = random.pick(&SAID).as_bytes();
    match kind {
        0 | 1 => {
            input.extend((kind == 1).then(|| random.byte(9)));
            let bytes: Vec<u8> = (0..random.below(12)).map(|_| random.byte(256)).collect();
            payload(input, &bytes);
        }
        2 => {
            input.extend([FIRST[random.below(FIRST.len())], random.style()]);
            payload(input, said);
        }
        3 => {
            input.push(random.style());
            payload(input, said);
        }
        4 => {
            input.extend([
                random.byte(4),
                if random.below(3) == 0 { random.byte(8) } else { 0 },
                random.style(),
            ]);
            payload(input, said);
        }
        12 => input.extend([random.byte(4), random.style(), random.byte(256), random.byte(256)]),
        13 => {
            input.push(random.style());
            let code =
                [1000_u16, 1001, 3000, 4999, 1005, 1006, 999, 1014, 5000][random.below(9)].to_be_bytes();
            let reasons = [b"".as_slice(), b"bye", b"\xff", b"\xe2\x82\xac"];
            let reason = random.pick(&reasons);
            payload(input, &if random.below(4) == 0 { Vec::new() } else { [&code[..], reason].concat() });
        }
        5 | 9 => input.push(if random.below(2) == 0 { random.byte(8) } else { random.byte(256) }),
        10 => input.push(if random.below(4) == 0 { random.byte(4) } else { 1 }),
        11 => input.push(if random.below(4) == 0 { 2 } else { 0 }),
        14 => input.push(random.byte(3)),
        15 => input.push(random.byte(256)),
        _ => {}
    }
}

/// One message in two frames or three, with a ping somewhere.
fn fragments(random: &mut Random, input: &mut Vec<u8>, who: u8) {
    let said = random.pick(&SAID).as_bytes();
    let (first, rest) = said.split_at(random.below(said.len() + 1));
    let (second, third) = rest.split_at(random.below(rest.len() + 1));
    let last: &[(u8, &[u8])] =
        if random.below(2) == 0 { &[(0x80, rest)] } else { &[(0x00, second), (0x80, third)] };
    for (opcode, part) in [(0x01, first), (0x89, b"?")].iter().chain(last) {
        input.extend([2 | who << 4, *opcode, random.style()]);
        payload(input, part);
    }
}

fn payload(input: &mut Vec<u8>, bytes: &[u8]) {
    input.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    input.extend(bytes);
}
