//! Deadlines: one for each wait, and one for all of them together.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::Timer;

use super::Deadlines;
use super::explain::Trouble;

/// The moments by which things must have happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) deadlines: Deadlines,
    end: Instant,
}

impl Clock {
    pub(super) fn start(deadlines: Deadlines) -> Self {
        let now = Instant::now();
        // A limit too far off to be expressed is none that anybody waits for.
        let end = now.checked_add(deadlines.overall).unwrap_or(now + Duration::from_secs(86_400));
        Self { deadlines, end }
    }

    /// The outcome of `wait`, unless `limit` or the end of the whole probe comes first.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        due: &str,
        wait: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let step = Instant::now().checked_add(limit).unwrap_or(self.end);
        let late = async {
            Timer::at(step.min(self.end)).await;
            Err(if step <= self.end {
                Trouble::Late { due: due.to_owned(), after: limit }
            } else {
                Trouble::OutOfTime { due: due.to_owned(), after: self.deadlines.overall }
            })
        };
        future::or(wait, late).await
    }
}
