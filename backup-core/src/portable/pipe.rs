//! One portable archive through a pipe: written as it comes, read by way of a temporary file without a name.

use super::{
    PortableOptions, folder, reader::PortableReader, salvage::Beside, writer::PortableWriter,
    written::Written,
};
use crate::{
    Archive, BackupHeader, BackupId, BackupReader, BackupSummary, BackupWriter, Context, Error, ErrorKind,
    Event, Result, RunLock, Series,
    destination::{Blob, Destination, LocalFolder, Stored, Upload, local_blob},
    encryption::Identities,
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    fmt,
    io::{self, Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

type Writer = Box<dyn Write + Send>;
type Reader = Box<dyn Read + Send>;

/// The end of a pipe that is written to: room for one backup. A clone is the same pipe.
#[derive(Clone)]
pub struct PipeWriter(Arc<Mutex<Option<Writer>>>);

impl PipeWriter {
    /// Writes there. Calls may block: they are made on threads for that.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        PipeWriter(Arc::new(Mutex::new(Some(Box::new(writer)))))
    }

    fn is_new(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Writes one backup into a pipe. There is nothing to list and to lock: what two runs write into two pipes never meets.
pub struct PipeOut {
    writer: PipeWriter,
    options: PortableOptions,
}

impl PipeOut {
    /// An archive that goes there.
    pub fn new(writer: PipeWriter, options: PortableOptions) -> Result<Self> {
        options.check()?;
        Ok(PipeOut { writer, options })
    }
}

impl fmt::Display for PipeOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

fn not_kept(operation: &'static str) -> Error {
    Error::new(ErrorKind::Usage, operation, "a pipe keeps nothing that could be looked at later").on("-")
}

fn used() -> Error {
    Error::new(ErrorKind::Usage, "write into the pipe", "a pipe takes one backup").on("-")
}

struct NothingToLock;

#[async_trait]
impl RunLock for NothingToLock {
    async fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Archive for PipeOut {
    async fn preflight(&self, _estimate: Option<u64>, _cx: &Context) -> Result<Vec<String>> {
        if self.writer.is_new() { Ok(Vec::new()) } else { Err(used()) }
    }

    fn holds_one(&self) -> bool {
        true
    }

    async fn lock(&self, _series: &Series, _wait: Duration, _cx: &Context) -> Result<Box<dyn RunLock>> {
        Ok(Box::new(NothingToLock))
    }

    async fn begin(&self, header: BackupHeader, cx: &Context) -> Result<Box<dyn BackupWriter>> {
        let pipe = Arc::new(Pipe { writer: self.writer.clone(), cancel: cx.cancel.clone() });
        let writer =
            PortableWriter::begin(pipe, Some("-".to_owned()), &self.options, Written::default(), header, cx)
                .await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, _id: &BackupId, _cx: &Context) -> Result<Arc<dyn BackupReader>> {
        Err(not_kept("read the backup"))
    }

    /// Before anything is written it holds none.
    async fn list(&self, _cx: &Context) -> Result<Vec<BackupSummary>> {
        if self.writer.is_new() { Ok(Vec::new()) } else { Err(not_kept("list the backups")) }
    }

    async fn remove(&self, _ids: &[BackupId], _cx: &Context) -> Result<()> {
        Err(not_kept("remove backups"))
    }

    async fn mark_verified(&self, _id: &BackupId, _at: Timestamp, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn heal(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// What the writer of an archive sees of the pipe.
struct Pipe {
    writer: PipeWriter,
    cancel: CancellationToken,
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

#[async_trait]
impl Destination for Pipe {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    async fn space(&self) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }

    async fn create(&self, _provisional: &str, _names: &[String]) -> Result<Box<dyn Upload>> {
        let writer = self.writer.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(used)?;
        Ok(Box::new(PipeUpload { writer: Some(writer), cancel: self.cancel.clone() }))
    }

    async fn open(&self, _name: &str) -> Result<Arc<dyn Blob>> {
        Err(not_kept("read the archive"))
    }

    async fn list(&self) -> Result<Vec<Stored>> {
        Err(not_kept("list the pipe"))
    }

    async fn write_small(&self, _name: &str, _bytes: &[u8]) -> Result<()> {
        Err(not_kept("write beside the archive"))
    }

    async fn swap_small(&self, _name: &str, _expected: Option<&[u8]>, _new: Option<&[u8]>) -> Result<bool> {
        Err(not_kept("write beside the archive"))
    }

    async fn read_small(&self, _name: &str, _limit: u64) -> Result<Option<Bytes>> {
        Err(not_kept("read beside the archive"))
    }

    async fn remove(&self, _name: &str) -> Result<()> {
        Err(not_kept("remove the archive"))
    }
}

struct PipeUpload {
    /// Not there while a call of it goes on, and after one that did not come back.
    writer: Option<Writer>,
    cancel: CancellationToken,
}

impl PipeUpload {
    /// A reader that takes nothing holds the call up for as long as it wants: a cancelled run leaves it behind.
    async fn call(
        &mut self,
        work: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Err(Error::contract("a write after the end").on("-"));
        };
        let call = tokio::task::spawn_blocking(move || (work(&mut writer), writer));
        let (done, writer) = tokio::select! {
            biased;
            done = call => done.map_err(|e| Error::new(ErrorKind::Panicked, "write into the pipe", e))?,
            () = self.cancel.cancelled() => return Err(Error::cancelled()),
        };
        self.writer = Some(writer);
        done.map_err(|e| {
            let gone = e.kind() == io::ErrorKind::BrokenPipe;
            let e = Error::io(ErrorKind::Destination, "write into the pipe", e).on("-");
            if gone { e.hint("whoever reads it has ended: look at its own messages") } else { e }
        })
    }
}

#[async_trait]
impl Upload for PipeUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.call(move |writer| writer.write_all(&bytes)).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.call(|writer| writer.flush()).await
    }

    async fn commit(self: Box<Self>) -> Result<String> {
        if self.writer.is_none() {
            return Err(Error::contract("a commit after a call that did not come back").on("-"));
        }
        Ok("-".to_owned())
    }

    /// What is out cannot be taken back, but it has no end, and no reader takes it for a backup.
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Free bytes that spooling leaves.
const LEFT_FREE: u64 = 64 << 20;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Reads one backup from a pipe. Its index is at its end, so all of it is spooled first: into a file without a name in
/// `folder`, which is gone when the archive is dropped, or its process is.
pub struct PipeIn {
    reader: Mutex<Option<Reader>>,
    folder: PathBuf,
    identities: Mutex<Identities>,
    spooled: OnceCell<Arc<dyn Blob>>,
}

impl PipeIn {
    /// The backup that comes out of `reader`, which is read at the first call that needs it.
    pub fn new(reader: impl Read + Send + 'static, folder: impl Into<PathBuf>) -> Self {
        PipeIn {
            reader: Mutex::new(Some(Box::new(reader))),
            folder: folder.into(),
            identities: Mutex::default(),
            spooled: OnceCell::new(),
        }
    }

    /// With what it is read if it is encrypted.
    pub fn read_with(&self, identities: Identities) {
        *self.identities.lock().unwrap_or_else(PoisonError::into_inner) = identities;
    }

    async fn reader(&self, cx: &Context) -> Result<PortableReader> {
        let blob = self.spooled.get_or_try_init(|| self.spool(cx)).await?;
        let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner).clone();
        PortableReader::open(blob.clone(), "-".to_owned(), &identities).await.map_err(|e| {
            e.hint("what came through the pipe is no whole archive: look at what its writer says")
        })
    }

    async fn spool(&self, cx: &Context) -> Result<Arc<dyn Blob>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut reader) = reader else {
            return Err(Error::new(ErrorKind::Usage, "read the pipe", "it was read already").on("-"));
        };
        cx.emit(&Event::Spooling { folder: self.folder.display().to_string() });
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder)).await;
        let mut file = flat(made).map_err(|e| self.failed(e))?;
        let (mut buffer, mut length, mut next_look) = (vec![0; PIECE], 0u64, 0u64);
        loop {
            if length >= next_look {
                self.leave_some_free().await?;
                next_look = length + LEFT_FREE / 2;
            }
            // Whoever writes the pipe may never go on: a cancelled run leaves the call behind.
            let call = tokio::task::spawn_blocking(move || {
                let n = read_piece(&mut reader, &mut buffer)?;
                Ok::<_, (bool, io::Error)>(match file.write_all(&buffer[..n]) {
                    Ok(()) => (reader, file, buffer, n),
                    Err(e) => return Err((true, e)),
                })
            });
            let done = tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return Err(Error::cancelled()),
                done = call => done.map_err(|e| Error::new(ErrorKind::Panicked, "read the pipe", e))?,
            };
            let n;
            (reader, file, buffer, n) = done.map_err(|(writing, e)| match writing {
                true => self.failed(e),
                false => Error::io(ErrorKind::Destination, "read the pipe", e).on("-"),
            })?;
            length += n as u64;
            if n == 0 {
                return Ok(local_blob(file, length, PathBuf::from("-")));
            }
        }
    }

    async fn leave_some_free(&self) -> Result<()> {
        let space = LocalFolder::new(&self.folder).space().await?;
        match space {
            Some((free, _)) if free < LEFT_FREE => Err(self
                .failed(io::Error::new(io::ErrorKind::StorageFull, format!("only {free} bytes are free")))),
            _ => Ok(()),
        }
    }

    fn failed(&self, e: io::Error) -> Error {
        Error::io(ErrorKind::Target, "keep what comes through the pipe", e)
            .on(self.folder.display())
            .hint("TMPDIR names another folder; or write the pipe into a file, and name that")
    }
}

