//! Pours a component of an archive: every content reads its own ranges, so no put depends on another.

use super::{convoy::Seat, index::Line, reader::Inner};
use crate::{
    Content, Context, Entry, Error, Extent, Facts, Kind, Moment, Part, Ready, Result, Selection, Sink,
    Source, Stage, Stillness, Tally, View, put_stage, tar,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

/// Contents up to this are read whole before they are put: a stream costs more than they do.
const WHOLE: u64 = 512 << 10;
/// Data extents of one sparse file; our writer keeps to far fewer.
const MOST_EXTENTS: usize = 1 << 20;

/// A component of an open backup.
#[derive(Clone)]
pub(super) struct ArchiveSource {
    archive: Arc<Inner>,
    number: u32,
    name: String,
    selection: Selection,
}

impl ArchiveSource {
    pub(super) fn new(archive: Arc<Inner>, number: u32, name: &str, selection: Selection) -> Self {
        ArchiveSource { archive, number, name: name.to_owned(), selection }
    }
}

impl fmt::Display for ArchiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.archive.place)
    }
}

#[async_trait]
impl Source for ArchiveSource {
    async fn connect(&self, _cx: &Context) -> Result<Box<dyn Ready>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Ready for ArchiveSource {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        let component = self.archive.manifest.components.get(self.number as usize)?;
        self.selection.is_all().then(|| component.proof.count("all", "bytes"))
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        Ok(self)
    }
}

#[async_trait]
impl View for ArchiveSource {
    fn moment(&self) -> Moment {
        self.archive.manifest.components.get(self.number as usize).map_or_else(Moment::now, |c| c.moment)
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        let around = self.around().await?;
        let me = Arc::new(*self);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let facts = Arc::new(Mutex::new(Facts::new()));
        let seat = Arc::new(me.selection.is_all().then(|| me.archive.frames.seat()));
        let mut lines: Lines = me.selected(around).peekable();
        let mut stage = Stage::Prepare;
        loop {
            let next = match Pin::new(&mut lines).peek().await {
                None => break,
                Some(Ok(line)) => line.entry.stage,
                Some(Err(e)) => return Err(e.clone()),
            };
            if next < stage {
                return Err(Error::damaged("read the index", "its stages are not in order").on(&me.name));
            }
            stage = next;
            let (me, tally, facts, seat) = (me.clone(), tally.clone(), facts.clone(), seat.clone());
            let of_stage =
                stream::poll_fn(|context| match futures::ready!(Pin::new(&mut lines).poll_peek(context)) {
                    Some(Ok(line)) if line.entry.stage != stage => std::task::Poll::Ready(None),
                    _ => Pin::new(&mut lines).poll_next(context),
                });
            let items = of_stage.then(move |line| {
                let (me, tally, facts, seat) = (me.clone(), tally.clone(), facts.clone(), seat.clone());
                async move {
                    let line = line?;
                    let sha = line.sha256.unwrap_or_default();
                    let size = line.entry.size.unwrap_or(0);
                    // The content of what is no file is empty, and not counted by its digest.
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(&line.entry, size, &sha);
                    if !line.facts.is_empty() {
                        facts.lock().unwrap_or_else(PoisonError::into_inner).add_missing(line.facts.clone());
                    }
                    Ok(item(&me.archive, line, (*seat).as_ref()).await)
                }
            });
            put_stage(&sink, cx, items).await?;
        }
        let mut all = tally.lock().unwrap_or_else(PoisonError::into_inner).facts();
        all.add_missing(facts.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Ok(all)
    }
}

type Lines = stream::Peekable<Pin<Box<dyn Stream<Item = Result<Line>> + Send>>>;

impl ArchiveSource {
    fn is_ours(&self, line: &Line) -> bool {
        line.component == self.number && line.discarded.is_none()
    }

