//! The families of what is relayed: frames, their bytes, how long they took, and wake requests.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::local::LocalHistogram;
use prometheus::{Error, Histogram, IntCounter, IntGauge};

use super::maker::Maker;
use crate::relay::observer::{Direction, DropReason, Endpoint};

/// Seconds. A relayed frame takes tens of microseconds when nothing is in its way; a receiver is given 10 s to
/// make progress (PROTOCOL § 4).
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25,
    1.0, 2.5, 10.0,
];

/// The outcomes of `push_wakes_total`, all of them there from the start; only the last one moves as long as the
/// relay cannot push.
const PUSH_OUTCOMES: [&str; 6] =
    ["sent", "unregistered", "send_failed", "token_fetch_failed", "dropped", "off"];

const DIRECTIONS: usize = Direction::ALL.len();
const REASONS: usize = DropReason::ALL.len();

/// Latencies that are put into the histograms together. What a frame adds by itself is six steps that no other thread may come between.
type Latencies = [LocalHistogram; DIRECTIONS];

thread_local! {
    /// A thread's, for the families with that number. A process has one set of families, and tests many.
    static LATENCIES: RefCell<Option<(u64, Latencies)>> = const { RefCell::new(None) };
}

static FAMILIES: AtomicU64 = AtomicU64::new(0);

/// One handle per series.
#[derive(Debug)]
pub(super) struct Frames {
    number: u64,
    pub(super) forwarded: [IntCounter; DIRECTIONS],
    pub(super) forwarded_bytes: [IntCounter; DIRECTIONS],
    pub(super) latency: [Histogram; DIRECTIONS],
    pub(super) dropped: [[IntCounter; REASONS]; DIRECTIONS],
    pub(super) queued_bytes: [IntGauge; Endpoint::ALL.len()],
    pub(super) push_off: IntCounter,
}

impl Frames {
    pub(super) fn new(make: &Maker) -> Result<Self, Error> {
        let directions = Direction::ALL.map(Direction::as_str);
        let [.., push_off] = make.counters(
            "push_wakes_total",
            "Requests of binaries to wake a phone, by outcome. They are not frames and count in no other family. \
             Without push every one is \"off\".",
            "outcome",
            PUSH_OUTCOMES,
        )?;
        Ok(Self {
            number: FAMILIES.fetch_add(1, Ordering::Relaxed),
            forwarded: make.counters(
                "frames_forwarded_total",
                "Frames written to the other side's socket, to the last byte, by direction. Not at enqueue, and \
                 never for a failed write or a close notice.",
                "direction",
                directions,
            )?,
            forwarded_bytes: make.counters(
                "forwarded_bytes_total",
                "Bytes of the frames in frames_forwarded_total, by direction: the frame itself, without envelope, \
                 WebSocket, TLS and TCP overhead.",
                "direction",
                directions,
            )?,
            latency: make.histograms(
                "forward_latency_seconds",
                "Seconds from the read of a frame's last byte to the hand-over of its last byte to the kernel, by \
                 direction; forwarded frames only. Time in the outbox counts, time on the network does not.",
                "direction",
                directions,
                &LATENCY_BUCKETS,
            )?,
            dropped: make.counter_grid(
                "frames_dropped_total",
                "Frames that were read and will never be delivered, each once, by direction and reason. Frames \
                 read = frames_forwarded_total + frames_dropped_total whenever nothing is queued.",
                ["direction", "reason"],
                directions,
                DropReason::ALL.map(DropReason::as_str),
            )?,
            queued_bytes: make.gauges(
                "queued_bytes",
                "Bytes charged to the outboxes towards the endpoint at this moment: frames that wait and frames \
                 that are being written.",
                "endpoint",
                Endpoint::ALL.map(Endpoint::as_str),
            )?,
            push_off,
        })
    }

    /// These frames were forwarded, each with its bytes and latency. For a single one it is no gain.
    pub(super) fn forward(&self, direction: usize, frames: &mut dyn Iterator<Item = (usize, Duration)>) {
        LATENCIES.with_borrow_mut(|latencies| {
            let latencies = match latencies {
                Some((number, latencies)) if *number == self.number => latencies,
                others => &mut others.insert((self.number, self.latency.each_ref().map(Histogram::local))).1,
            };
            let (mut count, mut sum) = (0, 0);
            for (bytes, latency) in frames {
                count += 1;
                sum += bytes as u64;
                latencies[direction].observe(latency.as_secs_f64());
            }
            self.forwarded[direction].inc_by(count);
            self.forwarded_bytes[direction].inc_by(sum);
            latencies[direction].flush();
        });
    }
}
