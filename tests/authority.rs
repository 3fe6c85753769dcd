//! The test authority itself: that a right client gets what it asks for, and that a wrong one does not.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed helper fails the test")]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/authority_client.rs"]
mod authority_client;
mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls_acme::acme::{Account, AcmeError, AuthStatus, Directory, OrderStatus};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use authority::{Authority, Behaviour};
use authority_client::{
    Client, Responder, chain, client_config, csr, is_for, post, refusal, self_signed, send, sign,
    signed_by_another, trusted, within, world,
};
use support::eventually;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn two_names_are_proved_and_certified() {
    let (authority, responder, client) = world();
    let names = ["one.relay.example", "two.relay.example"];
    let (chain, key) = client.certified(&names, &responder);
    assert_eq!(chain.len(), 2, "the certificate and the intermediate");
    for name in names {
        assert!(trusted(&chain, &authority.issuing_root_pem(), name), "{name}");
        assert!(!trusted(&chain, &authority.web_root_pem(), name), "the other root did not issue it");
        assert!(!trusted(&chain[..1], &authority.issuing_root_pem(), name), "not by the root itself");
    }
    assert!(!trusted(&chain, &authority.issuing_root_pem(), "three.relay.example"));
    assert!(is_for(&chain[0], &key) && !is_for(&chain[1], &key));

    let asked = names.map(|name| (Some(name.to_owned()), vec![b"acme-tls/1".to_vec()]));
    assert_eq!(responder.hellos(), asked, "each name, and no other protocol");
    assert_eq!((authority.accounts(), authority.orders(), authority.issued()), (1, 1, 1));
    assert_eq!(authority.validations(), 2);
    assert_eq!(authority.contacts(), ["mailto:keeper@relay.example"]);
    let seen = authority.requests();
    assert!(seen.iter().all(|one| one.status.is_some_and(|status| status < 300)), "{seen:?}");
    let first: Vec<_> = seen[..3].iter().map(|one| (&*one.method, &*one.path, one.status.unwrap())).collect();
    let expected = [("GET", "/directory", 200), ("HEAD", "/new-nonce", 200), ("POST", "/new-account", 201)];
    assert_eq!(first, expected);
    assert_eq!(authority.connections(), seen.len(), "one request on each connection");
}

#[test]
fn certificates_live_as_long_as_they_are_told_to() {
    let (authority, responder, client) = world();
    let validity = |der: &[u8]| {
        let validity = X509Certificate::from_der(der).unwrap().1.validity().clone();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    };
    let now = || time::OffsetDateTime::now_utc().unix_timestamp();
    let before = now();
    let (first, _) = client.certified(&["relay.example"], &responder);
    let (from, until) = validity(&first[0]);
    assert!((before..=now()).contains(&from), "{from} is not now");
    assert_eq!(until - from, 90 * 24 * 60 * 60);

    authority.issue_for(3 * DAY);
    authority.backdate(2 * DAY);
    let two_days = 2 * 24 * 60 * 60;
    let before = now() - two_days;
    let (second, _) = client.certified(&["relay.example"], &responder);
    let (from, until) = validity(&second[0]);
    assert!((before..=now() - two_days).contains(&from), "{from} is not two days ago");
    assert_eq!(until - from, 3 * 24 * 60 * 60);
    assert!(trusted(&second, &authority.issuing_root_pem(), "relay.example"));

    authority.issue_for(DAY);
    let (expired, _) = client.certified(&["relay.example"], &responder);
    assert!(!trusted(&expired, &authority.issuing_root_pem(), "relay.example"));
    assert_eq!(authority.issued(), 3);
}

