//! The reference in memory keeps every promise.

use async_trait::async_trait;
use backup_core::{BackupId, MemoryArchive};
use backup_testkit::conformance::archive::{ArchiveFixture, Fresh, Raw};
use futures::{FutureExt, StreamExt};

/// The stored contents of an archive in memory, as pieces `id/component/path`.
struct RawMemory(MemoryArchive);

impl Raw for RawMemory {
    fn pieces(&self) -> Vec<(String, u64)> {
        use backup_core::Archive;
        let cx = backup_core::Context::default();
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

    fn ranged(&self) -> bool {
        true
    }
}

mod archive {
    backup_testkit::archive_conformance!(super::InMemory);
}
