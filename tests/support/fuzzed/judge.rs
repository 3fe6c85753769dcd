//! What must hold of a relay and its peers, whatever they were told to do (PROTOCOL §§ 3 to 6).

use std::collections::{BTreeMap, BTreeSet};

use pyrycode_relay::relay::envelope::{self, FromBinary, is_legal_close_code};
use pyrycode_relay::relay::observer::{Direction, Endpoint};
use smol::future;

use crate::client_stream::{Said, said};
use crate::reference_json;
use crate::world::{Connection, World};

/// What the relay may say on its own account when it closes: to whom, which code, which reason (PROTOCOL § 5).
const CLOSES: [(Option<Endpoint>, u16, &str); 14] = [
    (None, 1001, "shutting down; retry-after=5"),
    (Some(Endpoint::Client), 1007, "frame is not valid JSON"),
    (None, 1009, "message too big"),
    (None, 1011, "heartbeat timeout"),
    (None, 1011, "message timed out"),
    (Some(Endpoint::Client), 1011, "phone backlog full"),
    (Some(Endpoint::Client), 1011, "phone write failed"),
    (Some(Endpoint::Client), 1011, "binary did not reconnect"),
    (Some(Endpoint::Server), 1011, "binary write failed"),
    (Some(Endpoint::Client), 4404, "no server with that id"),
    (Some(Endpoint::Client), 4404, "binary reclaimed server-id"),
    (Some(Endpoint::Client), 4404, "binary disconnected"),
    (Some(Endpoint::Server), 4409, "server-id already claimed"),
    (Some(Endpoint::Client), 4429, "too many phones for server-id"),
];

/// What a connection said and was told.
struct Told<'a> {
    connection: &'a Connection,
    said: Vec<Said>,
    texts: Vec<String>,
    pinged: bool,
    pongs: Vec<Vec<u8>>,
    close: Option<(u16, String)>,
    /// The last frame is not whole.
    cut_short: bool,
}

/// Plays a story to its end and checks everything. Returns what happened, in a few words: equal for stories that went
/// the same way.
pub(crate) fn play(input: &[u8]) -> String {
    let world = World::after(input);
    world.take_all();
    // Who contests a server-id is not heard before it is known who has it.
    let all_let_in = world.recording.upgrades().len() == world.connections.len();
    if all_let_in && world.recording.closed().is_empty() {
        check_nothing_is_stuck(&world);
    }
    world.hang_up();

    assert_eq!(world.hub.shared().budget.taken(), 0);
    assert_eq!(Endpoint::ALL.map(|endpoint| world.recording.queued_bytes(endpoint)), [0, 0]);
    for direction in Direction::ALL {
        assert_eq!(
            world.recording.read(direction),
            world.recording.accounted(direction),
            "{direction:?}: {:?}",
            world.recording
        );
    }
    let count = world.connections.len();
    assert_eq!((world.recording.closed().len(), world.recording.upgrades().len()), (count, count));
    // Nobody waits for whatever is dropped with the relay.
    assert!(future::block_on(future::poll_once(world.hub.emptied())).is_some());

    let told: Vec<_> = world.connections.iter().map(|connection| listen(&world, connection)).collect();
    for one in &told {
        check_close(one, &told);
        check_pongs(one);
        match one.connection.endpoint {
            Endpoint::Server => check_binary(one, &told),
            Endpoint::Client => check_phone(one, &told),
        }
    }
    check_forwarded(&world, &told);
    summary(&world, &told)
}

/// With everybody still there and taking all that comes, whatever was said has been heard and answered.
fn check_nothing_is_stuck(world: &World) {
    let told: Vec<_> = world.connections.iter().map(|connection| listen(world, connection)).collect();
    let (mut of_phones, mut of_binaries) = (0, 0);
    for one in &told {
        let messages = one.messages().count() as u64;
        *if is_phone(one) { &mut of_phones } else { &mut of_binaries } += messages;
        assert_eq!(one.pongs.len(), one.said.iter().filter(|said| matches!(said, Said::Ping(_))).count());
    }
    assert_eq!(world.recording.read(Direction::PhoneToBinary), of_phones, "a phone is not read from");
    // Nobody was closed, so no message was only a close; and a wake is no frame.
    let read = world.recording.read(Direction::BinaryToPhone) + world.recording.push_wakes();
    assert_eq!(read, of_binaries, "a binary is not read from");
    assert_eq!(world.hub.shared().budget.taken(), 0, "something is not written");
}

fn is_phone(one: &Told<'_>) -> bool {
    one.connection.endpoint == Endpoint::Client
}

/// The largest message that a connection may send.
fn limit(world: &World, endpoint: Endpoint) -> usize {
    match endpoint {
        Endpoint::Server => world.settings.max_frame + 1024,
        Endpoint::Client => world.settings.max_frame,
    }
}

