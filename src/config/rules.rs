//! Rules that span several keys.
//!
//! A rule is skipped when one of its values could not be read: that value has its own problem already, and the
//! default that stands in for it proves nothing.

use std::collections::BTreeMap;

use super::keys::{Config, is_built};
use super::kind::{human_bytes, human_time};
use super::loopback::is_loopback;
use super::problem::Problem;
use super::types::{ClientAddressSource, Plaintext, PublicListen, TlsMode};

/// What the walk found in the file, for the rules that span several keys.
#[derive(Default)]
pub(super) struct Written {
    /// Each known key that stands in the file: its line, and whether its value could be read.
    pub(super) keys: BTreeMap<String, (usize, bool)>,
}

impl Written {
    /// The line that the key stands in; nothing when its default applies.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.keys.get(path).map(|(line, _)| *line)
    }

    /// Whether the configuration holds what the file means: the key was left out, or could be read.
    pub(super) fn known(&self, path: &str) -> bool {
        self.keys.get(path).is_none_or(|(_, read)| *read)
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
}

/// What leaves this host unencrypted does so because somebody said it.
fn plaintext(config: &Config, rules: &mut Rules<'_>) {
    let PublicListen::Address(public) = config.listen.public;
    // As long as no mode is built there is no TLS, whatever the file asks for; and a mode that could not be read
    // may have been meant to turn it on.
    let mode = "tls.mode";
    let tls = is_built(mode) && (config.tls.mode != TlsMode::Off || !rules.written.known(mode));
    let open = !tls && config.listen.plaintext == Plaintext::Loopback && !is_loopback(public.ip());
    rules.rule(&["listen.public", "listen.plaintext"], open, || {
        format!(
            "\"{public}\" is not a loopback address, and listen.plaintext = \"loopback\" serves no other without \
             TLS; use a loopback address behind a TLS proxy on this host, or listen.plaintext = \"anywhere\" if the \
             TLS proxy runs on another host, or tls.mode in a version that has TLS built in"
        )
    });
}

/// The optional keys of `[tls]` belong to a mode; elsewhere they would do nothing.
fn tls(config: &Config, rules: &mut Rules<'_>) {
    use TlsMode::{Acme, Files};

    let tls = &config.tls;
    let of_a_mode: [(&str, bool, &[TlsMode], &str); 6] = [
        ("tls.certificate", tls.certificate.is_some(), &[Files], "\"files\""),
        ("tls.key", tls.key.is_some(), &[Files], "\"files\""),
        ("tls.domains", tls.domains.is_some(), &[Files, Acme], "\"files\" or \"acme\""),
        ("tls.contact", tls.contact.is_some(), &[Acme], "\"acme\""),
        ("tls.directory", tls.directory.is_some(), &[Acme], "\"acme\""),
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
