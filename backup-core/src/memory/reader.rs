//! A backup that is being read from memory.

use super::{Member, Saved};
use crate::{
    BackupReader, Content, Context, Depth, Entry, Error, ErrorKind, Facts, Kind, Listed, Manifest, Moment,
    Part, Ready, Result, Selection, Sink, Source, Stage, Stillness, Tally, View, put_stage,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Holes are delivered in pieces of this size.
const ZEROS: &[u8] = &[0; 64 * 1024];

pub(super) struct Reader {
    saved: Arc<Saved>,
    fetched: Arc<AtomicU64>,
}

impl Reader {
    pub(super) fn new(saved: Arc<Saved>) -> Self {
        Reader { saved, fetched: Arc::default() }
    }

    fn members(&self, component: &str) -> Result<&Vec<Arc<Member>>> {
        self.saved.components.get(component).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "read the backup", "it has no such component").on(component)
        })
    }
}

#[async_trait]
impl BackupReader for Reader {
    fn manifest(&self) -> &Manifest {
        &self.saved.manifest
    }

    fn component(&self, name: &str, selection: Selection) -> Result<Box<dyn Source>> {
        let members = self.members(name)?;
        let found = self.saved.manifest.component(name);
        let pour = Pour {
            component: name.to_owned(),
            origin: found.map(|c| c.header.origin.clone()).unwrap_or_default(),
            moment: found.map_or_else(Moment::now, |c| c.moment),
            members: select(members, &selection),
            fetched: self.fetched.clone(),
        };
        Ok(Box::new(MemorySource(Arc::new(pour))))
    }

    fn entries(&self) -> BoxStream<'_, Result<Listed>> {
        let listed = self.saved.components.iter().flat_map(|(component, members)| {
            members.iter().map(move |m| {
                Ok(Listed {
                    component: component.clone(),
                    entry: m.entry.clone(),
                    sha256: (m.entry.kind == Kind::File).then(|| hex::encode(m.sha256)),
                })
            })
        });
        stream::iter(listed).boxed()
    }

    async fn content(&self, component: &str, path: &[u8], _cx: &Context) -> Result<(Entry, Content)> {
        let members = self.members(component)?;
        let find = |path: &[u8]| {
            members.iter().find(|m| m.entry.path == path).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "read the entry", "there is none of this path")
                    .on(crate::display_path(path))
            })
        };
        let mut member = find(path)?;
        if let (Kind::HardLink, Some(file)) = (member.entry.kind, &member.entry.link) {
            member = find(file)?;
        }
        // The holes are delivered as zeros, so to whoever reads it the entry is an ordinary file.
        let entry = Entry { extents: None, ..member.entry.clone() };
        Ok((entry, member.content(true, &self.fetched)))
    }

    async fn check_structure(&self, depth: Depth, cx: &Context) -> Result<Vec<Error>> {
        let mut defects = Vec::new();
        for component in &self.saved.manifest.components {
            let name = &component.header.name;
            let Ok(members) = self.members(name) else {
                defects.push(Error::damaged("find the component", "it is not there").on(name));
                continue;
            };
            let promised = component.proof.count("all", "entries");
            if promised != members.len() as u64 {
                let message = format!("it has {} entries, the manifest says {promised}", members.len());
                defects.push(Error::damaged("count the entries", message).on(name));
            }
            for member in members.iter().filter(|_| depth == Depth::Full) {
                let token = &cx.cancel;
                let mut content =
                    member.content(false, &self.fetched).watched(&member.entry, token, &Arc::default());
                loop {
                    match content.next().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                        Err(e) => {
                            defects.push(e.on(format!("{name}/{}", member.entry.display_path())));
                            break;
                        }
                    }
                }
            }
        }
        Ok(defects)
    }

    fn bytes_fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }
}

/// What is covered, and the directories above it.
fn select(members: &[Arc<Member>], selection: &Selection) -> Vec<Arc<Member>> {
    let covered: Vec<&Arc<Member>> = members.iter().filter(|m| selection.covers(&m.entry.path)).collect();
    if selection.is_all() {
        return covered.into_iter().cloned().collect();
    }
    let mut above = std::collections::HashSet::new();
    for member in &covered {
        let path = &member.entry.path;
        above.insert(&path[..0]);
        above.extend(path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| &path[..i]));
    }
    let wanted = |m: &&Arc<Member>| {
        selection.covers(&m.entry.path)
            || (m.entry.kind == Kind::Directory && above.contains(&m.entry.path[..]))
    };
    members.iter().filter(wanted).cloned().collect()
}

