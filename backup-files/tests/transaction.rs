//! Files through an archive and the journalled restore.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::{
    Archive, Backend, ComponentHeader, Confirmation, Context, CreateComponent, CreateRequest, MemoryArchive,
    RestoreMember, RestoreOptions, Selection, Series, State, create, pending, plan_restore, settle_restore,
    undo_restore,
};
use backup_files::FilesBackend;
use common::*;
use std::{fs, path::Path};

async fn restored(archive: &dyn Archive, id: &backup_core::BackupId, to: &Path, state: &Path) {
    let cx = Context::default();
    let member = RestoreMember {
        component: "c".into(),
        kind: "files".into(),
        selection: Selection::All,
        target: target(&config(to)),
        disposable: false,
    };
    let reader = archive.open(id, &cx).await.unwrap();
    let mut options = RestoreOptions::new(state, "m");
    if rustix::process::geteuid().is_root() {
        options.accept.push("devices".into());
    }
    let prepared = plan_restore(reader, vec![member], options, &cx).await.unwrap();
    let confirmation = Confirmation::of(prepared.plan().id().clone());
    let report = prepared.apply(Some(confirmation), &cx).await.unwrap();
    assert_eq!(report.state, State::Complete, "{:?}", report.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_an_archive_in_memory_it_is_restored_undone_and_restored_for_good() {
    restored_undone_and_restored_for_good(&MemoryArchive::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_portable_archive_it_is_restored_undone_and_restored_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let archive = backup_core::portable::PortableArchive::folder(dir.path(), Default::default()).unwrap();
    restored_undone_and_restored_for_good(&archive).await;
}

/// Both a folder that is exchanged and one at which something is mounted.
async fn restored_undone_and_restored_for_good(archive: &dyn Archive) {
    let dir = tempfile::tempdir().unwrap();
    let (from, state) = (dir.path().join("from"), dir.path().join("state"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&state).unwrap();
    rich_tree(&from);
    let cx = Context::default();
    let source = source(&config(&from));
    let header = ComponentHeader {
        name: "c".into(),
        kind: "files".into(),
        folder: "files".into(),
        origin: source.origin(),
    };
    let request = CreateRequest {
        module: "m".into(),
        series: Series("s".into()),
        components: vec![CreateComponent { header, source }],
        ..CreateRequest::default()
    };
    let report = create(request, archive, &cx).await.unwrap();
    assert_eq!(report.state, State::Complete, "{:?}", report.notes);
    let reader = archive.open(&report.id, &cx).await.unwrap();
    let verified = backup_core::verify(reader, backup_core::Depth::Full, &cx).await.unwrap();
    assert_eq!(verified.defects.len(), 0, "{:?}", verified.defects);
    let mut mounted = Vec::new();
    for kind in ["plain", "mounted"] {
        let to = dir.path().join(kind);
        fs::create_dir(&to).unwrap();
        if kind == "mounted" {
            if !is_root("a restore to a mount point") {
                continue;
            }
            mounted.push(Mounted::new("tmpfs", "", &to));
        }
        fs::write(to.join("old"), "old").unwrap();
        restored(archive, &report.id, &to, &state).await;
        assert!(!to.join("old").exists() && to.join("plain").exists());
        let recover = |_: &str, undo| FilesBackend.recover(undo);
        let found = pending(&state, &[]).unwrap();
        assert_eq!(found.len(), 1);
        undo_restore(&found[0], &recover, &cx).await.unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        assert_eq!(fs::read(to.join("old")).unwrap(), b"old");
        restored(archive, &report.id, &to, &state).await;
        settle_restore(&pending(&state, &[]).unwrap()[0], &recover, &cx).await.unwrap();
        let differs = differences(&from, &to);
        let only_the_time_of_a_mount_point = kind == "mounted" && differs.trim_end().ends_with(" ./");
        assert!(
            differs.is_empty() || only_the_time_of_a_mount_point && differs.lines().count() == 1,
            "{differs}"
        );
        assert!(pending(&state, &[]).unwrap().is_empty());
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains(".backup-")), "{left:?}");
}
