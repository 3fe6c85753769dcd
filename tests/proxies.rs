//! The shipped configurations of real proxies, in front of the program: the relay sees whose connection it is.
//!
//! Each file of `packaging/proxies/` is what is tested: only addresses, names of files and the like are replaced, and a
//! replacement that finds nothing fails. A proxy that is not installed is passed over, unless
//! `PYRYCODE_RELAY_REQUIRE_PROGRAMS` is set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "what fails in a helper fails the test; counts are whole numbers, which floats hold exactly"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::client::{binary_headers, frame, phone_headers, read_frame};
use support::http::{request, upgrade};
use support::relay::{Relay, free_metrics_address};
use support::{DEADLINE, connect_from, eventually};

const HTTP: &str = "[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.1/32\"]\n";
const TCP: &str = "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.1/32\"]\n";
const LIMITS: &str = "[limits]\nupgrade_burst = 3\nupgrades_per_minute = 1\n";

/// A proxy in front of a relay. It is killed when this is dropped.
struct Proxy {
    relay: Relay,
    address: SocketAddr,
    tls: bool,
    directory: tempfile::TempDir,
    child: Child,
}

/// How to run one.
struct Recipe<'a> {
    program: &'a str,
    /// The packages that have it, for whoever does not.
    packages: &'a str,
    file: &'a str,
    /// What the relay is configured for.
    relay: &'a str,
    /// What stands in the file, and what stands there for the test. `{listen}`, `{relay}`, `{port}` and `{dir}` are filled in.
    replace: &'a [(&'a str, &'a str)],
    /// `{file}` and `{dir}` are filled in.
    arguments: &'a [&'a str],
    tls: bool,
}

impl Proxy {
    /// Nothing if the program is not installed.
    fn start(recipe: &Recipe<'_>) -> Option<Self> {
        let Some(program) = installed(recipe.program) else {
            return not_tested(recipe, recipe.program);
        };
        if recipe.tls && installed("openssl").is_none() {
            return not_tested(recipe, "openssl");
        }
        let relay = Relay::with(&format!("{}{LIMITS}", recipe.relay));
        let address = free_metrics_address();
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().to_str().unwrap();
        if recipe.tls {
            certificate(directory.path());
        }
        let filled = |text: &str| {
            text.replace("{listen}", &address.to_string())
                .replace("{host}", &address.ip().to_string())
                .replace("{port}", &address.port().to_string())
                .replace("{relay}", &relay.address.to_string())
                .replace("{file}", &format!("{dir}/config"))
                .replace("{dir}", dir)
        };
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/proxies").join(recipe.file);
        let mut config = std::fs::read_to_string(shipped).unwrap();
        for (from, to) in recipe.replace {
            assert!(config.contains(from), "{}: {from:?} is not there any more", recipe.file);
            config = config.replace(from, &filled(to));
        }
        std::fs::write(directory.path().join("config"), config).unwrap();
        if recipe.program == "nginx" && without_stream(&program, &directory.path().join("config")) {
            return not_tested(recipe, "nginx's stream module");
        }
        let child = Command::new(program)
            .args(recipe.arguments.iter().map(|argument| filled(argument)))
            .env("HOME", dir)
            .env("XDG_DATA_HOME", dir)
            .env("XDG_CONFIG_HOME", dir)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut proxy = Self { relay, address, tls: recipe.tls, directory, child };
        eventually(&format!("{} to pass on", recipe.program), || {
            assert!(proxy.child.try_wait().unwrap().is_none(), "{} ended", recipe.program);
            let answer = proxy.try_ask(1, &request("GET /healthz HTTP/1.1", &[("Connection", "close")]));
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        });
        Some(proxy)
    }

    /// Waits until the proxy has asked the relay for its health and got the answer. A server counts as up before its first
    /// check, so that traffic passes says nothing about the checks.
    fn checks_health(&self) {
        eventually("a health check that succeeds", || {
            let mut socket = UnixStream::connect(self.directory.path().join("stats"))
                .map_err(|error| error.to_string())?;
            socket.write_all(b"show stat\n").map_err(|error| error.to_string())?;
            let mut table = String::new();
            socket.read_to_string(&mut table).map_err(|error| error.to_string())?;
            let server = table.lines().find(|line| line.starts_with("relay,relay,")).unwrap_or_default();
            let fields: Vec<_> = server.split(',').collect();
            if fields.contains(&"UP") && fields.contains(&"L7OK") { Ok(()) } else { Err(server.to_owned()) }
        });
        // Without the request that comes before other scrapes: it has no header, and would be such a failure.
        let failures = self.relay.try_metrics().unwrap().get("handshake_failures_total{stage=\"proxy\"}");
        assert_eq!(failures, 0.0, "a check is no failed handshake");
    }

    /// A connection to the proxy from 127.0.0.`host`.
    fn try_connect(&self, host: u8) -> Option<Wire> {
        let source = Ipv4Addr::new(127, 0, 0, host);
        if self.tls {
            Some(Wire::tls(source, self.address, self.directory.path()))
        } else {
            std::net::TcpStream::connect(self.address).ok()?;
            Some(Wire::Plain(connect_from(source, self.address)))
        }
    }

