//! What each request asks for, and what it is answered with (RFC 8555 § 7).

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::json;

use super::http::{Answer, Request};
use super::jws::{self, Key, Signer};
use super::problem::Problem;
use super::records::{Account, CHALLENGES, Certificate, Progress, Records};
use super::signing_request::Requested;
use super::{Behaviour, Shared, validation};

/// What a request comes to.
type Outcome = Result<Answer, Problem>;

/// Answers a request.
pub(super) fn answer(shared: &Arc<Shared>, request: &Request) -> Answer {
    let garbage = shared.records().behaviour == Behaviour::Garbage;
    let outcome = match (&*request.method, &*request.path) {
        _ if request.header("user-agent").is_none_or(str::is_empty) => {
            Err(Problem::malformed("there is no User-Agent"))
        }
        ("HEAD", "/new-nonce") => Ok(Answer::empty(200)),
        _ if garbage => Ok(Answer::text(200, "text/html", "<!doctype html><title>Under maintenance</title>")),
        ("GET", "/new-nonce") => Ok(Answer::empty(204)),
        // It can be cached, so it has no nonce.
        ("GET", "/directory") => return directory(shared),
        ("POST", _) => signed(shared, request),
        _ => Err(Problem::new(405, "malformed", format!("no {} of {}", request.method, request.path))),
    };
    outcome
        .unwrap_or_else(|problem| Answer::problem(&problem))
        .with("Replay-Nonce", shared.records().nonce())
        .with("Cache-Control", "no-store")
        .with("Link", format!("<{}>;rel=\"index\"", shared.url("/directory")))
}

fn directory(shared: &Shared) -> Answer {
    let directory = json!({
        "newNonce": shared.url("/new-nonce"),
        "newAccount": shared.url("/new-account"),
        "newOrder": shared.url("/new-order"),
        "meta": { "termsOfService": shared.url("/terms") },
    });
    Answer::json(200, &directory)
}

/// Answers a request that must be signed.
fn signed(shared: &Arc<Shared>, request: &Request) -> Outcome {
    if request.header("content-type") != Some("application/jose+json") {
        return Err(Problem::new(415, "malformed", "the content is not application/jose+json"));
    }
    let url = format!("https://{}{}", request.header("host").unwrap_or_default(), request.path);
    if url != shared.url(&request.path) {
        return Err(Problem::malformed(format!("{url} is not here")));
    }
    let mut records = shared.records();
    let signed = jws::open(&request.body, &url, |kid| account(shared, &records, kid))?;
    records.spend(&signed.nonce)?;
    if let Behaviour::BadNonces(left @ 1..) = records.behaviour {
        records.behaviour = Behaviour::BadNonces(left - 1);
        return Err(Problem::bad_nonce("told to refuse the nonce"));
    }
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    match (signed.signer, &path[..]) {
        (Signer::Key(key), ["new-account"]) => new_account(shared, &mut records, key, &signed.payload),
        (Signer::Key(_), _) => Err(Problem::malformed("a key signed where an account must")),
        (Signer::Account(_), ["new-account"]) => {
            Err(Problem::malformed("an account signed where a key must"))
        }
        (Signer::Account(account), path) => {
            Desk { shared, records: &mut records, account }.answer(path, &signed.payload)
        }
    }
}

/// The account whose URL this is.
fn account(shared: &Shared, records: &Records, kid: &str) -> Option<(usize, Key)> {
    let number = kid.strip_prefix(&shared.url("/account/"))?.parse().ok()?;
    Some((number, records.accounts.get(number)?.key.clone()))
}

fn new_account(shared: &Shared, records: &mut Records, key: Key, payload: &[u8]) -> Outcome {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct NewAccount {
        #[serde(default)]
        terms_of_service_agreed: bool,
        #[serde(default)]
        contact: Vec<String>,
    }
    let new: NewAccount = jws::parse("the account", payload)?;
    if let Behaviour::RefuseAccounts { status, kind, detail } = records.behaviour {
        return Err(Problem::new(status, kind, detail));
    }
    let found = records.accounts.iter().position(|account| account.key == key);
    let (status, number) = if let Some(number) = found {
        (200, number)
    } else {
        if !new.terms_of_service_agreed {
            return Err(Problem::new(403, "userActionRequired", "the terms of service were not agreed to"));
        }
        for contact in &new.contact {
            let address = contact.strip_prefix("mailto:").ok_or_else(|| {
                Problem::new(400, "unsupportedContact", format!("{contact} is no mailto: URL"))
            })?;
            if address.split('@').filter(|part| !part.is_empty()).count() != 2 || address.contains([',', '?'])
            {
                return Err(Problem::new(400, "invalidContact", format!("{contact} is not one address")));
            }
        }
        records.accounts.push(Account { key, contact: new.contact });
        (201, records.accounts.len() - 1)
    };
    let account = json!({ "status": "valid", "contact": records.accounts[number].contact });
    Ok(Answer::json(status, &account).with("Location", shared.url(&format!("/account/{number}"))))
}

/// Where an account is served.
struct Desk<'a> {
    shared: &'a Arc<Shared>,
    records: &'a mut Records,
    account: usize,
}

