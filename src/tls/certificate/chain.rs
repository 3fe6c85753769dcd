//! A certificate with its issuers, and whether a client would take them from a server.
//!
//! A client has the root only, and finds its way there along what it is shown. A missing intermediate cannot be seen from
//! here: whether the issuer of the last certificate is a root depends on the client.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::flaw::Flaw;
use super::pem;
use crate::tls::Validity;

/// How many characters of a name in a certificate are told.
const SHOWN_NAME: usize = 100;

/// The relay's own certificate, and its issuers as far as they are known, each issued by the next.
#[derive(Clone, Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    spans: Vec<Span>,
    names: Vec<String>,
}

/// When a certificate holds.
#[derive(Clone, Debug)]
struct Span {
    /// Whose it is, for a message.
    subject: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Chain {
    /// Reads a chain in PEM, the own certificate first.
    ///
    /// # Errors
    /// No client would take it, whatever the time and the name.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Flaw> {
        let certificates = pem::read_chain(pem)?;
        let mut parsed = Vec::new();
        for (certificate, number) in certificates.iter().zip(1_usize..) {
            let bad = || if number == 1 { Flaw::BadCertificate } else { Flaw::BadIssuer(number) };
            match X509Certificate::from_der(certificate) {
                Ok(([], certificate)) => parsed.push(certificate),
                _ => return Err(bad()),
            }
        }
        let own = parsed.first().ok_or_else(|| Flaw::NoCertificate(Vec::new()))?;
        let names = names_of(own).ok_or(Flaw::BadCertificate)?;
        for (certificate, next) in parsed.iter().zip(parsed.iter().skip(1)) {
            // Clients compare the bytes.
            if certificate.issuer().as_raw() != next.subject().as_raw() {
                return Err(Flaw::Unlinked {
                    certificate: subject(certificate),
                    issuer: shown(certificate.issuer()),
                    next: subject(next),
                });
            }
        }
        if own.basic_constraints().map_err(|_| Flaw::BadCertificate)?.is_some_and(|found| found.value.ca) {
            return Err(Flaw::Authority);
        }
        let purposes = own.extended_key_usage().map_err(|_| Flaw::BadCertificate)?;
        if purposes.is_some_and(|found| !found.value.server_auth && !found.value.any) {
            return Err(Flaw::Purpose);
        }
        if names.is_empty() {
            return Err(Flaw::Nameless);
        }
        let spans = parsed.iter().map(Span::of).collect();
        Ok(Self { certificates, spans, names })
    }

    /// Whether a client would take it at this time, for each of these names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, now: SystemTime, domains: &[String]) -> Result<(), Flaw> {
        for (span, is_own) in self.spans.iter().zip([true].into_iter().chain(std::iter::repeat(false))) {
            if now > span.not_after {
                return Err(if is_own {
                    Flaw::Expired(span.not_after)
                } else {
                    Flaw::IssuerExpired(span.subject.clone(), span.not_after)
                });
            }
            if now < span.not_before {
                return Err(if is_own {
                    Flaw::NotYetValid(span.not_before)
                } else {
                    Flaw::IssuerNotYetValid(span.subject.clone(), span.not_before)
                });
            }
        }
        let own = self.certificates.first().ok_or(Flaw::BadCertificate)?;
        let own = ParsedCertificate::try_from(own).map_err(|_| Flaw::BadCertificate)?;
        let is_missing = |domain: &&String| {
            ServerName::try_from(domain.as_str())
                .map_or(true, |name| verify_server_name(&own, &name).is_err())
        };
        let missing: Vec<String> = domains.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(Flaw::Names { missing, present: self.names.clone() }) }
    }

    /// What a client is shown.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// How long all of it holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        let begin = self.spans.iter().map(|span| span.not_before).max().unwrap_or(UNIX_EPOCH);
        let not_after = self.not_after();
        Validity { lifetime: not_after.duration_since(begin).unwrap_or_default(), not_after }
    }

    /// When the first of it ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.spans.iter().map(|span| span.not_after).min().unwrap_or(UNIX_EPOCH)
    }

    /// Host names and addresses that it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Span {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            subject: subject(certificate),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
        }
    }
}

/// Whose a certificate is, for a message.
fn subject(certificate: &X509Certificate<'_>) -> String {
    let names = names_of(certificate).unwrap_or_default();
    match names.first() {
        // Authorities leave the subject of servers empty.
        Some(name) if certificate.subject().iter().next().is_none() => quote(name),
        _ => shown(certificate.subject()),
    }
}

fn shown(name: &X509Name<'_>) -> String {
    quote(&name.to_string())
}

/// What stands in a certificate can be anything.
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_NAME).collect();
    format!("\"{}\"", cut.escape_debug())
}

