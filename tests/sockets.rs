//! Sockets that systemd passes: served like those that the relay binds, left open when it stops, and refused when they are
//! not what is configured.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;
use support::client::{self, Client};
use support::eventually;
use support::http::{Http, upgrade};
use support::relay::{Options, Program, Relay};

fn pair() -> (TcpListener, TcpListener) {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    (listen(), listen())
}

/// A relay on sockets that stay open when it is gone.
fn start_on((public, metrics): &(TcpListener, TcpListener), config: &str) -> Relay {
    let sockets = Some((public.try_clone().unwrap(), metrics.try_clone().unwrap()));
    Relay::with_options(Options { config: config.to_owned(), sockets, ..Options::default() })
}

#[test]
fn passed_sockets_are_served_and_are_not_passed_on() {
    let sockets = pair();
    let relay = start_on(&sockets, "");
    assert_eq!(relay.address, sockets.0.local_addr().unwrap());
    let mut binary = Client::binary(&relay, "passed");
    let mut phone = Client::phone(&relay, "passed").admitted_client();
    phone.send("[1]");
    assert!(binary.text().ends_with(",\"frame\":[1]}"));
    assert!((relay.quiet(1, 0).get("connected_phones") - 1.0).abs() < f64::EPSILON);
    let addresses: Vec<SocketAddr> = relay
        .events_named("listening")
        .iter()
        .map(|event| event["listen"].as_str().or(event["metrics"].as_str()).unwrap().parse().unwrap())
        .collect();
    assert_eq!(addresses, [relay.address, relay.metrics_address]);
    for descriptor in [3, 4] {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", relay.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        // O_CLOEXEC, as the kernel numbers it.
        assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000, 0o2_000_000, "{descriptor}: {info}");
    }
}

/// The relay's side of the connection from `peer`.
fn socket_to(relay: &Relay, peer: SocketAddr) -> Result<TcpStream, String> {
    let pid = Pid::from_raw(i32::try_from(relay.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    std::fs::read_dir(format!("/proc/{}/fd", relay.pid()))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .map(TcpStream::from)
        .find(|socket| socket.peer_addr().is_ok_and(|address| address == peer))
        .ok_or_else(|| format!("no socket to {peer}"))
}

#[test]
fn who_was_there_before_the_relay_has_the_same_options_as_who_comes_later() {
    let sockets = pair();
    let early = TcpStream::connect(sockets.0.local_addr().unwrap()).unwrap();
    let relay = start_on(&sockets, "");
    let late = TcpStream::connect(relay.address).unwrap();
    for client in [early, late] {
        let peer = client.local_addr().unwrap();
        let socket = eventually("the relay has it", || socket_to(&relay, peer));
        let options = SockRef::from(&socket);
        assert!(options.tcp_nodelay().unwrap());
        assert!(options.tcp_user_timeout().unwrap().is_some_and(|timeout| !timeout.is_zero()));
        assert_eq!(options.tcp_notsent_lowat().unwrap(), 128 * 1024);
    }
}

#[test]
fn who_connects_while_the_relay_is_restarted_is_served_by_the_next_one() {
    let sockets = pair();
    let mut first = start_on(&sockets, "[drain]\nspread = \"1s\"\n");
    let mut binary = Client::binary(&first, "restarted");
    first.signal("TERM");
    first.wait_for_event("draining");
    // One comes during the drain, one when nobody is there.
    let mut early = Http::connect(first.address);
    early.send(upgrade("/v2/server", &client::binary_headers("early")));
    assert_eq!(binary.closed(), (1001, "shutting down; retry-after=1".to_owned()));
    drop(binary);
    assert_eq!(first.wait_for_exit().code(), Some(0));
    assert_eq!(first.knock(), Ok(()));
    let mut late = Http::connect(first.address);
    late.send(upgrade("/v2/server", &client::binary_headers("late")));
    let second = start_on(&sockets, "");
    assert_eq!([early.ask("").status, late.ask("").status], [101, 101]);
    let metrics = second.wait_for_metric("connected_binaries", 2.0);
    assert!((metrics.upgrades("server", "accept") - 2.0).abs() < f64::EPSILON);
    drop(second);
    drop(sockets);
    assert_eq!(first.knock(), Err(ErrorKind::ConnectionRefused), "only the sockets kept it open");
}

/// How a relay with this `[listen]` ends that is passed these sockets: its exit code and what it says.
fn refusal(listen: &str, sockets: Vec<(&str, OwnedFd)>) -> (Option<i32>, String) {
    let program = Program::new(&format!("[listen]\n{listen}"));
    let (code, said) = run_to_its_end(program.command_with_sockets(sockets));
    (code, said.replace(&program.config_path().display().to_string(), "FILE"))
}

fn run_to_its_end(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

const BOTH: &str = "public = \"systemd:public\"\nmetrics = \"systemd:metrics\"\n";
const NO_METRICS: &str = "public = \"systemd:public\"\nmetrics = \"off\"\n";

fn tcp(address: &str) -> OwnedFd {
    TcpListener::bind(address).unwrap().into()
}

fn loopback() -> OwnedFd {
    tcp("127.0.0.1:0")
}

fn is_refused(listen: &str, sockets: Vec<(&str, OwnedFd)>, parts: &[&str]) {
    let (code, said) = refusal(listen, sockets);
    assert_eq!(code, Some(78), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("listening"), "{said}");
}

#[test]
fn sockets_that_are_missing_or_too_many_are_refused() {
    let missing = "names a socket that systemd did not pass; ";
    is_refused(
        BOTH,
        vec![],
        &[
            &format!("FILE:2: listen.public: \"systemd:public\" {missing}none was passed; "),
            &format!("FILE:3: listen.metrics: \"systemd:metrics\" {missing}none was passed; "),
            "FileDescriptorName=metrics",
        ],
    );
    is_refused(
        BOTH,
        vec![("public", loopback())],
        &[&format!("FILE:3: listen.metrics: \"systemd:metrics\" {missing}passed: \"public\" on 127.0.0.1:")],
    );
    is_refused(
        NO_METRICS,
        vec![("public", loopback()), ("public", loopback())],
        &[
            "FILE:2: listen.public: ",
            "names more than one socket that systemd passed (\"public\" on 127.0.0.1:",
        ],
    );
    is_refused(
        NO_METRICS,
        vec![("public", loopback()), ("metrics", loopback())],
        &[
            "FILE:3: listen.metrics: systemd passed a socket that no key names, \"metrics\" on 127.0.0.1:",
            "listen.metrics = \"systemd:metrics\"",
        ],
    );
    is_refused(
        "",
        vec![("web", loopback())],
        &["FILE:1: listen.public: systemd passed a socket that no key names, \"web\" on 127.0.0.1:"],
    );
}

#[test]
fn sockets_of_another_kind_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let idle = TcpListener::bind("127.0.0.1:0").unwrap();
    let no_tcp = "FILE:2: listen.public: \"systemd:public\": what systemd passed is no TCP socket (";
    let others: [(OwnedFd, &str); 4] = [
        (UnixListener::bind(directory.path().join("socket")).unwrap().into(), no_tcp),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), no_tcp),
        (tempfile::tempfile().unwrap().into(), no_tcp),
        (
            TcpStream::connect(idle.local_addr().unwrap()).unwrap().into(),
            "what systemd passed is a TCP socket that does not listen; its socket unit needs ListenStream=",
        ),
    ];
    for (other, expected) in others {
        is_refused(NO_METRICS, vec![("public", other)], &[expected, "Accept=no"]);
    }
}

