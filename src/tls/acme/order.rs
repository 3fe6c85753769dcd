//! One order: from asking for a certificate to having it (RFC 8555 § 7.1).
//!
//! The messages are `rustls-acme`'s. The order of the steps, the deadlines (it has none) and the judgement about what comes
//! back are here: a certificate is only taken if a client would take it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_io::Timer;
use futures_lite::future;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls_acme::acme::{
    Account, AcmeError, Auth, AuthStatus, Directory, Identifier, Order, OrderStatus, Problem,
};
use serde::Deserialize;

use crate::tls::certificate::Certificate;
use crate::tls::{Challenge, Challenges};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// How many nonces one request may use up.
const NONCES: u32 = 4;

/// Pauses between two looks at something that the authority works on: about three minutes in all.
const LOOKS: [u64; 10] = [1, 1, 2, 4, 8, 15, 30, 30, 45, 45];

/// What to order.
pub(super) struct Wanted<'a> {
    pub(super) directory: &'a str,
    pub(super) domains: &'a [String],
    pub(super) contact: Option<&'a String>,
    pub(super) account: &'a [u8],
    pub(super) client: &'a Arc<ClientConfig>,
    pub(super) challenges: &'a Arc<Challenges>,
}

/// What came of it, ready to be shown and to be kept.
pub(super) struct Issued {
    pub(super) certificate: Certificate,
    pub(super) key: String,
    pub(super) chain: String,
}

/// Orders a certificate.
///
/// # Errors
/// Why there is none, in one line.
pub(super) async fn order(wanted: &Wanted<'_>) -> Result<Issued, String> {
    let directory = request("its directory", || Directory::discover(wanted.client, wanted.directory)).await?;
    let contact: Vec<&String> = wanted.contact.into_iter().collect();
    let account = request("an account", || {
        let contact = contact.iter().copied();
        Account::create_with_keypair(wanted.client, directory.clone(), contact, wanted.account)
    })
    .await?;
    let (url, order) =
        request("an order", || account.new_order(wanted.client, wanted.domains.to_vec())).await?;
    authorize(wanted, &account, &order).await?;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed("make a key", &error))?;
    let order = settle(wanted, &account, &url, |status| matches!(status, OrderStatus::Pending)).await?;
    let order = match order.status {
        OrderStatus::Ready => {
            let csr = signing_request(wanted.domains, &key)
                .map_err(|error| failed("make a signing request", &error))?;
            request("to sign the certificate", || account.finalize(wanted.client, &order.finalize, &csr))
                .await?
        }
        _ => return Err(refused("the order was not accepted", order.error.as_ref())),
    };
    let order = match order.status {
        OrderStatus::Processing => {
            settle(wanted, &account, &url, |status| matches!(status, OrderStatus::Processing)).await?
        }
        _ => order,
    };
    let OrderStatus::Valid { certificate } = order.status else {
        return Err(refused("the certificate was not issued", order.error.as_ref()));
    };
    let chain = request("the certificate", || account.certificate(wanted.client, &certificate)).await?;
    let key = key.serialize_pem();
    let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes());
    let certificate =
        certificate.and_then(|issued| issued.check(SystemTime::now(), wanted.domains).map(|()| issued));
    let certificate =
        certificate.map_err(|flaw| format!("the certificate that was issued cannot be used: it {flaw}"))?;
    Ok(Issued { certificate, key, chain })
}

/// Proves to the authority that each name leads here.
async fn authorize(wanted: &Wanted<'_>, account: &Account, order: &Order) -> Result<(), String> {
    for url in &order.authorizations {
        let auth = request("an authorization", || account.auth(wanted.client, url)).await?;
        if matches!(auth.status, AuthStatus::Valid) {
            continue;
        }
        let Identifier::Dns(domain) = &auth.identifier;
        let (challenge, _shown) = show(wanted, account, &auth, domain)?;
        request("to look", || account.challenge(wanted.client, &challenge)).await?;
        look(wanted, account, url, domain).await?;
    }
    Ok(())
}

/// Shows the answer to the challenge, until it is dropped.
fn show(
    wanted: &Wanted<'_>,
    account: &Account,
    auth: &Auth,
    domain: &str,
) -> Result<(String, Challenge), String> {
    if !matches!(auth.status, AuthStatus::Pending) {
        return Err(unproven(domain, auth));
    }
    let (challenge, key) = account
        .tls_alpn_01(&auth.challenges, domain.to_owned())
        .map_err(|error| format!("{domain} cannot be proven: {}", explain(&error)))?;
    let url = challenge.url.clone();
    Ok((url, wanted.challenges.set(domain.to_ascii_lowercase(), Arc::new(key))))
}

/// Waits until the authority has looked.
async fn look(wanted: &Wanted<'_>, account: &Account, url: &str, domain: &str) -> Result<(), String> {
    for pause in LOOKS {
        Timer::after(Duration::from_secs(pause)).await;
        let auth = request("an authorization", || account.auth(wanted.client, url)).await?;
        match auth.status {
            AuthStatus::Valid => return Ok(()),
            AuthStatus::Pending => {}
            _ => return Err(unproven(domain, &auth)),
        }
    }
    Err(format!("the authority did not come to a result about {domain}"))
}

