//! A backup exists only when its manifest is written.

use super::{ArchiveFixture, Fresh, as_listed, list};
use crate::{
    Must,
    conformance::pouring::{assert_reads_back, back_up, back_up_all, conclusion, pour},
    faults::{BreaksAfter, ContentFault, FaultySource, SourceFault},
    make::{chunked, file, header},
    memory::MemorySource,
    not_applicable,
};
use backup_core::{
    BackupHeader, BackupId, Content, Context, Depth, Entry, ErrorKind, Note, Severity, Source, State,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn source() -> MemorySource {
    MemorySource::new("c").with_file("a", "aaa").with(file("b"), || chunked(700_000, 50_000, 9))
}

/// A missing end is never papered over; an error leaves no backup.
pub async fn commit_refuses_while_a_component_is_unfinished(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let header = header("s", &["c", "d"]);
    let writer = fresh.archive.begin(header.clone(), &cx).await.must("begin");
    let done = pour(&source(), "c", writer.component("c").must("its sink"), &cx).await.must("pour");
    let sink = writer.component("d").must("its sink");
    let put = sink.put(file("x"), Content::whole("x")).await.must("put");
    assert_eq!(put, backup_core::Put::Stored);
    let claimed = backup_core::Poured { component: "d".to_owned(), ..done.clone() };
    let error = writer.commit(conclusion(vec![done, claimed], &cx), &cx).await;
    let error = error.err().must("a commit without an end is refused");
    assert_eq!(error.kind(), ErrorKind::Contract);
    assert_never_offered(make, &fresh, &header).await;
}

/// Nor is a component that nobody answers for, or that is not there.
pub async fn commit_refuses_without_a_result_for_every_component(make: &impl ArchiveFixture) {
    for wrong in ["missing", "twice", "unknown"] {
        let (fresh, cx) = (make.fresh().await, Context::default());
        let header = header("s", &["c", "d"]);
        let writer = fresh.archive.begin(header.clone(), &cx).await.must("begin");
        let c = pour(&source(), "c", writer.component("c").must("its sink"), &cx).await.must("pour");
        let d = pour(&source(), "d", writer.component("d").must("its sink"), &cx).await.must("pour");
        let poured = match wrong {
            "missing" => vec![c],
            "twice" => vec![c.clone(), d, c],
            _ => vec![c.clone(), d, backup_core::Poured { component: "e".to_owned(), ..c }],
        };
        let error = writer
            .commit(conclusion(poured, &cx), &cx)
            .await
            .err()
            .must(&format!("a conclusion is refused: {wrong}"));
        assert_eq!(error.kind(), ErrorKind::Contract, "{wrong}");
        assert_never_offered(make, &fresh, &header).await;
    }
}

/// It is not opened, not listed as anything but incomplete, and gone after `heal`.
async fn assert_never_offered(make: &impl ArchiveFixture, fresh: &Fresh, header: &BackupHeader) {
    let cx = Context::default();
    assert!(fresh.archive.open(&header.id, &cx).await.is_err(), "it can be opened");
    let archive = fresh.reopened();
    assert!(archive.open(&header.id, &cx).await.is_err(), "it can be opened by a later process");
    for summary in list(make, &*archive).await {
        assert_eq!(summary.state, State::Incomplete, "it is listed as {summary:?}");
    }
    archive.heal(&cx).await.must("heal");
    assert_eq!(list(make, &*archive).await, [], "it is left after heal");
}

/// Two writers of one component, or a component that nobody announced, are defects of the caller.
pub async fn a_sink_is_given_once_and_only_for_a_component_of_the_header(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    assert!(writer.component("d").is_err(), "a sink for an unknown component");
    let _sink = writer.component("c").must("its sink");
    assert!(writer.component("c").is_err(), "a second sink for the same component");
    writer.abort(&cx).await.must("abort");
}

/// No file, no upload, no line in a listing.
pub async fn abort_leaves_nothing_behind(make: &impl ArchiveFixture) {
    for finished in [false, true] {
        let (fresh, cx) = (make.fresh().await, Context::default());
        let before = fresh.names();
        let header = header("s", &["c", "d"]);
        let writer = fresh.archive.begin(header.clone(), &cx).await.must("begin");
        let sink = writer.component("c").must("its sink");
        if finished {
            pour(&source(), "c", sink, &cx).await.must("pour");
        } else {
            let put = sink.put(file("x"), chunked(3 << 20, 100_000, 1)).await.must("put");
            assert_eq!(put, backup_core::Put::Stored);
            drop(sink);
        }
        writer.abort(&cx).await.must("abort");
        assert_eq!(list(make, &*fresh.archive).await, []);
        assert!(fresh.reopened().open(&header.id, &cx).await.is_err(), "an aborted backup can be opened");
        assert_eq!(fresh.names(), before, "abort left files behind");
        assert_eq!(cx.budget.in_flight(), 0, "abort did not give back its bytes of the budget");
    }
}

/// And what is incomplete is never opened.
pub async fn nothing_is_visible_before_commit_except_as_incomplete(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let header = header("s", &["c"]);
    let writer = fresh.archive.begin(header.clone(), &cx).await.must("begin");
    let poured = pour(&source(), "c", writer.component("c").must("its sink"), &cx).await.must("pour");
    for archive in [fresh.archive.clone(), fresh.reopened()] {
        let listed = list(make, &*archive).await;
        assert!(listed.iter().all(|s| s.state == State::Incomplete), "listed before its commit: {listed:?}");
        if make.lists_incomplete() {
            assert_eq!(listed.iter().map(|s| &s.id).collect::<Vec<_>>(), [&header.id]);
        }
        assert!(archive.open(&header.id, &cx).await.is_err(), "an incomplete backup can be opened");
    }
    writer.commit(conclusion(vec![poured], &cx), &cx).await.must("commit");
    let listed = list(make, &*fresh.reopened()).await;
    assert_eq!((listed.len(), listed[0].state, &listed[0].id), (1, State::Complete, &header.id));
}

async fn crash(fresh: &Fresh, cx: &Context) -> BackupId {
    let (header, before) = (header("s", &["c"]), fresh.names());
    let lock = fresh.archive.lock(&header.series, Duration::ZERO, cx).await.must("take the lock");
    let mut of_lock = fresh.names();
    of_lock.retain(|name| !before.contains(name));
    let writer = fresh.archive.begin(header.clone(), cx).await.must("begin");
    let sink = writer.component("c").must("its sink");
    let put = sink.put(file("x"), chunked(3 << 20, 100_000, 1)).await.must("put");
    assert_eq!(put, backup_core::Put::Stored);
    drop((writer, sink, lock));
    // A busy server takes its time to give the lock back.
    for _ in 0..100 {
        if !fresh.names().iter().any(|name| of_lock.contains(name)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    come_to_rest(fresh).await;
    header.id
}

/// What runs detached comes to its end: names stay as they are for a while.
async fn come_to_rest(fresh: &Fresh) {
    let (mut names, mut same) = (fresh.names(), 0);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = fresh.names();
        same = if now == names { same + 1 } else { 0 };
        names = now;
        if same == 6 {
            return;
        }
    }
}

/// Neither committed nor aborted: the run was killed.
pub async fn a_crashed_run_is_cleared_by_heal(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let before = fresh.names();
    let id = crash(&fresh, &cx).await;
    let archive = fresh.reopened();
    assert!(archive.open(&id, &cx).await.is_err(), "what a crash left can be opened");
    archive.heal(&cx).await.must("heal");
    assert_eq!(list(make, &*archive).await, [], "heal left the crashed run");
    assert_eq!(fresh.names(), before, "heal left files of the crashed run");
    assert_eq!(
        archive.heal(&cx).await.must("heal again"),
        Vec::<String>::new(),
        "there was nothing more to heal"
    );
}

/// Nobody needs to call `heal` by hand.
pub async fn a_crashed_run_is_cleared_by_the_next_run_of_its_series(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    crash(&fresh, &cx).await;
    let archive = fresh.reopened();
    let lock = archive.lock(&header("s", &[]).series, Duration::ZERO, &cx).await.must("take the lock");
    assert_eq!(list(make, &*archive).await, [], "the next run left the crashed one");
    lock.release().await.must("give the lock back");
}

/// A run that holds its lock is not over.
pub async fn heal_leaves_a_live_run_alone(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let header = header("s", &["c"]);
    let lock = fresh.archive.lock(&header.series, Duration::ZERO, &cx).await.must("take the lock");
    let writer = fresh.archive.begin(header, &cx).await.must("begin");
    let sink = writer.component("c").must("its sink");
    fresh.reopened().heal(&cx).await.must("heal");
    let poured = pour(&source(), "c", sink, &cx).await.must("pour after a heal by somebody else");
    let summary = writer.commit(conclusion(vec![poured], &cx), &cx).await.must("commit");
    lock.release().await.must("give the lock back");
    assert_reads_back(&*fresh.reopened(), &summary, &source(), &cx).await;
}

/// Whatever happens to a later run.
pub async fn earlier_backups_are_untouched_by_one_that_fails(make: &impl ArchiveFixture) {
    if make.single() {
        return not_applicable(
            "earlier_backups_are_untouched_by_one_that_fails",
            "it has room for one backup",
        );
    }
    let (fresh, cx) = (make.fresh().await, Context::default());
    let earlier = back_up(&*fresh.archive, &source(), &cx).await.must("make the earlier backup");
    let (before, names) = (list(make, &*fresh.reopened()).await, fresh.names());
    for fault in
        [SourceFault::Connect, SourceFault::Fix, SourceFault::PourAfter(1), SourceFault::PanicAfter(1)]
    {
        let faulty: Arc<dyn Source> = Arc::new(FaultySource::new(source(), fault));
        let run = back_up_all(&*fresh.archive, header("s", &["c"]), &[("c".to_owned(), faulty)], &cx).await;
        assert!(run.is_err(), "a failed source is not a backup");
    }
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    let sink = BreaksAfter::new(writer.component("c").must("its sink"), 1);
    assert!(pour(&source(), "c", sink, &cx).await.is_err(), "a broken sink is an error");
    writer.abort(&cx).await.must("abort");
    crash(&fresh, &cx).await;
    let archive = fresh.reopened();
    archive.heal(&cx).await.must("heal");
    assert_eq!(list(make, &*archive).await, before, "the listing has changed");
    assert_eq!(fresh.names(), names, "the files have changed");
    assert_reads_back(&*archive, &earlier, &source(), &cx).await;
    let reader = archive.open(&earlier.id, &cx).await.must("open the earlier backup");
    assert!(reader.check_structure(Depth::Full, &cx).await.must("check").is_empty());
}

/// Header, moments, proofs, notes and what was left out on purpose.
pub async fn the_manifest_says_what_was_concluded(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let header = header("s", &["c"]);
    let writer = fresh.archive.begin(header.clone(), &cx).await.must("begin");
    let poured = pour(&source(), "c", writer.component("c").must("its sink"), &cx).await.must("pour");
    cx.note(Severity::Warning, "c", "a\n", "it changed while it was read");
    let said = backup_core::Conclusion {
        not_included: vec!["sockets".to_owned()],
        ..conclusion(vec![poured.clone()], &cx)
    };
    let summary = writer.commit(said, &cx).await.must("commit");
    let archive = fresh.reopened();
    let reader = archive.open(&summary.id, &cx).await.must("open");
    let manifest = reader.manifest();
    assert_eq!(manifest.header, header);
    assert_eq!((manifest.state, &manifest.not_included[..]), (State::Complete, &["sockets".to_owned()][..]));
    let note = Note {
        severity: Severity::Warning,
        component: "c".to_owned(),
        path: "a\n".to_owned(),
        text: "it changed while it was read".to_owned(),
    };
    assert_eq!(manifest.notes.list, [note]);
    let component = manifest.component("c").must("its component");
    assert_eq!((&component.proof, component.moment, component.lost), (&poured.proof, poured.moment, 0));
    assert!(manifest.finished >= header.created, "it was finished before it began");
    let listed = list(make, &*archive).await;
    let expected = as_listed(make, &summary);
    assert_eq!(listed, [expected], "the listing and the answer of commit differ");
    assert_eq!(
        (&summary.series, summary.created, &summary.module),
        (&header.series, header.created, &header.module)
    );
    assert_eq!(
        (summary.entries, summary.data_bytes, &summary.components[..]),
        (2, 700_003, &["c".to_owned()][..])
    );
    assert_eq!((summary.tags, summary.note), (header.tags, header.note));
}

/// Partial is never success, and never nothing.
pub async fn a_partial_backup_is_listed_as_partial_and_can_be_read(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let faulty = source().with(file("bad"), || ContentFault::CutAfter(5).of(Content::whole("0123456789")));
    let summary = back_up(&*fresh.archive, &faulty, &cx).await.must("make a partial backup");
    let archive = fresh.reopened();
    let states: Vec<_> = list(make, &*archive).await.into_iter().map(|s| s.state).collect();
    assert_eq!((summary.state, &states[..]), (State::Partial, &[State::Partial][..]));
    assert_reads_back(&*archive, &summary, &source(), &cx).await;
}

/// A name made of the time is not unique.
pub async fn backups_of_the_same_second_are_both_kept_oldest_first(make: &impl ArchiveFixture) {
    if make.single() {
        return not_applicable(
            "backups_of_the_same_second_are_both_kept_oldest_first",
            "it has room for one backup",
        );
    }
    let (fresh, cx) = (make.fresh().await, Context::default());
    let mut ids = Vec::new();
    let start = jiff::Timestamp::from_second(1_700_000_000).must("a time");
    for i in 0..4 {
        let created = start + Duration::from_millis(i * 10);
        let header = BackupHeader { created, ..header("s", &["c"]) };
        let source = MemorySource::new("c").with_file("n", i.to_string());
        let sources = [("c".to_owned(), Arc::new(source) as Arc<dyn Source>)];
        ids.push(back_up_all(&*fresh.archive, header, &sources, &cx).await.must("make a backup").id);
    }
    let archive = fresh.reopened();
    let listed = list(make, &*archive).await;
    assert_eq!(listed.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), ids);
    for (i, summary) in listed.iter().enumerate() {
        let source = MemorySource::new("c").with_file("n", i.to_string());
        assert_reads_back(&*archive, summary, &source, &cx).await;
    }
}

/// A second backup of the same id is an error, and the first stays as it is.
pub async fn an_id_is_never_taken_twice(make: &impl ArchiveFixture) {
    if !make.compares_ids() {
        return not_applicable("an_id_is_never_taken_twice", "ids are not compared");
    }
    let (fresh, cx) = (make.fresh().await, Context::default());
    let header = header("s", &["c"]);
    let sources = [("c".to_owned(), Arc::new(source()) as Arc<dyn Source>)];
    let first = back_up_all(&*fresh.archive, header.clone(), &sources, &cx).await.must("make a backup");
    let other = [("c".to_owned(), Arc::new(MemorySource::new("c").with_file("x", "x")) as Arc<dyn Source>)];
    let again = back_up_all(&*fresh.archive, header, &other, &cx).await;
    assert!(again.is_err(), "the id was taken twice");
    let archive = fresh.reopened();
    assert_eq!(list(make, &*archive).await.len(), 1);
    assert_reads_back(&*archive, &first, &source(), &cx).await;
}

/// Retention acts on listings: an empty one that is a failure would be a disaster.
pub async fn a_listing_that_fails_is_an_error(make: &impl ArchiveFixture) {
    let Some(archive) = make.unreachable().await else {
        return not_applicable("a_listing_that_fails_is_an_error", "no unreachable place can be made");
    };
    let listed = archive.list(&Context::default()).await;
    assert!(listed.is_err(), "a place that cannot be reached has the listing {listed:?}");
}

/// Neither before nor after it in the list.
pub async fn removing_an_unknown_id_removes_nothing(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let made = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
    let names = fresh.names();
    let ids = [made.id.clone(), BackupId::generate()];
    for ids in
        [vec![ids[0].clone(), ids[1].clone()], vec![ids[1].clone(), ids[0].clone()], vec![ids[1].clone()]]
    {
        let error = fresh.archive.remove(&ids, &cx).await.err().must("an unknown id is an error");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(fresh.names(), names);
    assert_reads_back(&*fresh.reopened(), &made, &source(), &cx).await;
}

/// And all that belongs to them.
pub async fn removing_removes_these_and_nothing_else(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    if make.single() {
        let made = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
        fresh.archive.remove(&[made.id], &cx).await.must("remove the backup");
        assert_eq!(list(make, &*fresh.reopened()).await, []);
        return;
    }
    let first = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
    let names = fresh.names();
    let second = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
    let third = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
    fresh.archive.remove(&[third.id, second.id.clone()], &cx).await.must("remove two");
    let archive = fresh.reopened();
    assert_eq!(list(make, &*archive).await.iter().collect::<Vec<_>>(), [&as_listed(make, &first)]);
    assert!(archive.open(&second.id, &cx).await.is_err(), "a removed backup can be opened");
    assert_eq!(fresh.names(), names, "something of the removed backups is left");
    assert_reads_back(&*archive, &first, &source(), &cx).await;
}

/// What came later does not change the backup.
pub async fn verified_is_kept_beside_the_backup(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    if !make.keeps_verified() {
        return not_applicable("verified_is_kept_beside_the_backup", "it has no place beside a backup");
    }
    let made = back_up(&*fresh.archive, &source(), &cx).await.must("make a backup");
    let at = jiff::Timestamp::from_second(1_800_000_000).must("a time");
    fresh.archive.mark_verified(&made.id, at, &cx).await.must("mark it verified");
    let archive = fresh.reopened();
    let listed = list(make, &*archive).await;
    assert_eq!(listed.iter().map(|s| s.verified).collect::<Vec<_>>(), [Some(at)]);
    let unknown = archive.mark_verified(&BackupId::generate(), at, &cx).await;
    assert!(unknown.is_err(), "an unknown backup was marked as verified");
    assert_reads_back(&*archive, &made, &source(), &cx).await;
}

/// Within five seconds, also while nothing flows.
pub async fn cancellation_ends_a_backup_in_time_and_abort_leaves_nothing(make: &impl ArchiveFixture) {
    for slow in [false, true] {
        let (fresh, cx) = (make.fresh().await, Context::default());
        let before = fresh.names();
        let stalled = Entry { slow, ..file("stalled") };
        let source = source()
            .with(stalled, || ContentFault::StallAfter(2 << 20).of(chunked(LARGE, 50_000, 1)))
            .with(file("long"), || chunked(1 << 40, 50_000, 1));
        let cancel = cx.cancel.clone();
        let started = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        });
        let run = back_up(&*fresh.archive, &source, &cx).await.err().must("a cancelled run is an error");
        assert_eq!(run.kind(), ErrorKind::Cancelled);
        assert!(started.elapsed() < Duration::from_millis(5300), "it took {:?}", started.elapsed());
        assert_eq!(list(make, &*fresh.reopened()).await, []);
        assert_eq!(fresh.names(), before, "a cancelled run left files behind");
        assert_eq!(cx.budget.in_flight(), 0, "a cancelled run did not give back its bytes of the budget");
    }
}

const LARGE: u64 = 5 << 20;
