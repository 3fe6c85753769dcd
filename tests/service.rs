//! The program as a service: what it tells the service manager, where it writes its log, how it fails to start.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::{BufRead, BufReader, Read, Seek};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use support::client::{self, Client};
use support::relay::{Options, Program, Relay, free_metrics_address};
use support::{DEADLINE, eventually};

/// A service manager's end of `NOTIFY_SOCKET`. Like the real one, it reads all the time: a message that finds the
/// socket full would hold up who sends it.
struct Manager {
    messages: Receiver<String>,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = [0; 256];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self { messages, directory }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let path = self.directory.path().join("notify").display().to_string();
        vec![("NOTIFY_SOCKET".to_owned(), path), ("WATCHDOG_USEC".to_owned(), "100000".to_owned())]
    }

    /// The next message that is not about the watchdog.
    fn next(&self) -> String {
        loop {
            let message = self.receive();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }

    fn receive(&self) -> String {
        self.messages.recv_timeout(DEADLINE).expect("a message")
    }
}

#[test]
fn the_service_manager_is_told_status_ready_watchdog_and_stopping() {
    let manager = Manager::new();
    let mut relay = Relay::with_options(Options { environment: manager.environment(), ..Options::default() });
    assert_eq!(manager.next(), "READY=1\n");
    assert_eq!(manager.next(), "STATUS=0 binaries connected, 0 in grace, 0 phones\n");

    let binary = Client::binary(&relay, "status");
    let _phone = Client::phone(&relay, "status");
    eventually("the status with both", || match manager.next() {
        status if status == "STATUS=1 binaries connected, 0 in grace, 1 phones\n" => Ok(()),
        other => Err(other),
    });
    drop(binary);
    eventually("the status in grace", || match manager.next() {
        status if status == "STATUS=0 binaries connected, 1 in grace, 1 phones\n" => Ok(()),
        other => Err(other),
    });
    eventually("the watchdog", || match manager.receive() {
        message if message == "WATCHDOG=1\n" => Ok(()),
        other => Err(other),
    });

    relay.signal("TERM");
    eventually("stopping", || match manager.next() {
        message if message == "STOPPING=1\n" => Ok(()),
        other => Err(other),
    });
    assert!(relay.wait_for_exit().success());
}

#[test]
fn a_service_manager_that_does_not_read_holds_up_neither_forwarding_nor_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let _deaf = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"full", &path).is_ok() {}
    let environment = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), "100000".to_owned()),
    ];
    let mut relay = Relay::with_options(Options { environment, ..Options::default() });
    forwards_and_ends(&mut relay, |_| ());
}

/// A frame crosses behind `disturbance`, and SIGTERM ends everything in order.
fn forwards_and_ends(relay: &mut Relay, disturbance: impl FnOnce(&Relay)) {
    let mut binary = Client::binary(relay, "undisturbed");
    let mut phone = Client::phone(relay, "undisturbed");
    disturbance(relay);
    phone.send("\"through\"");
    assert_eq!(binary.json()["frame"], "through");

    relay.signal("TERM");
    assert_eq!(phone.closed().0, 1001);
    assert_eq!(binary.closed_after_notices().0, 1001);
    assert!(relay.wait_for_exit().success());
    assert_eq!(relay.events_named("drained").len(), 1);
}

#[test]
fn a_configuration_that_cannot_be_read_to_its_end_holds_up_nothing() {
    forwards_and_ends(&mut Relay::start(), |relay| {
        // A pipe that nobody writes to: whoever opens it waits.
        std::fs::remove_file(relay.config_path()).unwrap();
        assert!(Command::new("mkfifo").arg(relay.config_path()).status().unwrap().success());
        relay.signal("HUP");
        relay.signal("HUP");
    });
}

