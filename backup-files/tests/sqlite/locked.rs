//! Locks of other processes.

use std::time::{Duration, Instant};

use backup_files::sqlite::{Approach, Cancelled, Method, Snapshot, SqliteError};

use crate::child::Other;
use crate::database::{copy_with, ledger, never};

#[test]
fn an_exclusive_lock_is_waited_for_no_longer_than_allowed() {
    for (journal_mode, what) in
        [("DELETE", "holds-exclusively"), ("DELETE", "keeps-exclusively"), ("WAL", "keeps-exclusively")]
    {
        let made = ledger(journal_mode, 4096, 0);
        let other = Other::start(what, &made.path);
        for approach in [Approach::Undisturbed, Approach::Certain] {
            let start = Instant::now();
            let error =
                Snapshot::open(&made.path, approach, Duration::from_millis(300), &never()).unwrap_err();
            assert!(matches!(error, SqliteError::Locked(_)), "{journal_mode} {what} {approach:?}: {error}");
            assert!((300..5000).contains(&start.elapsed().as_millis()));
        }
        let cancelled = Cancelled::new(|| true);
        let error =
            Snapshot::open(&made.path, Approach::Certain, Duration::from_secs(60), &cancelled).unwrap_err();
        assert!(matches!(error, SqliteError::Cancelled), "{error}");
        other.kill();
        // In rollback mode the killed transaction is in a hot journal now.
        copy_with(&made.path, Approach::Undisturbed).unwrap();
    }
}

#[test]
fn readers_elsewhere_do_not_matter() {
    for (journal_mode, method) in [("DELETE", Method::AtRest), ("WAL", Method::Pages)] {
        let made = ledger(journal_mode, 4096, 0);
        let other = Other::start("reads", &made.path);
        assert_eq!(copy_with(&made.path, Approach::Undisturbed).unwrap().0, method);
        drop(other);
    }
}

#[test]
fn a_check_can_be_cancelled() {
    let made = ledger("WAL", 512, 10 << 20);
    let _other = Other::start("reads", &made.path);
    let cancelled = Cancelled::new(|| true);
    let mut snapshot = Snapshot::open(&made.path, Approach::Undisturbed, Duration::ZERO, &cancelled).unwrap();
    assert!(matches!(snapshot.integrity_check(), Err(SqliteError::Cancelled)));
}
