//! A thread that runs tasks, and the sockets that they live on.
//!
//! What runs on one worker never waits for what runs on another. A panic costs the task that it happened in.

use std::future::{self, Future, poll_fn};
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::iter;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;

use async_executor::{Executor, StaticExecutor, Task};

use super::reactor::Reactor;
use super::source::Registration;

/// Turns of tasks between two looks at the sockets. Tasks that always have something to do would otherwise keep those from being noticed
/// whose sockets have become ready: a turn may carry half a megabyte. (`Executor::run` takes 200.)
const TURNS: usize = 16;

/// An executor and a reactor. Clones are the same worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// One that is never dropped keeps no list of its tasks: such a list would stay as long as it ever was.
    executor: &'static StaticExecutor,
    reactor: Arc<Reactor>,
}

impl Worker {
    /// One for [`Worker::block_on`].
    ///
    /// # Errors
    /// What the operating system says; there may be no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { reactor: Reactor::new()?, executor: Executor::new().leak() })
    }

    /// One with a thread of its own, of that name, which ends with the process.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(name: &str) -> io::Result<Self> {
        let worker = Self::new()?;
        let running = worker.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                // The panic's own message went to stderr.
                let _ = catch_unwind(AssertUnwindSafe(|| running.block_on(future::pending::<()>())));
            }
        })?;
        Ok(worker)
    }

    /// Runs the tasks on the calling thread until `future` is done.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(when_woken(future, &self.reactor));
        // Kept from poll to poll: it is what the executor wakes.
        let mut tick = pin!(self.executor.tick());
        self.reactor.block_on(poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            for _ in 0..TURNS {
                ready!(tick.as_mut().poll(cx));
                tick.set(self.executor.tick());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    /// Starts a task.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.executor.spawn(future)
    }

    /// Registers a socket, which must be non-blocking: its readiness is told here from now on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn register(&self, socket: impl AsFd) -> io::Result<Registration> {
        self.reactor.register(socket)
    }
}

/// `future`, polled only when it has been woken itself. An executor polls what it runs beside its tasks whenever there is anything to
/// do for any of them.
fn when_woken<T>(future: impl Future<Output = T>, reactor: &Arc<Reactor>) -> impl Future<Output = T> {
    struct Own {
        woken: AtomicBool,
        reactor: Arc<Reactor>,
    }

    impl Wake for Own {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.woken.store(true, Ordering::Release);
            self.reactor.wake_by_ref();
        }
    }

    let own = Arc::new(Own { woken: AtomicBool::new(true), reactor: Arc::clone(reactor) });
    async move {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&own));
        poll_fn(|_| {
            if own.woken.swap(false, Ordering::AcqRel) {
                future.as_mut().poll(&mut Context::from_waker(&waker))
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// The workers that sessions run on. All of a server-id run on the same one: they hand each other what they read, and so never
/// to another thread.
#[derive(Debug)]
pub struct Workers {
    first: Worker,
    others: Vec<Worker>,
    /// Keyed, so that nobody can choose server-ids that crowd together.
    hasher: RandomState,
}

impl Workers {
    /// `first`, which somebody else runs, and as many more as make `count`, each with a thread.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(first: &Worker, count: usize) -> io::Result<Self> {
        let others = (2..=count)
            .map(|number| Worker::start(&format!("worker-{number}")))
            .collect::<io::Result<_>>()?;
        Ok(Self { first: first.clone(), others, hasher: RandomState::new() })
    }

    /// The one for this server-id.
    pub fn of(&self, server_id: &impl Hash) -> &Worker {
        if self.others.is_empty() {
            return &self.first;
        }
        let count = self.others.len() as u64 + 1;
        let which = self.hasher.hash_one(server_id) % count;
        usize::try_from(which).ok().and_then(|which| self.others.get(which)).unwrap_or(&self.first)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Worker> {
        iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::AtomicUsize;

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_socket_that_becomes_ready_is_noticed_however_busy_the_tasks_are() {
        let worker = Worker::new().unwrap();
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let registration = worker.register(&receiver).unwrap();
        let turns = Arc::<AtomicUsize>::default();
        for _ in 0..3 {
            let turns = Arc::clone(&turns);
            let busy = async move {
                loop {
                    turns.fetch_add(1, Ordering::SeqCst);
                    smol::future::yield_now().await;
                }
            };
            worker.spawn(busy).detach();
        }
        let sent_at = Arc::<AtomicUsize>::default();
        let sending = {
            let (turns, sent_at) = (Arc::clone(&turns), Arc::clone(&sent_at));
            async move {
                for _ in 0..100 {
                    smol::future::yield_now().await;
                }
                sent_at.store(turns.load(Ordering::SeqCst), Ordering::SeqCst);
                sender.write_all(&[7]).unwrap();
                sender
            }
        };
        let sending = worker.spawn(sending);
        let read = async move { registration.get(|| (&receiver).read(&mut [0])).await.unwrap() };
        let reading = worker.spawn(read);
        assert_eq!(worker.block_on(reading), 1);
        let waited = turns.load(Ordering::SeqCst) - sent_at.load(Ordering::SeqCst);
        assert!(waited <= 2 * TURNS, "{waited} turns");
        drop(block_on(sending));
    }

    #[test]
    fn a_panic_costs_one_task() {
        let worker = Worker::start("test").unwrap();
        let other = worker.spawn(async {
            smol::future::yield_now().await;
            7
        });
        worker.spawn(async { panic!("on purpose") }).detach();
        assert_eq!(block_on(other), 7);
        assert_eq!(block_on(worker.spawn(async { 8 })), 8);
    }
}