#[test]
fn what_proves_nothing_is_not_valid() {
    let (authority, responder, client) = world();
    let wrong = || CustomExtension::new_acme_identifier(&[7; 32]);
    let mut uncritical = wrong();
    uncritical.set_criticality(false);
    let (other, two) = ("other.example", ["relay.example", "other.example"]);
    for (names, extensions, said) in [
        (&["relay.example"][..], vec![wrong()], "acmeIdentifier is not this challenge's"),
        (&["relay.example"], vec![uncritical], "acmeIdentifier is not critical"),
        (&["relay.example"], vec![], "acmeIdentifier: Ok(None)"),
        (&[other], vec![wrong()], "not for relay.example alone"),
        (&two, vec![wrong()], "not for relay.example alone"),
        (&["127.0.0.1"], vec![wrong()], "not for relay.example alone"),
        (&[], vec![wrong()], "the certificate's names: Ok(None)"),
    ] {
        let (kind, detail) = client.failure(&responder, Some(self_signed(names, extensions)));
        assert_eq!(kind, "unauthorized", "{names:?}: {detail}");
        assert!(detail.contains(said), "{names:?}: {detail}");
    }
    let (kind, detail) = client.failure(&responder, Some(signed_by_another("relay.example")));
    assert_eq!((&*kind, &*detail), ("unauthorized", "the certificate is not signed by itself"));
    assert_eq!(authority.validations(), 8);
    assert_eq!(responder.hellos().len(), 8, "each was looked at");
}

#[test]
fn a_server_that_cannot_be_asked_proves_nothing() {
    let (authority, silent, client) = world();
    let some = || Some(self_signed(&["relay.example"], Vec::new()));
    assert_eq!(client.failure(&silent, None).0, "tls", "nothing is presented for the name");
    let web = Responder::speaking(&[b"http/1.1"]);
    authority.validate_at(web.address);
    assert_eq!(client.failure(&web, some()).0, "tls", "it speaks another protocol only");
    let careless = Responder::speaking(&[]);
    authority.validate_at(careless.address);
    let (kind, detail) = client.failure(&careless, some());
    assert_eq!(kind, "unauthorized", "{detail}");
    assert!(detail.contains("does not choose acme-tls/1"), "{detail}");

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    authority.validate_at(nobody.local_addr().unwrap());
    let hung_up = std::thread::spawn(move || drop(nobody.accept().unwrap()));
    assert_eq!(client.failure(&silent, None).0, "connection", "it hangs up");
    hung_up.join().unwrap();
    assert_eq!(client.failure(&silent, None).0, "connection", "nobody is there");
    assert_eq!(authority.validations(), 5);
    assert_eq!([&silent, &web, &careless].map(|one| one.hellos().len()), [1, 1, 1]);
}

#[test]
fn a_validation_waits_for_the_address() {
    let (authority, responder) = (Authority::start(), Responder::start());
    let client = Client::new(&authority);
    let (_, order) = client.new_order(&["relay.example"]).unwrap();
    let [url] = &order.authorizations[..] else { panic!("one name, {order:?}") };
    client.prove(url, &responder);
    client.prove(url, &responder);
    assert_eq!(authority.validations(), 1, "one that is under way is not begun again");
    assert!(matches!(client.auth(url).status, AuthStatus::Pending));
    assert_eq!(responder.hellos().len(), 0);
    authority.validate_at(responder.address);
    assert!(matches!(client.decided(url).status, AuthStatus::Valid));
    assert_eq!(responder.hellos().len(), 1);
}

#[test]
fn it_refuses_as_it_is_told_to() {
    let (authority, responder, client) = world();
    let (status, kind, detail) = (429, "rateLimited", "too many of them");
    authority.behave(Behaviour::RefuseOrders { status, kind, detail });
    let error = client.new_order(&["relay.example"]).unwrap_err().to_string();
    for part in ["429", "urn:ietf:params:acme:error:rateLimited", detail] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(authority.orders(), 0);
    authority.behave(Behaviour::RefuseAccounts { status: 403, kind: "unauthorized", detail });
    let error = Client::with_key(&authority, &Account::generate_key_pair()).err().unwrap().to_string();
    assert!(error.contains("403") && error.contains("error:unauthorized"), "{error}");
    assert_eq!(authority.accounts(), 1);

    authority.behave(Behaviour::FailValidation);
    let (url, order) = client.new_order(&["relay.example"]).unwrap();
    client.prove(&order.authorizations[0], &responder);
    assert!(matches!(client.decided(&order.authorizations[0]).status, AuthStatus::Invalid));
    let order = client.order(&url);
    assert_eq!(order.status, OrderStatus::Invalid);
    assert_eq!(order.error.and_then(|error| error.detail).as_deref(), Some("told to fail"));
    assert_eq!((authority.validations(), responder.hellos().len()), (1, 0), "nobody looked");

    authority.behave(Behaviour::BadNonces(2));
    for _ in 0..2 {
        let error = client.new_order(&["relay.example"]).unwrap_err().to_string();
        assert!(error.contains("400") && error.contains("error:badNonce"), "{error}");
    }
    client.new_order(&["relay.example"]).expect("the third is good");
    assert_eq!(authority.orders(), 2);
}

