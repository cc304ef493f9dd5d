//! Copies of a database which other processes or threads write to all the while.

use std::fs;
use std::time::Duration;

use backup_files::sqlite::{Approach, Method, SqliteError};
use rusqlite::Connection;

use crate::child::Other;
use crate::database::{assert_sound_ledger, copy, copy_with, ledger, ledger_transfer, open, read};

/// The real limit, 50 ms, is measured by the soak on a quiet machine.
const GENEROUS: Duration = Duration::from_secs(1);

fn copies_under_write(journal_mode: &str, what: &str, filler: usize, count: usize) {
    let made = ledger(journal_mode, 4096, filler);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(made.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let writer = Other::start(&format!("{what} at once"), &made.path);
    let mut methods = Vec::new();
    for _ in 0..count {
        let (method, bytes) = copy(&made.path);
        assert_sound_ledger(&bytes);
        methods.push(method);
    }
    let (commits, longest) = writer.finish();
    println!("{journal_mode} {what} {filler}: {commits} commits, the longest {longest:?}, {methods:?}");
    assert!(commits > 0);
    assert!(longest < GENEROUS, "a commit took {longest:?}");
    // A persistent journal is the writer's to remove.
    assert!(names().iter().all(|name| before.contains(name)), "left behind: {:?}", names());
}

#[test]
fn wal_small() {
    copies_under_write("WAL", "writes", 0, 20);
}

#[test]
fn wal_large() {
    copies_under_write("WAL", "writes", 40 << 20, 5);
}

#[test]
fn rollback_small() {
    copies_under_write("DELETE", "writes", 0, 20);
    copies_under_write("PERSIST", "writes", 0, 5);
}

#[test]
fn rollback_large() {
    copies_under_write("DELETE", "writes", 20 << 20, 3);
}

#[test]
fn opened_and_closed_for_every_transaction() {
    copies_under_write("WAL", "reopens", 0, 10);
    copies_under_write("WAL", "reopens", 20 << 20, 3);
    copies_under_write("DELETE", "reopens", 0, 10);
}

/// Once an old log was opened before the database had settled, and laid over a newer database.
#[test]
fn without_locks_a_copy_is_sound_or_refused_whatever_writers_and_crashes_do() {
    for (journal_mode, what) in
        [("WAL", "reopens"), ("WAL", "writes"), ("DELETE", "reopens"), ("DELETE", "writes")]
    {
        let made = ledger(journal_mode, 512, 0);
        let mut copied = 0;
        for _ in 0..3 {
            let writer = Other::start(what, &made.path);
            for _ in 0..25 {
                match copy_with(&made.path, Approach::Undisturbed) {
                    Ok((_, bytes)) => {
                        assert_sound_ledger(&bytes);
                        copied += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, SqliteError::Changed), "{journal_mode} {what}: {error}")
                    }
                }
            }
            writer.kill();
            assert_sound_ledger(&copy_with(&made.path, Approach::Undisturbed).unwrap().1);
        }
        assert!(copied > 0, "{journal_mode} {what}: always refused");
    }
}

#[test]
fn a_writer_in_this_process_keeps_its_locks() {
    for filler in [0, 10 << 20] {
        let made = ledger("WAL", 4096, filler);
        let connection = Connection::open(&made.path).unwrap();
        ledger_transfer(&connection);
        let (method, bytes) = copy_with(&made.path, Approach::Undisturbed).unwrap();
        assert_eq!(method, Method::Pages);
        assert_sound_ledger(&bytes);
        ledger_transfer(&connection);
        let locked = backup_files::sqlite::locked_by_this_process();
        let metadata = made.path.metadata().unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert!(
            locked.contains(&(metadata.dev(), metadata.ino())),
            "our copy dropped the application's locks"
        );
    }
}

#[test]
fn a_snapshot_is_of_one_moment_however_slowly_it_is_read() {
    let made = ledger("WAL", 4096, 10 << 20);
    let connection = Connection::open(&made.path).unwrap();
    ledger_transfer(&connection);
    let mut snapshot = open(&made.path, Approach::Undisturbed).unwrap();
    connection.execute_batch("DELETE FROM ledger; PRAGMA wal_checkpoint").unwrap();
    connection.execute_batch("VACUUM").unwrap();
    snapshot.integrity_check().unwrap();
    assert_sound_ledger(&read(&mut snapshot).unwrap());
}

#[test]
fn a_large_database_changed_meanwhile_is_never_delivered_as_whole() {
    for journal_mode in ["DELETE", "WAL"] {
        for how in ["commit", "vacuum", "truncate", "overwrite"] {
            let made = ledger(journal_mode, 4096, 10 << 20);
            let mut snapshot = open(&made.path, Approach::Undisturbed).unwrap();
            let mut first = true;
            let outcome = snapshot.read_all(&mut |_chunk| {
                if std::mem::take(&mut first) {
                    match how {
                        "truncate" => fs::File::options()
                            .write(true)
                            .open(&made.path)
                            .unwrap()
                            .set_len(1 << 20)
                            .unwrap(),
                        "overwrite" => fs::write(&made.path, vec![0; 12 << 20]).unwrap(),
                        "vacuum" => Connection::open(&made.path)
                            .unwrap()
                            .execute_batch("DELETE FROM filler; VACUUM")
                            .unwrap(),
                        _ => ledger_transfer(&Connection::open(&made.path).unwrap()),
                    }
                }
                Ok::<(), ()>(())
            });
            let error = outcome.unwrap_err();
            let changed = matches!(error, backup_files::sqlite::ReadError::Database(SqliteError::Changed));
            assert!(changed, "{journal_mode} {how}: {error}");
        }
    }
}

#[test]
fn a_database_replaced_by_rename_is_the_old_one() {
    let made = ledger("DELETE", 4096, 10 << 20);
    let old = fs::read(&made.path).unwrap();
    let mut snapshot = open(&made.path, Approach::Undisturbed).unwrap();
    let other = ledger("DELETE", 4096, 0);
    let mut bytes = Vec::new();
    let outcome = snapshot.read_all(&mut |chunk| {
        if bytes.is_empty() {
            fs::copy(&other.path, made.path.with_file_name("new")).unwrap();
            fs::rename(made.path.with_file_name("new"), &made.path).unwrap();
        }
        bytes.extend(chunk);
        Ok::<(), ()>(())
    });
    // Whole, or refused: losing its name changes a file's time too.
    assert!(outcome.is_err() || bytes == old);
}
