//! Why there is no TLS with a relay, in words for whoever has to mend it: what is wrong, and what to do about it.

use std::io;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::answer::Beginning;
use super::certificate::{self, Certificate, listed, minute, span};
use super::dial::io_text;
use super::explain;
use super::target::Target;
use super::tls::{Shown, library_error};
use super::trust::Trust;

/// How much of the library's own words is shown, in characters: they may quote a peer.
const SHOWN_ERROR: usize = 200;

/// A handshake that did not come to its end.
pub(super) struct Attempt<'a> {
    pub(super) target: &'a Target,
    /// Who was asked for.
    pub(super) name: &'a ServerName<'static>,
    pub(super) trust: &'a Trust,
    /// The certificates that came.
    pub(super) shown: Shown,
    /// The first bytes that came.
    pub(super) beginning: Beginning,
}

impl Attempt<'_> {
    /// What this error means.
    pub(super) fn why(&self, error: &io::Error) -> String {
        let authority = self.target.authority();
        // Whatever the library makes of them: bytes that are no TLS record say all there is to say.
        if self.beginning.is_http() {
            return format!(
                "it answers in HTTP without TLS; probe ws://{authority} if that is the listener you mean"
            );
        }
        if self.beginning.is_not_tls() {
            return format!(
                "it answers, but not in TLS; is it the right port, or a listener without TLS (ws://{authority})?"
            );
        }
        match library_error(error) {
            Some(Error::InvalidCertificate(error)) => self.certificate(error),
            Some(Error::AlertReceived(alert)) => self.alert(*alert),
            Some(
                error @ Error::PeerIncompatible(
                    PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                    | PeerIncompatible::ServerDoesNotSupportTls12Or13,
                ),
            ) => format!("it speaks neither TLS 1.2 nor TLS 1.3 ({error})"),
            Some(error) => {
                let error = explain::clean(&error.to_string(), SHOWN_ERROR);
                format!(
                    "it does not speak TLS as it must ({error}); is it a relay, or does something else stand there?"
                )
            }
            None => format!(
                "the connection ended in the middle of the handshake ({}); does this port expect TLS at all (else \
                 ws://{authority}), or the PROXY protocol before it? A relay that is shutting down or full ends \
                 connections as well",
                io_text(error)
            ),
        }
    }

    fn alert(&self, alert: AlertDescription) -> String {
        match alert {
            AlertDescription::HandshakeFailure => self.no_certificate("handshake_failure"),
            AlertDescription::AccessDenied => self.no_certificate("access_denied"),
            AlertDescription::UnrecognisedName => self.no_certificate("unrecognized_name"),
            AlertDescription::NoApplicationProtocol => {
                "it offers no HTTP/1.1 (TLS alert no_application_protocol), which WebSocket needs; this is no relay's \
                 port, or a proxy stands there that speaks only other protocols"
                    .to_owned()
            }
            AlertDescription::ProtocolVersion => {
                "it speaks neither TLS 1.2 nor TLS 1.3 (TLS alert protocol_version); is it a relay, or an old server \
                 or proxy before it?"
                    .to_owned()
            }
            AlertDescription::CertificateRequired => {
                "it wants a certificate of its clients (TLS alert certificate_required); a relay wants none, so \
                 something else stands there"
                    .to_owned()
            }
            AlertDescription::Unknown(code) => broken_off(&code.to_string()),
            other => broken_off(&format!("{other:?}")),
        }
    }

    fn no_certificate(&self, alert: &str) -> String {
        match self.name {
            ServerName::DnsName(_) => format!(
                "it has no certificate for the name {} (TLS alert {alert}), or none yet: the name must be one of the \
                 relay's tls.domains, and a relay that waits for its first certificate from ACME has none (see its \
                 log)",
                self.target.host()
            ),
            _ => format!(
                "it has no certificate for an IP address (TLS alert {alert}), or none yet: probe the relay by one of \
                 its tls.domains; and one that waits for its first certificate from ACME has none (see its log)"
            ),
        }
    }

    fn certificate(&self, error: &CertificateError) -> String {
        let now = certificate::now();
        match error {
            CertificateError::ExpiredContext { not_after, .. } => self.expired(seconds(*not_after), now),
            CertificateError::NotValidYetContext { not_before, .. } => {
                let not_before = seconds(*not_before);
                format!(
                    "its certificate is not valid before {} (in {}); this host's clock says {}. Set the clock if it \
                     is wrong; else the relay needs a certificate that is valid already",
                    minute(not_before),
                    span(not_before.saturating_sub(now)),
                    minute(now)
                )
            }
            CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => {
                self.other_names()
            }
            CertificateError::UnknownIssuer => self.unknown_issuer(),
            CertificateError::BadSignature if self.shown.trusted => {
                "it does not have the key of the certificate that it shows; give the relay the key and the \
                 certificate that belong together"
                    .to_owned()
            }
            CertificateError::BadSignature => format!(
                "its certificate is not signed by the key that {} has for \"{}\"; either that authority was made \
                 anew under the same name and one of the two is old, or the certificate is damaged or forged",
                self.trust,
                self.leaf().map(|leaf| leaf.issuer).unwrap_or_default()
            ),
            CertificateError::InvalidPurposeContext { presented, .. } => {
                let allowed: Vec<String> = presented.iter().map(ToString::to_string).collect();
                let allowed = explain::clean(&allowed.join(", "), SHOWN_ERROR);
                wrong_purpose(&format!("is for {allowed} only"))
            }
            CertificateError::InvalidPurpose => wrong_purpose("is for another purpose"),
            CertificateError::BadEncoding => {
                "its certificate is damaged; give the relay the one that its authority issued".to_owned()
            }
            CertificateError::Other(other) => self.other(&other.0.to_string()),
            other => refused(&other.to_string()),
        }
    }

    /// What the library has no error of its own for. It is named in the words of the verifier beneath.
    fn other(&self, error: &str) -> String {
        match error {
            "CaUsedAsEndEntity" => format!(
                "it shows the certificate of an authority (CA:TRUE) as its own{}; issue one for the relay with it, or \
                 make a self-signed one that is none (openssl req -x509 -addext basicConstraints=critical,CA:FALSE)",
                match self.leaf() {
                    Some(leaf) => format!(", that of \"{}\"", leaf.subject),
                    None => String::new(),
                }
            ),
            "EndEntityUsedAsCa" => {
                "a certificate in its chain was issued with one that is no authority's (CA:FALSE); give the relay a \
                 certificate that an authority issued"
                    .to_owned()
            }
            "EmptyEkuExtension" => wrong_purpose("is for no purpose at all"),
            "NameConstraintViolation" => {
                "its certificate is for names that the authority in its chain may not vouch for (name constraints)"
                    .to_owned()
            }
            "UnsupportedCertVersion" => {
                "its certificate, or one in its chain, has not version 3 of X.509, so it can have no names; make it \
                 with extensions (openssl x509 -req needs -extfile for that)"
                    .to_owned()
            }
            other => refused(other),
        }
    }

    fn expired(&self, not_after: i64, now: i64) -> String {
        let leaf = self.leaf().is_none_or(|leaf| leaf.not_after == not_after);
        let above = self.above().into_iter().find(|one| one.not_after == not_after);
        let (what, then) = match above {
            Some(above) if !leaf => (
                format!("the certificate of \"{}\" in its chain", above.subject),
                "give the relay the chain that its authority hands out today",
            ),
            _ => (
                "its certificate".to_owned(),
                "the relay needs a new one; if it was renewed already, the relay has not loaded it (see its log)",
            ),
        };
        format!(
            "{what} expired on {} ({} ago): {then}. This host's clock says {}",
            minute(not_after),
            span(now.saturating_sub(not_after)),
            minute(now)
        )
    }

    fn other_names(&self) -> String {
        let host = self.target.host();
        match self.leaf().map(|leaf| leaf.names) {
            Some(names) if !names.is_empty() => format!(
                "its certificate is for {}, not for {host}; probe it by a name that it has, or give the relay a \
                 certificate for this one",
                listed(&names)
            ),
            _ => format!(
                "its certificate names no host (its subjectAltName is empty, and a common name does not count); give \
                 the relay one for {host}"
            ),
        }
    }

    fn unknown_issuer(&self) -> String {
        let (Some(leaf), Some(encoded)) = (self.leaf(), self.shown.chain.first()) else {
            return refused("UnknownIssuer");
        };
        let trust = self.trust;
        if leaf.is_self_issued() {
            return match trust {
                Trust::System => format!(
                    "its certificate is self-signed, so nothing in {trust} vouches for it; if it is yours, name its \
                     file with --ca"
                ),
                Trust::File { .. } => {
                    format!("its certificate is self-signed, and it is not the one in {trust}")
                }
            };
        }
        if trust.holds(encoded) {
            return format!(
                "{trust} holds the relay's own certificate; it must hold that of its issuer, \"{}\"",
                leaf.issuer
            );
        }
        let above = self.above();
        let mut top = &leaf;
        // No longer than the chain, whatever circles it describes.
        for _ in &above {
            match above.iter().find(|one| top.names_as_issuer(one)) {
                Some(issuer) if !top.is_self_issued() => top = issuer,
                _ => break,
            }
        }
        let missing = &top.issuer;
        let sent = self.shown.chain.len();
        let what = if above.iter().any(|one| leaf.names_as_issuer(one)) {
            format!(
                "its chain of {sent} certificates ends with one issued by \"{missing}\", which is not in {trust}"
            )
        } else {
            let others = match sent {
                1 => "The relay sent no other certificate",
                _ => "None of the other certificates that the relay sent is that authority's",
            };
            format!(
                "its certificate was issued by \"{missing}\", which is not in {trust}. {others}, so its chain may be \
                 incomplete: if \"{missing}\" is an intermediate authority, give the relay the whole chain (a \
                 fullchain.pem)"
            )
        };
        format!("{what}. If it is an authority of your own, name the file of its certificate with --ca")
    }

    /// The relay's own certificate.
    fn leaf(&self) -> Option<Certificate> {
        self.shown.chain.first().and_then(Certificate::read)
    }

    /// The certificates that came with it.
    fn above(&self) -> Vec<Certificate> {
        self.shown.chain.iter().skip(1).filter_map(Certificate::read).collect()
    }
}

fn broken_off(alert: &str) -> String {
    format!("it broke the handshake off with the TLS alert {alert}; its log may say why")
}

fn wrong_purpose(what: &str) -> String {
    format!(
        "its certificate {what}, and must be for server authentication (extendedKeyUsage serverAuth); give the relay \
         one for servers"
    )
}

fn refused(error: &str) -> String {
    format!("its certificate is refused ({})", explain::clean(error, SHOWN_ERROR))
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
