//! Certificate and key from files: what is served with, what is refused, and how it is exchanged.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::version::{TLS12, TLS13};
use support::programs::said;
use support::relay::{Options, Program, Relay};
use support::secured::Secured;
use support::tls::{Ca, Files, NAME, Secure, replace};
use support::{DEADLINE, eventually};

#[test]
fn every_kind_of_key_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let mut keys: Vec<(String, String)> = [
        ("P-256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("Ed25519", &rcgen::PKCS_ED25519),
    ]
    .map(|(name, algorithm)| (name.to_owned(), KeyPair::generate_for(algorithm).unwrap().serialize_pem()))
    .into();
    // RSA is not made here, and the older forms are not written here.
    let sec1 = said("openssl", &["ec"], &keys[0].1);
    let rsa = said("openssl", &["genrsa", "2048"], "");
    let pkcs1 = said("openssl", &["genrsa", "-traditional", "2048"], "");
    for (name, label, made) in
        [("SEC1", "EC PRIVATE", sec1), ("RSA", "BEGIN PRIVATE", rsa), ("PKCS#1", "RSA PRIVATE", pkcs1)]
    {
        let Some(made) = made else { continue };
        assert!(made.contains(label), "{name}: {made}");
        keys.push((name.to_owned(), made));
    }
    for (name, key) in keys {
        let pair = KeyPair::from_pem(&pkcs8(&key)).unwrap();
        let mut pem = ca.issue_with(&[NAME], &pair, |_| ());
        pem.key = key;
        let relay = Relay::with(&pem.write(directory.path()).section());
        for version in [&TLS12, &TLS13] {
            let client = Arc::new(ca.client_of(&[version]));
            let secure = Secure::connect(relay.address, NAME, &client).unwrap();
            assert_eq!(secure.health("any.host.without.domains"), "200", "{name}");
        }
    }
}

/// The key as PKCS#8, which the maker of certificates wants.
fn pkcs8(key: &str) -> String {
    if key.contains("BEGIN PRIVATE KEY") {
        return key.to_owned();
    }
    said("openssl", &["pkcs8", "-topk8", "-nocrypt"], key).unwrap()
}

