//! How a promise is run, and how it fails.

use futures::FutureExt;
use std::{
    any::Any,
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

/// No promise takes longer: what does is a deadlock.
const TIME_LIMIT: Duration = Duration::from_secs(400);
/// With the counts of a soak.
const TIME_LIMIT_OF_SOAKS: Duration = Duration::from_secs(3600);

/// Runs one promise on several threads. Panics, naming it, if it does not end in time.
pub fn run(promise: &str, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    let limit = if std::env::var_os("BACKUP_SOAK").is_some() { TIME_LIMIT_OF_SOAKS } else { TIME_LIMIT };
    let ended = runtime.block_on(async {
        let test = AssertUnwindSafe(test).catch_unwind();
        match tokio::time::timeout(limit, test).await {
            Ok(ended) => ended,
            Err(_) => panic!("{promise}: did not end within {} s: a deadlock", limit.as_secs()),
        }
    });
    // What a wrapper abandoned on purpose may still sleep.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => {}
        Err(panic) => match panic.downcast_ref::<Skipped>() {
            Some(Skipped(why)) => eprintln!("SKIPPED: {promise}: {why}"),
            None if panic.is::<PassedElsewhere>() => {}
            None => resume_unwind(panic),
        },
    }
}

/// Ends a test that runs under `run` and cannot be made here. Said, never silent.
pub fn skip(why: &str) -> ! {
    let skipped: Box<dyn Any + Send> = Box::new(Skipped(why.to_owned()));
    // Not `panic_any`: the hook would print it as a failure.
    resume_unwind(skipped)
}

/// Makes the test that runs now in a process of its own instead, with these variables in its environment, and ends it here as it
/// ended there. What a program can set for another only.
pub fn run_again_with(variables: &[(&str, std::ffi::OsString)]) -> ! {
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main");
    let test = test.must("the name of a test is that of its thread: not with one thread for all");
    let mut again = std::process::Command::new(std::env::current_exe().must("find this program"));
    again.args(["--exact", test, "--nocapture"]).envs(variables.iter().map(|(name, value)| (name, value)));
    let status = again.stdin(std::process::Stdio::null()).status().must("start this program again");
    assert!(status.success(), "{test} failed in a process of its own: {status}");
    resume_unwind(Box::new(PassedElsewhere))
}

struct PassedElsewhere;

/// A skip travels as a panic, through whatever stands between a fixture and `run`.
struct Skipped(String);

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
