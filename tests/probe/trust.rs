//! Whom the probe trusts: the system's store, or the file of `--ca` and nothing else.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::certificates::{Authority, file, leaf, pem_file, self_signed};
use crate::forwarder::{Forwarder, config};
use crate::secure::{address, assert_refused, assert_untrusted, probe, text};
use crate::{program, relay, stderr, stdout};

/// The program, on a system whose store is this file.
fn program_on_system(store: &Path, url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrycode-relay"));
    command.env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", store);
    command.args(["probe", url, "--count", "5"]).output().unwrap()
}

#[test]
fn the_system_s_store_is_what_is_trusted_without_an_option() {
    let (url, script) = relay(None);
    let authority = Authority::new("Test CA");
    let server = Forwarder::new(address(&url), config(authority.issue(leaf())));
    let output = program_on_system(authority.file().path(), &server.url());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("ok   tls              TLSv1.3"), "{}", stdout(&output));
    script.join().unwrap().unwrap();

    let output = program_on_system(Authority::new("Another CA").file().path(), &server.url());
    assert_untrusted(
        &output,
        &[
            "its certificate was issued by \"Test CA\", which is not in the system's store",
            "If it is an authority of your own, name the file of its certificate with --ca",
        ],
    );
}

#[test]
fn an_empty_store_of_the_system_is_said_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    for (store, word) in
        [(file(b"").path(), "or an empty one"), (Path::new("/no/such/store"), "/no/such/store")]
    {
        let output = program_on_system(store, &url);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), "FAIL tls\nverdict: failed\n"));
        let said = stderr(&output);
        assert!(
            said.contains("tls: this system has no store of certificates") && said.contains(word),
            "{said}"
        );
        assert!(said.contains("install the package ca-certificates, or name a file"), "{said}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_self_signed_certificate_is_called_that_and_can_be_trusted() {
    let identity = self_signed(leaf());
    let own = pem_file(&identity.chain[0]);
    let other = Authority::new("Test CA").file();
    let (url, script) = relay(None);
    let server = Forwarder::new(address(&url), config(identity));
    let output = program(&[&server.url(), "--ca", text(&other)]);
    assert_untrusted(&output, &["its certificate is self-signed, and it is not the one in \""]);
    let output = program_on_system(other.path(), &server.url());
    assert_untrusted(
        &output,
        &["its certificate is self-signed, so nothing in the system's store", "with --ca"],
    );
    assert_eq!(probe(&server.url(), own.path()).0.failure, None);
    script.join().unwrap().unwrap();
}

#[test]
fn the_relay_s_own_certificate_is_not_its_issuer_s() {
    let identity = Authority::new("Test CA").issue(leaf());
    let own = pem_file(&identity.chain[0]);
    assert_refused(
        identity,
        &own,
        &["(--ca) holds the relay's own certificate; it must hold that of its issuer, \"Test CA\""],
    );
}

#[test]
fn a_file_that_cannot_say_whom_to_trust_is_a_usage_error() {
    let authority = Authority::new("Test CA");
    let directory = tempfile::tempdir().unwrap();
    let key = file(authority.key().serialize_pem().as_bytes());
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (empty, der) = (file(b""), file(authority.der()));
    for (path, expected) in [
        (Path::new("/no/such/file.pem"), "\"/no/such/file.pem\" cannot be read (No such file or directory"),
        (directory.path(), "is not a regular file; it must be a PEM file"),
        // Nobody writes into it, so reading it would take for ever.
        (&fifo, "is not a regular file; it must be a PEM file"),
        (empty.path(), "holds no certificate; it must be a PEM file"),
        (key.path(), "holds a private key and no certificate"),
        (der.path(), "is not in PEM but in binary (DER)"),
    ] {
        let output = program(&["wss://127.0.0.1:1", "--ca", path.to_str().unwrap(), "--json"]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(64), ""), "{path:?}");
        let said = stderr(&output);
        assert!(said.contains(expected), "{expected:?} is not in: {said}");
        assert!(said.contains(&format!("--ca: {:?}", path.to_str().unwrap())), "{said}");
        assert!(
            said.contains("one or several certificates, each between -----BEGIN CERTIFICATE-----"),
            "{said}"
        );
    }
}

#[test]
fn certificates_for_an_address_without_tls_are_a_usage_error() {
    let output = program(&["ws://127.0.0.1:1", "--ca", "/no/such/file.pem"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(64), ""));
    let said = stderr(&output);
    assert!(said.contains("there is no TLS to a ws:// address; leave --ca out"), "{said}");
    assert!(!said.contains("cannot be read"), "{said}");
}
