//! What SQLite has beside a database that is restored as a single file.

use super::{NEW, OLD, Scene, killed_before, run, scene, snapshot};
use crate::target::FilesTarget;
use backup_core::{Context, Target};
use std::{fs, path::Path, process::Command};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_with_what_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    run("sqlite3 n 'PRAGMA journal_mode = WAL; CREATE TABLE new(x)' >/dev/null", &at);
    run(
        "sqlite3 old 'CREATE TABLE old(x)'; printf '\\067\\177\\006\\202 log' > old-wal; echo index > old-shm
        printf '\\331\\325\\005\\371\\040\\241\\143\\327 journal' > old-journal",
        &at,
    );
    let reset = {
        let at = at.clone();
        move || run("rm -rf t t-* .t.backup-*; for f in old*; do ln $f t${f#old}; done", &at)
    };
    let scene =
        Scene { target: at.join("t"), new: at.join("n"), reset: Box::new(reset.clone()), merge: false };
    scene.every_kill_is_undone().await;

    // What the application has made beside the new one goes with it.
    reset();
    let (old, cx) = (snapshot(&scene.target), Context::default());
    let mut target = scene.filled().await;
    target.publish(&cx).await.unwrap();
    run(
        "test \"$(sqlite3 t .tables)\" = new; printf '\\067\\177\\006\\203 of the new' > t-wal; : > t-journal",
        &at,
    );
    target.revert(&cx).await.unwrap();
    assert_eq!(snapshot(&scene.target), old);
    scene.nothing_is_left();
}

/// A log that SQLite applies, of the database `old`, which itself does not have its rows; and `n`, another database.
const HOT: &str = "rm -f n; sqlite3 n 'CREATE TABLE new(x)'
    sqlite3 x 'PRAGMA journal_mode = WAL' 'CREATE TABLE old(x)' '.shell cp x old; cp x-wal old-wal' >/dev/null; rm -f x x-*
    cp old t; cp old-wal t-wal";

/// The tables of the database `t`, as its application finds them.
fn tables(at: &Path) -> String {
    let out = Command::new("sqlite3").args(["t", ".tables"]).current_dir(at).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_removed_comes_back_without_what_the_new_one_has_left() {
    let (dir, cx) = (tempfile::tempdir().unwrap(), Context::default());
    run(HOT, dir.path());
    let scene = scene(dir.path());
    let mut target = scene.filled().await;
    target.publish(&cx).await.unwrap();
    assert_eq!(tables(dir.path()), "new");
    // Its application has died with a log, and somebody has removed the file.
    run("rm t; cp old-wal t-wal; echo index > t-shm", dir.path());
    target.check_revert(&cx).await.unwrap();
    target.revert(&cx).await.unwrap();
    run("cmp t old; cmp t-wal old-wal; test ! -e t-shm", dir.path());
    assert_eq!(tables(dir.path()), "old");
    scene.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_old_data_is_gone_an_undo_touches_nothing() {
    for database in [true, false] {
        let (dir, cx) = (tempfile::tempdir().unwrap(), Context::default());
        run(if database { HOT } else { NEW }, dir.path());
        run(if database { "true" } else { OLD }, dir.path());
        let scene = scene(dir.path());
        let mut target = scene.filled().await;
        target.publish(&cx).await.unwrap();
        run("rm -rf .t.backup-*/previous; cp -r n live; [ -d t ] || cp old-wal t-wal", dir.path());
        for _ in 0..2 {
            assert!(target.check_revert(&cx).await.unwrap_err().to_string().contains("is gone"));
            assert!(target.revert(&cx).await.unwrap_err().to_string().contains("is gone"));
            run("diff -r --no-dereference t live; [ -d t ] || cmp t-wal old-wal", dir.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_not_put_beside_a_database_that_was_written_to_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let reset = {
        let at = at.clone();
        move || run(&format!("rm -rf t t-* .t.backup-*; {HOT}"), &at)
    };
    let scene =
        Scene { target: at.join("t"), new: at.join("n"), reset: Box::new(reset.clone()), merge: false };
    let mut told = 0;
    for kill in 0..20 {
        reset();
        let mut target = scene.filled().await;
        let (steps, _) = killed_before(kill);
        target = target.with_steps(steps);
        if target.publish(&Context::default()).await.is_ok() {
            break;
        }
        let had_its_log = at.join("t-wal").exists();
        let is_old = fs::read(at.join("t")).unwrap() != fs::read(at.join("n")).unwrap();
        run("sqlite3 t 'CREATE TABLE later(x)'", &at);
        let (cx, mut target) = (Context::default(), FilesTarget::recover(target.undo()).unwrap());
        target.revert(&cx).await.unwrap();
        let (after, notes) = (tables(&at), format!("{:?}", cx.notes().list));
        assert_eq!(after.contains("later"), is_old, "kill {kill}: {after}");
        if is_old && !had_its_log {
            assert!(notes.contains("without this log"), "kill {kill}: {notes}");
            run("cmp .t.backup-*/found/1-previous-wal old-wal", &at);
            told += 1;
        }
    }
    assert!(told > 0, "no kill was between the log and its database");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_log_is_not_taken_for_one() {
    let (dir, cx) = (tempfile::tempdir().unwrap(), Context::default());
    run("sqlite3 n 'CREATE TABLE new(x)'; echo text > t; echo my diary > t-journal", dir.path());
    let mut target = scene(dir.path()).filled().await;
    let e = target.publish(&cx).await.unwrap_err();
    assert!(e.to_string().contains("t-journal stands beside it"), "{e}");
    target.revert(&cx).await.unwrap();
    run("test text = \"$(cat t)\"; test 'my diary' = \"$(cat t-journal)\"", dir.path());
    scene(dir.path()).nothing_is_left();
    // What a database that was removed has left, and holds nothing, is in nobody's way.
    run("rm t t-journal; : > t-wal; head -c 32768 /dev/zero > t-shm", dir.path());
    let mut target = scene(dir.path()).filled().await;
    target.publish(&cx).await.unwrap();
    assert_eq!(tables(dir.path()), "new");
    target.settle(&cx).await.unwrap();
    scene(dir.path()).nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_database_is_gone_is_not_put_beside_another() {
    let (dir, cx) = (tempfile::tempdir().unwrap(), Context::default());
    run("sqlite3 n 'CREATE TABLE new(x)'", dir.path());
    let mut target = scene(dir.path()).filled().await;
    fs::write(dir.path().join("t-wal"), [0x37, 0x7F, 0x06, 0x82, 0, 0, 0, 0]).unwrap();
    let e = target.publish(&cx).await.unwrap_err();
    assert!(e.to_string().contains("t-wal stands beside it"), "{e}");
    target.revert(&cx).await.unwrap();
    assert!(!dir.path().join("t").exists() && dir.path().join("t-wal").exists());
    scene(dir.path()).nothing_is_left();
}
