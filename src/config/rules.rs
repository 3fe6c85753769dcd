//! Rules that span several keys.
//!
//! A rule is skipped when one of its values could not be read: that value has its own problem already, and the
//! default that stands in for it proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::keys::Config;
use super::kind::{human_bytes, human_time};
use super::listen::{MetricsListen, PublicListen, plaintext_problem};
use super::problem::Problem;
use super::types::{ClientAddressSource, Plaintext, TlsMode, has_user};

/// Which keys stand in the file, and where: for rules that span several keys or that the file alone cannot answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Each known key that stands in the file: its line, and whether its value could be read.
    pub(super) keys: BTreeMap<String, (usize, bool)>,
}

impl Written {
    /// The line that the key stands in, by its dotted name; nothing when its default applies.
    #[must_use]
    pub fn line(&self, path: &str) -> Option<usize> {
        self.keys.get(path).map(|(line, _)| *line)
    }

    /// Whether the configuration holds what will be in effect: the key was left out, or could be read.
    pub(super) fn known(&self, path: &str) -> bool {
        self.keys.get(path).is_none_or(|(_, known)| *known)
    }
}

/// The largest envelope around an inner frame, and what one queued message is charged beyond its length.
const ENVELOPE: usize = 1024 + 64;

struct Rules<'a> {
    written: &'a Written,
    problems: &'a mut Vec<Problem>,
}

impl Rules<'_> {
    /// Reports a problem of the first of `keys` when `broken` holds and all of them are known. It is placed at
    /// the first of them that stands in the file: a default alone never breaks a rule.
    fn rule(&mut self, keys: &[&str], broken: bool, text: impl FnOnce() -> String) {
        if !broken || !keys.iter().all(|key| self.written.known(key)) {
            return;
        }
        let line = keys.iter().find_map(|key| self.written.line(key)).unwrap_or(1);
        let key = keys.first().copied().unwrap_or_default().to_owned();
        self.problems.push(Problem { line, key, text: text() });
    }
}

/// Adds a problem for every rule that the configuration breaks.
pub(super) fn check(config: &Config, written: &Written, problems: &mut Vec<Problem>) {
    let mut rules = Rules { written, problems };
    plaintext(config, &mut rules);
    one_address_each(config, &mut rules);
    one_socket_each(config, &mut rules);
    tls(config, &mut rules);
    queues(config, &mut rules);

    let (timeout, spread) = (config.drain.timeout, config.drain.spread);
    rules.rule(&["drain.timeout", "drain.spread"], timeout < spread, || {
        let (timeout, spread) = (human_time(timeout), human_time(spread));
        format!(
            "\"{timeout}\" is shorter than drain.spread (\"{spread}\"); connections would be cut before their turn"
        )
    });

    let client = &config.client_address;
    let untrusting = client.source != ClientAddressSource::Peer && client.trusted.is_empty();
    rules.rule(&["client_address.source", "client_address.trusted"], untrusting, || {
        "needs client_address.trusted; without it, no proxy would be believed".to_owned()
    });
    let everybody = client.trusted.iter().any(|network| network.prefix_len() == 0);
    rules.rule(&["client_address.trusted"], everybody, || {
        "trusts everybody, so that every client could choose its own address; name the proxies' addresses, such as \
         \"127.0.0.1/32\""
            .to_owned()
    });
    let idle = client.source == ClientAddressSource::Peer && !client.trusted.is_empty();
    rules.rule(&["client_address.trusted", "client_address.source"], idle, || {
        "goes with client_address.source = \"x-forwarded-for\" or \"proxy-protocol\" only; with \"peer\" no proxy \
         is asked"
            .to_owned()
    });
}

/// What leaves this host unencrypted does so because somebody said it.
fn plaintext(config: &Config, rules: &mut Rules<'_>) {
    let PublicListen::Address(public) = config.listen.public else {
        // What a socket of systemd's listens on shows at start.
        return;
    };
    // A mode that could not be read may have been meant to turn TLS on.
    let tls = config.tls.mode != TlsMode::Off || !rules.written.known("tls.mode");
    let problem =
        plaintext_problem(public).filter(|_| !tls && config.listen.plaintext == Plaintext::Loopback);
    rules.rule(&["listen.public", "listen.plaintext"], problem.is_some(), || problem.unwrap_or_default());
}

