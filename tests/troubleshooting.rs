//! What docs/troubleshooting.md says that the program says: each of it is brought about, and must come back in these words.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use support::client::{Client, binary_headers};
use support::http::{Answer, ask, request, upgrade};
use support::relay::{Program, Relay};
use support::secured::Secured;
use support::tls::{Ca, NAME, Pem, Secure};

const PAGE: &str = include_str!("../docs/troubleshooting.md");

/// The rows of the tables under a heading, without their heads: the cells of each.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = PAGE.split(&format!("{heading}\n")).nth(1).expect("the section");
    let section = section.split("\n#").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands in the first backquotes of a cell.
fn quoted(cell: &'static str) -> &'static str {
    cell.split('`').nth(1).unwrap_or_default()
}

/// The lines under a heading that the program is said to say.
fn said_under(heading: &str) -> BTreeSet<&'static str> {
    rows(heading).iter().map(|row| quoted(row[0])).collect()
}

/// What the program says that ends at its start, and with which code.
fn refusal(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    child.stderr.take().expect("its stderr").read_to_string(&mut said).expect("UTF-8");
    (child.wait().expect("it ends").code(), said)
}

/// Every line of the page was said by one of the refusals, all of which had this code.
fn all_were_said(heading: &str, code: i32, refusals: &[(Option<i32>, String)]) {
    let lines = said_under(heading);
    assert!(lines.len() > 2, "{lines:?}");
    for (found, said) in refusals {
        assert_eq!(*found, Some(code), "{said}");
    }
    let unsaid: Vec<_> =
        lines.iter().filter(|line| !refusals.iter().any(|(_, said)| said.contains(**line))).collect();
    assert!(unsaid.is_empty(), "nobody says {unsaid:?}, but {refusals:#?}");
}

fn with_config(config: &str) -> (Option<i32>, String) {
    refusal(Program::new(config).command())
}

/// Sockets that systemd passes; addresses in what is said are those of the page.
fn with_sockets(listen: &str, sockets: &[(&str, &str)]) -> (Option<i32>, String) {
    let program = Program::new(&format!("[listen]\n{listen}"));
    let mut ports = Vec::new();
    let passed = sockets.iter().map(|(name, address)| {
        let listener = TcpListener::bind((*address, 0)).unwrap();
        ports.push((listener.local_addr().unwrap().port(), if *name == "public" { 8080 } else { 9090 }));
        (*name, OwnedFd::from(listener))
    });
    let passed: Vec<_> = passed.collect();
    let (code, said) = refusal(program.command_with_sockets(passed));
    let said = ports
        .iter()
        .fold(said, |said, (port, shown)| said.replace(&format!(":{port}"), &format!(":{shown}")));
    (code, said)
}

#[test]
fn what_is_refused_with_78_is_said_in_these_words() {
    let plain = "metrics = \"off\"\n";
    let credential = "[tls]\nmode = \"files\"\ncertificate = \"credential:tls_fullchain.pem\"\n\
                      key = \"credential:tls_privkey.pem\"\n";
    let program = Program::new(credential);
    let mut without_credentials = program.command();
    without_credentials.env("CREDENTIALS_DIRECTORY", program.config_path().parent().unwrap());
    let many = Program::new("[limits]\nconnections = 5000\n");
    let refusals = [
        with_config("[listen]\npublic = \"0.0.0.0:8080\"\n"),
        refusal(many.command_with_descriptors(1000)),
        refusal(without_credentials),
        with_sockets(plain, &[("public", "127.0.0.1")]),
        with_sockets(&format!("public = \"systemd:public\"\n{plain}"), &[]),
        with_sockets(
            "public = \"systemd:public\"\nmetrics = \"systemd:metrics\"\n",
            &[("public", "127.0.0.1"), ("metrics", "0.0.0.0")],
        ),
    ];
    all_were_said("### 78", 78, &refusals);
    let (_, said) = with_config("[session]\ngrace = \"30 parsecs\"\n");
    let line = PAGE.lines().find_map(|line| line.strip_prefix("/etc/pyrycode-relay/relay.toml:77: "));
    assert!(said.contains(line.expect("the line")), "{said}");
}

