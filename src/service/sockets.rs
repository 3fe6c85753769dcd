//! Sockets that systemd has bound and passes (`sd_listen_fds(3)`).
//!
//! [`Passed::take`] takes over what the process was started with: each socket with the name that its unit gives it
//! (`FileDescriptorName=`), marked close-on-exec. `Passed::share_out` then gives each key of `[listen]` the socket that it
//! names. What was passed and what is configured must agree exactly: a socket that is missing, there twice, of another kind,
//! or named by no key is refused, because a relay that listens elsewhere than its operator thinks is worse than none. The
//! addresses that the sockets have pass the same rules as those that stand in the file (PROTOCOL § 8).

use std::env;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::{
    Loaded, LoopbackAddr, MetricsListen, Plaintext, Problems, PublicListen, SocketName, TlsMode,
    plaintext_problem,
};

const PUBLIC: &str = "listen.public";
const METRICS: &str = "listen.metrics";

/// The sockets that were passed to this process, or why they cannot be told.
#[derive(Debug)]
pub struct Passed(Result<Vec<Socket>, String>);

#[derive(Debug)]
struct Socket {
    name: String,
    /// The listener and its address; for anything else, what it is.
    listener: Result<(TcpListener, SocketAddr), String>,
}

/// Where to listen.
#[derive(Debug)]
pub(super) enum Place {
    /// At an address that is still to be bound.
    Address(SocketAddr),
    /// At a socket that was passed, and the address that it has.
    Passed(TcpListener, SocketAddr),
}

/// What the keys of `[listen]` come to.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) public: Place,
    /// Nothing when metrics are off.
    pub(super) metrics: Option<Place>,
}

impl Passed {
    /// Takes what systemd passed. To be called once, before any thread is started: variables of the environment that tell of
    /// the sockets are removed (`LISTEN_PID`, `LISTEN_FDS`), so that nobody takes them a second time.
    #[must_use]
    pub fn take() -> Self {
        if let Some(problem) = misdirected() {
            return Self(Err(problem));
        }
        let named = match sd_notify::listen_fds_with_names() {
            Ok(named) => named,
            Err(error) => {
                return Self(Err(format!("the sockets that systemd passed cannot be taken: {error}")));
            }
        };
        let mut descriptors = ListenFd::from_env();
        let sockets = named
            .enumerate()
            .map(|(index, (descriptor, name))| {
                let listener = match descriptors.take_tcp_listener(index) {
                    Ok(Some(listener)) if listener.as_raw_fd() == descriptor => judged(listener),
                    Ok(_) => Err("cannot be found among the descriptors of this process".to_owned()),
                    Err(error) => Err(format!("is no TCP socket ({error})")),
                };
                Socket { name, listener }
            })
            .collect();
        Self(Ok(sockets))
    }

    /// Gives each key its socket, or its address.
    ///
    /// # Errors
    /// Everything in which the sockets and the configuration disagree.
    pub(super) fn share_out(self, loaded: &Loaded) -> Result<Places, Problems> {
        let listen = &loaded.config.listen;
        let named =
            listen.public.socket_name().map(|_| PUBLIC).or(listen.metrics.socket_name().map(|_| METRICS));
        let mut sockets = match (self.0, named) {
            (Ok(sockets), _) => sockets,
            (Err(problem), Some(key)) => return Err(loaded.problems(vec![(key, problem)])),
            // Whoever names no socket need not care that one cannot be had.
            (Err(_), None) => Vec::new(),
        };
        let passed: Vec<_> = sockets.iter().map(Socket::described).collect();
        let mut problems = Vec::new();
        let mut claim = |key, name, rule: &dyn Fn(SocketAddr) -> Option<String>| {
            let claimed = claimed(&mut sockets, name, &passed).and_then(|(listener, address)| {
                rule(address).map_or(Ok(Place::Passed(listener, address)), |problem| {
                    Err(format!("the socket that systemd passed listens on {address}: {problem}"))
                })
            });
            claimed.map_err(|problem| problems.push((key, problem))).ok()
        };
        let public = match &listen.public {
            PublicListen::Address(address) => Some(Place::Address(*address)),
            PublicListen::Systemd(name) => claim(PUBLIC, name, &|address| public_problem(loaded, address)),
        };
        let metrics = match &listen.metrics {
            MetricsListen::Off => None,
            MetricsListen::Address(address) => Some(Place::Address(address.get())),
            MetricsListen::Systemd(name) => claim(METRICS, name, &metrics_problem),
        };
        // A key that names a socket already cannot name this one.
        let key = |socket: &Socket| match listen.public.socket_name() {
            None if socket.name != "metrics" => PUBLIC,
            _ => METRICS,
        };
        problems.extend(sockets.iter().map(|socket| (key(socket), unclaimed(socket, key(socket)))));
        match public {
            Some(public) if problems.is_empty() => Ok(Places { public, metrics }),
            _ => Err(loaded.problems(problems)),
        }
    }
}

