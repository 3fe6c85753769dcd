//! An executor of one thread, in which chance decides who runs next.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use fastrand::Rng;

/// Those who can run, by their numbers: in whatever order they were woken, the choice among them is the same.
#[derive(Debug, Default)]
struct Ready(Mutex<BTreeSet<usize>>);

impl Ready {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    number: usize,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.number);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// The tasks of one simulation, by number.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: Vec<Option<Task>>,
    ready: Arc<Ready>,
}

impl Executor {
    /// Adds a task, which is ready. Returns its number.
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> usize {
        let number = self.tasks.len();
        let waker = Waker::from(Arc::new(TaskWaker { number, ready: Arc::clone(&self.ready) }));
        waker.wake_by_ref();
        self.tasks.push(Some(Task { future: Box::pin(future), waker }));
        number
    }

    pub(crate) fn is_running(&self, number: usize) -> bool {
        self.tasks.get(number).is_some_and(Option::is_some)
    }

    /// The tasks that have not finished.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|number| self.is_running(*number)).collect()
    }

    /// One of those who can run.
    pub(crate) fn pick(&self, rng: &mut Rng) -> Option<usize> {
        let ready = self.ready.lock();
        if ready.is_empty() { None } else { ready.iter().nth(rng.usize(..ready.len())).copied() }
    }

    /// Runs a task until it waits or is done.
    pub(crate) fn poll(&mut self, number: usize) {
        self.ready.lock().remove(&number);
        let Some(slot) = self.tasks.get_mut(number) else { return };
        let Some(task) = slot else { return };
        let mut cx = Context::from_waker(&task.waker);
        if task.future.as_mut().poll(&mut cx).is_ready() {
            *slot = None;
            // What it did last may have woken it once more.
            self.ready.lock().remove(&number);
        }
    }
}
