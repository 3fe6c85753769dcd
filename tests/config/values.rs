//! What each kind of value accepts and refuses.

use std::time::Duration;

use pyrycode_relay::config::{Config, LoopbackAddr, MetricsListen, PublicListen, keys};
use pyrycode_relay::event::Level;

use crate::{only_problem, with};

#[test]
fn every_key_refuses_a_value_of_another_type() {
    for key in keys() {
        for (value, found) in [
            ("true", "a boolean"),
            ("1.5", "a float"),
            ("{ a = 1 }", "a table"),
            ("1979-05-27", "a datetime"),
        ] {
            let (line, path, text) = only_problem(&with(key, value));
            assert_eq!((line, path), (2, key.path()));
            assert!(text.starts_with("expected a"), "{text}");
            assert!(text.contains(&format!(", found {found}; allowed: ")), "{text}");
        }
    }
}

#[test]
fn tables_are_tables() {
    for (text, found) in
        [("session = 5", "an integer"), ("[[session]]", "an array"), ("session = \"a\"", "a string")]
    {
        let (line, key, message) = only_problem(text);
        assert_eq!((line, key.as_str()), (1, "session"));
        assert_eq!(message, format!("expected a table, found {found}; write [session]"));
    }
    let config = Config::parse("session.grace = \"1s\"\nlog = { level = \"debug\" }", "f").unwrap();
    assert_eq!(config.session.grace, Duration::from_secs(1));
    assert_eq!(config.log.level, Level::Debug);
}

#[test]
fn durations() {
    for (text, millis) in [
        ("1ms", 1),
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("8760h", 31_536_000_000),
    ] {
        let config = Config::parse(&format!("session.grace = \"{text}\""), "f").unwrap();
        assert_eq!(config.session.grace, Duration::from_millis(millis), "{text}");
        assert!(config.to_toml().contains("grace = \""), "{text}");
    }
    for text in
        ["", "30", "s", "30 s", " 30s", "30s ", "-1s", "+1s", "1.5s", "1h30m", "30S", "30sec", "1d", "٣s"]
    {
        let (_, _, message) = only_problem(&format!("session.grace = \"{text}\""));
        assert!(message.contains("is not a duration; write \"500ms\""), "{text}: {message}");
    }
    for text in ["0s", "0ms", "8761h", "18446744073709551615h", "99999999999999999999999s"] {
        let (_, _, message) = only_problem(&format!("session.grace = \"{text}\""));
        assert!(
            message.contains("is out of range; allowed: a duration from \"1ms\" to \"8760h\""),
            "{text}: {message}"
        );
    }
    let (_, _, message) = only_problem("drain.timeout = \"25h\"");
    assert_eq!(message, "\"25h\" is out of range; allowed: a duration from \"1ms\" to \"24h\"");
}

#[test]
fn sizes() {
    for (text, bytes) in [("1024B", 1024), ("1KiB", 1024), ("64KiB", 65_536), ("2MiB", 2_097_152)] {
        let config = Config::parse(&format!("session.max_frame = \"{text}\""), "f").unwrap();
        assert_eq!(config.session.max_frame, bytes, "{text}");
        assert_eq!(Config::parse(&config.to_toml(), "f").unwrap(), config, "{text}");
    }
    for text in ["", "4", "4 MiB", "4MB", "4M", "4mib", "4kB", "1.5MiB", "-1KiB", "MiB"] {
        let (_, _, message) = only_problem(&format!("session.max_frame = \"{text}\""));
        assert!(message.contains("is not a size; write \"512B\", \"64KiB\""), "{text}: {message}");
    }
    for text in ["0B", "1023B", "17MiB", "1GiB", "18446744073709551615GiB"] {
        let (_, _, message) = only_problem(&format!("session.max_frame = \"{text}\""));
        assert!(
            message.ends_with("is out of range; allowed: a size from \"1KiB\" to \"16MiB\""),
            "{message}"
        );
    }
}

#[test]
fn a_public_address_without_tls_is_loopback_or_asked_for() {
    for address in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:8080"] {
        let config = Config::parse(&format!("listen.public = \"{address}\""), "f").unwrap();
        assert_eq!(config.listen.public, PublicListen::Address(address.parse().unwrap()));
    }
    for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:1", "[::ffff:127.0.0.1]:80"] {
        let file = format!("[listen]\npublic = \"{address}\"\n");
        let (line, key, text) = only_problem(&file);
        assert_eq!((line, key.as_str()), (2, "listen.public"));
        for way_out in ["behind a TLS proxy on this host", "plaintext = \"anywhere\"", "tls.mode"] {
            assert!(text.contains(way_out), "{text}");
        }
        assert!(Config::parse(&format!("{file}plaintext = \"anywhere\""), "f").is_ok(), "{address}");
    }
    for address in ["localhost:80", "127.0.0.1", "8080", "", ":80", "[::1]", "127.0.0.1:65536"] {
        let (_, _, text) = only_problem(&format!("listen.public = \"{address}\""));
        assert!(text.contains("is not an IP literal with a port; allowed: such as"), "{text}");
    }
}

