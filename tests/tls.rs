//! TLS handshakes with the relay itself: what other people's programs make of it, and what strangers try.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails the test"
)]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use support::http::{Http, request};
use support::programs::said;
use support::secured::Secured;
use support::tls::{Ca, NAME, Secure, trusting};
use support::{connect_from, eventually};

fn health(host: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[test]
fn both_versions_are_spoken_with_and_without_alpn() {
    let secured = Secured::with("");
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for alpn in [&[][..], &[&b"http/1.1"[..]], &[&b"h2"[..], &b"http/1.1"[..]]] {
            let mut client = secured.ca.client_of(&[version]);
            client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            let secure = Secure::connect(secured.relay.address, NAME, &Arc::new(client)).unwrap();
            assert_eq!(secure.tls().protocol_version(), Some(expected));
            assert_eq!(secure.tls().alpn_protocol(), (!alpn.is_empty()).then_some(&b"http/1.1"[..]));
            assert_eq!(secure.health(NAME), "200");
        }
    }
    let mut client = secured.ca.client();
    // Who wants to prove a name by a challenge has nothing to look for here.
    for (alpn, expected) in
        [("h2", AlertDescription::NoApplicationProtocol), ("acme-tls/1", AlertDescription::AccessDenied)]
    {
        client.alpn_protocols = vec![alpn.into()];
        let refused = Secure::connect(secured.relay.address, NAME, &Arc::new(client.clone())).map(drop);
        assert_eq!(alert(&refused.unwrap_err()), expected);
    }
    secured.wait_for_failures("tls", 2.0);
    assert_eq!(secured.metrics().get("tls_handshakes_total{kind=\"full\"}"), 6.0);
}

fn alert(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert, but {other:?} in {error}"),
    }
}

#[test]
fn who_has_been_here_resumes() {
    let secured = Secured::with("");
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let first = Secure::connect(secured.relay.address, NAME, &client).unwrap();
        assert_eq!(first.tls().handshake_kind(), Some(HandshakeKind::Full));
        // The tickets come behind the handshake.
        assert_eq!(first.health(NAME), "200");
        let second = Secure::connect(secured.relay.address, NAME, &client).unwrap();
        assert_eq!(second.tls().handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(second.health(NAME), "200");
    }
    let metrics = secured.metrics();
    let kinds =
        ["full", "resumed"].map(|kind| metrics.get(&format!("tls_handshakes_total{{kind=\"{kind}\"}}")));
    assert_eq!(kinds, [2.0, 2.0]);
}

#[test]
fn openssl_is_served() {
    let secured = Secured::with("");
    let (address, root) = (secured.relay.address.to_string(), secured.root());
    let ask = |more: &[&str], input: &str| {
        let common = ["s_client", "-connect", &address, "-CAfile", &root, "-verify_return_error", "-ign_eof"];
        said(
            "openssl",
            &[&common[..], &["-servername", NAME, "-verify_hostname", NAME], more].concat(),
            input,
        )
    };
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let Some(said) = ask(&[version, "-alpn", "http/1.1"], &health(NAME)) else { return };
        assert!(
            said.contains(&format!("New, {name}")) && said.contains("Verify return code: 0 (ok)"),
            "{said}"
        );
        assert!(said.contains("ALPN protocol: http/1.1") && said.contains("HTTP/1.1 200 OK"), "{said}");
        // With a goodbye: OpenSSL complains about an end without one.
        assert!(said.contains("closed\n") && !said.contains("unexpected eof"), "{said}");
    }
    for old in [&["-tls1_1"][..], &["-tls1"]] {
        let said = ask(&[old, &["-cipher", "ALL:@SECLEVEL=0"]].concat(), "").unwrap();
        assert!(said.contains("alert") && said.contains("New, (NONE)"), "{said}");
    }
    let weak = ask(&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "").unwrap();
    assert!(weak.contains("handshake failure"), "{weak}");

    // Renegotiation (TLS 1.2): it is told no, and served all the same or hung up on, but never renegotiates.
    let common = ["s_client", "-connect", &address, "-servername", NAME, "-tls1_2"];
    let renegotiated = said("openssl", &common, "R\n").unwrap();
    assert!(renegotiated.contains("RENEGOTIATING"), "{renegotiated}");
    assert!(renegotiated.contains("no renegotiation") || renegotiated.contains(":error:"), "{renegotiated}");
    secured.serves();
}

#[test]
fn pythons_ssl_is_served() {
    let secured = Secured::with("");
    let program = "import socket, ssl, sys\n\
        context = ssl.create_default_context(cafile=sys.argv[2])\n\
        context.set_alpn_protocols(['h2', 'http/1.1'])\n\
        raw = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        tls = context.wrap_socket(raw, server_hostname=sys.argv[3])\n\
        version, alpn = tls.version(), tls.selected_alpn_protocol()\n\
        tls.sendall(sys.argv[4].encode())\n\
        answer = b''\n\
        while piece := tls.recv(4096): answer += piece\n\
        print(version, alpn, answer.split(b'\\r\\n')[0].decode())\n";
    let port = secured.relay.address.port().to_string();
    let ask = |name: &str| said("python3", &["-c", program, &port, &secured.root(), name, &health(NAME)], "");
    let Some(served) = ask(NAME) else { return };
    assert_eq!(served.trim(), "TLSv1.3 http/1.1 HTTP/1.1 200 OK");
    let refused = ask("other.example").unwrap();
    assert!(refused.contains("ACCESS_DENIED"), "{refused}");
    secured.wait_for_failures("tls", 1.0);
}

