//! Processes: starting them so that none is left behind, and what they use.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
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

/// What is measured.
#[derive(Clone)]
pub(crate) enum Program {
    Relay(PathBuf),
    Yardstick,
}

/// One that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    /// In PEM, if it speaks TLS.
    pub(crate) certificate: Option<String>,
    _directory: Option<tempfile::TempDir>,
}

impl Running {
    pub(crate) fn start(program: &Program, case: &Case) -> Result<Self> {
        match program {
            Program::Relay(path) => Self::start_relay(path, case),
            Program::Yardstick => Self::start_yardstick(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start_yardstick() -> Result<Self> {
        let mut child = myself(YARDSTICK)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let port: u16 = line.trim().parse().map_err(|_| "the yardstick did not start")?;
        Ok(Self { child, address: loopback(port), metrics: None, certificate: None, _directory: None })
    }

    fn start_relay(path: &Path, case: &Case) -> Result<Self> {
        let (address, metrics) = (free_address()?, free_address()?);
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("relay.toml");
        let mut text = format!("[listen]\npublic = \"{address}\"\nmetrics = \"{metrics}\"\n{}", case.config);
        let mut certificate = None;
        if case.is_tls {
            certificate = Some(write_certificate(directory.path())?);
            let path = |file: &str| directory.path().join(file).display().to_string();
            let (chain, key) = (path("certificate"), path("key"));
            text = format!("{text}[tls]\nmode = \"files\"\ncertificate = \"{chain}\"\nkey = \"{key}\"\n");
        }
        fs::write(&config, text)?;
        let mut command = myself(GUARD)?;
        command.arg(path).arg("--config").arg(&config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut relay =
            Self { child, address, metrics: Some(metrics), certificate, _directory: Some(directory) };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() || get(metrics, "/metrics").is_err() {
            if let Some(status) = relay.child.try_wait()? {
                return Err(format!("{} ended at once: {status}", path.display()).into());
            }
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("{} does not become ready", path.display()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(relay)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// Becomes another program that ends with the driver.
pub(crate) fn guard(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    end_with_parent()?;
    let program = arguments.next().ok_or("nothing to become")?;
    Err(Command::new(&program).args(arguments).exec().into())
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
        let mut sum = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile; those that do are short-lived.
            let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) else {
                return Err("a schedstat without numbers".into());
            };
            sum.ran += ran?;
            sum.waited += waited?;
        }
        Ok(sum)
    }

    /// What was added since then, by nanoseconds that went by.
    pub(crate) fn since(self, before: Self, nanos: f64) -> (f64, f64) {
        let part = |now: u64, before: u64| now.saturating_sub(before) as f64 / nanos;
        (part(self.ran, before.ran), part(self.waited, before.waited))
    }
}

/// Bytes of a process that are in memory.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
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
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned().into()) }
}

/// Writes a certificate that vouches for itself, and its key. The certificate in PEM.
fn write_certificate(directory: &Path) -> Result<String> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = made.cert.pem();
    fs::write(directory.join("certificate"), &certificate)?;
    let mut key =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join("key"))?;
    key.write_all(made.key_pair.serialize_pem().as_bytes())?;
    Ok(certificate)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?)
}