#[test]
fn a_socket_of_systemd_has_a_name_that_systemd_takes_and_one_purpose() {
    let both = |public: &str, metrics: &str| {
        format!("[listen]\npublic = \"systemd:{public}\"\nmetrics = \"systemd:{metrics}\"\n")
    };
    let config = Config::parse(&both("public", "a name.socket"), "f").unwrap();
    assert_eq!(config.listen.public.socket_name().unwrap().as_str(), "public");
    assert_eq!(config.listen.metrics.socket_name().unwrap().as_str(), "a name.socket");
    assert_eq!(Config::parse(&config.to_toml(), "f").unwrap(), config);
    let (line, key, text) = only_problem(&both("one", "one"));
    assert_eq!((line, key.as_str()), (3, "listen.metrics"));
    assert!(text.contains("\"systemd:one\" is the socket of listen.public already"), "{text}");
    let long = "x".repeat(256);
    for name in ["", "a:b", "\\u0007", "\u{e4}", &long] {
        for key in ["public", "metrics"] {
            let (_, found, text) = only_problem(&format!("listen.{key} = \"systemd:{name}\""));
            assert_eq!(found, format!("listen.{key}"));
            assert!(text.contains("names no socket; write \"systemd:NAME\""), "{name}: {text}");
        }
    }
    assert!(Config::parse(&both(&long[1..], "metrics"), "f").is_ok());
}

#[test]
fn two_listeners_do_not_claim_one_address() {
    for (public, metrics) in [
        ("127.0.0.1:9090", "127.0.0.1:9090"),
        ("[::1]:9090", "[::1]:9090"),
        ("0.0.0.0:9090", "127.0.0.5:9090"),
        ("[::]:9090", "[::1]:9090"),
        ("[::]:9090", "127.0.0.1:9090"),
        ("[::ffff:127.0.0.1]:9090", "127.0.0.1:9090"),
        ("[::ffff:0.0.0.0]:9090", "127.0.0.1:9090"),
    ] {
        let file =
            format!("[listen]\nplaintext = \"anywhere\"\nmetrics = \"{metrics}\"\npublic = \"{public}\"\n");
        let (line, key, text) = only_problem(&file);
        assert_eq!((line, key.as_str()), (4, "listen.public"));
        let both = format!("listen.public = \"{public}\" and listen.metrics = \"{metrics}\" claim the same");
        assert!(text.starts_with(&both), "{text}");
    }
    for (public, metrics) in [
        ("127.0.0.1:9090", "127.0.0.2:9090"),
        ("127.0.0.1:9090", "[::1]:9090"),
        ("0.0.0.0:9090", "[::1]:9090"),
        ("0.0.0.0:9091", "127.0.0.1:9090"),
        ("127.0.0.1:0", "127.0.0.1:9090"),
        ("0.0.0.0:9090", "off"),
    ] {
        let file = format!(
            "listen = {{ plaintext = \"anywhere\", metrics = \"{metrics}\", public = \"{public}\" }}"
        );
        let parsed = Config::parse(&file, "f");
        assert!(parsed.is_ok(), "{public} {metrics}: {parsed:?}");
    }
}

#[test]
fn the_metrics_address_is_loopback() {
    for address in ["127.0.0.1:9090", "127.8.9.1:1", "[::1]:9090", "127.255.255.255:65535"] {
        let parsed: LoopbackAddr = address.parse().unwrap();
        assert_eq!(parsed.get(), address.parse().unwrap());
        let config = Config::parse(&format!("listen.metrics = \"{address}\""), "f").unwrap();
        assert_eq!(config.listen.metrics, MetricsListen::Address(parsed));
    }
    let refused = [
        "localhost:9090",
        "0.0.0.0:9090",
        "[::]:9090",
        "10.0.0.1:9090",
        "127.0.0.1:0",
        "[::1]:0",
        "128.0.0.1:9090",
        "[::ffff:127.0.0.1]:9090",
        "[::2]:9090",
        "127.0.0.1",
        "127.0.0.1:99999",
        "127.1:9090",
        "",
        " 127.0.0.1:9090",
    ];
    for address in refused {
        let error = address.parse::<LoopbackAddr>().unwrap_err().to_string();
        assert!(
            error.contains("allowed: an address in 127.0.0.0/8 or [::1] with a port from 1 to 65535"),
            "{error}"
        );
        let (line, key, text) = only_problem(&format!("\n[listen]\nmetrics = \"{address}\""));
        assert_eq!((line, key.as_str()), (3, "listen.metrics"));
        assert!(text.contains(&error), "{text}");
    }
    assert_eq!(Config::parse("listen.metrics = \"off\"", "f").unwrap().listen.metrics, MetricsListen::Off);
}
