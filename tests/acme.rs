//! A certificate from an authority that runs inside the test and believes nothing: it connects back to the relay and looks.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

#[path = "support/authority.rs"]
mod authority;
mod support;

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use authority::{Authority, Behaviour};
use rustls::{AlertDescription, ClientConfig};
use support::client::{binary_headers, phone_headers};
use support::relay::{Options, Program, Relay};
use support::tls::{Ca, Secure, trusting};
use support::{DEADLINE, eventually};

const FIRST: &str = "relay.example.com";
const SECOND: &str = "b.example.com";

/// Where one relay keeps its certificate, and what it is told.
struct Home {
    directory: tempfile::TempDir,
    domains: String,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, domains: format!("\"{FIRST}\", \"{SECOND}\"") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn section(&self, authority: &Authority) -> String {
        let roots = self.path("roots.pem");
        std::fs::write(&roots, authority.web_root_pem()).unwrap();
        format!(
            "[tls]\nmode = \"acme\"\ndomains = [{}]\ncontact = \"mailto:ops@example.com\"\ndirectory = \"{}\"\n\
             directory_ca = \"{}\"\nstate = \"{}\"\n",
            self.domains,
            authority.directory(),
            roots.display(),
            self.path("state").display()
        )
    }

    /// The folder of the authority.
    fn folder(&self) -> PathBuf {
        let inside = std::fs::read_dir(self.path("state")).unwrap().next().unwrap();
        inside.unwrap().path()
    }

    fn start(&self, authority: &Authority) -> Relay {
        let relay = Relay::with(&self.section(authority));
        authority.validate_at(relay.address);
        relay
    }
}

/// A client that trusts what the authority issues.
fn client(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(trusting(&authority.issuing_root_pem()))
}

fn orders(relay: &Relay, outcome: &str) -> f64 {
    relay.try_metrics().unwrap().get(&format!("certificate_orders_total{{outcome=\"{outcome}\"}}"))
}

fn wait_for_orders(relay: &Relay, outcome: &str, number: f64) {
    eventually(&format!("{number} orders {outcome}"), || match orders(relay, outcome) {
        seen if seen == number => Ok(()),
        seen => Err(format!("{seen}; {:?}", relay.events())),
    });
}

/// The relay has nothing to show, and says so as TLS says it.
fn is_refused(relay: &Relay, client: &Arc<ClientConfig>) {
    let refused = Secure::connect(relay.address, FIRST, client).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidData);
    let alert = refused.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*alert, rustls::Error::AlertReceived(AlertDescription::AccessDenied));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_first_certificate_comes_by_itself_and_a_restart_uses_it() {
    let (authority, home) = (Authority::start(), Home::new());
    let trusted = client(&authority);
    let relay = Relay::with(&home.section(&authority));
    // The authority has not looked yet.
    let awaited = relay.wait_for_event("certificate_awaited");
    assert_eq!(awaited["names"], format!("{FIRST} {SECOND}"));
    assert_eq!(awaited["directory"], authority.directory());
    is_refused(&relay, &trusted);
    let metrics = eventually("the failure is counted", || {
        let metrics = relay.try_metrics().unwrap();
        let seen = metrics.get("handshake_failures_total{stage=\"tls\"}");
        if seen == 1.0 { Ok(metrics) } else { Err(seen.to_string()) }
    });
    assert_eq!(metrics.get("certificate_expiry_timestamp_seconds"), 0.0);

    authority.validate_at(relay.address);
    relay.wait_for_event("certificate_issued");
    for name in [FIRST, SECOND] {
        let secure = Secure::connect(relay.address, name, &trusted).unwrap();
        let expiry = relay.try_metrics().unwrap().get("certificate_expiry_timestamp_seconds");
        assert_eq!(secure.certificate_ends() as f64, expiry);
        assert_eq!(secure.health(name), "200");
    }
    wait_for_orders(&relay, "issued", 1.0);
    assert_eq!((authority.orders(), authority.issued(), authority.validations()), (1, 1, 2));
    assert_eq!(authority.contacts(), ["mailto:ops@example.com"]);
    assert_eq!(orders(&relay, "failed"), 0.0);
    let folder = home.folder();
    for (path, expected) in [(home.path("state"), 0o700), (folder.clone(), 0o700)] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    let mut files = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 3, "the account, the certificate, and when it was asked");

    // The challenge is over, so nobody else gets an answer to one.
    let mut curious = trusting(&authority.issuing_root_pem());
    curious.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    is_refused(&relay, &Arc::new(curious));

    drop(relay);
    let asked = authority.requests().len();
    authority.stop();
    let relay = Relay::with(&home.section(&authority));
    assert_eq!(Secure::connect(relay.address, SECOND, &trusted).unwrap().health(SECOND), "200");
    assert!(relay.events_named("certificate_awaited").is_empty());
    assert_eq!((authority.requests().len(), orders(&relay, "issued")), (asked, 0.0));
}

