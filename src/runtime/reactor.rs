//! Tells tasks when their sockets are ready: epoll(7), edge-triggered.
//!
//! A socket is registered once and stays so. An edge says that it became ready; that it is so no longer, whoever reads or writes finds
//! out by trying ([`super::source`]). So a frame costs a wait, a read and a write, and nothing to arm or re-arm
//! (docs/decisions/0011).
//!
//! [`Reactor::block_on`] drives a future, such as an executor, on one thread: it polls until nothing is left to do, then waits for
//! sockets and for wake-ups from other threads. A wake-up from the same thread is a flag; only one that finds
//! the thread asleep costs a write to an eventfd. The eventfd is edge-triggered too, so it is never read.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use slab::Slab;

use super::source::{Registration, Source};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;

/// How many times as much room as is needed may stay when connections have gone.
const SPARSE: usize = 4;

/// The key of the eventfd. A slab does not grow so large.
const WAKE_UP: u64 = u64::MAX;

/// What every socket is registered for. Whether it can be written to is asked for once a write found it full.
const READ: EventFlags = EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP).union(EventFlags::ET);
const READ_AND_WRITE: EventFlags = READ.union(EventFlags::OUT);

/// The thread is at work.
const AWAKE: u8 = 0;
/// The thread is at work, and has to poll its future again before it waits.
const WOKEN: u8 = 1;
/// The thread waits.
const ASLEEP: u8 = 2;

/// An epoll instance, what is registered with it, and how its thread is woken.
#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
    wake_up: OwnedFd,
    state: AtomicU8,
    sources: Mutex<Slab<Arc<Source>>>,
}

impl Reactor {
    /// One that nothing is registered with.
    ///
    /// # Errors
    /// What the operating system says; there may be no descriptors left.
    pub fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake_up = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake_up, EventData::new_u64(WAKE_UP), EventFlags::IN | EventFlags::ET)?;
        Ok(Arc::new(Self { epoll, wake_up, state: AtomicU8::new(AWAKE), sources: Mutex::default() }))
    }

    /// Registers a socket, which must be non-blocking, until it is closed or [`Reactor::forget`] is called.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn register(self: &Arc<Self>, socket: impl AsFd) -> io::Result<Registration> {
        let source = Arc::new(Source::default());
        let key = self.sources().insert(Arc::clone(&source));
        // Owns the place in the slab already.
        let registration = Registration::new(Arc::clone(self), source, key);
        epoll::add(&self.epoll, socket, EventData::new_u64(key as u64), READ)?;
        Ok(registration)
    }

    /// From now on tells when the socket can be written to, too. If it can be already, that is told.
    pub(super) fn tell_writable(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(key as u64), READ_AND_WRITE)?)
    }

    /// Ends the registration of a socket that stays open.
    pub(super) fn forget(&self, socket: impl AsFd) {
        // It can only fail for one that is not registered.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// The key is free for another source. An event that is still under way for the old one makes the new one try once in vain.
    pub(super) fn release(&self, key: usize) {
        let mut sources = self.sources();
        sources.try_remove(key);
        // Not each time, because it looks at the whole slab.
        let is_time = sources.is_empty() || sources.len().is_power_of_two();
        if is_time && sources.capacity() > SPARSE * (sources.len() + EVENTS) {
            sources.shrink_to_fit();
        }
    }

    /// Drives `future` to its end on this thread, with everything that is registered. One thread at a time may be in here.
    pub fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let mut events = Vec::with_capacity(EVENTS);
        let mut wakers = Vec::new();
        loop {
            self.state.swap(AWAKE, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            let sleeps =
                self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            self.wait(sleeps, &mut events);
            self.state.swap(AWAKE, Ordering::SeqCst);
            self.tell(&events, &mut wakers);
            wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Asks the kernel what happened, and waits until something does if there is nothing else to do.
    fn wait(&self, sleeps: bool, events: &mut Vec<epoll::Event>) {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        events.clear();
        let timeout = if sleeps { None } else { Some(&AT_ONCE) };
        // The only failure that is possible is an interruption by a signal: then there are no events.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), timeout);
    }

    /// Notes what happened, and collects who waits for it. They are woken when the lock was let go, because a
    /// waker may drop the last of a task, and with it a registration.
    fn tell(&self, events: &[epoll::Event], wakers: &mut Vec<Waker>) {
        let sources = self.sources();
        for event in events {
            let (flags, key) = (event.flags, event.data.u64());
            if let Some(source) = usize::try_from(key).ok().and_then(|key| sources.get(key)) {
                source.happened(flags, wakers);
            }
        }
    }

    fn sources(&self) -> MutexGuard<'_, Slab<Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Reactor {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            // It fails when the counter is full, which takes centuries.
            let _ = rustix::io::write(&self.wake_up, &1_u64.to_ne_bytes());
        }
    }
}