    /// The head of the answer to a request.
    fn try_ask(&self, host: u8, request: &str) -> String {
        self.try_connect(host).map_or_else(String::new, |mut wire| wire.ask(request))
    }

    /// A WebSocket from 127.0.0.`host`, or the status of the refusal.
    fn upgrade(&self, host: u8, request: &str) -> Result<Wire, String> {
        let mut wire = self.try_connect(host).expect("a connection");
        let head = wire.ask(request);
        if head.starts_with("HTTP/1.1 101 ") {
            Ok(wire)
        } else {
            Err(head.get(9..12).unwrap_or_default().to_owned())
        }
    }

    /// What must hold behind every proxy.
    fn check(&self) {
        // What a client says about itself moves nothing, in one line or in several.
        let forged = [("X-Forwarded-For", "203.0.113.66"), ("x-forwarded-for", "203.0.113.67, 127.0.0.1")];
        let binary = upgrade("/v2/server", &[&binary_headers("proxied")[..], &forged].concat());
        let mut binary = self.upgrade(9, &for_us(&binary)).unwrap();
        assert_eq!(self.relay.wait_for_event("server_claimed")["remote"], "127.0.0.9");
        let phone = upgrade("/v2/client", &[&phone_headers("proxied")[..], &forged].concat());
        let mut phone = self.upgrade(10, &for_us(&phone)).unwrap();
        assert_eq!(self.relay.wait_for_event("phone_registered")["remote"], "127.0.0.10");

        phone.write_all(&frame(0x81, b"\"up\""));
        let (_, envelope) = read_frame(&mut binary).expect("the phone's frame");
        let envelope: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
        assert_eq!(envelope["frame"], "up");
        let reply = format!("{{\"conn_id\":{},\"frame\":\"down\"}}", envelope["conn_id"]);
        binary.write_all(&frame(0x81, reply.as_bytes()));
        assert_eq!(read_frame(&mut phone), Some((0x81, b"\"down\"".to_vec())));

        // One client that has used up its rate, whoever it says it is, does not concern the others.
        for attempt in 0..4 {
            let forged = format!("198.51.100.{attempt}");
            let headers = [&phone_headers("nobody")[..], &[("X-Forwarded-For", &forged)]].concat();
            let outcome = self.upgrade(11, &for_us(&upgrade("/v2/client", &headers))).err();
            assert_eq!(outcome.as_deref(), (attempt == 3).then_some("429"), "attempt {attempt}");
        }
        assert_eq!(self.relay.wait_for_event("rate_limited")["remote"], "127.0.0.11");
        assert!(self.upgrade(12, &for_us(&upgrade("/v2/client", &phone_headers("nobody")))).is_ok());

        assert!(self.relay.events_named("client_address_unusable").is_empty());
        let metrics = self.relay.try_metrics().unwrap();
        for stage in ["proxy", "http"] {
            assert_eq!(
                metrics.get(&format!("handshake_failures_total{{stage=\"{stage}\"}}")),
                0.0,
                "{stage}"
            );
        }
        assert_eq!(metrics.forwarded("phone_to_binary") + metrics.forwarded("binary_to_phone"), 2.0);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to, and not when it is killed.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < until {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is. Debian keeps servers where the PATH of an ordinary user does not lead.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(also).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn not_tested<T>(recipe: &Recipe<'_>, missing: &str) -> Option<T> {
    let missing = format!("{missing} is missing; {} needs the packages {}", recipe.file, recipe.packages);
    assert!(std::env::var_os("PYRYCODE_RELAY_REQUIRE_PROGRAMS").is_none(), "{missing}");
    eprintln!("not tested: {missing}");
    None
}

/// Whether the stream module, which is a package of its own, is what this file lacks.
fn without_stream(nginx: &Path, config: &Path) -> bool {
    let dir = config.parent().unwrap().display();
    let checked = Command::new(nginx)
        .args(["-t", "-c"])
        .arg(config)
        .args(["-g", &format!("pid {dir}/pid; error_log stderr;")])
        .output()
        .unwrap();
    String::from_utf8_lossy(&checked.stderr).contains("unknown directive \"stream\"")
}

/// The request, to the name that the proxies serve.
fn for_us(request: &str) -> String {
    request.replace("Host: relay\r\n", "Host: relay.example.com\r\n")
}

/// A key and a certificate for it.
fn certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=relay.example.com", "-addext", "subjectAltName=DNS:relay.example.com"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = ["cert.pem", "key.pem"].map(|file| std::fs::read(dir.join(file)).unwrap()).concat();
    std::fs::write(dir.join("both.pem"), both).unwrap();
}

/// A connection to a proxy.
enum Wire {
    Plain(std::net::TcpStream),
    /// Through `openssl s_client`, which checks the certificate.
    Tls(Child),
}

impl Wire {
    fn tls(source: Ipv4Addr, address: SocketAddr, dir: &Path) -> Self {
        let child = Command::new("timeout")
            .args([&DEADLINE.as_secs().to_string(), "openssl", "s_client", "-quiet", "-verify_quiet"])
            .args(["-connect", &address.to_string(), "-bind", &format!("{source}:0")])
            .args(["-servername", "relay.example.com", "-verify_return_error", "-CAfile"])
            .arg(dir.join("cert.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        Self::Tls(child)
    }

    fn write_all(&mut self, bytes: &[u8]) {
        // Where nobody listens yet, the answer stays away.
        let _ = match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(child) => child.stdin.as_mut().expect("its input").write_all(bytes),
        };
    }

    /// The head of the answer; nothing if there is none.
    fn ask(&mut self, request: &str) -> String {
        self.write_all(for_us(request).as_bytes());
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && self.read(&mut byte).is_ok_and(|count| count == 1) {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(child) => child.stdout.as_mut().expect("its output").read(buf),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Self::Tls(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Only root can become another user, and whether that one exists is for the host to say.
const USER: (&str, &str) = ("user www-data;\n", "");
const HAPROXY_USER: (&str, &str) = ("    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n", "");
/// Where the proxy says what came of its checks.
const STATS: (&str, &str) = ("    log stderr ", "    stats socket {dir}/stats\n    log stderr ");

const NGINX: &[&str] = &["-c", "{file}", "-g", "daemon off; pid {dir}/pid; error_log stderr;"];

#[test]
fn behind_nginx() {
    let proxy = Proxy::start(&Recipe {
        program: "nginx",
        packages: "nginx-light libnginx-mod-stream openssl",
        file: "nginx.conf",
        relay: HTTP,
        replace: &[
            USER,
            // Started by root, nginx gives the directories of the host's own nginx to its workers.
            (
                "http {\n",
                "http {\nclient_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;\n\
                 uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;\n",
            ),
            ("listen 443 ssl;", "listen {listen} ssl;"),
            ("127.0.0.1:8080", "{relay}"),
            ("/etc/nginx/tls/fullchain.pem", "{dir}/cert.pem"),
            ("/etc/nginx/tls/privkey.pem", "{dir}/key.pem"),
        ],
        arguments: NGINX,
        tls: true,
    });
    proxy.inspect(Proxy::check);
}

#[test]
fn behind_haproxy() {
    let proxy = Proxy::start(&Recipe {
        program: "haproxy",
        packages: "haproxy openssl",
        file: "haproxy.cfg",
        relay: HTTP,
        replace: &[
            HAPROXY_USER,
            STATS,
            ("bind :443 ", "bind {listen} "),
            ("inter 2s", "inter 20ms"),
            // More than some machines allow.
            ("maxconn 20000", "maxconn 200"),
            ("127.0.0.1:8080", "{relay}"),
            ("/etc/haproxy/tls/relay.pem", "{dir}/both.pem"),
        ],
        arguments: &["-W", "-f", "{file}"],
        tls: true,
    });
    if let Some(proxy) = proxy {
        proxy.check();
        proxy.checks_health();
    }
}

#[test]
fn behind_caddy() {
    let proxy = Proxy::start(&Recipe {
        program: "caddy",
        packages: "caddy openssl",
        file: "Caddyfile",
        relay: HTTP,
        replace: &[
            (
                "\nrelay.example.com {\n",
                "\nhttps://relay.example.com:{port} {\n\tbind {host}\n\ttls {dir}/cert.pem {dir}/key.pem\n",
            ),
            // The port for redirects to https is not for a test.
            ("\tadmin off\n", "\tadmin off\n\tauto_https disable_redirects\n"),
            ("127.0.0.1:8080", "{relay}"),
        ],
        arguments: &["run", "--adapter", "caddyfile", "--config", "{file}"],
        tls: true,
    });
    proxy.inspect(Proxy::check);
}

#[test]
fn behind_haproxy_as_a_tcp_load_balancer() {
    let proxy = Proxy::start(&Recipe {
        program: "haproxy",
        packages: "haproxy openssl",
        file: "haproxy-tcp.cfg",
        relay: TCP,
        replace: &[
            HAPROXY_USER,
            STATS,
            ("bind :443\n", "bind {listen}\n"),
            ("127.0.0.1:8080", "{relay}"),
            ("inter 2s", "inter 20ms"),
            ("maxconn 20000", "maxconn 200"),
        ],
        arguments: &["-W", "-f", "{file}"],
        tls: false,
    });
    if let Some(proxy) = proxy {
        proxy.check();
        proxy.checks_health();
    }
}

#[test]
fn behind_nginx_as_a_tcp_load_balancer() {
    let proxy = Proxy::start(&Recipe {
        program: "nginx",
        packages: "nginx-light libnginx-mod-stream openssl",
        file: "nginx-stream.conf",
        relay: TCP,
        replace: &[USER, ("listen 443;", "listen {listen};"), ("127.0.0.1:8080", "{relay}")],
        arguments: NGINX,
        tls: false,
    });
    proxy.inspect(Proxy::check);
}
