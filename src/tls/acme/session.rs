//! One conversation with an authority: its directory, the account, and signed requests (RFC 8555 § 6 and § 7).

use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use hyper::Method;
use hyper::header::{HeaderName, LOCATION};
use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::account::AccountKey;
use super::failure::Failure;
use super::http::{self, Answer};

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// How many nonces one request may use up.
const NONCES: u32 = 4;

/// Pauses before a request is made again that failed for a reason that may pass.
const AGAIN: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// Where everything is (RFC 8555 § 7.1.1).
#[derive(Deserialize)]
struct Directory {
    #[serde(rename = "newNonce")]
    nonce: String,
    #[serde(rename = "newAccount")]
    account: String,
    #[serde(rename = "newOrder")]
    order: String,
}

/// The conversation.
pub(super) struct Session<'a> {
    trust: &'a Arc<ClientConfig>,
    key: &'a AccountKey,
    directory: Directory,
    kid: Option<String>,
    nonce: Option<String>,
}

impl<'a> Session<'a> {
    /// Finds out where everything is, and has the account, made anew if the authority does not know the key.
    pub(super) async fn begin(
        trust: &'a Arc<ClientConfig>,
        directory: &str,
        key: &'a AccountKey,
        contact: Option<&str>,
    ) -> Result<Self, Failure> {
        let found = http::ask(trust, Method::GET, directory, None).await;
        let directory = found.and_then(good).and_then(|answer| read(&answer));
        let directory = directory.map_err(|failure| failure.asked_for("its directory"))?;
        let mut session = Self { trust, key, directory, kid: None, nonce: None };
        let mut wanted = json!({ "termsOfServiceAgreed": true });
        if let (Some(members), Some(contact)) = (wanted.as_object_mut(), contact) {
            members.insert("contact".to_owned(), json!([contact]));
        }
        let url = session.directory.account.clone();
        let answer = session.post("an account", &url, &wanted.to_string()).await?;
        session.kid = Some(located(&answer, "an account")?);
        Ok(session)
    }

    /// Tells the authority whom it may write to from now on.
    pub(super) async fn change_contact(&mut self, contact: Option<&str>) -> Result<(), Failure> {
        let url = self.kid.clone().unwrap_or_default();
        let contacts: Vec<&str> = contact.into_iter().collect();
        self.post("a change of the contact", &url, &json!({ "contact": contacts }).to_string())
            .await
            .map(drop)
    }

    /// Orders a certificate. Returns where the order is.
    pub(super) async fn order<T: DeserializeOwned>(
        &mut self,
        domains: &[String],
    ) -> Result<(String, T), Failure> {
        let identifiers: Vec<_> =
            domains.iter().map(|domain| json!({ "type": "dns", "value": domain })).collect();
        let url = self.directory.order.clone();
        let answer = self.post("an order", &url, &json!({ "identifiers": identifiers }).to_string()).await?;
        Ok((located(&answer, "an order")?, read(&answer)?))
    }

    /// Looks at something.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, what: &str, url: &str) -> Result<T, Failure> {
        read(&self.post(what, url, "").await?).map_err(|failure| failure.asked_for(what))
    }

    /// Looks at something that is text.
    pub(super) async fn text(&mut self, what: &str, url: &str) -> Result<String, Failure> {
        let answer = self.post(what, url, "").await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Sends a signed message, again if the trouble may pass. What is sent twice does no more than what is sent once: the
    /// authority finds the account, the challenge or the order as it is; of a second order nothing remains.
    pub(super) async fn post(&mut self, what: &str, url: &str, payload: &str) -> Result<Answer, Failure> {
        let mut pauses = AGAIN.iter();
        let mut nonces = 0;
        loop {
            let failure = match self.post_once(url, payload).await.and_then(good) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.is_bad_nonce() && nonces + 1 < NONCES {
                nonces += 1;
                continue;
            }
            match pauses.next() {
                Some(pause) if failure.is_passing() && failure.wait.is_none() => {
                    Timer::after(*pause).await;
                }
                _ => return Err(failure.asked_for(what)),
            }
        }
    }

    async fn post_once(&mut self, url: &str, payload: &str) -> Result<Answer, Failure> {
        let nonce = match self.nonce.take() {
            Some(nonce) => nonce,
            None => self.new_nonce().await?,
        };
        let message = self.key.sign(self.kid.as_deref(), &nonce, url, payload).map_err(Failure::passing)?;
        let answer = http::ask(self.trust, Method::POST, url, Some(message)).await?;
        self.nonce = answer.header(&REPLAY_NONCE).map(str::to_owned);
        Ok(answer)
    }

    async fn new_nonce(&mut self) -> Result<String, Failure> {
        let answer = good(http::ask(self.trust, Method::HEAD, &self.directory.nonce, None).await?)?;
        let nonce = answer.header(&REPLAY_NONCE).map(str::to_owned);
        nonce.ok_or_else(|| Failure::lasting("it gives out no nonces".to_owned()))
    }
}

fn good(answer: Answer) -> Result<Answer, Failure> {
    if answer.is_good() { Ok(answer) } else { Err(Failure::of(&answer)) }
}

fn located(answer: &Answer, what: &str) -> Result<String, Failure> {
    let location = answer.header(&LOCATION).map(str::to_owned);
    location.ok_or_else(|| Failure::lasting(format!("asked for {what}: it does not say where it is")))
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::lasting(format!(
            "its answer cannot be understood ({error}); is this the directory of an ACME authority?"
        ))
    })
}
