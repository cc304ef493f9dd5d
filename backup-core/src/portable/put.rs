//! How an entry goes into the tar: small ones whole, large local ones streamed under the lock, streams in segments.

use super::{
    index::{LONGEST_PATH, Line, Place},
    writer::{Abandoned, Shared, TarState},
};
use crate::{
    Content, Context, Entry, Error, ErrorKind, Extent, Facts, Kind, Posix, Proof, Put, Result, Sha, Sink,
    Tally,
    tar::{self, Member, MemberKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The sink of one component.
pub(super) struct ComponentSink {
    shared: Arc<Shared>,
    number: u32,
    name: String,
    /// `files/tree`: what its members are called in the tar, before their paths.
    prefix: Vec<u8>,
    tally: Mutex<Tally>,
    sealed: AtomicBool,
}

/// Segments of one entry. Its line of the index must fit into a shard that a reader takes; more than 3 TiB at 8 MiB each.
const MOST_SEGMENTS: usize = 400_000;
/// So many of the first segments are half as long as the rest. What waits is less then: with segments of 8 MiB two streams and two
/// cores left a fifth of the time unused, for one side stood still while the other worked (1 GB of PostgreSQL: 5.6 s, and 4.65 s with 4 MiB).
/// 16 GiB of an entry are in them.
const HALF_SEGMENTS: usize = 4096;

/// How filling a buffer ended.
enum Fill {
    Full,
    End,
    Failed(Error),
}

/// A content being read in pieces of a wanted size.
struct Filler {
    content: Content,
    rest: Bytes,
}

impl Filler {
    /// Reads at most `limit` bytes.
    async fn fill(&mut self, buffer: &mut Vec<Bytes>, limit: usize) -> Fill {
        let mut n = 0;
        loop {
            if self.rest.is_empty() {
                match self.content.next().await {
                    Ok(Some(bytes)) => self.rest = bytes,
                    Ok(None) => return Fill::End,
                    Err(e) => return Fill::Failed(e),
                }
            }
            if n == limit {
                return Fill::Full;
            }
            let part = self.rest.split_to(self.rest.len().min(limit - n));
            n += part.len();
            buffer.push(part);
        }
    }
}

fn length(buffer: &[Bytes]) -> u64 {
    buffer.iter().map(|b| b.len() as u64).sum()
}

/// A content that failed is discarded; a cancelled run and a memory limit are not the content's failure.
fn discard(e: Error) -> Result<Put> {
    match e.kind() {
        ErrorKind::Cancelled | ErrorKind::Budget => Err(e),
        _ => Ok(Put::Discarded(e.to_string().into())),
    }
}

impl ComponentSink {
    pub(super) fn new(shared: Arc<Shared>, number: u32, folder: &str, name: &str) -> Self {
        ComponentSink {
            shared,
            number,
            name: name.to_owned(),
            prefix: format!("{folder}/{name}").into_bytes(),
            tally: Mutex::default(),
            sealed: AtomicBool::new(false),
        }
    }

    fn member(&self, entry: &Entry, segment: Option<usize>, size: u64) -> Member {
        member(&self.prefix, entry, segment, size)
    }

    fn header(&self, entry: &Entry, segment: Option<usize>, size: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 * tar::BLOCK);
        self.member(entry, segment, size).encode(&mut out);
        out
    }

    /// The entry is in the tar: it goes into the index, the sums and the tally.
    fn stored(
        &self,
        tar: &mut TarState,
        entry: Entry,
        content: &Content,
        places: Vec<Place>,
        segments: Vec<Sha>,
    ) -> Result<Put> {
        let is_file = entry.kind == Kind::File;
        let segmented = !segments.is_empty();
        let sha = match content.digest() {
            Some(sha) => sha,
            None => return Err(Error::contract("its content was not hashed").on(entry.display_path())),
        };
        let size = match entry.size {
            Some(size) => size,
            None => content.delivered(),
        };
        let names: Vec<(Vec<u8>, Sha)> = match (is_file, segments.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => vec![(member_name(&self.prefix, &entry.path, None), sha)],
            (true, false) => segments
                .into_iter()
                .enumerate()
                .map(|(i, sha)| (member_name(&self.prefix, &entry.path, Some(i)), sha))
                .collect(),
        };
        let line = Line {
            component: self.number,
            sparse: is_file && entry.extents.is_some(),
            sha256: is_file.then_some(sha),
            places,
            facts: content.facts().cloned().unwrap_or_default(),
            discarded: None,
            entry: Entry {
                size: is_file.then_some(size),
                extents: None,
                fingerprint: None,
                slow: false,
                ..entry
            },
        };
        if !self.shared.line(tar, &line, names.into_iter()) {
            let why = Error::new(
                ErrorKind::Unsupported,
                "store the entry",
                "its attributes are too large for the index",
            );
            let places = line.places;
            self.tombstone(tar, &line.entry, places, segmented, &why);
            return discard(why);
        }
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&line.entry, size, &sha);
        Ok(Put::Stored)
    }

    fn tombstone(&self, tar: &mut TarState, entry: &Entry, places: Vec<Place>, segmented: bool, why: &Error) {
        let of = (self.number, &self.prefix[..]);
        tombstone(&self.shared, tar, of, entry, places, segmented, &why.to_string());
    }

    /// Small and of known length: whole in memory, then one synchronous append. A failure leaves nothing.
    async fn put_whole(&self, entry: Entry, content: Content, stored: u64) -> Result<Put> {
        let map = sparse_map(&entry);
        let header = self.header(&entry, None, map.len() as u64 + stored);
        let needs = header.len() + tar::padded(map.len() as u64 + stored) as usize;
        let hold = self.shared.reserve(needs).await?;
        let mut filler = Filler { content, rest: Bytes::new() };
        let mut data = Vec::with_capacity(2);
        if !map.is_empty() {
            data.push(map);
        }
        match filler.fill(&mut data, stored as usize).await {
            Fill::End => {}
            Fill::Failed(e) => return discard(e),
            Fill::Full => {
                return Err(Error::contract("it is longer than it promised").on(entry.display_path()));
            }
        }
        let mut tar = self.shared.lock().await?;
        let place = self.shared.append(&mut tar, &header, &data, Some(hold));
        self.stored(&mut tar, entry, &filler.content, vec![place], Vec::new())
    }

    /// Large, of known length, from a quick producer: one member, streamed under the lock. Its first bytes are awaited before
    /// the lock is taken.
    async fn put_large(&self, entry: Entry, content: Content, stored: u64) -> Result<Put> {
        let shared = &*self.shared;
        let mut content = content;
        let first = match content.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return discard(Error::cut()),
            Err(e) => return discard(e),
        };
        let map = sparse_map(&entry);
        let length = map.len() as u64 + stored;
        let mut head = self.header(&entry, None, length);
        let header_length = head.len() as u64;
        head.extend_from_slice(&map);
        let mut tar = shared.lock().await?;
        let mut open = OpenMember { shared, owed: stored, closed: false };
        let begin = tar.offset();
        self.stream(&mut tar, &head).await?;
        let place = Place { header: begin, data: begin + header_length, length };
        let mut next = Ok(Some(first));
        let failed = loop {
            match next {
                Ok(Some(bytes)) => {
                    let owed = open.owed.checked_sub(bytes.len() as u64);
                    open.owed = owed.ok_or_else(|| {
                        Error::contract("it is longer than it promised").on(entry.display_path())
                    })?;
                    self.stream(&mut tar, &bytes).await?;
                }
                Ok(None) => break None,
                Err(e) => break Some(e),
            }
            next = content.next().await;
        };
        if let Some(e) = &failed
            && e.kind() == ErrorKind::Cancelled
        {
            return Err(e.clone()); // the member stays half: dropping `open` makes the archive impossible to complete
        }
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while open.owed > 0 {
            let n = open.owed.min(ZEROS.len() as u64);
            self.stream(&mut tar, &ZEROS[..n as usize]).await?;
            open.owed -= n;
        }
        shared.pad(&mut tar, length);
        open.closed = true;
        match failed {
            None => self.stored(&mut tar, entry, &content, vec![place], Vec::new()),
            Some(e) => {
                self.tombstone(&mut tar, &entry, vec![place], false, &e);
                discard(e)
            }
        }
    }

    /// Bytes of the member that is streamed under the lock, paid for from its own lane.
    async fn stream(&self, tar: &mut TarState, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(self.shared.frame / 2) {
            let hold = self.shared.reserve_lane(part.len()).await?;
            if let Some(e) = self.shared.output.failure() {
                return Err(e);
            }
            tar.hold(hold, part.len());
            self.shared.raw(tar, part);
        }
        Ok(())
    }

    /// Of unknown length, or from a slow producer: segments, each reserved as a whole before it is filled.
    async fn put_segments(&self, entry: Entry, content: Content) -> Result<Put> {
        let shared = &*self.shared;
        let mut open = OpenSegments { sink: self, entry: Some(entry), places: Vec::new() };
        let mut sums = Vec::new();
        let mut filler = Filler { content, rest: Bytes::new() };
        loop {
            let is_half = open.places.len() < HALF_SEGMENTS;
            let segment = if is_half { (shared.segment / 2).max(1) } else { shared.segment };
            let mut hold = shared.reserve(segment + 4 * tar::BLOCK).await?;
            let mut data = Vec::new();
            let mut fill = filler.fill(&mut data, segment).await;
            let n = length(&data);
            if open.places.len() == MOST_SEGMENTS {
                fill = Fill::Failed(Error::new(
                    ErrorKind::Unsupported,
                    "store the stream",
                    "it has too many segments",
                ));
            }
            if let Fill::Failed(e) = fill {
                if !open.places.is_empty() {
                    let mut tar = shared.lock().await?;
                    let (entry, places) = open.close()?;
                    self.tombstone(&mut tar, &entry, places, true, &e);
                }
                return discard(e);
            }
            let end = matches!(fill, Fill::End);
            let single = end && open.places.is_empty();
            let mut tar;
            if n > 0 || single {
                let header = self.header(open.entry()?, (!single).then_some(open.places.len()), n);
                if !single {
                    let mut sha = Sha256::new();
                    data.iter().for_each(|b| sha.update(b));
                    sums.push(sha.finalize().into());
                }
                hold.shrink_to(header.len() + tar::padded(n) as usize);
                tar = shared.lock().await?;
                open.places.push(shared.append(&mut tar, &header, &data, Some(hold)));
            } else {
                drop(hold);
                tar = shared.lock().await?;
            }
            if end {
                let (entry, places) = open.close()?;
                return self.stored(&mut tar, entry, &filler.content, places, sums);
            }
        }
    }
}

