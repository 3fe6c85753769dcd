//! What a certificate says of itself: whose it is, who issued it, until when it is valid.
//!
//! Nothing here is a verdict; that is the verifier's. Names come from a stranger and are made fit for a terminal as
//! they are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::explain;
use crate::tls::certificate::names_of;

/// How much of a name is shown, in characters: as much as DNS allows.
const SHOWN_NAME: usize = 253;

/// How many names of a certificate are shown.
const SHOWN_NAMES: usize = 4;

/// The parts of a certificate that explain a verdict on it.
pub(super) struct Certificate {
    /// The host names and addresses that it is for.
    pub(super) names: Vec<String>,
    /// Whose it is, for a terminal.
    pub(super) subject: String,
    /// Who issued it, for a terminal.
    pub(super) issuer: String,
    /// Its last moment, in seconds since 1970.
    pub(super) not_after: i64,
    subject_as_encoded: Vec<u8>,
    issuer_as_encoded: Vec<u8>,
}

impl Certificate {
    /// Nothing if it is no X.509 certificate.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (subject, issuer) = (certificate.subject(), certificate.issuer());
        Some(Self {
            names: names(&certificate),
            subject: title(subject),
            issuer: title(issuer),
            not_after: certificate.validity().not_after.timestamp(),
            subject_as_encoded: subject.as_raw().to_vec(),
            issuer_as_encoded: issuer.as_raw().to_vec(),
        })
    }

    /// Whether it names itself as its issuer.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject_as_encoded == self.issuer_as_encoded
    }

    /// Whether `other` has the name of its issuer.
    pub(super) fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer_as_encoded == other.subject_as_encoded
    }
}

/// Some names for a line of text.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.get(..SHOWN_NAMES).unwrap_or(names).join(", ");
    match names.len().saturating_sub(SHOWN_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = names_of(certificate).unwrap_or_default();
    names.iter().map(|name| explain::clean(name, SHOWN_NAME)).collect()
}

/// The common name, or the whole name where there is none.
fn title(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    explain::clean(&common.map_or_else(|| name.to_string(), ToOwned::to_owned), SHOWN_NAME)
}

/// Now, in seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The day of a moment, such as `2027-02-26`.
pub(super) fn day(seconds: i64) -> String {
    moment(seconds).map_or_else(|| "a day that no calendar has".to_owned(), |(day, _)| day)
}

/// A moment for a person, such as `2027-02-26 09:30 UTC`.
pub(super) fn minute(seconds: i64) -> String {
    let written = moment(seconds).map(|(day, (hour, minute, _))| format!("{day} {hour:02}:{minute:02} UTC"));
    written.unwrap_or_else(|| "a time that no calendar has".to_owned())
}

/// A moment for a program, such as `2027-02-26T09:30:00Z`.
pub(super) fn rfc3339(seconds: i64) -> Option<String> {
    moment(seconds).map(|(day, (hour, minute, second))| format!("{day}T{hour:02}:{minute:02}:{second:02}Z"))
}

fn moment(seconds: i64) -> Option<(String, (u8, u8, u8))> {
    let moment = ASN1Time::from_timestamp(seconds).ok()?.to_datetime();
    let day = format!("{:04}-{:02}-{:02}", moment.year(), u8::from(moment.month()), moment.day());
    Some((day, (moment.hour(), moment.minute(), moment.second())))
}

/// A time between two moments, in the unit that says most.
pub(super) fn span(seconds: i64) -> String {
    let counted = |count: i64, unit: &str| match count {
        1 => format!("1 {unit}"),
        _ => format!("{count} {unit}s"),
    };
    match seconds {
        ..60 => counted(seconds.max(0), "second"),
        60..3_600 => counted(seconds / 60, "minute"),
        3_600..86_400 => counted(seconds / 3_600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_for_people_and_for_programs() {
        let seconds = 1_803_633_005;
        assert_eq!(day(seconds), "2027-02-26");
        assert_eq!(minute(seconds), "2027-02-26 09:10 UTC");
        assert_eq!(rfc3339(seconds).as_deref(), Some("2027-02-26T09:10:05Z"));
        assert_eq!(rfc3339(253_402_300_799).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!(rfc3339(i64::MAX), None);
        assert!(minute(i64::MIN).contains("no calendar"));
        assert!(now() > 1_700_000_000);
    }

    #[test]
    fn a_span_is_in_the_unit_that_says_most() {
        for (seconds, expected) in [
            (-5, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (7_200, "2 hours"),
            (86_399, "23 hours"),
            (86_400, "1 day"),
            (90 * 86_400 + 5, "90 days"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
        assert!(span(i64::MAX).ends_with(" days"));
    }

    #[test]
    fn only_some_of_many_names_are_shown() {
        let names: Vec<String> = (1..=6).map(|number| format!("n{number}")).collect();
        assert_eq!(listed(&names), "n1, n2, n3, n4 and 2 more");
        assert_eq!(listed(names.get(..4).unwrap()), "n1, n2, n3, n4");
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert!(Certificate::read(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])).is_none());
        assert!(Certificate::read(&CertificateDer::from(Vec::new())).is_none());
    }

    #[test]
    fn a_stranger_s_names_are_made_fit_for_a_terminal() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["10.0.0.1".to_owned()]).unwrap();
        let strange = "a\u{1b}[2Jb".try_into().unwrap();
        parameters.subject_alt_names.push(rcgen::SanType::DnsName(strange));
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "c\u{1b}[31m");
        let made = parameters.self_signed(&key).unwrap();
        let read = Certificate::read(made.der()).unwrap();
        assert_eq!(read.names, ["10.0.0.1", "a\\u{1b}[2Jb"]);
        assert_eq!(read.subject, "c\\u{1b}[31m");
        assert!(read.is_self_issued() && read.names_as_issuer(&read));
    }
}
