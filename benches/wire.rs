//! WebSocket framing, per message: `cargo bench --bench wire [WORD...]`.

mod support;

use std::cell::RefCell;

use pyrycode_relay::relay::wire::{Received, Wire};
use support::Bench;
use support::frames::{Kind, SIZES, masked};

const MAX_MESSAGE: usize = 256 * 1024;

thread_local! {
    static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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
        bench.case(&format!("send and written, {size} bytes"), size, || sends(&mut wire, &text, 1));
        let mut wire = Wire::new(MAX_MESSAGE);
        bench.case(&format!("send 8 and written, {size} bytes each"), 8 * size, || {
            sends(&mut wire, &text, 8);
        });
    }
}

/// Receives `number` messages and nothing else, from a copy, because they are unmasked where they stand.
fn receives(wire: &mut Wire, bytes: &[u8], number: usize) {
    COPY.with_borrow_mut(|copy| {
        copy.clear();
        copy.extend_from_slice(bytes);
        let mut input = copy.as_mut_slice();
        for _ in 0..number {
            assert!(matches!(wire.receive(&mut input), Ok(Some(Received::Message(_)))));
        }
        assert!(matches!(wire.receive(&mut input), Ok(None)));
    });
}

/// Sends `number` messages. One of the allocations for each is the text's own.
fn sends(wire: &mut Wire, text: &str, number: usize) {
    let lengths: usize = (0..number).map(|_| wire.send(text.into())).sum();
    assert_eq!(wire.unwritten_messages(), lengths);
    while !wire.is_written() {
        wire.written(wire.unwritten(0).len(), 0);
    }
    wire.rest();
}