/// An entry of which segments are out. Dropped before its end, what it left is made known to the index later.
struct OpenSegments<'a> {
    sink: &'a ComponentSink,
    entry: Option<Entry>,
    places: Vec<Place>,
}

impl OpenSegments<'_> {
    fn entry(&self) -> Result<&Entry> {
        self.entry.as_ref().ok_or_else(|| Error::contract("it is closed"))
    }

    fn close(&mut self) -> Result<(Entry, Vec<Place>)> {
        let entry = self.entry.take().ok_or_else(|| Error::contract("it is closed"))?;
        Ok((entry, std::mem::take(&mut self.places)))
    }
}

impl Drop for OpenSegments<'_> {
    fn drop(&mut self) {
        if let (Some(entry), false) = (self.entry.take(), self.places.is_empty()) {
            self.sink.shared.abandon(Abandoned {
                component: self.sink.number,
                prefix: self.sink.prefix.clone(),
                entry,
                places: std::mem::take(&mut self.places),
            });
        }
    }
}

/// A member that is streamed under the lock. Dropped before its padding is written, the tar cannot be continued: everything
/// after is refused.
struct OpenMember<'a> {
    shared: &'a Shared,
    owed: u64,
    closed: bool,
}

impl Drop for OpenMember<'_> {
    fn drop(&mut self) {
        if !self.closed {
            self.shared.output.poison(Error::new(
                ErrorKind::Destination,
                "continue the archive",
                "a member was abandoned half-way",
            ));
        }
    }
}

