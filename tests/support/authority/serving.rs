//! The port, the connections that come in, and the threads that must have ended when the authority has.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConnection, Stream};
use socket2::{Domain, Socket, Type};

use super::http::Request;
use super::{Behaviour, Seen, Shared, protocol};

/// How long a client may take over its request.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port that stays taken while nobody listens on it.
pub(super) struct Port {
    /// Bound, never listening: connections are refused, and nobody else is given the port.
    held: Socket,
}

impl Port {
    pub(super) fn take() -> Self {
        Self { held: bound(0) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.held.local_addr().unwrap().as_socket().expect("an address of IPv4")
    }

    pub(super) fn listen(&self) -> TcpListener {
        let socket = bound(self.address().port());
        socket.listen(128).expect("listens");
        socket.into()
    }
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // What lets the socket that holds the port and the one that listens on it have the same.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("binds");
    socket
}

/// Threads, and the sockets that they wait on.
#[derive(Default)]
pub(super) struct Crew(Mutex<Members>);

#[derive(Default)]
struct Members {
    closed: bool,
    panicked: bool,
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<Weak<TcpStream>>,
}

impl Crew {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread, unless the crew is closed.
    pub(super) fn begin(&self, work: impl FnOnce() + Send + 'static) {
        let mut members = self.members();
        if members.closed {
            return;
        }
        // A thread that has ended keeps its stack until it is joined.
        let (ended, going): (Vec<_>, Vec<_>) = members.threads.drain(..).partition(JoinHandle::is_finished);
        members.threads = going;
        members.panicked |= ended.into_iter().any(|thread| thread.join().is_err());
        members.threads.push(thread::spawn(work));
    }

    /// Has a socket shut down when the crew is closed.
    pub(super) fn watch(&self, socket: &Arc<TcpStream>) {
        let mut members = self.members();
        if members.closed {
            let _ = socket.shutdown(Shutdown::Both);
        }
        members.sockets.retain(|one| one.strong_count() > 0);
        members.sockets.push(Arc::downgrade(socket));
    }

    fn is_closed(&self) -> bool {
        self.members().closed
    }

    /// Begins no more threads, and lets none wait for its socket any more.
    pub(super) fn close(&self) {
        let mut members = self.members();
        members.closed = true;
        for socket in members.sockets.drain(..).filter_map(|socket| socket.upgrade()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Takes threads again.
    pub(super) fn open(&self) {
        let mut members = self.members();
        assert!(members.closed, "it is open");
        members.closed = false;
    }

    /// Waits until every thread has ended.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut self.members().threads);
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count() > 0;
        // A test that fails already has its own say.
        assert!(
            !(panicked || self.members().panicked) || thread::panicking(),
            "a thread of the authority has panicked"
        );
    }
}

/// Serves whoever connects, until the crew is closed.
pub(super) fn start(shared: &Arc<Shared>, listener: TcpListener) {
    let crew = Arc::clone(shared);
    shared.serving.begin(move || {
        for stream in listener.incoming() {
            if crew.serving.is_closed() {
                return;
            }
            let (stream, shared) = (stream.expect("accepts"), Arc::clone(&crew));
            crew.serving.begin(move || {
                // Who does not finish its request, or does not trust the certificate, is not the authority's problem.
                let _ = serve(&shared, &Arc::new(stream));
            });
        }
    });
}

/// Serves one connection.
fn serve(shared: &Arc<Shared>, stream: &Arc<TcpStream>) -> io::Result<()> {
    let behaviour = {
        let mut records = shared.records();
        records.connections += 1;
        records.behaviour
    };
    if behaviour == Behaviour::HangUp {
        return Ok(());
    }
    shared.serving.watch(stream);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(Arc::clone(&shared.tls)).expect("a connection");
    let mut socket = &**stream;
    let mut tls = Stream::new(&mut connection, &mut socket);
    let request = Request::read(&mut tls)?;
    let at = Instant::now();
    let seen = |status| Seen { at, method: request.method.clone(), path: request.path.clone(), status };
    if behaviour == Behaviour::Stall {
        shared.records().requests.push(seen(None));
        stream.set_read_timeout(None)?;
        return io::copy(&mut tls, &mut io::sink()).map(drop);
    }
    let answer = protocol::answer(shared, &request);
    // Before the client can know that it was answered.
    shared.records().requests.push(seen(Some(answer.status)));
    answer.write(&request.method, &mut tls)?;
    tls.conn.send_close_notify();
    tls.conn.complete_io(tls.sock).map(drop)
}
