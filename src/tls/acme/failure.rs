//! Why an attempt at a certificate failed, and what that means for the next one.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::http::Answer;

/// The most of an answer that is told if it is no problem document, in characters.
const TOLD: usize = 200;

/// One line, and whether trying again may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    text: String,
    passing: bool,
    /// How long the authority asks to be left alone.
    pub(super) wait: Option<Duration>,
    is_bad_nonce: bool,
}

/// A problem document (RFC 7807, RFC 8555 § 6.7).
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    subproblems: Vec<Problem>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// It may be otherwise in a moment.
    pub(super) fn passing(text: String) -> Self {
        Self { text, passing: true, wait: None, is_bad_nonce: false }
    }

    /// It will be so until somebody does something.
    pub(super) fn lasting(text: String) -> Self {
        Self { text, passing: false, wait: None, is_bad_nonce: false }
    }

    /// What the authority answered instead.
    pub(super) fn of(answer: &Answer) -> Self {
        let status = answer.status;
        let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
        let (told, kind) = match problem {
            Some(problem) => (problem.to_string(), problem.kind().to_owned()),
            None => (beginning(&answer.body), String::new()),
        };
        Self {
            text: format!("{status} {told}"),
            passing: status >= 500,
            wait: answer.retry_after().or_else(|| (kind == "rateLimited").then_some(RATE_LIMITED)),
            is_bad_nonce: kind == "badNonce",
        }
    }

    /// What was asked for, before why it failed.
    pub(super) fn asked_for(self, what: &str) -> Self {
        Self { text: format!("asked for {what}: {}", self.text), ..self }
    }

    /// Whether the same request may be good in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.passing
    }

    /// Whether only the nonce was bad, and the next one will do (RFC 8555 § 6.5).
    pub(super) fn is_bad_nonce(&self) -> bool {
        self.is_bad_nonce
    }
}

/// How long an authority that says "rate limited" and no more is left alone.
const RATE_LIMITED: Duration = Duration::from_secs(3600);

impl Problem {
    fn kind(&self) -> &str {
        let kind = self.kind.as_deref().unwrap_or_default();
        kind.rsplit(':').next().unwrap_or(kind)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind(), self.detail.as_deref()) {
            ("", None) => f.write_str("no reason was given")?,
            ("", Some(detail)) => f.write_str(detail)?,
            (kind, None) => f.write_str(kind)?,
            (kind, Some(detail)) => write!(f, "{kind}: {detail}")?,
        }
        self.subproblems.iter().try_for_each(|problem| write!(f, "; {problem}"))
    }
}

/// The beginning of an answer that is no problem document, in one line.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4 * TOLD).unwrap_or(body));
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(TOLD).collect();
    match cut.len() {
        0 => "without a word".to_owned(),
        length if length < line.len() => format!("\"{cut}…\""),
        _ => format!("\"{cut}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_a_line() {
        let told = |json: &str| serde_json::from_str::<Problem>(json).unwrap().to_string();
        assert_eq!(
            told(r#"{"type":"urn:ietf:params:acme:error:dns","detail":"no A record"}"#),
            "dns: no A record"
        );
        assert_eq!(told(r#"{"detail":"no A record"}"#), "no A record");
        assert_eq!(told("{}"), "no reason was given");
        let several =
            r#"{"type":"a:compound","subproblems":[{"type":"a:dns"},{"type":"a:caa","detail":"no"}]}"#;
        assert_eq!(told(several), "compound; dns; caa: no");
    }

    #[test]
    fn a_page_is_told_in_part() {
        assert_eq!(beginning(b""), "without a word");
        assert_eq!(beginning(b"<html>\n  <b>gone</b>"), "\"<html> <b>gone</b>\"");
        let long = beginning(&b"x".repeat(100_000));
        assert!(long.chars().count() == 203 && long.ends_with("…\""), "{long}");
    }
}
