//! What only a user who is not root meets. As root, the tests run themselves again as `nobody`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::{ErrorKind, Severity};
use common::*;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};

const NOBODY: u32 = 65534;

/// Runs the test of this name as nobody, in a folder of nobody's that root has prepared.
fn as_nobody(test: &str, prepare: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::create_dir(dir.path().join("work")).unwrap();
    if is_root(test) {
        run("sh", &["-ec", prepare, "sh", dir.path().join("work").to_str().unwrap()]);
    } else {
        return;
    }
    let out = Command::new(&program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("BACKUP_TEST_WORK", dir.path().join("work"))
        .env("TMPDIR", dir.path().join("work"))
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

fn work() -> PathBuf {
    std::env::var_os("BACKUP_TEST_WORK").unwrap().into()
}

#[test]
fn what_may_not_be_read_is_lost_and_the_rest_is_not() {
    as_nobody(
        "unreadable",
        "cd $1; mkdir from from/closed from/open; echo x > from/secret; echo x > from/closed/x; echo x > from/open/x
         chmod 600 from/secret; chmod 700 from/closed; chown -h 65534:65534 . from; chmod 755 .",
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started as nobody by what_may_not_be_read_is_lost_and_the_rest_is_not"]
async fn unreadable() {
    let done = pour(&config(work().join("from")), backup_core::DigestSink::new()).await;
    assert_eq!((done.entries, done.lost), (3, 2), "{:?}", done.notes);
    assert!(done.says(Severity::Lost, "denied"), "{:?}", done.notes);
    let cx = backup_core::Context::default();
    let e = source(&config(work().join("from/closed"))).connect(&cx).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied);
}

#[test]
fn without_root_owners_devices_and_set_id_bits_are_lost_or_warned_of_where_owners_were_given_up() {
    as_nobody(
        "owners",
        "cd $1; mkdir from from/sub; echo x > from/a; echo x > from/sub/b; mknod from/null c 1 3; chmod 644 from/*
         chmod 755 from/sub; chmod 4755 from/sub/b; chown 1234 from/a; chown 65534:65534 . ; chmod 755 .",
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started as nobody by without_root_owners_devices_and_set_id_bits_are_lost_or_warned_of_where_owners_were_given_up"]
async fn owners() {
    let from = config(work().join("from"));
    for agreed in [false, true] {
        let mut to = config(work().join(format!("to-{agreed}")));
        to.no_owner = agreed;
        let cx = backup_core::Context::default();
        let mut target = target(&to);
        let sink = target.prepare(&cx).await.unwrap();
        let done = pour(&from, sink).await;
        target.publish(&cx).await.unwrap();
        assert_eq!(fs::read(to.path.join("sub/b")).unwrap(), b"x\n");
        let severity = if agreed { Severity::Warning } else { Severity::Lost };
        for lost in ["devices could not be made: 1 times", "the permissions could not be set: 1 times"] {
            assert!(done.says(severity, lost), "{lost}: {:?}", done.notes);
        }
        assert_eq!(
            done.says(Severity::Lost, "the owner could not be set: 4 times"),
            !agreed,
            "{:?}",
            done.notes
        );
        target.settle(&cx).await.unwrap();
    }
}