/// A socket serves one purpose.
fn one_socket_each(config: &Config, rules: &mut Rules<'_>) {
    let public = config.listen.public.socket_name();
    let both = public.is_some() && public == config.listen.metrics.socket_name();
    rules.rule(&["listen.metrics", "listen.public"], both, || {
        let name = config.listen.metrics.to_string();
        format!("\"{name}\" is the socket of listen.public already; name another one")
    });
}

/// Of two sockets for the same address and port, only the first can be bound; or, where one stands for every address,
/// it depends on the system which of them a client reaches.
fn one_address_each(config: &Config, rules: &mut Rules<'_>) {
    let (PublicListen::Address(public), MetricsListen::Address(metrics)) =
        (&config.listen.public, &config.listen.metrics)
    else {
        return;
    };
    let metrics = metrics.get();
    // With port 0 the kernel finds a free one. An IPv4 address that is written as IPv6 is the same address.
    let both = public.port() == metrics.port() && covers(public.ip().to_canonical(), metrics.ip());
    // Both keys are to blame alike, so the problem is that of one that stands in the file.
    let keys = match rules.written.line("listen.public") {
        Some(_) => ["listen.public", "listen.metrics"],
        None => ["listen.metrics", "listen.public"],
    };
    rules.rule(&keys, both, || {
        format!(
            "listen.public = \"{public}\" and listen.metrics = \"{metrics}\" claim the same address and port; \
             choose another port for one of them"
        )
    });
}

/// Whether a socket for `wide` takes what is meant for `narrow`. `[::]` counts for IPv4 too: whether it does so is a
/// setting of the system.
fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    wide == narrow || wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
}

/// The optional keys of `[tls]` belong to a mode; elsewhere they would do nothing.
fn tls(config: &Config, rules: &mut Rules<'_>) {
    use TlsMode::{Acme, Files};

    let tls = &config.tls;
    let of_a_mode: [(&str, bool, &[TlsMode], &str); 7] = [
        ("tls.certificate", tls.certificate.is_some(), &[Files], "\"files\""),
        ("tls.key", tls.key.is_some(), &[Files], "\"files\""),
        ("tls.domains", tls.domains.is_some(), &[Files, Acme], "\"files\" or \"acme\""),
        ("tls.contact", tls.contact.is_some(), &[Acme], "\"acme\""),
        ("tls.directory", tls.directory.is_some(), &[Acme], "\"acme\""),
        ("tls.directory_ca", tls.directory_ca.is_some(), &[Acme], "\"acme\""),
        ("tls.state", tls.state.is_some(), &[Acme], "\"acme\""),
    ];
    for (key, set, modes, names) in of_a_mode {
        let idle = set && !modes.contains(&tls.mode);
        rules.rule(&[key, "tls.mode"], idle, || format!("goes with tls.mode = {names} only"));
    }
    let no_files = tls.mode == Files && (tls.certificate.is_none() || tls.key.is_none());
    rules.rule(&["tls.mode", "tls.certificate", "tls.key"], no_files, || {
        "\"files\" needs tls.certificate and tls.key".to_owned()
    });
    let no_domains = tls.mode == Acme && tls.domains.as_ref().is_none_or(Vec::is_empty);
    rules.rule(&["tls.mode", "tls.domains"], no_domains, || "\"acme\" needs tls.domains".to_owned());
    let nobody = tls.mode == Files && tls.domains.as_ref().is_some_and(Vec::is_empty);
    rules.rule(&["tls.domains", "tls.mode"], nobody, || {
        "names nobody, so that every request would be refused; name the hosts, or leave it out to serve any".to_owned()
    });
    rules.rule(&["tls.directory"], tls.directory.as_deref().is_some_and(has_user), || {
        "has a user or a password before its host, which would be logged; write it without what stands before \"@\""
            .to_owned()
    });
    let mut seen = BTreeSet::new();
    let twice = tls.domains.iter().flatten().find(|name| !seen.insert(name.as_str()));
    rules.rule(&["tls.domains"], twice.is_some(), || {
        format!("has \"{}\" twice; the case of letters makes no difference", twice.map_or("", String::as_str))
    });
    let address =
        (tls.mode == Acme).then(|| tls.domains.iter().flatten().find(|name| is_address(name))).flatten();
    rules.rule(&["tls.domains", "tls.mode"], address.is_some(), || {
        let name = address.map_or("", String::as_str);
        let what = if name.parse::<IpAddr>().is_ok() {
            "is an address"
        } else {
            "ends in a number, like an address"
        };
        format!("\"{name}\" {what}; \"acme\" proves names, such as \"relay.example.com\"")
    });
}

