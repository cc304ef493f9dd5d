//! Backups that want to write where they must not.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::{Content, Context, Entry, Error, ErrorKind, Kind, Put, Sink, Stage};
use common::*;
use std::{fs, path::Path, sync::Arc};

async fn shadow(at: &Path) -> (Box<dyn backup_core::Target>, Arc<dyn Sink>) {
    let mut target = target(&config(at.join("data")));
    let sink = target.prepare(&Context::default()).await.unwrap();
    (target, sink)
}

fn link(kind: Kind, path: &'static str, to: String) -> Entry {
    let stage = if kind == Kind::HardLink { Stage::Complete } else { Stage::Data };
    Entry { kind, link: Some(to.into()), ..Entry::file(path, stage) }
}

async fn put(sink: &Arc<dyn Sink>, entry: Entry) -> Result<Put, Error> {
    sink.put(entry, Content::whole("content")).await
}

#[tokio::test]
async fn nothing_is_written_through_a_symbolic_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let (mut target, sink) = shadow(dir.path()).await;
    let to = outside.to_str().unwrap().to_owned();
    let _ = sink.put(link(Kind::Symlink, "a", to), Content::empty()).await.unwrap();
    // Order among the threads does not matter: either way the two do not fit.
    let _ = put(&sink, Entry::file("a/evil", Stage::Data)).await;
    let e = sink.finish(&Context::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    target.revert(&Context::default()).await.unwrap();
}

#[tokio::test]
async fn no_hard_link_leads_outside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outside"), "secret").unwrap();
    for to in ["../../outside", "../outside", "/etc/passwd", "link/outside"] {
        let (mut target, sink) = shadow(dir.path()).await;
        let here = dir.path().to_str().unwrap().to_owned();
        let _ = sink.put(link(Kind::Symlink, "link", here), Content::empty()).await.unwrap();
        let put = sink.put(link(Kind::HardLink, "b", to.into()), Content::empty()).await;
        let finished = sink.finish(&Context::default()).await;
        drop((put, finished));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(dir.path().join("outside")).unwrap().nlink(), 1, "{to}");
        assert!(!target.journal_home().unwrap().join("shadow/b").exists());
        target.revert(&Context::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_path_that_appears_twice_is_refused() {
    for bytes in [10, 3 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let (mut target, sink) = shadow(dir.path()).await;
        let mut last = Ok(Put::Stored);
        for _ in 0..2 {
            let content = backup_testkit::make::chunked(bytes, 1 << 20, 1);
            last = sink.put(Entry::file("a/b", Stage::Data), content).await;
        }
        let e = match last {
            Err(e) => e,
            Ok(_) => sink.finish(&Context::default()).await.unwrap_err(),
        };
        assert_eq!(e.kind(), ErrorKind::Target, "{e}");
        assert!(e.to_string().contains("twice"), "{e}");
        target.revert(&Context::default()).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_target_that_is_a_symbolic_link_and_one_without_a_parent_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/tmp", dir.path().join("data")).unwrap();
    let cx = Context::default();
    let coming = backup_testkit::memory::incoming(&backup_testkit::memory::MemorySource::new("c")).await;
    let e = target(&config(dir.path().join("data"))).survey(&coming, &cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    let e = target(&config(dir.path().join("absent/data"))).survey(&coming, &cx).await.unwrap_err();
    assert!(e.hint_text().unwrap().contains("mkdir"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_in_the_middle_leaves_nothing_behind() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let (mut target, sink) = shadow(dir.path()).await;
        for n in 0..400 + round {
            let _ = put(&sink, Entry::file(format!("{}/{n}", n % 40), Stage::Data)).await.unwrap();
        }
        // Most of it is still waiting to be made.
        target.revert(&Context::default()).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(put(&sink, Entry::file("late", Stage::Data)).await.is_err());
    }
}
