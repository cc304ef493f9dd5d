//! Nobody has it open: byte for byte, and nothing in its folder changes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::Command;

use backup_files::sqlite::{Approach, Method, SqliteError, integrity_check};
use rusqlite::Connection;

use crate::database::{copy_with, ledger, look, make_ledger, never, open, read};

const BIG: usize = 10 << 20;

fn assert_untouched_copy(folder: &Path, path: &Path, context: &str) {
    let before = look(folder);
    let mut snapshot = open(path, Approach::Undisturbed).unwrap();
    assert_eq!(snapshot.method(), Method::AtRest, "{context}");
    snapshot.integrity_check().unwrap();
    let bytes = read(&mut snapshot).unwrap();
    drop(snapshot);
    assert!(bytes == fs::read(path).unwrap(), "{context}: bytes differ");
    assert!(look(folder) == before, "{context}: the folder changed");
}

#[test]
fn comes_back_byte_for_byte_and_leaves_the_folder_alone() {
    for journal_mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        for page_size in [512, 1024, 4096, 32_768, 65_536] {
            let made = ledger(journal_mode, page_size, 0);
            assert_untouched_copy(made.folder.path(), &made.path, &format!("{journal_mode} {page_size}"));
        }
        let made = ledger(journal_mode, 4096, BIG);
        assert_untouched_copy(made.folder.path(), &made.path, &format!("{journal_mode} large"));
    }
}

#[test]
fn certain_leaves_the_same_names_bytes_and_times_of_files() {
    for (journal_mode, filler) in [("DELETE", 0), ("DELETE", BIG), ("WAL", 0), ("WAL", BIG)] {
        let made = ledger(journal_mode, 4096, filler);
        let before = look(made.folder.path()).1;
        let (_, bytes) = copy_with(&made.path, Approach::Certain).unwrap();
        assert!(bytes == fs::read(&made.path).unwrap(), "{journal_mode} {filler}");
        assert!(look(made.folder.path()).1 == before, "{journal_mode} {filler}: left something");
    }
}

#[test]
fn bytes_after_the_last_page_come_too() {
    let made = ledger("DELETE", 4096, 0);
    let mut bytes = fs::read(&made.path).unwrap();
    bytes.extend([7; 4096 + 100]);
    fs::write(&made.path, &bytes).unwrap();
    assert!(copy_with(&made.path, Approach::Undisturbed).unwrap().1 == bytes);
}

