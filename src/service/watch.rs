//! What systemd is told while the relay runs: ready, the status line, the watchdog, stopping, and that stopping goes on.
//!
//! Status and watchdog are tasks of the main thread, and each time, every thread that connections live on is
//! asked for a sign of life first. If one of them is wedged, the watchdog is not fed, and systemd restarts the service.
//!
//! The messages themselves are sent from helper threads, in the order in which they were given: a service manager
//! that does not read its socket blocks whoever writes to it, and that must not be who forwards frames, nor keep the
//! relay from stopping.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;
use smol::Task;
use smol::channel::{Receiver, Sender, WeakSender, unbounded};

use super::notes::Notes;
use super::systemd;
use crate::event;
use crate::relay::hub::Hub;
use crate::relay::observer::{Census, Counts};
use crate::runtime::worker::Worker;

/// How often the status line may change.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How often systemd is told that the shutdown goes on, and how long it then waits for the next message.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(2);
const EXTENSION: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last message to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Message = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// The way to systemd.
pub(super) struct Manager {
    messages: Sender<Message>,
    hub: Arc<Hub>,
    notes: Arc<Notes>,
    /// Closed when the last message was sent.
    sent: Receiver<()>,
}

impl Manager {
    /// Starts the tasks, as far as systemd listens.
    pub(super) fn start(main: &Worker, hub: &Arc<Hub>, notes: Arc<Notes>, workers: Vec<Worker>) -> Self {
        let (messages, queue) = unbounded();
        let (done, sent) = unbounded();
        main.spawn(send(queue, done)).detach();
        let manager = Self { messages, hub: Arc::clone(hub), notes, sent };
        if systemd::is_listening() {
            main.spawn(keep_status(
                Arc::clone(hub),
                Arc::clone(&manager.notes),
                manager.messages.downgrade(),
            ))
            .detach();
            if let Some(interval) = systemd::watchdog_interval() {
                let messages = manager.messages.downgrade();
                main.spawn(feed_watchdog(interval, messages, workers)).detach();
            }
        }
        manager
    }

    /// Sends a message, sooner or later.
    pub(super) fn tell(&self, message: fn() -> io::Result<()>) {
        // The queue has no bound and its reader never goes away.
        let _ = self.messages.try_send(Box::new(message));
    }

    /// Sends the status line as it is now, without waiting for its turn.
    pub(super) fn tell_status(&self) {
        if systemd::is_listening() {
            let line = status_line(self.hub.count(), &self.notes);
            let _ = self.messages.try_send(Box::new(move || systemd::status(&line)));
        }
    }

    /// Tells systemd that the shutdown goes on, until the task is dropped.
    #[must_use]
    pub(super) fn extend_timeout(&self, main: &Worker) -> Option<Task<()>> {
        let messages = self.messages.downgrade();
        systemd::is_listening()
            .then(|| main.spawn(repeat(EXTENSION_INTERVAL, messages, || systemd::extend_timeout(EXTENSION))))
    }

    /// Waits until everything was sent, though not for ever.
    pub(super) async fn told(&self) {
        self.messages.close();
        let all_sent = async {
            let _ = self.sent.recv().await;
        };
        future::or(all_sent, async {
            Timer::after(LAST_WORDS).await;
        })
        .await;
    }
}

/// Sends one message after the other. `_done` goes away behind the last one.
async fn send(queue: Receiver<Message>, _done: Sender<()>) {
    while let Ok(message) = queue.recv().await {
        if let Err(error) = smol::unblock(message).await {
            event::notify_failed(&error);
        }
    }
}

async fn keep_status(hub: Arc<Hub>, notes: Arc<Notes>, messages: WeakSender<Message>) {
    let mut told = None;
    while let Some(messages) = messages.upgrade() {
        let line = status_line(hub.count(), &notes);
        // While earlier messages wait, a status would be old when it is read.
        if told.as_ref() != Some(&line) && messages.is_empty() {
            told = Some(line.clone());
            let _ = messages.try_send(Box::new(move || systemd::status(&line)));
        }
        drop(messages);
        Timer::after(STATUS_INTERVAL).await;
    }
}

fn status_line(counts: Counts, notes: &Notes) -> String {
    let mut line = format!(
        "{} binaries connected, {} in grace, {} phones",
        counts.connected_binaries, counts.gracing_binaries, counts.connected_phones
    );
    notes.append_to(&mut line);
    line
}

/// Messages that may wait while the manager does not read; more of the same would tell it nothing.
const BACKLOG: usize = 8;

/// Tells systemd at every `interval` that all of `workers` run.
async fn feed_watchdog(interval: Duration, messages: WeakSender<Message>, workers: Vec<Worker>) {
    loop {
        for worker in &workers {
            worker.spawn(async {}).await;
        }
        let Some(messages) = messages.upgrade() else { return };
        post(&messages, systemd::watchdog);
        drop(messages);
        Timer::after(interval).await;
    }
}

/// Sends a message, unless so many of them wait that one more would tell nothing.
fn post(messages: &Sender<Message>, message: fn() -> io::Result<()>) {
    if messages.len() < BACKLOG {
        let _ = messages.try_send(Box::new(message));
    }
}

/// Sends a message now and at every `interval`.
async fn repeat(interval: Duration, messages: WeakSender<Message>, message: fn() -> io::Result<()>) {
    while let Some(messages) = messages.upgrade() {
        post(&messages, message);
        drop(messages);
        Timer::after(interval).await;
    }
}
