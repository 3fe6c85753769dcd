//! Lines on stderr, written by a thread of their own, `log`.
//!
//! A terminal that is stopped, or a pipe whose reader lives and does not read, blocks whoever writes. That must not
//! be who forwards frames. So lines go into a bounded queue; when it is full they are lost and counted, and the count
//! is logged when there is room again.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::output::Sink;

/// Lines that may wait.
const QUEUE: usize = 4096;

enum Job {
    Line(Vec<u8>),
    /// Everything before this was written.
    Flushed(SyncSender<()>),
}

/// The queue to stderr. Clones refer to the same one.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    jobs: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

impl Stderr {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let stderr = Self { jobs, lost: Arc::clone(&lost) };
        thread::Builder::new().name("log".to_owned()).spawn(move || write(&queue, &lost))?;
        Ok(stderr)
    }

    /// Waits until every line so far was written, for `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, flushed) = sync_channel(1);
        let mut job = Job::Flushed(done);
        while let Err(TrySendError::Full(back)) = self.jobs.try_send(job) {
            if Instant::now() >= until {
                return;
            }
            job = back;
            thread::sleep(Duration::from_millis(1));
        }
        // Out of time, or the thread is gone: either way there is nothing more to wait for.
        let _ = flushed.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Sink for Stderr {
    fn write_line(&self, line: &[u8]) {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes each line in one system call, so that lines of several processes do not mix.
fn write(queue: &Receiver<Job>, lost: &AtomicU64) {
    for job in queue {
        match job {
            // A reader that is gone (EPIPE) is no reason to stop, and there is nowhere left to report it.
            Job::Line(line) => drop(io::stderr().write_all(&line)),
            // Whoever waited may have given up.
            Job::Flushed(done) => drop(done.try_send(())),
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            super::log_lines_lost(lost);
        }
    }
}
