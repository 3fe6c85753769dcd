//! The relay, its clients, and what is known of each of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pyrycode_relay::relay::binary::{self, BinaryHello};
use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::hub::Hub;
use pyrycode_relay::relay::observer::{Endpoint, UpgradeOutcome};
use pyrycode_relay::relay::phone::{self, PhoneHello};
use pyrycode_relay::relay::registry::ServerId;
use pyrycode_relay::relay::settings::Settings;

use crate::client::{Client, Envelope, Meaning};
use crate::clock::VirtualClock;
use crate::coverage::Coverage;
use crate::ensure;
use crate::executor::Executor;
use crate::facts::Facts;
use crate::line::SimSocket;
use crate::patience::Underway;

/// Steps without a pause after which somebody is taken to be busy for ever.
const STEPS: usize = 300_000;

/// The task that ends grace periods.
pub(crate) const KEEPER: usize = 0;

/// One connection: its client, and what the relay did with it.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "any of them may be true together with any other")]
pub(crate) struct Conn {
    pub(crate) endpoint: Endpoint,
    pub(crate) server: usize,
    pub(crate) task: usize,
    pub(crate) client: Client,
    /// When its task first ran: at which step and time, and who held the server-id before.
    pub(crate) began: Option<(u64, Duration)>,
    pub(crate) incumbent: Option<usize>,
    /// Somebody held the server-id when it came.
    pub(crate) contested: bool,
    pub(crate) outcome: Option<UpgradeOutcome>,
    /// Why it ended, and when.
    pub(crate) cause: Option<(CloseCause, Duration)>,
    /// The step in which it ended.
    pub(crate) ended_in: Option<u64>,
    /// What must end it, because its server-id was taken or is gone.
    pub(crate) doomed: Option<CloseCause>,
    /// The message under way.
    pub(crate) message: Option<Underway>,
    pub(crate) listened_seen: u64,
    pub(crate) resumed_seen: Duration,
    pub(crate) reads_seen: u64,
    /// The step in which the relay last read something from it.
    pub(crate) read_step: u64,
    /// Bytes that it had been sent when it ended: no message begins behind them.
    pub(crate) over_from: Option<u64>,
    /// Bytes charged for what waits to be written to it.
    pub(crate) charged: usize,
    /// Frames that were queued for it, and what became of them.
    pub(crate) queued_frames: usize,
    pub(crate) forwarded: usize,
    pub(crate) dropped_queued: usize,
    /// Frames that arrived here.
    pub(crate) received: usize,

    /// A phone's: the binary that it registered under.
    pub(crate) binary: Option<usize>,
    /// A phone's: the frames that it sent.
    pub(crate) sent: Vec<String>,
    /// A phone's frames that the relay read, refused, queued for its binary, and that arrived there.
    pub(crate) read: usize,
    pub(crate) refused: usize,
    pub(crate) admitted: usize,
    pub(crate) arrived: usize,
    /// A phone's: the step in which it read on while a frame waited.
    pub(crate) read_on: Option<u64>,
    /// When the first of the frames that wait was read.
    pub(crate) waits_since: u64,
    /// A phone's: the step in which a frame came for a binary that was gone already.
    pub(crate) came_late: Option<u64>,
    /// Bytes that had been read when a frame was dropped because the binary went while it waited.
    pub(crate) outlived_binary: Option<u64>,
    pub(crate) notice_queued: bool,
    pub(crate) notified: bool,
    /// A phone's: the frames that its binary sent to it.
    pub(crate) expected: Vec<String>,
    /// A phone's: the binary asked for its end, with these codes.
    pub(crate) directives: Vec<u16>,
    pub(crate) overflowed: bool,
    /// There was no room for a directive when its binary had run: one that came then closed it at once.
    pub(crate) was_full: bool,
    /// A phone's name, once its binary has seen it.
    pub(crate) name: Option<String>,

