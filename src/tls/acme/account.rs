//! The key of an account, and what it signs (RFC 7515, RFC 7638, RFC 8555 § 6.2).

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// A key of an account: ECDSA with P-256.
pub(super) struct AccountKey {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl AccountKey {
    /// A new one.
    pub(super) fn generate() -> Result<Self, String> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| "there are no random numbers".to_owned())?;
        Self::from_pkcs8(pkcs8.as_ref()).ok_or_else(|| "a new key is not good".to_owned())
    }

    /// The key in a text in PEM, if there is one.
    pub(super) fn from_pem(text: &[u8]) -> Option<Self> {
        Self::from_pkcs8(PrivatePkcs8KeyDer::from_pem_slice(text).ok()?.secret_pkcs8_der())
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).ok()?;
        Some(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    /// As PEM.
    pub(super) fn to_pem(&self) -> String {
        let text = BASE64.encode(&self.pkcs8);
        let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// A message for `url`, signed. It names the account by `kid`, or by the key itself while there is none.
    pub(super) fn sign(
        &self,
        kid: Option<&str>,
        nonce: &str,
        url: &str,
        payload: &str,
    ) -> Result<String, String> {
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        let (name, value) = match kid {
            Some(kid) => ("kid", Value::from(kid)),
            None => ("jwk", self.jwk()),
        };
        if let Some(members) = protected.as_object_mut() {
            members.insert(name.to_owned(), value);
        }
        let protected = BASE64URL_NOPAD.encode(protected.to_string().as_bytes());
        let payload = BASE64URL_NOPAD.encode(payload.as_bytes());
        let signed = format!("{protected}.{payload}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| "there are no random numbers".to_owned())?;
        let signature = BASE64URL_NOPAD.encode(signature.as_ref());
        Ok(json!({ "protected": protected, "payload": payload, "signature": signature }).to_string())
    }

    /// What a challenge's answer has to show: SHA-256 of the token and the key's thumbprint (RFC 8737 § 3).
    pub(super) fn proof(&self, token: &str) -> [u8; 32] {
        let thumbprint = BASE64URL_NOPAD.encode(&sha256(self.jwk().to_string().as_bytes()));
        sha256(format!("{token}.{thumbprint}").as_bytes())
    }

    /// The public half. Its members are in the order of their names, as the thumbprint wants them.
    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let half = |from: usize| BASE64URL_NOPAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({ "crv": "P-256", "kty": "EC", "x": half(1), "y": half(33) })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_disk() {
        let key = AccountKey::generate().unwrap();
        let pem = key.to_pem();
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
        for text in [pem.clone(), format!("contact: x\n{pem}"), pem.replace('\n', "\r\n")] {
            let again = AccountKey::from_pem(text.as_bytes()).unwrap();
            assert_eq!((again.jwk(), again.proof("t")), (key.jwk(), key.proof("t")));
        }
        assert!(AccountKey::from_pem(pem.get(..100).unwrap().as_bytes()).is_none());
        assert!(AccountKey::from_pem(b"").is_none());
    }

    #[test]
    fn the_thumbprint_is_over_sorted_members_without_spaces() {
        let jwk = AccountKey::generate().unwrap().jwk().to_string();
        let names: Vec<_> = jwk.split('"').skip(1).step_by(4).collect();
        assert_eq!(names, ["crv", "kty", "x", "y"]);
        assert!(!jwk.contains(' ') && jwk.len() == 126, "{jwk}");
    }
}
