//! Reads the tar inside an archive by ranges: frames are fetched, decompressed in parallel and kept for a while.

use super::{
    Compression,
    compression::{FrameAt, Lengths, frames_of},
    convoy::{Convoy, Seat},
    locator,
    salvage::Holes,
};
use crate::{Error, ErrorKind, Result, buffers::Buffers, destination::Blob};
use bytes::Bytes;
use futures::{FutureExt, Stream, future::BoxFuture, future::Shared, stream};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Decompressed frames that are kept, in bytes: the one that is read, some ahead, some that slow readers still need.
const KEPT: u64 = 20 << 20;
/// Frames decompressed ahead of a reader that goes through all of them: with the one that is read one for each core, up to this.
const MOST_AHEAD: usize = 3;
/// Whoever streams a long range gets it in such pieces. Two of them, one that is written and one that is hashed meanwhile, are mostly
/// of one frame; as whole frames they hold twice the memory.
const PIECE: usize = 1 << 20;
/// Small contents up to this are copied: a part keeps its whole frame, and what waits to be written may be of many frames.
const COPIED: u64 = 128 << 10;
/// While more than this is in memory, and more for each core, none are decompressed ahead, and who needs one waits until another is
/// let go: parts of frames that wait to be written keep the whole of them, and the more data, the more moments in which writing waits.
const ENOUGH: u64 = 16 << 20;
const ENOUGH_EACH: u64 = 8 << 20;
/// Nobody waits longer: what is held may be that of stores that wait for each other, or of one that keeps all in memory. Whoever has
/// waited in vain lets twice as much be held, until little is, so that there are few such waits.
const PATIENCE: Duration = Duration::from_millis(500);
/// While somebody waits so few are kept.
const LEAST_KEPT: usize = 3;
/// What a plain tar is read by.
const PLAIN_FRAME: u64 = 1 << 20;
/// A table of 8 bytes a frame: 64 MiB are enough for 32 TiB.
const LARGEST_TABLE: u64 = 64 << 20;
/// The first read: the table of frames, locator and a small manifest come with it.
const TAIL: u64 = 64 << 10;

type Slot = Shared<BoxFuture<'static, Result<Bytes>>>;

/// Where the frames are.
#[derive(Clone)]
enum Table {
    /// As the file's own table says.
    Listed(Vec<FrameAt>),
    /// A plain tar is read in pieces of a fixed size; the locator after `data` bytes is a frame of its own here, too.
    Plain { data: u64 },
}

impl Table {
    fn count(&self) -> usize {
        match self {
            Table::Listed(frames) => frames.len(),
            Table::Plain { data } => data.div_ceil(PLAIN_FRAME) as usize + 1,
        }
    }

    /// Of an index below `count`.
    fn at(&self, index: usize) -> FrameAt {
        match self {
            Table::Listed(frames) => frames[index],
            Table::Plain { data } => {
                let begin = (index as u64).saturating_mul(PLAIN_FRAME).min(*data);
                let rest = if begin == *data { locator::FRAME as u64 } else { PLAIN_FRAME.min(data - begin) };
                let length = rest as u32;
                FrameAt { packed: begin, raw: begin, lengths: Lengths { packed: length, raw: length } }
            }
        }
    }

    /// The frame that holds this byte of the tar.
    fn index_of(&self, at: u64) -> usize {
        match self {
            Table::Listed(frames) => frames.partition_point(|f| f.raw <= at).saturating_sub(1),
            Table::Plain { data } if at >= *data => self.count() - 1,
            Table::Plain { .. } => (at / PLAIN_FRAME) as usize,
        }
    }
}

/// The tar of an archive.
pub(super) struct Frames {
    blob: Arc<dyn Blob>,
    pub(super) compression: Compression,
    table: Table,
    /// Length of the tar.
    pub(super) bytes: u64,
    /// Of a salvage, which reads of a damaged frame what can be decompressed.
    damage: Option<Arc<Damage>>,
    cache: Mutex<VecDeque<(usize, Slot)>>,
    convoy: Arc<Convoy>,
    fetched: Arc<AtomicU64>,
    cores: usize,
    buffers: Buffers,
    /// Bytes that are being decompressed.
    begun: Arc<AtomicU64>,
    /// So much may be held since somebody waited in vain, if it is more than is enough otherwise.
    allowed: AtomicU64,
}