    /// A binary's messages, and how many of them the relay has read.
    pub(crate) envelopes: Vec<Envelope>,
    pub(crate) cursor: usize,
    /// The one that the relay looks at.
    pub(crate) current: Option<usize>,
    pub(crate) unknown_close: bool,
    /// The phones whose frames wait for room, in the order in which they came.
    pub(crate) line_of_phones: Vec<usize>,
    /// Close notices with names that this binary has not seen before.
    pub(crate) strangers: Vec<u16>,
}

impl Conn {
    /// Whether the relay forwards for it.
    pub(crate) fn is_open(&self) -> bool {
        self.outcome == Some(UpgradeOutcome::Accept) && self.cause.is_none()
    }

    /// Whether there is a close frame in what the relay read from it.
    pub(crate) fn said_good_bye(&self) -> bool {
        self.client.ends.closed && self.client.line.borrow().all_was_heard()
    }

    /// A phone's frame that was read and has no place yet.
    pub(crate) fn waiting(&self) -> usize {
        self.read - self.refused - self.admitted
    }
}

/// A server-id's entry: who holds it, and until when it waits for somebody if that one is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) binary: usize,
    pub(crate) until: Option<Duration>,
}

/// A simulation.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) clock: VirtualClock,
    pub(crate) executor: Executor,
    pub(crate) hub: Arc<Hub>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) settings: Settings,
    pub(crate) conns: Vec<Conn>,
    /// Which connection a task serves.
    pub(crate) of_task: Vec<Option<usize>>,
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) step: u64,
    pub(crate) draining: bool,
    /// When the drain closes which server-id.
    pub(crate) moments: Vec<Option<Duration>>,
    pub(crate) cut: bool,
    /// Now and then polls somebody who was not woken.
    pub(crate) spurious: bool,
    pub(crate) coverage: Coverage,
    pub(crate) digest: crate::Digest,
    /// What happened, if somebody wants to read it.
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let settings = crate::actions::settings(&mut rng);
        Self::with_settings(rng, settings, traced)
    }

    pub(crate) fn with_settings(mut rng: Rng, settings: Settings, traced: bool) -> Self {
        let clock = VirtualClock::new();
        let facts = Arc::new(Facts::default());
        let hub = Hub::new(settings, facts.clone(), Arc::new(clock.clone()));
        let servers = rng.usize(1..=3);
        let mut world = Self {
            spurious: rng.u8(..8) == 0,
            rng,
            clock,
            executor: Executor::default(),
            facts,
            settings,
            conns: Vec::new(),
            of_task: Vec::new(),
            slots: vec![None; servers],
            step: 0,
            draining: false,
            moments: vec![None; servers],
            cut: false,
            coverage: Coverage::default(),
            digest: crate::Digest::default(),
            trace: traced.then(Vec::new),
            hub,
        };
        world.spawn(world.hub.clone().keep_grace(), None);
        world.note(|| format!("{settings:?}"));
        world
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} ms #{:<5} {}", self.clock.elapsed().as_millis(), self.step, what()));
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static, conn: Option<usize>) -> usize {
        self.of_task.push(conn);
        self.executor.spawn(future)
    }

    /// A client dials. Its connection is not served yet.
    pub(crate) fn dial(&mut self, endpoint: Endpoint, server: usize, client: Client) -> usize {
        let number = self.conns.len();
        self.conns.push(Conn {
            endpoint,
            server,
            task: usize::MAX,
            client,
            began: None,
            incumbent: None,
            contested: false,
            outcome: None,
            cause: None,
            ended_in: None,
            doomed: None,
            message: None,
            listened_seen: 0,
            resumed_seen: Duration::ZERO,
            reads_seen: 0,
            read_step: 0,
            over_from: None,
            charged: 0,
            queued_frames: 0,
            forwarded: 0,
            dropped_queued: 0,
            received: 0,
            binary: None,
            sent: Vec::new(),
            read: 0,
            refused: 0,
            admitted: 0,
            arrived: 0,
            read_on: None,
            waits_since: 0,
            came_late: None,
            outlived_binary: None,
            notice_queued: false,
            notified: false,
            expected: Vec::new(),
            directives: Vec::new(),
            overflowed: false,
            was_full: false,
            name: None,
            envelopes: Vec::new(),
            cursor: 0,
            current: None,
            unknown_close: false,
            line_of_phones: Vec::new(),
            strangers: Vec::new(),
        });
        number
    }

    /// The relay serves a connection, of which it has read `early` already.
    pub(crate) fn serve(&mut self, number: usize, early: Vec<u8>) {
        let conn = &self.conns[number];
        let socket = SimSocket(Rc::clone(&conn.client.line));
        let server_id = ServerId::from(format!("server-{}", conn.server));
        let remote = [192, 0, 2, 1].into();
        let live = self.hub.enter();
        let hub = Arc::clone(&self.hub);
        self.conns[number].task = if conn.endpoint == Endpoint::Server {
            let hello = BinaryHello { server_id, version: Box::default(), remote };
            self.spawn(binary::serve(hub, live, socket, early, hello), Some(number))
        } else {
            let hello = PhoneHello { server_id, device_name: None, remote };
            self.spawn(phone::serve(hub, live, socket, early, hello), Some(number))
        };
    }

    /// Sends more of the message that a client has begun.
    pub(crate) fn send_some(&mut self, number: usize, count: usize) {
        match self.conns[number].client.send_some(count) {
            None | Some(Meaning::Ping(_)) => {}
            Some(Meaning::Malformed) => self.conns[number].client.ends.malformed = true,
            Some(Meaning::Frame(frame)) => self.conns[number].sent.push(frame),
            Some(Meaning::Envelope(envelope)) => {
                if let Some(to) = envelope.to.filter(|to| self.conns[*to].binary == Some(number)) {
                    let to = &mut self.conns[to];
                    match &envelope.asks {
                        crate::client::Asks::Deliver { frame, close } => {
                            to.expected.push(frame.clone());
                            to.directives.extend(close);
                        }
                        crate::client::Asks::Close(code) => to.directives.push(*code),
                        _ => {}
                    }
                }
                self.conns[number].envelopes.push(envelope);
            }
        }
    }

    /// Lets one task run, and checks everything. Returns whether one could.
    pub(crate) fn run_one(&mut self) -> Result<bool, String> {
        let Some(mut task) = self.executor.pick(&mut self.rng) else { return Ok(false) };
        if self.spurious && self.rng.u8(..16) == 0 {
            let running = self.executor.running();
            task = running[self.rng.usize(..running.len())];
        }
        self.step += 1;
        if let Some(number) = self.of_task[task] {
            if self.conns[number].began.is_none() {
                let holder = self.slots[self.conns[number].server].filter(|slot| slot.until.is_none());
                self.conns[number].incumbent = holder.map(|slot| slot.binary);
                self.conns[number].contested = holder.is_some();
                self.conns[number].began = Some((self.step, self.now()));
            }
        }
        self.executor.poll(task);
        self.after_step(task).map_err(|error| format!("step {} of task {task}: {error}", self.step))?;
        Ok(true)
    }

    /// Lets tasks run until none can.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            if !self.run_one()? {
                return self.check_quiet().map_err(|error| format!("when all is quiet: {error}"));
            }
        }
        Err("a task is busy for ever".to_owned())
    }

    /// Lets all tasks run, then time pass until the next alarm, or to a moment before it. Returns whether there is one.
    pub(crate) fn advance(&mut self, all_the_way: bool) -> Result<bool, String> {
        self.settle()?;
        let Some(next) = self.clock.next_alarm() else { return Ok(false) };
        let left = u64::try_from(next.saturating_sub(self.now()).as_millis()).unwrap_or(u64::MAX);
        let part = if all_the_way || left < 2 { left } else { self.rng.u64(1..=left) };
        let to = if part == left { next } else { self.now() + Duration::from_millis(part) };
        ensure!(to >= self.now(), "an alarm in the past");
        self.clock.advance_to(to);
        Ok(true)
    }
}
