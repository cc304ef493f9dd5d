//! When an upload last came further: a slow one is told from one that stands still.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Beats whenever something comes further. A clone is the same.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    begin: Instant,
    last_after: AtomicU64,
    limit: Duration,
}

impl Pulse {
    /// What does not beat for `limit` stands still.
    pub fn new(limit: Duration) -> Self {
        Pulse(Arc::new(Beats { begin: Instant::now(), last_after: AtomicU64::new(0), limit }))
    }

    /// It has come further.
    pub fn beat(&self) {
        self.0.last_after.fetch_max(self.0.begin.elapsed().as_millis() as u64, Relaxed);
    }

    /// When it last did.
    pub fn last(&self) -> Instant {
        self.0.begin + Duration::from_millis(self.0.last_after.load(Relaxed))
    }

    /// How long it may stand still while others wait for it.
    pub fn limit(&self) -> Duration {
        self.0.limit
    }
}