/// The order, as soon as it has left a status that is its business.
async fn settle(
    wanted: &Wanted<'_>,
    account: &Account,
    url: &str,
    is_busy: impl Fn(&OrderStatus) -> bool,
) -> Result<Order, String> {
    for pause in LOOKS {
        let order = request("the order", || account.order(wanted.client, url)).await?;
        if !is_busy(&order.status) {
            return Ok(order);
        }
        Timer::after(Duration::from_secs(pause)).await;
    }
    Err("the authority did not come to a result about the order".to_owned())
}

fn signing_request(domains: &[String], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(domains)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// One request, within its time. An authority may have forgotten the nonce that it gave out for it, and then takes the next
/// one (RFC 8555 § 6.5).
async fn request<T, F>(what: &str, asking: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, AcmeError>>,
{
    let answered = async {
        let mut tries = 0;
        loop {
            tries += 1;
            match asking().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let cause = explain(&error);
                    if tries >= NONCES || !cause.contains("badNonce") {
                        return Err(format!("asked for {what}: {cause}"));
                    }
                }
            }
        }
    };
    let late = async {
        Timer::after(REQUEST).await;
        Err(format!("asked for {what}: no answer within {} s", REQUEST.as_secs()))
    };
    future::or(answered, late).await
}

fn failed(what: &str, error: &dyn Display) -> String {
    format!("cannot {what}: {error}")
}

/// Why a name was not proven: what the authority says about the way that was tried.
fn unproven(domain: &str, auth: &Auth) -> String {
    let told = auth.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    let what =
        format!("the authority could not see that {domain} leads to this relay (port 443, TLS-ALPN-01)");
    refused(&what, told)
}

fn refused(what: &str, told: Option<&Problem>) -> String {
    match told {
        Some(problem) => format!("{what}: {}", told_as(problem.typ.as_deref(), problem.detail.as_deref())),
        None => what.to_owned(),
    }
}

/// A problem document (RFC 7807) in one line.
fn told_as(kind: Option<&str>, detail: Option<&str>) -> String {
    let kind = kind.map(|kind| kind.rsplit(':').next().unwrap_or(kind));
    match (kind, detail) {
        (Some(kind), Some(detail)) => format!("{kind}: {detail}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "no reason was given".to_owned(),
    }
}

/// A problem document, as far as it is of use.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: Option<String>,
    detail: Option<String>,
}

/// What went wrong. If the authority answered with a problem document, that; the library has it only within its own text.
fn explain(error: &AcmeError) -> String {
    const STATUS: &str = "non 2xx http status: ";
    let text = error.to_string();
    let told = text.split_once(STATUS).and_then(|(_, rest)| {
        let (status, body) = rest.split_once(' ')?;
        let body: String = serde_json::from_str(body).ok()?;
        let told: Told = serde_json::from_str(&body).ok()?;
        Some(format!("{status} {}", told_as(told.kind.as_deref(), told.detail.as_deref())))
    });
    told.or_else(|| plainly(&text)).unwrap_or(text)
}

/// What the operating system or TLS said, out of a text that shows how the library nests its errors.
fn plainly(text: &str) -> Option<String> {
    let between =
        |before: &str, after: char| Some(text.split_once(before)?.1.split_once(after)?.0.to_owned());
    if let Some(verdict) = between("InvalidCertificate(", ')') {
        return Some(format!(
            "the certificate of its server is not trusted ({verdict}); one of an authority of your own needs tls.directory_ca"
        ));
    }
    between("message: \"", '"').or_else(|| between("error: \"", '"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_nests_is_told_plainly() {
        for (text, expected) in [
            (
                "http request error: http error: ConnectError(TcpConnect(Os { code: 111, kind: ConnectionRefused, \
                 message: \"Connection refused\" }))",
                Some("Connection refused"),
            ),
            (
                "http error: ConnectError(TcpConnect(Custom { kind: Uncategorized, error: \"failed to lookup\" }))",
                Some("failed to lookup"),
            ),
            ("JSON error: expected value at line 1 column 1", None),
        ] {
            assert_eq!(plainly(text).as_deref(), expected, "{text}");
        }
        let untrusted = "ConnectError(TlsConnect(Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }))";
        let told = plainly(untrusted).unwrap();
        assert!(told.contains("not trusted (UnknownIssuer)") && told.contains("tls.directory_ca"), "{told}");
    }

    #[test]
    fn a_problem_document_is_told_in_a_line() {
        let told = |kind, detail| told_as(kind, detail);
        assert_eq!(told(Some("urn:ietf:params:acme:error:dns"), Some("no A record")), "dns: no A record");
        assert_eq!(told(None, Some("no A record")), "no A record");
        assert_eq!(told(None, None), "no reason was given");
    }
}