impl fmt::Display for ComponentSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Sink for ComponentSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if let Some(e) = self.shared.output.failure() {
            return Err(e);
        }
        if self.sealed.load(Relaxed) {
            return Err(Error::contract("a put after finish").on(&self.name));
        }
        if entry.path.len() > LONGEST_PATH {
            return Ok(Put::Discarded(format!("its path is longer than {LONGEST_PATH} bytes").into()));
        }
        let content = content.hashed(&entry);
        if entry.kind != Kind::File {
            return self.put_whole(Entry { size: Some(0), ..entry }, content, 0).await;
        }
        if entry.extents.as_ref().is_some_and(|e| !are_aligned(e, entry.size.unwrap_or(0))) {
            return Err(Error::contract("its extents do not begin and end at blocks of 512 bytes")
                .on(entry.display_path()));
        }
        let known = entry.stored_size().or(content.in_memory().map(|n| n as u64));
        match known {
            // What was longer than a segment where it comes from is cut here, too.
            Some(n)
                if n <= self.shared.segment as u64 && !(entry.slow && n > self.shared.segment as u64 / 2) =>
            {
                let entry = if entry.size.is_none() { entry.sized(n) } else { entry };
                self.put_whole(entry, content, n).await
            }
            Some(n) if !entry.slow => self.put_large(entry, content, n).await,
            _ if entry.extents.is_some() => {
                Err(Error::contract("a sparse entry cannot be cut into segments").on(entry.display_path()))
            }
            _ => self.put_segments(entry, content).await,
        }
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        if let Some(e) = self.shared.output.failure() {
            return Err(e);
        }
        self.sealed.store(true, Relaxed);
        self.shared.component_finished(&self.name);
        Ok(self.tally.lock().unwrap_or_else(PoisonError::into_inner).facts())
    }
}