impl Desk<'_> {
    fn answer(&mut self, path: &[&str], payload: &[u8]) -> Outcome {
        let number = |text: &str| text.parse().map_err(|_| missing());
        match path {
            ["new-order"] => self.new_order(payload),
            ["order", order, "finalize"] => self.finalize(number(order)?, payload),
            ["challenge", one, kind] => self.challenge(number(one)?, kind, payload),
            _ if !payload.is_empty() => {
                Err(Problem::malformed("what is only read is asked for with no payload"))
            }
            ["order", order] => self.order(number(order)?),
            ["authorization", one] => self.authorization(number(one)?),
            ["certificate", one] => self.certificate(number(one)?),
            _ => Err(missing()),
        }
    }

    /// Refuses what is not there, and what is another account's.
    fn must_own(&self, owner: Option<usize>) -> Result<(), Problem> {
        match owner {
            None => Err(missing()),
            Some(owner) if owner != self.account => Err(Problem::unauthorized("it is another account's")),
            Some(_) => Ok(()),
        }
    }

    fn new_order(&mut self, payload: &[u8]) -> Outcome {
        #[derive(Deserialize)]
        struct NewOrder {
            identifiers: Vec<Identifier>,
        }
        #[derive(Deserialize)]
        struct Identifier {
            #[serde(rename = "type")]
            kind: String,
            value: String,
        }
        let new: NewOrder = jws::parse("the order", payload)?;
        if let Behaviour::RefuseOrders { status, kind, detail } = self.records.behaviour {
            return Err(Problem::new(status, kind, detail));
        }
        let mut names = Vec::new();
        for Identifier { kind, value } in new.identifiers {
            if kind != "dns" {
                return Err(Problem::new(400, "unsupportedIdentifier", format!("{kind} is not dns")));
            }
            // A wildcard is no such name: this challenge cannot prove it.
            let is_name = matches!(ServerName::try_from(&*value), Ok(ServerName::DnsName(_)));
            if !is_name
                || value != value.to_ascii_lowercase()
                || value.ends_with('.')
                || names.contains(&value)
            {
                return Err(Problem::new(
                    400,
                    "rejectedIdentifier",
                    format!("{value} is no name, or twice there"),
                ));
            }
            names.push(value);
        }
        if names.is_empty() {
            return Err(Problem::malformed("the order is for no name"));
        }
        let order = self.records.order(self.account, names);
        Ok(self.order_answer(201, order))
    }

    fn order_answer(&self, status: u16, order: usize) -> Answer {
        let answer = Answer::json(status, &self.records.order_json(self.shared, order))
            .with("Location", self.shared.url(&format!("/order/{order}")));
        let processing = self.records.status(order).0 == "processing";
        if processing { answer.with("Retry-After", "1") } else { answer }
    }

    fn order(&mut self, number: usize) -> Outcome {
        self.must_own(self.records.orders.get(number).map(|order| order.account))?;
        let answer = self.order_answer(200, number);
        let order = &mut self.records.orders[number];
        order.processing = order.processing.saturating_sub(1);
        Ok(answer)
    }

    fn finalize(&mut self, number: usize, payload: &[u8]) -> Outcome {
        #[derive(Deserialize)]
        struct Finalize {
            csr: String,
        }
        self.must_own(self.records.orders.get(number).map(|order| order.account))?;
        let status = self.records.status(number).0;
        if status != "ready" {
            return Err(Problem::new(403, "orderNotReady", format!("the order is {status}")));
        }
        let Finalize { csr } = jws::parse("the request to finalize", payload)?;
        let requested = Requested::read(&jws::decode("csr", &csr)?)?;
        requested.must_be_for(&self.records.orders[number].names.iter().cloned().collect::<BTreeSet<_>>())?;
        if requested.point == self.records.accounts[self.account].key.point() {
            return Err(Problem::bad_csr("the key is the account's"));
        }
        let chain = self.shared.issuer.issue(self.records, &requested);
        self.records.certificates.push(Certificate { account: self.account, chain });
        let order = &mut self.records.orders[number];
        order.certificate = Some(self.records.certificates.len() - 1);
        if let Behaviour::Processing(polls) = self.records.behaviour {
            order.processing = polls;
        }
        Ok(self.order_answer(200, number))
    }

    fn authorization(&self, number: usize) -> Outcome {
        self.must_own(self.records.authorizations.get(number).map(|one| one.account))?;
        Ok(Answer::json(200, &self.records.authorization_json(self.shared, number)))
    }

    /// Shows a challenge, or triggers its validation.
    fn challenge(&mut self, number: usize, kind: &str, payload: &[u8]) -> Outcome {
        self.must_own(self.records.authorizations.get(number).map(|one| one.account))?;
        if !CHALLENGES.contains(&kind) {
            return Err(missing());
        }
        if !payload.is_empty() {
            let object: serde_json::Value = jws::parse("the challenge's answer", payload)?;
            if object != json!({}) {
                return Err(Problem::malformed("the challenge's answer is not {}"));
            }
            if kind != "tls-alpn-01" {
                return Err(Problem::malformed(format!("{kind} is not validated here")));
            }
            // One that is being validated, or was, is not validated again.
            if matches!(self.records.authorizations[number].progress, Progress::Pending) {
                self.records.authorizations[number].progress = Progress::Validating;
                self.records.validations += 1;
                validation::begin(self.shared, self.records, number);
            }
        }
        let up = format!("<{}>;rel=\"up\"", self.shared.url(&format!("/authorization/{number}")));
        Ok(Answer::json(200, &self.records.challenge_json(self.shared, number, kind)).with("Link", up))
    }

    fn certificate(&self, number: usize) -> Outcome {
        self.must_own(self.records.certificates.get(number).map(|certificate| certificate.account))?;
        let chain = self.records.certificates[number].chain.clone();
        Ok(Answer::text(200, "application/pem-certificate-chain", chain))
    }
}

fn missing() -> Problem {
    Problem::new(404, "malformed", "it is not there")
}
