//! The shipped deploy hook of certbot, run as certbot runs it, against a running relay.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use support::relay::Relay;
use support::tls::{Ca, NAME, Secure};

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/certbot/deploy-hook");

/// Runs the hook for a certificate that certbot keeps in `lineage`, with a `systemctl` that is this line of a shell script.
fn run(lineage: &Path, tls: &Path, systemctl: &str, group: &str, only_for: &str) -> Output {
    let bin = tempfile::tempdir().unwrap();
    let program = bin.path().join("systemctl");
    std::fs::write(&program, format!("#!/bin/sh\n{systemctl}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    Command::new(HOOK)
        .env("PATH", path)
        .env("RENEWED_LINEAGE", lineage)
        .env("RELAY_TLS", tls)
        .env("RELAY_GROUP", group)
        .env("RELAY_LINEAGE", only_for)
        .output()
        .unwrap()
}

/// Runs it where the relay's account stays, and `systemctl` does what the real one does.
fn hook(lineage: &Path, tls: &Path, relay: &Relay, only_for: &str) -> Output {
    let group = std::fs::metadata(lineage).unwrap().gid().to_string();
    let systemctl =
        format!("[ \"$*\" = \"try-reload-or-restart pyrycode-relay\" ] && kill -HUP {}", relay.pid());
    run(lineage, tls, &systemctl, &group, only_for)
}

/// The permissions of the directory, the key and the certificate.
fn modes(tls: &Path) -> [u32; 3] {
    [tls.to_owned(), tls.join("privkey.pem"), tls.join("fullchain.pem")]
        .map(|path| std::fs::metadata(path).unwrap().mode() & 0o7777)
}

#[test]
fn a_renewed_certificate_reaches_newcomers() {
    let (ca, directory) = (Ca::new(), tempfile::tempdir().unwrap());
    let (lineage, tls) = (directory.path().join("live/relay.example.com"), directory.path().join("tls"));
    std::fs::create_dir_all(&lineage).unwrap();
    std::fs::create_dir_all(&tls).unwrap();
    let renew = |days: u64| {
        let begin = SystemTime::now() - Duration::from_secs(3600);
        let pem = ca.issue_for(&[NAME], begin, Duration::from_secs(days * 86_400));
        std::fs::write(lineage.join("fullchain.pem"), pem.chain).unwrap();
        std::fs::write(lineage.join("privkey.pem"), pem.key).unwrap();
    };
    renew(1);
    for name in ["fullchain.pem", "privkey.pem"] {
        std::fs::copy(lineage.join(name), tls.join(name)).unwrap();
    }
    std::fs::set_permissions(tls.join("privkey.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    let relay = Relay::with(&format!(
        "[tls]\nmode = \"files\"\ncertificate = \"{0}/fullchain.pem\"\nkey = \"{0}/privkey.pem\"\n",
        tls.display()
    ));
    let shown = || Secure::connect(relay.address, NAME, &Arc::new(ca.client())).unwrap().certificate_ends();
    let before = shown();

    renew(90);
    let output = hook(&lineage, &tls, &relay, "");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    relay.wait_for_event("reloaded");
    assert_eq!(shown() - before, 89 * 86_400);
    assert_eq!(modes(&tls), [0o750, 0o640, 0o644]);
    assert_eq!(std::fs::read_dir(&tls).unwrap().count(), 2);

    // Somebody else's certificate is none of its business.
    renew(30);
    assert!(hook(&lineage, &tls, &relay, "another.example.com").status.success());
    assert!(hook(&lineage, &tls, &relay, "relay.example.com").status.success());
    relay.wait_for_events("reloaded", 2);
    assert_eq!(shown() - before, 29 * 86_400);
    // One that cannot be copied is a failure, which certbot tells.
    std::fs::remove_file(lineage.join("privkey.pem")).unwrap();
    let output = hook(&lineage, &tls, &relay, "");
    assert!(!output.status.success() && !output.stderr.is_empty());
    assert_eq!(relay.events_named("reloaded").len(), 2);
}

#[test]
fn without_an_account_that_stays_the_files_are_for_root_and_the_relay_restarts() {
    let directory = tempfile::tempdir().unwrap();
    if std::fs::metadata(directory.path()).unwrap().uid() != 0 {
        return println!("skipped: only root can give files to root's group");
    }
    let (lineage, tls) = (directory.path().join("live"), directory.path().join("tls"));
    std::fs::create_dir(&lineage).unwrap();
    std::fs::write(lineage.join("fullchain.pem"), "certificate").unwrap();
    std::fs::write(lineage.join("privkey.pem"), "key").unwrap();
    let told = directory.path().join("told");
    let systemctl = format!("echo \"$*\" >>{}; [ \"$1\" != is-failed ]", told.display());
    // A directory from the time of another account is closed.
    std::fs::create_dir(&tls).unwrap();
    for _ in 0..2 {
        let output = run(&lineage, &tls, &systemctl, "no-such-group", "");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(modes(&tls), [0o700, 0o600, 0o644]);
    }
    assert_eq!(std::fs::read_to_string(tls.join("privkey.pem")).unwrap(), "key");
    assert_eq!(std::fs::read_to_string(tls.join("fullchain.pem")).unwrap(), "certificate");
    assert_eq!(std::fs::read_dir(&tls).unwrap().count(), 2);
    let asked = "is-failed --quiet pyrycode-relay\n";
    let said = || std::fs::read_to_string(&told).unwrap();
    assert_eq!(said(), format!("{asked}try-restart pyrycode-relay\n").repeat(2));
    // One that failed is started, whatever it failed for.
    std::fs::remove_file(&told).unwrap();
    let failed = format!("echo \"$*\" >>{}", told.display());
    assert!(run(&lineage, &tls, &failed, "no-such-group", "").status.success());
    assert_eq!(said(), format!("{asked}reset-failed pyrycode-relay\nstart pyrycode-relay\n"));
}