/// What a salvage has met.
struct Damage {
    /// Frames that could not be decompressed.
    frames: Mutex<BTreeSet<usize>>,
    /// Parts of the file that could not be read.
    holes: Arc<Holes>,
}

impl Damage {
    fn of(holes: Arc<Holes>) -> Option<Arc<Self>> {
        Some(Arc::new(Damage { frames: Mutex::default(), holes }))
    }
}

/// Bytes that are being decompressed, until it is dropped.
struct Begun {
    begun: Arc<AtomicU64>,
    bytes: u64,
    buffers: Buffers,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.begun.fetch_sub(self.bytes, Relaxed);
        self.buffers.wake();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16)
}

impl Frames {
    /// Finds the frames from the end of the file.
    pub(super) async fn open(blob: Arc<dyn Blob>) -> Result<Self> {
        let length = blob.bytes();
        let tail_length = TAIL.min(length);
        let tail = blob.read_at(length - tail_length, tail_length as usize).await?;
        let fetched = Arc::new(AtomicU64::new(tail_length));
        let found = Compression::ALL.into_iter().find_map(|compression| {
            let codec = compression.codec()?;
            Some((compression, codec, codec.table_length(&tail)?))
        });
        let (compression, table) = match found {
            Some((_, _, n)) if n > length || n > LARGEST_TABLE => {
                return Err(Error::damaged("read the table of frames", "it is longer than it can be"));
            }
            Some((compression, codec, n)) => {
                let table = if n <= tail_length {
                    tail.slice((tail_length - n) as usize..)
                } else {
                    fetched.fetch_add(n, Relaxed);
                    blob.read_at(length - n, n as usize).await?
                };
                (compression, Table::Listed(frames_of(codec, &table, length - n)?))
            }
            None => match length.checked_sub(locator::FRAME as u64) {
                Some(data) => (Compression::None, Table::Plain { data }),
                None => return Err(Error::damaged("open the archive", "it is too short: incomplete")),
            },
        };
        let last = table.count().checked_sub(1).map(|last| table.at(last));
        let bytes = last.map_or(0, |f| f.raw + u64::from(f.lengths.raw));
        Ok(Frames { fetched, ..Frames::new(blob, compression, table, bytes) })
    }

    /// Frames of a salvage that were found without a seek table; for a plain tar none are needed.
    pub(super) fn found(blob: Arc<Holes>, compression: Compression, frames: Vec<FrameAt>) -> Self {
        let (table, bytes) = match compression {
            Compression::None => {
                // The end may be anywhere: nothing is a frame of its own.
                let bytes = blob.bytes();
                (Table::Plain { data: bytes }, bytes)
            }
            _ => {
                let bytes = frames.last().map_or(0, |f| f.raw + u64::from(f.lengths.raw));
                (Table::Listed(frames), bytes)
            }
        };
        let damage = Damage::of(blob.clone());
        Frames { damage, ..Frames::new(blob, compression, table, bytes) }
    }

    /// The same frames for a salvage: of one that is damaged what stands before the damage is read, and maybe wrong bytes behind it.
    /// The holes are those of what they were opened from.
    pub(super) fn for_salvage(&self, holes: Arc<Holes>) -> Self {
        let damage = Damage::of(holes);
        let fetched = self.fetched.clone();
        let same = Frames::new(self.blob.clone(), self.compression, self.table.clone(), self.bytes);
        Frames { damage, fetched, ..same }
    }

    fn new(blob: Arc<dyn Blob>, compression: Compression, table: Table, bytes: u64) -> Self {
        Frames {
            blob,
            compression,
            table,
            bytes,
            damage: None,
            cache: Mutex::default(),
            convoy: Arc::default(),
            fetched: Arc::default(),
            cores: cores(),
            buffers: Buffers::new(MOST_AHEAD),
            begun: Arc::default(),
            allowed: AtomicU64::default(),
        }
    }

    /// A seat for one who reads this range, while the other goes on behind it.
    pub(super) fn hand_over(&self, seat: &Seat, offset: u64, length: u64) -> Seat {
        let end = offset.saturating_add(length).min(self.bytes);
        seat.hand_over(self.table.index_of(offset), self.table.index_of(end))
    }

    /// Where the frame ends that holds this byte of the tar.
    pub(super) fn after_frame(&self, at: u64) -> u64 {
        let frame = self.table.at(self.table.index_of(at));
        (frame.raw + u64::from(frame.lengths.raw)).max(at + 1)
    }

