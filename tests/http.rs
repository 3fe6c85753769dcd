//! Paths, and which requests are upgraded (PROTOCOL § 1).

mod support;

use support::client::{self, Client, binary_headers, phone_headers};
use support::http::{self, Http, WEBSOCKET, ask, request, upgrade};
use support::relay::Relay;
use support::{eventually, random};

#[test]
fn only_the_documented_paths_exist() {
    let relay = Relay::start();
    let before = relay.metrics();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v3/server"),
        ("GET", "/v0/client"),
        ("GET", "/v2/server/"),
        ("GET", "/V2/server"),
        ("GET", "/v2/%73erver"),
        ("GET", "/v2"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
        ("POST", "/healthz"),
        ("OPTIONS", "/healthz"),
        ("DELETE", "/"),
    ] {
        let headers = [&WEBSOCKET[..], &binary_headers("paths")].concat();
        let answer = ask(relay.address, &request(&format!("{method} {path} HTTP/1.1"), &headers));
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{method} {path}");
    }
    assert!(relay.metrics().since(&before).keys().all(|name| !name.contains("upgrade")));

    for path in ["/v1/server", "/v2/server?since=1"] {
        let id = format!("paths-{path}");
        assert_eq!(ask(relay.address, &upgrade(path, &binary_headers(&id))).status, 101, "{path}");
    }
    let _binary = Client::binary(&relay, "paths");
    for path in ["/v1/client", "/v2/client"] {
        assert_eq!(ask(relay.address, &upgrade(path, &phone_headers("paths"))).status, 101, "{path}");
    }
    let after =
        relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"client\",outcome=\"accept\"}", 2.0);
    assert_eq!(after.outcomes_since(&before), ["client accept 2", "server accept 3"]);
}

#[test]
fn what_is_no_websocket_upgrade_is_told_so_before_its_headers_are_looked_at() {
    let relay = Relay::start();
    let [connection, to_websocket, version, key] = WEBSOCKET;
    let get = "GET /v2/server HTTP/1.1";
    let upgrade_header = Some(("upgrade", "websocket"));
    let version_header = Some(("sec-websocket-version", "13"));
    let allow = Some(("allow", "GET"));
    let without_key = [connection, to_websocket, version];
    let with_key = |value: &'static str| [&without_key[..], &[("Sec-WebSocket-Key", value)]].concat();
    let with_version = |value| [connection, to_websocket, ("Sec-WebSocket-Version", value), key].to_vec();
    for (line, headers, status, header) in [
        ("POST /v2/server HTTP/1.1", WEBSOCKET.to_vec(), 405, allow),
        ("HEAD /v2/server HTTP/1.1", WEBSOCKET.to_vec(), 405, allow),
        ("OPTIONS /v1/server HTTP/1.1", Vec::new(), 405, allow),
        (get, Vec::new(), 426, upgrade_header),
        (get, vec![to_websocket, version, key], 426, upgrade_header),
        (get, vec![connection, version, key], 426, upgrade_header),
        (get, vec![("Connection", "keep-alive"), to_websocket, version, key], 426, upgrade_header),
        (get, vec![connection, ("Upgrade", "h2c"), version, key], 426, upgrade_header),
        ("GET /v2/server HTTP/1.0", WEBSOCKET.to_vec(), 426, upgrade_header),
        (get, vec![connection, to_websocket, key], 426, version_header),
        (get, with_version("8"), 426, version_header),
        (get, with_version("13, 8"), 426, version_header),
        (get, [&WEBSOCKET[..], &[version]].concat(), 426, version_header),
        (get, without_key.to_vec(), 400, None),
        (get, with_key(""), 400, None),
        (get, with_key("not base64 at all!!!!!!!"), 400, None),
        (get, with_key("dGhlIHNhbXBsZSBub25j"), 400, None),
        (get, with_key("dGhlIHNhbXBsZSBub25jZTE="), 400, None),
        (get, with_key("dGhlIHNhbXBsZSBub25jZQ"), 400, None),
        (get, [&WEBSOCKET[..], &[key]].concat(), 400, None),
    ] {
        let before = relay.metrics();
        let mut http = Http::connect(relay.address);
        // None of these has the relay's own headers: that is not what they are told.
        let answer = http.ask(&request(line, &headers));
        assert_eq!(answer.status, status, "{line} {headers:?}");
        assert!(!answer.body.contains("x-pyrycode"), "{line} {headers:?}");
        if let Some((name, value)) = header {
            assert_eq!(answer.header(name), Some(value), "{line} {headers:?}");
        }
        assert_eq!(http.hung_up(), "", "{line} {headers:?}");
        assert_eq!(
            relay.metrics().outcomes_since(&before),
            ["server reject_bad_request 1"],
            "{line} {headers:?}"
        );
    }
}