impl Told<'_> {
    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.said.iter().filter_map(|said| match said {
            Said::Message(message, _) => Some(message.as_slice()),
            _ => None,
        })
    }

    /// What a binary asked for, in order.
    fn asked(&self) -> impl Iterator<Item = FromBinary<'_>> {
        self.messages().filter_map(|message| envelope::unwrap(message).ok())
    }
}

/// Reads what the relay sent: frames of a server, one of them a close frame at most, and nothing behind it.
fn listen<'a>(world: &World, connection: &'a Connection) -> Told<'a> {
    let said = said(&connection.sent, limit(world, connection.endpoint));
    let mut told = Told {
        connection,
        said,
        texts: Vec::new(),
        pinged: false,
        pongs: Vec::new(),
        close: None,
        cut_short: false,
    };
    let received = connection.peer.received();
    let mut rest = received.as_slice();
    while !rest.is_empty() {
        assert_eq!(told.close, None, "something stands behind the close frame: {}", rest.escape_ascii());
        let Some((first, payload, behind)) = server_frame(rest) else { break };
        rest = behind;
        match first {
            0x81 => told.texts.push(String::from_utf8(payload.to_vec()).unwrap_or_default()),
            0x89 => {
                assert_eq!(payload, b"", "a ping says something");
                told.pinged = true;
            }
            0x8a => told.pongs.push(payload.to_vec()),
            0x88 => {
                let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec());
                told.close = Some((code, reason.unwrap_or_else(|_| "not UTF-8".to_owned())));
            }
            _ => assert_eq!(first, 0x81, "a server does not send that"),
        }
    }
    told.cut_short = !rest.is_empty();
    assert!(told.texts.iter().all(|text| !text.is_empty()), "a text is empty or not UTF-8");
    if connection.peer.is_closed() {
        assert!(!told.cut_short && told.close.is_some(), "hung up without a close frame");
    }
    told
}

/// The first frame, if it is there to its last byte: its first byte, its payload, and what is behind it.
fn server_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert!(second < 0x80, "a server does not mask");
    assert!(first & 0x08 == 0 || second <= 125, "a control frame of more than 125 bytes");
    let (length, least, rest) = match second {
        126 => rest.split_first_chunk().map(|(at, rest)| (u64::from(u16::from_be_bytes(*at)), 126, rest))?,
        127 => rest.split_first_chunk().map(|(at, rest)| (u64::from_be_bytes(*at), 0x1_0000, rest))?,
        length => (u64::from(length), 0, rest),
    };
    assert!(length >= least, "a length is longer than it has to be");
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((first, payload, rest))
}

/// A close frame is one of the table, or says what the peer or its binary said.
fn check_close(one: &Told<'_>, everybody: &[Told<'_>]) {
    let Some((code, reason)) = &one.close else { return };
    let endpoint = one.connection.endpoint;
    let of_the_table = CLOSES
        .iter()
        .any(|(to, number, text)| to.is_none_or(|to| to == endpoint) && number == code && text == reason);
    let answered = one.said.iter().any(|said| match said {
        Said::Close(theirs) => reason.is_empty() && theirs.unwrap_or(1000) == *code,
        _ => false,
    });
    let asked = || {
        let mut binaries = everybody.iter().filter(|other| !is_phone(other));
        is_phone(one)
            && reason.is_empty()
            && binaries.any(|binary| {
                binary.asked().any(|asked| match asked {
                    FromBinary::Deliver { close_code, .. } => close_code.is_some_and(|it| it.get() == *code),
                    FromBinary::CloseOnly { close_code, .. } => close_code.get() == *code,
                    FromBinary::PushWake { .. } => false,
                })
            })
    };
    assert!(of_the_table || answered || asked(), "{endpoint:?} was closed with {code} {reason:?}");
    assert!(is_legal_close_code(*code), "{code}");
}

/// Whether all of `some` are in `all`, in that order.
fn is_subsequence<T: PartialEq>(some: impl IntoIterator<Item = T>, all: impl IntoIterator<Item = T>) -> bool {
    let mut all = all.into_iter();
    some.into_iter().all(|one| all.any(|other| other == one))
}

fn check_pongs(one: &Told<'_>) {
    let pings = one.said.iter().filter_map(|said| match said {
        Said::Ping(payload) => Some(payload),
        _ => None,
    });
    assert!(is_subsequence(&one.pongs, pings), "a pong that no ping asked for");
}

