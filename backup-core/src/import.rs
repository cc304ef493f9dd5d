//! Files that other programs made as backups, read as sources: tars entry by entry, everything else byte for byte.
//!
//! Nobody counted anything when they were made, so what is read here is never proven to be what was there. A tar is read twice: first to
//! see that it is whole and what in it counts (of two members of one name the later one), then for its contents. Of anything else that is
//! compressed the end is looked for while it is stored: what is cut or damaged is not taken.

mod packing;

use crate::{
    Content, Context, Entry, Error, ErrorKind, Extent, Facts, Feed, Kind, Moment, Part, Posix, Put, Ready,
    Result, Severity, Sink, Source, Stage, Stillness, View, display_path, is_entry_path,
    tar::{self, Limits, Member, TarError, TarReader},
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use packing::{Packing, takes_too_much_memory};
use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    fmt,
    fs::File,
    hash::BuildHasher,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::sync::mpsc;

/// Contents up to this are read whole.
const WHOLE: u64 = 512 << 10;
/// Bytes of a larger one that are read at once.
const PIECE: usize = 256 << 10;
/// What to do with a file that is not taken.
const KEEP_IT: &str = "look for another copy; `backup create FILE` keeps it as it is";

/// A file that another program made.
#[derive(Clone, Debug)]
pub struct ForeignFile {
    path: PathBuf,
    packing: Packing,
    is_tar: bool,
    modified: Timestamp,
    posix: Posix,
}

impl ForeignFile {
    /// Looks at the file: what is in it says what it is, not its name; but one that is called a tar must be one.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(move || Self::look(path)).await
    }

    fn look(path: PathBuf) -> Result<Self> {
        let failed = |e| Error::io(ErrorKind::Source, "open the file", e).on(path.display());
        let mut file = File::open(&path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            let e = Error::new(ErrorKind::Usage, "import", "it is not a file");
            return Err(e.on(path.display()).hint("a folder is backed up: `backup create FOLDER`"));
        }
        let mut first = Vec::new();
        (&mut file).take(6).read_to_end(&mut first).map_err(failed)?;
        let packing = Packing::of(&first);
        let modified =
            meta.modified().ok().and_then(|t| Timestamp::try_from(t).ok()).unwrap_or_else(Timestamp::now);
        let mut foreign = ForeignFile { path, packing, is_tar: false, modified, posix: posix_of(&meta) };
        foreign.is_tar = foreign.tar()?.next_member().is_ok();
        let name = foreign.path.to_string_lossy().to_ascii_lowercase();
        let named = [".tar", ".tgz", ".txz"].iter().any(|e| name.ends_with(e)) || name.contains(".tar.");
        if named && !foreign.is_tar {
            return Err(
                Error::damaged("import", "it is called a tar, and is none").on(foreign.path.display())
            );
        }
        if let Some(said) = Packing::by_name(&name).filter(|said| *said != packing && !foreign.is_tar) {
            let text = format!("its name says that it is of {}, and it is not", said.program());
            return Err(Error::damaged("import", text).on(foreign.path.display()).hint(KEEP_IT));
        }
        Ok(foreign)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it was last written: as far as anybody knows, when it was made.
    pub fn modified(&self) -> Timestamp {
        self.modified
    }

    /// Whether its members become entries; else it is one.
    pub fn is_tar(&self) -> bool {
        self.is_tar
    }

    fn tar(&self) -> Result<TarReader<Box<dyn Read + Send>>> {
        let failed = |e| Error::io(ErrorKind::Source, "open the file", e).on(self.path.display());
        let file = BufReader::with_capacity(PIECE, File::open(&self.path).map_err(failed)?);
        let unpacked = self.packing.unpack(file).map_err(failed)?;
        Ok(TarReader::new(Box::new(BufReader::with_capacity(PIECE, unpacked)), Limits::default()))
    }

    fn damaged(&self, e: TarError) -> Error {
        Error::damaged("read the tar", e).on(self.path.display())
    }
}

impl fmt::Display for ForeignFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Source for ForeignFile {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>> {
        let (me, cancel) = (self.clone(), cx.cancel.clone());
        let bytes = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        if !self.is_tar {
            return Ok(Box::new(Foreign { file: me, survey: Survey { bytes, ..Survey::default() } }));
        }
        let survey = blocking(move || Survey::of(&me, &|| cancel.is_cancelled()));
        let survey = tokio::select! {
            survey = survey => survey?,
            () = cx.cancel.cancelled() => return Err(Error::cancelled()),
        };
        if survey.last.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "import", "there is nothing in it").on(self));
        }
        for text in &survey.notes {
            cx.note(Severity::Warning, "", "", text);
        }
        Ok(Box::new(Foreign { file: self.clone(), survey }))
    }
}

