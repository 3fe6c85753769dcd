//! Who signed a request, and what (RFC 8555 § 6.2, RFC 7515, RFC 7638).

use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;

use super::p256;
use super::problem::Problem;

/// A request whose signature is right. Whether its nonce is, is not said yet.
pub(super) struct Signed {
    pub(super) signer: Signer,
    pub(super) nonce: String,
    pub(super) payload: Vec<u8>,
}

/// Who signed it.
pub(super) enum Signer {
    /// This key, which the request itself brought.
    Key(Key),
    /// The key of the account with this number.
    Account(usize),
}

/// The key of an account.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    x: [u8; 32],
    y: [u8; 32],
}

/// The body of a signed request. Unprotected headers and more than one signature are forbidden.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Protected {
    alg: String,
    jwk: Option<Value>,
    kid: Option<String>,
    nonce: String,
    url: String,
}

/// Opens a request to `url`. `account` knows the accounts by their URL.
pub(super) fn open(
    body: &[u8],
    url: &str,
    account: impl Fn(&str) -> Option<(usize, Key)>,
) -> Result<Signed, Problem> {
    let body: Flattened = parse("the body", body)?;
    let protected: Protected = parse("the protected header", &decode("protected", &body.protected)?)?;
    if protected.alg != "ES256" {
        let detail = format!("signed by {}, not by ES256", protected.alg);
        return Err(Problem::new(400, "badSignatureAlgorithm", detail));
    }
    if protected.url != url {
        return Err(Problem::unauthorized(format!("signed for {}, sent to {url}", protected.url)));
    }
    let (signer, key) = match (protected.jwk, protected.kid) {
        (Some(jwk), None) => {
            let key = Key::read(&jwk)?;
            (Signer::Key(key.clone()), key)
        }
        (None, Some(kid)) => {
            let unknown = || Problem::new(400, "accountDoesNotExist", format!("there is no account {kid}"));
            let (number, key) = account(&kid).ok_or_else(unknown)?;
            (Signer::Account(number), key)
        }
        _ => return Err(Problem::malformed("neither or both of jwk and kid")),
    };
    let message = format!("{}.{}", body.protected, body.payload);
    if !p256::signed_in_fixed(&key.point(), message.as_bytes(), &decode("signature", &body.signature)?) {
        return Err(Problem::malformed("the signature is wrong"));
    }
    Ok(Signed { signer, nonce: protected.nonce, payload: decode("payload", &body.payload)? })
}

/// Reads JSON of a request.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| Problem::malformed(format!("{what}: {error}")))
}

/// Reads a member in base64url, which JOSE writes without padding.
pub(super) fn decode(what: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let wrong = |error| Problem::malformed(format!("{what} in base64url: {error}"));
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(wrong)
}

impl Key {
    fn read(jwk: &Value) -> Result<Self, Problem> {
        if jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
            return Err(Problem::new(400, "badPublicKey", "the key is not on P-256"));
        }
        if jwk.get("d").is_some() {
            return Err(Problem::malformed("the key is a private one"));
        }
        if jwk.get("alg").is_some_and(|alg| alg != "ES256")
            || jwk.get("use").is_some_and(|use_| use_ != "sig")
        {
            return Err(Problem::malformed("the key is for something else"));
        }
        let coordinate = |name: &str| -> Result<[u8; 32], Problem> {
            let bytes = decode(name, jwk[name].as_str().unwrap_or_default())?;
            bytes.try_into().map_err(|_| Problem::malformed(format!("{name} is not of 32 bytes")))
        };
        Ok(Self { x: coordinate("x")?, y: coordinate("y")? })
    }

    /// The key as X.509 and the cryptography write it.
    pub(super) fn point(&self) -> Vec<u8> {
        [&[4][..], &self.x, &self.y].concat()
    }

    /// What a challenge with this token is answered with (RFC 8555 § 8.1), hashed (RFC 8737 § 3).
    pub(super) fn hashed_authorization(&self, token: &str) -> Vec<u8> {
        let (x, y) = (BASE64URL_NOPAD.encode(&self.x), BASE64URL_NOPAD.encode(&self.y));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumbprint = BASE64URL_NOPAD.encode(digest(&SHA256, canonical.as_bytes()).as_ref());
        digest(&SHA256, format!("{token}.{thumbprint}").as_bytes()).as_ref().to_vec()
    }
}
