//! Certificates and keys out of text in PEM, and what is wrong with a text that has none.
//!
//! The parser passes over what does not begin like PEM. So a first certificate behind a byte order mark, or one that is
//! indented, would be left out without a word, and what follows be taken for it: such a text is refused before it is parsed.

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::flaw::{Flaw, Form};

/// Every certificate of a text in PEM; at least one.
///
/// # Errors
/// There is none, or one is damaged.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    if let Some(form) = unlike_pem(pem) {
        return Err(Flaw::CertificateForm(form));
    }
    if is_der(pem) {
        let is_certificate = X509Certificate::from_der(pem).is_ok();
        return Err(Flaw::CertificateForm(if is_certificate { Form::DerCertificate } else { Form::Binary }));
    }
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Flaw::Damaged)?;
    if chain.is_empty() { Err(Flaw::NoCertificate(labels(pem))) } else { Ok(chain) }
}

/// The first key of a text in PEM.
///
/// # Errors
/// There is none, it is damaged, or it needs a passphrase.
pub(super) fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    if let Some(form) = unlike_pem(pem) {
        return Err(Flaw::KeyForm(form));
    }
    if is_der(pem) {
        let is_certificate = X509Certificate::from_der(pem).is_ok();
        return Err(if is_certificate {
            Flaw::NoKey(vec!["a certificate in binary (DER)".to_owned()])
        } else {
            Flaw::KeyForm(Form::DerKey)
        });
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let found = labels(pem);
        if found.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") {
            return Flaw::EncryptedKey;
        }
        // The old form keeps the label of a plain key.
        if find(pem, b"Proc-Type: 4,ENCRYPTED") {
            return Flaw::EncryptedKey;
        }
        match error {
            PemError::NoItemsFound => Flaw::NoKey(found),
            _ => Flaw::DamagedKey,
        }
    })
}

/// How a text is written that the parser would misunderstand. Spaces between the markers do not matter to it.
fn unlike_pem(text: &[u8]) -> Option<Form> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Some(Form::ByteOrderMark);
    }
    // With the mark of either order, or without one.
    let utf16: [&[u8]; 4] = [b"\xff\xfe", b"\xfe\xff", b"-\0-\0", b"\0-\0-"];
    if utf16.iter().any(|begin| text.starts_with(begin)) {
        return Some(Form::Utf16);
    }
    let marker = |line: &[u8]| {
        let trimmed = line.trim_ascii_start();
        trimmed.len() < line.len()
            && (trimmed.starts_with(b"-----BEGIN ") || trimmed.starts_with(b"-----END "))
    };
    lines(text).any(marker).then_some(Form::Indented)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r'))
}

/// Whether it begins as a certificate or a key in DER does: with a sequence of at least 128 bytes, or an Ed25519 key's of 46
/// to 83. In text, the second byte would be a printable one, and what follows too.
fn is_der(text: &[u8]) -> bool {
    match text {
        [0x30, 0x81..=0x84, ..] => true,
        [0x30, length, 0x02, 0x01, 0..=1, ..] => text.len() == usize::from(*length).saturating_add(2),
        _ => false,
    }
}

/// The most labels that are told.
const LABELS: usize = 4;

/// What the BEGIN lines of a text announce, as far as they do so in the characters of labels.
fn labels(pem: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(pem);
    let label = |line: &str| {
        let label = line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        let plain =
            label.len() <= 40 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
        plain.then(|| label.to_owned())
    };
    let mut found: Vec<_> = text.lines().filter_map(label).take(LABELS).collect();
    found.dedup();
    found
}

fn find(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_quite_pem_is_called_what_it_is_and_how_to_convert_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let edwards = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let chain = made.self_signed(&key).unwrap();
        let (chain_pem, key_pem) = (chain.pem(), key.serialize_pem());
        assert!(read_chain(chain_pem.as_bytes()).is_ok() && read_key(key_pem.as_bytes()).is_ok());
        let wide = |text: &str, little: bool, mark: bool| {
            let mark = mark.then_some('\u{feff}');
            let units =
                mark.into_iter().chain(text.chars()).map(|unit| u16::try_from(u32::from(unit)).unwrap());
            units
                .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
                .collect::<Vec<_>>()
        };
        let spaced = |text: &str| text.replace('\n', "\n  ").into_bytes();
        let body_spaced = |text: &str| text.replace('\n', "\n ").replace(" -----", "-----").into_bytes();
        for (form, chain, key) in [
            (Form::ByteOrderMark, format!("\u{feff}{chain_pem}").into(), format!("\u{feff}{key_pem}").into()),
            (Form::Utf16, wide(&chain_pem, true, true), wide(&key_pem, false, true)),
            (Form::Utf16, wide(&chain_pem, false, false), wide(&key_pem, true, false)),
            (Form::Indented, spaced(&chain_pem), spaced(&key_pem)),
            // A second certificate would be passed over, if it were indented.
            (Form::Indented, format!("{chain_pem}  {chain_pem}").into(), format!("\t{key_pem}").into()),
        ] {
            assert_eq!(read_chain(&chain).unwrap_err(), Flaw::CertificateForm(form));
            let flaw = read_key(&key).unwrap_err();
            assert!(flaw == Flaw::KeyForm(form) && flaw.is_of_key(), "{flaw:?}");
        }
        assert!(read_chain(&body_spaced(&chain_pem)).is_ok() && read_key(&body_spaced(&key_pem)).is_ok());
        let flaw = read_chain(chain.der()).unwrap_err().to_string();
        assert!(flaw.ends_with("convert it: openssl x509 -inform der -in OLD -out NEW"), "{flaw}");
        for key in [&key, &edwards] {
            let flaw = read_key(key.serialized_der()).unwrap_err().to_string();
            assert!(flaw.ends_with("convert it: openssl pkey -inform der -in OLD -out NEW"), "{flaw}");
            assert_eq!(read_chain(key.serialized_der()).unwrap_err(), Flaw::CertificateForm(Form::Binary));
        }
        let swapped = read_key(chain.der()).unwrap_err().to_string();
        assert!(swapped.ends_with("it holds a certificate in binary (DER)"), "{swapped}");
        assert_eq!(read_chain(b"0123").unwrap_err(), Flaw::NoCertificate(Vec::new()));
    }
}
