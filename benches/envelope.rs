//! The envelope, per frame: `cargo bench --bench envelope [WORD...]`.

mod support;

use pyrycode_relay::relay::conn_id::ConnId;
use pyrycode_relay::relay::envelope::{FromBinary, check_frame, unwrap, wrap};
use support::Bench;
use support::frames::{Kind, SIZES};

fn main() {
    let bench = Bench::begin();
    let conn_id = ConnId::from_u64(0x0123_4567_89ab_cdef);
    for kind in Kind::ALL {
        for size in SIZES {
            let name = |what: &str| format!("{what}, {}, {size} bytes", kind.name());
            let frame = kind.frame(size);
            let bytes = frame.as_bytes();
            assert!(check_frame(bytes).is_ok() && frame.len() == size, "{frame}");
            bench.case(&name("check_frame"), size, || check_frame(bytes).is_ok());
            bench.case(&name("check_frame and wrap"), size, || {
                check_frame(bytes).map(|frame| wrap(conn_id, frame))
            });
            let envelope = wrap(conn_id, &frame);
            let message = envelope.as_bytes();
            assert!(
                matches!(unwrap(message), Ok(FromBinary::Deliver { frame: found, .. }) if found == frame.trim_end())
            );
            bench.case(&name("unwrap"), message.len(), || unwrap(message).is_ok());
            bench.case(&name("unwrap and copy"), message.len(), || match unwrap(message) {
                Ok(FromBinary::Deliver { frame, .. }) => frame.to_owned(),
                _ => String::new(),
            });
        }
    }
}
