//! The thread `ingress`: connections that have not become a WebSocket.
//!
//! Accepting, and speaking HTTP with whoever comes, is work that strangers can make as much of as they like. On the executor
//! that forwards frames it would stand in the same queue as they do; on a thread of its own it gets its share of the
//! machine, and no more.
//!
//! The thread blocks in `futures_lite::future::block_on`, deliberately not in that of `async_io`: that one would drive the
//! process's one reactor while it waits, and take it away from the executor that forwards frames.
//!
//! A panic costs the connection whose task it was. The others go on.

use std::future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use futures_lite::future::block_on;
use smol::Executor;

use super::ServiceError;

/// The thread, and what runs on it.
pub(super) struct Doorway {
    executor: Arc<Executor<'static>>,
}

impl Doorway {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn open() -> Result<Self, ServiceError> {
        let executor = Arc::new(Executor::new());
        let running = Arc::clone(&executor);
        thread::Builder::new()
            .name("ingress".to_owned())
            .spawn(move || run(&running))
            .map_err(|error| ServiceError::System { what: "start the ingress thread", error })?;
        Ok(Self { executor })
    }

    /// Where connections are accepted and speak HTTP.
    pub(super) fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }
}

fn run(executor: &Executor<'static>) {
    loop {
        // The panic's own message went to stderr.
        let _ = catch_unwind(AssertUnwindSafe(|| block_on(executor.run(future::pending::<()>()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_task() {
        let doorway = Doorway::open().unwrap();
        let other = doorway.executor().spawn(async {
            smol::future::yield_now().await;
            7
        });
        doorway.executor().spawn(async { panic!("on purpose") }).detach();
        assert_eq!(block_on(other), 7);
        assert_eq!(block_on(doorway.executor().spawn(async { 8 })), 8);
    }
}
