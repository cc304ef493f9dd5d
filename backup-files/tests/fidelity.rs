//! What goes in comes out, to the last attribute.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::{Context, ErrorKind, Severity};
use common::*;
use std::{fs, os::unix::fs::MetadataExt, os::unix::net::UnixListener, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    rich_tree(&from);
    let before = differences(&from, &from);
    let (done, mut target) = mirror(&config(&from), &config(&to)).await;
    assert_eq!((done.lost, &done.notes.list[..]), (0, &[][..]));
    assert_eq!(differences(&from, &to), before);
    assert_eq!(before, "");
    // Holes stay holes.
    let sparse = fs::metadata(to.join("sparse")).unwrap();
    assert_eq!((sparse.len(), sparse.blocks() * 512 < 100_000), (5_000_000, true));
    target.settle(&Context::default()).await.unwrap();
    assert_eq!(names(dir.path()), ["from", "to"]);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_comes_back_as_it_was_over_a_file_and_over_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::write(&from, "content").unwrap();
    run("chmod", &["0640", from.to_str().unwrap()]);
    run("touch", &["-d", "2001-02-03", from.to_str().unwrap()]);
    for to in ["absent", "file", "folder"] {
        let to = dir.path().join(to);
        match to.file_name().unwrap().to_str().unwrap() {
            "file" => fs::write(&to, "old").unwrap(),
            "folder" => fs::create_dir(&to).unwrap(),
            _ => {}
        }
        let (done, mut target) = mirror(&config(&from), &config(&to)).await;
        assert_eq!((done.entries, done.lost), (1, 0));
        let (a, b) = (fs::metadata(&from).unwrap(), fs::metadata(&to).unwrap());
        assert_eq!((a.mode(), a.mtime(), fs::read(&to).unwrap()), (b.mode(), b.mtime(), b"content".to_vec()));
        target.revert(&Context::default()).await.unwrap();
        assert_eq!(to.exists(), !to.ends_with("absent"));
    }
    assert_eq!(names(dir.path()), ["file", "folder", "from"]);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_deeper_than_any_path_may_be_comes_back() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(CWD, &from, flags, Mode::empty()).unwrap();
    for n in 0..300 {
        let name = format!("level-{n}-of-three-hundred");
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        // After the deep part, so that the walk must find its way back up.
        mkdirat(&at, "z", Mode::RWXU).unwrap();
        let file = openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"x").unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let (done, _target) = mirror(&config(&from), &config(dir.path().join("to"))).await;
    assert_eq!((done.entries, done.lost), (300 * 3 + 1, 0), "{:?}", done.notes);
    let again = pour(&config(dir.path().join("to")), backup_core::DigestSink::new()).await;
    assert_eq!(again.facts, done.facts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_of_ten_gigabytes_takes_neither_time_nor_space() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let text = from.to_str().unwrap();
    run("truncate", &["-s", "10G", text]);
    run("sh", &["-c", &format!("printf end | dd of={text} bs=1 seek=10737418000 conv=notrunc status=none")]);
    let cx = Context::default();
    let mut target = target(&config(&to));
    let sink = target.prepare(&cx).await.unwrap();
    let view = source(&config(&from)).connect(&cx).await.unwrap().fix(&cx).await.unwrap();
    view.pour(sink.clone(), &cx).await.unwrap();
    sink.finish(&cx).await.unwrap();
    target.publish(&cx).await.unwrap();
    let meta = fs::metadata(&to).unwrap();
    assert_eq!((meta.len(), meta.blocks() * 512 < 1 << 20), (10 << 30, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_names_of_one_file_stay_names_of_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for n in 0..40 {
        let sub = from.join(format!("{}", n % 7));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("{n}")), format!("{n}")).unwrap();
        for m in 0..25 {
            let other = from.join(format!("{}", m % 5));
            fs::create_dir_all(&other).unwrap();
            fs::hard_link(sub.join(format!("{n}")), other.join(format!("{n}-{m}"))).unwrap();
        }
    }
    let (done, _target) = mirror(&config(&from), &config(&to)).await;
    assert_eq!(done.lost, 0);
    assert_eq!(differences(&from, &to), "");
    assert_eq!(fs::metadata(to.join("0/0")).unwrap().nlink(), 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    let done = pour(&config(dir.path()), backup_core::DigestSink::new()).await;
    assert_eq!((done.entries, done.lost), (1, 0));
    assert!(done.says(Severity::Note, "socket"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_is_left_out_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    for sub in ["cache/x", "kept/x", "node_modules/x", "backups", ".from.backup-01hzzzzzzzzzzzzzzzzzzzzzzz"] {
        fs::create_dir_all(from.join(sub)).unwrap();
        fs::write(from.join(sub).join("file"), "x").unwrap();
    }
    fs::write(from.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# a cache")
        .unwrap();
    fs::write(from.join("kept/CACHEDIR.TAG"), "no signature").unwrap();
    fs::write(from.join("a.log"), "x").unwrap();
    let mut config: serde_json::Value = config(&from).to_value();
    config["exclude"] = serde_json::json!(["node_modules", "*.log"]);
    config["exclude_caches"] = true.into();
    config["exclude_paths"] = serde_json::json!([from.join("backups")]);
    let config = serde_json::from_value(config).unwrap();
    let to = dir.path().join("to");
    let (done, _target) = mirror(&config, &common::config(&to)).await;
    assert_eq!(names(&to), ["cache", "kept"]);
    assert_eq!(
        (names(&to.join("cache")), names(&to.join("kept"))),
        (vec!["CACHEDIR.TAG".into()], names(&from.join("kept")))
    );
    assert!(done.says(Severity::Note, "belongs to backups"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_system_is_left_out_if_asked() {
    if !is_root("another_file_system_is_left_out_if_asked") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mount")).unwrap();
    let _mounted = Mounted::new("tmpfs", "", &dir.path().join("mount"));
    fs::write(dir.path().join("mount/file"), "x").unwrap();
    let mut config = config(dir.path());
    assert_eq!(pour(&config, backup_core::DigestSink::new()).await.entries, 3);
    config.one_file_system = true;
    let done = pour(&config, backup_core::DigestSink::new()).await;
    assert_eq!(done.entries, 2);
    assert!(done.says(Severity::Note, "another file system"));
}

#[tokio::test]
async fn a_missing_source_is_not_found_and_an_optional_one_is_noted() {
    let cx = Context::default();
    let mut config = config("/nowhere/at/all");
    let e = source(&config).connect(&cx).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    config.optional = true;
    let done = pour(&config, backup_core::DigestSink::new()).await;
    assert_eq!((done.entries, done.lost), (0, 0));
    source(&config).connect(&cx).await.unwrap();
    assert_eq!(cx.notes().list.len(), 1);
}
