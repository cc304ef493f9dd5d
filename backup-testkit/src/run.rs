//! How a promise is run, and how it fails.

use std::{fmt::Debug, future::Future, time::Duration};

/// No promise takes longer: what does is a deadlock.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// Runs one promise on several threads. Panics, naming it, if it does not end in time.
pub fn run(promise: &str, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    runtime.block_on(async {
        assert!(
            tokio::time::timeout(TIME_LIMIT, test).await.is_ok(),
            "{promise}: did not end within {} s: a deadlock",
            TIME_LIMIT.as_secs()
        );
    });
    // What a wrapper abandoned on purpose may still sleep.
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Says that a promise does not concern what is tested, because its fixture declares so. Said, never silent.
pub fn not_applicable(promise: &str, why: &str) {
    eprintln!("NOT APPLICABLE: {promise}: {why}");
}

/// Takes what a test needs, or fails naming it.
pub trait Must<T> {
    /// The value; panics with `what` otherwise.
    fn must(self, what: &str) -> T;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(e) => panic!("{what}: {e:?}"),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, what: &str) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}: there is none"),
        }
    }
}
