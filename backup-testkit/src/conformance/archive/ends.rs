//! The end of a stream is a claim; without it nothing of the stream is kept.

use super::ArchiveFixture;
use crate::{
    Must,
    conformance::pouring::{assert_same, back_up, conclusion, pour, read_back},
    faults::{ContentFault, DropsMidPut},
    make::{chunked, file, header, noise, streamed},
    memory::{Contents, MemorySource},
};
use backup_core::{
    Archive, BackupId, Content, Context, Depth, Entry, ErrorKind, Ledger, Moment, Poured, Put, Selection,
    Sink, Stage, State,
};
use futures::StreamExt;
use std::sync::Arc;

const LARGE: u64 = 5 << 20;
const PUT: &str = "one";

fn good() -> MemorySource {
    MemorySource::new("c")
        .with_file("before", "before")
        .with_file("after", "after")
        .with(file("stream"), || chunked(300_000, 10_000, 3))
}

/// The backup has what is good and nothing else: not in its index, not by path, not when poured.
async fn assert_only_good(archive: &dyn Archive, id: &BackupId, good: &Contents, cx: &Context) {
    let reader = archive.open(id, cx).await.must("open the backup");
    let mut listed: Vec<_> = Vec::new();
    let mut entries = reader.entries();
    while let Some(entry) = entries.next().await {
        listed.push(entry.must("list an entry").entry.path);
    }
    drop(entries);
    listed.sort();
    assert_eq!(listed, good.keys().cloned().collect::<Vec<_>>(), "the index offers something else");
    assert!(reader.content("c", b"bad 0", cx).await.is_err(), "a failed entry is offered by its path");
    let read = read_back(&reader, "c", Selection::All, |sink| sink, cx).await.must("pour the backup");
    assert_eq!(read.lost, 0);
    assert_same(good, &read.contents);
    let defects = reader.check_structure(Depth::Full, cx).await.must("check the backup");
    assert!(defects.is_empty(), "a failed entry left defects: {defects:?}");
}

/// Puts these beside good entries; all of them must be lost and none of them kept.
async fn all_are_lost(make: &impl ArchiveFixture, bad: Vec<(Entry, Box<dyn Fn() -> Content + Send + Sync>)>) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let count = bad.len() as u64;
    let mut source = good();
    for (i, (entry, content)) in bad.into_iter().enumerate() {
        source = source.with(Entry { path: format!("bad {i}").into(), ..entry }, content);
    }
    let summary =
        back_up(&*fresh.archive, &source, &cx).await.must("a failed content does not fail the sink");
    assert_eq!(summary.state, State::Partial);
    let lost = cx.notes().list.iter().filter(|n| n.severity == backup_core::Severity::Lost).count();
    assert_eq!(lost as u64, count, "not every failed content was discarded: {:?}", cx.notes().list);
    assert_only_good(&*fresh.reopened(), &summary.id, &good().contents().await, &Context::default()).await;
}

type Bad = (Entry, Box<dyn Fn() -> Content + Send + Sync>);

/// A fault before the first byte, early, and after much has gone out; of unknown size, slow, and of known size.
fn faulty(fault: fn(u64) -> ContentFault) -> Vec<Bad> {
    let mut out: Vec<Bad> = Vec::new();
    for at in [0, 10, 3 << 20] {
        for (slow, sized) in [(false, false), (true, false), (false, true)] {
            let entry = Entry { slow, size: sized.then_some(LARGE), ..file(PUT) };
            out.push((entry, Box::new(move || fault(at).of(chunked(LARGE, 100_000, at)))));
        }
    }
    out
}

/// It stopped without saying that it is whole.
pub async fn a_cut_stream_leaves_nothing_behind(make: &impl ArchiveFixture) {
    all_are_lost(make, faulty(ContentFault::CutAfter)).await;
}

/// A panic is not an end.
pub async fn a_panicking_producer_leaves_nothing_behind(make: &impl ArchiveFixture) {
    all_are_lost(make, faulty(ContentFault::PanicAfter)).await;
}

/// An exit status after good output, a read error half-way, an unreadable file.
pub async fn a_failing_stream_leaves_nothing_behind(make: &impl ArchiveFixture) {
    all_are_lost(make, faulty(ContentFault::FailAfter)).await;
}

