//! SQLite databases among the files.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::{Context, Fact, Severity};
use common::*;
use rusqlite::Connection;
use std::{fs, path::Path};

fn rows(path: &Path) -> i64 {
    Connection::open(path).unwrap().query_row("select count(*) from t", [], |row| row.get(0)).unwrap()
}

fn made(path: &Path, wal: bool, rows: u32) -> Connection {
    let db = Connection::open(path).unwrap();
    if wal {
        db.pragma_update(None, "journal_mode", "wal").unwrap();
    }
    db.execute_batch("create table t (n integer, x blob)").unwrap();
    for n in 0..rows {
        db.execute("insert into t values (?, randomblob(100))", [n]).unwrap();
    }
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_database_comes_back_whole_and_without_side_files() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    let _open = made(&from.join("app.db"), true, 300);
    fs::write(from.join("app.db-other"), "no side file").unwrap();
    fs::write(from.join("text-wal"), "no side file").unwrap();
    assert!(from.join("app.db-wal").exists());
    let (done, _target) = mirror(&config(&from), &config(&to)).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app.db", "app.db-other", "text-wal"]);
    assert_eq!(rows(&to.join("app.db")), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_at_rest_comes_back_byte_for_byte_and_its_method_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    drop(made(&from.join("app.db"), false, 50));
    let cx = Context::default();
    let view = source(&config(&from)).connect(&cx).await.unwrap().fix(&cx).await.unwrap();
    let facts = view.pour(backup_core::DigestSink::new(), &cx).await.unwrap();
    assert_eq!(facts.get("sqlite app.db", "method"), Some(&Fact::Note("at-rest".into())));
    let (_, _target) = mirror(&config(&from), &config(&to)).await;
    assert_eq!(differences(&from, &to), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_stored_as_it_is_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    drop(made(&from.join("app.db"), false, 500));
    let mut bytes = fs::read(from.join("app.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 5000].fill(0x5a);
    fs::write(from.join("app.db"), &bytes).unwrap();
    fs::write(from.join("encrypted.db"), [b"SQLite format 3\0".as_slice(), &[7; 5000]].concat()).unwrap();
    let (done, _target) = mirror(&config(&from), &config(&to)).await;
    assert_eq!(done.lost, 0);
    assert!(done.says(Severity::Warning, "damaged SQLite database"), "{:?}", done.notes);
    assert_eq!(differences(&from, &to), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_locked_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys,time\nc=sqlite3.connect(sys.argv[1],isolation_level=None)\nc.execute('create table t(n)')\nc.execute('begin exclusive')\nprint('locked',flush=True)\ntime.sleep(60)"])
        .arg(dir.path().join("app.db"))
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut other = other.unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut said).unwrap();
    let mut config = config(dir.path());
    config.busy_seconds = Some(0);
    let done = pour(&config, backup_core::DigestSink::new()).await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(done.lost, 1, "{:?}", done.notes);
    assert!(done.says(Severity::Lost, "locked"), "{:?}", done.notes);
}
