//! What a crash leaves is read as recovery would leave it, and stays as it is.

use std::fs;

use backup_files::sqlite::{Approach, Method, SqliteError};

use crate::child::Other;
use crate::database::{assert_sound_ledger, copy_with, ledger, look, open, recovered_by_sqlite};

#[test]
fn a_hot_journal_is_rolled_back_in_the_copy_only() {
    for (journal_mode, page_size, filler) in [
        ("DELETE", 512, 0),
        ("DELETE", 4096, 0),
        ("PERSIST", 4096, 0),
        ("TRUNCATE", 65_536, 0),
        ("DELETE", 4096, 10 << 20),
    ] {
        let context = format!("{journal_mode} {page_size} {filler}");
        let made = ledger(journal_mode, page_size, filler);
        let at_rest = fs::read(&made.path).unwrap();
        Other::start("spills", &made.path).kill();
        assert!(fs::read(&made.path).unwrap() != at_rest, "{context}: nothing was spilled");
        let before = look(made.folder.path());
        let (method, bytes) = copy_with(&made.path, Approach::Undisturbed).unwrap();
        assert_eq!(method, Method::RolledBack, "{context}");
        assert!(bytes == at_rest, "{context}");
        assert!(bytes == recovered_by_sqlite(&made.path), "{context}: SQLite recovers otherwise");
        assert!(look(made.folder.path()) == before, "{context}: the source changed");
        assert_sound_ledger(&bytes);
    }
}

#[test]
fn a_journal_with_a_torn_end_is_rolled_back_as_far_as_sqlite_would() {
    let made = ledger("DELETE", 1024, 0);
    Other::start("spills", &made.path).kill();
    let journal = made.path.with_file_name("ledger.db-journal");
    let whole = fs::read(&journal).unwrap();
    let mut compared = 0;
    for length in (0..whole.len()).step_by(whole.len() / 23 + 1).chain([whole.len() - 1]) {
        let mut torn = whole[..length].to_vec();
        if length > 3000 {
            // And a byte which the checksum covers.
            let at = length / 2;
            torn[at] ^= 0xff;
        }
        fs::write(&journal, &torn).unwrap();
        let (_, bytes) =
            copy_with(&made.path, Approach::Undisturbed).unwrap_or_else(|error| panic!("{length}: {error}"));
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("ledger.db");
        fs::copy(&made.path, &copy).unwrap();
        fs::write(folder.path().join("ledger.db-journal"), &torn).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        let _ = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
        drop(connection);
        assert!(bytes == fs::read(&copy).unwrap(), "journal of {length} bytes");
        compared += 1;
    }
    assert!(compared > 20);
}

#[test]
fn a_leftover_wal_is_in_the_copy() {
    for (page_size, filler, with_shm) in
        [(512, 0, true), (4096, 0, false), (65_536, 0, true), (4096, 10 << 20, true), (4096, 10 << 20, false)]
    {
        let context = format!("{page_size} {filler} {with_shm}");
        let made = ledger("WAL", page_size, filler);
        Other::start("leaves-wal", &made.path).kill();
        if !with_shm {
            fs::remove_file(made.path.with_file_name("ledger.db-shm")).unwrap();
        }
        let before = look(made.folder.path());
        assert!(before.1.len() == 2 + usize::from(with_shm));
        let mut snapshot = open(&made.path, Approach::Undisturbed).unwrap();
        match snapshot.integrity_check() {
            Err(SqliteError::NotCheckable(_)) => assert!(!with_shm && filler > 0, "{context}"),
            checked => checked.unwrap(),
        }
        drop(snapshot);
        let (method, bytes) = copy_with(&made.path, Approach::Undisturbed).unwrap();
        assert_eq!(method, Method::WithWal, "{context}");
        assert!(bytes == recovered_by_sqlite(&made.path), "{context}: SQLite recovers otherwise");
        assert!(look(made.folder.path()) == before, "{context}: the source changed");
        assert_sound_ledger(&bytes);
    }
}

#[test]
fn a_torn_wal_counts_up_to_its_last_whole_commit() {
    let made = ledger("WAL", 4096, 0);
    Other::start("leaves-wal", &made.path).kill();
    let wal = made.path.with_file_name("ledger.db-wal");
    let whole = fs::read(&wal).unwrap();
    for (length, damage) in
        [(0, None), (20, None), (32, None), (whole.len() / 2, None), (whole.len(), Some(whole.len() * 2 / 3))]
    {
        let mut torn = whole[..length].to_vec();
        if let Some(at) = damage {
            torn[at] ^= 1;
        }
        fs::write(&wal, &torn).unwrap();
        let (_, bytes) = copy_with(&made.path, Approach::Undisturbed).unwrap();
        assert!(bytes == recovered_by_sqlite(&made.path), "log of {length} bytes, damaged at {damage:?}");
    }
}
