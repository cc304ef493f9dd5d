//! A rate that all transfers with a place share.

use crate::{Error, ErrorKind, Result};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// Slower than this, a single piece would look like a connection that is dead.
const LEAST: u64 = 10 << 10;

/// So many bytes a second, in both directions together. A clone is the same.
#[derive(Clone)]
pub(super) struct Pace(Arc<Shared>);

struct Shared {
    bytes_per_second: u64,
    /// When what was allowed so far will have passed.
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Result<Self> {
        if bytes_per_second < LEAST {
            let text = format!("{bytes_per_second} bytes a second are too few: 10K is the least");
            return Err(Error::new(ErrorKind::Usage, "limit the rate", text));
        }
        Ok(Pace(Arc::new(Shared { bytes_per_second, free: Mutex::new(Instant::now()) })))
    }

    /// Bytes that are passed at once: a quarter of a second.
    pub(super) fn piece(&self) -> usize {
        usize::try_from(self.0.bytes_per_second / 4).unwrap_or(usize::MAX)
    }

    /// When so many bytes may pass.
    pub(super) fn reserve(&self, bytes: usize) -> Instant {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (*free).max(Instant::now());
        *free = from + Duration::from_secs_f64(bytes as f64 / self.0.bytes_per_second as f64);
        from
    }

    pub(super) async fn wait(&self, bytes: usize) {
        sleep_until(self.reserve(bytes)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_by_all_together() {
        let (pace, begin) = (Pace::new(100_000).unwrap(), Instant::now());
        let other = pace.clone();
        for _ in 0..10 {
            pace.wait(25_000).await;
            other.wait(25_000).await;
        }
        let seconds = begin.elapsed().as_secs_f64();
        assert!((4.7..5.0).contains(&seconds), "{seconds}");
        assert!(Pace::new(100).is_err());
    }
}