#[test]
fn it_does_not_answer_as_it_is_told_to() {
    let (authority, _responder, client) = world();
    authority.behave(Behaviour::HangUp);
    let (connections, requests) = (authority.connections(), authority.requests().len());
    client.new_order(&["relay.example"]).expect_err("it hangs up");
    assert_eq!((authority.connections(), authority.requests().len()), (connections + 1, requests));

    authority.behave(Behaviour::Stall);
    let (config, directory) = (client.config.clone(), authority.directory());
    let asking = smol::spawn(async move { Directory::discover(&config, directory).await.map(drop) });
    eventually("the request is read", || {
        let last = authority.requests().pop().unwrap();
        if last.status.is_none() { Ok(()) } else { Err(format!("{last:?}")) }
    });
    assert!(!asking.is_finished(), "it is not answered");
    authority.stop();
    assert!(within(asking).is_err(), "and never was");

    authority.start_again();
    authority.behave(Behaviour::Garbage);
    let error = within(Directory::discover(&client.config, authority.directory())).unwrap_err();
    assert!(matches!(error, AcmeError::Json(_)), "{error}");
    let error = client.new_order(&["relay.example"]).unwrap_err();
    assert!(matches!(error, AcmeError::MissingHeader("Location")), "{error}");
    assert!(authority.requests().iter().rev().take(2).all(|one| one.status == Some(200)));
    assert_eq!(authority.orders(), 0);
}

#[test]
fn it_certifies_as_it_is_told_to() {
    let (authority, responder, client) = world();
    let root = authority.issuing_root_pem();
    authority.behave(Behaviour::WrongKey);
    let (issued, key) = client.certified(&["relay.example"], &responder);
    assert!(trusted(&issued, &root, "relay.example") && !is_for(&issued[0], &key));
    authority.behave(Behaviour::WrongName);
    let (issued, key) = client.certified(&["relay.example"], &responder);
    assert!(!trusted(&issued, &root, "relay.example") && is_for(&issued[0], &key));
    assert!(trusted(&issued, &root, "another.invalid"));

    authority.behave(Behaviour::Processing(2));
    let (url, order) = client.ready_order(&["relay.example"], &responder);
    let key = KeyPair::generate().unwrap();
    let status = client.finalize(&order, &csr(&["relay.example"], &key)).unwrap().status;
    assert_eq!(status, OrderStatus::Processing);
    for _ in 0..2 {
        assert_eq!(client.order(&url).status, OrderStatus::Processing);
    }
    let OrderStatus::Valid { certificate } = client.order(&url).status else { panic!("not valid") };
    let download = || within(client.account.certificate(&client.config, &certificate)).unwrap();
    assert!(is_for(&chain(&download())[0], &key));
    authority.behave(Behaviour::Garbage);
    assert_eq!(chain(&download()), [], "what is downloaded is no certificate");
}

