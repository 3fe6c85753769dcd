//! How sessions reach each other without asking the hub.
//!
//! A phone holds its binary's link from its registration on, because whatever ends that binding closes the phone. A
//! binary finds its phones in its own link. So a frame on its way touches no lock that another server-id could hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::close::Close;
use super::conn_id::ConnId;
use super::outbox::Outbox;
use super::probe::Probe;
use super::registry::ServerId;

/// How others reach a phone's session.
#[derive(Debug)]
pub struct PhoneLink {
    /// Its name within its server-id.
    pub conn_id: ConnId,
    /// What waits to be written to it.
    pub outbox: Arc<Outbox>,
    close_requested: AtomicBool,
}

impl PhoneLink {
    pub(super) fn new(conn_id: ConnId, outbox: Arc<Outbox>) -> Self {
        Self { conn_id, outbox, close_requested: AtomicBool::new(false) }
    }

    /// The binary asked for this phone to be closed: it will not be told that it was.
    pub fn request_close(&self) {
        self.close_requested.store(true, Ordering::Release);
    }

    /// Whether the binary asked for this phone to be closed.
    #[must_use]
    pub fn close_was_requested(&self) -> bool {
        self.close_requested.load(Ordering::Acquire)
    }
}

/// How others reach a binary's session.
#[derive(Debug)]
pub struct BinaryLink {
    /// What it claimed.
    pub server_id: ServerId,
    /// What waits to be written to it.
    pub outbox: Arc<Outbox>,
    pub(super) probe: Probe,
    phones: Mutex<Phones>,
}

/// A binary's phones.
#[derive(Debug, Default)]
struct Phones {
    by_id: BTreeMap<ConnId, Arc<PhoneLink>>,
    /// What the binary is closed with when the last of them has gone.
    closing: Option<Close>,
}

impl BinaryLink {
    pub(super) fn new(server_id: ServerId, outbox: Arc<Outbox>) -> Self {
        Self { server_id, outbox, probe: Probe::default(), phones: Mutex::default() }
    }

    /// The phone of that name, if this binary has it.
    #[must_use]
    pub fn phone(&self, conn_id: ConnId) -> Option<Arc<PhoneLink>> {
        self.phones().by_id.get(&conn_id).cloned()
    }

    pub(super) fn add_phone(&self, phone: Arc<PhoneLink>) {
        self.phones().by_id.insert(phone.conn_id, phone);
    }

    pub(super) fn remove_phone(&self, conn_id: ConnId) {
        let mut phones = self.phones();
        phones.by_id.remove(&conn_id);
        let closing = phones.closing.filter(|_| phones.by_id.is_empty());
        drop(phones);
        if let Some(close) = closing {
            self.outbox.close_behind(close);
        }
    }

    /// Closes the binary when its last phone has gone, behind what is queued for it then.
    pub(super) fn close_after_phones(&self, close: Close) {
        let mut phones = self.phones();
        phones.closing = Some(close);
        let now = phones.by_id.is_empty();
        drop(phones);
        if now {
            self.outbox.close_behind(close);
        }
    }

    fn phones(&self) -> MutexGuard<'_, Phones> {
        self.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link that is equal to itself alone.
#[derive(Debug)]
pub(super) struct Handle<T>(pub(super) Arc<T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