    /// Whether a frame was met damaged that holds a part of this range: what was read of it may be wrong.
    pub(super) fn met_damage(&self, from: u64, to: u64) -> bool {
        self.met_hole(from, to)
            || self.damage.as_ref().is_some_and(|damage| {
                let frames = self.table.index_of(from)..=self.table.index_of(to.max(from + 1) - 1);
                damage.frames.lock().unwrap_or_else(PoisonError::into_inner).range(frames).next().is_some()
            })
    }

    /// Whether zeros stand in this range for what could not be read. They do in a plain tar alone: a frame ends before them.
    pub(super) fn met_hole(&self, from: u64, to: u64) -> bool {
        let damage = self.damage.as_ref().filter(|_| matches!(self.table, Table::Plain { .. }));
        damage.is_some_and(|damage| damage.holes.first(from, to).is_some())
    }

    /// Bytes read from the place so far.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// The last frame, which holds the locator.
    pub(super) async fn last(&self) -> Result<Bytes> {
        match self.table.count().checked_sub(1) {
            Some(last) => self.frame(last).await,
            None => Err(Error::damaged("open the archive", "it is empty")),
        }
    }

    /// What stands before the first frame is what stands there in every file of this compression.
    pub(super) async fn check_head(&self) -> Result<()> {
        let head = self.compression.codec().map_or(&[][..], |codec| codec.head());
        if self.blob.read_at(0, head.len()).await? != head {
            return Err(Error::damaged("read the beginning", "it is not that of this compression"));
        }
        Ok(())
    }

    /// Every frame in its order, for a complete check.
    pub(super) fn count(&self) -> usize {
        self.table.count()
    }

    /// One frame, decompressed.
    pub(super) async fn frame(&self, index: usize) -> Result<Bytes> {
        let frame = self.slot(index).await;
        if frame.is_err() {
            // A place that could not be read for a moment is read again by whoever asks next.
            self.cache.lock().unwrap_or_else(PoisonError::into_inner).retain(|(i, _)| *i != index);
        }
        frame
    }

    /// Exactly these bytes of the tar, in memory. `limit` bounds what a hostile length can make us hold.
    pub(super) async fn read(&self, offset: u64, length: u64, limit: u64) -> Result<Bytes> {
        if length > limit {
            return Err(Error::damaged(
                "read the archive",
                format!("a part of {length} bytes is impossible"),
            ));
        }
        let mut parts = Vec::new();
        let (mut at, end) = (offset, self.end(offset, length)?);
        while at < end {
            let part = self.part(at, end, None).await?;
            at += part.len() as u64;
            parts.push(part);
        }
        match parts.len() {
            0 => Ok(Bytes::new()),
            1 => Ok(parts.remove(0)),
            _ => Ok(parts.concat().into()),
        }
    }

    /// For one who reads all that follows: frames are decompressed ahead, and those who have a seat keep together.
    pub(super) fn seat(&self) -> Seat {
        self.convoy.join()
    }

    /// These bytes of the tar as they come.
    pub(super) fn range(
        self: &Arc<Self>,
        offset: u64,
        length: u64,
        seat: Option<Arc<Seat>>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let me = self.clone();
        let end = self.end(offset, length);
        // The rest of a frame is held, and not asked for again: it may not be kept any more.
        stream::try_unfold((offset, Bytes::new(), seat), move |(mut at, mut rest, seat)| {
            let (me, end) = (me.clone(), end.clone());
            async move {
                let end = end?;
                if rest.is_empty() {
                    if at >= end {
                        return Ok(None);
                    }
                    rest = me.part(at, end, seat.as_deref()).await?;
                    at += rest.len() as u64;
                }
                let piece = rest.split_to(rest.len().min(PIECE));
                Ok(Some((piece, (at, rest, seat))))
            }
        })
    }

    /// The same as one part of a frame at most: for small things, without a stream.
    pub(super) async fn small(&self, offset: u64, length: u64, seat: Option<&Seat>) -> Result<Bytes> {
        let end = self.end(offset, length)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let first = self.part(offset, end, seat).await?;
        if first.len() as u64 == length {
            return Ok(if length <= COPIED { Bytes::copy_from_slice(&first) } else { first });
        }
        let mut whole = Vec::with_capacity(length as usize);
        whole.extend_from_slice(&first);
        while (whole.len() as u64) < length {
            whole.extend_from_slice(&self.part(offset + whole.len() as u64, end, seat).await?);
        }
        Ok(whole.into())
    }

