//! Components that lie between each other in an archive are read together, and each frame once.
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    portable::{PortableArchive, PortableOptions},
    *,
};
use backup_testkit::{
    conformance::pouring::pour, faults::SlowOn, make, memory::ContentsSink, memory::MemorySource,
};
use std::{sync::Arc, time::Duration};

const COMPONENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Of 1 MiB each: together far more than the frames that are kept.
const FILES: u64 = 16;

async fn backup(archive: &PortableArchive, cx: &Context) -> BackupId {
    let component = |(c, name): (usize, &str)| {
        let mut source = MemorySource::new(name);
        for i in 0..FILES {
            source = source
                .with_bytes(make::file(format!("{i:02}")), make::noise(1 << 20, c as u64 * FILES + i + 1));
        }
        let header = make::header("s", &[name]).components.remove(0);
        CreateComponent { header, source: Box::new(source) }
    };
    let request = CreateRequest {
        module: "m".into(),
        series: Series("s".into()),
        components: COMPONENTS.into_iter().enumerate().map(component).collect(),
        metadata: Default::default(),
        tags: vec![],
        note: None,
        strict: true,
        allow_partial: false,
        wait: Duration::ZERO,
        read_back: ReadBack::None,
        made: None,
    };
    create(request, archive, cx).await.unwrap().id
}

/// Time passes only when nothing else can go on: a loaded machine does not make anyone slow.
#[tokio::test(start_paused = true)]
async fn what_components_share_is_read_once_for_all_even_if_one_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::default();
    let archive = PortableArchive::folder(dir.path(), PortableOptions::default()).unwrap();
    let id = backup(&archive, &cx).await;
    let stored = archive.list(&cx).await.unwrap()[0].stored_bytes;

    let reader = archive.open(&id, &cx).await.unwrap();
    let reads = COMPONENTS.map(|name| {
        let (reader, cx) = (reader.clone(), cx.clone());
        tokio::spawn(async move {
            let source = reader.component(name, Selection::All).unwrap();
            let sink: Arc<dyn Sink> = Arc::new(ContentsSink::new());
            let slow = name == "b";
            let sink =
                if slow { SlowOn::all(sink, Duration::from_millis(10)) as Arc<dyn Sink> } else { sink };
            pour(&*source, name, sink, &cx).await.unwrap().lost
        })
    });
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), 0);
    }
    let fetched = reader.bytes_fetched();
    assert!(fetched < stored * 3 / 2, "{fetched} bytes were read of {stored}");
}
