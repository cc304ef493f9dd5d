//! What a put reserves is given back, whatever its sizes are: a run never waits for memory that nobody holds.
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    portable::{PortableArchive, PortableOptions},
    *,
};
use bytes::Bytes;
use futures::StreamExt;
use std::time::Duration;

const FRAME: usize = 64 << 10;
const SEGMENT: usize = 128 << 10;
/// The least with which a backup begins.
const BUDGET: usize = 4 * FRAME + SEGMENT + (1 << 20);

async fn writer(dir: &tempfile::TempDir, cx: &Context) -> (Box<dyn BackupWriter>, std::sync::Arc<dyn Sink>) {
    let options = PortableOptions::default().with_sizes(FRAME, SEGMENT);
    let archive = PortableArchive::folder(dir.path(), options).unwrap();
    let component = ComponentHeader {
        name: "c".into(),
        kind: "files".into(),
        folder: "files".into(),
        origin: serde_json::Value::Null,
    };
    let header = BackupHeader {
        id: BackupId::generate(),
        module: "m".into(),
        series: Series("s".into()),
        created: jiff::Timestamp::now(),
        host: "h".into(),
        components: vec![component],
        metadata: Default::default(),
        tags: vec![],
        note: None,
    };
    let writer = archive.begin(header, cx).await.unwrap();
    let sink = writer.component("c").unwrap();
    (writer, sink)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it waits for ever")
}

fn pieces(count: usize, size: usize) -> Content {
    let parts = futures::stream::iter((0..count).map(move |_| Ok(Part::Bytes(Bytes::from(vec![1; size])))));
    Content::stream(parts.chain(futures::stream::iter([Ok(Part::End(Facts::new()))])))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_empty_entries_and_odd_pieces_fit_the_least_budget() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::new(BUDGET, 2);
    let (writer, sink) = writer(&dir, &cx).await;
    for i in 0..40_000 {
        let put = sink.put(Entry::file(format!("empty {i}"), Stage::Data), Content::empty());
        assert_eq!(soon(put).await.unwrap(), Put::Stored);
    }
    // Pieces that are no multiple of what memory is counted in, under the lock of a large member and in segments.
    let large = Entry::file("large", Stage::Data).sized(1000 * 3001);
    assert_eq!(soon(sink.put(large, pieces(3001, 1000))).await.unwrap(), Put::Stored);
    let stream = Entry::file("stream", Stage::Data);
    assert_eq!(soon(sink.put(stream, pieces(3001, 1000))).await.unwrap(), Put::Stored);
    soon(sink.finish(&cx)).await.unwrap();
    soon(writer.abort(&cx)).await.unwrap();
    assert_eq!(cx.budget.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_does_not_wait_for_memory() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::new(BUDGET, 2);
    let (writer, sink) = writer(&dir, &cx).await;
    let _all = cx.budget.reserve(cx.budget.limit() - cx.budget.in_flight()).await.unwrap();
    let put = sink.put(Entry::file("x", Stage::Data), Content::whole("bytes"));
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cx.cancel.cancel();
    };
    let (put, ()) = soon(futures::future::join(put, cancel)).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Cancelled);
    soon(writer.abort(&cx)).await.unwrap();
}

/// Its padding would be missing: everything after it would begin within a block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_put_dropped_before_its_end_was_said_poisons_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::new(8 << 20, 2);
    let (writer, sink) = writer(&dir, &cx).await;
    let all = futures::stream::iter((0..300).map(|_| Ok(Part::Bytes(Bytes::from(vec![1; 1001])))));
    let taken = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = taken.clone();
    // Whoever asks for more than all of it waits for its end.
    let end = futures::stream::once(async move {
        tell.notify_one();
        std::future::pending().await
    });
    let never = Content::stream(all.chain(end));
    let large = Entry::file("large", Stage::Data).sized(300 * 1001);
    tokio::select! {
        put = sink.put(large, never) => panic!("it did not wait for its end: {put:?}"),
        () = soon(taken.notified()) => {}
    }
    assert!(sink.put(Entry::file("x", Stage::Data), Content::whole("bytes")).await.is_err());
    writer.abort(&cx).await.unwrap();
}