    /// Live lines of the selection. What is not selected itself, but has selected names, comes under the first of them.
    fn selected(&self, mut around: Around) -> Pin<Box<dyn Stream<Item = Result<Line>> + Send>> {
        let me = self.clone();
        let lines = self.archive.lines().filter_map(move |line| {
            let kept = match line {
                Err(e) => Some(Err(e)),
                Ok(line) if !me.is_ours(&line) => None,
                Ok(line) if me.selection.covers(&line.entry.path) => around.selected(line).map(Ok),
                Ok(line) => around.not_selected(line).map(Ok),
            };
            std::future::ready(kept)
        });
        Box::pin(lines)
    }

    /// What a selection needs besides what it covers. Nothing for all.
    async fn around(&self) -> Result<Around> {
        let mut around = Around::default();
        if self.selection.is_all() {
            return Ok(around);
        }
        let mut lines = std::pin::pin!(self.archive.lines());
        while let Some(line) = lines.next().await {
            let line = line?;
            if !self.is_ours(&line) || !self.selection.covers(&line.entry.path) {
                continue;
            }
            around.add_above(&line.entry.path);
            if line.entry.kind == Kind::HardLink
                && let Some(target) = line.entry.link
                && !self.selection.covers(&target)
            {
                around.outside.entry(target).or_insert(Outside { first: line.entry.path, came: false });
            }
        }
        Ok(around)
    }
}

/// What a selection needs besides what it covers.
#[derive(Default)]
struct Around {
    /// By its path, what is not selected, but has selected names.
    outside: HashMap<Bytes, Outside>,
    /// Directories above what is selected, by the hashes of their paths.
    above: HashSet<u64>,
    hasher: RandomState,
}

impl Around {
    fn add_above(&mut self, path: &[u8]) {
        if path.is_empty() {
            return;
        }
        let parents = path.iter().enumerate().rev().filter(|(_, b)| **b == b'/').map(|(i, _)| &path[..i]);
        for parent in parents.chain([&b""[..]]) {
            if !self.above.insert(self.hasher.hash_one(parent)) {
                break; // and with it all that are above
            }
        }
    }

    fn is_above(&self, path: &[u8]) -> bool {
        self.above.contains(&self.hasher.hash_one(path))
    }

    /// Of what is outside the first name is there already when its links come, in their later stage, and the others are links to
    /// that.
    fn selected(&self, line: Line) -> Option<Line> {
        let target = line.entry.link.as_ref().filter(|_| line.entry.kind == Kind::HardLink);
        match target.and_then(|target| self.outside.get(target)) {
            // Selected, too; or lost in the backup: whoever makes the link tells that.
            None | Some(Outside { came: false, .. }) => Some(line),
            Some(Outside { first, .. }) if *first == line.entry.path => None,
            Some(Outside { first, .. }) => {
                Some(Line { entry: Entry { link: Some(first.clone()), ..line.entry }, ..line })
            }
        }
    }

