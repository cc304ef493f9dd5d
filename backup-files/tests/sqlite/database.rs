//! Databases to copy, copies to compare.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backup_files::sqlite::{Approach, Cancelled, Method, ReadError, Snapshot, SqliteError, integrity_check};
use rusqlite::Connection;

pub(crate) const ACCOUNTS: i64 = 1000;

pub(crate) struct Folder {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

/// A closed ledger of 1000 accounts with 100 each, and `filler` bytes more.
pub(crate) fn ledger(journal_mode: &str, page_size: u32, filler: usize) -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    make_ledger(&path, journal_mode, page_size, filler);
    Folder { folder, path }
}

pub(crate) fn make_ledger(path: &Path, journal_mode: &str, page_size: u32, filler: usize) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = {journal_mode};
             CREATE TABLE ledger (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, note TEXT);
             CREATE TABLE filler (bytes BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
             INSERT INTO ledger SELECT i, 100, hex(randomblob(20)) FROM n;"
        ))
        .unwrap();
    for _ in 0..filler.div_ceil(1 << 20) {
        connection.execute("INSERT INTO filler VALUES (randomblob(1048576))", []).unwrap();
    }
    connection.execute_batch("CREATE INDEX by_note ON ledger (note)").unwrap();
}

/// Moves money between two accounts: the sum stays.
pub(crate) fn ledger_transfer(connection: &Connection) {
    connection
        .execute_batch(
            "BEGIN IMMEDIATE;
             UPDATE ledger SET amount = amount - 5 WHERE id = 1 + abs(random()) % 500;
             UPDATE ledger SET amount = amount + 5, note = hex(randomblob(20)) WHERE id = 501 + abs(random()) % 500;
             COMMIT",
        )
        .unwrap();
}

pub(crate) fn never() -> Cancelled {
    Cancelled::new(|| false)
}

pub(crate) fn open(path: &Path, approach: Approach) -> Result<Snapshot, SqliteError> {
    Snapshot::open(path, approach, Duration::from_secs(10), &never())
}

pub(crate) fn copy_with(path: &Path, approach: Approach) -> Result<(Method, Vec<u8>), SqliteError> {
    let mut snapshot = open(path, approach)?;
    let bytes = read(&mut snapshot)?;
    assert_eq!(snapshot.size(), bytes.len() as u64, "the size promised");
    Ok((snapshot.method(), bytes))
}

/// Three tries, the later ones certain, as the caller will do it.
pub(crate) fn copy(path: &Path) -> (Method, Vec<u8>) {
    let tries = [Approach::Undisturbed, Approach::Certain, Approach::Certain];
    for approach in tries {
        match copy_with(path, approach) {
            Err(SqliteError::Changed) => {}
            copied => return copied.unwrap(),
        }
    }
    panic!("changed three times");
}

pub(crate) fn read(snapshot: &mut Snapshot) -> Result<Vec<u8>, SqliteError> {
    let mut bytes = Vec::new();
    let read = snapshot.read_all(&mut |chunk: Vec<u8>| {
        assert!(chunk.len() <= 1 << 20);
        bytes.extend(chunk);
        Ok::<(), ()>(())
    });
    match read {
        Ok(()) => Ok(bytes),
        Err(ReadError::Database(error)) => Err(error),
        Err(ReadError::Sink(())) => unreachable!(),
    }
}

/// Sound, with the money all there, and nothing left beside the copy by the check.
pub(crate) fn assert_sound_ledger(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    fs::write(&path, bytes).unwrap();
    integrity_check(&path, &never()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the check left something");
    let connection = Connection::open(&path).unwrap();
    let (count, sum): (i64, i64) = connection
        .query_row("SELECT count(*), sum(amount) FROM ledger", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((count, sum), (ACCOUNTS, ACCOUNTS * 100));
}

/// Everything one can see of a folder: names, contents, times; and the folder's own time.
pub(crate) fn look(folder: &Path) -> (SystemTime, BTreeMap<OsString, (Vec<u8>, SystemTime)>) {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let modified = entry.metadata().unwrap().modified().unwrap();
        (entry.file_name(), (fs::read(entry.path()).unwrap(), modified))
    });
    (folder.metadata().unwrap().modified().unwrap(), files.collect())
}

/// What SQLite's own recovery makes of a copy of the database and its side files.
pub(crate) fn recovered_by_sqlite(database: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let name = database.file_name().unwrap();
    for suffix in ["", "-wal", "-journal"] {
        let mut side = name.to_os_string();
        side.push(suffix);
        if let Ok(bytes) = fs::read(database.with_file_name(&side)) {
            fs::write(folder.path().join(&side), bytes).unwrap();
        }
    }
    let path = folder.path().join(name);
    let connection = Connection::open(&path).unwrap();
    connection.query_row("SELECT count(*) FROM ledger", [], |row| row.get::<_, i64>(0)).unwrap();
    drop(connection);
    fs::read(path).unwrap()
}
