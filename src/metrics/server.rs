//! Serves `GET /metrics` on loopback, on an OS thread of its own.
//!
//! [`MetricsServer::bind`] takes the socket, so that an address in use is an error at start;
//! [`MetricsServer::start`] starts the thread `metrics`, which accepts connections, speaks HTTP/1.1 with hyper, and
//! formats the figures. It shares no executor with the connections that forward frames: a scrape never waits for
//! traffic, and traffic never waits for a scrape. It touches no lock of the forwarding path but the census.
//!
//! The thread blocks in `futures_lite::future::block_on`, deliberately not in that of `async_io` or `smol`. Those
//! drive the process's one reactor while they wait, so this thread would take the reactor away from the executor
//! that forwards frames, and that executor's wake-ups would take a detour through this thread.
//!
//! A peer can hold one of 32 places for a bounded time only: a request must arrive within 10 s, also the next one
//! on a connection that is kept alive, and no connection lives longer than a minute, so that a peer that does not
//! read its answer leaves as well. Whoever comes beyond the 32 waits in the kernel's queue.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use futures_lite::future::{self, block_on};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::io::{AsyncRead, AsyncWrite};
use smol::lock::Semaphore;
use smol_hyper::rt::FuturesIo;

use super::families::Families;
use super::timer::HyperTimer;
use crate::config::is_loopback;
use crate::event::{self, Throttle};

/// Connections served at one time.
const CONNECTIONS_MAX: usize = 32;
/// A request's head must be complete within this time, and the next one on a kept-alive connection as well.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection older than this is closed after the answer that it is in.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// That answer must be taken within this time.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: descriptors come back only when something else is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of memory for reading from one connection; a larger request head is refused.
const READ_BUFFER: usize = 16 * 1024;

/// The socket for scrapes, bound but not yet served.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
}

impl MetricsServer {
    /// Binds `addr`. The kernel queues connections from here on; they are answered after [`Self::start`].
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if `addr` is not in 127.0.0.0/8 and not `[::1]` (PROTOCOL § 8): the page is not
    /// for the network. Else what the operating system says, for example that the address is in use.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        check_loopback(addr)?;
        Self::from_listener(TcpListener::bind(addr)?)
    }

    /// Takes a socket that is already bound and listening, such as one that systemd passed.
    ///
    /// # Errors
    ///
    /// As for [`Self::bind`], on the address that the socket has.
    pub fn from_listener(listener: TcpListener) -> io::Result<Self> {
        check_loopback(listener.local_addr()?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// The address that scrapes go to.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Starts the thread `metrics`. That it really answers is for [`MetricsThread::answers`] to say.
    ///
    /// # Errors
    ///
    /// The socket could not be registered with the reactor, or the thread not started.
    pub fn start(self, families: Arc<Families>) -> io::Result<MetricsThread> {
        let addr = self.local_addr()?;
        let listener = Async::new(self.listener)?;
        let (stop, stopped) = bounded(1);
        let (ask, asked) = unbounded();
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || guarded_thread(&listener, families, &asked, &stopped))?;
        Ok(MetricsThread { addr, ask, stop, thread: Some(thread) })
    }
}

/// The running thread. Dropping it stops the thread, closes the socket and every connection, and waits for the end,
/// which takes as long as the scrape that is being formatted.
#[derive(Debug)]
pub struct MetricsThread {
    addr: SocketAddr,
    /// To the thread: connections that did not come through the listener.
    ask: Sender<Async<UnixStream>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsThread {
    /// The address that scrapes go to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Scrapes once and says whether a page came back within `limit`. Blocks the calling thread that long at most.
    ///
    /// The connection is a pair of sockets, not one through the listener: a process that systemd shut off from every
    /// network could not connect to it.
    #[must_use]
    pub fn answers(&self, limit: Duration) -> bool {
        self.is_running() && self.scrape_once(limit).unwrap_or(false)
    }

    /// Whether the thread is there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// One GET with plain blocking calls, each bounded by what is left of `limit`.
    fn scrape_once(&self, limit: Duration) -> io::Result<bool> {
        const EXPECTED: &[u8] = b"HTTP/1.1 200 ";

        let deadline = Instant::now() + limit;
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
            left => Ok(left),
        };
        let (mut stream, theirs) = UnixStream::pair()?;
        if self.ask.try_send(Async::new(theirs)?).is_err() {
            return Ok(false);
        }
        stream.set_write_timeout(Some(left()?))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut begin = [0; EXPECTED.len()];
        let mut filled = 0;
        while let Some(rest) = begin.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            stream.set_read_timeout(Some(left()?))?;
            match stream.read(rest) {
                Ok(0) => return Ok(false),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(begin == EXPECTED)
    }

    /// Stops the thread and waits for its end; the same as dropping it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for MetricsThread {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            // The thread has reported its own panic, if it had one.
            let _ = thread.join();
        }
    }
}

