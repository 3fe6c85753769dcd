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

/// Runs the hook for a certificate that certbot keeps in `lineage`, with a `systemctl` that does what the real one does.
fn hook(lineage: &Path, tls: &Path, relay: &Relay, only_for: &str) -> Output {
    let bin = tempfile::tempdir().unwrap();
    let systemctl = bin.path().join("systemctl");
    let script = format!("#!/bin/sh\n[ \"$*\" = \"reload pyrycode-relay\" ] && kill -HUP {}\n", relay.pid());
    std::fs::write(&systemctl, script).unwrap();
    std::fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let group = std::fs::metadata(bin.path()).unwrap().gid().to_string();
    Command::new(HOOK)
        .env("PATH", path)
        .env("RENEWED_LINEAGE", lineage)
        .env("RELAY_TLS", tls)
        .env("RELAY_GROUP", group)
        .env("RELAY_LINEAGE", only_for)
        .output()
        .unwrap()
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
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(
        [&tls, &tls.join("privkey.pem"), &tls.join("fullchain.pem")].map(|path| mode(path)),
        [0o750, 0o640, 0o644]
    );
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
