//! When and how often a failed call is repeated.

use crate::{Error, Result};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// Repeats calls whose error says that a retry may help; the wait doubles each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls in all, the first included.
    pub attempts: u32,
    /// Wait before the second call.
    pub first_wait: Duration,
    /// Longest wait between two calls.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// Four calls: after 0.2, 0.4 and 0.8 s.
    fn default() -> Self {
        RetryPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// Runs `call` until it succeeds, fails for good or the attempts are used up; the last error is returned. A cancelled
    /// wait is `Cancelled`.
    pub async fn run<T, F, Fut>(&self, cancel: &CancellationToken, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut wait = self.first_wait;
        let mut attempt = 1;
        loop {
            match call().await {
                Err(e) if e.may_retry() && attempt < self.attempts => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = cancel.cancelled() => return Err(Error::cancelled()),
                    }
                    wait = (wait * 2).min(self.longest_wait);
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn only_what_may_help_is_repeated_and_not_for_ever() {
        let (policy, cancel) = (RetryPolicy::default(), CancellationToken::new());
        for (retry, calls) in [(true, 4), (false, 1)] {
            let mut n = 0;
            let e =
                policy
                    .run(&cancel, || {
                        n += 1;
                        async move {
                            Err::<(), _>(Error::new(ErrorKind::Destination, "write", "busy").retry(retry))
                        }
                    })
                    .await
                    .unwrap_err();
            assert_eq!((n, e.kind()), (calls, ErrorKind::Destination));
        }
    }
}
