//! The rules of the contracts, run against files.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use async_trait::async_trait;
use backup_core::{Backend, Context, Result, Sink, Source, Target};
use backup_files::{FilesBackend, FilesConfig};
use backup_testkit::{
    conformance::{
        backend::{BackendFixture, Place},
        sink::SinkFixture,
        source::{Made, Setup, SourceFixture},
        target::TargetFixture,
    },
    make::{directory, file, noise, streamed},
    memory::MemorySource,
};
use serde_json::Value;
use std::{any::Any, fmt, process::Command, sync::Arc};
use tempfile::TempDir;

struct Files;

/// A source made by the backend, as something that the suite can own.
struct Boxed(Box<dyn Source>);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl Source for Boxed {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn backup_core::Ready>> {
        self.0.connect(cx).await
    }

    fn origin(&self) -> Value {
        self.0.origin()
    }
}

#[async_trait]
impl SourceFixture for Files {
    async fn store(&self, setup: Setup) -> Option<Made> {
        let dir = tempfile::tempdir().unwrap();
        match setup {
            Setup::Empty => {}
            Setup::Known => common::rich_tree(dir.path()),
            Setup::Big => {
                for n in 0..12 {
                    std::fs::write(dir.path().join(format!("{n}")), noise(1_500_000, n)).unwrap();
                }
            }
            // Root reads everything: tests/unreadable.rs does it as another user.
            Setup::Unreadable => return None,
        }
        let config = FilesConfig::new(dir.path());
        let mut made = Made::new(Boxed(common::source(&config)), ());
        let log = dir.path().join("growing.log");
        if setup == Setup::Big {
            made.disturb = Some(Box::new(move || std::fs::write(&log, "a line\n").unwrap()));
        }
        made.kept = Box::new(dir);
        Some(made)
    }
}

#[async_trait]
impl SinkFixture for Files {
    async fn open(&self, cx: &Context) -> (Arc<dyn Sink>, Box<dyn Any + Send + Sync>) {
        let dir = tempfile::tempdir().unwrap();
        let mut target = common::target(&FilesConfig::new(dir.path().join("data")));
        let sink = target.prepare(cx).await.unwrap();
        (sink, Box::new(dir))
    }
}

/// Contents of several mebibytes, which are written while they come.
struct LargeFiles;

#[async_trait]
impl SinkFixture for LargeFiles {
    async fn open(&self, cx: &Context) -> (Arc<dyn Sink>, Box<dyn Any + Send + Sync>) {
        Files.open(cx).await
    }

    fn content(&self, n: usize) -> backup_core::Content {
        backup_testkit::make::chunked(3_000_000, 500_000, n as u64)
    }
}

#[async_trait]
impl TargetFixture for Files {
    type Store = TempDir;

    async fn store(&self, old_data: bool) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        if old_data {
            let data = dir.path().join("data");
            std::fs::create_dir(&data).unwrap();
            std::fs::create_dir(data.join("sub")).unwrap();
            std::fs::write(data.join("sub/old"), "old").unwrap();
            std::fs::write(data.join("same"), "old").unwrap();
        }
        dir
    }

    async fn target(&self, store: &TempDir) -> Box<dyn Target> {
        common::target(&FilesConfig::new(store.path().join("data")))
    }

    fn recover(&self, _: &TempDir, undo: Value) -> Result<Box<dyn Target>> {
        FilesBackend.recover(undo)
    }

    async fn fingerprint(&self, store: &TempDir) -> String {
        let list = "find data -printf '%P %y %m %U %G %l %s\\n' 2>/dev/null | sed 's/ d \\(.*\\) [0-9]*$/ d \\1/' | sort;
            find data -type f -print0 2>/dev/null | sort -z | xargs -0r sha256sum; true";
        let out = Command::new("sh").args(["-c", list]).current_dir(store.path()).output().unwrap();
        assert!(out.status.success());
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn new_data(&self) -> MemorySource {
        let mut source = MemorySource::new("c").with_file("same", "new").with_file("sub/new", "new");
        let big = noise(2_500_000, 1);
        source = source.with(file("sub/stream"), move || streamed(big.clone(), 100_000));
        source.with_empty(directory("sub", 0o750)).with_empty(directory("", 0o755))
    }

    async fn leftovers(&self, store: &TempDir) -> Vec<String> {
        let names = std::fs::read_dir(store.path()).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.to_string_lossy().into_owned()).filter(|n| n != "data").collect()
    }
}

#[async_trait]
impl BackendFixture for Files {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(FilesBackend)
    }

    async fn place(&self) -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let text = dir.path().to_str().unwrap().to_owned();
        Place {
            config: FilesConfig::new(dir.path()).to_value(),
            absent: FilesConfig::new(dir.path().join("absent")).to_value(),
            own_texts: vec![text, "./here".into(), "C:\\x".into()],
            wrong_texts: vec![String::new()],
            kept: Box::new(dir),
        }
    }
}

mod source {
    backup_testkit::source_conformance!(super::Files);
}
mod sink {
    backup_testkit::sink_conformance!(super::Files);
}
mod sink_of_large_files {
    backup_testkit::sink_conformance!(super::LargeFiles);
}
mod target {
    backup_testkit::target_conformance!(super::Files);
}
mod backend {
    backup_testkit::backend_conformance!(super::Files);
}
