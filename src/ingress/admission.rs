//! Who may come in: the order of decisions of PROTOCOL § 1, and what they are decided by.
//!
//! A request to upgrade is asked, in this order: whose it is and whether that client asks too often ([`upgrade_rate`]); whether
//! there is a place for one more connection ([`connections`]); whether it is a proper request ([`upgrade`]); and whether its
//! server-id may be claimed ([`access`]). The first no is the answer. A yes comes with the place, which is held from then on.
//!
//! [`upgrade_rate`]: super::upgrade_rate
//! [`connections`]: super::connections
//! [`access`]: super::access

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};

use super::access::AccessList;
use super::client_address::{ClientKey, Proxies};
use super::connections::{Caps, Connections, Full, Limit, Place};
use super::refusal_lines::RefusalLines;
use super::upgrade::{self, Refusal, Upgrade};
use super::upgrade_rate::{TooOften, UpgradeRate};
use crate::config::Config;
use crate::relay::observer::{AddressTable, Endpoint, Observer, UpgradeOutcome};

/// How often idle clients are looked for, and how many at a time: the executor has other things to do.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
const TIDIED_AT_ONCE: usize = 4096;

/// A request that may be upgraded.
#[derive(Debug)]
pub struct Admitted {
    /// What it asked for.
    pub endpoint: Endpoint,
    /// What it said.
    pub upgrade: Upgrade,
    /// Whose it is.
    pub remote: IpAddr,
    /// Its place among the connections.
    pub place: Place,
}

/// Decides about requests to upgrade.
pub struct Admission {
    proxies: Proxies,
    rate: Mutex<UpgradeRate>,
    connections: Arc<Connections>,
    access: AccessList,
    lines: RefusalLines,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

impl Admission {
    /// As configured, with room for `connections`. A dead connection is found to be dead within `dead_after`.
    #[must_use]
    pub fn new(
        config: &Config,
        connections: usize,
        dead_after: Duration,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let limits = &config.limits;
        let rate = UpgradeRate::new(limits.upgrades_per_minute, limits.upgrade_burst, Instant::now());
        let caps = Caps { total: connections, per_address: limits.connections_per_address, dead_after };
        Arc::new(Self {
            proxies: Proxies::new(&config.client_address),
            rate: Mutex::new(rate),
            connections: Connections::new(caps, Arc::clone(&observer)),
            access: AccessList::new(&config.access.servers),
            lines: RefusalLines::default(),
            observer,
        })
    }

    /// What is known about proxies.
    #[must_use]
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Lines about who is refused.
    #[must_use]
    pub fn lines(&self) -> &RefusalLines {
        &self.lines
    }

    /// Decides about one request to `endpoint` from `peer`: the other end of the connection, or whom the PROXY protocol named.
    /// A connection that was taken only to be refused is not `lasting`.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn decide<B: Body>(
        &self,
        request: &Request<B>,
        endpoint: Endpoint,
        peer: IpAddr,
        lasting: bool,
    ) -> Result<Admitted, Refusal> {
        let now = Instant::now();
        let remote = self.client(peer, request.headers(), now)?;
        self.may_ask(remote, now)?;
        if !lasting {
            return Err(at_capacity(self.connections.wait(now), "the relay is out of descriptors"));
        }
        let place = self.place(endpoint, remote, now)?;
        let upgrade = upgrade::check(request, endpoint)?;
        if endpoint == Endpoint::Server && !self.access.allows(&upgrade.server_id) {
            self.lines.forbidden(&upgrade.server_id, remote, now);
            return Err(Refusal {
                status: StatusCode::FORBIDDEN,
                header: None,
                message: "this server-id may not be claimed here".to_owned(),
                outcome: UpgradeOutcome::RejectForbidden,
            });
        }
        Ok(Admitted { endpoint, upgrade, remote, place })
    }

    /// Forgets clients who have not asked for a while, for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        loop {
            Timer::after(TIDY_INTERVAL).await;
            self.change_rate(|rate| rate.forget_idle(Instant::now(), TIDIED_AT_ONCE));
        }
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap, now: Instant) -> Result<IpAddr, Refusal> {
        self.proxies.client(peer, headers).map_err(|unusable| {
            self.lines.unusable(peer, unusable.as_str(), now);
            let interval = self.change_rate(|rate| rate.interval());
            too_often(interval, format!("no usable client address: {}", unusable.as_str()))
        })
    }

    fn may_ask(&self, remote: IpAddr, now: Instant) -> Result<(), Refusal> {
        self.change_rate(|rate| rate.take(ClientKey::from(remote), now)).map_err(|TooOften { wait }| {
            self.lines.rate_limited(remote, now);
            too_often(wait, "too many upgrade requests from this address".to_owned())
        })
    }

    fn place(&self, endpoint: Endpoint, remote: IpAddr, now: Instant) -> Result<Place, Refusal> {
        self.connections.take(endpoint, ClientKey::from(remote), now).map_err(|Full { limit, wait }| {
            self.lines.capacity(limit, remote, now);
            at_capacity(
                wait,
                match limit {
                    Limit::Total => "the relay has as many connections as it may have",
                    Limit::PerAddress | Limit::Handshakes => {
                        "this address has as many connections as it may have"
                    }
                },
            )
        })
    }

    /// Does something with the rates, and reports how the table of clients grew or shrank by it.
    fn change_rate<T>(&self, change: impl FnOnce(&mut UpgradeRate) -> T) -> T {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rate.clients();
        let result = change(&mut rate);
        let after = rate.clients();
        drop(rate);
        if after > before {
            self.observer.address_tracked(AddressTable::Upgrades);
        } else if after < before {
            self.observer.addresses_forgotten(AddressTable::Upgrades, before - after);
        }
        result
    }
}

fn too_often(wait: Duration, message: String) -> Refusal {
    Refusal::for_now(StatusCode::TOO_MANY_REQUESTS, wait, message, UpgradeOutcome::RejectRateLimit)
}

fn at_capacity(wait: Duration, message: &str) -> Refusal {
    Refusal::for_now(
        StatusCode::SERVICE_UNAVAILABLE,
        wait,
        message.to_owned(),
        UpgradeOutcome::RejectCapacity,
    )
}