#[test]
fn a_reload_names_what_takes_a_restart_and_what_is_wrong_with_the_file() {
    let relay = Relay::start();
    let config = std::fs::read_to_string(relay.config_path()).unwrap();
    let changed = config.replace("level = \"info\"", "level = \"debug\"") + "[session]\ngrace = \"1s\"\n";
    std::fs::write(relay.config_path(), &config).unwrap();
    relay.signal("HUP");
    let event = relay.wait_for_event("reloaded");
    assert_eq!((&event["log_level"], event.get("needs_restart")), (&"info".into(), None));

    std::fs::write(relay.config_path(), format!("{config}nonsense = 1\nmore = 2\n")).unwrap();
    relay.signal("HUP");
    let cause = relay.wait_for_event("reload_failed")["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("limits.nonsense") && cause.contains("1 more"), "{cause}");
    assert!(cause.contains("pyrycode-relay check --config"), "{cause}");

    std::fs::write(relay.config_path(), changed).unwrap();
    relay.signal("HUP");
    eventually("the second reload", || {
        let events = relay.events_named("reloaded");
        let event = events.get(1).ok_or_else(|| format!("{events:?}"))?;
        assert_eq!(
            (&event["log_level"], &event["needs_restart"]),
            (&"debug".into(), &"session.grace".into())
        );
        Ok(())
    });
}

#[test]
fn ready_is_said_when_both_listeners_answer() {
    let manager = Manager::new();
    let metrics = free_metrics_address();
    let public = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!("[listen]\npublic = \"{public}\"\nmetrics = \"{metrics}\"");
    let program = Program::new(&config);
    let mut child = program.command().envs(manager.environment()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(manager.next(), "READY=1\n");
    // No retry: a connection that is refused now is a lie told to systemd.
    assert!(TcpStream::connect(public).is_ok());
    let page = Relay::http(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_service_manager_that_is_gone_is_reported_and_harms_nothing() {
    let gone = tempfile::tempdir().unwrap().path().join("gone").display().to_string();
    let environment = vec![("NOTIFY_SOCKET".to_owned(), gone)];
    let relay = Relay::with_options(Options { environment, ..Options::default() });
    let event = relay.wait_for_event("notify_failed");
    assert_eq!(event["level"], "warn");
    assert!(relay.get("/healthz").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn an_address_that_is_taken_is_named_with_its_key() {
    let metrics = free_metrics_address();
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_public = public.local_addr().unwrap();
    let failed = |config: &str| {
        let output = Program::new(config).command().output().unwrap();
        assert_eq!(output.status.code(), Some(69), "cannot bind");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = failed(&format!("[listen]\npublic = \"{taken_public}\"\nmetrics = \"{metrics}\""));
    assert!(said.contains(&format!("listen.public: cannot listen on {taken_public}")), "{said}");
    assert!(said.contains("another program"), "{said}");

    let _holder = TcpListener::bind(metrics).unwrap();
    let said = failed(&format!("[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"{metrics}\""));
    assert!(said.contains(&format!("listen.metrics: cannot listen on {metrics}")), "{said}");
}

#[test]
fn metrics_can_be_off() {
    let program =
        Program::new("[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n[log]\nformat = \"json\"");
    let mut child = program.command().stderr(Stdio::piped()).spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        log.push_str(&line.unwrap());
        if log.contains("\"ready\"") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(log.contains("\"listen\":\"127.0.0.1:"), "{log}");
    assert!(!log.contains("\"metrics\""), "{log}");
}

#[test]
fn without_a_configuration_the_start_says_that_it_runs_on_defaults() {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_pyrycode-relay")).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    // It may or may not get its default ports here; what it says comes before.
    let _ = child.kill();
    child.wait().unwrap();
    assert!(first.contains(" INFO starting version="), "{first}");
    assert!(first.contains("built-in defaults (no /etc/pyrycode-relay/relay.toml)"), "{first}");
}

#[test]
fn a_stderr_without_a_reader_harms_nothing() {
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let metrics = free_metrics_address();
    let public = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let program = Program::new(&format!("[listen]\npublic = \"{public}\"\nmetrics = \"{metrics}\""));
    let mut child = program.command().stderr(OwnedFd::from(writer)).spawn().unwrap();
    eventually("the health document", || TcpStream::connect(public).map_err(|error| error.to_string()));
    let answer = Relay::http(public, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_nothing() {
    let (unread, writer) = UnixStream::pair().unwrap();
    let metrics = free_metrics_address();
    let public = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let limits = "[limits]\nupgrade_burst = 2000\nconnections_per_address = 2000";
    let listen = format!("[listen]\npublic = \"{public}\"\nmetrics = \"{metrics}\"\n{limits}");
    let program = Program::new(&listen);
    let mut child = program.command().stderr(OwnedFd::from(writer)).spawn().unwrap();
    eventually("the listener", || TcpStream::connect(public).map_err(|error| error.to_string()));
    let headers = client::binary_headers("unread");
    let mut binary = client::connect(public, "/v2/server", &headers).unwrap();
    // Two lines for each visit: more than the socket holds.
    for _ in 0..1500 {
        let mut phone = client::connect(public, "/v2/client", &client::phone_headers("unread")).unwrap();
        phone.send("1");
        assert_eq!(binary.json()["frame"], 1);
        assert_eq!(phone.close(Some(1000)), Some((1000, String::new())));
        assert_eq!(binary.json()["close_code"], 1000);
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(binary.closed_after_notices().0, 1001);
    let status = eventually("the end", || child.try_wait().unwrap().ok_or("still running".to_owned()));
    assert!(status.success());
    drop(unread);
}

#[test]
fn a_journal_that_is_not_there_is_refused_by_name_and_made_up_for_by_auto() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("[listen]\npublic = \"{}\"\n", taken.local_addr().unwrap());
    let output = Program::new(&format!("{taken}[log]\nformat = \"journald\"")).command().output().unwrap();
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        // With a journal there is nothing to refuse: the start comes as far as its address.
        assert_eq!(output.status.code(), Some(69));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("log.format"));
        return;
    }
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("log.format") && said.contains("/run/systemd/journal/socket"), "{said}");

    // Stderr is what JOURNAL_STREAM names, as under systemd, but nobody listens.
    let mut stderr = tempfile::tempfile().unwrap();
    let metadata = stderr.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("[listen]\npublic = \"{}\"", taken.local_addr().unwrap());
    let program = Program::new(&config);
    let status =
        program.command().env("JOURNAL_STREAM", stream).stderr(stderr.try_clone().unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(69), "it came as far as its address");
    let mut log = String::new();
    stderr.rewind().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.contains(" INFO starting version="), "{log}");
}
