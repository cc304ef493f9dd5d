//! The sessions with the snapshot, and who has them.

use crate::{
    address::Endpoint,
    client::{Session, connect},
};
use backup_core::{Budget, Error, ErrorKind, Reservation, Result};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The sessions with the snapshot. Each table has one of its own as long as it is read; one that no table will ever need can help.
pub(super) struct Readers {
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
    /// Tables that have not had a session yet.
    waiting: AtomicUsize,
    endpoint: Endpoint,
    budget: Budget,
}

impl Readers {
    /// For the rows of so many tables.
    pub(super) fn new(
        sessions: Vec<Session>,
        tables: usize,
        endpoint: Endpoint,
        budget: Budget,
    ) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(sessions.len()));
        Arc::new(Readers { idle: Mutex::new(sessions), permits, waiting: tables.into(), endpoint, budget })
    }

    /// Memory for what is read before its turn.
    pub(super) fn room_ahead(&self, bytes: usize) -> Option<Reservation> {
        self.budget.reserve_ahead(bytes)
    }

    /// A session for a table, kept until its last row: asked for once.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lease> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::cancelled())?;
        let lease = self.lease(permit);
        // What cannot be: one table more than there are.
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        lease.ok_or_else(|| {
            Error::new(ErrorKind::Source, "read the rows", "every session with the snapshot is lost")
        })
    }

    /// One more for a table that is being read: only when every table has had its own. Else a table could wait for a session of
    /// another one, whose rows nobody takes before those of the first.
    pub(super) fn spare(self: &Arc<Self>) -> Option<Lease> {
        if !self.has_spare() {
            return None;
        }
        self.lease(self.permits.clone().try_acquire_owned().ok()?)
    }

    /// Whether `spare` would find one.
    pub(super) fn has_spare(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.permits.available_permits() > 0
    }

    fn lease(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Option<Lease> {
        let session = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Lease { readers: self.clone(), session: Some(session), _permit: permit })
    }

    /// Ends all sessions; the locks on the tables end with them.
    pub(super) async fn close(&self) {
        let sessions = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(sessions.into_iter().map(Session::close)).await;
    }
}

/// A session for one table. One that is given up in the middle of it is ended on the server.
pub(super) struct Lease {
    readers: Arc<Readers>,
    session: Option<Session>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(Error::cancelled)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.is_sound() {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            return;
        }
        let (endpoint, id) = (self.readers.endpoint.clone(), session.id());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The driver would read the rest of the table first.
            runtime.spawn(async move {
                if let Ok(mut other) = connect(&endpoint).await {
                    let _ = other.run(&format!("KILL {id}")).await;
                    other.close().await;
                }
                drop(session);
            });
        }
    }
}
