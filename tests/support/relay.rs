//! The program under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

pub use super::program::Program;
use super::program::quiet;
pub use super::scrape::Metrics;
use super::tls::{Ca, NAME, Tunnel};
use super::{DEADLINE, eventually, random};

/// A running relay. It is killed when this is dropped.
pub struct Relay {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
    program: Program,
    /// For the tests of `over_tls`, what takes their plain connections.
    tunnel: Option<Tunnel>,
    /// Where it serves; if there is a tunnel, its address.
    pub address: SocketAddr,
    own_address: SocketAddr,
    /// Where its metrics are.
    pub metrics_address: SocketAddr,
}

/// Whether the tests that use this run as part of `over_tls`: with TLS between them and the relay.
pub fn is_over_tls() -> bool {
    env!("CARGO_CRATE_NAME") == "over_tls"
}

/// Bytes that are bound to go to a client next, beyond the frame that is half written: what is sealed together.
pub fn bound_beyond_a_frame() -> f64 {
    if is_over_tls() { 16.0 * 1024.0 } else { 0.0 }
}

/// How to start one.
#[derive(Default)]
pub struct Options {
    /// Sections and keys to put into the configuration; `listen` and `log` are set already. All tests come from one
    /// address, so what is limited by address is as good as unlimited unless it stands here.
    pub config: String,
    /// Environment variables to set.
    pub environment: Vec<(String, String)>,
    /// How many descriptors it may open, if not as many as the test may.
    pub descriptors: Option<u64>,
    /// The listeners that it is passed instead of binding its own: the public one and that for metrics.
    pub sockets: Option<(TcpListener, TcpListener)>,
}

impl Relay {
    /// With the defaults.
    pub fn start() -> Self {
        Self::with("")
    }

    /// With these sections in its configuration.
    pub fn with(config: &str) -> Self {
        Self::with_options(Options { config: config.to_owned(), ..Options::default() })
    }