/// Host names and addresses that a certificate is for, as they stand in it; nothing if they cannot be read.
pub(crate) fn names_of(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let named = certificate.subject_alternative_name().ok()?;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    Some(named.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let short = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    short.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(at: ASN1Time) -> SystemTime {
    // Nobody's certificate ended before 1970.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    /// A certificate and its key, to issue others with.
    struct Made(rcgen::Certificate, KeyPair);

    fn params(subject: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !subject.is_empty() {
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        params
    }

    fn authority(subject: &str, issuer: Option<&Made>, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = params(subject, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(Made(certificate, signing)) => params.signed_by(&key, certificate, signing),
            None => params.self_signed(&key),
        };
        Made(certificate.unwrap(), key)
    }

    fn own(issuer: &Made) -> String {
        let key = KeyPair::generate().unwrap();
        params("", &["a.example"]).signed_by(&key, &issuer.0, &issuer.1).unwrap().pem()
    }

    fn alone(change: impl FnOnce(&mut CertificateParams)) -> Result<Chain, Flaw> {
        let mut params = params("me", &["a.example"]);
        change(&mut params);
        Chain::from_pem(params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().as_bytes())
    }

    #[test]
    fn each_certificate_of_a_chain_is_issued_by_the_next() {
        let root = authority("root", None, |_| ());
        let middle = authority("middle", Some(&root), |_| ());
        let other = authority("ot\u{1b}her", None, |_| ());
        let (own, root, middle, other) = (own(&middle), root.0.pem(), middle.0.pem(), other.0.pem());
        for good in [own.clone(), format!("{own}{middle}"), format!("{own}{middle}{root}")] {
            assert!(Chain::from_pem(good.as_bytes()).is_ok());
        }
        let flaw = |text: String| Chain::from_pem(text.as_bytes()).unwrap_err().to_string();
        let said = flaw(format!("{own}{root}"));
        assert!(
            said.starts_with(
                "is no chain: \"a.example\" was issued by \"CN=middle\", but \"CN=root\" stands"
            ),
            "{said}"
        );
        let said = flaw(format!("{own}{middle}{other}"));
        assert!(
            said.contains("\"CN=middle\" was issued by \"CN=root\", but \"CN=ot\\u{1b}her\" stands"),
            "{said}"
        );
        assert!(flaw(format!("{middle}{own}")).contains("\"CN=middle\" was issued by"));
        let garbage = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        assert_eq!(flaw(format!("{own}{garbage}")), "holds something that is not a certificate, in place 2");
        assert_eq!(flaw(format!("{garbage}{own}")), "holds something that is not a certificate");
    }

    #[test]
    fn a_chain_holds_as_long_as_each_of_it() {
        let day = |day: u8| rcgen::date_time_ymd(2024, 6, day);
        let root = authority("root", None, |_| ());
        let middle = authority("middle", Some(&root), |params| {
            (params.not_before, params.not_after) = (day(10), day(20));
        });
        let text = format!("{}{}", own(&middle), middle.0.pem());
        let chain = Chain::from_pem(text.as_bytes()).unwrap();
        assert_eq!(chain.not_after(), SystemTime::from(day(20)));
        assert_eq!(chain.validity().lifetime, Duration::from_secs(10 * 86_400));
        assert_eq!(chain.check(day(15).into(), &[]), Ok(()));
        let late = chain.check(day(21).into(), &[]).unwrap_err().to_string();
        assert!(late.starts_with("holds an issuer that expired: \"CN=middle\", on 2024-06-20T"), "{late}");
        let early = chain.check(day(9).into(), &[]).unwrap_err().to_string();
        assert!(
            early.starts_with("holds an issuer that is not valid before 2024-06-10T00:00:00Z: \"CN=middle\""),
            "{early}"
        );
    }

    #[test]
    fn the_certificate_of_a_server_is_no_authoritys_and_for_servers_and_names() {
        assert!(alone(|params| params.is_ca = IsCa::ExplicitNoCa).is_ok());
        let flaw = alone(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).unwrap_err();
        assert_eq!(flaw, Flaw::Authority);
        assert!(flaw.to_string().contains("-addext basicConstraints=critical,CA:FALSE"));
        let used = |usages: &[ExtendedKeyUsagePurpose]| {
            alone(|params| params.extended_key_usages = usages.to_vec()).map(drop)
        };
        assert_eq!(used(&[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]), Ok(()));
        assert_eq!(used(&[ExtendedKeyUsagePurpose::Any]), Ok(()));
        assert_eq!(used(&[ExtendedKeyUsagePurpose::ClientAuth]), Err(Flaw::Purpose));
        assert_eq!(alone(|params| params.subject_alt_names = Vec::new()).map(drop), Err(Flaw::Nameless));
        let mail = rcgen::SanType::Rfc822Name("a@a.example".try_into().unwrap());
        assert_eq!(alone(|params| params.subject_alt_names = vec![mail]).map(drop), Err(Flaw::Nameless));
    }
}
