//! What is intact of a damaged archive, as a backup that can be read: everything is read once, and only what is whole is kept.
//!
//! Frames are found by the seek table, or one after another where there is none; of one that is damaged the beginning is read. Lines of
//! the index are taken from the shards that can be read, and their contents compared with their digests. Members that no line knows
//! (their shard is gone) are taken from their headers, if they can be read to their end; there is no digest to compare them with. What is
//! missing is noted as lost.

mod holes;
mod kept;
mod scan;
mod walk;

pub(super) use holes::Holes;
pub(super) use kept::KeptLines;

use super::{
    Compression, MANIFEST,
    check::alive,
    convoy::Seat,
    frames::Frames,
    index::{LARGEST_SHARD, Line, Place},
    layout::Layout,
    locator,
    member_entry::entry_of,
    reader::{Inner, PortableReader},
    source,
};
use crate::{
    BackupHeader, Component, ComponentHeader, Content, Context, Error, ErrorKind, Event, Facts, Kind,
    Manifest, Moment, Phase, Result, Series, Severity, Sha, State, Tally,
    destination::Blob,
    display_path,
    encryption::{CHUNK, EncryptedBlob, Identities, is_encrypted},
    is_component_name, is_entry_path,
    tar::Member,
};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use kept::Keeper;
use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};
use walk::{Found, Walk};

/// Bytes of metadata.json that are believed.
const LARGEST_METADATA: u64 = 16 << 20;

/// What is kept beside the archive.
#[derive(Default)]
pub(super) struct Beside {
    /// A copy of its manifest.
    pub(super) manifest: Option<Manifest>,
    /// Of an encrypted one: how long it was when it was written.
    pub(super) bytes: Option<u64>,
}

/// Opens what is intact. What is lost is noted in `cx`, and in the manifest of
/// what comes back, which is partial then. Nothing lost: the backup as it is.
pub(super) async fn open(
    blob: Arc<dyn Blob>,
    place: String,
    identities: &Identities,
    beside: Beside,
    cx: &Context,
) -> Result<PortableReader> {
    cx.emit(&Event::Phase { phase: Phase::ReadBack });
    let blob = Holes::on_disk(blob).await.map_err(|e| e.on(&place))?;
    let encrypted = is_encrypted(&*blob).await?;
    let holes = match encrypted {
        true => Holes::of(
            Arc::new(match EncryptedBlob::open(blob.clone(), identities).await {
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    let text = what_is_lost(blob.bytes(), beside.bytes);
                    let cut = EncryptedBlob::open_cut(blob, identities).await.map_err(|e| e.on(&place))?;
                    cx.note(Severity::Lost, "", &place, text);
                    cut
                }
                opened => opened.map_err(|e| e.on(&place))?,
            }),
            CHUNK,
        ),
        false => blob,
    };
    let whole = match PortableReader::open_inner(holes.clone(), place.clone(), encrypted).await {
        Ok(reader) => Some(reader),
        Err(e) if e.kind() == ErrorKind::Damaged => None,
        Err(e) => return Err(e),
    };
    let manifest_is_whole = whole.is_some();
    let (frames, manifest) = match whole {
        Some(reader) => (Arc::new(reader.0.frames.for_salvage(holes)), Some(reader.0.manifest.clone())),
        None => (Arc::new(find_frames(holes, &place, cx).await?), beside.manifest),
    };
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => from_metadata(&frames, &place, cx).await?,
    };
    let layout = Layout::from_json(&manifest.layout).unwrap_or_default();
    let archive = Arc::new(Inner {
        layout: Layout { end: frames.bytes, compression: frames.compression, ..layout },
        frames,
        manifest_length: 0,
        encrypted,
        place,
        salvaged: None,
        manifest,
    });
    let mut salvage = Salvage::new(archive, cx)?;
    let missing = salvage.take_shards().await?;
    if missing || !manifest_is_whole {
        salvage.take_members().await?;
    }
    salvage.finish(manifest_is_whole && !missing).await
}

