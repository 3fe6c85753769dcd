//! What the authority knows: accounts, orders, authorizations, certificates, and nonces that are not used yet.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::jws::Key;
use super::problem::Problem;
use super::{Behaviour, Seen, Shared};

/// How long an order and its authorizations are said to be good. Nothing here lives so long.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// The challenges of every authorization. Only the one that is validated comes last, so that a client that takes the
/// first is found out.
pub(super) const CHALLENGES: [&str; 3] = ["http-01", "dns-01", "tls-alpn-01"];

/// All of it.
pub(super) struct Records {
    pub(super) behaviour: Behaviour,
    pub(super) validate_at: Option<SocketAddr>,
    pub(super) ended: bool,
    pub(super) lifetime: Duration,
    pub(super) backdate: Duration,
    pub(super) requests: Vec<Seen>,
    pub(super) connections: usize,
    pub(super) validations: usize,
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    pub(super) authorizations: Vec<Authorization>,
    pub(super) certificates: Vec<Certificate>,
    nonces: HashSet<String>,
}

/// An account. Things are known by their place in [`Records`].
pub(super) struct Account {
    pub(super) key: Key,
    pub(super) contact: Vec<String>,
}

/// An order.
pub(super) struct Order {
    pub(super) account: usize,
    pub(super) names: Vec<String>,
    pub(super) authorizations: Vec<usize>,
    pub(super) certificate: Option<usize>,
    /// Polls for which it is still processed, once it has its certificate.
    pub(super) processing: u32,
}

/// The authorization for one name of one order.
pub(super) struct Authorization {
    pub(super) account: usize,
    pub(super) name: String,
    pub(super) token: String,
    pub(super) progress: Progress,
}

/// How far it is.
pub(super) enum Progress {
    Pending,
    Validating,
    Valid,
    Invalid(Problem),
}

/// A certificate with what leads to its root.
pub(super) struct Certificate {
    pub(super) account: usize,
    pub(super) chain: String,
}

impl Records {
    pub(super) fn new() -> Self {
        Self {
            behaviour: Behaviour::Normal,
            validate_at: None,
            ended: false,
            lifetime: Duration::from_secs(90 * 24 * 60 * 60),
            backdate: Duration::ZERO,
            requests: Vec::new(),
            connections: 0,
            validations: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            authorizations: Vec::new(),
            certificates: Vec::new(),
            nonces: HashSet::new(),
        }
    }

    /// A nonce that may be used once.
    pub(super) fn nonce(&mut self) -> String {
        let nonce = random_text();
        self.nonces.insert(nonce.clone());
        nonce
    }

    /// Uses a nonce.
    pub(super) fn spend(&mut self, nonce: &str) -> Result<(), Problem> {
        let known = self.nonces.remove(nonce);
        known.then_some(()).ok_or_else(|| Problem::bad_nonce("the nonce was used before, or never issued"))
    }

    /// Takes an order for names that were judged.
    pub(super) fn order(&mut self, account: usize, names: Vec<String>) -> usize {
        let first = self.authorizations.len();
        self.authorizations.extend(names.iter().map(|name| Authorization {
            account,
            name: name.clone(),
            token: random_text(),
            progress: Progress::Pending,
        }));
        let authorizations = (first..self.authorizations.len()).collect();
        self.orders.push(Order { account, names, authorizations, certificate: None, processing: 0 });
        self.orders.len() - 1
    }

    /// An order's status and what went wrong with it.
    pub(super) fn status(&self, order: usize) -> (&'static str, Option<&Problem>) {
        let order = &self.orders[order];
        let mut progress = order.authorizations.iter().map(|one| &self.authorizations[*one].progress);
        let failure = progress.clone().find_map(|one| match one {
            Progress::Invalid(problem) => Some(problem),
            _ => None,
        });
        match (failure, order.certificate) {
            (Some(problem), _) => ("invalid", Some(problem)),
            (None, Some(_)) if order.processing > 0 => ("processing", None),
            (None, Some(_)) => ("valid", None),
            (None, None) if progress.all(|one| matches!(one, Progress::Valid)) => ("ready", None),
            (None, None) => ("pending", None),
        }
    }

    /// An order as its client sees it (RFC 8555 § 7.1.3).
    pub(super) fn order_json(&self, shared: &Shared, number: usize) -> Value {
        let order = &self.orders[number];
        let (status, problem) = self.status(number);
        let url = |kind: &str, number: usize| shared.url(&format!("/{kind}/{number}"));
        let authorizations = order.authorizations.iter().map(|one| url("authorization", *one));
        let mut json = json!({
            "status": status,
            "expires": expires(),
            "identifiers": order.names.iter().map(|name| identifier(name)).collect::<Vec<_>>(),
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": shared.url(&format!("/order/{number}/finalize")),
        });
        if let Some(problem) = problem {
            json["error"] = problem.json();
        }
        if let (Some(certificate), "valid") = (order.certificate, status) {
            json["certificate"] = url("certificate", certificate).into();
        }
        json
    }

    /// An authorization as its client sees it (RFC 8555 § 7.1.4).
    pub(super) fn authorization_json(&self, shared: &Shared, number: usize) -> Value {
        let authorization = &self.authorizations[number];
        let status = match authorization.progress {
            Progress::Pending | Progress::Validating => "pending",
            Progress::Valid => "valid",
            Progress::Invalid(_) => "invalid",
        };
        let challenges = CHALLENGES.map(|kind| self.challenge_json(shared, number, kind));
        json!({
            "status": status,
            "expires": expires(),
            "identifier": identifier(&authorization.name),
            "challenges": challenges,
        })
    }

    /// A challenge as its client sees it (RFC 8555 § 8).
    pub(super) fn challenge_json(&self, shared: &Shared, number: usize, kind: &str) -> Value {
        let authorization = &self.authorizations[number];
        let mut json = json!({
            "type": kind,
            "url": shared.url(&format!("/challenge/{number}/{kind}")),
            "token": authorization.token,
            "status": "pending",
        });
        // The others were never tried.
        if kind == "tls-alpn-01" {
            match &authorization.progress {
                Progress::Pending => {}
                Progress::Validating => json["status"] = "processing".into(),
                Progress::Valid => json["status"] = "valid".into(),
                Progress::Invalid(problem) => {
                    json["status"] = "invalid".into();
                    json["error"] = problem.json();
                }
            }
        }
        json
    }
}

fn identifier(name: &str) -> Value {
    json!({ "type": "dns", "value": name })
}

fn expires() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + EXPIRY).to_string()
}

/// Text that nobody guesses, of the characters that tokens and nonces may have.
fn random_text() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("random numbers");
    BASE64URL_NOPAD.encode(&bytes)
}