#[test]
fn it_comes_back_on_the_same_port_and_knows_its_accounts() {
    let (authority, responder, client) = world();
    let (url, order) = client.new_order(&["relay.example"]).unwrap();
    let seen = authority.requests().len();
    authority.stop();
    let address = authority.address();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let taker = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let taken = taker.bind(&address.into()).expect_err("the port is kept");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    client.new_order(&["relay.example"]).expect_err("nobody listens");
    assert_eq!(authority.requests().len(), seen);

    authority.start_again();
    assert_eq!(client.order(&url).status, OrderStatus::Pending);
    client.prove(&order.authorizations[0], &responder);
    assert!(matches!(client.decided(&order.authorizations[0]).status, AuthStatus::Valid));
    assert_eq!((authority.accounts(), authority.orders()), (1, 1));

    // One that waits for an address does not hold up the end.
    let (waits, began) = (Authority::start(), Instant::now());
    let client = Client::new(&waits);
    let (_, order) = client.new_order(&["relay.example"]).unwrap();
    client.prove(&order.authorizations[0], &responder);
    assert_eq!(waits.validations(), 1);
    drop((waits, authority));
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for the address");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_account_is_its_key() {
    let authority = Authority::start();
    let key = Account::generate_key_pair();
    let first = Client::with_key(&authority, &key).unwrap();
    let again = Client::with_key(&authority, &key).unwrap();
    let other = Client::new(&authority);
    assert_eq!(first.account.kid, again.account.kid);
    assert_ne!(first.account.kid, other.account.kid);
    assert_eq!((authority.accounts(), authority.contacts().len()), (2, 2));
    let seen = authority.requests();
    let statuses = seen.iter().filter(|one| one.path == "/new-account").map(|one| one.status.unwrap());
    assert_eq!(statuses.collect::<Vec<_>>(), [201, 200, 201]);

    let (url, order) = first.new_order(&["relay.example"]).unwrap();
    for url in [&url, &order.authorizations[0]] {
        let error = within(other.account.order(&other.config, url)).unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("another account's"), "{error}");
    }
    assert_eq!(again.order(&url).status, OrderStatus::Pending);
}

#[test]
fn a_nonce_is_good_once() {
    let (authority, _responder, client) = world();
    let url = &client.account.directory.new_order;
    let payload = json!({ "identifiers": [{ "type": "dns", "value": "relay.example" }] }).to_string();
    let mut header = client.header(url);
    let key = &client.account.key_pair;
    let signed = sign(key, &header, &payload);
    assert_eq!(post(&client.config, url, &signed).status, 201);
    let again = post(&client.config, url, &signed);
    let bad = "400 badNonce: the nonce was used before, or never issued";
    assert_eq!(refusal(&again), bad);
    assert_eq!(authority.orders(), 1);
    header["nonce"] = again.header("replay-nonce").expect("a fresh one").into();
    assert_eq!(post(&client.config, url, &sign(key, &header, &payload)).status, 201);
    header["nonce"] = BASE64URL_NOPAD.encode(&[5; 24]).into();
    assert_eq!(refusal(&post(&client.config, url, &sign(key, &header, &payload))), bad, "invented");
    assert_eq!(authority.orders(), 2);
}