#[test]
fn a_certificate_that_clients_would_refuse_is_refused_at_the_start_and_by_check() {
    let (ca, directory) = (Ca::new(), tempfile::tempdir().unwrap());
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(86_400);
    let good = ca.issue(&[NAME]);
    let refused = |change: &dyn Fn(&Files), expected: &[&str]| {
        let files = good.write(directory.path());
        change(&files);
        let section = format!("{}domains = [\"{NAME}\"]\n", files.section());
        let config = format!("[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n{section}");
        let program = Program::new(&config);
        let started = program.command().output().unwrap();
        let mut check = Command::new(program.command().get_program());
        let checked = check.arg("check").arg("--config").arg(program.config_path()).output().unwrap();
        let said = String::from_utf8(started.stderr).unwrap();
        assert_eq!((started.status.code(), checked.status.code()), (Some(78), Some(78)), "{said}");
        let checked = String::from_utf8(checked.stderr).unwrap();
        assert!(
            said.ends_with(&checked)
                && checked.ends_with(&format!("in {}\n", program.config_path().display()))
        );
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    let write = |pem: support::tls::Pem| move |files: &Files| drop(pem.write(files.key.parent().unwrap()));
    refused(
        &write(ca.issue_for(&[NAME], now - day * 9, day * 8)),
        &[":6: tls.certificate: ", "cert.pem: expired on 20"],
    );
    refused(
        &write(ca.issue_for(&[NAME], now + day, day)),
        &["is not valid before", "is the clock of this host right?"],
    );
    refused(
        &write(ca.issue(&["other.example"])),
        &["is not for relay.example.com", "it is for other.example"],
    );
    refused(
        &|files| replace(&files.key, &ca.issue(&[NAME]).key, 0o600),
        &[":7: tls.key: ", "key.pem: does not belong to the first certificate of tls.certificate"],
    );
    refused(&|files| replace(&files.key, &good.key, 0o644), &["(mode 0644); it must be 0600", "chmod 0600 "]);
    refused(
        &|files| {
            std::fs::remove_file(&files.key).unwrap();
            replace(&files.certificate, &good.key, 0o644);
        },
        &["tls.key: ", "cannot be read: No such file"],
    );
    refused(
        &|files| replace(&files.certificate, &good.key, 0o644),
        &["holds no certificate", "it holds PRIVATE KEY"],
    );
    refused(
        &|files| replace(&files.certificate, &format!("{}{}", good.chain, Ca::new().root()), 0o644),
        &[":6: tls.certificate: ", "cert.pem: is no chain: ", " stands behind it"],
    );
    let key = KeyPair::generate().unwrap();
    refused(
        &write(ca.issue_with(&[NAME], &key, |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        })),
        &["is the certificate of an authority", "-addext basicConstraints=critical,CA:FALSE"],
    );
    refused(
        &|files| replace(&files.certificate, &format!("\u{feff}{}", good.chain), 0o644),
        &[":6: tls.certificate: ", "cert.pem: begins with a byte order mark"],
    );

    // And one that they would not refuse.
    let files = good.write(directory.path());
    let program = Program::new(&files.section());
    let mut check = Command::new(program.command().get_program());
    let checked = check.arg("check").arg("--config").arg(program.config_path()).output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.contains("\ncertificate ok: for relay.example.com, until "), "{said}");
    // What only the service can see, check does not judge; the service does.
    let config = "[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n\
                  [tls]\nmode = \"files\"\ncertificate = \"credential:cert.pem\"\nkey = \"credential:key.pem\"\n";
    let program = Program::new(config);
    let mut check = Command::new(program.command().get_program());
    let checked = check.arg("check").arg("--config").arg(program.config_path()).output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.status.success() && said.contains("credentials, which only the service can see"),
        "{said}"
    );
    // So it is where systemd names a directory that it has hidden, as for ExecReload=.
    let hidden = check.env("CREDENTIALS_DIRECTORY", directory.path().join("hidden")).output().unwrap();
    assert!(hidden.status.success() && String::from_utf8(hidden.stdout).unwrap() == said);
    let started = program.command().output().unwrap();
    assert_eq!(started.status.code(), Some(78));
    let relay = Relay::with_options(support::relay::Options {
        config: config.replace("[listen]\npublic = \"127.0.0.1:0\"\nmetrics = \"off\"\n", ""),
        environment: vec![("CREDENTIALS_DIRECTORY".to_owned(), directory.path().display().to_string())],
        ..Default::default()
    });
    assert_eq!(Secure::connect(relay.address, NAME, &Arc::new(ca.client())).unwrap().health(NAME), "200");
}

/// What `check` says of a configuration that consists of this section: its exit status, and both streams.
fn checked(section: &str) -> (Option<i32>, String) {
    let program = Program::new(&format!("[listen]\nmetrics = \"off\"\n{section}"));
    // A pipe without a writer must not be waited for.
    let output = Command::new("timeout")
        .arg("20")
        .arg(program.command().get_program())
        .arg("check")
        .arg("--config")
        .arg(program.config_path())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), said.concat())
}

#[test]
fn check_looks_at_what_is_no_credential() {
    let (ca, directory) = (Ca::new(), tempfile::tempdir().unwrap());
    let files = ca.issue(&[NAME]).write(directory.path());
    let section = files.section();
    let without_key = section.replace(&files.key.display().to_string(), "credential:k");
    let without_certificate = section.replace(&files.certificate.display().to_string(), "credential:c");
    let (status, said) = checked(&without_key);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("\ncertificate ok: for relay.example.com, until "), "{said}");
    assert!(
        said.contains("\nthe key is a credential, which only the service can see: not looked at"),
        "{said}"
    );
    let (status, said) = checked(&without_certificate);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("\nkey ok\nthe certificate is a credential, which only"), "{said}");

    replace(&files.certificate, "nothing", 0o644);
    let (status, said) = checked(&without_key);
    assert!(
        status == Some(78) && said.contains("tls.certificate: ") && said.contains("no certificate"),
        "{said}"
    );
    replace(&files.key, "nothing", 0o600);
    let (status, said) = checked(&without_certificate);
    assert!(status == Some(78) && said.contains("tls.key: ") && said.contains("no private key"), "{said}");
}