fn came(bytes: u64) -> Stored {
    Stored { name: "-".to_owned(), bytes, modified: Timestamp::now() }
}

fn flat<T>(made: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    made.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Fills the buffer as far as the pipe has something; 0: it has ended.
fn read_piece(reader: &mut Reader, buffer: &mut [u8]) -> Result<usize, (bool, io::Error)> {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err((false, e)),
        }
    }
    Ok(n)
}

impl fmt::Display for PipeIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

fn read_only(operation: &'static str) -> Error {
    Error::new(ErrorKind::Usage, operation, "what comes through a pipe can only be read").on("-")
}

#[async_trait]
impl Archive for PipeIn {
    async fn preflight(&self, _estimate: Option<u64>, _cx: &Context) -> Result<Vec<String>> {
        Err(read_only("write the archive"))
    }

    fn holds_one(&self) -> bool {
        true
    }

    async fn lock(&self, _series: &Series, _wait: Duration, _cx: &Context) -> Result<Box<dyn RunLock>> {
        Err(read_only("lock the archive"))
    }

    async fn begin(&self, _header: BackupHeader, _cx: &Context) -> Result<Box<dyn BackupWriter>> {
        Err(read_only("begin a backup"))
    }

    async fn open(&self, id: &BackupId, cx: &Context) -> Result<Arc<dyn BackupReader>> {
        let reader = self.reader(cx).await?;
        if reader.manifest().header.id != *id {
            return Err(Error::new(ErrorKind::NotFound, "find the backup", "another one came").on(id));
        }
        Ok(Arc::new(reader))
    }

