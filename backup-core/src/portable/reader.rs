//! Opens a portable archive from its end: locator, manifest, then whatever is asked for, by ranges.

use super::{
    frames::Frames,
    index::{LARGEST_SHARD, Line},
    json_bound,
    layout::{Layout, OwnMember},
    locator::Locator,
    name,
    salvage::KeptLines,
    sidecar::LARGEST_MANIFEST,
    source::{self, ArchiveSource},
};
use crate::{
    BackupReader, BackupSummary, Content, Context, Depth, Entry, Error, ErrorKind, Kind, Listed, Manifest,
    Result, Selection, Source,
    destination::Blob,
    encryption::{EncryptedBlob, Identities, is_encrypted},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// An open backup. A clone is the same one.
#[derive(Clone)]
pub(super) struct PortableReader(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) frames: Arc<Frames>,
    pub(super) manifest: Manifest,
    pub(super) layout: Layout,
    /// Bytes of manifest.json.
    pub(super) manifest_length: u64,
    pub(super) encrypted: bool,
    /// Where it is, for people.
    pub(super) place: String,
    /// Of a damaged archive the lines of what is intact, instead of its shards.
    pub(super) salvaged: Option<KeptLines>,
}

impl PortableReader {
    pub(super) async fn open(blob: Arc<dyn Blob>, place: String, identities: &Identities) -> Result<Self> {
        let decrypted = async |blob: Arc<dyn Blob>| {
            let blob = Arc::new(EncryptedBlob::open(blob, identities).await?);
            Self::open_inner(blob, place.clone(), true).await
        };
        let opened = if name::is_encrypted(&place) {
            decrypted(blob).await
        } else {
            match Self::open_inner(blob.clone(), place.clone(), false).await {
                // It came through a pipe, or has lost its name.
                Err(e) if e.kind() == ErrorKind::Damaged && is_encrypted(&*blob).await.unwrap_or(false) => {
                    decrypted(blob).await
                }
                opened => opened,
            }
        };
        opened.map_err(|e| {
            if e.kind() != ErrorKind::Damaged {
                return e.on(place);
            }
            e.within(place).hint(
                "it is cut, damaged or another program's: restore from another copy; `restore --salvage` may read what is left",
            )
        })
    }

    pub(super) async fn open_inner(blob: Arc<dyn Blob>, place: String, encrypted: bool) -> Result<Self> {
        let frames = Arc::new(Frames::open(blob).await?);
        let locator = Locator::from_frame(&frames.last().await?)?;
        let mut header = Vec::new();
        super::own_member(super::MANIFEST, locator.length).encode(&mut header);
        let data = locator.offset.saturating_add(header.len() as u64);
        if frames.read(locator.offset, header.len() as u64, 1 << 16).await? != header {
            return Err(Error::damaged("read the manifest", "it is not where the locator says"));
        }
        let body = frames.read(data, locator.length, LARGEST_MANIFEST).await?;
        if <[u8; 32]>::from(Sha256::digest(&body)) != locator.sha256 {
            return Err(Error::damaged("read the manifest", "its digest is not the one in the locator"));
        }
        let manifest = check_manifest(&body)?;
        let layout = Layout::from_json(&manifest.layout)?;
        if layout.end != locator.offset || layout.compression != frames.compression {
            return Err(Error::damaged("read the manifest", "it does not describe this file"));
        }
        let end = data + crate::tar::padded(locator.length) + super::locator::FRAME as u64;
        if end != frames.bytes {
            return Err(Error::damaged("read the archive", "there is something after the manifest"));
        }
        Ok(PortableReader(Arc::new(Inner {
            frames,
            manifest,
            layout,
            manifest_length: locator.length,
            encrypted,
            place,
            salvaged: None,
        })))
    }
}

impl PortableReader {
    /// What a listing says of it; only the archive knows when it was verified or found damaged.
    pub(super) fn summary(&self, location: String, bytes: u64) -> BackupSummary {
        let summary = super::summary(&self.0.manifest, location, bytes, None);
        BackupSummary { encrypted: self.0.encrypted, ..summary }
    }
}