impl Socket {
    /// Its name and where it listens, for a message.
    fn described(&self) -> String {
        match &self.listener {
            Ok((_, address)) => format!("\"{}\" on {address}", self.name),
            Err(_) => format!("\"{}\"", self.name),
        }
    }
}

/// What keeps sockets that were passed from being this process's: they are meant for another one.
fn misdirected() -> Option<String> {
    env::var_os("LISTEN_FDS")?;
    let Ok(process) = env::var("LISTEN_PID") else {
        return Some(
            "LISTEN_FDS is set without LISTEN_PID, so nothing says whose the sockets are".to_owned(),
        );
    };
    (process != std::process::id().to_string()).then(|| {
        format!(
            "systemd passed its sockets to process {process} (LISTEN_PID), and this is process {}; have the unit start the \
             relay itself, not through another program",
            std::process::id()
        )
    })
}

fn judged(listener: TcpListener) -> Result<(TcpListener, SocketAddr), String> {
    let listening = SockRef::from(&listener).is_listener().unwrap_or(false);
    match listener.local_addr() {
        Ok(address) if listening => Ok((listener, address)),
        Ok(_) => Err("is a TCP socket that does not listen".to_owned()),
        Err(error) => Err(format!("has no address ({error})")),
    }
}

/// Takes the one socket of that name out of `sockets`.
fn claimed(
    sockets: &mut Vec<Socket>,
    name: &SocketName,
    passed: &[String],
) -> Result<(TcpListener, SocketAddr), String> {
    let (mut of_that_name, others) =
        mem::take(sockets).into_iter().partition::<Vec<_>, _>(|socket| socket.name == name.as_str());
    *sockets = others;
    let one_too_many = of_that_name.len() > 1;
    match of_that_name.pop() {
        None => Err(format!(
            "\"{name}\" names a socket that systemd did not pass; {}; it comes from a socket unit with \
             FileDescriptorName={} that is started before the service (systemctl list-sockets shows them)",
            match passed {
                [] => "none was passed".to_owned(),
                passed => format!("passed: {}", passed.join(", ")),
            },
            name.as_str(),
        )),
        Some(_) if one_too_many => Err(format!(
            "\"{name}\" names more than one socket that systemd passed ({}); leave one ListenStream= in one socket unit \
             of that name",
            passed.join(", "),
        )),
        Some(Socket { listener, .. }) => listener.map_err(|what| {
            format!(
                "\"{name}\": what systemd passed {what}; its socket unit needs ListenStream= with an IP address and a port, \
                 and Accept=no"
            )
        }),
    }
}

fn unclaimed(socket: &Socket, key: &str) -> String {
    format!(
        "systemd passed a socket that no key names, {}; write {key} = \"systemd:{}\", or take its socket unit away from \
         this service (systemctl disable --now)",
        socket.described(),
        socket.name,
    )
}

fn public_problem(loaded: &Loaded, address: SocketAddr) -> Option<String> {
    let config = &loaded.config;
    let guarded = config.tls.mode != TlsMode::Off || config.listen.plaintext != Plaintext::Loopback;
    plaintext_problem(address).filter(|_| !guarded)
}

fn metrics_problem(address: SocketAddr) -> Option<String> {
    LoopbackAddr::check(address).err().map(|problem| format!("\"{address}\" {problem}"))
}
