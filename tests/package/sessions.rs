//! Clients that are connected while something happens to the relay.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::support::client::{self, Client, binary_headers, phone_headers};
use crate::support::http;
use crate::support::{DEADLINE, random};
use crate::system::{PUBLIC, address};

/// A binary and its phone.
struct Room {
    id: String,
    binary: Client,
    phone: Client,
}

impl Room {
    /// Opens it, and passes a frame in both directions. How many connections were refused meanwhile.
    fn open(id: &str) -> (Self, usize) {
        let (mut binary, first) = dial("/v2/server", &binary_headers(id));
        let (mut phone, second) = dial("/v2/client", &phone_headers(id));
        phone.send("[\"there?\"]");
        let conn_id = binary.json()["conn_id"].as_str().expect("a conn_id").to_owned();
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":[\"here\"]}}"));
        assert_eq!(phone.text(), "[\"here\"]");
        (Self { id: id.to_owned(), binary, phone }, first + second)
    }

    /// Waits until both are closed; what each was told.
    fn closed(mut self) -> [(u16, String); 2] {
        [self.phone.closed(), self.binary.closed_after_notices()]
    }
}

/// How a room was closed and came back.
pub struct Back {
    /// What binary and phone were told when they were closed.
    pub told: [(u16, String); 2],
    /// When they were.
    pub closed: SystemTime,
    /// Connections that were refused before one was taken.
    pub refused: usize,
    /// When a frame had gone through the room in both directions again.
    pub when: SystemTime,
}

/// Rooms that come back by themselves after they were closed.
pub struct Rooms(Vec<JoinHandle<Back>>);

impl Rooms {
    /// Opens so many.
    pub fn open(number: usize) -> Self {
        let rooms: Vec<_> = (0..number).map(|number| Room::open(&format!("room-{number}")).0).collect();
        let come_back = |room: Room| {
            std::thread::spawn(move || {
                let id = room.id.clone();
                let told = room.closed();
                let closed = SystemTime::now();
                std::thread::park_timeout(a_part_of_the_hint(&told[0].1));
                let (_room, refused) = Room::open(&id);
                Back { told, closed, refused, when: SystemTime::now() }
            })
        };
        Self(rooms.into_iter().map(come_back).collect())
    }

    /// How each came back.
    pub fn back(self) -> Vec<Back> {
        self.0.into_iter().map(|room| room.join().expect("comes back")).collect()
    }
}

/// What a client waits that was told when to come back: any part of it, so that not all come at once.
fn a_part_of_the_hint(reason: &str) -> Duration {
    let seconds: u64 = reason.rsplit_once("retry-after=").expect("a hint").1.parse().expect("seconds");
    Duration::from_millis(random() % (1000 * seconds))
}

/// Dials as real clients do: again and again, with a short pause. How often it was refused.
fn dial(path: &str, headers: &[(&str, &str)]) -> (Client, usize) {
    let until = Instant::now() + 2 * DEADLINE;
    let mut refused = 0;
    loop {
        assert!(Instant::now() < until, "{headers:?} does not come back");
        let upgraded = TcpStream::connect(address(PUBLIC)).ok().and_then(|stream| {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            client::connect_over(stream, path, headers).ok()
        });
        if let Some(mut client) = upgraded {
            // One that the relay lets in while it stops is told so at once.
            if client.admitted().is_ok() {
                return (client, refused);
            }
        }
        refused += 1;
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Knocks all the time, over a new connection each time, as a load balancer does.
pub struct Knocking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Knocks>>,
}

/// What came of knocking.
#[derive(Default)]
pub struct Knocks {
    /// Answers that all is well.
    pub answered: usize,
    /// Answers of whatever kind that took longer than a tenth of a second.
    pub late: usize,
    /// Answers that the relay is draining: to those whom it had let in already.
    pub draining: usize,
    /// Connections that were refused or broken off.
    pub refused: Vec<String>,
}

impl Knocking {
    pub fn start(threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let knock = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || knock_until(&stop))
        };
        let threads = (0..threads).map(knock).collect();
        Self { stop, threads }
    }

    pub fn stop(self) -> Knocks {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Knocks::default();
        for thread in self.threads {
            let knocks = thread.join().expect("knocks");
            all.answered += knocks.answered;
            all.draining += knocks.draining;
            all.late += knocks.late;
            all.refused.extend(knocks.refused);
        }
        all
    }
}

fn knock_until(stop: &AtomicBool) -> Knocks {
    let mut knocks = Knocks::default();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        match health(address(PUBLIC)) {
            Ok(200) => knocks.answered += 1,
            Ok(503) => knocks.draining += 1,
            Ok(status) => knocks.refused.push(format!("status {status}")),
            Err(error) => knocks.refused.push(error),
        }
        knocks.late += usize::from(began.elapsed() > Duration::from_millis(100));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    knocks
}

/// The status of `/healthz`, or what came instead of an answer.
fn health(address: SocketAddr) -> Result<u16, String> {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = http::request("GET /healthz HTTP/1.1", &[("connection", "close")]);
    stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| format!("answer: {answer:?}"))
}