    fn end(&self, offset: u64, length: u64) -> Result<u64> {
        offset
            .checked_add(length)
            .filter(|end| *end <= self.bytes)
            .ok_or_else(|| Error::damaged("read the archive", "it ends before what the index promises"))
    }

    /// What one frame has of the range.
    async fn part(&self, at: u64, end: u64, seat: Option<&Seat>) -> Result<Bytes> {
        let index = self.table.index_of(at);
        if let Some(seat) = seat {
            seat.come_to(index).await;
            self.room_for(index).await;
            for next in index + 1..(index + 1 + self.ahead(index)).min(self.table.count()) {
                if self.is_enough() {
                    break;
                }
                drop(self.slot(next));
            }
        }
        let frame = self.frame(index).await?;
        let from = (at - self.table.at(index).raw) as usize;
        let to = frame.len().min((end - self.table.at(index).raw) as usize);
        if from >= to {
            return Err(Error::damaged("read the archive", "a frame is shorter than it should be"));
        }
        Ok(frame.slice(from..to))
    }

    fn is_enough(&self) -> bool {
        let held = self.held();
        let enough = ENOUGH + ENOUGH_EACH * self.cores as u64;
        if held < enough / 2 {
            self.allowed.store(0, Relaxed);
        }
        held >= enough.max(self.allowed.load(Relaxed))
    }

    fn held(&self) -> u64 {
        self.buffers.lent() + self.begun.load(Relaxed)
    }