/// Whether this is an address, or would be taken for the beginning of one: no name in DNS ends in a number.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) || name.parse::<IpAddr>().is_ok()
}

/// A queue that cannot hold one largest frame could never deliver it.
fn queues(config: &Config, rules: &mut Rules<'_>) {
    let limits = &config.limits;
    let frame = config.session.max_frame;
    let least = frame + ENVELOPE;
    for (key, queue) in
        [("limits.phone_queue", limits.phone_queue), ("limits.binary_queue", limits.binary_queue)]
    {
        rules.rule(&[key, "session.max_frame"], queue < least, || {
            let (queue, frame) = (human_bytes(queue), human_bytes(frame));
            let least = human_bytes(least.next_multiple_of(1024));
            format!(
                "\"{queue}\" cannot hold one frame of session.max_frame (\"{frame}\") with its envelope; it must be \
                 at least \"{least}\""
            )
        });
        rules.rule(&[key, "limits.all_queues"], queue > limits.all_queues, || {
            let (queue, all) = (human_bytes(queue), human_bytes(limits.all_queues));
            format!("\"{queue}\" is more than limits.all_queues (\"{all}\")")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Vec::new();
        check(&config, &Written::default(), &mut problems);
        problems.into_iter().map(|Problem { key, text, .. }| format!("{key}: {text}")).collect()
    }

    #[test]
    fn keys_of_a_tls_mode_go_with_it() {
        let path = || Some("/a".to_owned());
        let goes = |key: &str, modes: &str| vec![format!("tls.{key}: goes with tls.mode = {modes} only")];
        assert_eq!(problems(|config| config.tls.certificate = path()), goes("certificate", "\"files\""));
        assert_eq!(problems(|config| config.tls.state = path()), goes("state", "\"acme\""));
        assert_eq!(
            problems(|config| config.tls.domains = Some(vec!["a.example".to_owned()])),
            goes("domains", "\"files\" or \"acme\"")
        );
        assert_eq!(
            problems(|config| config.tls.mode = TlsMode::Files),
            ["tls.mode: \"files\" needs tls.certificate and tls.key"]
        );
        assert_eq!(
            problems(|config| config.tls.mode = TlsMode::Acme),
            ["tls.mode: \"acme\" needs tls.domains"]
        );
        let files = problems(|config| {
            config.tls.mode = TlsMode::Files;
            (config.tls.certificate, config.tls.key) = (path(), path());
            // With TLS, everybody may come.
            config.listen.public = PublicListen::Address(([0, 0, 0, 0], 443).into());
        });
        assert!(files.is_empty(), "{files:?}");
    }

    #[test]
    fn an_unspecified_address_covers_its_family_and_ipv6_both() {
        let covers = |wide: &str, narrow: &str| super::covers(wide.parse().unwrap(), narrow.parse().unwrap());
        for (wide, narrow) in
            [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.9"), ("::", "127.0.0.1"), ("::", "::1")]
        {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in
            [("127.0.0.1", "127.0.0.2"), ("0.0.0.0", "::1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::")]
        {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
