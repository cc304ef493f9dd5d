//! Everything a sink was given, to be compared.

use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Facts, Kind, Part, Proof, Put, Result, Sha, Sink, Tally,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An entry with its content.
#[derive(Clone, Debug)]
pub struct Held {
    /// As it was put.
    pub entry: Entry,
    /// As it was delivered.
    pub chunks: Vec<Bytes>,
    /// Of the expanded content.
    pub sha256: Sha,
}

impl Held {
    /// Bytes that were delivered.
    pub fn delivered(&self) -> u64 {
        self.chunks.iter().map(|c| c.len() as u64).sum()
    }

    /// The content again.
    pub fn content(&self) -> Content {
        match &self.chunks[..] {
            [] => Content::empty(),
            [one] => Content::whole(one.clone()),
            chunks => {
                let parts: Vec<_> = chunks.iter().map(|b| Ok(Part::Bytes(b.clone()))).collect();
                Content::stream(stream::iter(parts).chain(stream::iter([Ok(Part::End(Facts::new()))])))
            }
        }
    }
}

/// Entries by path.
pub type Contents = BTreeMap<Bytes, Held>;

/// Where two stores differ, for people: paths, kinds, contents, stages, links and all attributes. Not the fingerprint, which
/// a store need not keep, and not a size that was unknown before.
pub fn differences(expected: &Contents, found: &Contents) -> Vec<String> {
    let mut out = Vec::new();
    for (path, want) in expected {
        let name = backup_core::display_path(path);
        let Some(have) = found.get(path) else {
            out.push(format!("{name}: is missing"));
            continue;
        };
        let (a, b) = (&want.entry, &have.entry);
        let mut unequal = |what: &str, a: &dyn fmt::Debug, b: &dyn fmt::Debug| {
            out.push(format!("{name}: {what} should be {a:?}, is {b:?}"));
        };
        if a.kind != b.kind {
            unequal("kind", &a.kind, &b.kind);
        }
        if a.stage != b.stage {
            unequal("stage", &a.stage, &b.stage);
        }
        if a.kind == Kind::File && want.sha256 != have.sha256 {
            unequal(
                "content",
                &(want.delivered(), hex::encode(want.sha256)),
                &(have.delivered(), hex::encode(have.sha256)),
            );
        }
        if a.size.is_some() && a.kind == Kind::File && a.size != b.size {
            unequal("size", &a.size, &b.size);
        }
        if a.link != b.link {
            unequal("link", &a.link, &b.link);
        }
        if a.posix != b.posix {
            unequal("attributes", &a.posix, &b.posix);
        }
        if a.store != b.store {
            unequal("attributes of the store", &a.store, &b.store);
        }
        if a.extents != b.extents {
            unequal("extents", &a.extents, &b.extents);
        }
    }
    let extra = found.keys().filter(|path| !expected.contains_key(*path));
    out.extend(extra.map(|path| format!("{}: is not expected", backup_core::display_path(path))));
    out
}

/// A digest of everything that `differences` compares.
pub(crate) fn fingerprint(contents: &Contents) -> String {
    let mut sha = Sha256::new();
    for (path, held) in contents {
        let e = &held.entry;
        sha.update((path.len() as u64).to_le_bytes());
        sha.update(path);
        sha.update(format!("{:?}{:?}{:?}{:?}{:?}{:?}", e.stage, e.kind, e.link, e.posix, e.store, e.extents));
        sha.update(held.sha256);
    }
    hex::encode(sha.finalize())
}

/// A sink that keeps everything.
#[derive(Clone, Default)]
pub struct ContentsSink(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    contents: Contents,
    tally: Tally,
    open: usize,
    finished: bool,
}

impl ContentsSink {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was taken so far.
    pub fn contents(&self) -> Contents {
        self.state().contents.clone()
    }

    /// Gives away what was taken.
    pub fn take(&self) -> Contents {
        std::mem::take(&mut self.state().contents)
    }

    /// Whether `finish` was called.
    pub fn is_finished(&self) -> bool {
        self.state().finished
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for ContentsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

struct Open<'a>(&'a ContentsSink);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

#[async_trait]
impl Sink for ContentsSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let _open = {
            let mut state = self.state();
            if state.finished {
                return Err(Error::contract("a put after the end").on(entry.display_path()));
            }
            state.open += 1;
            Open(self)
        };
        let mut content = content.hashed(&entry);
        let mut chunks = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(bytes)) => chunks.push(bytes),
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => return Ok(Put::Discarded(e.to_string().into())),
            }
        }
        let sha256 = content.digest().ok_or_else(|| Error::contract("a content without its digest"))?;
        let delivered = content.delivered();
        if let Some(promised) = entry.stored_size().filter(|n| *n != delivered) {
            return Ok(Put::Discarded(format!("it has {delivered} bytes, {promised} were promised").into()));
        }
        let mut state = self.state();
        if state.finished || state.contents.contains_key(&entry.path) {
            return Err(
                Error::contract("this path was put already, or all is finished").on(entry.display_path())
            );
        }
        state.tally.add(&entry, delivered, &sha256);
        state.contents.insert(entry.path.clone(), Held { entry, chunks, sha256 });
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        let mut state = self.state();
        if state.open > 0 {
            return Err(Error::contract("a finish while puts are open"));
        }
        state.finished = true;
        Ok(state.tally.facts())
    }
}