#[test]
fn a_certificate_is_renewed_in_time_and_nobody_notices() {
    let (authority, mut home) = (Authority::start(), Home::new());
    // An order for one name takes a second or two.
    home.domains = format!("\"{FIRST}\"");
    authority.issue_for(Duration::from_secs(12));
    let trusted = client(&authority);
    let relay = home.start(&authority);
    relay.wait_for_event("certificate_issued");
    let first = Secure::connect(relay.address, FIRST, &trusted).unwrap();
    let ends = first.certificate_ends();
    let began = Instant::now();
    let upgrade = |path: &str, headers: &[(&str, &str)]| {
        let secure = Secure::connect(relay.address, FIRST, &trusted).unwrap();
        support::client::upgrade_over(secure.into_stream(), &format!("wss://{FIRST}{path}"), headers).unwrap()
    };
    let mut binary = upgrade("/v2/server", &binary_headers("renewed"));
    let mut phone = upgrade("/v2/client", &phone_headers("renewed"));

    wait_for_orders(&relay, "issued", 2.0);
    assert!(began.elapsed() > Duration::from_secs(3), "not before a third is left: {:?}", began.elapsed());
    // A client that has been here resumes, and is shown nothing.
    let second = Secure::connect(relay.address, FIRST, &client(&authority)).unwrap();
    assert!(second.certificate_ends() > ends);
    phone.send("\"still there\"");
    assert!(binary.text().contains("still there"));
    assert_eq!(first.health(FIRST), "200");
    assert_eq!((authority.accounts(), authority.orders()), (1, 2));
    assert_eq!(relay.events_named("certificate_expiring").len(), 0);
}

#[test]
fn while_the_authority_is_away_it_is_left_alone_until_somebody_asks() {
    let (authority, home) = (Authority::start(), Home::new());
    authority.stop();
    let trusted = client(&authority);
    let relay = home.start(&authority);
    let failed = relay.wait_for_event("certificate_order_failed");
    let cause = failed["cause"].as_str().unwrap();
    assert!(cause.starts_with("asked for its directory: "), "{cause}");
    assert!(cause.to_lowercase().contains("refused"), "{cause}");
    assert_eq!((&failed["failures"], failed["retry_in"].as_f64()), (&1.into(), Some(120.0)));
    is_refused(&relay, &trusted);
    assert_eq!(authority.connections(), 0);

    authority.start_again();
    relay.signal("HUP");
    relay.wait_for_event("certificate_issued");
    assert_eq!(Secure::connect(relay.address, FIRST, &trusted).unwrap().health(FIRST), "200");
    wait_for_orders(&relay, "failed", 1.0);
    wait_for_orders(&relay, "issued", 1.0);
}

#[test]
fn what_the_authority_refuses_is_told_in_its_own_words() {
    for (behaviour, expected) in [
        (
            Behaviour::RefuseOrders {
                status: 429,
                kind: "rateLimited",
                detail: "too many \"orders\" of late",
            },
            "asked for an order: 429 rateLimited: too many \"orders\" of late",
        ),
        (
            Behaviour::RefuseAccounts { status: 403, kind: "unauthorized", detail: "we do not know you" },
            "asked for an account: 403 unauthorized: we do not know you",
        ),
        (
            Behaviour::FailValidation,
            "could not see that relay.example.com leads to this relay (port 443, TLS-ALPN-01): ",
        ),
        (Behaviour::WrongKey, "cannot be used: it does not belong to"),
        (Behaviour::WrongName, "cannot be used: it is not for relay.example.com, b.example.com"),
        (Behaviour::HangUp, "asked for its directory: "),
        (Behaviour::Garbage, "asked for its directory: "),
    ] {
        let (authority, home) = (Authority::start(), Home::new());
        authority.behave(behaviour);
        let relay = home.start(&authority);
        let failed = relay.wait_for_event("certificate_order_failed");
        let cause = failed["cause"].as_str().unwrap();
        assert!(cause.contains(expected), "{behaviour:?}: {cause}");
        is_refused(&relay, &client(&authority));
        assert_eq!((orders(&relay, "failed"), orders(&relay, "issued")), (1.0, 0.0), "{behaviour:?}");
        // It is left alone: what it was asked, it was asked once.
        let asked = authority.requests().iter().filter(|seen| seen.path.contains("order")).count();
        assert!(asked <= 20, "{behaviour:?}: {asked}");
        assert!(authority.orders() <= 1);
    }
}

