//! `probe`: a real binary and a real phone, through a running relay.
//!
//! The probe claims a fresh random server-id, connects a phone to it and makes the relay do everything the protocol
//! promises a pair of peers: frames both ways byte for byte, a close that the binary asks for, the notice of a phone
//! that leaves. It makes three connections in all, leaves nothing behind, and needs no configuration. Where a relay has an
//! access list, a server-id that is on it and that nobody uses must be named.
//!
//! To a `wss://` address, every connection goes through TLS, and a relay whose certificate cannot be verified is not
//! spoken to. The authorities that may vouch for it are the system's, or those in a file ([`Plan::with_ca`]).
//!
//! Everything runs on the calling thread (name resolution apart, which blocks and has a thread of its own). Every
//! single wait has a deadline, and so has the whole.
//!
//! ```no_run
//! use pyrycode_relay::command::probe::{Plan, Target, execute};
//!
//! let target = Target::parse("ws://127.0.0.1:8080").unwrap();
//! let report = execute(&Plan::new(target, 100, 256).unwrap(), &mut |line| println!("{line}"));
//! assert_eq!(report.failure, None);
//! ```

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::{CommandError, Exit};
use crate::cli::ProbeArgs;

mod answer;
mod certificate;
mod clock;
mod dial;
mod envelope;
mod explain;
mod frame;
mod link;
mod mistrust;
mod refusal;
mod report;
mod steps;
mod target;
mod tls;
mod transport;
mod trust;

pub use frame::{LARGEST_FRAME, SMALLEST_FRAME};
pub use report::{Failure, Report, RoundTrip, TlsSession};
pub use target::{Target, TargetError};
use trust::Trust;

use crate::tls::roots::CaError;

/// How the probe introduces itself.
const USER_AGENT: &str = concat!("pyrycode-relay-probe/", env!("CARGO_PKG_VERSION"));

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// A TCP connection, over all addresses of a name; resolving the name has the same again.
    pub connect: Duration,
    /// Any other single thing: a TLS handshake, an answer, a frame, a close.
    pub step: Duration,
    /// The whole probe.
    pub overall: Duration,
}

impl Deadlines {
    /// The deadlines of a probe with this many frames of this size.
    ///
    /// A step may take 10 s, and the time that a frame's two crossings, to the relay and from it, take on a line that
    /// carries 1 MB/s. The whole may take a minute, and for each round trip, and once more for the steps after them,
    /// 50 ms and the time of four crossings: far more than a healthy relay needs, and an end to everything else.
    #[must_use]
    pub fn of(count: u32, size: usize) -> Self {
        let crossing = Duration::from_micros(u64::try_from(size).unwrap_or(u64::MAX));
        let round_trip = Duration::from_millis(50).saturating_add(crossing.saturating_mul(4));
        Self {
            connect: Duration::from_secs(5),
            step: Duration::from_secs(10).saturating_add(crossing.saturating_mul(2)),
            overall: Duration::from_secs(60)
                .saturating_add(round_trip.saturating_mul(count.saturating_add(1))),
        }
    }
}

/// What a probe is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    target: Target,
    count: u32,
    size: usize,
    deadlines: Deadlines,
    server_id: Option<String>,
    trust: Trust,
}

/// Why a plan is not possible.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// No round trip is asked for.
    Count,
    /// Frames of this size cannot be made or cannot be sent.
    Size(usize),
    /// Certificates to verify TLS with are named, and the target has no TLS.
    CaWithoutTls,
    /// The file of certificates, its name quoted, is of no use.
    Ca(String, CaError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("--count must be at least 1 (example: --count 100)"),
            Self::Size(size) => write!(
                f,
                "--size {size} is not possible: a probe's frame has {SMALLEST_FRAME} to {LARGEST_FRAME} bytes, \
                 more than 262144 only if the relay's session.max_frame allows it (example: --size 256)"
            ),
            Self::CaWithoutTls => f.write_str(
                "--ca names certificates to verify TLS with, and there is no TLS to a ws:// address; leave --ca out, \
                 or probe the wss:// address",
            ),
            Self::Ca(file, error) => write!(f, "--ca: {file} {error}"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// `count` round trips of frames of `size` bytes, within [`Deadlines::of`] them.
    ///
    /// # Errors
    ///
    /// If `count` is 0 or `size` is not between [`SMALLEST_FRAME`] and [`LARGEST_FRAME`].
    pub fn new(target: Target, count: u32, size: usize) -> Result<Self, PlanError> {
        if count == 0 {
            return Err(PlanError::Count);
        }
        if !(SMALLEST_FRAME..=LARGEST_FRAME).contains(&size) {
            return Err(PlanError::Size(size));
        }
        let deadlines = Deadlines::of(count, size);
        Ok(Self { target, count, size, deadlines, server_id: None, trust: Trust::System })
    }

    /// The same, within other deadlines.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Self {
        Self { deadlines, ..self }
    }

    /// The same with this server-id instead of a random one.
    #[must_use]
    pub fn with_server_id(self, server_id: String) -> Self {
        Self { server_id: Some(server_id), ..self }
    }

    /// The same with the certificates in this PEM file, instead of those in the system's store, to verify the relay's
    /// with.
    ///
    /// # Errors
    ///
    /// If the target is not a `wss://` address, or the file cannot be read or does not hold certificates.
    pub fn with_ca(self, file: &Path) -> Result<Self, PlanError> {
        if !self.target.is_tls() {
            return Err(PlanError::CaWithoutTls);
        }
        let trust = Trust::in_file(file).map_err(|error| PlanError::Ca(trust::shown(file), error))?;
        Ok(Self { trust, ..self })
    }
}

