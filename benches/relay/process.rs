//! Processes: starting them so that none is left behind, and what they use.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use crate::Result;
use crate::case::Case;

/// The hidden subcommands with which this program runs itself.
pub(crate) const YARDSTICK: &str = "as-yardstick";
pub(crate) const GENERATOR: &str = "as-generator";
pub(crate) const GUARD: &str = "as-guard";

/// The name that a relay with TLS goes by.
pub(crate) const NAME: &str = "localhost";

/// With which the yardstick writes for a whole wait.
pub(crate) const BATCHING: &str = "batching";

/// How much is shown of what a program said.
const LAST_BYTES: usize = 4096;
const LAST_LINES: usize = 5;

/// How long a program may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone)]
pub(crate) enum Program {
    Relay(PathBuf),
    Yardstick { is_batching: bool },
}

/// One that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    name: String,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    /// In PEM, if it speaks TLS.
    pub(crate) certificate: Option<String>,
    /// Its stderr. Logging is to cost what it costs in service, so there is a file and not `/dev/null`; one that never blocks, as
    /// a pipe would, and that is no memory of the program's.
    said: File,
    /// What it was given to read.
    _given: Vec<File>,
}

impl Running {
    pub(crate) fn start(program: &Program, case: &Case) -> Result<Self> {
        match program {
            Program::Relay(path) => Self::start_relay(path, case),
            Program::Yardstick { is_batching } => Self::start_yardstick(*is_batching),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start_yardstick(is_batching: bool) -> Result<Self> {
        let said = tempfile::tempfile()?;
        let mut command = myself(YARDSTICK)?;
        if is_batching {
            command.arg(BATCHING);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said.try_clone()?);
        let mut yardstick = Self {
            child: command.spawn()?,
            name: "the yardstick".to_owned(),
            address: loopback(0),
            metrics: None,
            certificate: None,
            said,
            _given: Vec::new(),
        };
        let mut line = String::new();
        if let Some(stdout) = yardstick.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(port) => yardstick.address.set_port(port),
            Err(_) => return Err(format!("it does not start{}", yardstick.last_words()).into()),
        }
        Ok(yardstick)
    }

    fn start_relay(path: &Path, case: &Case) -> Result<Self> {
        let (address, metrics) = (free_address()?, free_address()?);
        let mut text = format!("[listen]\npublic = \"{address}\"\nmetrics = \"{metrics}\"\n{}", case.config);
        let mut given = Vec::new();
        let mut certificate = None;
        if case.is_tls {
            let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
            let pem = made.cert.pem();
            let chain = give(&mut given, &pem)?;
            let key = give(&mut given, &made.key_pair.serialize_pem())?;
            text = format!("{text}[tls]\nmode = \"files\"\ncertificate = \"{chain}\"\nkey = \"{key}\"\n");
            certificate = Some(pem);
        }
        let config = give(&mut given, &text)?;
        let said = tempfile::tempfile()?;
        let mut command = myself(GUARD)?;
        // With a slash in it nobody looks for it elsewhere.
        command.arg(std::path::absolute(path)?).arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said.try_clone()?);
        let mut relay = Self {
            child: command.spawn()?,
            name: path.display().to_string(),
            address,
            metrics: Some(metrics),
            certificate,
            said,
            _given: given,
        };
        // The guard's end of it is closed when it has become the program.
        let mut reason = String::new();
        if let Some(mut stdout) = relay.child.stdout.take() {
            stdout.read_to_string(&mut reason)?;
        }
        if !reason.is_empty() {
            return Err(cannot_be_run(path, &reason));
        }
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() || get(metrics, "/metrics").is_err() {
            if relay.child.try_wait()?.is_some() {
                return Err(format!("it does not start{}", relay.last_words()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("it is not ready after {PATIENCE:?}{}", relay.last_words()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(relay)
    }

    /// Ends it, to say how it ended if it had ended before, and what it said last.
    pub(crate) fn last_words(mut self) -> String {
        let has_ended = matches!(self.child.try_wait(), Ok(Some(_)));
        let _ = self.child.kill();
        let mut words = match self.child.wait() {
            // It may have been about to end, and then how it did is its own.
            Ok(status) if !has_ended && status.signal() == Some(Signal::KILL.as_raw()) => String::new(),
            Ok(status) => format!("\n    {} ended: {status}", self.name),
            Err(error) => format!("\n    {} cannot be waited for: {error}", self.name),
        };
        let mut text = vec![0; LAST_BYTES];
        let len = self.said.metadata().map_or(0, |metadata| metadata.len());
        // The position belongs to the program as well.
        let read = self.said.read_at(&mut text, len.saturating_sub(LAST_BYTES as u64));
        text.truncate(read.unwrap_or(0));
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if !lines.is_empty() {
            let _ = write!(words, "\n    {} said last:", self.name);
        }
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            let _ = write!(words, "\n        {line}");
        }
        words
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Refuses what cannot be a program before anything is played.
pub(crate) fn look_at(program: &Path) -> Result<()> {
    let metadata = fs::metadata(program).map_err(|error| cannot_be_run(program, &error))?;
    if metadata.is_dir() {
        return Err(cannot_be_run(program, &"it is a directory"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(cannot_be_run(program, &"it is not executable"));
    }
    Ok(())
}

fn cannot_be_run(program: &Path, reason: &dyn Display) -> Box<dyn Error> {
    format!("{} cannot be run: {reason}", program.display()).into()
}

/// Makes a file that has no name, so that it is gone when this program is, however that ends: what is in it may be a private key.
/// The path by which a program that this one starts can open it.
fn give(given: &mut Vec<File>, text: &str) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    given.push(file);
    Ok(path)
}

/// This program with a hidden subcommand.
pub(crate) fn myself(subcommand: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand);
    Ok(command)
}

/// Sees to it that this process, and what it becomes, ends with the driver however that ends.
pub(crate) fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Becomes another program that ends with the driver. If it cannot, stdout gets the reason; the other program does not get it.
pub(crate) fn guard(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    end_with_parent()?;
    let mut driver = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let program = arguments.next().ok_or("nothing to become")?;
    let error = Command::new(program).args(arguments).stdout(Stdio::null()).exec();
    Ok(driver.write_all(error.to_string().as_bytes())?)
}

/// What the threads of a process have had of the processors so far, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Scheduled {
    pub(crate) ran: u64,
    /// Could have run, but somebody else did.
    pub(crate) waited: u64,
}

impl Scheduled {
    /// All threads that there are now, together.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let unreadable = |error| format!("{tasks}: {error}");
        let mut sum = None;
        let mut reason = "there is none".to_owned();
        for task in fs::read_dir(&tasks).map_err(unreadable)? {
            let path = task.map_err(unreadable)?.path().join("schedstat");
            let line = match fs::read_to_string(&path) {
                Ok(line) => line,
                // A thread may end meanwhile; those that do are short-lived.
                Err(error) => {
                    reason = error.to_string();
                    continue;
                }
            };
            let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u64>().ok());
            let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) else {
                return Err(format!("{}: not two numbers: {line:?}", path.display()).into());
            };
            let sum = sum.get_or_insert_with(Self::default);
            sum.ran += ran;
            sum.waited += waited;
        }
        Ok(sum.ok_or_else(|| format!("{tasks}/*/schedstat: {reason}"))?)
    }

    /// What was added since then, by nanoseconds that went by.
    pub(crate) fn since(self, before: Self, nanos: f64) -> (f64, f64) {
        let part = |now: u64, before: u64| now.saturating_sub(before) as f64 / nanos;
        (part(self.ran, before.ran), part(self.waited, before.waited))
    }
}

/// Bytes of a process that are in memory.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let line = line.ok_or_else(|| format!("{path}: there is no Rss"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// As many descriptors as may be. How many that is.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// The body of a `GET`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a head")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(answer.into()) }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?)
}
