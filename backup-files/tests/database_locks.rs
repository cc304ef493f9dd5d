//! POSIX drops a process's locks on a file when any of its descriptors is closed: what that must not do to us, and to
//! the program that we are part of.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use async_trait::async_trait;
use backup_core::{Content, Context, Entry, Error, Proof, Put, Result, Sink};
use common::*;
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
};

type Meddle = Box<dyn FnOnce() + Send>;
type Taken = BTreeMap<Vec<u8>, (Entry, Vec<u8>)>;

/// Takes everything, and does something once the first bytes of the first stream are there.
struct AtFirstBytes {
    meddle: Mutex<Option<Meddle>>,
    taken: Mutex<Taken>,
}

impl AtFirstBytes {
    fn new(meddle: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(AtFirstBytes { meddle: Mutex::new(Some(Box::new(meddle))), taken: Mutex::default() })
    }
}

impl fmt::Display for AtFirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("meddling")
    }
}

#[async_trait]
impl Sink for AtFirstBytes {
    async fn put(&self, entry: Entry, mut content: Content) -> Result<Put> {
        let stream = content.in_memory().is_none();
        let mut all = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(bytes)) => {
                    if stream && let Some(meddle) = self.meddle.lock().unwrap().take() {
                        meddle();
                    }
                    all.extend_from_slice(&bytes);
                }
                Ok(None) => break,
                Err(e) => return Ok(Put::Discarded(Error::to_string(&e).into())),
            }
        }
        self.taken.lock().unwrap().insert(entry.path.to_vec(), (entry, all));
        Ok(Put::Stored)
    }

    async fn finish(&self, _: &Context) -> Result<Proof> {
        Ok(Proof::new())
    }
}

/// Another process that has the database open, all rows of generation 1 and something in the log.
struct Writer(Child, BufReader<ChildStdout>);

impl Writer {
    fn start(path: &Path) -> Writer {
        let script = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('pragma journal_mode = wal')
c.execute('pragma wal_autocheckpoint = 0')
c.execute('create table t (n integer, x blob)')
for _ in range(24):
    c.execute('insert into t values (1, randomblob(1000000))')
c.execute('pragma wal_checkpoint(truncate)')
c.execute('create table other (n)')
print('ready', flush=True)
sys.stdin.readline()
c.execute('update t set n = 2, x = randomblob(1000000)')
c.close()
print('closed', flush=True)
";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut writer = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(line(&mut writer), "ready\n");
        Writer(child, writer)
    }

    /// Changes everything, and closes the database as the last one as far as it knows: a checkpoint.
    fn change_and_close(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line(&mut self.1), "closed\n");
        self.0.wait().unwrap();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

fn assert_one_moment(bytes: &[u8], dir: &Path) {
    let copy = dir.join("copy.db");
    fs::write(&copy, bytes).unwrap();
    let db = Connection::open(&copy).unwrap();
    let sound: String = db.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let (least, most, rows): (i64, i64, i64) = db
        .query_row("select min(n), max(n), count(*) from t", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((least, most, rows), (1, 1, 24));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_closes_does_not_checkpoint_under_our_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let writer = Writer::start(&from.join("app.db"));
    let sink = AtFirstBytes::new(move || writer.change_and_close());
    let done = pour(&config(&from), sink.clone()).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let taken = sink.taken.lock().unwrap();
    assert_one_moment(&taken[&b"app.db"[..]].1, dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_name_of_a_database_does_not_drop_the_locks_of_our_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let writer = Writer::start(&from.join("app.db"));
    fs::create_dir(from.join("sub")).unwrap();
    fs::hard_link(from.join("app.db"), from.join("sub/again")).unwrap();
    // The walk is through the folder below by then.
    let sink = AtFirstBytes::new(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        writer.change_and_close();
    });
    let done = pour(&config(&from), sink.clone()).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let taken = sink.taken.lock().unwrap();
    assert_one_moment(&taken[&b"app.db"[..]].1, dir.path());
    assert_eq!(taken[&b"sub/again"[..]].0.link.as_deref(), Some(&b"app.db"[..]));
}

/// Another run of the same process, say, or a folder that is mounted twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_does_not_drop_the_locks_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let path = from.join("app.db");
    let writer = Writer::start(&path);
    let (second, handle) = (config(&path), tokio::runtime::Handle::current());
    let sink = AtFirstBytes::new(move || {
        let other = std::thread::spawn(move || {
            handle.block_on(async { pour(&second, backup_core::DigestSink::new()).await.lost })
        });
        assert_eq!(other.join().unwrap(), 0);
        writer.change_and_close();
    });
    let done = pour(&config(&from), sink.clone()).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let taken = sink.taken.lock().unwrap();
    assert_one_moment(&taken[&b"app.db"[..]].1, dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_this_program_keeps_its_locks_as_a_source_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch("create table t (n)").unwrap();
    let done = pour(&config(&path), backup_core::DigestSink::new()).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let metadata = path.metadata().unwrap();
    let locked = backup_files::sqlite::locked_by_this_process();
    assert!(locked.contains(&(metadata.dev(), metadata.ino())));
}
