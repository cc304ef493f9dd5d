//! The reference in memory keeps every promise.

#![allow(clippy::unwrap_used)] // the helpers of a test are test code too

use async_trait::async_trait;
use backup_core::{
    Archive, Backend, BackupId, Content, Context, Error, ErrorKind, MemoryArchive, Result, Sink, Target,
};
use backup_testkit::{
    conformance::{
        archive::{ArchiveFixture, Fresh, Raw},
        backend::{BackendFixture, Place},
        sink::SinkFixture,
        source::{Made, Setup, SourceFixture},
        target::TargetFixture,
    },
    make::{chunked, directory, file, header, richly_attributed, sparse},
    memory::{MemoryBackend, MemorySource, MemoryStore, MemoryTarget},
};
use futures::{FutureExt, StreamExt};

/// The stored contents of an archive in memory, as pieces `id/component/path`.
struct RawMemory(MemoryArchive);

impl Raw for RawMemory {
    fn pieces(&self) -> Vec<(String, u64)> {
        let cx = Context::default();
        let list = self.0.list(&cx).now_or_never().unwrap().unwrap();
        let mut out = Vec::new();
        for summary in list {
            let Ok(reader) = self.0.open(&summary.id, &cx).now_or_never().unwrap() else {
                out.push((summary.id.to_string(), 0));
                continue;
            };
            let mut entries = reader.entries();
            while let Some(Ok(listed)) = entries.next().now_or_never().unwrap() {
                let name = format!("{}/{}/{}", summary.id, listed.component, listed.entry.display_path());
                let length = self.change(&name, |_| {}).len() as u64;
                out.push((name, length));
            }
        }
        out.sort();
        out
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.change(name, |_| {})
    }

    fn write(&self, name: &str, bytes: Option<&[u8]>) {
        self.change(name, |held| *held = bytes.unwrap_or_default().to_vec());
    }
}

impl RawMemory {
    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut parts = name.splitn(3, '/');
        let id: BackupId = parts.next().unwrap().parse().unwrap();
        let (component, path) = (parts.next().unwrap(), parts.next().unwrap());
        let mut out = Vec::new();
        self.0
            .tamper(&id, component, path.as_bytes(), |held| {
                change(held);
                out.clone_from(held);
            })
            .unwrap();
        out
    }
}

struct InMemory;

#[async_trait]
impl ArchiveFixture for InMemory {
    async fn fresh(&self) -> Fresh {
        let archive = MemoryArchive::new();
        let raw = RawMemory(archive.clone());
        Fresh::new(move || std::sync::Arc::new(archive.clone())).with_raw(raw)
    }

    fn names_what_is_written(&self) -> bool {
        false
    }

    fn ranged(&self) -> bool {
        true
    }
}

mod archive {
    backup_testkit::archive_conformance!(super::InMemory);
}

/// Several entries, some of them streams.
fn data(name: &str) -> MemorySource {
    let (entry, bytes) = sparse("sparse", &[(0, 4096), (65_536, 4096)], 1 << 20);
    MemorySource::new(name)
        .with_bytes(richly_attributed("rich").sized(3), "abc")
        .with(file("stream"), || chunked(300_000, 20_000, 1))
        .with_bytes(entry, bytes)
        .with_empty(directory("d", 0o755))
}

fn unreadable() -> Content {
    Content::failed(Error::new(ErrorKind::Denied, "open", "permission denied"))
}

struct Sources;

#[async_trait]
impl SourceFixture for Sources {
    async fn store(&self, setup: Setup) -> Option<Made> {
        let readable = match setup {
            Setup::Known | Setup::Unreadable => data("c"),
            Setup::Empty => MemorySource::new("c"),
            Setup::Big => (0..12u64).fold(MemorySource::new("c"), |source, i| {
                source.with(file(format!("big {i}")), move || chunked(1 << 20, 50_000, i))
            }),
        };
        let expected = Some(readable.contents().await);
        let source =
            if setup == Setup::Unreadable { readable.with(file("no"), unreadable) } else { readable };
        Some(Made { expected, ..Made::new(source, ()) })
    }
}

mod source {
    backup_testkit::source_conformance!(super::Sources);
}

struct SinkOfArchive;

#[async_trait]
impl SinkFixture for SinkOfArchive {
    async fn open(&self, cx: &Context) -> (std::sync::Arc<dyn Sink>, Box<dyn std::any::Any + Send + Sync>) {
        let writer = MemoryArchive::new().begin(header("s", &["c"]), cx).await.unwrap();
        (writer.component("c").unwrap(), Box::new(writer))
    }
}

mod sink_of_archive {
    backup_testkit::sink_conformance!(super::SinkOfArchive);
}

struct SinkOfTarget;

#[async_trait]
impl SinkFixture for SinkOfTarget {
    async fn open(&self, cx: &Context) -> (std::sync::Arc<dyn Sink>, Box<dyn std::any::Any + Send + Sync>) {
        let sink = MemoryStore::absent("x").target().prepare(cx).await.unwrap();
        (sink, Box::new(()))
    }
}

mod sink_of_target {
    backup_testkit::sink_conformance!(super::SinkOfTarget);
}

struct Targets;

#[async_trait]
impl TargetFixture for Targets {
    type Store = MemoryStore;

    async fn store(&self, old_data: bool) -> MemoryStore {
        match old_data {
            true => {
                MemoryStore::holding(&MemorySource::new("x").with_file("old", "old").with_file("rich", "old"))
                    .await
            }
            false => MemoryStore::absent("x"),
        }
    }

    async fn target(&self, store: &MemoryStore) -> Box<dyn Target> {
        Box::new(store.target())
    }

    fn recover(&self, store: &MemoryStore, undo: serde_json::Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(MemoryTarget::recover(store, &undo)?))
    }

    async fn fingerprint(&self, store: &MemoryStore) -> String {
        store.fingerprint()
    }

    fn new_data(&self) -> MemorySource {
        data("x")
    }

    async fn leftovers(&self, store: &MemoryStore) -> Vec<String> {
        store.leftovers()
    }
}

mod target {
    backup_testkit::target_conformance!(super::Targets);
}

struct Stores(MemoryBackend);

#[async_trait]
impl BackendFixture for Stores {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.0.clone())
    }

    async fn place(&self) -> Place {
        drop(self.0.clone().with("x", MemoryStore::holding(&data("x")).await));
        Place {
            config: serde_json::json!({ "store": "x" }),
            absent: serde_json::json!({ "store": "y" }),
            own_texts: vec!["memory:x".to_owned()],
            wrong_texts: vec!["memory:".to_owned()],
            kept: Box::new(()),
        }
    }
}

mod backend {
    backup_testkit::backend_conformance!(super::Stores(super::MemoryBackend::new()));
}