    /// What came is listed, also if it is damaged and can only be salvaged.
    async fn list(&self, cx: &Context) -> Result<Vec<BackupSummary>> {
        let opened = self.reader(cx).await;
        let bytes = self.spooled.get().map_or(0, |blob| blob.bytes());
        match opened {
            Err(e) if e.kind() == ErrorKind::Damaged && bytes > 0 => Ok(vec![folder::unknown(&came(bytes))]),
            opened => Ok(vec![opened?.summary("-".to_owned(), bytes)]),
        }
    }

    async fn salvage(&self, _id: &BackupId, cx: &Context) -> Result<Arc<dyn BackupReader>> {
        let blob = self.spooled.get_or_try_init(|| self.spool(cx)).await?;
        let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let beside = Beside::default();
        Ok(Arc::new(super::salvage::open(blob.clone(), "-".to_owned(), &identities, beside, cx).await?))
    }

    async fn remove(&self, _ids: &[BackupId], _cx: &Context) -> Result<()> {
        Err(read_only("remove backups"))
    }

    async fn mark_verified(&self, _id: &BackupId, _at: Timestamp, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn heal(&self, _cx: &Context) -> Result<Vec<String>> {
        Err(read_only("heal the archive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conclusion, Notes, State};

    /// Takes so many bytes and is gone.
    struct Closes(usize);

    impl Write for Closes {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(buf.len()) {
                Some(left) => {
                    self.0 = left;
                    Ok(buf.len())
                }
                None => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn write(writer: impl Write + Send + 'static) -> Result<BackupSummary> {
        let cx = Context::default();
        let archive = PipeOut::new(PipeWriter::new(writer), PortableOptions::default())?;
        let header = BackupHeader {
            id: BackupId::generate(),
            module: "m".into(),
            series: Series("s".into()),
            created: Timestamp::now(),
            host: "h".into(),
            components: Vec::new(),
            metadata: Default::default(),
            tags: Vec::new(),
            note: None,
        };
        let conclusion = Conclusion {
            poured: Vec::new(),
            notes: Notes::default(),
            state: State::Complete,
            not_included: Vec::new(),
            finished: Timestamp::now(),
        };
        archive.begin(header, &cx).await?.commit(conclusion, &cx).await
    }

    #[tokio::test]
    async fn a_pipe_that_closes_is_an_error_of_the_destination() {
        for room in [0, 100] {
            assert_eq!(write(Closes(room)).await.unwrap_err().kind(), ErrorKind::Destination, "{room}");
        }
    }

    #[tokio::test]
    async fn what_went_into_a_pipe_comes_out_of_it_and_a_part_of_it_never_does() {
        let (kept, cx) = (Kept::default(), Context::default());
        let made = write(kept.clone()).await.unwrap();
        let bytes = kept.0.lock().unwrap().clone();
        let read = |n: usize| PipeIn::new(io::Cursor::new(bytes[..n].to_vec()), std::env::temp_dir());
        let whole = read(bytes.len());
        assert_eq!(whole.list(&cx).await.unwrap()[0].id, made.id);
        whole.open(&made.id, &cx).await.unwrap();
        assert_eq!(read(0).list(&cx).await.unwrap_err().kind(), ErrorKind::Damaged);
        for n in [1, bytes.len() / 2, bytes.len() - 1] {
            let cut = read(n);
            let listed = cut.list(&cx).await.unwrap();
            assert_eq!((listed.len(), listed[0].state), (1, State::Unknown), "{n}");
            let opened = cut.open(&listed[0].id, &cx).await.err().unwrap();
            assert_eq!(opened.kind(), ErrorKind::Damaged, "{n}");
        }
    }
}