#[test]
fn another_name_is_shown_no_certificate() {
    let secured = Secured::with("[session]\ngrace = \"1s\"\n");
    for name in ["other.example", "example.com", "a.relay.example.com"] {
        let refused = Secure::connect(secured.relay.address, name, &secured.client()).map(drop).unwrap_err();
        assert_eq!(alert(&refused), AlertDescription::AccessDenied, "{name}");
    }
    secured.wait_for_failures("tls", 3.0);
    for name in [NAME, "b.example.com"] {
        let secure = Secure::connect(secured.relay.address, name, &secured.client()).unwrap();
        assert_eq!(secure.health(name), "200");
    }
    // Who connects to an address asks for no name. The certificate is not for the address, so the client leaves.
    let refused =
        Secure::connect(secured.relay.address, "127.0.0.1", &secured.client()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("certificate not valid for name"), "{refused}");
}

#[test]
fn another_host_is_told_so_before_anything_else() {
    let secured = Secured::with("[limits]\nupgrade_burst = 1\nupgrades_per_minute = 1\n");
    let client = secured.client();
    let ask = |request: &str| {
        let secure = Secure::connect(secured.relay.address, NAME, &client).unwrap();
        secure.ask(request)
    };
    for host in
        ["Host: other.example\r\n", "", "Host: relay.example.com\r\nHost: b.example.com\r\n", "Host:\r\n"]
    {
        for line in ["GET /healthz", "GET /nothing", "POST /v2/server", "GET /v2/client"] {
            let answer = ask(&format!("{line} HTTP/1.1\r\n{host}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{line} {host}: {answer}");
            assert!(answer.contains("connection: close") && answer.contains("tls.domains"), "{answer}");
        }
    }
    assert!(ask("GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 421"));
    for host in ["B.EXAMPLE.com:443", "relay.example.com.", "relay.example.com:1"] {
        assert!(ask(&health(host)).starts_with("HTTP/1.1 200 OK"), "{host}");
    }
    let metrics = secured.metrics();
    for endpoint in ["server", "client"] {
        assert_eq!(metrics.upgrades(endpoint, "reject_bad_request"), 4.0, "{endpoint}");
        assert_eq!(metrics.upgrades(endpoint, "reject_rate_limit"), 0.0);
    }
}

#[test]
fn what_is_no_handshake_is_answered_and_counted() {
    let secured = Secured::with("");
    // A person with a wrong URL.
    let mut http = Http::connect(secured.relay.address);
    let answer = http.ask(&request("GET /healthz HTTP/1.1", &[]));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (400, "this port speaks TLS; the URL begins with https:// or wss://\n")
    );
    assert_eq!(http.hung_up(), "");

    let hello = client_hello(&secured.client());
    let alert_of = |code: u8| vec![21, 3, 3, 0, 2, 2, code];
    for (bytes, end, expected) in [
        // Nothing like TLS: an alert, which is what a TLS client understands.
        (&b"\x00\x01\x02\x03\x04\x05\x06\x07"[..], false, None),
        (b"\x16\x03\x01\xff\xff garbage that claims to be a handshake", false, None),
        // A truncated hello, and the end.
        (&hello[..hello.len() / 2], true, Some(Vec::new())),
        (&hello[..1], true, Some(Vec::new())),
        (&[hello[0], hello[1], hello[2], 0, 0], false, Some(alert_of(50))),
    ] {
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
        stream.write_all(bytes).unwrap();
        if end {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        match expected {
            Some(expected) => assert_eq!(answer, expected, "{bytes:x?}"),
            None => assert!(answer.len() == 7 && answer[0] == 21, "{bytes:x?}: {answer:x?}"),
        }
    }
    secured.wait_for_failures("tls", 6.0);
    // Who leaves without a word did nothing wrong.
    drop(connect_from(Ipv4Addr::LOCALHOST, secured.relay.address));
    secured.serves();
    assert_eq!(
        ["tls", "http", "timeout", "proxy"].map(|stage| secured.failures(stage)),
        [6.0, 0.0, 0.0, 0.0]
    );
}

/// The first bytes of a client.
fn client_hello(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut tls = ClientConnection::new(Arc::clone(client), ServerName::try_from(NAME).unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_client_that_stalls_has_the_one_deadline() {
    let secured = Secured::with("[limits]\nhandshake_timeout = \"1s\"\n");
    let hello = client_hello(&secured.client());
    let began = Instant::now();
    let mut silent = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
    let mut half = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
    half.write_all(&hello[..hello.len() - 1]).unwrap();
    let mut answered = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
    answered.write_all(&hello).unwrap();
    // After the handshake: the time for the request is what is left, not another second.
    std::thread::park_timeout(Duration::from_millis(600));
    let late = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
    let late_began = Instant::now();
    let late = Secure::over(late, NAME, &secured.client()).unwrap();
    let ends = |stream: &mut TcpStream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (began.elapsed(), rest.len())
    };
    for (stream, some) in [(&mut silent, false), (&mut half, false), (&mut answered, true)] {
        let (after, bytes) = ends(stream);
        assert!(after >= Duration::from_millis(950) && after < Duration::from_secs(3), "{after:?}");
        assert_eq!(bytes > 0, some);
    }
    let _ = late.into_stream().read_to_end(&mut Vec::new());
    let after = late_began.elapsed();
    assert!(after >= Duration::from_millis(950) && after < Duration::from_millis(1900), "{after:?}");
    secured.wait_for_failures("timeout", 4.0);
    assert_eq!(secured.failures("tls"), 0.0);
    secured.serves();
}

#[test]
fn bytes_may_come_one_by_one() {
    let secured = Secured::with("");
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(secured.ca.client_of(&[version]));
        let mut stream = connect_from(Ipv4Addr::LOCALHOST, secured.relay.address);
        let mut tls = ClientConnection::new(client, ServerName::try_from(NAME).unwrap()).unwrap();
        tls.writer().write_all(health(NAME).as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            for byte in out {
                stream.write_all(&[byte]).unwrap();
            }
            let mut one = [0];
            assert_eq!(stream.read(&mut one).unwrap(), 1, "{}", String::from_utf8_lossy(&answer));
            tls.read_tls(&mut &one[..]).unwrap();
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut answer);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(secured.failures("tls"), 0.0);
}

#[test]
fn the_proxy_protocol_stands_before_the_handshake() {
    let secured = Secured::with(
        "[client_address]\nsource = \"proxy-protocol\"\ntrusted = [\"127.0.0.2/32\"]\n\
         [limits]\nupgrade_burst = 1\nupgrades_per_minute = 1\n",
    );
    let proxy = Ipv4Addr::new(127, 0, 0, 2);
    let headers = support::client::phone_headers("nobody");
    let ask = |header: &[u8]| {
        let mut stream = connect_from(proxy, secured.relay.address);
        // In one piece with the hello, as a load balancer may send it.
        let mut tls = ClientConnection::new(secured.client(), ServerName::try_from(NAME).unwrap()).unwrap();
        let mut first = header.to_vec();
        tls.write_tls(&mut first).unwrap();
        stream.write_all(&first).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        let stream = rustls::StreamOwned::new(tls, stream);
        support::client::upgrade_over(stream, &format!("wss://{NAME}/v2/client"), &headers)
            .map_or_else(|refused| refused.status, |_| 101)
    };
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x02\x7f\x00\x00\x01\x00\x01\x01\xbb";
    assert_eq!(ask(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 443\r\n"), 101);
    assert_eq!(ask(b"PROXY TCP4 203.0.113.1 127.0.0.1 2 443\r\n"), 429);
    assert_eq!(ask(version_2), 101);
    assert_eq!(secured.relay.wait_for_event("rate_limited")["remote"], "203.0.113.1");
    // Without the header, it is the load balancer that is at fault, not TLS.
    let mut stream = connect_from(proxy, secured.relay.address);
    stream.write_all(&client_hello(&secured.client())).unwrap();
    let mut answer = Vec::new();
    // With what was not read, the kernel may make a reset of it.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:x?}");
    secured.wait_for_failures("proxy", 1.0);
    assert_eq!(secured.failures("tls"), 0.0);
}

#[test]
fn why_a_handshake_failed_is_told_to_whoever_wants_to_know() {
    let secured = Secured::with("");
    let config = std::fs::read_to_string(secured.relay.config_path()).unwrap();
    std::fs::write(secured.relay.config_path(), config.replace("level = \"info\"", "level = \"debug\""))
        .unwrap();
    secured.relay.signal("HUP");
    secured.relay.wait_for_event("reloaded");
    let refused = Secure::connect(secured.relay.address, "other.example", &secured.client()).map(drop);
    assert_eq!(alert(&refused.unwrap_err()), AlertDescription::AccessDenied);
    let stranger = Arc::new(trusting(&Ca::new().root()));
    let refused = Secure::connect(secured.relay.address, NAME, &stranger).map(drop).unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    eventually("both reasons", || {
        let lines = secured.relay.events_named("tls_handshake_failed");
        let causes: Vec<_> = lines.iter().map(|line| line["cause"].as_str().unwrap().to_owned()).collect();
        let has = |part: &str| causes.iter().any(|cause| cause.contains(part));
        if has("there is no certificate for the name that it asks for") && has("UnknownCA") {
            Ok(())
        } else {
            Err(format!("{causes:?}"))
        }
    });
    let lines = secured.relay.events_named("tls_handshake_failed");
    assert!(lines.iter().all(|line| line["remote"] == "127.0.0.1" && line["level"] == "debug"), "{lines:?}");
    assert!(secured.files.key.exists());
}