#[test]
fn small_troubles_are_got_over_within_one_order() {
    for behaviour in [Behaviour::BadNonces(3), Behaviour::Processing(2)] {
        let (authority, home) = (Authority::start(), Home::new());
        authority.behave(behaviour);
        let relay = home.start(&authority);
        relay.wait_for_event("certificate_issued");
        assert_eq!((authority.orders(), authority.issued()), (1, 1), "{behaviour:?}");
        wait_for_orders(&relay, "issued", 1.0);
        assert_eq!(orders(&relay, "failed"), 0.0, "{behaviour:?}");
    }
}

#[test]
fn a_certificate_that_cannot_be_renewed_is_announced_before_it_ends() {
    let (authority, home) = (Authority::start(), Home::new());
    authority.issue_for(Duration::from_secs(9));
    let relay = home.start(&authority);
    relay.wait_for_event("certificate_issued");
    authority.behave(Behaviour::RefuseOrders { status: 503, kind: "serverInternal", detail: "not today" });
    let expiring = relay.wait_for_event("certificate_expiring");
    assert!((0.0..=1.5).contains(&expiring["left"].as_f64().unwrap()), "{expiring}");
    assert_eq!(relay.wait_for_events("certificate_order_failed", 1).len(), 1, "it failed before that");
    let expired = relay.wait_for_event("certificate_expired");
    assert_eq!(expired["level"], "error");
    assert_eq!(expired["not_after"], expiring["not_after"]);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_refused_at_the_start() {
    let (authority, home) = (Authority::start(), Home::new());
    std::fs::write(home.path("state"), "a file").unwrap();
    let refused = |home: &Home| {
        let listen = "[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n";
        let program = Program::new(&format!("{listen}{}", home.section(&authority)));
        let output = program.command().output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = refused(&home);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains(": tls.state: ") && said.contains("is not a directory"), "{said}");

    std::fs::remove_file(home.path("state")).unwrap();
    std::fs::create_dir(home.path("state")).unwrap();
    std::fs::set_permissions(home.path("state"), PermissionsExt::from_mode(0o755)).unwrap();
    let (code, said) = refused(&home);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("(mode 0755)") && said.contains("chmod 0700"), "{said}");
    assert_eq!(authority.connections(), 0);
}

#[test]
fn what_could_not_be_kept_is_not_ordered() {
    let (authority, home) = (Authority::start(), Home::new());
    authority.stop();
    let relay = home.start(&authority);
    relay.wait_for_event("certificate_order_failed");
    let folder = home.folder();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in its place").unwrap();
    authority.start_again();
    relay.signal("HUP");
    wait_for_orders(&relay, "failed", 2.0);
    let causes: Vec<_> = relay.wait_for_events("certificate_order_failed", 2);
    let cause = causes[1]["cause"].as_str().unwrap();
    assert!(cause.contains("-directory: cannot be made"), "{cause}");
    // As soon as it can be, everything goes on.
    std::fs::remove_file(&folder).unwrap();
    relay.signal("HUP");
    relay.wait_for_event("certificate_issued");
    assert_eq!((authority.orders(), authority.issued()), (1, 1));
}

