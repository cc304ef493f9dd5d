//! Checks what a pour does not read: every frame, every header, padding, members that the index does not know, paths that are
//! there twice.

use super::{
    index::{LARGEST_SHARD, Line},
    paths, put,
    reader::Inner,
    sidecar::LARGEST_MANIFEST,
};
use crate::{Context, Depth, Entry, Error, Extent, Result, tar};
use futures::StreamExt;
use std::{collections::BTreeMap, sync::Arc};

/// Defects that are told; a file that is full of them is not worth more.
const MOST_DEFECTS: usize = 100;
/// Pieces of the tar that are known at a time. Members come nearly in order; who mixes them more wants our memory.
const MOST_PIECES: usize = 1 << 20;

pub(super) async fn check(archive: &Arc<Inner>, depth: Depth, cx: &Context) -> Result<Vec<Error>> {
    let mut defects = Defects::default();
    if depth == Depth::Full {
        frames(archive, cx, &mut defects).await?;
    }
    let work = members(archive, depth, cx, &mut defects).await?;
    paths::check(archive, work, cx, &mut defects).await?;
    Ok(defects.0)
}

/// What the lines say together: of an archive of which nothing else is whole.
pub(super) async fn lines_only(archive: &Arc<Inner>, cx: &Context) -> Result<Vec<Error>> {
    let (mut defects, mut work) = (Defects::default(), paths::Work::default());
    let mut lines = archive.lines();
    while let Some(line) = lines.next().await {
        alive(cx)?;
        work.add(&line?);
    }
    paths::check(archive, work, cx, &mut defects).await?;
    Ok(defects.0)
}

#[derive(Default)]
pub(super) struct Defects(Vec<Error>);

impl Defects {
    /// Many members lie in one frame: what is wrong with it is told once.
    pub(super) fn push(&mut self, e: Error) {
        let known = |old: &Error| old.kind() == e.kind() && old.to_string() == e.to_string();
        if self.0.len() < MOST_DEFECTS && !self.0.iter().any(known) {
            self.0.push(e);
        }
    }

