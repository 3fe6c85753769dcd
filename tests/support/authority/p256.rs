//! Keys on the curve P-256, and what was signed with them by ECDSA and SHA-256.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The object identifiers of a key on a curve, of the curve, and of the signature.
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const CURVE: &str = "1.2.840.10045.3.1.7";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// The point of a key in a certificate or a request, if it is one on this curve.
pub(super) fn point<'a>(key: &'a SubjectPublicKeyInfo<'_>) -> Option<&'a [u8]> {
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let known = key.algorithm.algorithm.to_id_string() == EC_PUBLIC_KEY && curve.to_id_string() == CURVE;
    known.then_some(&*key.subject_public_key.data)
}

/// Whether a certificate or a request was signed with this key.
pub(super) fn signed(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    algorithm.algorithm.to_id_string() == ECDSA_WITH_SHA256
        && point(key).is_some_and(|point| signed_in_asn1(point, message, signature))
}

/// Whether `message` was signed with the key at `point`, as TLS and X.509 write signatures.
pub(super) fn signed_in_asn1(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}

/// Whether `message` was signed with the key at `point`, as JOSE writes signatures.
pub(super) fn signed_in_fixed(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
}
