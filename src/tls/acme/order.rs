//! One order: from asking for a certificate to having it (RFC 8555 § 7.1).
//!
//! All names are proven side by side. What comes back is judged as far as it depends on the authority; whether its time
//! has come depends on the clock of this host, and is for the caller.

use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use serde_json::json;

use super::account::AccountKey;
use super::failure::{Failure, Problem};
use super::session::Session;
use crate::tls::{Challenge, Challenges};

/// Pauses between two looks at something that the authority works on: about three minutes in all.
const LOOKS: [u64; 11] = [0, 1, 1, 2, 4, 8, 15, 30, 30, 45, 45];

/// How an order or an authorization stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Order {
    status: Status,
    #[serde(default)]
    authorizations: Vec<String>,
    finalize: String,
    certificate: Option<String>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Authorization {
    status: Status,
    identifier: Identifier,
    #[serde(default)]
    challenges: Vec<Offer>,
}

#[derive(Deserialize)]
struct Identifier {
    value: String,
}

/// A way to prove a name.
#[derive(Deserialize)]
struct Offer {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(default)]
    token: String,
    error: Option<Problem>,
}

/// A certificate, in PEM.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) key: String,
    pub(super) chain: String,
}

/// Orders a certificate for these names.
pub(super) async fn order(
    session: &mut Session<'_>,
    account: &AccountKey,
    domains: &[String],
    challenges: &Arc<Challenges>,
) -> Result<Issued, Failure> {
    let (url, order): (_, Order) = session.order(domains).await?;
    authorize(session, account, &order, challenges).await?;

    let order = settle(session, &url, Status::Pending).await?;
    if order.status != Status::Ready && order.status != Status::Valid {
        return Err(refused("the order was not accepted", order.error.as_ref()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| internal(&error))?;
    let csr = signing_request(domains, &key).map_err(|error| internal(&error))?;
    let wanted = json!({ "csr": BASE64URL_NOPAD.encode(&csr) }).to_string();
    match session.post("its signature", &order.finalize, &wanted).await {
        // It may have come through all the same: the order tells.
        Err(failure) if failure.is_passing() => {}
        other => drop(other?),
    }
    let order = settle(session, &url, Status::Processing).await?;
    let (Status::Valid, Some(certificate)) = (order.status, order.certificate) else {
        return Err(refused("the certificate was not issued", order.error.as_ref()));
    };
    let chain = session.text("the certificate", &certificate).await?;
    Ok(Issued { key: key.serialize_pem(), chain })
}

/// Proves to the authority that each name leads here.
async fn authorize(
    session: &mut Session<'_>,
    account: &AccountKey,
    order: &Order,
    challenges: &Arc<Challenges>,
) -> Result<(), Failure> {
    let mut under_way = Vec::new();
    for url in &order.authorizations {
        let found: Authorization = session.get("an authorization", url).await?;
        if found.status == Status::Valid {
            continue;
        }
        let shown = show(account, &found, challenges)?;
        under_way.push((url, found, shown));
    }
    for (_, found, _) in &under_way {
        if let Some(offer) = offered(found) {
            session.post("to look", &offer.url, "{}").await?;
        }
    }
    for (url, found, _shown) in &under_way {
        look(session, url, &found.identifier.value).await?;
    }
    Ok(())
}

fn offered(found: &Authorization) -> Option<&Offer> {
    found.challenges.iter().find(|offer| offer.kind == "tls-alpn-01")
}

/// Shows the answer to the challenge, until it is dropped.
fn show(
    account: &AccountKey,
    found: &Authorization,
    challenges: &Arc<Challenges>,
) -> Result<Challenge, Failure> {
    let domain = &found.identifier.value;
    if found.status != Status::Pending {
        return Err(Failure::lasting(format!("the authority has no open authorization for {domain}")));
    }
    let offer = offered(found).ok_or_else(|| {
        Failure::lasting(format!(
            "the authority does not prove {domain} by TLS-ALPN-01, which is all that there is here"
        ))
    })?;
    let answer = answer(domain, &account.proof(&offer.token)).map_err(|error| internal(&error))?;
    Ok(challenges.set(domain.to_ascii_lowercase(), Arc::new(answer)))
}

/// The certificate that answers a challenge (RFC 8737 § 3).
fn answer(domain: &str, proof: &[u8]) -> Result<CertifiedKey, rcgen::Error> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(proof)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = any_ecdsa_type(&der).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

/// Waits until the authority has looked.
async fn look(session: &mut Session<'_>, url: &str, domain: &str) -> Result<(), Failure> {
    for pause in LOOKS {
        Timer::after(Duration::from_secs(pause)).await;
        let found: Authorization = session.get("an authorization", url).await?;
        match found.status {
            Status::Valid => return Ok(()),
            Status::Pending | Status::Processing => {}
            Status::Ready | Status::Other => {
                let told = found.challenges.iter().find_map(|offer| offer.error.as_ref());
                let what = format!(
                    "the authority could not see that {domain} leads to this relay (port 443, TLS-ALPN-01)"
                );
                return Err(refused(&what, told));
            }
        }
    }
    Err(Failure::passing(format!("the authority did not come to a result about {domain}")))
}

/// The order, as soon as it is not `busy` any more.
async fn settle(session: &mut Session<'_>, url: &str, busy: Status) -> Result<Order, Failure> {
    for pause in LOOKS {
        Timer::after(Duration::from_secs(pause)).await;
        let order: Order = session.get("the order", url).await?;
        if order.status != busy {
            return Ok(order);
        }
    }
    Err(Failure::passing("the authority did not come to a result about the order".to_owned()))
}

fn signing_request(domains: &[String], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(domains)?;
    // Without it, the request would ask for the library's own common name.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn internal(error: &rcgen::Error) -> Failure {
    Failure::passing(format!("cannot make a key or a request: {error}"))
}

fn refused(what: &str, told: Option<&Problem>) -> Failure {
    Failure::lasting(match told {
        Some(problem) => format!("{what}: {problem}"),
        None => what.to_owned(),
    })
}