#[test]
fn check_reads_whom_the_authority_is_trusted_by() {
    let (ca, directory) = (Ca::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("root.pem");
    let section = format!(
        "[tls]\nmode = \"acme\"\ndomains = [\"{NAME}\"]\ndirectory_ca = \"{}\"\nstate = \"{}\"\n",
        file.display(),
        directory.path().join("state").display()
    );
    let refused = |expected: &str| {
        let (status, said) = checked(&section);
        assert_eq!(status, Some(78), "{said}");
        assert!(said.contains(":6: tls.directory_ca: ") && said.contains(expected), "{said}");
    };
    refused("cannot be read (No such file");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused("is not a regular file");
    std::fs::remove_file(&file).unwrap();
    replace(&file, "nothing", 0o644);
    refused("holds no certificate");
    replace(&file, &ca.root(), 0o644);
    let (status, said) = checked(&section);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let secured = Secured::with_options(
        Options {
            environment: vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())],
            ..Options::default()
        },
        "",
    );
    let mut told = Vec::new();
    let wait_for = |what: &str, told: &mut Vec<String>| {
        eventually(what, || {
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).unwrap();
            told.push(String::from_utf8_lossy(&message[..length]).into_owned());
            if told.last().unwrap().contains(what) { Ok(()) } else { Err(format!("{told:?}")) }
        });
    };
    wait_for("READY=1", &mut told);
    let good = secured.shown();
    let now = SystemTime::now();
    let (day, other) = (Duration::from_secs(86_400), secured.ca.issue(&[NAME]));
    let expired = secured.ca.issue_for(&[NAME], now - day * 2, day);
    let files = &secured.files;
    let changes: [(&dyn Fn(), &str); 5] = [
        (&|| replace(&files.key, &other.key, 0o600), "tls.key: "),
        (&|| replace(&files.key, &other.key, 0o604), "(mode 0604); it must be 0600"),
        (&|| secured.write(&expired), "expired on "),
        (&|| replace(&files.certificate, "nothing", 0o644), "holds no certificate"),
        (&|| std::fs::remove_file(&files.key).unwrap(), "cannot be read: No such file"),
    ];
    let mut live = secured.binary("live");
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        change();
        secured.reload("failed", (number + 1) as f64);
        let lines = secured.relay.wait_for_events("reload_failed", number + 1);
        assert_eq!(lines.len(), number + 1);
        let cause = lines[number]["cause"].as_str().unwrap();
        assert!(cause.contains(expected) && cause.contains("see: pyrycode-relay check --config"), "{cause}");
        told.clear();
        wait_for("RELOADING=1", &mut told);
        assert!(told.last().unwrap().contains("MONOTONIC_USEC="), "{told:?}");
        wait_for("READY=1", &mut told);
        let status =
            told.iter().rfind(|line| line.starts_with("STATUS=")).expect("a status before it is done");
        assert!(status.contains("; reload refused: ") && status.contains(expected), "{status}");
        assert_eq!(secured.shown(), good);
        assert!(live.served().is_empty());
    }
    secured.write(&other);
    secured.reload("ok", 1.0);
    told.clear();
    wait_for("RELOADING=1", &mut told);
    wait_for("READY=1", &mut told);
    let status = told.iter().rfind(|line| line.starts_with("STATUS=")).expect("a status before it is done");
    assert!(!status.contains("refused"), "{status}");
    assert!(live.served().is_empty());
    assert_eq!(secured.metrics().get("reloads_total{outcome=\"failed\"}"), 5.0);
}

#[test]
fn domains_and_paths_are_taken_up_and_the_mode_is_not() {
    let secured = Secured::start();
    let config = std::fs::read_to_string(secured.relay.config_path()).unwrap();
    let moved = tempfile::tempdir().unwrap();
    let files = secured.ca.issue(&["b.example.com"]).write(moved.path());
    let new = config
        .replace(&secured.files.section(), &format!("{}domains = [\"b.example.com\"]\n", files.section()));
    std::fs::write(secured.relay.config_path(), new).unwrap();
    secured.reload("ok", 1.0);
    let secure = Secure::connect(secured.relay.address, "b.example.com", &secured.client()).unwrap();
    assert_eq!(secure.health(NAME), "421");
    assert!(Secure::connect(secured.relay.address, NAME, &secured.client()).is_err());
    assert!(secured.relay.wait_for_event("reloaded")["needs_restart"].is_null());

    std::fs::write(secured.relay.config_path(), config.replace(&secured.files.section(), "")).unwrap();
    secured.reload("ok", 2.0);
    let line = &secured.relay.wait_for_events("reloaded", 2)[1];
    assert_eq!(line["needs_restart"], "tls.mode, tls.certificate, tls.key, tls.domains");
    assert!(Secure::connect(secured.relay.address, "b.example.com", &secured.client()).is_ok());
}
