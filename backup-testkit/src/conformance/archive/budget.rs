//! Bytes in flight.

use super::{ArchiveFixture, list};
use crate::{
    Must,
    conformance::pouring::{assert_reads_back, back_up_all, pour_all},
    faults::ContentFault,
    make::{chunked, file, header, streamed},
    memory::MemorySource,
    not_applicable,
};
use backup_core::{Context, Entry, ErrorKind, Source, State};
use std::{sync::Arc, time::Duration};

/// Streams of unknown size, every second one slow, with tiny entries between them.
fn streams(name: &str, count: u64, seed: u64) -> MemorySource {
    let mut source = MemorySource::new(name);
    for i in 0..count {
        let entry = Entry { slow: i % 2 == 0, ..file(format!("stream {i}")) };
        source = source
            .with(entry, move || chunked(1 << 20, 30_000, seed + i * 1000))
            .with_file(format!("tiny {i}"), format!("tiny {i} of {seed}"));
    }
    source
}

fn shared(sources: &[MemorySource]) -> Vec<(String, Arc<dyn Source>)> {
    sources.iter().map(|s| (s.name().to_owned(), Arc::new(s.clone()) as Arc<dyn Source>)).collect()
}

fn small(make: &impl ArchiveFixture, tasks: usize) -> Context {
    Context::new(make.least_budget().max(1 << 20), tasks)
}

async fn poured_together(make: &impl ArchiveFixture, sources: &[MemorySource], cx: &Context) {
    let fresh = make.fresh().await;
    let names: Vec<_> = sources.iter().map(MemorySource::name).collect();
    let shared = shared(sources);
    let made = back_up_all(&*fresh.archive, header("s", &names), &shared, cx);
    let made = tokio::time::timeout(Duration::from_secs(90), made).await;
    let summary = made.must("no deadlock under a small budget").must("make the backup");
    assert_eq!(summary.state, State::Complete);
    assert_eq!(cx.budget.in_flight(), 0, "bytes of the budget were not given back");
    for source in sources {
        assert_reads_back(&*fresh.reopened(), &summary, source, cx).await;
    }
    assert_eq!(cx.budget.in_flight(), 0, "bytes of the budget were not given back by reading");
}

/// Thirty streams at once under the least budget: whoever accumulates reserves once, so that nobody waits for ever.
pub async fn more_streams_than_fit_in_the_budget_come_to_an_end(make: &impl ArchiveFixture) {
    poured_together(make, &[streams("db", 30, 1)], &small(make, 30)).await;
}

/// Three components of ten streams each, all at once: no byte ends up in another entry.
pub async fn components_poured_together_are_kept_apart(make: &impl ArchiveFixture) {
    let sources =
        [streams("a", 10, 1), streams("b", 10, 500), streams("c", 10, 900), MemorySource::new("empty")];
    poured_together(make, &sources, &small(make, 10)).await;
}

/// An error before anything was read, not a wait in the middle.
pub async fn a_budget_that_cannot_suffice_is_an_error_at_begin(make: &impl ArchiveFixture) {
    let least = make.least_budget();
    if least == 0 {
        return not_applicable("a_budget_that_cannot_suffice_is_an_error_at_begin", "it needs no budget");
    }
    let fresh = make.fresh().await;
    let cx = Context::new(least / 2, 4);
    let begun =
        tokio::time::timeout(Duration::from_secs(10), fresh.archive.begin(header("s", &["c"]), &cx)).await;
    let error =
        begun.must("begin does not wait").err().must("begin with half of the least budget is refused");
    assert_eq!(error.kind(), ErrorKind::Budget);
    assert_eq!(list(make, &*fresh.archive).await, [], "a refused begin left something");
}

/// What says that it is slow is not given the archive for itself.
pub async fn a_slow_stalled_stream_does_not_hold_up_another_component(make: &impl ArchiveFixture) {
    let fresh = make.fresh().await;
    let cx = Context::default();
    let writer = fresh.archive.begin(header("s", &["slow", "quick"]), &cx).await.must("begin");
    let slow = Entry { slow: true, ..file("stalled") };
    let stalled = MemorySource::new("slow")
        .with(slow, || ContentFault::StallAfter(20_000).of(chunked(1 << 20, 10_000, 1)));
    let quick = MemorySource::new("quick").with_file("f", "f").with(file("g"), || streamed("ggg", 1));
    let child = cx.child();
    let (sink, slow_cx) = (writer.component("slow").must("its sink"), child.clone());
    let stalled =
        tokio::spawn(
            async move { crate::conformance::pouring::pour(&stalled, "slow", sink, &slow_cx).await },
        );
    tokio::time::sleep(Duration::from_millis(50)).await;
    let quick = pour_one(&*writer, &quick, &cx);
    let poured = tokio::time::timeout(Duration::from_secs(20), quick).await;
    poured.must("the other component is not held up").must("pour the other component");
    child.cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), stalled)
        .await
        .must("cancellation ends the stalled pour");
    let error = ended.must("the pour does not panic").err().must("a cancelled pour is an error");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    writer.abort(&cx.calm()).await.must("abort");
}

async fn pour_one(
    writer: &dyn backup_core::BackupWriter,
    source: &MemorySource,
    cx: &Context,
) -> backup_core::Result<()> {
    pour_all(writer, &shared(std::slice::from_ref(source)), cx).await.map(|_| ())
}
