//! What tasks run on: threads, each with an executor of smol's and a reactor of its own.
//!
//! A [`Worker`](worker::Worker) is such a thread. Its [`reactor`] tells the tasks that live there when their sockets are ready; a
//! socket can be moved to another worker together with its task. Timers are async-io's, whose own thread keeps them.

pub mod memory;
pub mod reactor;
pub mod source;
pub mod worker;
