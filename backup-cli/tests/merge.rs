//! `backup restore --merge`: what the backup lacks stays; of both, the backup's.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};
use support::{Place, Ran, trial::fingerprint};

/// Restores `latest` of `b` with these further arguments, confirmed.
fn merge(place: &Place, more: &[&str]) -> Ran {
    let line = [&["restore", "latest", "--from", "b", "--merge"], more].concat();
    let plan = place.json(0, &[&line[..], &["--dry-run"]].concat());
    let id = plan["plan"]["id"].as_str().unwrap();
    place.expect(0, &[&line[..], &["--confirm", id]].concat())
}

#[test]
fn what_the_backup_lacks_stays_and_of_both_the_backups_is_there() {
    let place = Place::with_tree();
    place.write("tree/becomes/x", "was a folder");
    place.write("tree/was-file", "a file in the backup");
    place.expect(0, &["create", "tree", "--to", "b", "--exclude", "cache/"]);
    place.write("tree/a.txt", "changed since");
    place.write("tree/sub/new.txt", "made since");
    place.write("tree/sub/only/deep.txt", "made since");
    place.write("tree/cache/x", "never in a backup");
    fs::set_permissions(place.path("tree/sub/only"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::hard_link(place.path("tree/sub/new.txt"), place.path("tree/second name")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("tree/sub/link")).unwrap();
    fs::remove_dir_all(place.path("tree/becomes")).unwrap();
    place.write("tree/becomes", "is a file now");
    fs::remove_file(place.path("tree/was-file")).unwrap();
    place.write("tree/was-file/inside", "a folder now");
    fs::remove_file(place.path("tree/sub/b.txt")).unwrap();
    let before = fingerprint(&place.path("tree"));
    let dry = place.expect(0, &["restore", "latest", "--from", "b", "--merge", "--dry-run"]).stdout;
    assert!(dry.contains("MERGE") && dry.contains("second name of the same file"), "{dry}");
    place.expect(6, &["restore", "latest", "--from", "b", "--merge"]);
    let ran = merge(&place, &[]);
    assert!(ran.stderr.contains("1 folders are replaced"), "{}", ran.stderr);
    let read = |name: &str| place.read(&format!("tree/{name}"));
    assert_eq!((read("a.txt"), read("sub/b.txt")), ("alpha".into(), "beta".into()));
    assert_eq!((read("becomes/x"), read("was-file")), ("was a folder".into(), "a file in the backup".into()));
    assert_eq!((read("sub/new.txt"), read("cache/x")), ("made since".into(), "never in a backup".into()));
    let after = fingerprint(&place.path("tree"));
    for kept in
        ["sub/new.txt", "sub/only", "sub/only/deep.txt", "second name", "sub/link", "cache", "cache/x"]
    {
        assert_eq!(after[std::path::Path::new(kept)], before[std::path::Path::new(kept)], "{kept}");
    }
    let inode = |name: &str| place.path("tree").join(name).metadata().unwrap().ino();
    assert_eq!(inode("second name"), inode("sub/new.txt"));
    place.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(fingerprint(&place.path("tree")), before);
    merge(&place, &["--settle"]);
    assert_eq!(read("sub/new.txt"), "made since");
    assert_eq!(place.path("tree/sub/only/deep.txt").metadata().unwrap().nlink(), 1);
}

#[test]
fn a_part_is_merged_into_what_is_there() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    place.write("tree/sub/b.txt", "changed since");
    place.expect(6, &["restore", "latest", "--from", "b", "--only", "tree/sub/*"]);
    merge(&place, &["--only", "tree/sub/*"]);
    assert_eq!(
        (place.read("tree/a.txt"), place.read("tree/sub/b.txt")),
        ("changed since".into(), "beta".into())
    );
}

#[test]
fn a_merge_into_nothing_is_a_restore() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--merge", "--to", "out"]);
    assert_eq!(fingerprint(&place.path("out")), fingerprint(&place.path("tree")));
}

#[test]
fn the_log_of_a_database_does_not_stay_beside_the_one_of_the_backup() {
    let place = Place::with_tree();
    let database = |name: &str| {
        let db = rusqlite::Connection::open(place.path(name)).unwrap();
        db.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE IF NOT EXISTS t (x)").unwrap();
        db
    };
    let count = |name: &str| -> i64 {
        let db = rusqlite::Connection::open(place.path(name)).unwrap();
        db.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()
    };
    let db = database("tree/app.db");
    db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    place.expect(0, &["create", "tree", "--to", "b"]);
    // Written on, and never checkpointed: the log holds it.
    db.execute_batch("INSERT INTO t VALUES (2), (3)").unwrap();
    let other = database("tree/other.db");
    other.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    place.write("tree/a.txt-wal", "no database is beside it");
    assert!(place.path("tree/app.db-wal").metadata().unwrap().len() > 0);
    std::mem::forget((db, other));
    merge(&place, &[]);
    assert!(!place.path("tree/app.db-wal").exists() && !place.path("tree/app.db-shm").exists());
    assert_eq!(count("tree/app.db"), 1);
    assert!(place.path("tree/other.db-wal").exists(), "the log of a database that stays, stays with it");
    assert_eq!(count("tree/other.db"), 1);
    assert_eq!(place.read("tree/a.txt-wal"), "no database is beside it");
}