#[test]
fn a_required_header_is_there_and_within_its_bounds() {
    let relay = Relay::start();
    let (short, long) = ("x".repeat(129), "y".repeat(257));
    let (id, version, agent, device) =
        ("x-pyrycode-server", "x-pyrycode-version", "user-agent", "x-pyrycode-device-name");
    let cases: Vec<(&str, &str, Option<&str>)> = vec![
        ("server", id, None),
        ("server", id, Some("")),
        ("server", id, Some(&short)),
        ("server", id, Some("inner space")),
        ("server", id, Some("tab\tbed")),
        ("server", id, Some("caf\u{e9}")),
        ("server", version, None),
        ("server", version, Some("  ")),
        ("server", version, Some(&long)),
        ("server", agent, None),
        ("server", agent, Some("")),
        ("server", agent, Some(&long)),
        ("client", id, None),
        ("client", id, Some("")),
        ("client", id, Some(&short)),
        ("client", id, Some("\u{1F980}")),
        ("client", agent, None),
        ("client", agent, Some("")),
        ("client", agent, Some(&long)),
        ("client", device, Some(&short)),
    ];
    let log = relay.events().len();
    for (endpoint, name, value) in cases {
        let good = [(id, "bounds"), (version, "1.2.3"), (agent, "test"), (device, "a phone")];
        let mut headers: Vec<_> = good.into_iter().filter(|(good, _)| *good != name).collect();
        headers.extend(value.map(|value| (name, value)));
        let before = relay.metrics();
        let answer = ask(relay.address, &upgrade(&format!("/v2/{endpoint}"), &headers));
        assert_eq!(answer.status, 400, "{endpoint} {name}: {value:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(answer.body.starts_with(name), "{name}: {}", answer.body);
        assert!(answer.body.ends_with('\n') && answer.body.lines().count() == 1, "{:?}", answer.body);
        assert!(value.is_none_or(|value| value.trim().is_empty() || !answer.body.contains(value)));
        let counted = relay.metrics().outcomes_since(&before);
        assert_eq!(counted, [format!("{endpoint} reject_headers 1")], "{name}: {value:?}");
    }
    for name in [id, version, agent] {
        let twice = [&binary_headers("bounds")[..], &[(name, "again")]].concat();
        let answer = ask(relay.address, &upgrade("/v2/server", &twice));
        assert_eq!(answer.status, 400, "{name} twice");
        assert!(answer.body.starts_with(name) && !answer.body.contains("again"), "{}", answer.body);
    }
    assert_eq!(relay.events().len(), log, "header refusals are only counted");
}

#[test]
fn headers_at_their_bounds_and_in_any_case_are_accepted() {
    let relay = Relay::start();
    let (short, long) = ("!~".repeat(64), "y z\u{e9}".repeat(64).split_at(256).0.to_owned());
    let binary = upgrade(
        "/v1/server",
        &[("X-PYRYCODE-SERVER", &short), ("X-Pyrycode-Version", &long), ("USER-AGENT", &long)],
    );
    let mut binary_socket = Http::connect(relay.address);
    assert_eq!(binary_socket.ask(&binary).status, 101);
    let phone = upgrade(
        "/v2/client",
        &[("x-PyryCode-Server", &short), ("User-Agent", &long), ("x-pyrycode-device-NAME", &"d".repeat(128))],
    )
    .replace("Sec-WebSocket-Key", "SEC-WEBSOCKET-KEY")
    .replace("Upgrade: websocket", "uPGRADE: other/1, WebSocket")
    .replace("Connection: Upgrade", "connection: keep-alive, upGRADE");
    let mut phone_socket = Http::connect(relay.address);
    assert_eq!(phone_socket.ask(&phone).status, 101);
    let unnamed =
        upgrade("/v2/client", &[&phone_headers(&short)[..], &[("x-pyrycode-device-name", "")]].concat());
    assert_eq!(ask(relay.address, &unnamed).status, 101);

    let metrics =
        relay.wait_for_metric("ws_upgrade_attempts_total{endpoint=\"client\",outcome=\"accept\"}", 2.0);
    assert!((metrics.upgrades("server", "accept") - 1.0).abs() < f64::EPSILON);
    assert_eq!(relay.wait_for_event("server_claimed")["server_id"], short);
    assert_eq!(relay.wait_for_event("phone_registered")["device_name"], "d".repeat(128));
}

#[test]
fn a_token_is_ignored_and_nothing_optional_is_negotiated() {
    let relay = Relay::start();
    let token = format!("secret-{:x}", random());
    let offers = [
        ("x-pyrycode-token", token.as_str()),
        ("Sec-WebSocket-Protocol", "chat, v2.pyrycode"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Origin", "https://elsewhere.example"),
    ];
    let mut binary = Http::connect(relay.address);
    let answer = binary.ask(&upgrade("/v2/server", &[&binary_headers("token")[..], &offers].concat()));
    assert_eq!(answer.status, 101);
    let mut binary = binary.into_stream();
    let mut phone = Http::connect(relay.address);
    let answer = phone.ask(&upgrade("/v2/client", &[&phone_headers("token")[..], &offers].concat()));
    assert_eq!(answer.status, 101);
    for unwanted in ["sec-websocket-protocol", "sec-websocket-extensions"] {
        assert_eq!(answer.header(unwanted), None);
    }
    phone.send(client::frame(0x81, b"1"));
    let (_, envelope) = client::read_frame(&mut binary).expect("the phone's frame");
    assert!(!String::from_utf8(envelope).unwrap().contains(&token));
    relay.wait_for_event("phone_registered");
    assert!(!format!("{:?}", relay.events()).contains(&token), "a token is never logged");
    let metrics = relay.metrics();
    assert!((metrics.forwarded("phone_to_binary") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn an_upgrade_request_has_no_body() {
    let relay = Relay::start();
    for (header, body, outcome) in [
        (("Content-Length", "5"), "hello", 400),
        (("Transfer-Encoding", "chunked"), "5\r\nhello\r\n0\r\n\r\n", 400),
        (("Content-Length", "0"), "", 101),
    ] {
        let before = relay.metrics();
        let headers = [&binary_headers("body")[..], &[header]].concat();
        let answer = http::ask(relay.address, &(upgrade("/v2/server", &headers) + body));
        assert_eq!(answer.status, outcome, "{header:?}");
        let expected = if outcome == 101 { "server accept 1" } else { "server reject_bad_request 1" };
        eventually(expected, || {
            let counted = relay.metrics().outcomes_since(&before);
            if counted == [expected] { Ok(()) } else { Err(format!("{header:?}: {counted:?}")) }
        });
    }
}
