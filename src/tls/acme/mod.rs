//! A certificate from an authority, without anybody's doing (`tls.mode = "acme"`).
//!
//! [`Acme::open`] takes up what an earlier run kept, so that it is shown from the first connection on. [`Acme::keep`] then
//! looks again and again at what there is: a certificate that can be shown is shown, as far as it covers the names, also if it only
//! became good because the clock was set or somebody put it back. When there is none, or a third of its time is left, the
//! authority is asked (`schedule`), by the protocol of RFC 8555 (`order`, `session`, `http`), and looks itself whether each
//! name leads here, by TLS-ALPN-01 (RFC 8737). What comes is kept first (`state`) and judged then.
//!
//! A failed attempt changes nothing but the time of the next one. Before the authority is asked it is made sure that what
//! it issues can be kept: authorities count what they issue, too.

mod account;
mod failure;
mod http;
mod order;
mod schedule;
mod session;
mod state;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_io::Timer;
use futures_lite::{FutureExt, future};
use rustls::sign::CertifiedKey;
use smol::channel::Receiver;

use super::certificate::{Certificate, Flaw, date};
use super::{Challenges, Domains, Listener, Tls, material};
use crate::config;
use crate::event;
use failure::Failure;
use order::Issued;
use schedule::{Memory, Schedule};
use session::Session;
use state::State;

/// The authority that is asked if no other is configured.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where things are kept if nothing else is configured.
pub const STATE: &str = "/var/lib/pyrycode-relay/acme";

/// The longest time between two looks, while all is well: the clock may be set meanwhile.
const WELL: Duration = Duration::from_secs(3600);

/// The same while there is nothing to show, or the clock may be wrong, or something is still to be kept.
const WANTING: Duration = Duration::from_secs(10);

/// The least between two looks.
const SOON: Duration = Duration::from_millis(100);

/// How long an order may take in all, and for each name.
const ORDER: Duration = Duration::from_secs(600);
const NAME: Duration = Duration::from_secs(180);

/// The client of one authority.
pub struct Acme {
    domains: Vec<String>,
    directory: String,
    contact: String,
    directory_ca: Option<String>,
    state: State,
    tls: Arc<Tls>,
    challenges: Arc<Challenges>,
    listener: Arc<dyn Listener>,
    schedule: Schedule,
    /// The certificate that there is, whether or not it can be shown.
    held: Option<Certificate>,
    /// It was issued and could not be written down.
    unkept: Option<Issued>,
    /// What is shown.
    shown: Option<Arc<CertifiedKey>>,
    /// What was last said about what is held.
    told: Option<String>,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acme").field("directory", &self.directory).finish_non_exhaustive()
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

/// What has to happen.
enum Need {
    /// A certificate is to be had, in this time.
    Certificate(Duration),
    /// The one that is there begins in this time, if the clock is right.
    Patience(Duration),
}

/// Sees whether `tls.state` can be used, for `check`.
///
/// # Errors
/// Why not.
pub fn check_state(tls: &config::Tls) -> Result<(), String> {
    state_of(tls).check()
}

fn directory_of(tls: &config::Tls) -> String {
    tls.directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned())
}

fn state_of(tls: &config::Tls) -> State {
    State::at(Path::new(tls.state.as_deref().unwrap_or(STATE)), &directory_of(tls))
}