/// What is wrong with an encrypted file whose end is not its end: the encryption itself cannot tell a cut from other damage.
fn what_is_lost(there: u64, written: Option<u64>) -> &'static str {
    match written {
        Some(written) if there < written => "the encrypted file has lost its end, and what was in it",
        Some(written) if there == written => {
            "the end of the encrypted file is damaged: what was in it is lost"
        }
        _ => "the encrypted file has lost its end, or is damaged there: what was in it is lost",
    }
}

/// The frames of an archive that has no end. What it begins with tells its compression, or what is left of its table.
async fn find_frames(blob: Arc<Holes>, place: &str, cx: &Context) -> Result<Frames> {
    let first = blob.read_at(0, blob.bytes().min(512) as usize).await?;
    let tail = blob.bytes().min(64);
    let tail = blob.read_at(blob.bytes() - tail, tail as usize).await?;
    for compression in Compression::ALL {
        let Some(codec) = compression.codec() else { continue };
        let has_table = codec.table_length(&tail).is_some();
        if has_table && let Ok(frames) = Frames::open(blob.clone()).await {
            return Ok(frames.for_salvage(blob));
        }
        let rest = first.strip_prefix(codec.head());
        if has_table || rest.is_some_and(|rest| codec.find_frame(rest) == Some(0)) {
            let (frames, cut) = scan::frames(blob.clone(), codec, cx).await?;
            if cut {
                let text = "it was cut within a frame, whose checksum stood at its end: damage before the cut may be unnoticed there";
                cx.note(Severity::Warning, "", place, text);
            }
            return Ok(Frames::found(blob, compression, frames));
        }
    }
    if first.get(257..262) == Some(b"ustar") {
        return Ok(Frames::found(blob, Compression::None, Vec::new()));
    }
    Err(Error::damaged("salvage the archive", "it begins like no archive of ours").on(place))
}

/// What the first member says, where there is no manifest.
async fn from_metadata(frames: &Arc<Frames>, place: &str, cx: &Context) -> Result<Manifest> {
    let bad = |why: &str| {
        let text = format!("there is no manifest, and metadata.json {why}: nothing says what the backup was");
        Error::damaged("salvage the archive", text).on(place)
    };
    let head = frames.small(0, 512.min(frames.bytes), None).await.map_err(|_| bad("cannot be read"))?;
    let member = Member::decode(&head).ok().flatten().filter(|(m, _)| m.path == b"metadata.json");
    let (member, headers) = member.ok_or_else(|| bad("is not there"))?;
    let body = frames.read(headers as u64, member.size, LARGEST_METADATA).await;
    let body = body.map_err(|_| bad("cannot be read"))?;
    let header = header_of(&body).ok_or_else(|| bad("is not as it should be"))?;
    if frames.met_damage(0, headers as u64 + member.size) {
        let text = "it stands in a part that is damaged: names and dates of the backup may be wrong";
        cx.note(Severity::Warning, "", "metadata.json", text);
    }
    let component = |header: &ComponentHeader| Component {
        header: header.clone(),
        moment: Moment { first: Timestamp::UNIX_EPOCH, last: Timestamp::UNIX_EPOCH },
        proof: Facts::new(),
        lost: 0,
    };
    Ok(Manifest {
        finished: header.created,
        state: State::Partial,
        components: header.components.iter().map(component).collect(),
        header,
        notes: crate::Notes::default(),
        not_included: Vec::new(),
        layout: serde_json::Value::Null,
    })
}

