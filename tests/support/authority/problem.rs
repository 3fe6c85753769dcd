//! Why a request was refused or a validation failed (RFC 8555 § 6.7).

use serde_json::{Value, json};

/// One problem document.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: u16,
    /// What follows `urn:ietf:params:acme:error:`.
    kind: &'static str,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: u16, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into() }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed", detail)
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(403, "unauthorized", detail)
    }

    pub(super) fn bad_nonce(detail: impl Into<String>) -> Self {
        Self::new(400, "badNonce", detail)
    }

    pub(super) fn bad_csr(detail: impl Into<String>) -> Self {
        Self::new(400, "badCSR", detail)
    }

    pub(super) fn json(&self) -> Value {
        let kind = format!("urn:ietf:params:acme:error:{}", self.kind);
        json!({ "type": kind, "detail": self.detail, "status": self.status })
    }
}
