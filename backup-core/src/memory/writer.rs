//! A backup that is being written into memory.

use super::{Member, MemoryArchive, Saved, Slot, hold};
use crate::{
    BackupHeader, BackupSummary, BackupWriter, Component, Conclusion, Content, Context, Entry, Error,
    ErrorKind, Kind, Manifest, Poured, Proof, Put, Result, Sink, Tally,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, Weak},
};

/// Chunks below this are copied: a slice of a few bytes would keep the whole buffer that it was cut from.
const COPIED_BELOW: usize = 16 * 1024;

pub(super) struct Writer {
    archive: MemoryArchive,
    header: BackupHeader,
    sinks: BTreeMap<String, Arc<MemorySink>>,
    taken: Mutex<HashSet<String>>,
    /// The run lives as long as this; what it leaves is cleared afterwards.
    _alive: Arc<()>,
}

impl Writer {
    pub(super) fn new(archive: MemoryArchive, header: BackupHeader) -> (Self, Weak<()>) {
        let alive = Arc::new(());
        let weak = Arc::downgrade(&alive);
        let sinks = header
            .components
            .iter()
            .map(|c| {
                (c.name.clone(), Arc::new(MemorySink { component: c.name.clone(), state: Mutex::default() }))
            })
            .collect();
        (Writer { archive, header, sinks, taken: Mutex::default(), _alive: alive }, weak)
    }

    /// Later puts are errors; what was put is given away.
    fn close(&self) -> BTreeMap<String, Vec<Arc<Member>>> {
        self.sinks
            .iter()
            .map(|(name, sink)| {
                let mut state = hold(&sink.state);
                state.closed = true;
                (name.clone(), std::mem::take(&mut state.members))
            })
            .collect()
    }

    fn judge(&self, conclusion: &Conclusion) -> Result<()> {
        let poured = &conclusion.poured;
        let refuse = |name: &str, why: &str| {
            Err(Error::new(ErrorKind::Contract, "commit the backup", why.to_owned()).on(name))
        };
        for (name, sink) in &self.sinks {
            if hold(&sink.state).proof.is_none() {
                return refuse(name, "this component is not finished");
            }
            if poured.iter().filter(|p| p.component == *name).count() != 1 {
                return refuse(name, "one result of pouring this component is needed");
            }
        }
        if !conclusion.state.is_readable() {
            return refuse(&self.header.module, "a conclusion cannot be incomplete");
        }
        match poured.iter().find(|p| !self.sinks.contains_key(&p.component)) {
            Some(p) => refuse(&p.component, "the backup has no such component"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl BackupWriter for Writer {
    fn component(&self, name: &str) -> Result<Arc<dyn Sink>> {
        let Some(sink) = self.sinks.get(name) else {
            return Err(Error::contract("the header names no such component").on(name));
        };
        if !hold(&self.taken).insert(name.to_owned()) {
            return Err(Error::contract("its sink was asked for already").on(name));
        }
        Ok(sink.clone())
    }

    async fn commit(self: Box<Self>, conclusion: Conclusion, _cx: &Context) -> Result<BackupSummary> {
        let judged = self.judge(&conclusion);
        let components = self.close();
        let mut backups = hold(&self.archive.0.backups);
        if let Err(e) = judged {
            backups.remove(&self.header.id);
            return Err(e);
        }
        let Conclusion { poured, notes, state, not_included, finished } = conclusion;
        let mut poured: BTreeMap<String, Poured> =
            poured.into_iter().map(|p| (p.component.clone(), p)).collect();
        let manifest = Manifest {
            finished,
            state,
            components: self
                .header
                .components
                .iter()
                .filter_map(|header| {
                    let p = poured.remove(&header.name)?;
                    Some(Component { header: header.clone(), moment: p.moment, proof: p.proof, lost: p.lost })
                })
                .collect(),
            header: self.header.clone(),
            notes,
            not_included,
            layout: serde_json::Value::Null,
        };
        let saved = Arc::new(Saved { manifest, components });
        let summary = saved.summary(None, None);
        backups.insert(self.header.id.clone(), Slot::Saved { saved, verified: None, damaged: None });
        Ok(summary)
    }

    async fn abort(self: Box<Self>, _cx: &Context) -> Result<()> {
        self.close();
        hold(&self.archive.0.backups).remove(&self.header.id);
        Ok(())
    }
}

struct MemorySink {
    component: String,
    state: Mutex<SinkState>,
}

#[derive(Default)]
struct SinkState {
    members: Vec<Arc<Member>>,
    paths: HashSet<Bytes>,
    tally: Tally,
    open: usize,
    proof: Option<Proof>,
    closed: bool,
}

/// Counts an open put, also when it is dropped.
struct Open<'a>(&'a MemorySink);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        hold(&self.0.state).open -= 1;
    }
}

impl MemorySink {
    fn enter(&self, entry: &Entry) -> Result<Open<'_>> {
        let mut state = hold(&self.state);
        if state.closed || state.proof.is_some() {
            return Err(Error::contract("a put after the sink was finished").on(entry.display_path()));
        }
        if state.paths.contains(&entry.path) {
            return Err(Error::contract("this path was put already").on(entry.display_path()));
        }
        state.open += 1;
        Ok(Open(self))
    }
}

impl fmt::Display for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory, component {}", self.component)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn put(&self, mut entry: Entry, content: Content) -> Result<Put> {
        let _open = self.enter(&entry)?;
        let mut content = content.hashed(&entry);
        let mut chunks = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(b)) if b.len() < COPIED_BELOW => chunks.push(Bytes::copy_from_slice(&b)),
                Ok(Some(b)) => chunks.push(b),
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => return Ok(Put::Discarded(e.to_string().into())),
            }
        }
        let delivered = content.delivered();
        if let Some(promised) = entry.stored_size().filter(|n| *n != delivered) {
            return Ok(Put::Discarded(format!("it has {delivered} bytes, {promised} were promised").into()));
        }
        let sha256 = content.digest().ok_or_else(|| Error::contract("a content without its digest"))?;
        let facts = content.facts().cloned().unwrap_or_default();
        if entry.kind == Kind::File && entry.extents.is_none() {
            entry.size = Some(delivered);
        }
        let mut state = hold(&self.state);
        if state.closed || state.proof.is_some() || !state.paths.insert(entry.path.clone()) {
            return Err(Error::contract("the sink was finished, or the same path put, meanwhile")
                .on(entry.display_path()));
        }
        state.tally.add(&entry, delivered, &sha256);
        state.members.push(Arc::new(Member { entry, chunks, sha256, facts }));
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        let mut state = hold(&self.state);
        if state.closed || state.open > 0 {
            return Err(Error::contract("a finish while puts are open, or after the end").on(&self.component));
        }
        // Whoever is killed between two stages of a pour is put again: the order of arrival alone is not the order of stages.
        state.members.sort_by_key(|m| m.entry.stage);
        let proof = state.tally.facts();
        state.proof = Some(proof.clone());
        Ok(proof)
    }
}