fn header_of(metadata: &[u8]) -> Option<BackupHeader> {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_slice(metadata).ok()?;
    let mut text = |key: &str| all.remove(key).and_then(|v| v.as_str().map(str::to_owned));
    let (id, module, series) = (text("id")?.parse().ok()?, text("moduleId")?, Series(text("series")?));
    let (created, host, note) = (text("createdAt")?.parse().ok()?, text("host")?, text("notes"));
    let component = |value: &serde_json::Value| {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let (name, kind, folder) = (text("name")?, text("kind")?, text("folder")?);
        let origin = value.get("origin").cloned().unwrap_or_default();
        let named = is_component_name(&name) && is_component_name(&folder);
        named.then_some(ComponentHeader { name, kind, folder, origin })
    };
    let components: Option<Vec<_>> = all.remove("components")?.as_array()?.iter().map(component).collect();
    let tags = all.remove("tags").and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
    all.remove("format");
    let components = components?;
    Some(BackupHeader { id, module, series, created, host, components, metadata: all, tags, note })
}

/// In this order lines are in the index of what comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Prepare,
    Data,
    Links,
    Complete,
}

/// Of members of one name, the one that counts.
#[derive(Clone, Copy, Default)]
struct Last {
    header: u64,
    /// How many there are.
    times: u32,
    /// Its header stands in a damaged frame.
    is_doubtful: bool,
}

/// About 32 bytes of memory for each path, and 16 for each member.
struct Salvage<'a> {
    archive: Arc<Inner>,
    cx: &'a Context,
    hasher: RandomState,
    /// Paths of lines, live ones.
    paths: HashSet<u64>,
    /// Where members begin that a line knows.
    known: HashSet<u64>,
    /// Paths of what was kept: what a hard link may be a name of.
    files: HashSet<u64>,
    prepare: Keeper,
    data: Keeper,
    links: Keeper,
    complete: Keeper,
    tallies: Vec<(Tally, Facts)>,
    lost: Vec<u64>,
    /// Entries of which only the headers tell.
    by_headers: u64,
}

impl<'a> Salvage<'a> {
    fn new(archive: Arc<Inner>, cx: &'a Context) -> Result<Self> {
        let components = archive.manifest.components.len();
        Ok(Salvage {
            archive,
            cx,
            hasher: RandomState::new(),
            paths: HashSet::new(),
            known: HashSet::new(),
            files: HashSet::new(),
            prepare: Keeper::new()?,
            data: Keeper::new()?,
            links: Keeper::new()?,
            complete: Keeper::new()?,
            tallies: vec![(Tally::default(), Facts::new()); components],
            lost: vec![0; components],
            by_headers: 0,
        })
    }

    fn hash(&self, component: u32, path: &[u8]) -> u64 {
        self.hasher.hash_one((component, path))
    }

    fn lose(&mut self, component: u32, path: &[u8], why: impl std::fmt::Display) {
        if let Some(lost) = self.lost.get_mut(component as usize) {
            *lost += 1;
        }
        self.note(Severity::Lost, component, path, why);
    }

    fn note(&self, severity: Severity, component: u32, path: &[u8], text: impl std::fmt::Display) {
        let name = self.archive.manifest.components.get(component as usize).map(|c| c.header.name.as_str());
        self.cx.note(severity, name.unwrap_or_default(), display_path(path), text);
    }

    /// Every line of every shard that can be read, with its content. Says whether a shard is missing.
    async fn take_shards(&mut self) -> Result<bool> {
        let archive = self.archive.clone();
        let mut missing = archive.layout.own.is_empty();
        let shards: Vec<_> = match missing {
            false => {
                archive.layout.index_shards().map(|s| (s.name.clone(), s.place, Some(s.sha256))).collect()
            }
            true => self.find_shards().await?,
        };
        for (name, place, sha256) in shards {
            alive(self.cx)?;
            let body = archive.frames.read(place.data, place.length, LARGEST_SHARD).await;
            // Without a digest only the checksums of frames tell that names and digests in it are right.
            let is_right = |body: &Bytes| match sha256 {
                Some(sha) => sha == digest(body),
                None => !archive.frames.met_damage(place.data, place.end()),
            };
            match body {
                Ok(body) if is_right(&body) => {
                    missing |= !self.take_shard(&body, &name).await?;
                }
                Ok(_) => missing = true,
                Err(e) if e.kind() == ErrorKind::Damaged => missing = true,
                Err(e) => return Err(e),
            }
            if missing && sha256.is_some() {
                self.cx.note(Severity::Warning, "", &name, "this part of the index cannot be read");
            }
        }
        Ok(missing)
    }

