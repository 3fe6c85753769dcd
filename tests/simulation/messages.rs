//! The messages that clients send: good ones, in one piece or in several, and others.

use pyrycode_relay::relay::envelope::WRAP_OVERHEAD;
use pyrycode_relay::relay::item::ITEM_OVERHEAD;
use pyrycode_relay::relay::observer::Endpoint;

use crate::client::{Asks, Envelope, Meaning, frame};
use crate::world::World;

impl World {
    /// A whole message, in one go.
    pub(crate) fn message(&mut self, number: usize) {
        if self.begin_message(number) {
            self.send_some(number, usize::MAX);
        }
    }

    /// The beginning of a message.
    pub(crate) fn part(&mut self, number: usize) {
        if self.begin_message(number) {
            let (all, piece) = self.conns[number].client.left();
            let count = if self.rng.bool() { self.rng.usize(1..=all.min(20)) } else { piece.min(all - 1) };
            self.send_some(number, count);
        }
    }

    pub(crate) fn ping(&mut self, number: usize) {
        let length = self.rng.usize(..=125);
        self.ping_of(number, length);
    }

    pub(crate) fn ping_of(&mut self, number: usize, length: usize) {
        if self.conns[number].client.can_begin() {
            let payload = vec![self.rng.u8(..); length];
            self.conns[number].client.begin([frame(0x89, &payload)], Meaning::Ping(payload));
            self.send_some(number, usize::MAX);
        }
    }

    fn begin_message(&mut self, number: usize) -> bool {
        if !self.conns[number].client.can_begin() || self.conns[number].client.ends.malformed {
            return false;
        }
        let (text, meaning) = if self.conns[number].endpoint == Endpoint::Client {
            let members = format!(r#""p":{number},"n":{}"#, self.conns[number].sent.len());
            let binary = self.conns[number].binary.map_or(0, |binary| self.conns[binary].charged);
            let room = self.room(self.settings.binary_queue, binary, WRAP_OVERHEAD);
            let space = [" ", "", "\n"][self.rng.usize(..3)];
            let frame = self.frame_text(&members, space, room);
            (frame.clone(), Meaning::Frame(frame))
        } else {
            self.envelope(number)
        };
        let pieces = self.pieces(text.as_bytes());
        self.conns[number].client.begin(pieces, meaning);
        true
    }

    /// A message in one frame, or in fragments.
    fn pieces(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let kind = self.rng.u8(1..=2);
        if self.rng.u8(..4) > 0 {
            return vec![frame(0x80 | kind, message)];
        }
        let at = self.rng.usize(..=message.len());
        let (first, rest) = message.split_at(at);
        let (second, third) = rest.split_at(self.rng.usize(..=rest.len()));
        vec![frame(kind, first), frame(0x00, second), frame(0x80, third)]
    }

    /// The length of a frame that would just fill an outbox, or take the last of what all of them may hold; now and then
    /// one byte more.
    fn room(&mut self, limit: usize, charged: usize, overhead: usize) -> usize {
        let share = (self.settings.all_queues - self.taken()).saturating_sub(charged.div_ceil(8));
        let left = [limit.saturating_sub(charged), share];
        let left = left[self.rng.usize(..2)] + usize::from(self.rng.u8(..4) == 0);
        left.saturating_sub(overhead + ITEM_OVERHEAD)
    }

    /// A JSON object with these members, of some size; often of this one.
    fn frame_text(&mut self, members: &str, space: &str, aim: usize) -> String {
        let least = format!(r#"{space}{{{members},"x":""}}{space}"#).len();
        let most = self.settings.max_frame - least;
        let padding = match self.rng.u8(..16) {
            0 => most,
            1..4 => self.rng.usize(..=most),
            4..7 => aim.saturating_sub(least).min(most),
            _ => self.rng.usize(..=most.min(40)),
        };
        format!(r#"{space}{{{members},"x":"{}"}}{space}"#, "x".repeat(padding))
    }

    fn envelope(&mut self, number: usize) -> (String, Meaning) {
        let mine: Vec<usize> =
            (0..self.conns.len()).filter(|phone| self.conns[*phone].name.is_some()).collect();
        let mut open: Vec<usize> = mine
            .iter()
            .copied()
            .filter(|phone| self.conns[*phone].is_open() && self.conns[*phone].binary == Some(number))
            .collect();
        if open.is_empty() || self.rng.u8(..20) == 0 {
            open = mine;
        }
        let to = if open.is_empty() || self.rng.u8(..30) == 0 {
            None
        } else {
            Some(open[self.rng.usize(..open.len())])
        };
        let conn_id = to.and_then(|to| self.conns[to].name.clone());
        let conn_id = conn_id.unwrap_or_else(|| "c-0000000000000000".to_owned());
        let code = [1000, 4000, 4401, 1011][self.rng.usize(..4)];
        let members = format!(r#""b":{number},"n":{}"#, self.conns[number].envelopes.len());
        let room = self.room(self.settings.phone_queue, to.map_or(0, |to| self.conns[to].charged), 0);
        // White space around the value would belong to the envelope, not to the frame.
        let frame = self.frame_text(&members, "", room);
        let deliver = |close| Asks::Deliver { frame: frame.clone(), close };
        let (text, asks) = match self.rng.u8(..60) {
            0 => (format!(r#"{{"conn_id":"{conn_id}","close_code":{code}}}"#), Asks::Close(code)),
            1 => {
                let text = format!(r#"{{"close_code":{code},"frame":{frame},"conn_id":"{conn_id}"}}"#);
                (text, deliver(Some(code)))
            }
            2 => (r#"{"push_wake":{"platform":"fcm","token":"t"}}"#.to_owned(), Asks::Push),
            3 => (format!(r#"{{"conn_id":"{conn_id}","frame":null}}"#), Asks::Nonsense),
            4 => (format!(r#"{{"conn_id":"{conn_id}","frame":1"#), Asks::Nonsense),
            5..10 => {
                let text = format!(r#"{{"more":[1], "frame": {frame} , "conn_id":"{conn_id}"}}"#);
                (text, deliver(None))
            }
            _ => (format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#), deliver(None)),
        };
        (text, Meaning::Envelope(Envelope { to, asks }))
    }

    /// Something that no client should send.
    pub(crate) fn nonsense(&mut self, number: usize) {
        if !self.conns[number].client.can_begin() || self.conns[number].client.ends.malformed {
            return;
        }
        let phone = self.conns[number].endpoint == Endpoint::Client;
        let client = &mut self.conns[number].client;
        match self.rng.u8(..4) {
            // A frame that is not masked, a reserved bit, a continuation of nothing.
            0 => {
                let broken = [&[0x81, 0x01, b'1'][..], &[0xc1, 0x80, 0, 0, 0, 0], &[0x80, 0x80, 0, 0, 0, 0]];
                client.send_raw(broken[self.rng.usize(..broken.len())]);
                client.ends.broke_rules = true;
            }
            _ if phone => {
                let texts: [&[u8]; 4] = [b"{", b"", b"{} {}", b"\"\xff\""];
                let text = texts[self.rng.usize(..texts.len())];
                client.begin([frame(0x81, text)], Meaning::Malformed);
                self.send_some(number, usize::MAX);
            }
            _ => {
                let texts: [&[u8]; 4] = [b"[]", b"", b"{\"frame\":1}", b"\"\xff\""];
                let text = texts[self.rng.usize(..texts.len())];
                let envelope = Envelope { to: None, asks: Asks::Nonsense };
                client.begin([frame(0x82, text)], Meaning::Envelope(envelope));
                self.send_some(number, usize::MAX);
            }
        }
    }
}