    /// As told.
    pub fn with_options(options: Options) -> Self {
        let listen = match &options.sockets {
            Some((_, metrics)) => Listen {
                public: "systemd:public".to_owned(),
                metrics: "systemd:metrics".to_owned(),
                metrics_address: metrics.local_addr().unwrap(),
            },
            None => Listen::default(),
        };
        let (program, trusted) = if is_over_tls() && !options.config.contains("[tls]") {
            let ca = Ca::new();
            let keys = tempfile::tempdir().expect("a directory");
            let section = ca.issue(&[NAME]).write(keys.path()).section();
            let config = format!("{}{section}", completed(&options.config, &listen));
            (Program::new(&config).keeping(keys), Some(ca.client()))
        } else {
            (Program::new(&completed(&options.config, &listen)), None)
        };
        let mut command = match (options.descriptors, options.sockets) {
            (Some(descriptors), None) => quiet(program.command_with_descriptors(descriptors)),
            (None, Some((public, metrics))) => {
                program.command_with_sockets(vec![("public", public.into()), ("metrics", metrics.into())])
            }
            (None, None) => quiet(program.command()),
            (Some(_), Some(_)) => panic!("no way to start it with both"),
        };
        command.stderr(Stdio::piped()).envs(options.environment);
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.lock().unwrap().push(event);
                }
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut relay = Self {
            child,
            log,
            program,
            tunnel: None,
            address,
            own_address: address,
            metrics_address: listen.metrics_address,
        };
        let listening = relay.wait_for_event("listening");
        relay.address =
            listening["listen"].as_str().expect("an address").parse().expect("an address that parses");
        relay.own_address = relay.address;
        relay.wait_for_event("ready");
        if let Some(trusted) = trusted {
            let tunnel = Tunnel::to(relay.address, trusted);
            relay.address = tunnel.address();
            relay.tunnel = Some(tunnel);
        }
        relay
    }

    /// Whether it takes connections, and if not, why.
    pub fn knock(&self) -> Result<(), std::io::ErrorKind> {
        TcpStream::connect(self.own_address).map(drop).map_err(|error| error.kind())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had so far, in kibibytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has now, in kibibytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// What it has in memory now besides the pages of its files, in kibibytes.
    pub fn anonymous_memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a status");
        let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("its line");
        value.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.program.config_path()
    }

    /// Everything it logged so far.
    pub fn events(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// Every event of that name so far.
    pub fn events_named(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// Waits for the first event of that name.
    pub fn wait_for_event(&self, name: &str) -> Value {
        eventually(&format!("event {name}"), || {
            self.events_named(name).into_iter().next().ok_or_else(|| format!("{:?}", self.events()))
        })
    }

    /// Waits until there are so many events of that name. Lines are written behind what they tell of.
    pub fn wait_for_events(&self, name: &str, number: usize) -> Vec<Value> {
        eventually(&format!("{number} times {name}"), || {
            let events = self.events_named(name);
            if events.len() >= number { Ok(events) } else { Err(format!("{:?}", self.events())) }
        })
    }

    /// A request to the metrics listener or the public one; the whole answer.
    pub fn http(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).expect("takes the request");
        let mut answer = Vec::new();
        // A server that refuses a request may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("an answer in UTF-8")
    }

    /// `GET path` on the public listener: the head and the body.
    pub fn get(&self, path: &str) -> (String, String) {
        let answer = Self::http(
            self.address,
            &format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n"),
        );
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    /// The metrics as they are now, with everything counted that was seen on the wire before.
    pub fn metrics(&self) -> Metrics {
        self.let_it_count();
        let answer =
            Self::http(self.metrics_address, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Metrics::parse(body)
    }

    /// The metrics as they are now, unless the process has ended.
    pub fn try_metrics(&self) -> Option<Metrics> {
        let mut stream = TcpStream::connect(self.metrics_address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        (body.len() == length).then(|| Metrics::parse(body))
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The relay counts a frame behind the write that a client sees. An answer from the executor that wrote it comes
    /// after both. While it drains nobody answers, and tests wait for the counts themselves.
    fn let_it_count(&self) {
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }

    /// Waits until a series has a value.
    pub fn wait_for_metric(&self, series: &str, value: f64) -> Metrics {
        eventually(&format!("{series} = {value}"), || {
            let metrics = self.metrics();
            let seen = metrics.get(series);
            if (seen - value).abs() < f64::EPSILON { Ok(metrics) } else { Err(format!("{seen}")) }
        })
    }

    /// Waits until nothing is queued and as many frames were settled in each direction as were sent.
    pub fn quiet(&self, to_binary: usize, to_phone: usize) -> Metrics {
        eventually("a quiet moment", || {
            let metrics = self.metrics();
            let seen = [
                metrics.settled("phone_to_binary"),
                metrics.settled("binary_to_phone"),
                metrics.queued("server"),
                metrics.queued("client"),
            ];
            let wanted = [to_binary as f64, to_phone as f64, 0.0, 0.0];
            let off = seen.iter().zip(wanted).map(|(seen, wanted)| (seen - wanted).abs()).sum::<f64>();
            if off < f64::EPSILON { Ok(metrics) } else { Err(format!("{seen:?}, not {wanted:?}")) }
        })
    }

    /// Sends a signal by its number.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the process to end.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the end of the process", || {
            self.child.try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `[listen]` says, and where the metrics are.
struct Listen {
    public: String,
    metrics: String,
    metrics_address: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let metrics_address = free_metrics_address();
        Self { public: "127.0.0.1:0".to_owned(), metrics: metrics_address.to_string(), metrics_address }
    }
}

/// What a test configures, with what every test needs.
fn completed(config: &str, Listen { public, metrics, .. }: &Listen) -> String {
    let mut limits = String::new();
    for key in ["connections_per_address", "upgrades_per_minute", "upgrade_burst"] {
        if !config.contains(key) {
            limits = format!("{limits}{key} = 1000000\n");
        }
    }
    let config = match config.split_once("[limits]\n") {
        Some((before, after)) => format!("{before}[limits]\n{limits}{after}"),
        None => format!("{config}\n[limits]\n{limits}"),
    };
    format!(
        "[listen]\npublic = \"{public}\"\nmetrics = \"{metrics}\"\n\
         [log]\nformat = \"json\"\nlevel = \"info\"\n{config}"
    )
}

/// An address for metrics that no other test has: port 0 is refused by design, so the address is drawn.
pub fn free_metrics_address() -> SocketAddr {
    let [first, second, third, low, high, ..] = random().to_le_bytes();
    let port = 20_000 + u16::from_le_bytes([low, high]) % 10_000;
    SocketAddr::from(([127, first.max(1), second, third.clamp(1, 254)], port))
}
