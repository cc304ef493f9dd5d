//! One run of a series at a time.

use super::ArchiveFixture;
use crate::Must;
use backup_core::{Context, ErrorKind, Series};
use std::time::{Duration, Instant};

fn series(name: &str) -> Series {
    Series(format!("host /srv/{name} job"))
}

/// At once if it does not want to wait, later if it does; the error names the process.
pub async fn a_second_run_of_a_series_is_refused_and_told_who_holds_the_lock(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let lock = fresh.archive.lock(&series("a"), Duration::ZERO, &cx).await.must("take the lock");
    for archive in [fresh.archive.clone(), fresh.reopened()] {
        for wait in [Duration::ZERO, Duration::from_millis(300)] {
            let started = Instant::now();
            let error = archive.lock(&series("a"), wait, &cx).await.err().must("a second lock is refused");
            assert_eq!(error.kind(), ErrorKind::AlreadyRunning);
            assert!(started.elapsed() >= wait, "it gave up before its time");
            assert!(started.elapsed() < wait + Duration::from_secs(5), "it waited {:?}", started.elapsed());
            let holder = std::process::id().to_string();
            assert!(
                error.to_string().contains(&holder),
                "the holder, process {holder}, is not named: {error}"
            );
        }
    }
    lock.release().await.must("give the lock back");
}

/// By the next process too.
pub async fn a_lock_that_was_released_or_dropped_is_free(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let before = fresh.names();
    let lock = fresh.archive.lock(&series("a"), Duration::ZERO, &cx).await.must("take the lock");
    lock.release().await.must("give it back");
    let lock = fresh.reopened().lock(&series("a"), Duration::ZERO, &cx).await.must("take it after a release");
    drop(lock);
    let lock =
        fresh.reopened().lock(&series("a"), Duration::from_secs(5), &cx).await.must("take it after a drop");
    lock.release().await.must("give it back");
    assert_eq!(fresh.names(), before, "a lock that was given back left something");
}

/// As soon as it is free.
pub async fn a_run_that_waits_gets_the_lock(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let lock = fresh.archive.lock(&series("a"), Duration::ZERO, &cx).await.must("take the lock");
    let (other, other_cx) = (fresh.reopened(), cx.clone());
    let waiting =
        tokio::spawn(
            async move { other.lock(&series("a"), Duration::from_secs(60), &other_cx).await.map(drop) },
        );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "the lock was given twice, or the wait is over too early");
    lock.release().await.must("give it back");
    let got = tokio::time::timeout(Duration::from_secs(20), waiting).await.must("the wait ends");
    got.must("it does not panic").must("the waiting run gets the lock");
}

/// Within five seconds.
pub async fn waiting_for_a_lock_ends_when_cancelled(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let lock = fresh.archive.lock(&series("a"), Duration::ZERO, &cx).await.must("take the lock");
    let child = cx.child();
    let cancel = child.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let waited = fresh.archive.lock(&series("a"), Duration::from_secs(600), &child).await;
    assert_eq!(waited.err().must("a cancelled wait is an error").kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    lock.release().await.must("give it back");
}

/// Series that only look alike are different.
pub async fn two_series_run_side_by_side(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let first = fresh.archive.lock(&series("a"), Duration::ZERO, &cx).await.must("take the first lock");
    let second = fresh.archive.lock(&series("A"), Duration::ZERO, &cx).await.must("take the second lock");
    first.release().await.must("give it back");
    let refused = fresh.archive.lock(&series("A"), Duration::ZERO, &cx).await;
    assert!(refused.is_err(), "giving one lock back freed the other");
    second.release().await.must("give it back");
}