/// What was seen in the first reading: 24 bytes for a member, and the paths of folders in the second.
#[derive(Default)]
struct Survey {
    hasher: RandomState,
    /// By the hash of its path, the last member of this path, and whether it is a folder.
    last: HashMap<u64, (u64, bool)>,
    bytes: u64,
    notes: Vec<String>,
}

impl Survey {
    fn of(file: &ForeignFile, cancelled: &dyn Fn() -> bool) -> Result<Self> {
        let mut survey = Survey::default();
        let mut above = HashSet::new();
        let (mut stripped, mut unknown) = (0_u64, 0_u64);
        let mut reader = file.tar()?;
        let mut number = 0;
        while let Some((member, ..)) = reader.next_member().map_err(|e| file.damaged(e))? {
            if cancelled() {
                return Err(Error::cancelled());
            }
            number += 1;
            stripped += u64::from(member.path.starts_with(b"/"));
            let Some(entry) = entry(&member, file)? else {
                unknown += 1;
                continue;
            };
            let hash = survey.hasher.hash_one(&entry.path);
            if let (Kind::HardLink, Some(link)) = (entry.kind, &entry.link)
                && !survey.last.contains_key(&survey.hasher.hash_one(link))
            {
                let text = format!("its file {} is not before it", display_path(link));
                return Err(Error::damaged("read a hard link of the tar", text).on(entry.display_path()));
            }
            let mut at = &entry.path[..];
            while let Some(slash) = at.iter().rposition(|b| *b == b'/') {
                at = &at[..slash];
                if !above.insert(survey.hasher.hash_one(Bytes::copy_from_slice(at))) {
                    break;
                }
            }
            survey.bytes = survey.bytes.saturating_add(entry.size.unwrap_or(0));
            survey.last.insert(hash, (number, entry.kind == Kind::Directory));
        }
        // To the very end: what was compressed has its checksum there.
        reader.finish().map_err(|e| file.damaged(e))?;
        if above.iter().any(|hash| survey.last.get(hash).is_some_and(|(_, folder)| !folder)) {
            let text = "something in it lies below a link or a file";
            return Err(Error::damaged("read the tar", text).on(file));
        }
        if stripped > 0 {
            survey.notes.push(format!("{stripped} absolute paths lose their first slash"));
        }
        if unknown > 0 {
            survey.notes.push(format!("{unknown} members of a kind that is no entry are left out"));
        }
        Ok(survey)
    }
}

/// As an entry; `None`: it is none. A path that would leave the component is refused.
fn entry(member: &Member, file: &ForeignFile) -> Result<Option<Entry>> {
    let path = inside(&member.path).ok_or_else(|| {
        let text = "its path would lead out of the component";
        Error::damaged("read a member of the tar", text).on(format!("{file}: {}", display_path(&member.path)))
    })?;
    let Some(mut entry) = crate::portable::entry_of(member, path) else { return Ok(None) };
    if entry.kind == Kind::HardLink {
        entry.link = Some(inside(&member.link).ok_or_else(|| {
            let text = "this hard link would lead out of the component";
            Error::damaged("read a member of the tar", text).on(entry.display_path())
        })?);
    }
    Ok(Some(entry))
}

/// Without leading slashes and `.` parts, as tar unpacks it; `None` if it has `..`.
fn inside(path: &[u8]) -> Option<Bytes> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).collect();
    let path = parts.join(&b'/');
    is_entry_path(&path).then(|| path.into())
}

struct Foreign {
    file: ForeignFile,
    survey: Survey,
}

#[async_trait]
impl Ready for Foreign {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        Some(self.survey.bytes)
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        Ok(self)
    }
}