/// The bytes that are out cannot be taken back, but of members of one name the later one wins: after a plain `tar x` the file
/// is empty, and the index says why. `of`: number and prefix of the component.
pub(super) fn tombstone(
    shared: &Shared,
    tar: &mut TarState,
    of: (u32, &[u8]),
    entry: &Entry,
    mut places: Vec<Place>,
    segmented: bool,
    why: &str,
) {
    let buried =
        Entry { size: None, extents: None, posix: None, fingerprint: None, slow: false, ..entry.clone() };
    for i in 0..places.len() {
        let mut header = Vec::with_capacity(tar::BLOCK);
        member(of.1, &buried, segmented.then_some(i), 0).encode(&mut header);
        places.push(shared.append(tar, &header, &[], None));
    }
    let line = Line {
        component: of.0,
        sparse: false,
        sha256: None,
        places,
        facts: Facts::new(),
        discarded: Some(why.to_owned()),
        entry: buried,
    };
    // Without attributes it is never too large: a path and a reason, and places that the writer limits.
    shared.line(tar, &line, std::iter::empty());
}

/// What a member is called: folder, component, path, and the number of a segment.
pub(super) fn member_name(prefix: &[u8], path: &[u8], segment: Option<usize>) -> Vec<u8> {
    let mut name = prefix.to_vec();
    if !path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(path);
    }
    if let Some(n) = segment {
        name.extend_from_slice(format!(".seg{n:06}").as_bytes());
    }
    name
}

/// The member of an entry, exactly as it is written; verification writes it again and compares.
pub(super) fn member(prefix: &[u8], entry: &Entry, segment: Option<usize>, size: u64) -> Member {
    let posix = entry.posix.clone().unwrap_or_else(|| Posix { mode: 0o600, ..Posix::default() });
    let link = match (entry.kind, &entry.link) {
        (Kind::HardLink, Some(path)) => member_name(prefix, path, None),
        (Kind::Symlink, Some(text)) => text.to_vec(),
        _ => Vec::new(),
    };
    Member {
        path: member_name(prefix, &entry.path, segment),
        kind: match entry.kind {
            Kind::File => MemberKind::File,
            Kind::Directory => MemberKind::Directory,
            Kind::Symlink => MemberKind::Symlink,
            Kind::HardLink => MemberKind::HardLink,
            Kind::Fifo => MemberKind::Fifo,
            Kind::CharDevice => MemberKind::CharDevice,
            Kind::BlockDevice => MemberKind::BlockDevice,
        },
        mode: posix.mode,
        uid: posix.uid,
        gid: posix.gid,
        mtime: posix.mtime,
        size,
        link,
        xattrs: posix.xattrs.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
        sparse_size: entry.extents.as_ref().and(entry.size),
        device: posix.device,
        ..Member::default()
    }
}

/// The map before a sparse file's data; nothing for others.
fn sparse_map(entry: &Entry) -> Bytes {
    let Some(extents) = &entry.extents else { return Bytes::new() };
    let extents: Vec<tar::Extent> =
        extents.iter().map(|e: &Extent| tar::Extent { offset: e.offset, length: e.length }).collect();
    let mut out = Vec::new();
    tar::encode_sparse_map(&extents, entry.size.unwrap_or(0), &mut out);
    out.into()
}

/// GNU tar takes every extent from a new block: only the last one may end within a block, at the end of the file.
fn are_aligned(extents: &[Extent], size: u64) -> bool {
    let block = tar::BLOCK as u64;
    extents.iter().all(|e| e.offset % block == 0 && (e.length % block == 0 || e.offset + e.length == size))
}