#[test]
fn sockets_pass_the_rules_for_addresses() {
    is_refused(
        NO_METRICS,
        vec![("public", tcp("0.0.0.0:0"))],
        &[
            "FILE:2: listen.public: the socket that systemd passed listens on 0.0.0.0:",
            "is not a loopback address, and listen.plaintext = \"loopback\" serves no other without TLS",
        ],
    );
    for open in ["0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
        is_refused(
            BOTH,
            vec![("public", loopback()), ("metrics", tcp(open))],
            &[
                "FILE:3: listen.metrics: the socket that systemd passed listens on ",
                "is not a loopback address; allowed: an address in 127.0.0.0/8 or [::1]",
            ],
        );
    }
}

#[test]
fn an_open_address_is_served_if_somebody_vouches_for_it() {
    let (public, metrics) =
        (TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = public.local_addr().unwrap().port();
    let metrics_address = metrics.local_addr().unwrap();
    let program = Program::new(&format!("[listen]\n{BOTH}plaintext = \"anywhere\"\n"));
    let passed = vec![("public", public.into()), ("metrics", metrics.into())];
    let mut child = program.command_with_sockets(passed).stderr(Stdio::null()).spawn().unwrap();
    let get = |address, path| {
        Relay::http(address, &format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n"))
    };
    let healthy = get(SocketAddr::from(([127, 0, 0, 1], port)), "/healthz");
    let scraped = get(metrics_address, "/metrics");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(healthy.starts_with("HTTP/1.1 200 OK"), "{healthy}");
    assert!(scraped.contains("pyrycode_relay_connected_binaries 0"), "{scraped}");
}

#[test]
fn what_systemd_says_of_its_sockets_must_be_true() {
    let program = Program::new(&format!("[listen]\n{NO_METRICS}"));
    let cannot = "the sockets that systemd passed cannot be taken: ";
    let cases = [
        (
            "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=public",
            "to process 1 (LISTEN_PID), and this is process ",
        ),
        ("LISTEN_FDS=1 LISTEN_FDNAMES=public", "LISTEN_FDS is set without LISTEN_PID"),
        ("LISTEN_PID=$$ LISTEN_FDS=many", &format!("{cannot}invalid LISTEN_FDS")),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public:metrics",
            &format!("{cannot}invalid LISTEN_FDNAMES"),
        ),
        ("LISTEN_PID=$$ LISTEN_FDS=99 LISTEN_FDNAMES=public", &format!("{cannot}Bad file descriptor")),
        ("LISTEN_PID=$$ LISTEN_FDS=1", "did not pass; passed: \"unknown\" on 127.0.0.1:"),
    ];
    for (variables, expected) in cases {
        let mut command = Command::new("sh");
        let script = format!("exec 3<&0 </dev/null; export {variables}; exec \"$0\" \"$@\"");
        let plain = program.command();
        command.args(["-c", &script]).arg(plain.get_program()).args(plain.get_args()).stdin(loopback());
        let (code, said) = run_to_its_end(command);
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains("relay.toml:2: listen.public: ") && said.contains(expected),
            "{variables}: {said}"
        );
    }
}

#[test]
fn a_check_says_what_only_the_service_can_see() {
    let program = Program::new(&format!("[listen]\n{BOTH}"));
    let mut check = Command::new(env!("CARGO_BIN_EXE_pyrycode-relay"));
    let output = check.args(["check", "--config"]).arg(program.config_path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for key in ["listen.public", "listen.metrics"] {
        let line =
            format!("\n{key} is a socket of systemd's, which only the service can see: not looked at\n");
        assert!(said.contains(&line), "{said}");
    }
}
