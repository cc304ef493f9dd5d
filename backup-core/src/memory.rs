//! An archive in memory: for tests, for embedders who hand the bytes on themselves, and as the reference of what an archive
//! promises. It holds all contents, so its memory grows with the data: the one archive that may.

mod lock;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::{
    Archive, BackupHeader, BackupId, BackupReader, BackupSummary, BackupWriter, Context, Entry, Error,
    ErrorKind, Facts, Manifest, Result, RunLock, Series, Sha, State, is_component_name,
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// An archive that lives as long as its last clone. A clone is the same archive.
#[derive(Clone, Default)]
pub struct MemoryArchive(Arc<Shared>);

#[derive(Default)]
struct Shared {
    backups: Mutex<BTreeMap<BackupId, Slot>>,
    locks: Mutex<HashMap<Series, Arc<lock::Line>>>,
}

enum Slot {
    /// Being written, or left by a run whose writer is gone.
    Incomplete { header: BackupHeader, writer: Weak<()> },
    /// Has its manifest.
    Saved { saved: Arc<Saved>, verified: Option<Timestamp>, damaged: Option<Timestamp> },
}

/// A backup at rest.
#[derive(Clone)]
struct Saved {
    manifest: Manifest,
    /// Members by component, in the order of their stages.
    components: BTreeMap<String, Vec<Arc<Member>>>,
}

/// An entry at rest.
#[derive(Clone)]
struct Member {
    entry: Entry,
    chunks: Vec<Bytes>,
    sha256: Sha,
    facts: Facts,
}

impl Member {
    fn stored(&self) -> u64 {
        self.chunks.iter().map(|c| c.len() as u64).sum()
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(id: &BackupId) -> Error {
    Error::new(ErrorKind::NotFound, "find the backup", "there is none of this id").on(id)
}

impl MemoryArchive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the stored bytes of one entry behind the archive's back: what a failing disk does. To test what a program does
    /// with a damaged backup.
    pub fn tamper(
        &self,
        id: &BackupId,
        component: &str,
        path: &[u8],
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        let mut backups = hold(&self.0.backups);
        let Some(Slot::Saved { saved, .. }) = backups.get_mut(id) else { return Err(not_found(id)) };
        let member = Arc::make_mut(saved)
            .components
            .get_mut(component)
            .and_then(|members| members.iter_mut().find(|m| m.entry.path == path))
            .ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "find the entry", "there is none of this path")
                    .on(crate::display_path(path))
            })?;
        let member = Arc::make_mut(member);
        let mut bytes = member.chunks.concat();
        change(&mut bytes);
        member.chunks = vec![bytes.into()];
        Ok(())
    }

    /// Removes what runs left whose writer is gone, where `of_series` says so.
    fn clear(&self, of_series: impl Fn(&Series) -> bool) -> Vec<String> {
        let mut removed = Vec::new();
        hold(&self.0.backups).retain(|id, slot| match slot {
            Slot::Incomplete { header, writer }
                if writer.strong_count() == 0 && of_series(&header.series) =>
            {
                removed.push(format!("the incomplete backup {id} of {}", header.module));
                false
            }
            _ => true,
        });
        removed
    }
}

impl fmt::Display for MemoryArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemoryArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryArchive({} backups)", hold(&self.0.backups).len())
    }
}

