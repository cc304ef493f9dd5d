//! A backup that is copied stays the same backup.

use super::ArchiveFixture;
use crate::{
    Must,
    conformance::pouring::{assert_same, back_up, read_back},
    make::{chunked, directory, file, hostile_names, link, noise, richly_attributed, sparse, streamed},
    memory::MemorySource,
};
use backup_core::{
    Archive, BackupId, Content, Context, Entry, Error, ErrorKind, Fact, Facts, Kind, Manifest, MemoryArchive,
    Part, Selection, Severity, Stage, State, copy,
};
use futures::stream;
use std::{sync::Arc, time::Duration};

/// Everything that a copy could lose: all kinds, attributes, holes, segments, facts, stages, a loss, and notes.
fn source() -> MemorySource {
    let counted = || {
        let end = Part::End(Facts::new().with("table t", "rows", Fact::Count(2)));
        Content::stream(stream::iter([Ok(Part::Bytes("1\n2\n".into())), Ok(end)]))
    };
    let store = serde_json::json!({ "content-type": "text/plain" });
    let (holes, bytes) = sparse("holes", &[(65_536, 4096), (3 << 20, 4096)], 8 << 20);
    let mut source = MemorySource::new("app")
        .with_bytes(Entry::file("schema.sql", Stage::Prepare).sized(6), "create")
        .with(file("rows.copy"), counted)
        .with_bytes(Entry { store: Some(store), ..file("object").sized(3) }, "abc")
        .with_bytes(richly_attributed("d/file").sized(4), "file")
        .with(holes, move || streamed(bytes.clone(), 5000))
        .with(Entry { slow: true, ..file("dump.sql") }, || chunked(20 << 20, 64 << 10, 1))
        .with(file("known").sized(9_000_001), || streamed(noise(9_000_001, 2), 100_000))
        .with(file("unreadable"), || Content::failed(Error::new(ErrorKind::Denied, "open", "no")))
        .with_empty(link(Kind::Symlink, "d/dangling", &b"../../nowhere\n\xff"[..]));
    for name in hostile_names() {
        source = source.with_file([b"names/", &name[..]].concat(), name.to_vec());
    }
    source
        .with_empty(link(Kind::HardLink, "d/same", "d/file"))
        .with_bytes(Entry::file("indexes.sql", Stage::Complete).sized(5), "index")
        .with_empty(directory("d", 0o2750))
        .with_empty(directory("", 0o700))
}

/// What a backup says of itself, without what is the archive's own affair.
async fn said(archive: &dyn Archive, id: &BackupId) -> Manifest {
    let reader = archive.open(id, &Context::default()).await.must("open the copy");
    Manifest { layout: serde_json::Value::Null, ..reader.manifest().clone() }
}

/// Out of the archive into another one, and from there into a third: entries, manifest, losses and notes stay.
pub async fn a_copy_is_the_same_backup(make: &impl ArchiveFixture) {
    let (first, second, memory) = (make.fresh().await, make.fresh().await, MemoryArchive::new());
    let cx = Context::default();
    cx.note(Severity::Warning, "app", "a", "it changed while it was read");
    let made = back_up(&*first.archive, &source(), &cx).await.must("make the backup");
    assert_eq!(made.state, State::Partial);
    let steps: [(&dyn Archive, &dyn Archive); 2] = [(&*first.archive, &memory), (&memory, &*second.archive)];
    for (from, to) in steps {
        let cx = Context::default();
        let reader = from.open(&made.id, &cx).await.must("open the backup");
        let copied = copy(reader, to, Duration::ZERO, &cx).await.must("copy");
        assert!(!copied.was_there && copied.backup.state == State::Partial, "{copied:?}");
        assert_eq!(said(to, &made.id).await, said(&*first.archive, &made.id).await);
        assert!(cx.notes().list.iter().all(|n| n.severity < Severity::Lost), "{:?}", cx.notes());
    }
    let cx = Context::default();
    let mut read = Vec::new();
    for archive in [first.reopened(), second.reopened()] {
        let reader = archive.open(&made.id, &cx).await.must("open");
        read.push(read_back(&reader, "app", Selection::All, |s| s, &cx).await.must("read"));
    }
    assert_same(&read[0].contents, &read[1].contents);
    assert_eq!(read[0].facts, read[1].facts);
}

/// The same id again writes nothing; a cancelled copy leaves nothing.
pub async fn a_copy_is_made_once_and_as_a_whole(make: &impl ArchiveFixture) {
    let (from, fresh) = (MemoryArchive::new(), make.fresh().await);
    let cx = Context::default();
    let source = MemorySource::new("app").with(file("a").sized(20 << 20), || chunked(20 << 20, 64 << 10, 1));
    let made = back_up(&from, &source, &cx).await.must("make the backup");
    let reader = from.open(&made.id, &cx).await.must("open the backup");
    let cancelled = Context::default();
    let token = cancelled.cancel.clone();
    let observer: backup_core::Observer = Arc::new(move |event| {
        if matches!(event, backup_core::Event::ComponentStarted { .. }) {
            token.cancel();
        }
    });
    let cancelled = cancelled.with_observer(Some(observer));
    let ended = copy(reader.clone(), &*fresh.archive, Duration::ZERO, &cancelled).await;
    assert!(matches!(&ended, Err(e) if e.kind() == ErrorKind::Cancelled), "{ended:?}");
    assert!(fresh.names().is_empty(), "{:?}", fresh.names());
    let copied = copy(reader.clone(), &*fresh.archive, Duration::ZERO, &cx).await.must("copy");
    assert!(!copied.was_there);
    let names = fresh.names();
    let again = copy(reader, &*fresh.archive, Duration::ZERO, &cx).await.must("copy again");
    assert!(again.was_there && again.backup.id == made.id, "{again:?}");
    assert_eq!(fresh.names(), names);
}