/// Probes a relay on the calling thread. `say` gets one line for each thing that was checked and found good, as soon
/// as it was.
pub fn execute(plan: &Plan, say: &mut dyn FnMut(&str)) -> Report {
    let mut report = Report::default();
    let outcome = smol::block_on(steps::run(plan, &mut report, say));
    report.failure = outcome.err();
    report
}

/// The command: probes and prints what it found.
///
/// Text goes to standard output line by line as the steps succeed; with `--json` one object does at the end, also when
/// the relay fails. The reason for a failure is in the error.
///
/// # Errors
///
/// [`Exit::Usage`] if the URL, the size or the file of certificates cannot be, with nothing sent and nothing printed; [`Exit::ProbeFailed`] if
/// the relay cannot be reached or does not do what it must; [`Exit::Internal`] if the JSON cannot be printed.
pub fn probe(args: &ProbeArgs) -> Result<(), CommandError> {
    let usage = |message: String| CommandError::new(Exit::Usage, message);
    let target = Target::parse(&args.url)
        .map_err(|error| usage(format!("cannot probe {}: {error}", target::shown(&args.url))))?;
    let mut plan = Plan::new(target, args.count, args.size).map_err(|error| usage(error.to_string()))?;
    if let Some(server_id) = &args.server_id {
        plan = plan.with_server_id(server_id.clone());
    }
    if let Some(file) = &args.ca {
        plan = plan.with_ca(file).map_err(|error| usage(error.to_string()))?;
    }

    let mut out = io::stdout().lock();
    // Whoever stops reading the lines still gets the exit status.
    let report = execute(&plan, &mut |line| {
        if !args.json {
            let _ = writeln!(out, "{line}");
        }
    });
    if args.json {
        let internal = |what: &dyn fmt::Display| {
            CommandError::new(Exit::Internal, format!("cannot print the result: {what}"))
        };
        let json = report.to_json(&args.url, args.count, args.size).map_err(|error| internal(&error))?;
        writeln!(out, "{json}").map_err(|error| internal(&error))?;
    }
    match report.failure {
        None => {
            if !args.json {
                let _ = writeln!(out, "verdict: the relay works");
            }
            Ok(())
        }
        Some(Failure { step, message }) => {
            if !args.json {
                let _ = writeln!(out, "FAIL {step}\nverdict: failed");
            }
            Err(CommandError::new(Exit::ProbeFailed, format!("{step}: {message}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_frames_and_a_size_that_can_be() {
        let target = Target::parse("ws://127.0.0.1").unwrap();
        assert!(Plan::new(target.clone(), 1, SMALLEST_FRAME).is_ok());
        assert!(Plan::new(target.clone(), 1, LARGEST_FRAME).is_ok());
        for size in [0, SMALLEST_FRAME - 1, LARGEST_FRAME + 1, usize::MAX] {
            let refused = Plan::new(target.clone(), 1, size).unwrap_err();
            assert_eq!(refused, PlanError::Size(size));
            assert!(refused.to_string().contains("72 to 16777216 bytes"), "{refused}");
            assert!(refused.to_string().contains("session.max_frame"), "{refused}");
        }
        assert_eq!(Plan::new(target, 0, 256).unwrap_err(), PlanError::Count);
    }

    #[test]
    fn the_whole_has_an_end_that_grows_with_the_work() {
        let small = Deadlines::of(1, 256);
        let large = Deadlines::of(1_000, 262_144);
        assert!(small.overall > small.step && small.overall < Duration::from_secs(62));
        assert!(large.overall > Duration::from_secs(1_000) && large.overall < Duration::from_secs(1_500));
        let largest = Deadlines::of(1, LARGEST_FRAME);
        assert!(small.step < Duration::from_secs(11) && small.connect == largest.connect);
        assert!(largest.step > Duration::from_secs(40) && largest.step < Duration::from_secs(60));
        assert!(largest.overall > 4 * largest.step && largest.overall < 5 * largest.step);
        assert!(Deadlines::of(u32::MAX, usize::MAX).overall > large.overall);
    }
}
