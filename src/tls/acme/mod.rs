//! A certificate from an authority, without anybody's doing (`tls.mode = "acme"`).
//!
//! [`Acme::open`] takes up what an earlier run kept, so that it is shown from the first connection on. [`Acme::keep`] then
//! asks the authority when there is none or a third of its time is left (`schedule`), by the protocol of RFC 8555 (`order`),
//! proving each name by TLS-ALPN-01 (RFC 8737): the authority connects to the public port. What comes back is kept (`state`)
//! and shown to those who connect from then on.
//!
//! A failed attempt changes nothing but the time of the next one. Before the authority is asked it is made sure that what
//! it issues can be kept: authorities count what they issue, too.

mod order;
mod schedule;
mod state;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_io::Timer;
use futures_lite::{FutureExt, future};
use rustls::ClientConfig;
use smol::channel::{Receiver, TryRecvError};

use super::certificate::Certificate;
use super::{Challenges, Domains, Listener, Tls, Validity};
use crate::config;
use crate::event;
use order::{Issued, Wanted};
use schedule::Schedule;
use state::State;

/// The authority that is asked if no other is configured.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where things are kept if nothing else is configured.
pub const STATE: &str = "/var/lib/pyrycode-relay/acme";

/// The longest time between two looks at the clock, which may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The client of one authority.
pub struct Acme {
    domains: Vec<String>,
    directory: String,
    contact: Option<String>,
    client: Arc<ClientConfig>,
    state: State,
    tls: Arc<Tls>,
    challenges: Arc<Challenges>,
    shown: Option<Validity>,
    listener: Arc<dyn Listener>,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Acme {
    /// Takes up what an earlier run kept, and shows it through what is returned. `client` is trusted with the authority's
    /// server.
    ///
    /// # Errors
    /// `tls.state` cannot be used. Or there is no randomness.
    pub fn open(
        tls: &config::Tls,
        client: Arc<ClientConfig>,
        listener: Arc<dyn Listener>,
    ) -> Result<(Arc<Tls>, Self), OpenError> {
        let domains = tls.domains.clone().unwrap_or_default();
        let directory = tls.directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned());
        let base = tls.state.as_ref().map_or_else(|| PathBuf::from(STATE), PathBuf::from);
        let state = State::open(Path::new(&base), &directory).map_err(OpenError::State)?;
        let challenges = Arc::new(Challenges::default());
        let door =
            Tls::with_challenges(Domains::new(&domains), Arc::clone(&challenges), Arc::clone(&listener))
                .map_err(OpenError::Tls)?;
        let mut acme = Self {
            domains,
            directory,
            contact: tls.contact.clone(),
            client,
            state,
            tls: Arc::clone(&door),
            challenges,
            shown: None,
            listener,
        };
        acme.take_up();
        Ok((door, acme))
    }

    /// Shows the certificate of an earlier run, if it is still good.
    fn take_up(&mut self) {
        let kept = self.state.certificate().and_then(|kept| match kept {
            Some(kept) => match kept.check(SystemTime::now(), &self.domains) {
                Ok(()) => self.show(&kept),
                Err(flaw) => Err(format!("the kept certificate {flaw}")),
            },
            None => Ok(()),
        });
        if let Err(cause) = kept {
            event::certificate_unusable(&cause);
        }
        if self.shown.is_none() {
            event::certificate_awaited(&self.domains, &self.directory);
            self.listener.wanting("none was issued yet");
        }
    }

    fn show(&mut self, certificate: &Certificate) -> Result<(), String> {
        let domains = Some(Domains::new(&self.domains));
        self.tls.present(certificate, domains).map_err(|error| error.to_string())?;
        self.shown = Some(certificate.validity());
        Ok(())
    }

    /// Renews for as long as it is polled. A message in `asked` is somebody who wants it tried again now.
    pub async fn keep(mut self, asked: Receiver<()>) {
        let mut schedule = Schedule::new(self.state.last_attempt(), SystemTime::now());
        loop {
            let wait = schedule.wait(self.shown, SystemTime::now());
            if !wait.is_zero() {
                if sleep_or_asked(wait.min(LONGEST_SLEEP), &asked).await {
                    schedule.asked();
                }
                continue;
            }
            // Whoever asked before this attempt gets it.
            while !matches!(asked.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
            schedule.begins(SystemTime::now());
            let attempt = AssertUnwindSafe(self.attempt()).catch_unwind().await;
            let attempt = attempt.unwrap_or_else(|_| Err("the client of the authority panicked".to_owned()));
            let got = attempt.and_then(|issued| {
                self.show(&issued)?;
                event::certificate_issued(issued.names(), issued.not_after());
                Ok(issued.validity())
            });
            let now = SystemTime::now();
            self.listener.ordered(got.is_ok());
            match got {
                Ok(validity) => schedule.succeeded(now, validity),
                Err(cause) => {
                    let (failures, pause) = schedule.failed(now);
                    event::certificate_order_failed(&cause, failures, pause);
                    if self.shown.is_none() {
                        self.listener.wanting(&cause);
                    }
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Certificate, String> {
        let (state, contact) = (self.state.clone(), self.contact.clone().unwrap_or_default());
        // A disk may be slow.
        let account = smol::unblock(move || {
            state.note_attempt()?;
            state.account(&contact)
        })
        .await?;
        let wanted = Wanted {
            directory: &self.directory,
            domains: &self.domains,
            contact: self.contact.as_ref(),
            account: &account,
            client: &self.client,
            challenges: &self.challenges,
        };
        let Issued { certificate, key, chain } = order::order(&wanted).await?;
        let state = self.state.clone();
        if let Err(cause) = smol::unblock(move || state.keep_certificate(&key, &chain)).await {
            // It is good all the same; only the next start will have to ask again.
            event::certificate_not_kept(&cause);
        }
        Ok(certificate)
    }
}

/// Why the client of an authority cannot begin.
#[derive(Debug)]
pub enum OpenError {
    /// `tls.state` cannot be used.
    State(String),
    /// There is no randomness.
    Tls(rustls::Error),
}

/// Whether somebody asked before the time was over.
async fn sleep_or_asked(time: Duration, asked: &Receiver<()>) -> bool {
    let over = async {
        Timer::after(time).await;
        false
    };
    let asked = async {
        match asked.recv().await {
            Ok(()) => true,
            Err(_) => future::pending().await,
        }
    };
    future::or(over, asked).await
}