#[async_trait]
impl View for Foreign {
    fn moment(&self) -> Moment {
        Moment { first: self.file.modified, last: self.file.modified }
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        if !self.file.is_tar {
            let entry = Entry { posix: Some(self.file.posix.clone()), ..Entry::file("", Stage::Data) };
            let failure = Arc::new(OnceLock::new());
            let content = bytes_of(self.file, cx.clone(), failure.clone());
            // It is all that there is: without it nothing is imported.
            return match sink.put(entry.sized(self.survey.bytes), content).await? {
                Put::Discarded(why) => {
                    let unread = || Error::new(ErrorKind::Source, "read the file", why);
                    Err(failure.get().cloned().unwrap_or_else(unread))
                }
                _ => Ok(Facts::new()),
            };
        }
        let (to, mut items) = mpsc::channel::<Result<(Entry, Content)>>(64);
        let reading = tokio::task::spawn_blocking(move || {
            if let Err(e) = self.read(&to) {
                // Nobody listens any more: the run has ended with another error.
                let _ = to.blocking_send(Err(e));
            }
        });
        // One after another: they come through one stream.
        while let Some(item) = items.recv().await {
            if cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            let (entry, content) = item?;
            let _ = sink.put(entry, content).await?;
        }
        reading.await.map_err(|e| Error::new(ErrorKind::Panicked, "read the tar", e))?;
        Ok(Facts::new())
    }
}

type Items = mpsc::Sender<Result<(Entry, Content)>>;

impl Foreign {
    fn read(&self, to: &Items) -> Result<()> {
        let (file, gone) = (&self.file, |_| Error::cancelled());
        let mut reader = file.tar()?;
        let (mut links, mut folders, mut number, mut seen) = (Vec::new(), Vec::new(), 0, 0);
        while let Some((member, ..)) = reader.next_member().map_err(|e| file.damaged(e))? {
            number += 1;
            let Some(entry) = entry(&member, file)? else { continue };
            let last = self.survey.last.get(&self.survey.hasher.hash_one(&entry.path));
            if last.is_none_or(|(last, _)| *last != number) {
                continue;
            }
            seen += 1;
            match entry.kind {
                Kind::HardLink => links.push(entry),
                Kind::Directory => folders.push(entry),
                Kind::File => content(&mut reader, &member, entry, file, to)?,
                _ => to.blocking_send(Ok((entry, Content::empty()))).map_err(gone)?,
            }
        }
        if seen != self.survey.last.len() {
            return Err(Error::new(ErrorKind::Source, "read the tar", "it has changed meanwhile").on(file));
        }
        // Children before parents; the top folder, if it is not named, is as private as the file.
        folders.sort_by(|a, b| b.path.cmp(&a.path));
        if folders.last().is_none_or(|f| !f.path.is_empty()) && !self.is_one_file() {
            let mode = self.file.posix.mode & 0o777;
            let posix = Posix { mode: mode | (mode & 0o444) >> 2 | 0o700, ..self.file.posix.clone() };
            let top = Entry {
                kind: Kind::Directory,
                stage: Stage::Complete,
                posix: Some(posix),
                ..Entry::default()
            };
            folders.push(top);
        }
        for entry in links.into_iter().chain(folders) {
            to.blocking_send(Ok((entry, Content::empty()))).map_err(gone)?;
        }
        Ok(())
    }

    fn is_one_file(&self) -> bool {
        self.survey.last.get(&self.survey.hasher.hash_one(Bytes::new())).is_some_and(|(_, folder)| !folder)
    }
}

/// Sends a file, and its bytes while they are read.
fn content(
    reader: &mut TarReader<Box<dyn Read + Send>>,
    member: &Member,
    mut entry: Entry,
    file: &ForeignFile,
    to: &Items,
) -> Result<()> {
    let gone = |_| Error::cancelled();
    let map = reader.read_sparse_map(member).map_err(|e| file.damaged(e))?;
    if let Some(map) = map {
        let block = tar::BLOCK as u64;
        let size = member.sparse_size.unwrap_or(0);
        let aligned = map
            .iter()
            .all(|e| e.offset % block == 0 && (e.length % block == 0 || e.offset + e.length == size));
        if !aligned {
            let text = "its holes do not begin and end at blocks of 512 bytes";
            let e = Error::new(ErrorKind::Unsupported, "read a sparse file", text);
            return to.blocking_send(Ok((entry, Content::failed(e)))).map_err(gone);
        }
        entry.extents = Some(map.iter().map(|e| Extent { offset: e.offset, length: e.length }).collect());
    }
    let size = entry.stored_size().unwrap_or(0);
    if size <= WHOLE {
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match reader.read_data(&mut bytes[filled..]).map_err(|e| file.damaged(e))? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        return to.blocking_send(Ok((entry, Content::whole(bytes)))).map_err(gone);
    }
    let (parts, rest) = mpsc::channel::<Result<Part>>(2);
    let stream = futures::stream::unfold(rest, |mut rest| async move { Some((rest.recv().await?, rest)) });
    to.blocking_send(Ok((entry, Content::stream(stream)))).map_err(gone)?;
    loop {
        let mut bytes = vec![0; PIECE];
        let n = match reader.read_data(&mut bytes) {
            Ok(n) => n,
            Err(e) => {
                let e = file.damaged(e);
                // The content fails by it; that nobody reads it any more changes nothing.
                let _ = parts.blocking_send(Err(e.clone()));
                return Err(e);
            }
        };
        bytes.truncate(n);
        let part = if n == 0 { Part::End(Facts::new()) } else { Part::Bytes(bytes.into()) };
        // A content that its sink gave up is passed over.
        if parts.blocking_send(Ok(part)).is_err() || n == 0 {
            return Ok(());
        }
    }
}