    /// The shards that are there, where no layout says where.
    async fn find_shards(&self) -> Result<Vec<(String, Place, Option<Sha>)>> {
        let is_ours = self.is_ours();
        let mut walk = Walk::new(self.archive.frames.clone(), &is_ours);
        let mut shards = Vec::new();
        while let Some(found) = walk.next(self.cx).await? {
            if let Found::Member(member, place) = found
                && member.path.starts_with(b"index/")
            {
                shards.push((display_path(&member.path), place, None));
            }
        }
        Ok(shards)
    }

    /// Whether every line of it can be read.
    async fn take_shard(&mut self, body: &Bytes, name: &str) -> Result<bool> {
        let mut whole = true;
        for text in body.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            alive(self.cx)?;
            let line = Line::decode(text).and_then(|line| self.archive.checked(line));
            match line {
                Ok(line) => self.take_line(line).await?,
                Err(e) => {
                    whole = false;
                    self.cx.note(Severity::Warning, "", name, format!("a line of the index: {e}"));
                }
            }
        }
        Ok(whole)
    }

    async fn take_line(&mut self, line: Line) -> Result<()> {
        self.known.extend(line.places.iter().map(|p| p.header));
        if line.discarded.is_some() {
            return Ok(());
        }
        let path = self.hash(line.component, &line.entry.path);
        if !self.paths.insert(path) {
            self.lose(line.component, &line.entry.path, "it is in the index twice");
            return Ok(());
        }
        let (entry, mut content) = source::item(&self.archive, line.clone(), Some(&Seat::alone())).await;
        drop(entry);
        match drain(&mut content, self.cx).await? {
            Ok(()) => self.keep(&line),
            Err(e) => {
                // One text for all that one frame takes with it: they are told three times and then counted.
                let damaged = line.places.iter().any(|p| self.archive.frames.met_damage(p.header, p.end()));
                match damaged {
                    true => {
                        self.lose(line.component, &line.entry.path, "it stands in a part that is damaged")
                    }
                    false => self.lose(line.component, &line.entry.path, e.message()),
                }
                Ok(())
            }
        }
    }

    fn keep(&mut self, line: &Line) -> Result<()> {
        let hash = self.hash(line.component, &line.entry.path);
        self.paths.insert(hash);
        if line.entry.kind == Kind::HardLink {
            return self.links.push(line); // counted when its file is known
        }
        if line.entry.kind != Kind::Directory {
            self.files.insert(hash);
        }
        self.count(line);
        match line.entry.stage {
            crate::Stage::Prepare => self.prepare.push(line),
            crate::Stage::Data => self.data.push(line),
            crate::Stage::Complete => self.complete.push(line),
        }
    }

    fn count(&mut self, line: &Line) {
        if let Some((tally, facts)) = self.tallies.get_mut(line.component as usize) {
            tally.add(&line.entry, 0, &line.sha256.unwrap_or_default());
            facts.add_missing(line.facts.clone());
        }
    }

    /// Members that no line knows.
    async fn take_members(&mut self) -> Result<()> {
        let archive = self.archive.clone();
        let (mut found, mut lasts) = (Keeper::new()?, HashMap::<u64, Last>::new());
        let is_ours = self.is_ours();
        let mut walk = Walk::new(archive.frames.clone(), &is_ours);
        while let Some(next) = walk.next(self.cx).await? {
            match next {
                Found::Unreadable { from, to } => {
                    let text = format!(
                        "bytes {from} to {to} of the tar cannot be read: what else was there is not known"
                    );
                    self.cx.note(Severity::Lost, "", "", text);
                }
                Found::Member(member, place) if !self.known.contains(&place.header) => {
                    let Some(line) = self.line_of(&member, place) else { continue };
                    // Of two of one name the later wins, as it does when tar unpacks; but a name out of damage may be a wrong one.
                    let is_doubtful = archive.frames.met_damage(place.header, place.data);
                    let last = lasts.entry(self.hash(line.component, &line.entry.path)).or_default();
                    last.times += 1;
                    if last.times == 1 || !is_doubtful || last.is_doubtful {
                        (last.header, last.is_doubtful) = (place.header, is_doubtful);
                    }
                    found.push(&line)?;
                }
                Found::Member(..) => {}
            }
        }
        drop(walk);
        let mut lines = std::pin::pin!(found.finish()?.lines());
        while let Some(line) = lines.next().await {
            alive(self.cx)?;
            let mut line = line?;
            let hash = self.hash(line.component, &line.entry.path);
            let Last { header, times, .. } = lasts.get(&hash).copied().unwrap_or_default();
            // A try that failed, and what stands for it; or the index knows better.
            if line.places.first().is_none_or(|p| p.header != header) || self.paths.contains(&hash) {
                continue;
            }
            let is_closed = line.entry.posix.as_ref().is_some_and(|p| p.mode == 0);
            if times > 1 && line.entry.size == Some(0) && is_closed {
                self.lose(line.component, &line.entry.path, "it could not be read when it was backed up");
                continue;
            }
            if line.entry.kind == Kind::File {
                let (entry, content) = source::unproven(&archive, line.clone(), Some(&Seat::alone())).await;
                let mut content = content.hashed(&entry);
                if let Err(e) = drain(&mut content, self.cx).await? {
                    self.lose(line.component, &line.entry.path, e.message());
                    continue;
                }
                line.sha256 = content.digest();
                if line.places.iter().any(|p| archive.frames.met_hole(p.data, p.end())) {
                    self.lose(line.component, &line.entry.path, "it stands in a part that is damaged");
                    continue;
                }
            }
            self.by_headers += 1;
            if line.places.iter().any(|p| archive.frames.met_damage(p.header, p.end())) {
                let text =
                    "it stands in a part that is damaged, and there is no digest: its contents may be wrong";
                self.note(Severity::Warning, line.component, &line.entry.path, text);
            }
            self.keep(&line)?;
        }
        Ok(())
    }

    /// What a member would have as a line of the index. Its digest is that of nothing until it is read.
    fn line_of(&self, member: &Member, place: Place) -> Option<Line> {
        let (component, path) = self.inside(&member.path)?;
        let mut entry = entry_of(member, path)?;
        if entry.kind == Kind::HardLink {
            let (of, file) = self.inside(&member.link)?;
            entry.link = Some(file).filter(|_| of == component);
            entry.link.as_ref()?;
        }
        Some(Line {
            component,
            sha256: (entry.kind == Kind::File).then_some([0; 32]),
            sparse: member.sparse_size.is_some(),
            places: vec![place],
            facts: Facts::new(),
            discarded: None,
            entry,
        })
    }

    /// Component and path of a member's name.
    fn inside(&self, name: &[u8]) -> Option<(u32, Bytes)> {
        self.archive.manifest.components.iter().enumerate().find_map(|(i, c)| {
            let prefix = format!("{}/{}", c.header.folder, c.header.name).into_bytes();
            let rest = name.strip_prefix(&prefix[..])?;
            let path = match rest {
                b"" => rest,
                rest => rest.strip_prefix(b"/")?,
            };
            is_entry_path(path).then(|| (i as u32, Bytes::copy_from_slice(path)))
        })
    }

    fn is_ours(&self) -> impl Fn(&Member) -> bool + Sync + use<> {
        let archive = self.archive.clone();
        let prefixes: Vec<Vec<u8>> = archive
            .manifest
            .components
            .iter()
            .map(|c| format!("{}/{}", c.header.folder, c.header.name).into_bytes())
            .collect();
        move |member| {
            let name = &member.path[..];
            let own = [&b"metadata.json"[..], b"RESTORE.md", MANIFEST, locator::NAME].contains(&name)
                || name.starts_with(b"index/")
                || name.starts_with(b"SHA256SUMS/");
            let of = |prefix: &Vec<u8>| {
                name.strip_prefix(&prefix[..]).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            };
            own || prefixes.iter().any(of)
        }
    }

    /// The backup of what was kept. Hard links come when it is known which files there are.
    async fn finish(mut self, whole: bool) -> Result<PortableReader> {
        let mut all = Keeper::new()?;
        for stage in [Part::Prepare, Part::Data, Part::Links, Part::Complete] {
            let mut lines = std::pin::pin!(self.take(stage)?.lines());
            while let Some(line) = lines.next().await {
                alive(self.cx)?;
                let line = line?;
                if stage == Part::Links {
                    let file = self.hash(line.component, line.entry.link.as_deref().unwrap_or_default());
                    if !self.files.contains(&file) {
                        self.lose(
                            line.component,
                            &line.entry.path,
                            "the file that it is a further name of is lost",
                        );
                        continue;
                    }
                    self.count(&line);
                }
                all.push(&line)?;
            }
        }
        if self.by_headers > 0 {
            let text = format!(
                "{} entries are known by their headers only: there is no digest to compare their contents with",
                self.by_headers
            );
            self.cx.note(Severity::Warning, "", "", text);
        }
        if !whole {
            let text = "the index or the manifest is not whole: what else was in the backup is not known";
            self.cx.note(Severity::Lost, "", "", text);
        }
        self.into_reader(all.finish()?, whole)
    }

    fn take(&mut self, part: Part) -> Result<KeptLines> {
        let keeper = match part {
            Part::Prepare => &mut self.prepare,
            Part::Data => &mut self.data,
            Part::Links => &mut self.links,
            Part::Complete => &mut self.complete,
        };
        std::mem::replace(keeper, Keeper::new()?).finish()
    }

    fn into_reader(self, lines: KeptLines, whole: bool) -> Result<PortableReader> {
        let archive = &self.archive;
        let mut manifest = archive.manifest.clone();
        for ((component, (tally, facts)), lost) in
            manifest.components.iter_mut().zip(&self.tallies).zip(&self.lost)
        {
            let before = component.proof.count("all", "entries");
            let now = tally.facts();
            let fewer = before.saturating_sub(now.count("all", "entries"));
            component.lost += fewer.max(*lost);
            component.proof = now;
            component.proof.add_missing(facts.clone());
        }
        let lost = self.lost.iter().any(|n| *n > 0);
        let damaged = archive.frames.met_damage(0, archive.frames.bytes);
        if damaged && whole && !lost {
            let text = "the archive is damaged where no entry is: everything that its index names is whole";
            self.cx.note(Severity::Warning, "", &archive.place, text);
        }
        if lost || !whole {
            manifest.state = State::Partial;
            manifest.notes = self.cx.notes();
        }
        Ok(PortableReader(Arc::new(Inner {
            frames: archive.frames.clone(),
            manifest,
            layout: archive.layout.clone(),
            manifest_length: 0,
            encrypted: archive.encrypted,
            place: archive.place.clone(),
            salvaged: Some(lines),
        })))
    }
}

fn digest(body: &[u8]) -> Sha {
    use sha2::Digest;
    sha2::Sha256::digest(body).into()
}

/// Reads a content to its end. The inner error is the content's own; an outer one ends the salvage.
async fn drain(content: &mut Content, cx: &Context) -> Result<Result<()>> {
    loop {
        alive(cx)?;
        match content.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Ok(())),
            Err(e) if matches!(e.kind(), ErrorKind::Destination | ErrorKind::Cancelled) => return Err(e),
            Err(e) => return Ok(Err(e)),
        }
    }
}
