//! What is asked of rustls: to take ciphertext apart, to say what is due, and to seal.
//!
//! Its unbuffered interface wants three things in return. What came in and is incomplete is shown to it at every call, because
//! it may know positions in it. After an error it is asked for as long as it has something to send, and not once more, or it
//! looks at the input again. And it is not asked to read after goodbye was said.

use std::io;

use rustls::Error;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic};

/// Records with plaintext that are opened before others have their turn: between two of them there may be dozens of messages
/// that have rustls compute new keys.
const RECORDS_AT_ONCE: usize = 24;

/// Where plaintext goes: to the reader, and what it has no room for aside.
pub(super) struct Sink<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) filled: usize,
    pub(super) aside: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.buf.get_mut(self.filled..).unwrap_or_default();
        let count = bytes.len().min(room.len());
        let (now, later) = bytes.split_at(count);
        room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        self.filled += count;
        self.aside.extend_from_slice(later);
    }
}

/// What became of some ciphertext.
pub(super) struct Opened {
    pub(super) consumed: usize,
    /// The peer has said goodbye.
    pub(super) closed: bool,
    /// There may be more that is whole.
    pub(super) more: bool,
}

/// Takes ciphertext apart as far as it is complete. Plaintext goes to `sink`, and what has to be answered to `outgoing`. After
/// an error that is its alert, and rustls must not be asked again.
pub(super) fn open(
    tls: &mut UnbufferedServerConnection,
    input: &mut [u8],
    sink: &mut Sink<'_>,
    outgoing: &mut Vec<u8>,
) -> Result<Opened, Error> {
    let mut opened = Opened { consumed: 0, closed: false, more: false };
    let mut records = 0;
    loop {
        let left = input.get_mut(opened.consumed..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state, .. } = tls.process_tls_records(left);
        let more = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    sink.put(record.payload);
                    records += 1;
                }
                opened.more = records >= RECORDS_AT_ONCE;
                !opened.more
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(outgoing, |to| data.encode(to))?;
                true
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                opened.closed = true;
                true
            }
            Ok(_) => false,
            Err(error) => {
                opened.consumed += discard;
                // What it had to say, the alert at last; not once more than that, or it would look at the input again.
                while tls.wants_write() {
                    let left = input.get_mut(opened.consumed..).unwrap_or_default();
                    let UnbufferedStatus { discard, state, .. } = tls.process_tls_records(left);
                    opened.consumed += discard;
                    let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
                    encode(outgoing, |to| data.encode(to))?;
                }
                return Err(error);
            }
        };
        opened.consumed += discard;
        if !more {
            return Ok(opened);
        }
    }
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let start = outgoing.len();
    let failed = |error: EncodeError| Error::General(error.to_string());
    let Err(EncodeError::InsufficientSize(needed)) = encode(&mut []) else { return Ok(()) };
    outgoing.resize(start + needed.required_size, 0);
    let written = encode(outgoing.get_mut(start..).unwrap_or_default()).map_err(failed)?;
    outgoing.truncate(start + written);
    Ok(())
}

/// Moves what rustls has to say by itself to `outgoing`.
pub(super) fn say_what_is_due(
    tls: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> io::Result<()> {
    while tls.wants_write() {
        match tls.process_tls_records(incoming).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(outgoing, |to| data.encode(to)).map_err(io::Error::other)?;
            }
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    if let Ok(ConnectionState::TransmitTlsData(data)) = tls.process_tls_records(incoming).state {
        data.done();
    }
    Ok(())
}

/// The writing side, which is there after the handshake. What came in and is incomplete must be shown to rustls whenever it
/// is asked: it may know positions in it.
pub(super) fn writer<'c>(
    tls: &'c mut UnbufferedServerConnection,
    incoming: &'c mut [u8],
) -> io::Result<WriteTraffic<'c, ServerConnectionData>> {
    match tls.process_tls_records(incoming).state {
        Ok(ConnectionState::WriteTraffic(writer)) => Ok(writer),
        Ok(_) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Err(io::Error::other(error)),
    }
}