impl Acme {
    /// Takes up what an earlier run kept, and shows it through what is returned.
    ///
    /// # Errors
    /// `tls.state` cannot be used, and holds nothing to begin with. Or there is no randomness.
    pub fn open(tls: &config::Tls, listener: Arc<dyn Listener>) -> Result<(Arc<Tls>, Self), OpenError> {
        let domains = tls.domains.clone().unwrap_or_default();
        let state = state_of(tls);
        let opened = state.open();
        let challenges = Arc::new(Challenges::default());
        let door =
            Tls::with_challenges(Domains::new(&domains), Arc::clone(&challenges), Arc::clone(&listener));
        let door = door.map_err(OpenError::Tls)?;
        let schedule = Schedule::new(state.noted(SystemTime::now()), Instant::now());
        let mut acme = Self {
            domains,
            directory: directory_of(tls),
            contact: tls.contact.clone().unwrap_or_default(),
            directory_ca: tls.directory_ca.clone(),
            state,
            tls: Arc::clone(&door),
            challenges,
            listener,
            schedule,
            held: None,
            unkept: None,
            shown: None,
            told: None,
        };
        acme.look();
        match opened {
            Ok(()) => {}
            // Better to serve with what there is than not at all.
            Err(cause) if acme.shown.is_some() => event::certificate_not_kept(&cause),
            Err(cause) => return Err(OpenError::State(cause)),
        }
        if acme.shown.is_none() {
            let wait = acme.schedule.wait(Duration::ZERO, Instant::now());
            event::certificate_awaited(&acme.domains, &acme.directory, wait);
            acme.listener.wanting(acme.told.as_deref().unwrap_or("none was issued yet"));
        }
        Ok((door, acme))
    }

