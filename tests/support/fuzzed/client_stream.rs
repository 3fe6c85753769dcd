//! What a client said, by a reading of RFC 6455 § 5 of its own: the tests' judge of what a relay may have taken from a
//! stream of bytes.

/// One thing that a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A message, and whether it came in fragments.
    Message(Vec<u8>, bool),
    Ping(Vec<u8>),
    Close(Option<u16>),
}

/// Everything that a client said before its bytes end, break a rule, or announce a message of more than `limit` bytes.
pub(crate) fn said(mut bytes: &[u8], limit: usize) -> Vec<Said> {
    let mut said = Vec::new();
    let mut message: Option<Vec<u8>> = None;
    while let Some((first, payload, rest)) = frame(bytes, limit) {
        bytes = rest;
        let fin = first & 0x80 != 0;
        match first & 0x0f {
            0x0 => {
                let Some(mut begun) = message.take() else { break };
                begun.extend(payload);
                message = Some(begun);
            }
            0x1 | 0x2 if message.is_none() => message = Some(payload),
            0x9 => said.push(Said::Ping(payload)),
            0xa => {}
            0x8 => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default();
                if payload.len() != 1 && std::str::from_utf8(reason).is_ok() {
                    said.push(Said::Close(code));
                }
                break;
            }
            _ => break,
        }
        if message.as_ref().is_some_and(|message| message.len() > limit) {
            break;
        }
        if fin && first & 0x0f < 0x8 {
            said.extend(message.take().map(|message| Said::Message(message, first % 16 == 0)));
        }
    }
    said
}

/// The first frame, if it is whole and may stand anywhere: its first byte, its payload, and what is behind it.
fn frame(bytes: &[u8], limit: usize) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?
        }
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        length => (u64::from(length), rest),
    };
    let is_control = first & 0x08 != 0;
    if first & 0x70 != 0 || second & 0x80 == 0 || is_control && (first & 0x80 == 0 || length > 125) {
        return None;
    }
    let length = usize::try_from(length).ok().filter(|length| is_control || *length <= limit)?;
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((first, payload, rest))
}
