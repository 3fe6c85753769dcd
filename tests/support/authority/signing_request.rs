//! What a client wants certified (RFC 8555 § 7.4, RFC 2986).

use std::collections::BTreeSet;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::p256;
use super::problem::Problem;

/// A request that was signed with the key which it brings.
pub(super) struct Requested {
    /// The key.
    pub(super) point: Vec<u8>,
    /// The names for which a certificate is wanted.
    pub(super) names: BTreeSet<String>,
}

impl Requested {
    /// Reads one.
    pub(super) fn read(der: &[u8]) -> Result<Self, Problem> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| Problem::bad_csr(format!("it cannot be read: {error}")))?;
        if !rest.is_empty() {
            return Err(Problem::bad_csr("something follows it"));
        }
        let info = &request.certification_request_info;
        let not_p256 = || Problem::new(400, "badPublicKey", "the key to be certified is not on P-256");
        let point = p256::point(&info.subject_pki).ok_or_else(not_p256)?;
        let signature = &request.signature_value.data;
        if !p256::signed(&info.subject_pki, &request.signature_algorithm, info.raw, signature) {
            return Err(Problem::bad_csr("it is not signed with its key"));
        }
        let mut names = BTreeSet::new();
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(alternatives) = extension else { continue };
            for name in &alternatives.general_names {
                let GeneralName::DNSName(name) = name else {
                    return Err(Problem::bad_csr(format!("{name} is not a name in the DNS")));
                };
                names.insert((*name).to_owned());
            }
        }
        // A common name asks to be certified, too; a library's own default does so as well.
        for name in info.subject.iter_common_name() {
            let name = name.as_str().map_err(|_| Problem::bad_csr("the common name is no text"))?;
            names.insert(name.to_owned());
        }
        Ok(Self { point: point.to_vec(), names })
    }

    /// Refuses it unless it is for exactly the names of the order.
    pub(super) fn must_be_for(&self, ordered: &BTreeSet<String>) -> Result<(), Problem> {
        if self.names == *ordered {
            return Ok(());
        }
        Err(Problem::bad_csr(format!("it is for {:?}, the order for {ordered:?}", self.names)))
    }
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