    /// Keeps a defect of the archive; anything else (a disk that cannot be read) ends the check.
    fn keep<T>(&mut self, result: Result<T>, on: impl FnOnce() -> String) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == crate::ErrorKind::Damaged => {
                self.push(e.on(on()));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Every frame decompresses to what the table of frames says.
async fn frames(archive: &Arc<Inner>, cx: &Context, defects: &mut Defects) -> Result<()> {
    if archive.frames.compression == super::Compression::None {
        return Ok(()); // nothing in them that the members do not show
    }
    let head = archive.frames.check_head().await;
    defects.keep(head, || archive.place.clone())?;
    for i in 0..archive.frames.count() {
        alive(cx)?;
        let frame = archive.frames.frame(i).await;
        defects.keep(frame, || format!("frame {i}"))?;
    }
    Ok(())
}

pub(super) fn alive(cx: &Context) -> Result<()> {
    if cx.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}

/// Headers and padding are as the index says, and members cover the tar without gap or overlap.
async fn members(
    archive: &Arc<Inner>,
    depth: Depth,
    cx: &Context,
    defects: &mut Defects,
) -> Result<paths::Work> {
    let mut cover = Cover::default();
    for own in &archive.layout.own {
        let limit = if own.name.starts_with("index/") { LARGEST_SHARD } else { LARGEST_MANIFEST };
        let whole = archive.own(own, limit).await;
        defects.keep(whole, || own.name.clone())?;
        let mut header = Vec::new();
        super::own_member(own.name.as_bytes(), own.place.length).encode(&mut header);
        let place = own.place;
        let checked =
            header_and_padding(archive, &header, place.header, place.data, place.length, depth).await;
        defects.keep(checked, || own.name.clone())?;
        cover.add(place.header, place.end());
    }
    let mut lines = std::pin::pin!(archive.lines());
    let (mut work, mut whole) = (paths::Work::default(), true);
    while let Some(line) = lines.next().await {
        alive(cx)?;
        let line = match defects.keep(line, || "index".into())? {
            Some(line) => line,
            None => {
                whole = false;
                break; // the rest of the index cannot be told from garbage
            }
        };
        work.add(&line);
        for place in &line.places {
            cover.add(place.header, place.end());
        }
        if depth == Depth::Full {
            let checked = line_members(archive, &line).await;
            defects.keep(checked, || archive.display(&line))?;
        }
    }
    // manifest.json and the locator were compared when the archive was opened; here only their padding is left.
    if whole {
        for (from, to) in cover.gaps(archive.layout.end) {
            defects.push(
                Error::damaged(
                    "compare the archive with its index",
                    format!(
                        "bytes {from} to {to} of the tar are of no member that the index knows, or of two"
                    ),
                )
                .on(&archive.place),
            );
        }
    }
    let manifest = padding(archive, archive.layout.end + tar::BLOCK as u64, archive.manifest_length).await;
    defects.keep(manifest, || "manifest.json".into())?;
    Ok(work)
}

/// The headers of an entry are exactly what its line of the index would be written as.
async fn line_members(archive: &Arc<Inner>, line: &Line) -> Result<()> {
    let Some(component) = archive.manifest.components.get(line.component as usize) else {
        return Err(Error::damaged("read the index", "it is of no component"));
    };
    let prefix = format!("{}/{}", component.header.folder, component.header.name).into_bytes();
    let segmented = line.places.len() > 1 && line.discarded.is_none();
    for (i, place) in line.places.iter().enumerate() {
        if line.discarded.is_some() {
            padding(archive, place.data, place.length).await?;
            continue; // what failed is restored by nobody; it is only known to be there
        }
        let entry = if line.sparse {
            Entry { extents: Some(Arc::new([]) as Arc<[Extent]>), ..line.entry.clone() }
        } else {
            line.entry.clone()
        };
        let mut header = Vec::new();
        put::member(&prefix, &entry, segmented.then_some(i), place.length).encode(&mut header);
        header_and_padding(archive, &header, place.header, place.data, place.length, Depth::Full).await?;
    }
    Ok(())
}

async fn header_and_padding(
    archive: &Arc<Inner>,
    header: &[u8],
    at: u64,
    data: u64,
    length: u64,
    depth: Depth,
) -> Result<()> {
    if data - at != header.len() as u64 {
        return Err(Error::damaged("compare the header with the index", "it is not as long as it should be"));
    }
    if depth == Depth::Full {
        if archive.frames.small(at, header.len() as u64, None).await? != header {
            return Err(Error::damaged("compare the header with the index", "they do not say the same"));
        }
        padding(archive, data, length).await?;
    }
    Ok(())
}

async fn padding(archive: &Arc<Inner>, data: u64, length: u64) -> Result<()> {
    let padding = archive.frames.small(data + length, tar::padded(length) - length, None).await?;
    if padding.iter().any(|b| *b != 0) {
        return Err(Error::damaged("read the padding", "it is not empty"));
    }
    Ok(())
}

/// Intervals of the tar that members were found in. Members come nearly in order, so few are open at a time.
#[derive(Default)]
struct Cover {
    /// Begin to end, disjoint and not touching.
    known: BTreeMap<u64, u64>,
    overlap: Option<(u64, u64)>,
}

impl Cover {
    fn add(&mut self, mut from: u64, mut to: u64) {
        if self.known.len() > MOST_PIECES {
            return; // and what is not added is a gap
        }
        let before = self.known.range(..to).next_back().map(|(f, t)| (*f, *t));
        if let Some((f, t)) = before
            && t > from
        {
            self.overlap.get_or_insert((from.max(f), t.min(to)));
            return;
        }
        if let Some((f, t)) = before
            && t == from
        {
            self.known.remove(&f);
            from = f;
        }
        if let Some(t) = self.known.remove(&to) {
            to = t;
        }
        self.known.insert(from, to);
    }

    fn gaps(&self, end: u64) -> Vec<(u64, u64)> {
        let mut at = 0;
        let mut out: Vec<(u64, u64)> = self.overlap.into_iter().collect();
        for (from, to) in &self.known {
            if *from > at {
                out.push((at, *from));
            }
            at = *to;
        }
        if at != end {
            out.push((at, end));
        }
        out.truncate(MOST_DEFECTS);
        out
    }
}
