//! What is kept is read by whoever reads, in whatever order.

use super::ArchiveFixture;
use crate::{
    Must,
    conformance::pouring::{ReadBack, assert_reads_back, assert_same, back_up, read_back},
    faults::{BreaksAfter, ContentFault, LastFirst, OneAtATime, SlowOn},
    make::{chunked, directory, file, noise, richly_attributed, sparse, streamed},
    memory::{Contents, MemorySource},
    not_applicable,
};
use backup_core::{Context, Depth, Entry, ErrorKind, Kind, Selection, Sink, Stage, compare, display_path};
use bytes::Bytes;
use futures::StreamExt;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Streams of several segments between tiny entries, in all stages, some slow.
fn mixed() -> MemorySource {
    let mut source = MemorySource::new("c").with_bytes(Entry::file("schema", Stage::Prepare), "create");
    for i in 0..8u64 {
        let entry = Entry { slow: i % 3 == 0, ..file(format!("stream {i}")) };
        source = source
            .with(entry, move || chunked(900_000 + i * 333_333, 40_000, i * 77))
            .with_file(format!("tiny {i}"), format!("tiny {i}"));
    }
    source.with_bytes(Entry::file("indexes", Stage::Complete), "index")
}

async fn reads_into(make: &impl ArchiveFixture, wrap: impl Fn(Arc<dyn Sink>) -> Arc<dyn Sink>) {
    let (fresh, cx) = (make.fresh().await, Context::new(make.least_budget().max(2 << 20), 8));
    let made = back_up(&*fresh.archive, &mixed(), &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let reading = read_back(&reader, "c", Selection::All, wrap, &cx);
    let read = tokio::time::timeout(Duration::from_secs(90), reading).await;
    let read = read.must("no deadlock with this sink").must("pour the backup");
    assert_eq!(read.lost, 0);
    assert_same(&mixed().contents().await, &read.contents);
    drop(reader);
    assert_eq!(cx.budget.in_flight(), 0, "bytes of the budget were not given back");
}

/// A content reaches its end without any other put progressing.
pub async fn reading_back_suits_a_sink_that_takes_one_put_at_a_time(make: &impl ArchiveFixture) {
    reads_into(make, |sink| OneAtATime::new(sink)).await;
}

/// The same with a pool of two.
pub async fn reading_back_suits_a_sink_that_takes_two_puts_at_a_time(make: &impl ArchiveFixture) {
    reads_into(make, |sink| OneAtATime::at_most(sink, 2)).await;
}

/// No content waits for one that was put before it.
pub async fn reading_back_suits_a_sink_that_answers_last_first(make: &impl ArchiveFixture) {
    reads_into(make, |sink| LastFirst::new(sink)).await;
}

/// One slow table does not stop the others for ever.
pub async fn reading_back_suits_a_sink_that_is_slow_on_one_path(make: &impl ArchiveFixture) {
    reads_into(make, |sink| SlowOn::path(sink, "stream 1", Duration::from_millis(20))).await;
}

/// The connection to the target was dropped.
pub async fn reading_back_ends_with_the_error_of_a_broken_sink(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let made = back_up(&*fresh.archive, &mixed(), &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let reading = read_back(&reader, "c", Selection::All, |sink| BreaksAfter::new(sink, 5), &cx);
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await.must("it ends");
    let error = read.err().must("a broken sink is an error");
    assert!(error.to_string().contains("connection was dropped"), "another error hides the cause: {error}");
    assert_reads_back(&*fresh.archive, &made, &mixed(), &cx).await;
}

/// Within five seconds.
pub async fn cancellation_ends_a_read_in_time(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let made = back_up(&*fresh.archive, &mixed(), &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let child = cx.child();
    let cancel = child.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let slow = |sink| SlowOn::all(sink, Duration::from_millis(400)) as Arc<dyn Sink>;
    let read = read_back(&reader, "c", Selection::All, slow, &child).await;
    assert_eq!(read.err().must("a cancelled read is an error").kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(5300), "it took {:?}", started.elapsed());
}

/// Counted when writing, said by the manifest, expected by the reader, counted by the sink: the same.
pub async fn the_proof_of_the_backup_is_what_is_read(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let (entry, bytes) = sparse("sparse", &[(4096, 4096)], 1 << 20);
    let source = mixed().with_bytes(entry, bytes).with_empty(directory("d", 0o700));
    let made = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let read = read_back(&reader, "c", Selection::All, |sink| sink, &cx).await.must("pour the backup");
    let said = &reader.manifest().component("c").must("its component").proof;
    for (a, b) in [(said, &read.facts), (said, &read.proof)] {
        let differences = compare(a, b, &|_, _| false);
        assert!(differences.is_empty(), "{differences:?}");
    }
}

/// Every live entry once, with the digest of its content.
pub async fn the_listing_of_entries_is_what_is_read(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let (entry, bytes) = sparse("sparse", &[(4096, 4096)], 1 << 20);
    let source = mixed()
        .with_bytes(entry, bytes)
        .with_bytes(richly_attributed("rich\n").sized(1), "r")
        .with(file("cut"), || ContentFault::CutAfter(2 << 20).of(chunked(3 << 20, 10_000, 1)));
    let made = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let mut listed = BTreeMap::new();
    let mut entries = reader.entries();
    while let Some(entry) = entries.next().await {
        let entry = entry.must("list an entry");
        assert_eq!(entry.component, "c");
        let twice = listed.insert(entry.entry.path.clone(), entry);
        assert!(twice.is_none(), "listed twice: {twice:?}");
    }
    drop(entries);
    let read = read_back(&reader, "c", Selection::All, |sink| sink, &cx).await.must("pour the backup");
    assert_eq!(listed.keys().collect::<Vec<_>>(), read.contents.keys().collect::<Vec<_>>());
    for (path, held) in &read.contents {
        let line = &listed[path];
        assert_eq!(line.sha256, Some(hex::encode(held.sha256)), "{}", display_path(path));
        assert_eq!((line.entry.kind, &line.entry.posix), (held.entry.kind, &held.entry.posix));
        let size = held.entry.extents.is_none().then(|| held.delivered()).or(held.entry.size);
        assert_eq!(line.entry.size, size, "the size of {} is known when it is kept", display_path(path));
    }
}

fn tree() -> MemorySource {
    let mut source = MemorySource::new("c");
    for path in ["a", "dir/one", "dir/two", "dir/sub/three", "dir/sub/deep/four", "dirt", "dir.x", "z/one"] {
        let text = format!("content of {path}");
        source = source.with(file(path), move || streamed(text.clone(), 3));
    }
    source
        .with(file("large"), || chunked(6 << 20, 100_000, 5))
        .with_empty(directory("dir/sub/deep", 0o711))
        .with_empty(directory("dir/sub", 0o722))
        .with_empty(directory("dir", 0o733))
        .with_empty(directory("z", 0o744))
}

async fn selected(make: &impl ArchiveFixture, wanted: &'static [&'static str]) -> ReadBack {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let made = back_up(&*fresh.archive, &tree(), &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let selection = Selection::Matching(Arc::new(move |path| wanted.iter().any(|w| w.as_bytes() == path)));
    read_back(&reader, "c", selection, |sink| sink, &cx).await.must("pour the selection")
}

/// What matches or lies below it, with the directories above; and a proof of just that.
pub async fn a_selection_gives_exactly_its_entries_and_their_facts(make: &impl ArchiveFixture) {
    let cases: [(&'static [&'static str], &[&str]); 4] = [
        (&["dir/sub"], &["dir", "dir/sub", "dir/sub/deep", "dir/sub/deep/four", "dir/sub/three"]),
        (&["dir/one", "z/one"], &["dir", "dir/one", "z", "z/one"]),
        (&["a"], &["a"]),
        (&["large", "dirt"], &["dirt", "large"]),
    ];
    let all = tree().contents().await;
    for (wanted, expected) in cases {
        let read = selected(make, wanted).await;
        let expected: Contents =
            expected.iter().map(|p| (Bytes::from_static(p.as_bytes()), all[p.as_bytes()].clone())).collect();
        assert_same(&expected, &read.contents);
        let differences = compare(&read.facts, &read.proof, &|_, _| false);
        assert!(differences.is_empty(), "the facts of {wanted:?} are not its own: {differences:?}");
        assert_eq!(read.facts.count("all", "entries"), expected.len() as u64);
    }
}

async fn bytes_of(mut content: backup_core::Content) -> backup_core::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(bytes) = content.next().await? {
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

/// Holes are zeros to whoever reads it.
pub async fn the_content_of_one_entry_is_read_by_its_path(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let (entry, data) = sparse("sparse", &[(4096, 4096), (65_536, 4096)], 100_000);
    let stored = data.clone();
    let source = mixed().with_bytes(entry, data).with_file("x\ny", "odd name");
    let made = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let mut expanded = vec![0u8; 100_000];
    expanded[4096..8192].copy_from_slice(&stored[..4096]);
    expanded[65_536..69_632].copy_from_slice(&stored[4096..]);
    let stream = bytes_of(chunked(900_000 + 3 * 333_333, 40_000, 3 * 77)).await.must("the expected bytes");
    let cases = [
        ("sparse", expanded),
        ("x\ny", b"odd name".to_vec()),
        ("stream 3", stream),
        ("tiny 1", b"tiny 1".to_vec()),
    ];
    for (path, expected) in cases {
        let (entry, content) = reader.content("c", path.as_bytes(), &cx).await.must("read one entry");
        assert_eq!((&entry.path[..], entry.kind), (path.as_bytes(), Kind::File));
        assert!(bytes_of(content).await.must("read it to its end") == expected, "{path} has other bytes");
    }
}

/// A restore of one file from far away does not fetch the archive.
pub async fn one_entry_costs_little_to_fetch(make: &impl ArchiveFixture) {
    if !make.ranged() {
        return not_applicable("one_entry_costs_little_to_fetch", "it is read from end to end");
    }
    let (fresh, cx) = (make.fresh().await, Context::default());
    let mut source = MemorySource::new("c");
    for i in 0..96u64 {
        source = source.with_bytes(file(format!("f{i}")).sized(256 << 10), noise(256 << 10, i + 1));
    }
    let made = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    let (_, content) = reader.content("c", b"f50", &cx).await.must("read one entry");
    assert!(bytes_of(content).await.must("read it to its end") == noise(256 << 10, 51));
    let fetched = reader.bytes_fetched();
    assert!(fetched >= 256 << 10, "it cannot have been fetched with {fetched} bytes");
    assert!(fetched < made.stored_bytes / 3, "{fetched} of {} bytes were fetched", made.stored_bytes);
}

/// Not empty answers.
pub async fn unknown_components_and_paths_are_errors(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let made = back_up(&*fresh.archive, &tree(), &cx).await.must("make the backup");
    let archive = fresh.reopened();
    let unknown = archive.open(&backup_core::BackupId::generate(), &cx).await;
    assert_eq!(unknown.err().must("an unknown id is an error").kind(), ErrorKind::NotFound);
    let reader = archive.open(&made.id, &cx).await.must("open the backup");
    assert!(reader.component("d", Selection::All).is_err(), "an unknown component has a source");
    for (component, path) in [("d", "a"), ("c", "b"), ("c", "dir/"), ("c", "../a")] {
        let found = reader.content(component, path.as_bytes(), &cx).await;
        assert!(found.is_err(), "{component}/{path} has a content");
    }
}

/// Neither after good entries nor after a lost one.
pub async fn a_sound_backup_has_no_defects(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let source =
        mixed().with(file("cut"), || ContentFault::CutAfter(2 << 20).of(chunked(3 << 20, 10_000, 1)));
    let made = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    let reader = fresh.reopened().open(&made.id, &cx).await.must("open the backup");
    for depth in [Depth::Quick, Depth::Full] {
        let defects = reader.check_structure(depth, &cx).await.must("check the backup");
        assert!(defects.is_empty(), "{depth:?}: {defects:?}");
    }
}
