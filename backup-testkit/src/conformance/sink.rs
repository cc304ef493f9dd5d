//! What every sink promises, a component of an archive as well as a shadow of a target. Enlist with `sink_conformance!`.

use crate::{
    Must,
    conformance::pouring::pour,
    faults::{ContentFault, DropsMidPut},
    make::{chunked, file},
    memory::MemorySource,
};
use async_trait::async_trait;
use backup_core::{Content, Context, Entry, ErrorKind, Put, Sink, compare};
use bytes::Bytes;
use std::{
    any::Any,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Makes sinks to be tested.
#[async_trait]
pub trait SinkFixture: Send + Sync {
    /// A sink without entries; what else must live as long comes with it.
    async fn open(&self, cx: &Context) -> (Arc<dyn Sink>, Box<dyn Any + Send + Sync>);

    /// An entry that it takes, number `n`: a sink of a database does not take any file.
    fn entry(&self, n: usize) -> Entry {
        file(format!("entry {n}"))
    }

    /// A content that it takes for any of these entries, of at least a few hundred KiB in several chunks.
    fn content(&self, n: usize) -> Content {
        chunked(400_000, 30_000, n as u64)
    }
}

fn source(make: &impl SinkFixture, count: usize) -> MemorySource {
    let mut source = MemorySource::new("c");
    for n in 0..count {
        // Contents are made once for each pour here, so that the fixture need not be shared with the source.
        let once = Mutex::new(Some(make.content(n)));
        source = source.with(make.entry(n), move || {
            let made = once.lock().ok().and_then(|mut c| c.take());
            made.unwrap_or_else(Content::empty)
        });
    }
    source
}

/// `Err` would say that the sink is broken.
pub async fn a_failing_content_is_discarded_and_the_sink_stays_sound(make: &impl SinkFixture) {
    let cx = Context::default();
    let (sink, _kept) = make.open(&cx).await;
    let faults = [
        ContentFault::CutAfter(0),
        ContentFault::CutAfter(100_000),
        ContentFault::FailAfter(0),
        ContentFault::FailAfter(100_000),
        ContentFault::PanicAfter(100_000),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let put = sink.put(make.entry(n), fault.of(make.content(n))).await;
        assert!(matches!(put, Ok(Put::Discarded(_))), "{fault:?} gave {put:?}");
    }
    let good = sink.put(make.entry(99), make.content(99)).await.must("put after contents that failed");
    assert_eq!(good, Put::Stored);
    let proof = sink.finish(&cx).await.must("finish");
    assert_eq!(proof.count("all", "entries"), 1, "something of a failed content was counted");
}

/// Another try counts, and only that.
pub async fn a_discarded_entry_can_be_put_again(make: &impl SinkFixture) {
    let cx = Context::default();
    let (sink, _kept) = make.open(&cx).await;
    let put = sink.put(make.entry(0), ContentFault::CutAfter(50_000).of(make.content(0))).await;
    assert!(matches!(put, Ok(Put::Discarded(_))), "{put:?}");
    assert_eq!(sink.put(make.entry(0), make.content(0)).await.must("put it again"), Put::Stored);
    let proof = sink.finish(&cx).await.must("finish");
    assert_eq!(proof.count("all", "entries"), 1);
}

/// A cancelled run must not count as one with a lost entry.
pub async fn a_cancelled_content_is_an_error(make: &impl SinkFixture) {
    let cx = Context::default();
    let (sink, _kept) = make.open(&cx).await;
    let entry = make.entry(0);
    let content = ContentFault::StallAfter(60_000).of(make.content(0));
    let content = content.watched(&entry, &cx.cancel, &Arc::default());
    let cancel = cx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let error = sink.put(entry, content).await.err().must("a cancelled content is an error");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}

/// Any number of puts may be open.
pub async fn many_puts_at_once_come_to_an_end(make: &impl SinkFixture) {
    let cx = Context::new(8 << 20, 30);
    let (sink, _kept) = make.open(&cx).await;
    let source = source(make, 30);
    let poured = tokio::time::timeout(Duration::from_secs(60), pour(&source, "c", sink, &cx)).await;
    let poured = poured.must("no deadlock with thirty puts").must("pour");
    assert_eq!((poured.lost, poured.proof.count("all", "entries")), (0, 30));
}

/// Entries and bytes as the ledger saw them; the same facts for the same data in any order.
pub async fn the_proof_counts_what_was_taken_in_any_order(make: &impl SinkFixture) {
    let mut proofs = Vec::new();
    for tasks in [1, 8] {
        let cx = Context::new(8 << 20, tasks);
        let (sink, _kept) = make.open(&cx).await;
        proofs.push(pour(&source(make, 8), "c", sink, &cx).await.must("pour").proof);
    }
    let differences = compare(&proofs[0], &proofs[1], &|_, _| false);
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!(proofs[0].count("all", "entries"), 8);
}

/// It is sealed.
pub async fn a_put_after_finish_is_an_error(make: &impl SinkFixture) {
    let cx = Context::default();
    let (sink, _kept) = make.open(&cx).await;
    assert_eq!(sink.put(make.entry(0), make.content(0)).await.must("put"), Put::Stored);
    let proof = sink.finish(&cx).await.must("finish");
    assert_eq!(proof.count("all", "entries"), 1);
    let late = sink.put(make.entry(1), make.content(1)).await;
    assert!(late.is_err(), "a put after finish gave {late:?}");
}

/// The sink is sound without the entry, or refuses everything after.
pub async fn a_dropped_put_leaves_it_sound_or_refusing(make: &impl SinkFixture) {
    for after in [1, 200_000] {
        let cx = Context::default();
        let (sink, _kept) = make.open(&cx).await;
        let entry = make.entry(0);
        let path: Bytes = entry.path.clone();
        let dropping = DropsMidPut::new(sink.clone(), path, after);
        assert!(dropping.put(entry, make.content(0)).await.is_err(), "the put was not dropped");
        match sink.put(make.entry(1), make.content(1)).await {
            Err(_) => continue,
            Ok(put) => assert_eq!(put, Put::Stored),
        }
        let Ok(proof) = sink.finish(&cx).await else { continue };
        assert_eq!(proof.count("all", "entries"), 1, "the dropped put was counted");
    }
}

/// Makes a test of every promise of a sink. The argument is an expression that makes a `SinkFixture`.
#[macro_export]
macro_rules! sink_conformance {
    ($fixture:expr) => {
        $crate::promises!(
            $fixture,
            sink,
            [
                a_failing_content_is_discarded_and_the_sink_stays_sound,
                a_discarded_entry_can_be_put_again,
                a_cancelled_content_is_an_error,
                many_puts_at_once_come_to_an_end,
                the_proof_counts_what_was_taken_in_any_order,
                a_put_after_finish_is_an_error,
                a_dropped_put_leaves_it_sound_or_refusing,
            ]
        );
    };
}