    /// Shows what can be shown of what there is.
    fn look(&mut self) -> Need {
        let now = SystemTime::now();
        // What could not be written down is newer than what is there.
        if self.unkept.is_none() && !self.is_showable(now) {
            match self.state.certificate() {
                Ok(Some(kept)) => self.held = Some(kept),
                Ok(None) => {}
                Err(cause) => self.tell(cause),
            }
        }
        let Some(held) = self.held.clone() else { return Need::Certificate(Duration::ZERO) };
        let (covered, due) = match held.check(now, &self.domains) {
            Ok(()) => (self.domains.clone(), schedule::due_in(held.validity(), now)),
            Err(flaw) => {
                self.tell(format!("the certificate {flaw}"));
                match flaw {
                    Flaw::Names { missing, .. } => {
                        let covered = self.domains.iter().filter(|name| !missing.contains(name));
                        (covered.cloned().collect(), Duration::ZERO)
                    }
                    Flaw::NotYetValid(at) | Flaw::IssuerNotYetValid(_, at) => {
                        return Need::Patience(at.duration_since(now).unwrap_or_default());
                    }
                    _ => return Need::Certificate(Duration::ZERO),
                }
            }
        };
        if !covered.is_empty() && !self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, held.key())) {
            match self.tls.present(&held, Some(Domains::new(&covered))) {
                Ok(()) => self.shown = Some(Arc::clone(held.key())),
                Err(error) => self.tell(format!("the certificate cannot be shown: {error}")),
            }
        }
        if due > Duration::ZERO {
            self.told = None;
        }
        Need::Certificate(due)
    }

    fn is_showable(&self, now: SystemTime) -> bool {
        let judged = self.held.as_ref().map(|held| held.check(now, &self.domains));
        matches!(judged, Some(Ok(()) | Err(Flaw::Names { .. })))
    }

    /// Says it, if it was not what was said last.
    fn tell(&mut self, cause: String) {
        if self.told.as_ref() != Some(&cause) {
            event::certificate_unusable(&cause);
            self.told = Some(cause);
        }
    }

    /// Renews for as long as it is polled. A message in `asked` is somebody who wants it tried again now.
    pub async fn keep(mut self, asked: Receiver<()>) {
        loop {
            let need = self.look();
            self.keep_what_was_issued().await;
            let (wait, wanted) = match need {
                Need::Certificate(due) => (self.schedule.wait(due, Instant::now()), due.is_zero()),
                Need::Patience(time) => (time.clamp(SOON, WANTING), false),
            };
            if wait.is_zero() {
                self.ask().await;
                continue;
            }
            let well = self.shown.is_some() && self.unkept.is_none();
            let heard = sleep_or_asked(wait.min(if well { WELL } else { WANTING }), &asked).await;
            if heard && wanted && !self.schedule.asked(Instant::now()) {
                event::certificate_order_postponed(self.schedule.wait(Duration::ZERO, Instant::now()));
            }
        }
    }

    /// One attempt, whatever comes of it.
    async fn ask(&mut self) {
        let limit = ORDER + NAME * u32::try_from(self.domains.len()).unwrap_or(u32::MAX);
        let attempt = AssertUnwindSafe(self.attempt()).catch_unwind();
        let attempt = future::or(attempt, async {
            Timer::after(limit).await;
            Ok(Err(Failure::passing("the authority takes too long".to_owned())))
        });
        let attempt = attempt.await;
        let got = attempt
            .unwrap_or_else(|_| Err(Failure::passing("the client of the authority panicked".to_owned())));
        match got {
            Ok((certificate, issued)) => {
                self.got(certificate, issued).await;
                self.listener.ordered(true);
            }
            Err(failure) => {
                let memory = self.schedule.failed(Instant::now(), failure.wait);
                self.note(memory).await;
                self.failed(&failure, memory);
                self.listener.ordered(false);
            }
        }
    }

    fn failed(&self, failure: &Failure, memory: Memory) {
        event::certificate_order_failed(failure, memory.failures, memory.pause);
        let next = date(SystemTime::now() + memory.pause);
        let note = format!("{failure}; next attempt at {next}, or on reload");
        match self.shown {
            None => self.listener.wanting(&note),
            Some(_) => self.listener.renewal_fails(Some(&note)),
        }
    }

    /// Keeps a certificate, and shows it if its time has come.
    async fn got(&mut self, certificate: Certificate, issued: Issued) {
        let validity = certificate.validity();
        let left = validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        self.listener.renewal_fails(None);
        self.unkept = Some(issued);
        self.keep_what_was_issued().await;
        let memory = self.schedule.succeeded(Instant::now(), validity, left);
        self.note(memory).await;
        let (names, not_after) = (certificate.names().to_vec(), certificate.not_after());
        self.held = Some(certificate);
        self.look();
        event::certificate_issued(&names, not_after);
    }

    async fn keep_what_was_issued(&mut self) {
        let Some(issued) = self.unkept.clone() else { return };
        let state = self.state.clone();
        let keep = move || {
            state.open()?;
            state.keep_certificate(&issued.key, &issued.chain)
        };
        match smol::unblock(keep).await {
            Ok(()) => self.unkept = None,
            Err(cause) => {
                if self.told.as_ref() != Some(&cause) {
                    event::certificate_not_kept(&cause);
                    self.listener.renewal_fails(Some(&format!("the certificate is not kept: {cause}")));
                    self.told = Some(cause);
                }
            }
        }
    }

    async fn note(&self, memory: Memory) {
        let state = self.state.clone();
        // If it cannot be noted, nothing can be ordered either.
        let _ = smol::unblock(move || state.note(memory)).await;
    }

    async fn attempt(&self) -> Result<(Certificate, Issued), Failure> {
        let (state, contact) = (self.state.clone(), self.contact.clone());
        let (memory, file) = (self.schedule.begins(), self.directory_ca.clone());
        // A disk may be slow. What this host trusts may have changed since the last time.
        let prepare = move || {
            state.open()?;
            state.note(memory)?;
            Ok((state.account(&contact)?, material::trusted(file.as_deref())?))
        };
        let ((account, known), trust) = smol::unblock(prepare).await.map_err(Failure::passing)?;
        let contact = Some(self.contact.as_str()).filter(|contact| !contact.is_empty());
        let mut session = Session::begin(&trust, &self.directory, &account, contact).await?;
        if known.is_some_and(|known| known != self.contact) {
            session.change_contact(contact).await?;
            self.state.keep_account(&account, &self.contact).map_err(Failure::passing)?;
        }
        let issued = order::order(&mut session, &account, &self.domains, &self.challenges).await?;
        let useless = |flaw: Flaw| {
            Failure::lasting(format!("the certificate that was issued cannot be used: it {flaw}"))
        };
        let certificate =
            Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).map_err(useless)?;
        match certificate.check(SystemTime::now(), &self.domains) {
            // Its time is a matter of this host's clock, and no reason to throw it away and ask for another.
            Err(flaw) if !flaw.is_of_time() => Err(useless(flaw)),
            _ => Ok((certificate, issued)),
        }
    }
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