/// Applies the rule of the configuration to an address. Port 0 passes: whoever binds it asks where it ended up.
fn check_loopback(addr: SocketAddr) -> io::Result<()> {
    if is_loopback(addr.ip()) {
        return Ok(());
    }
    let problem = format!("metrics address {addr} is not allowed: it must be in 127.0.0.0/8 or [::1]");
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// The thread's main function. A panic that gets this far ends the page but not the relay; it must not go unseen.
fn guarded_thread(
    listener: &Async<TcpListener>,
    families: Arc<Families>,
    asked: &Receiver<Async<UnixStream>>,
    stopped: &Receiver<()>,
) {
    let executor = LocalExecutor::new();
    let page = Rc::new(Page { families, failures: RefCell::default() });
    let accept = accept(&executor, listener, &page);
    let asked = answer(&executor, asked, &page);
    let serve = executor.run(future::or(future::or(accept, asked), async {
        // Nothing is ever sent: this ends when the other side closes the channel.
        let _ = stopped.recv().await;
    }));
    if catch_unwind(AssertUnwindSafe(|| block_on(serve))).is_err() {
        event::metrics_thread_failed(&"panicked");
    }
}

/// Accepts connections for as long as it is polled.
async fn accept(executor: &LocalExecutor<'_>, listener: &Async<TcpListener>, page: &Rc<Page>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let addr = listener.get_ref().local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
    let mut throttle = Throttle::default();
    loop {
        let place = places.acquire_arc().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = Rc::clone(page);
                executor
                    .spawn(async move {
                        serve(stream, &page).await;
                        drop(place);
                    })
                    .detach();
            }
            Err(error) => {
                if let Some(suppressed) = throttle.admit(Instant::now()) {
                    event::accept_failed(addr, &error, suppressed);
                }
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves what the owner of the thread asks for, for as long as it is polled.
async fn answer(executor: &LocalExecutor<'_>, asked: &Receiver<Async<UnixStream>>, page: &Rc<Page>) {
    while let Ok(stream) = asked.recv().await {
        let page = Rc::clone(page);
        executor.spawn(async move { serve(stream, &page).await }).detach();
    }
}

/// Serves one connection until its peer, a time limit or an error ends it. None of that is an event: the peer is a
/// local scraper, and what it got wrong it is told in the answer.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, page: &Page) {
    let service = service_fn(|request| future::ready(Ok::<_, Infallible>(page.answer(&request))));
    let connection = http1::Builder::new()
        .timer(HyperTimer)
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .serve_connection(FuturesIo::new(stream), service);
    let mut connection = pin!(connection);
    if finished_within(CONNECTION_LIFETIME, connection.as_mut()).await {
        return;
    }
    connection.as_mut().graceful_shutdown();
    finished_within(LAST_ANSWER_TIMEOUT, connection).await;
}

/// Whether `work` was done in time.
async fn finished_within(limit: Duration, work: impl Future) -> bool {
    let work = async {
        work.await;
        true
    };
    let time = async {
        Timer::after(limit).await;
        false
    };
    future::or(work, time).await
}

/// What the thread serves.
struct Page {
    families: Arc<Families>,
    /// For the event about scrapes that failed: whoever scrapes in a loop must not fill the log.
    failures: RefCell<Throttle>,
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return line(StatusCode::NOT_FOUND, "not found; the page is /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = line(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        // A panic while collecting costs this scrape, not the thread; the panic's own message went to stderr.
        let page = match catch_unwind(AssertUnwindSafe(|| self.families.encode())) {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return self.failed(&error),
            Err(_) => return self.failed(&"panicked"),
        };
        let mut response = Response::new(Full::new(Bytes::from(page)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT));
        response
    }

    fn failed(&self, cause: &dyn Display) -> Response<Full<Bytes>> {
        if let Some(suppressed) = self.failures.borrow_mut().admit(Instant::now()) {
            event::scrape_failed(cause, suppressed);
        }
        line(StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be collected; see the log\n")
    }
}

/// An answer of one line of text.
fn line(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
