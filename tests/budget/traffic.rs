//! Frames through a relay that runs under a tool, one at a time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Client, binary_headers, connect_over, phone_headers};
use crate::support::program::Program;
use crate::support::relay::free_metrics_address;
use crate::support::{connect_from, eventually_within};

/// Bytes in each frame.
pub(crate) const FRAME: usize = 256;

/// Frames before those that are counted, in every run.
const WARM_UP: usize = 20;

/// A tool makes the relay many times slower.
const LIMIT: Duration = Duration::from_secs(120);

const SERVER_ID: &str = "budget";

/// Which way the frames go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// From the phone to the binary.
    ToBinary,
    /// From the binary to the phone.
    ToPhone,
}

/// Has `number` frames forwarded by a relay that is started with `tool` in front of its own command line. Each is sent when
/// no thread of the relay has run for as long as `rest`; `done` is told of each when that is so again.
pub(crate) fn forward(
    tool: &[&str],
    program: &Path,
    way: Way,
    number: usize,
    rest: Duration,
    mut done: impl FnMut(),
) {
    let relay = Relay::start(tool, program, rest);
    let mut binary = relay.connect("/v2/server", &binary_headers(SERVER_ID));
    let mut phone = relay.connect("/v2/client", &phone_headers(SERVER_ID));
    let conn_id = phone.conn_id(&mut binary);
    let frame = format!("\"{}\"", "x".repeat(FRAME - 2));
    let envelope = format!(r#"{{"conn_id":"{conn_id}","frame":{frame}}}"#);
    relay.sleeps();
    for frame_number in 0..WARM_UP + number {
        match way {
            Way::ToBinary => {
                phone.send(&frame);
                assert_eq!(binary.text(), envelope);
            }
            Way::ToPhone => {
                binary.send(&envelope);
                assert_eq!(phone.text(), frame);
            }
        }
        relay.sleeps();
        if frame_number >= WARM_UP {
            done();
        }
    }
    drop((phone, binary));
    relay.sleeps();
    relay.end();
}

/// A relay under a tool.
struct Relay {
    /// The tool, or what it has become.
    tool: Child,
    /// The relay's process.
    pid: u32,
    address: SocketAddr,
    /// How long no thread may have run until it counts as asleep.
    rest: Duration,
    /// Its configuration.
    _program: Program,
}

impl Relay {
    fn start(tool: &[&str], program: &Path, rest: Duration) -> Self {
        let ours = Program::new(&format!(
            "[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"{}\"\n[log]\nformat = \"json\"\nlevel = \"info\"\n",
            free_metrics_address()
        ));
        let plain = ours.command();
        let (first, options) = tool.split_first().expect("a tool");
        let mut command = Command::new(first);
        command.args(options).arg(program).args(plain.get_args());
        for (variable, _) in plain.get_envs() {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tool = command.spawn().unwrap_or_else(|error| panic!("{first}: {error}"));
        let stderr = BufReader::new(tool.stderr.take().expect("its stderr"));
        let (listens, listening) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                match serde_json::from_str::<Value>(&line) {
                    Ok(event) if event["event"] == "listening" => {
                        let _ = listens.send(event["listen"].as_str().unwrap_or_default().to_owned());
                    }
                    Ok(_) => {}
                    Err(_) => eprintln!("{line}"),
                }
            }
        });
        let address = listening.recv_timeout(LIMIT).unwrap_or_else(|error| {
            panic!("{} under {first} does not say that it listens: {error}", program.display())
        });
        let address = address.parse().expect("an address that parses");
        let pid = child_of(tool.id()).unwrap_or(tool.id());
        let relay = Self { tool, pid, address, rest, _program: ours };
        relay.sleeps();
        relay
    }

    fn connect(&self, path: &str, headers: &[(&str, &str)]) -> Client {
        let stream = connect_from(Ipv4Addr::LOCALHOST, self.address);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = connect_over(stream, path, headers).expect("upgraded");
        assert_eq!(client.admitted(), Ok(()));
        client
    }

    /// Waits until every thread of the relay sleeps, and none of them ran while they were looked at.
    fn sleeps(&self) {
        let until = Instant::now() + LIMIT;
        let mut before = None;
        loop {
            let seen = asleep(self.pid);
            if seen.is_some() && seen == before {
                return;
            }
            assert!(Instant::now() < until, "the relay does not come to rest: {seen:?}");
            before = seen;
            thread::park_timeout(self.rest);
        }
    }

    fn end(mut self) {
        let told = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().expect("kill runs");
        assert!(told.success());
        let status = eventually_within(LIMIT, "the end of the relay", || {
            self.tool.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        });
        assert!(status.success(), "{status}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Ok(None) = self.tool.try_wait() {
            let _ = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
            let _ = self.tool.kill();
            let _ = self.tool.wait();
        }
    }
}

/// The process that `pid` has started, if it has.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Each thread and how often it has left the processor, if all of them sleep: what is the same when looked at again did not run.
fn asleep(pid: u32) -> Option<Vec<(PathBuf, String)>> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = thread.ok()?.path();
        let status = fs::read_to_string(path.join("status")).ok()?;
        let value = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if !value("State:")?.starts_with('S') {
            return None;
        }
        let switches =
            format!("{:?}+{:?}", value("voluntary_ctxt_switches:")?, value("nonvoluntary_ctxt_switches:")?);
        threads.push((path, switches));
    }
    threads.sort();
    Some(threads)
}
