//! Bytes in flight of a whole run.

use crate::{Error, ErrorKind, Result};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Granularity: a semaphore counts at most 2^29 permits on 32-bit machines, and nothing we reserve is smaller.
const UNIT: usize = 512;
/// Of the limit, for what is read ahead: an eighth.
const AHEAD: usize = 8;

/// How many bytes may be held in memory at once. The rule that makes it free of deadlocks: whoever accumulates reserves all
/// that it will hold, once, before it polls; nobody waits for a reservation while holding one.
///
/// An eighth of the limit is there besides, for sources that read ahead of their turn: what waits there comes to its end only when
/// somebody takes it, and he may be waiting for memory himself.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    limit: usize,
    peak: Arc<AtomicUsize>,
}

/// Bytes that are held; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `limit` bytes, rounded down to 512.
    pub fn new(limit: usize) -> Self {
        let units = (limit / UNIT).min(Semaphore::MAX_PERMITS);
        let [permits, ahead] = [units, units / AHEAD].map(|units| Arc::new(Semaphore::new(units)));
        Budget { permits, ahead, limit: units * UNIT, peak: Arc::default() }
    }

    /// All of it, without what is for reading ahead.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is held now.
    pub fn in_flight(&self) -> usize {
        let all = self.limit / UNIT + self.limit / UNIT / AHEAD;
        (all - self.permits.available_permits() - self.ahead.available_permits()) * UNIT
    }

    /// The most that was ever held.
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// Waits until `bytes` are free. More than the limit is an error, not a wait.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok().filter(|n| *n as usize * UNIT <= self.limit);
        let Some(units) = units else {
            return Err(Error::new(
                ErrorKind::Budget,
                "reserve memory",
                format!("{bytes} bytes are needed at once, the limit is {}", self.limit),
            )
            .hint("raise the memory limit of the run"));
        };
        let permit = self.permits.clone().acquire_many_owned(units).await.map_err(|_| Error::cancelled())?;
        self.peak.fetch_max(self.in_flight(), Relaxed);
        Ok(Reservation { permit })
    }

    /// For `bytes` that are read before it is their turn. `None`: there is no room for them, and whoever asks goes on without.
    pub fn reserve_ahead(&self, bytes: usize) -> Option<Reservation> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let permit = self.ahead.clone().try_acquire_many_owned(units).ok()?;
        self.peak.fetch_max(self.in_flight(), Relaxed);
        Some(Reservation { permit })
    }
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT
    }

    /// Takes `bytes` (rounded up to 512) out of this reservation; `None` when it holds less.
    pub fn split(&mut self, bytes: usize) -> Option<Reservation> {
        self.permit.split(bytes.div_ceil(UNIT)).map(|permit| Reservation { permit })
    }

    /// Joins another reservation of the same budget; of another budget it is given back.
    pub fn merge(&mut self, other: Reservation) -> Option<Reservation> {
        if Arc::ptr_eq(self.permit.semaphore(), other.permit.semaphore()) {
            self.permit.merge(other.permit);
            None
        } else {
            Some(other)
        }
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let extra = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        if extra > 0 {
            drop(self.permit.split(extra));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asking_for_more_than_the_limit_is_an_error_not_a_wait() {
        let b = Budget::new(4096);
        assert_eq!(b.reserve(4097).await.unwrap_err().kind(), ErrorKind::Budget);
        assert_eq!(b.reserve(usize::MAX).await.unwrap_err().kind(), ErrorKind::Budget);
        let mut all = b.reserve(4096).await.unwrap();
        assert_eq!(b.in_flight(), 4096);
        let half = all.split(2048).unwrap();
        drop(half);
        all.shrink_to(513);
        assert_eq!((b.in_flight(), b.peak()), (1024, 4096));
    }

    #[tokio::test]
    async fn what_is_read_ahead_has_room_of_its_own_and_nobody_waits_for_it() {
        let b = Budget::new(16 << 10);
        let all = b.reserve(16 << 10).await.unwrap();
        let ahead = b.reserve_ahead(2 << 10).unwrap();
        assert!(b.reserve_ahead(1).is_none());
        assert_eq!((b.in_flight(), b.peak()), (18 << 10, 18 << 10));
        drop((all, ahead));
        assert!(b.reserve_ahead(1).is_some() && b.reserve_ahead(1 << 20).is_none());
        assert_eq!(b.in_flight(), 0);
    }
}
