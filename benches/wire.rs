//! WebSocket framing, per message: `cargo bench --bench wire [WORD...]`.

mod support;

use pyrycode_relay::relay::wire::{Received, Wire};
use support::Bench;
use support::frames::{Kind, SIZES, masked};

const MAX_MESSAGE: usize = 256 * 1024;

fn main() {
    let bench = Bench::begin();
    for size in SIZES {
        let text = Kind::Strings.frame(size);
        let bytes = masked(&text);
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("receive, {size} bytes"), size, || receives(&mut wire, &bytes, 1));
        // As a session does when nothing comes behind it.
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("receive and rest, {size} bytes"), size, || {
            receives(&mut wire, &bytes, 1);
            wire.rest();
        });
        let eight = bytes.repeat(8);
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("receive 8 in one read, {size} bytes each"), 8 * size, || {
            receives(&mut wire, &eight, 8);
        });
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("send_text and written, {size} bytes"), size, || sends(&mut wire, &text, 1));
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("send_text 8 and written, {size} bytes each"), 8 * size, || {
            sends(&mut wire, &text, 8);
        });
    }
}

/// Receives `number` messages and nothing else.
fn receives(wire: &mut Wire, mut bytes: &[u8], number: usize) {
    for _ in 0..number {
        assert!(matches!(wire.receive(&mut bytes), Ok(Some(Received::Message(_)))));
    }
    assert!(matches!(wire.receive(&mut bytes), Ok(None)));
}

/// Sends `number` messages, in one write. One of the allocations for each is the text's own.
fn sends(wire: &mut Wire, text: &str, number: usize) {
    let lengths: usize = (0..number).map(|_| wire.send_text(text.to_owned())).sum();
    assert_eq!(wire.unwritten(0).len(), lengths);
    wire.written(lengths, 0);
}