#[test]
fn what_is_refused_with_69_is_said_in_these_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = |public: &str| {
        format!("[listen]\npublic = \"{public}\"\nplaintext = \"anywhere\"\nmetrics = \"off\"\n")
    };
    let in_use = with_config(&listen(&address.to_string()));
    let nobodys = with_config(&listen("192.0.2.1:443"));
    let mut refusals = vec![in_use, nobodys];
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let anybody_may = first_free.trim().parse::<u16>().unwrap() <= 443;
    if anybody_may {
        println!("port 443 is everybody's on this host: its refusal is passed over");
        refusals.push((Some(69), quoted(rows("### 69")[0][0]).to_owned()));
    } else {
        refusals.push(as_nobody(&listen("127.0.0.1:443")));
    }
    all_were_said("### 69", 69, &refusals);
}

/// What is said to a user who may not bind a port below 1024.
fn as_nobody(config: &str) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;

    let program = Program::new(config);
    if !rustix::process::geteuid().is_root() {
        return refusal(program.command());
    }
    let path = program.config_path();
    let directory = path.parent().unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, because the way to the built program may be closed to others.
    let copy = directory.join("pyrycode-relay");
    std::fs::copy(env!("CARGO_BIN_EXE_pyrycode-relay"), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]);
    command.arg(copy).arg("--config").arg(&path);
    refusal(command)
}

#[test]
fn a_refused_certificate_is_told_in_these_words() {
    let ca = Ca::new();
    let check = |pem: &Pem, mode: u32, keys: &str| {
        let directory = tempfile::tempdir().unwrap();
        let files = pem.write(directory.path());
        support::tls::replace(&files.key, &pem.key, mode);
        with_config(&format!("{}{keys}", files.section()))
    };
    let good = ca.issue(&[NAME]);
    let year = Duration::from_secs(365 * 86_400);
    // From 2020-01-02 to 2021-01-01.
    let expired = ca.issue_for(&[NAME], SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_923_200), year);
    let other_key = Pem { key: ca.issue(&[NAME]).key, ..good.clone() };
    let authority = ca.issue_with(&[NAME], &rcgen::KeyPair::generate().unwrap(), |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let refusals = [
        check(&expired, 0o600, ""),
        check(&good, 0o600, "domains = [\"other.example.com\"]\n"),
        check(&other_key, 0o600, ""),
        check(&good, 0o644, ""),
        check(&authority, 0o600, ""),
    ];
    all_were_said("## The certificate is refused", 78, &refusals);
}

#[test]
fn every_answer_is_given_in_these_words() {
    let binary = upgrade("/v2/server", &binary_headers("s"));
    let mut given = BTreeSet::new();
    let mut note = |answer: &Answer| given.insert((answer.status, answer.body.trim_end().to_owned()));

    let relay = Relay::with("[access]\nservers = [\"other\"]\n");
    note(&ask(relay.address, &upgrade("/v2/server", &[])));
    note(&ask(relay.address, &binary));
    note(&ask(relay.address, &request("GET /elsewhere HTTP/1.1", &[])));
    note(&ask(relay.address, &request("GET /v2/server HTTP/1.1", &[])));

    let relay = Relay::with("[limits]\nupgrade_burst = 1\nupgrades_per_minute = 1\n");
    ask(relay.address, &binary);
    note(&ask(relay.address, &binary));

    let proxied = "[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.1/32\"]\n";
    note(&ask(Relay::with(proxied).address, &binary));

    let relay = Relay::with("[limits]\nconnections_per_address = 1\n");
    let _holds = Client::binary(&relay, "holds");
    note(&ask(relay.address, &binary));

    let relay = Relay::with("[limits]\nconnections = 2\n");
    let _hold = [Client::binary(&relay, "first"), Client::binary(&relay, "second")];
    note(&ask(relay.address, &binary));

    let secured = Secured::with("");
    note(&ask(secured.relay.address, &binary));
    let answer = Secure::connect(secured.relay.address, NAME, &secured.client())
        .unwrap()
        .ask("GET /healthz HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    given.insert((head[9..12].parse().unwrap(), body.trim_end().to_owned()));

    let table = rows("## Clients are refused before the upgrade");
    let told: BTreeSet<_> = table
        .iter()
        .filter_map(|row| Some((quoted(row[0]).parse::<u16>().ok()?, quoted(row[1]).to_owned())))
        .collect();
    assert_eq!(told, given);
}