/// The size is a promise: the file shrank while it was read.
pub async fn a_content_shorter_than_promised_leaves_nothing_behind(make: &impl ArchiveFixture) {
    let mut bad: Vec<Bad> = vec![(file(PUT).sized(4), Box::new(|| Content::whole("abc")))];
    for at in [0, 10, 3 << 20] {
        let content = move || ContentFault::EndAfter(at).of(chunked(LARGE, 100_000, at));
        bad.push((file(PUT).sized(LARGE), Box::new(content)));
    }
    all_are_lost(make, bad).await;
}

/// The size is a promise: the file grew while it was read.
pub async fn a_content_longer_than_promised_leaves_nothing_behind(make: &impl ArchiveFixture) {
    let mut bad: Vec<Bad> = vec![(file(PUT).sized(2), Box::new(|| Content::whole("abc")))];
    for (size, more) in [(0, 1), (10, 1), (LARGE, 1), (LARGE, 1 << 20)] {
        let content = move || ContentFault::LongerBy(more).of(chunked(size, 100_000, size));
        bad.push((file(PUT).sized(size), Box::new(content)));
    }
    all_are_lost(make, bad).await;
}

/// A byte changed on the way from another archive.
pub async fn a_content_of_another_digest_leaves_nothing_behind(make: &impl ArchiveFixture) {
    use sha2::{Digest, Sha256};
    let mut bad: Vec<Bad> = Vec::new();
    for (length, at) in [(10usize, 9u64), (4 << 20, 0), (4 << 20, (4 << 20) - 1)] {
        let bytes = noise(length, at);
        let sha = Sha256::digest(&bytes).into();
        let entry = file(PUT).sized(length as u64);
        let content =
            move || ContentFault::FlipAt(at).of(streamed(bytes.clone(), 70_000)).expecting(sha, &file(PUT));
        bad.push((entry, Box::new(content)));
    }
    bad.push((file(PUT).sized(3), Box::new(|| Content::whole("abc").expecting([7; 32], &file(PUT)))));
    all_are_lost(make, bad).await;
}

fn result_of(ledger: &Ledger, proof: backup_core::Proof) -> Poured {
    Poured {
        component: "c".to_owned(),
        moment: Moment::now(),
        proof,
        lost: ledger.settle_losses(),
        kept: ledger.kept(),
        differences: Vec::new(),
        stillness: None,
    }
}

/// Whatever the first try left, the second one counts.
pub async fn a_discarded_entry_that_is_put_again_wins(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    let ledger = Ledger::new(writer.component("c").must("its sink"), "c", &cx);
    let mut expected = MemorySource::new("c");
    for (i, at) in [0, 10, 3 << 20].into_iter().enumerate() {
        let entry = file(format!("entry {i}"));
        let first = ContentFault::CutAfter(at).of(chunked(LARGE, 100_000, at));
        let put = ledger.put(entry.clone(), first).await.must("a cut content does not break the sink");
        assert!(matches!(put, Put::Discarded(_)), "a cut content was taken: {put:?}");
        let put = ledger.put(entry.clone(), chunked(LARGE / 2, 100_000, 77)).await.must("put it again");
        assert_eq!(put, Put::Stored);
        expected = expected.with(entry, || chunked(LARGE / 2, 100_000, 77));
    }
    let proof = ledger.finish(&cx).await.must("finish");
    let poured = result_of(&ledger, proof);
    assert_eq!((poured.lost, poured.proof.count("all", "entries")), (0, 3));
    let summary = writer.commit(conclusion(vec![poured], &cx), &cx).await.must("commit");
    assert_eq!(summary.state, State::Complete);
    assert_only_good(&*fresh.reopened(), &summary.id, &expected.contents().await, &cx).await;
}

/// Lost means partial, whatever the author of the source says.
pub async fn what_was_discarded_and_not_put_again_is_lost(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let source = good().with(file("unreadable"), || {
        Content::failed(backup_core::Error::new(ErrorKind::Denied, "open", "permission denied"))
    });
    let summary = back_up(&*fresh.archive, &source, &cx).await.must("make the backup");
    assert_eq!(summary.state, State::Partial);
    let reader = fresh.reopened().open(&summary.id, &cx).await.must("open a partial backup");
    let component = reader.manifest().component("c").must("the component").clone();
    assert_eq!((component.lost, component.proof.count("all", "entries")), (1, 3));
    let note =
        reader.manifest().notes.list.iter().find(|n| n.path == "unreadable").must("a note names the loss");
    assert!(note.text.contains("permission denied"), "the reason is not kept: {}", note.text);
}