#[test]
fn what_is_not_signed_as_it_must_be_is_refused() {
    let (authority, _responder, client) = world();
    let (config, key) = (&client.config, &client.account.key_pair);
    let url = client.account.directory.new_order.as_str();
    let stranger = Client::new(&authority).account.key_pair;
    let payload = json!({ "identifiers": [{ "type": "dns", "value": "relay.example" }] }).to_string();
    let refused = |signed: &Value| refusal(&post(config, url, signed));
    let good = || sign(key, &client.header(url), &payload);
    let spoilt = |member: &str, text: &str| {
        let mut signed = good();
        signed[member] = text.into();
        signed
    };
    let wrong = "400 malformed: the signature is wrong";
    let first = good();
    let mut signature = BASE64URL_NOPAD.decode(first["signature"].as_str().unwrap().as_bytes()).unwrap();
    signature[63] ^= 1;
    let mut tampered = first.clone();
    tampered["signature"] = BASE64URL_NOPAD.encode(&signature).into();
    assert_eq!(refused(&tampered), wrong);
    assert_eq!(post(config, url, &first).status, 201, "it was good before, and its nonce still is");
    assert_eq!(refused(&spoilt("payload", &BASE64URL_NOPAD.encode(b"{}"))), wrong, "for another payload");
    assert_eq!(refused(&sign(&stranger, &client.header(url), &payload)), wrong, "another's");
    let unprotected = refused(&spoilt("header", "{}"));
    assert!(unprotected.starts_with("400 malformed: the body: unknown field `header`"), "{unprotected}");

    let with = |member: &str, value: Value| {
        let mut header = client.header(url);
        header[member] = value;
        refused(&sign(key, &header, &payload))
    };
    let elsewhere = &client.account.directory.new_account;
    let (kid, stray) = (format!("{}7", client.account.kid), format!("signed for {elsewhere}, sent to {url}"));
    assert_eq!(with("alg", "none".into()), "400 badSignatureAlgorithm: signed by none, not by ES256");
    assert_eq!(with("url", elsewhere.clone().into()), format!("403 unauthorized: {stray}"));
    assert_eq!(
        with("kid", kid.clone().into()),
        format!("400 accountDoesNotExist: there is no account {kid}")
    );
    assert_eq!(with("jwk", json!({})), "400 malformed: neither or both of jwk and kid");

    let text = good().to_string();
    let send = |headers: &[&str]| refusal(&send(config, "POST", url, headers, &text));
    let untyped = send(&["User-Agent: by hand", "Content-Type: application/json"]);
    assert_eq!(untyped, "415 malformed: the content is not application/jose+json");
    let nameless = send(&["Content-Type: application/jose+json"]);
    assert_eq!(nameless, "400 malformed: there is no User-Agent");
    let order = format!("{}/order/0", url.strip_suffix("/new-order").unwrap());
    let read = refusal(&post(config, &order, &sign(key, &client.header(&order), "{}")));
    assert_eq!(read, "400 malformed: what is only read is asked for with no payload");
    assert_eq!((authority.orders(), authority.accounts()), (1, 2), "none of it was done");
}

#[test]
fn only_what_was_ordered_is_certified() {
    let (authority, responder, _) = world();
    let account = Account::generate_key_pair();
    let client = Client::with_key(&authority, &account).unwrap();
    let names = ["one.relay.example", "two.relay.example"];
    let key = KeyPair::generate().unwrap();
    let refused = |order, csr: &[u8]| client.finalize(order, csr).unwrap_err().to_string();
    let (_, pending) = client.new_order(&names).unwrap();
    assert!(refused(&pending, &csr(&names, &key)).contains("error:orderNotReady"));

    let (_, order) = client.ready_order(&names, &responder);
    let mut unsigned = csr(&names, &key);
    *unsigned.last_mut().unwrap() ^= 1;
    let default_name = CertificateParams::new(names.map(str::to_owned)).unwrap();
    let default_name = default_name.serialize_request(&key).unwrap().der().to_vec();
    let more = csr(&[names[0], names[1], "three.relay.example"], &key);
    for (what, csr) in [
        ("a name too few", csr(&names[..1], &key)),
        ("a name too many", more),
        ("the account's key", csr(&names, &KeyPair::try_from(&account[..]).unwrap())),
        ("an address", csr(&[names[0], names[1], "127.0.0.1"], &key)),
        ("a common name that was not ordered", default_name),
        ("a spoilt signature", unsigned),
        ("no request", b"certify me".to_vec()),
    ] {
        let error = refused(&order, &csr);
        assert!(error.contains("400") && error.contains("error:badCSR"), "{what}: {error}");
    }
    assert_eq!(authority.issued(), 0);
    let valid = client.finalize(&order, &csr(&[names[1], names[0]], &key)).expect("in any order");
    assert!(matches!(valid.status, OrderStatus::Valid { .. }));
    assert_eq!(authority.issued(), 1);
    assert!(refused(&order, &csr(&names, &key)).contains("error:orderNotReady"), "once");
}

#[test]
fn a_client_that_trusts_another_root_does_not_get_in() {
    let (authority, other) = (Authority::start(), Authority::start());
    let directory = within(Directory::discover(&client_config(&authority), authority.directory()));
    assert!(directory.is_ok());
    let misled: Arc<_> = client_config(&other);
    within(Directory::discover(&misled, authority.directory())).expect_err("not its root");
    assert_eq!((authority.requests().len(), other.connections()), (1, 0));
    assert_ne!(authority.web_root_pem(), authority.issuing_root_pem());
}