/// The file byte for byte. What is compressed is decompressed on the way, and fails if it is cut or damaged.
fn bytes_of(file: ForeignFile, cx: Context, failure: Arc<OnceLock<Error>>) -> Content {
    Content::produce(move |feed: Feed| async move {
        let read = blocking(move || read_through(&file, feed, &cx)).await;
        read.inspect_err(|e| drop(failure.set(e.clone())))
    })
}

fn read_through(file: &ForeignFile, feed: Feed, cx: &Context) -> Result<Facts> {
    let failed = |e| Error::io(ErrorKind::Source, "read the file", e).on(file.path.display());
    let mut passing = Passing { file: File::open(&file.path).map_err(failed)?, feed, gone: None };
    let looked_through = look_through(file.packing, &mut passing, cx);
    if let Some(e) = passing.gone.take() {
        return Err(e.on(file.path.display()));
    }
    match looked_through {
        _ if cx.cancel.is_cancelled() => return Err(Error::cancelled()),
        Err(e) if takes_too_much_memory(&e) => {
            let text = "whether it is whole was not looked at: decompressing it would take too much memory";
            cx.note(Severity::Warning, "", file.path.display().to_string(), text);
        }
        Err(e) => {
            let e = Error::damaged("decompress the file", format!("it is cut or damaged: {e}"));
            return Err(e.on(file.path.display()).hint(KEEP_IT));
        }
        Ok(()) => {}
    }
    // What the decompressor did not ask for.
    let mut rest = vec![0; PIECE];
    while passing.read(&mut rest).is_ok_and(|n| n > 0) {}
    passing.gone.map_or_else(|| Ok(Facts::new()), |e| Err(e.on(file.path.display())))
}

/// To the end of what is in it.
fn look_through(packing: Packing, passing: &mut Passing, cx: &Context) -> io::Result<()> {
    let mut unpacked = packing.unpack(BufReader::with_capacity(PIECE, passing))?;
    let mut content = vec![0; PIECE];
    while unpacked.read(&mut content)? > 0 && !cx.cancel.is_cancelled() {}
    Ok(())
}

/// A file of which everything that is read is also stored.
struct Passing {
    file: File,
    feed: Feed,
    /// Why it cannot be read, or that nobody stores it any more.
    gone: Option<Error>,
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.file.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let n = match read {
            Err(e) => {
                self.gone = Some(Error::io(ErrorKind::Source, "read the file", e));
                return Err(io::Error::other("it cannot be read"));
            }
            Ok(n) => n,
        };
        if n > 0
            && let Err(e) = self.feed.blocking_send(Bytes::copy_from_slice(&buffer[..n]))
        {
            self.gone = Some(e);
            return Err(io::Error::other("nobody stores it"));
        }
        Ok(n)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "read the file", e)))
}

#[cfg(unix)]
fn posix_of(meta: &std::fs::Metadata) -> Posix {
    use std::os::unix::fs::MetadataExt;
    let nanos = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
    Posix {
        mode: meta.mode() & 0o7777,
        uid: meta.uid().into(),
        gid: meta.gid().into(),
        mtime: (meta.mtime(), nanos),
        ..Posix::default()
    }
}

#[cfg(not(unix))]
fn posix_of(_meta: &std::fs::Metadata) -> Posix {
    Posix { mode: 0o600, ..Posix::default() }
}