/// The future of a put was dropped with bytes out: the archive refuses what follows, or goes on without the entry.
pub async fn a_put_that_is_dropped_half_way_leaves_no_half_member(make: &impl ArchiveFixture) {
    for (after, sized) in [(1, false), (100_000, true), (3 << 20, false), (3 << 20, true)] {
        let (fresh, cx) = (make.fresh().await, Context::default());
        let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
        let sink = writer.component("c").must("its sink");
        let ledger = Ledger::new(DropsMidPut::new(sink, "bad 0", after), "c", &cx);
        let put = ledger.put(file("before"), Content::whole("before")).await.must("put before the drop");
        assert_eq!(put, Put::Stored);
        let entry = Entry { size: sized.then_some(LARGE), ..file("bad 0") };
        assert!(ledger.put(entry, chunked(LARGE, 100_000, 4)).await.is_err(), "the put was not dropped");
        let good = MemorySource::new("c").with(file("before"), || Content::whole("before"));
        // Refusing from here on is right too, at any call.
        let Ok(Put::Stored) = ledger.put(file("after"), Content::whole("after")).await else {
            writer.abort(&cx).await.must("abort after a refusal");
            continue;
        };
        let good = good.with(file("after"), || Content::whole("after"));
        let Ok(proof) = ledger.finish(&cx).await else {
            writer.abort(&cx).await.must("abort after a refusal");
            continue;
        };
        let conclusion = conclusion(vec![result_of(&ledger, proof)], &cx);
        if let Ok(summary) = writer.commit(conclusion, &cx).await {
            assert_only_good(&*fresh.reopened(), &summary.id, &good.contents().await, &cx).await;
        }
    }
}

/// A finished sink is sealed, and so are the sinks of a backup that is given up.
pub async fn puts_after_the_end_are_refused(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let writer = fresh.archive.begin(header("s", &["c", "d"]), &cx).await.must("begin");
    let (c, d) = (writer.component("c").must("its sink"), writer.component("d").must("its sink"));
    pour(&good(), "c", c.clone(), &cx).await.must("pour");
    assert!(c.put(file("late"), Content::whole("x")).await.is_err(), "a put after finish was taken");
    writer.abort(&cx).await.must("abort");
    assert!(d.put(file("late"), Content::whole("x")).await.is_err(), "a put after abort was taken");
}

/// What needs the data to be there never comes before it.
pub async fn a_stage_that_goes_back_is_a_contract_error(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    let ledger = Ledger::new(writer.component("c").must("its sink"), "c", &cx);
    let put = ledger.put(Entry::file("index", Stage::Complete), Content::whole("i")).await.must("put");
    assert_eq!(put, Put::Stored);
    let error = ledger.put(file("data"), Content::whole("d")).await.err().must("going back is an error");
    assert_eq!(error.kind(), ErrorKind::Contract);
    writer.abort(&cx).await.must("abort");
}

/// The index has one live line for a path.
pub async fn a_path_put_twice_is_one_entry_or_an_error_or_a_defect(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    let sink: Arc<dyn Sink> = writer.component("c").must("its sink");
    assert_eq!(sink.put(file("x"), Content::whole("first")).await.must("put"), Put::Stored);
    if let Ok(Put::Stored) = sink.put(file("x"), Content::whole("second")).await {
        let ledger = Ledger::new(sink, "c", &cx);
        let Ok(proof) = ledger.finish(&cx).await else {
            writer.abort(&cx).await.must("abort after a refusal");
            return;
        };
        let Ok(summary) = writer.commit(conclusion(vec![result_of(&ledger, proof)], &cx), &cx).await else {
            return;
        };
        // An archive that is written in one pass cannot know all paths: then verification names it.
        let reader = fresh.archive.open(&summary.id, &cx).await.must("open the backup");
        let defects = reader.check_structure(Depth::Quick, &cx).await.must("check the backup");
        if defects.iter().any(|d| d.to_string().contains('x')) {
            return;
        }
        let second = MemorySource::new("c").with(file("x"), || Content::whole("second"));
        assert_only_good(&*fresh.reopened(), &summary.id, &second.contents().await, &cx).await;
    } else {
        writer.abort(&cx).await.must("abort after a refusal");
    }
}