#[test]
fn a_kept_certificate_that_does_not_fit_any_more_is_replaced() {
    let (authority, mut home) = (Authority::start(), Home::new());
    let relay = home.start(&authority);
    relay.wait_for_event("certificate_issued");
    drop(relay);
    home.domains = format!("\"{FIRST}\", \"c.example.com\"");
    // The last attempt was just now, and a process that starts again and again is not to ask again and again.
    let relay = home.start(&authority);
    let unusable = relay.wait_for_event("certificate_unusable");
    assert!(unusable["cause"].as_str().unwrap().contains("is not for c.example.com"), "{unusable}");
    assert_eq!(authority.orders(), 1);
    // The name that it is for is served meanwhile, and the other one is not.
    assert_eq!(Secure::connect(relay.address, FIRST, &client(&authority)).unwrap().health(FIRST), "200");
    assert!(Secure::connect(relay.address, "c.example.com", &client(&authority)).is_err());
    relay.signal("HUP");
    relay.wait_for_event("certificate_issued");
    let secure = Secure::connect(relay.address, "c.example.com", &client(&authority)).unwrap();
    assert_eq!(secure.health("c.example.com"), "200");
    assert_eq!((authority.orders(), authority.accounts()), (2, 1));
}

#[test]
fn the_service_manager_shows_what_is_waited_for() {
    let (authority, home) = (Authority::start(), Home::new());
    authority.behave(Behaviour::RefuseOrders { status: 429, kind: "rateLimited", detail: "come back later" });
    let path = home.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut relay = Relay::with_options(Options {
        config: home.section(&authority),
        environment: vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())],
        ..Options::default()
    });
    let mut seen = Vec::new();
    eventually("a status that says what is wrong", || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        seen.push(String::from_utf8_lossy(&message[..length]).into_owned());
        let wanted =
            "; no certificate, every client is refused: asked for an order: 429 rateLimited: come back later";
        if seen.iter().any(|line| line.contains(wanted)) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // One that never answers does not keep the relay from stopping.
    authority.behave(Behaviour::Stall);
    relay.signal("HUP");
    eventually("the authority is asked", || {
        if authority.requests().iter().any(|seen| seen.status.is_none()) {
            Ok(())
        } else {
            Err("not".to_owned())
        }
    });
    let began = Instant::now();
    relay.signal("TERM");
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_kept_certificate_that_has_not_begun_is_waited_for_and_not_replaced() {
    let (authority, home) = (Authority::start(), Home::new());
    let first = home.start(&authority);
    first.wait_for_event("certificate_issued");
    drop(first);
    let ca = Ca::new();
    let begin = SystemTime::now() + Duration::from_secs(4);
    let pem = ca.issue_for(&[FIRST, SECOND], begin, Duration::from_secs(90 * 86_400));
    std::fs::write(home.folder().join("certificate.pem"), format!("{}{}", pem.key, pem.chain)).unwrap();
    let relay = home.start(&authority);
    let unusable = relay.wait_for_event("certificate_unusable");
    assert!(unusable["cause"].as_str().unwrap().contains("is the clock of this host right?"), "{unusable}");
    relay.signal("HUP");
    eventually("its time", || {
        Secure::connect(relay.address, FIRST, &Arc::new(ca.client()))
            .map(drop)
            .map_err(|error| error.to_string())
    });
    assert!(SystemTime::now() >= begin - Duration::from_secs(1));
    assert_eq!((authority.orders(), authority.issued()), (1, 1));
}

#[test]
fn an_account_outlives_its_contact_and_is_not_replaced_when_it_is_damaged() {
    let (authority, home) = (Authority::start(), Home::new());
    authority.behave(Behaviour::RefuseOrders { status: 503, kind: "serverInternal", detail: "not today" });
    let relay = home.start(&authority);
    // One that says "not today" is asked again a few times, because that may pass.
    relay.wait_for_event("certificate_order_failed");
    drop(relay);
    let account = home.folder().join("account.pem");
    let text = std::fs::read_to_string(&account).unwrap();
    std::fs::write(&account, text.replace("-----END", "")).unwrap();
    authority.behave(Behaviour::Normal);
    let relay = home.start(&authority);
    let awaited = relay.wait_for_event("certificate_awaited");
    assert!(awaited["asks_in"].as_f64().unwrap() > 90.0, "the pause of the one before it: {awaited}");
    relay.signal("HUP");
    let failed = relay.wait_for_event("certificate_order_failed");
    let cause = failed["cause"].as_str().unwrap();
    assert!(cause.contains("account.pem: holds no account key") && cause.contains("restore it"), "{cause}");
    assert_eq!(failed["failures"], 2, "the count goes on");
    assert_eq!(authority.accounts(), 1);
    std::fs::write(&account, text).unwrap();
    relay.signal("HUP");
    relay.wait_for_event("certificate_issued");
    assert_eq!((authority.accounts(), authority.orders()), (1, 1));
}