#[test]
fn awkward_names() {
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] =
        [b"a?b=c&d", b"100%25#x y", b"f\xff\xfe\nz", b"file:x?mode=memory", b":memory:", b"-wal"];
    for name in names {
        let path = folder.path().join(OsString::from_vec(name.to_vec()));
        for (journal_mode, filler) in [("DELETE", 0), ("WAL", BIG)] {
            make_ledger(&path, journal_mode, 4096, filler);
            assert_untouched_copy(folder.path(), &path, &format!("{}", path.display()));
            copy_with(&path, Approach::Certain).unwrap();
            integrity_check(&path, &never()).unwrap();
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_path_longer_than_sqlite_can_open() {
    for journal_mode in ["DELETE", "WAL"] {
        let made = ledger(journal_mode, 4096, 0);
        let deep = made.folder.path().join("d".repeat(250)).join("e".repeat(250)).join("f".repeat(250));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("ledger.db");
        fs::rename(&made.path, &path).unwrap();
        let (method, bytes) = copy_with(&path, Approach::Undisturbed).unwrap();
        assert_eq!(method, Method::AtRest);
        assert!(bytes == fs::read(&path).unwrap());
    }
}

#[test]
fn a_large_database_with_a_lock_byte_page_has_all_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA page_size = 65536; CREATE TABLE t (b BLOB); INSERT INTO t VALUES (zeroblob(900000000)), (zeroblob(200000000))")
        .unwrap();
    let size = path.metadata().unwrap().len();
    assert!(size > (1 << 30) + 65_536);
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE u (x)").unwrap();
    // Open here, so that it comes through sqlite_dbpage.
    let mut snapshot = open(&path, Approach::Undisturbed).unwrap();
    assert_eq!(snapshot.method(), Method::Pages);
    let mut delivered = 0;
    snapshot
        .read_all(&mut |chunk: Vec<u8>| {
            delivered += chunk.len() as u64;
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(delivered, snapshot.size());
    assert!(delivered >= size);
}

#[test]
fn what_is_no_database_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for bytes in [b"SQLite format 3\0".to_vec(), [&b"SQLite format 3\0"[..], &[0xaa; 9000]].concat()] {
        fs::write(&path, bytes).unwrap();
        let error = open(&path, Approach::Undisturbed).unwrap_err();
        assert!(matches!(error, SqliteError::NotADatabase(_)), "{error}");
        let error = integrity_check(&path, &never()).unwrap_err();
        assert!(matches!(error, SqliteError::NotADatabase(_) | SqliteError::Corrupt(_)), "{error}");
    }
}

#[test]
fn damage_is_found_at_both_ends() {
    for (journal_mode, filler) in [("DELETE", 0), ("WAL", 0), ("DELETE", BIG), ("WAL", BIG)] {
        let made = ledger(journal_mode, 4096, filler);
        let mut bytes = fs::read(&made.path).unwrap();
        let second_page = 4096 * 5;
        bytes[second_page..second_page + 4096].fill(0x5a);
        fs::write(&made.path, &bytes).unwrap();
        let mut snapshot = open(&made.path, Approach::Undisturbed).unwrap();
        let error = snapshot.integrity_check().unwrap_err();
        assert!(matches!(error, SqliteError::Corrupt(_)), "{error}");
        assert!(read(&mut snapshot).unwrap() == bytes, "damaged, and still copied as it is");
        assert!(matches!(integrity_check(&made.path, &never()), Err(SqliteError::Corrupt(_))));
    }
}

/// Needs the right to mount.
#[test]
fn a_read_only_mount_at_rest_and_with_a_leftover_wal() {
    let made = ledger("WAL", 4096, BIG);
    let crashed = made.folder.path().join("crashed.db");
    make_ledger(&crashed, "WAL", 4096, 0);
    crate::child::Other::start("leaves-wal", &crashed).kill();
    let expected = crate::database::recovered_by_sqlite(&crashed);
    let mounted = ReadOnly::mount(made.folder.path());
    let (method, bytes) = copy_with(&mounted.0.path().join("ledger.db"), Approach::Undisturbed).unwrap();
    assert_eq!(method, Method::AtRest);
    assert!(bytes == fs::read(&made.path).unwrap());
    for approach in [Approach::Undisturbed, Approach::Certain] {
        let (method, bytes) = copy_with(&mounted.0.path().join("crashed.db"), approach).unwrap();
        assert_eq!(method, Method::WithWal);
        assert!(bytes == expected);
    }
    copy_with(&mounted.0.path().join("ledger.db"), Approach::Certain).unwrap();
    // Open through the writable name, read through the read-only one.
    let writer = crate::child::Other::start("writes", &made.path);
    let (method, bytes) = copy_with(&mounted.0.path().join("ledger.db"), Approach::Undisturbed).unwrap();
    assert_eq!(method, Method::Pages);
    crate::database::assert_sound_ledger(&bytes);
    writer.finish();
}

struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn mount(folder: &Path) -> ReadOnly {
        let target = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str], paths: &[&Path]| {
            let status = Command::new("mount").args(arguments).args(paths).status().unwrap();
            assert!(status.success(), "this test needs the right to mount");
        };
        run(&["--bind"], &[folder, target.path()]);
        run(&["-o", "remount,bind,ro"], &[target.path()]);
        assert!(fs::write(target.path().join("x"), "x").is_err(), "not read-only");
        ReadOnly(target)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
