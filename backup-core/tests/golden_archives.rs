//! Archives that earlier versions of the program wrote are read to the same end.

#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    portable::{PortableArchive, PortableOptions},
    *,
};
use futures::TryStreamExt;
use std::{fmt::Write, path::PathBuf};

#[tokio::test]
async fn archives_of_format_1_are_sound_and_hold_what_they_held() {
    let golden = folder().join("listing.txt");
    for name in ["format-1.tar.zst", "format-1.tar.gz", "format-1.tar.xz", "format-1.tar"] {
        let cx = Context::default();
        let archive = PortableArchive::file(folder().join(name), PortableOptions::default()).unwrap();
        let [backup] = &archive.list(&cx).await.unwrap()[..] else { panic!("{name}: not one backup") };
        assert_eq!((backup.state, backup.module.as_str()), (State::Complete, "app"), "{name}");
        let reader = archive.open(&backup.id, &cx).await.unwrap();
        let text = listing(&*reader).await;
        let report = verify(reader, Depth::Full, &cx).await.unwrap();
        assert!(report.defects.is_empty(), "{name}: {:?}", report.defects);
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default(), "{name} is not {golden:?}");
    }
}

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/golden_archives")
}

/// Every entry with all that the archive keeps of it, and the facts of its component.
async fn listing(reader: &dyn BackupReader) -> String {
    let mut out = String::new();
    let entries: Vec<Listed> = reader.entries().try_collect().await.unwrap();
    for Listed { entry: e, sha256, .. } in entries {
        let _ = writeln!(out, "{} {:?} {:?} {:?}", e.display_path(), e.kind, e.stage, e.size);
        let _ = writeln!(out, "  sha256 {sha256:?} link {:?}", e.link.as_deref().map(display_path));
        let _ = writeln!(out, "  {:?}", e.posix);
    }
    for c in &reader.manifest().components {
        for (subject, measure, fact) in c.proof.iter() {
            let _ = writeln!(out, "{}: {subject}: {measure}: {fact:?}", c.header.name);
        }
    }
    out
}