impl Member {
    /// The content, held to the digest under which it was stored.
    fn content(self: &Arc<Self>, expanded: bool, fetched: &Arc<AtomicU64>) -> Content {
        let entry = if expanded { Entry { extents: None, ..self.entry.clone() } } else { self.entry.clone() };
        if self.chunks.len() < 2 && self.entry.extents.is_none() && self.facts.is_empty() {
            let bytes = self.chunks.first().cloned().unwrap_or_default();
            fetched.fetch_add(bytes.len() as u64, Relaxed);
            return Content::whole(bytes).expecting(self.sha256, &entry);
        }
        let (member, fetched) = (self.clone(), fetched.clone());
        let chunks = stream::iter(0..member.chunks.len()).map(move |i| {
            let chunk = member.chunks[i].clone();
            fetched.fetch_add(chunk.len() as u64, Relaxed);
            chunk
        });
        let chunks = match (&self.entry.extents, expanded) {
            (Some(_), true) => expand(self.clone(), chunks.boxed()),
            _ => chunks.boxed(),
        };
        let end = stream::iter([Ok(Part::End(self.facts.clone()))]);
        Content::stream(chunks.map(|b| Ok(Part::Bytes(b))).chain(end)).expecting(self.sha256, &entry)
    }
}

/// Fills the holes of a sparse file.
fn expand(member: Arc<Member>, chunks: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
    struct At {
        member: Arc<Member>,
        chunks: BoxStream<'static, Bytes>,
        rest: Bytes,
        position: u64,
        extent: usize,
    }
    let at = At { member, chunks, rest: Bytes::new(), position: 0, extent: 0 };
    stream::unfold(at, |mut at| async move {
        loop {
            let extents = at.member.entry.extents.clone().unwrap_or_default();
            let extent = extents.get(at.extent).copied();
            let data_at = extent.map_or(at.member.entry.size.unwrap_or(0), |e| e.offset);
            if at.position < data_at {
                let n = (data_at - at.position).min(ZEROS.len() as u64);
                at.position += n;
                return Some((Bytes::from_static(&ZEROS[..n as usize]), at));
            }
            let extent = extent?;
            let left = extent.offset + extent.length - at.position;
            if left == 0 {
                at.extent += 1;
                continue;
            }
            if at.rest.is_empty() {
                at.rest = at.chunks.next().await?;
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(at.rest.len());
            at.position += n as u64;
            return Some((at.rest.split_to(n), at));
        }
    })
    .boxed()
}

/// What is poured of one component.
struct Pour {
    component: String,
    origin: serde_json::Value,
    moment: Moment,
    members: Vec<Arc<Member>>,
    fetched: Arc<AtomicU64>,
}

struct MemorySource(Arc<Pour>);
struct MemoryView(Arc<Pour>);

impl fmt::Display for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory, component {}", self.0.component)
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn connect(&self, _cx: &Context) -> Result<Box<dyn Ready>> {
        Ok(Box::new(MemoryView(self.0.clone())))
    }

    fn origin(&self) -> serde_json::Value {
        self.0.origin.clone()
    }
}

#[async_trait]
impl Ready for MemoryView {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        Some(self.0.members.iter().map(|m| m.stored()).sum())
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        Ok(self)
    }
}

#[async_trait]
impl View for MemoryView {
    fn moment(&self) -> Moment {
        self.0.moment
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        let (mut tally, mut counted) = (Tally::default(), Facts::new());
        for member in &self.0.members {
            tally.add(
                &member.entry,
                member.entry.stored_size().unwrap_or_else(|| member.stored()),
                &member.sha256,
            );
            counted.add_missing(member.facts.clone());
        }
        for stage in [Stage::Prepare, Stage::Data, Stage::Complete] {
            let members: Vec<_> = self.0.members.iter().filter(|m| m.entry.stage == stage).cloned().collect();
            let fetched = self.0.fetched.clone();
            let items = members.into_iter().map(move |m| Ok((m.entry.clone(), m.content(false, &fetched))));
            put_stage(&sink, cx, stream::iter(items)).await?;
        }
        let mut facts = tally.facts();
        facts.add_missing(counted);
        Ok(facts)
    }
}