    /// Waits until there is room for this frame, if it is not there already.
    async fn room_for(&self, index: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let changed = self.buffers.changed();
            tokio::pin!(changed);
            // Whatever changes from here on is noticed.
            changed.as_mut().enable();
            if !self.is_enough() {
                return;
            }
            let oldest = {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                if cache.iter().any(|(i, _)| *i == index) {
                    return;
                }
                if cache.len() > LEAST_KEPT { cache.pop_front() } else { None }
            };
            if oldest.is_none() && tokio::time::timeout_at(until, changed).await.is_err() {
                self.allowed.fetch_max(2 * self.held(), Relaxed);
                self.buffers.wake();
                return;
            }
        }
    }

    /// So many are worth decompressing ahead of this one: what those who read elsewhere bring would be gone before it is read.
    fn ahead(&self, index: usize) -> usize {
        let frame = u64::from(self.table.at(index).lengths.raw).max(1);
        let for_each = usize::try_from(KEPT / frame).unwrap_or(usize::MAX) / self.convoy.count().max(1);
        (self.cores - 1).min(MOST_AHEAD).min(for_each.saturating_sub(1))
    }

    /// The frame as a task that runs, or has run.
    fn slot(&self, index: usize) -> Slot {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(i, _)| *i == index) {
            // The most recently used is last.
            if let Some(hit) = cache.remove(at) {
                let slot = hit.1.clone();
                cache.push_back(hit);
                return slot;
            }
        }
        let (blob, at, codec) = (self.blob.clone(), self.table.at(index), self.compression.codec());
        let (fetched, home) = (self.fetched.clone(), self.buffers.clone());
        let damage = self.damage.clone();
        // What is not decompressed is small, and not counted.
        let bytes = if codec.is_some() { u64::from(at.lengths.raw) } else { 0 };
        self.begun.fetch_add(bytes, Relaxed);
        let begun = Begun { begun: self.begun.clone(), bytes, buffers: self.buffers.clone() };
        let task = tokio::spawn(async move {
            let stored = codec.map_or(at.lengths.packed, |codec| codec.stored(at.lengths.packed));
            fetched.fetch_add(u64::from(stored), Relaxed);
            // Of a salvage the last frame that was found may be longer than what is there.
            let stored = match &damage {
                None => stored.into(),
                Some(_) => u64::from(stored).min(blob.bytes().saturating_sub(at.packed)),
            };
            let mut packed = blob.read_at(at.packed, stored as usize).await?;
            let Some(codec) = codec else { return Ok(packed) };
            if let Some(hole) = damage.as_ref().and_then(|d| d.holes.first(at.packed, at.packed + stored)) {
                packed.truncate((hole - at.packed) as usize);
            }
            let decompress = move || {
                let _begun = begun;
                let mut bytes = home.take();
                bytes.clear();
                match (codec.decode(&packed, at.lengths, &mut bytes), damage) {
                    (Ok(()), _) => {}
                    (Err(e), None) => return Err(e),
                    (Err(e), Some(damage)) => {
                        bytes.clear();
                        codec.decode_beginning(&packed, &mut bytes);
                        bytes.truncate(at.lengths.raw as usize);
                        damage.frames.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                        if bytes.is_empty() {
                            return Err(e);
                        }
                    }
                }
                Ok(home.lend(bytes))
            };
            tokio::task::spawn_blocking(decompress)
                .await
                .unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "decompress a frame", e)))
                .map_err(|e| e.on(format!("frame at byte {}", at.packed)))
        });
        let slot = task
            .map(|r| r.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "read a frame", e))))
            .boxed()
            .shared();
        cache.push_back((index, slot.clone()));
        // Somebody may wait for room for this very one.
        self.buffers.wake();
        let mut kept: u64 = cache.iter().map(|(i, _)| u64::from(self.table.at(*i).lengths.raw)).sum();
        while kept > KEPT && cache.len() > 1 {
            if let Some((old, _)) = cache.pop_front() {
                kept -= u64::from(self.table.at(old).lengths.raw);
            }
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::{super::compression::Holds, *};
    use crate::destination::local_blob;
    use futures::StreamExt;

    const FRAME: usize = 4 << 20;

    /// So many frames of zeros, read as two cores do.
    fn zeros(frames: usize) -> Arc<Frames> {
        let (mut file, mut list) = (Vec::new(), Vec::new());
        let mut encoder = Compression::Zstd.codec().unwrap().encoder(1).unwrap();
        for _ in 0..frames {
            let mut frame = Vec::new();
            encoder.encode(&vec![0; FRAME], Holds::Data, &mut frame).unwrap();
            let lengths = Lengths { packed: frame.len() as u32, raw: FRAME as u32 };
            list.push(FrameAt { packed: file.len() as u64, raw: (list.len() * FRAME) as u64, lengths });
            file.append(&mut frame);
        }
        let bytes = file.len() as u64;
        let mut stored = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut stored, &file).unwrap();
        let blob = Holes::of(local_blob(stored, bytes, "frames".into()), 4096);
        Arc::new(Frames { cores: 2, ..Frames::found(blob, Compression::Zstd, list) })
    }

    #[tokio::test]
    async fn who_needs_a_frame_waits_while_much_is_held_and_not_for_ever() {
        const COUNT: usize = 12;
        let frames = zeros(COUNT);
        let most = ENOUGH + 2 * ENOUGH_EACH;
        let all = frames.range(0, frames.bytes, Some(Arc::new(frames.seat())));
        let mut all = std::pin::pin!(all);
        let mut held = Vec::new();
        // One piece of each is enough to hold the frame.
        while ((held.len() + 1) * FRAME) as u64 <= most {
            held.push(all.next().await.unwrap().unwrap());
            for _ in 1..FRAME / PIECE {
                assert_eq!(all.next().await.unwrap().unwrap().len(), PIECE);
            }
        }
        assert!(tokio::time::timeout(PATIENCE / 4, all.next()).await.is_err());
        assert!(frames.buffers.lent() <= most);
        // The one that waited was dropped with its range.
        let at = (held.len() * FRAME) as u64;
        let began = Instant::now();
        let seat = Arc::new(frames.seat());
        let mut rest = std::pin::pin!(frames.range(at, frames.bytes - at, Some(seat)));
        assert_eq!(rest.next().await.unwrap().unwrap().len(), PIECE);
        assert!(began.elapsed() >= PATIENCE / 2);
        // Twice as much may be held now.
        let read: Vec<_> = rest.by_ref().collect().await;
        let bytes: usize = read.iter().map(|piece| piece.as_ref().unwrap().len()).sum();
        assert_eq!(bytes as u64, frames.bytes - at - PIECE as u64);
        assert!(frames.allowed.load(Relaxed) > most);
        drop((held, read));
        frames.cache.lock().unwrap().clear();
        assert!(!frames.is_enough());
        assert_eq!((frames.held(), frames.allowed.load(Relaxed)), (0, 0));
    }
}