/// A stored manifest as every reader takes it; the writer asks, too, before it stores one.
pub(super) fn check_manifest(body: &[u8]) -> Result<Manifest> {
    if body.len() as u64 > LARGEST_MANIFEST || !json_bound::at_most(json_bound::MANIFEST_VALUES, body) {
        return Err(Error::damaged("read the manifest", "it has too many values"));
    }
    Manifest::from_json(body).map_err(|e| {
        let kind = match e {
            crate::ManifestError::Version { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Damaged,
        };
        Error::new(kind, "read the manifest", e)
    })
}

impl Inner {
    /// A member of the archive's own, compared with its digest.
    pub(super) async fn own(&self, member: &OwnMember, limit: u64) -> Result<Bytes> {
        let body = self.frames.read(member.place.data, member.place.length, limit).await;
        let body = body.map_err(|e| e.on(&member.name))?;
        if <[u8; 32]>::from(Sha256::digest(&body)) != member.sha256 {
            return Err(Error::damaged("read the index", "its digest is not the one in the manifest")
                .on(&member.name));
        }
        Ok(body)
    }

    /// All lines of the index, a shard at a time; decoded as they are taken.
    pub(super) fn lines(self: &Arc<Self>) -> BoxStream<'static, Result<Line>> {
        let me = self.clone();
        if let Some(kept) = &self.salvaged {
            let lines = move |piece| me.clone().shard_lines(piece, "salvaged".to_owned());
            return kept.pieces().map_ok(lines).try_flatten().boxed();
        }
        let shards: Vec<OwnMember> = self.layout.index_shards().cloned().collect();
        stream::iter(shards)
            .then(move |shard| {
                let me = me.clone();
                async move {
                    Ok::<_, Error>(me.clone().shard_lines(me.own(&shard, LARGEST_SHARD).await?, shard.name))
                }
            })
            .try_flatten()
            .boxed()
    }

    fn shard_lines(
        self: Arc<Self>,
        body: Bytes,
        shard: String,
    ) -> impl Stream<Item = Result<Line>> + Send + use<> {
        let mut left = body;
        let mut number = 0;
        let lines = std::iter::from_fn(move || {
            if left.is_empty() {
                return None;
            }
            number += 1;
            let Some(end) = left.iter().position(|b| *b == b'\n') else {
                left.clear();
                return Some(Err(Error::damaged("read the index", "its last line is cut").on(&shard)));
            };
            let line = left.split_to(end + 1);
            let line = Line::decode(&line[..end]).map_err(|e| e.on(format!("{shard} line {number}")));
            Some(line.and_then(|line| self.checked(line)))
        });
        stream::iter(lines)
    }

    /// A line that fits this archive.
    pub(super) fn checked(&self, line: Line) -> Result<Line> {
        if line.component as usize >= self.manifest.components.len() {
            return Err(Error::damaged("read the index", "it is of no component").on(self.display(&line)));
        }
        if line.places.iter().any(|p| p.end() > self.layout.end) {
            return Err(
                Error::damaged("read the index", "it is outside of the archive").on(self.display(&line))
            );
        }
        Ok(line)
    }

    /// Component and path, for people.
    pub(super) fn display(&self, line: &Line) -> String {
        match self.manifest.components.get(line.component as usize) {
            Some(c) => format!("{}/{}", c.header.name, line.entry.display_path()),
            None => line.entry.display_path(),
        }
    }

    pub(super) fn number(&self, component: &str) -> Result<u32> {
        let found = self.manifest.components.iter().position(|c| c.header.name == component);
        found.map(|n| n as u32).ok_or_else(|| {
            let names: Vec<&str> = self.manifest.components.iter().map(|c| c.header.name.as_str()).collect();
            Error::new(
                ErrorKind::NotFound,
                "find the component",
                format!("the backup has: {}", names.join(", ")),
            )
            .on(component)
        })
    }

    /// The live line of a path.
    pub(super) async fn find(self: &Arc<Self>, component: u32, path: &[u8]) -> Result<Option<Line>> {
        let mut lines = std::pin::pin!(self.lines());
        while let Some(line) = lines.next().await {
            let line = line?;
            if line.component == component && line.discarded.is_none() && line.entry.path == path {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl BackupReader for PortableReader {
    fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    fn component(&self, name: &str, selection: Selection) -> Result<Box<dyn Source>> {
        let number = self.0.number(name).map_err(|e| e.on(&self.0.place))?;
        Ok(Box::new(ArchiveSource::new(self.0.clone(), number, name, selection)))
    }

    fn entries(&self) -> BoxStream<'_, Result<Listed>> {
        let names: Vec<String> = self.0.manifest.components.iter().map(|c| c.header.name.clone()).collect();
        self.0
            .lines()
            .try_filter(|line| std::future::ready(line.discarded.is_none()))
            .map_ok(move |line| Listed {
                component: names.get(line.component as usize).cloned().unwrap_or_default(),
                sha256: line.sha256.map(hex::encode),
                entry: line.entry,
            })
            .boxed()
    }

    async fn content(&self, component: &str, path: &[u8], _cx: &Context) -> Result<(Entry, Content)> {
        let number = self.0.number(component)?;
        let missing = || {
            Error::new(ErrorKind::NotFound, "find the entry", "the backup has nothing of this path")
                .on(format!("{component}/{}", crate::display_path(path)))
        };
        let mut line = self.0.find(number, path).await?.ok_or_else(missing)?;
        if line.entry.kind == Kind::HardLink {
            let target = line.entry.link.clone().unwrap_or_default();
            line = self.0.find(number, &target).await?.ok_or_else(missing)?;
        }
        if line.entry.kind != Kind::File {
            return Err(Error::new(ErrorKind::Usage, "read the content", "it is not a file")
                .on(self.0.display(&line)));
        }
        source::expanded(&self.0, line).await
    }

    async fn check_structure(&self, depth: Depth, cx: &Context) -> Result<Vec<Error>> {
        if self.0.salvaged.is_some() {
            return super::check::lines_only(&self.0, cx).await;
        }
        super::check::check(&self.0, depth, cx).await
    }

    fn bytes_fetched(&self) -> u64 {
        self.0.frames.fetched()
    }
}