/// A binary hears of each phone what it said, from its first message on and byte for byte, and at most one close notice
/// behind that.
fn check_binary(one: &Told<'_>, everybody: &[Told<'_>]) {
    let mut heard = BTreeMap::<String, Vec<&str>>::new();
    let mut gone = BTreeSet::new();
    for text in &one.texts {
        let members = reference_json::members(text.as_bytes()).unwrap_or_default();
        let keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
        let conn_id = members.first().map(|(_, raw)| raw.clone()).unwrap_or_default();
        assert!(!gone.contains(&conn_id), "something stands behind a close notice: {text}");
        if keys == ["conn_id", "close_code"] {
            let code = members[1].1.parse().unwrap_or(0);
            assert!(is_legal_close_code(code), "{text}");
            gone.insert(conn_id);
            continue;
        }
        assert_eq!(keys, ["conn_id", "frame"], "{text}");
        let frame = text.get(12 + 18 + 10..text.len() - 1).unwrap_or_default();
        heard.entry(conn_id).or_default().push(frame);
    }
    for (conn_id, frames) in heard {
        let mut phones = everybody.iter().filter(|other| is_phone(other) && are_together(one, other));
        let whose = phones.find(|phone| {
            let messages: Vec<_> = phone.messages().take(frames.len()).collect();
            messages == frames.iter().map(|frame| frame.as_bytes()).collect::<Vec<_>>()
        });
        assert!(whose.is_some(), "{conn_id} is said to have said {frames:?}");
    }
}

/// A phone hears, in order and byte for byte, what one binary of its server-id had for it.
fn check_phone(one: &Told<'_>, everybody: &[Told<'_>]) {
    let mut binaries = everybody.iter().filter(|other| !is_phone(other) && are_together(one, other));
    let said = binaries.any(|binary| {
        let frames = binary.asked().filter_map(|asked| match asked {
            FromBinary::Deliver { conn_id: Some(_), frame, .. } => Some(frame),
            _ => None,
        });
        is_subsequence(one.texts.iter().map(String::as_str), frames)
    });
    assert!(said || one.texts.is_empty(), "no binary said {:?}", one.texts);
}

fn are_together(one: &Told<'_>, other: &Told<'_>) -> bool {
    one.connection.server == other.connection.server
}

/// Forwarded is what arrived, to the frame and to the byte.
fn check_forwarded(world: &World, everybody: &[Told<'_>]) {
    let mut arrived = [(0, 0), (0, 0)];
    for one in everybody {
        for text in &one.texts {
            let (direction, payload) = if is_phone(one) {
                (Direction::BinaryToPhone, text.len())
            } else if text.get(31..).is_some_and(|rest| rest.starts_with(",\"frame\":")) {
                (Direction::PhoneToBinary, text.len() - 12 - 18 - 11)
            } else {
                continue;
            };
            let sum = &mut arrived[usize::from(direction == Direction::BinaryToPhone)];
            *sum = (sum.0 + 1, sum.1 + payload as u64);
        }
    }
    let counted = [Direction::PhoneToBinary, Direction::BinaryToPhone]
        .map(|direction| (world.recording.forwarded(direction), world.recording.forwarded_bytes(direction)));
    assert_eq!(counted, arrived);
}

/// How everybody's connection ended, what became of frames, and what else happened.
fn summary(world: &World, everybody: &[Told<'_>]) -> String {
    let recording = &world.recording;
    let mut facts: BTreeSet<String> =
        recording.closed().iter().map(|(to, cause)| format!("{}:{}", to.as_str(), cause.as_str())).collect();
    for direction in Direction::ALL {
        let drops = recording.drops(direction);
        facts.extend(drops.iter().map(|(why, _)| format!("{}:{}", direction.as_str(), why.as_str())));
        facts.extend((recording.forwarded(direction) > 0).then(|| format!("{}:arrived", direction.as_str())));
    }
    for one in everybody {
        let in_fragments = one.said.iter().any(|said| matches!(said, Said::Message(_, true)));
        let notice = |text: &String| text.get(31..).is_some_and(|rest| rest.starts_with(",\"close_code\":"));
        let endpoint = one.connection.endpoint.as_str();
        for (happened, fact) in [
            (in_fragments, "said_in_fragments"),
            (one.pinged, "pinged"),
            (!one.pongs.is_empty(), "ponged"),
            (!is_phone(one) && one.texts.iter().any(notice), "notified"),
            (one.cut_short, "cut_short"),
        ] {
            facts.extend(happened.then(|| format!("{endpoint}:{fact}")));
        }
    }
    for (count, fact) in [
        (recording.reclaims(), "reclaim"),
        (recording.takeovers(), "takeover"),
        (recording.push_wakes(), "push_wake"),
    ] {
        facts.extend((count > 0).then(|| fact.to_owned()));
    }
    facts.into_iter().collect::<Vec<_>>().join(" ")
}