#[async_trait]
impl Archive for MemoryArchive {
    async fn preflight(&self, _estimate: Option<u64>, _cx: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn lock(&self, series: &Series, wait: Duration, cx: &Context) -> Result<Box<dyn RunLock>> {
        let line = hold(&self.0.locks).entry(series.clone()).or_default().clone();
        let lock = lock::take(line, series, wait, cx).await?;
        self.clear(|s| s == series);
        Ok(Box::new(lock))
    }

    async fn begin(&self, header: BackupHeader, _cx: &Context) -> Result<Box<dyn BackupWriter>> {
        for (i, component) in header.components.iter().enumerate() {
            let twice = header.components[..i].iter().any(|other| other.name == component.name);
            if twice || !is_component_name(&component.name) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "begin a backup",
                    if twice { "this component is named twice" } else { "this is no name of a component" },
                )
                .on(&component.name));
            }
        }
        let (writer, alive) = writer::Writer::new(self.clone(), header.clone());
        let mut backups = hold(&self.0.backups);
        if backups.contains_key(&header.id) {
            return Err(
                Error::new(ErrorKind::Refused, "begin a backup", "its id is taken already").on(&header.id)
            );
        }
        backups.insert(header.id.clone(), Slot::Incomplete { header, writer: alive });
        Ok(Box::new(writer))
    }

    async fn open(&self, id: &BackupId, _cx: &Context) -> Result<Arc<dyn BackupReader>> {
        match hold(&self.0.backups).get(id) {
            Some(Slot::Saved { saved, .. }) => Ok(Arc::new(reader::Reader::new(saved.clone()))),
            Some(Slot::Incomplete { .. }) => {
                Err(Error::new(ErrorKind::Refused, "open the backup", "it is incomplete").on(id))
            }
            None => Err(not_found(id)),
        }
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<BackupSummary>> {
        let mut list: Vec<_> = hold(&self.0.backups).iter().map(|(id, slot)| summary(id, slot)).collect();
        list.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(list)
    }

    async fn remove(&self, ids: &[BackupId], _cx: &Context) -> Result<()> {
        let mut backups = hold(&self.0.backups);
        for id in ids {
            match backups.get(id) {
                None => return Err(not_found(id)),
                Some(Slot::Incomplete { writer, .. }) if writer.strong_count() > 0 => {
                    return Err(
                        Error::new(ErrorKind::Refused, "remove the backup", "it is being written").on(id)
                    );
                }
                Some(_) => {}
            }
        }
        for id in ids {
            backups.remove(id);
        }
        Ok(())
    }

    async fn mark_verified(&self, id: &BackupId, at: Timestamp, _cx: &Context) -> Result<()> {
        match hold(&self.0.backups).get_mut(id) {
            Some(Slot::Saved { verified, damaged, .. }) => {
                (*verified, *damaged) = (Some(at), None);
                Ok(())
            }
            _ => Err(not_found(id)),
        }
    }

    async fn mark_damaged(&self, id: &BackupId, at: Timestamp, _cx: &Context) -> Result<()> {
        match hold(&self.0.backups).get_mut(id) {
            Some(Slot::Saved { verified, damaged, .. }) => {
                (*verified, *damaged) = (None, Some(at));
                Ok(())
            }
            _ => Err(not_found(id)),
        }
    }

    async fn heal(&self, _cx: &Context) -> Result<Vec<String>> {
        let running: Vec<Series> =
            hold(&self.0.locks).iter().filter(|(_, line)| line.is_held()).map(|(s, _)| s.clone()).collect();
        Ok(self.clear(|series| !running.contains(series)))
    }
}

fn summary(id: &BackupId, slot: &Slot) -> BackupSummary {
    match slot {
        Slot::Incomplete { header, .. } => BackupSummary {
            id: id.clone(),
            module: header.module.clone(),
            series: Series(String::new()),
            created: header.created,
            state: State::Incomplete,
            location: location(id),
            stored_bytes: 0,
            data_bytes: 0,
            entries: 0,
            components: header.components.iter().map(|c| c.name.clone()).collect(),
            verified: None,
            damaged: None,
            tags: header.tags.clone(),
            note: header.note.clone(),
            encrypted: false,
            was: None,
        },
        Slot::Saved { saved, verified, damaged } => saved.summary(*verified, *damaged),
    }
}

fn location(id: &BackupId) -> String {
    format!("memory:{id}")
}

impl Saved {
    fn summary(&self, verified: Option<Timestamp>, damaged: Option<Timestamp>) -> BackupSummary {
        let Manifest { header, .. } = &self.manifest;
        BackupSummary {
            id: header.id.clone(),
            module: header.module.clone(),
            series: header.series.clone(),
            created: header.created,
            state: self.manifest.state,
            location: location(&header.id),
            stored_bytes: self.components.values().flatten().map(|m| m.stored()).sum(),
            data_bytes: self.manifest.data_bytes(),
            entries: self.manifest.entries(),
            components: self.manifest.components.iter().map(|c| c.header.name.clone()).collect(),
            verified,
            damaged,
            tags: header.tags.clone(),
            note: header.note.clone(),
            encrypted: false,
            was: None,
        }
    }
}