    fn not_selected(&mut self, line: Line) -> Option<Line> {
        if line.entry.kind == Kind::Directory {
            return self.is_above(&line.entry.path).then_some(line);
        }
        let outside = self.outside.get_mut(&line.entry.path)?;
        outside.came = true;
        Some(Line { entry: Entry { path: outside.first.clone(), ..line.entry }, ..line })
    }
}

struct Outside {
    /// The first of its selected names, under which it comes.
    first: Bytes,
    came: bool,
}

/// The entry and its content, which is whole only if it has the digest of the index.
pub(super) async fn item(archive: &Arc<Inner>, line: Line, seat: Option<&Seat>) -> (Entry, Content) {
    let sha = line.sha256.unwrap_or_default();
    let is_file = line.entry.kind == Kind::File;
    let (entry, content) = unproven(archive, line, seat).await;
    let content = if is_file { content.expecting(sha, &entry) } else { content };
    (entry, content)
}

/// The same, compared with nothing.
pub(super) async fn unproven(archive: &Arc<Inner>, line: Line, seat: Option<&Seat>) -> (Entry, Content) {
    if line.entry.kind != Kind::File {
        return (line.entry, Content::empty());
    }
    let display = archive.display(&line);
    let (mut entry, skip) = match sparse(archive, &line).await {
        Ok(found) => found,
        Err(e) => return (line.entry, Content::failed(e.on(display))),
    };
    // What was cut into segments is cut again where it is copied to: the two have the same files and sums.
    entry.slow = line.places.len() > 1;
    let content = match line.places[..] {
        [place] if place.length <= WHOLE => {
            match archive.frames.small(place.data + skip, place.length - skip, seat).await {
                Ok(bytes) => Content::counted(bytes, line.facts),
                Err(e) => Content::failed(e.on(display)),
            }
        }
        _ => {
            // The segments of a slow content lie between what comes after it: its first one says where to wait for it.
            let first = line.places.first().zip(seat);
            let seat = first.map(|(p, seat)| Arc::new(archive.frames.hand_over(seat, p.data, p.length)));
            let archive = archive.clone();
            let bytes = stream::iter(line.places.clone())
                .enumerate()
                .flat_map(move |(i, place)| {
                    let skip = if i == 0 { skip } else { 0 };
                    archive.frames.range(place.data + skip, place.length - skip, seat.clone())
                })
                .map(move |r| r.map(Part::Bytes).map_err(|e| e.on(&display)));
            Content::stream(bytes.chain(stream::once(async { Ok(Part::End(line.facts)) })))
        }
    };
    (entry, content)
}

/// The entry with its extents, and how many bytes of the data are their map.
async fn sparse(archive: &Arc<Inner>, line: &Line) -> Result<(Entry, u64)> {
    if !line.sparse {
        return Ok((line.entry.clone(), 0));
    }
    let bad = |e: tar::TarFault| Error::damaged("read the map of a sparse file", e);
    let (place, size) = (line.places[0], line.entry.size.unwrap_or(0));
    let mut decoder = tar::SparseMapDecoder::new(place.length, size, MOST_EXTENTS);
    let mut at = 0;
    loop {
        if at >= place.length {
            return Err(Error::damaged("read the map of a sparse file", "it does not end"));
        }
        let block = archive.frames.small(place.data + at, tar::BLOCK as u64, None).await?;
        at += tar::BLOCK as u64;
        if decoder.push(&block).map_err(bad)? {
            break;
        }
    }
    let (extents, map) = decoder.finish().map_err(bad)?;
    let extents = extents.into_iter().map(|e| Extent { offset: e.offset, length: e.length }).collect();
    Ok((Entry { extents: Some(extents), ..line.entry.clone() }, map))
}

/// The content of a file as a reader sees it: holes are zeros.
pub(super) async fn expanded(archive: &Arc<Inner>, line: Line) -> Result<(Entry, Content)> {
    let (entry, content) = item(archive, line, None).await;
    let Some(extents) = entry.extents.clone() else { return Ok((entry, content)) };
    let size = entry.size.unwrap_or(0);
    let plain = Entry { extents: None, ..entry };
    let expanded = Content::produce(move |feed| async move {
        let mut content = content;
        let mut at = 0u64;
        let mut left = extents.iter();
        let mut now: Option<(u64, u64)> = None;
        while let Some(mut bytes) = content.next().await? {
            while !bytes.is_empty() {
                let (offset, length) = match now.or_else(|| left.next().map(|e| (e.offset, e.length))) {
                    Some(extent) => extent,
                    None => return Err(Error::damaged("read a sparse file", "it is longer than its map")),
                };
                zeros(&feed, at, offset).await?;
                let part = bytes.split_to(bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX)));
                let n = part.len() as u64;
                at = offset + n;
                now = (n < length).then_some((at, length - n));
                feed.send(part).await?;
            }
        }
        zeros(&feed, at, size).await?;
        Ok(Facts::new())
    });
    Ok((plain, expanded))
}

async fn zeros(feed: &crate::Feed, mut from: u64, to: u64) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while from < to {
        let n = (to - from).min(ZEROS.len() as u64);
        feed.send(Bytes::from_static(&ZEROS[..n as usize])).await?;
        from += n;
    }
    Ok(())
}
