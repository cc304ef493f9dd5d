//! The files of a server as OpenDAL takes them.

use super::connection::{Held, Login, Pool, error};
use bytes::{Buf, BytesMut};
use futures::StreamExt;
use opendal::{
    Buffer, Builder, BytesRange, Capability, EntryMode, Error, ErrorKind, Metadata, MetadataBuilder,
    OperationContext, Result, raw::*,
};
use openssh_sftp_client::{
    Error as SftpError,
    error::SftpErrorKind,
    file::{File, TokioCompatFile},
    fs::ReadDir,
    metadata::MetaData,
};
use std::{fmt, io::SeekFrom, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncSeekExt, AsyncWriteExt},
    time::timeout,
};

/// So much is asked for at once; a server may give less.
const PIECE: u64 = 2 << 20;
/// So long a server may take to write a file out to its disk: a large one on a slow disk needs minutes.
pub(super) const SYNC: Duration = Duration::from_secs(600);

/// All files that the user sees. A clone is the same.
#[derive(Clone)]
pub(super) struct Files {
    pool: Pool,
    /// `/`, or empty: where the user begins.
    root: &'static str,
    /// So long a server may take for a piece of a file or a listing. The other calls are limited from outside.
    patience: Duration,
}

impl Files {
    pub(super) fn new(login: Login, root: &'static str, patience: Duration) -> Self {
        Files { pool: Pool::new(login), root, patience }
    }

    /// A path as the server takes it.
    fn at(&self, path: &str) -> String {
        match (self.root, path.trim_start_matches('/')) {
            ("", "") => ".".to_owned(),
            (root, path) => format!("{root}{path}"),
        }
    }
}

/// What OpenDAL wants a builder to be.
impl Default for Files {
    fn default() -> Self {
        Files::new(Login::default(), "", Duration::default())
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

impl Builder for Files {
    type Config = ();

    fn build(self) -> Result<impl Service> {
        Ok(self)
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "SFTP cannot do that")
}

impl Service for Files {
    type Reader = oio::StreamReader<Reader>;
    type Writer = Writer;
    type Lister = Lister;
    type Deleter = oio::OneShotDeleter<Deleter>;
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        ServiceInfo::new("sftp", self.root, "")
    }

    fn capability(&self) -> Capability {
        Capability {
            stat: true,
            read: true,
            write: true,
            write_can_multi: true,
            write_with_if_not_exists: true,
            create_dir: true,
            delete: true,
            list: true,
            rename: true,
            shared: true,
            ..Default::default()
        }
    }

    async fn create_dir(&self, _: &OperationContext, path: &str, _: OpCreateDir) -> Result<RpCreateDir> {
        let held = self.pool.take().await?;
        let (mut fs, path) = (held.fs(), self.at(path));
        let path = path.trim_end_matches('/');
        let made = match fs.create_dir(path).await {
            // Servers say "failure" for what exists.
            Err(e @ SftpError::SftpError(..)) => match fs.metadata(path).await {
                Ok(found) if is_folder(&found) => Ok(()),
                _ => Err(e),
            },
            made => made,
        };
        held.end(made).map(|()| RpCreateDir::default())
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> Result<RpStat> {
        let held = self.pool.take().await?;
        let found = held.fs().metadata(self.at(path)).await;
        Ok(RpStat::new(metadata(held.end(found)?)?))
    }

    fn read(&self, _: &OperationContext, path: &str, _: OpRead) -> Result<Self::Reader> {
        let (pool, path) = (self.pool.clone(), self.at(path));
        Ok(oio::StreamReader::new(Reader { pool, path, patience: self.patience }))
    }

    fn write(&self, _: &OperationContext, path: &str, args: OpWrite) -> Result<Self::Writer> {
        let (pool, path) = (self.pool.clone(), self.at(path));
        let (only_new, patience) = (args.if_not_exists(), self.patience);
        Ok(Writer { pool, path, only_new, patience, open: None, broken: false })
    }

    fn delete(&self, _: &OperationContext) -> Result<Self::Deleter> {
        Ok(oio::OneShotDeleter::new(Deleter(self.clone())))
    }

    fn list(&self, _: &OperationContext, path: &str, _: OpList) -> Result<Self::Lister> {
        let prefix = if path == "/" { String::new() } else { path.to_owned() };
        let (pool, path, patience) = (self.pool.clone(), self.at(path), self.patience);
        Ok(Lister { pool, path, prefix, patience, open: None })
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> Result<Self::Copier> {
        Err(unsupported())
    }

    async fn rename(&self, _: &OperationContext, from: &str, to: &str, _: OpRename) -> Result<RpRename> {
        let held = self.pool.take().await?;
        let renamed = held.fs().rename(self.at(from), self.at(to)).await;
        held.end(renamed).map(|()| RpRename::default())
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> Result<RpPresign> {
        Err(unsupported())
    }
}

/// The answer to one call, or an error when it does not come in time.
async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(patience, answer).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} seconds", patience.as_secs());
        Err(Error::new(ErrorKind::Unexpected, text).set_temporary())
    })
}

fn is_folder(found: &MetaData) -> bool {
    found.file_type().is_some_and(|kind| kind.is_dir())
}

fn metadata(found: MetaData) -> Result<Metadata> {
    let mut out = match found.file_type() {
        Some(kind) if kind.is_file() => {
            let length = found.len();
            MetadataBuilder::file(length.ok_or_else(|| {
                Error::new(ErrorKind::Unexpected, "the server does not tell how long the file is")
            })?)
        }
        Some(kind) if kind.is_dir() => MetadataBuilder::dir(),
        _ => MetadataBuilder::unknown(),
    };
    if let Some(Ok(modified)) = found.modified().map(|at| Timestamp::try_from(at.as_system_time())) {
        out.last_modified(modified);
    }
    Ok(out.build())
}

/// Reads ranges of a file.
pub(super) struct Reader {
    pool: Pool,
    path: String,
    patience: Duration,
}

/// The file is closed before its connection is given back.
struct Reading {
    file: File,
    at: u64,
    left: u64,
    patience: Duration,
    held: Held,
}

impl oio::StreamRead for Reader {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let opening = async {
            let held = self.pool.take().await?;
            match held.open(&self.path).await {
                Ok(file) => Ok((file, held)),
                Err(e) => held.end(Err(e)),
            }
        };
        let (file, held) = within(2 * self.patience, opening).await?;
        let (at, left) = (range.offset(), range.size().unwrap_or(u64::MAX));
        Ok((RpRead::default(), Box::new(Reading { file, at, left, patience: self.patience, held })))
    }
}

impl oio::ReadStream for Reading {
    async fn read(&mut self) -> Result<Buffer> {
        if self.left == 0 {
            self.held.answered();
            return Ok(Buffer::new());
        }
        let most = self.left.min(PIECE) as usize;
        // The library goes on behind what it asked for, also where less has come.
        self.file.seek(SeekFrom::Start(self.at)).await.map_err(new_std_io_error)?;
        let reading = self.file.read(most as u32, BytesMut::with_capacity(most));
        let read = within(self.patience, async { reading.await.map_err(error) }).await?;
        let bytes = read.unwrap_or_default().freeze();
        if bytes.len() > most {
            return Err(Error::new(ErrorKind::Unexpected, "the server sends more than it was asked for"));
        }
        self.at += bytes.len() as u64;
        self.left = if bytes.is_empty() { 0 } else { self.left - bytes.len() as u64 };
        if self.left == 0 {
            self.held.answered();
        }
        Ok(Buffer::from(bytes))
    }
}

/// Writes a file from its beginning.
pub(super) struct Writer {
    pool: Pool,
    path: String,
    only_new: bool,
    patience: Duration,
    open: Option<(Pin<Box<TokioCompatFile>>, Held)>,
    /// A call of it failed or did not come back: what the server has is not known, and the library forgets what it has refused.
    broken: bool,
}

impl Writer {
    async fn begin(&self) -> Result<(Pin<Box<TokioCompatFile>>, Held)> {
        let held = self.pool.take().await?;
        let mut options = held.options();
        options.write(true).truncate(true);
        match self.only_new {
            true => options.create_new(true),
            false => options.create(true),
        };
        match options.open(&self.path).await {
            Ok(file) => Ok((Box::pin(TokioCompatFile::new(file)), held)),
            // Servers say "failure" for what exists.
            Err(e @ SftpError::SftpError(SftpErrorKind::Failure, _)) if self.only_new => {
                let exists = held.fs().metadata(&self.path).await.is_ok();
                let refused = held.end(Err(e));
                match exists {
                    true => Err(Error::new(ErrorKind::ConditionNotMatch, "the file exists")),
                    false => refused,
                }
            }
            Err(e) => held.end(Err(e)),
        }
    }

    fn not_broken(&self) -> Result<()> {
        match self.broken {
            true => Err(Error::new(ErrorKind::Unexpected, "a write before has failed").set_persistent()),
            false => Ok(()),
        }
    }

    async fn file(&mut self) -> Result<&mut Pin<Box<TokioCompatFile>>> {
        if self.open.is_none() {
            self.open = Some(within(2 * self.patience, self.begin()).await?);
        }
        let open = self.open.as_mut().map(|(file, _)| file);
        open.ok_or_else(|| Error::new(ErrorKind::Unexpected, "the file is not open"))
    }
}

/// A write that has failed is not tried again: nobody knows what of it the server has.
fn lasting(e: std::io::Error) -> Error {
    new_std_io_error(e).set_persistent()
}

impl oio::Write for Writer {
    async fn write(&mut self, mut bytes: Buffer) -> Result<()> {
        self.not_broken()?;
        self.file().await?;
        self.broken = true;
        let patience = self.patience;
        let file = self.file().await?;
        while bytes.has_remaining() {
            let writing = async { file.write(bytes.chunk()).await.map_err(lasting) };
            let n = within(patience, writing).await?;
            bytes.advance(n);
        }
        self.broken = false;
        Ok(())
    }

    /// Every byte is confirmed, and on the disk where the server can say so.
    async fn close(&mut self) -> Result<Metadata> {
        self.not_broken()?;
        self.file().await?;
        self.broken = true;
        let patience = self.patience;
        let file = self.file().await?;
        within(patience, async { file.shutdown().await.map_err(lasting) }).await?;
        if let Some((mut file, mut held)) = self.open.take() {
            let syncing = async {
                match file.as_mut().as_mut_file().sync_all().await {
                    Ok(()) | Err(SftpError::UnsupportedExtension(_)) => Ok(()),
                    Err(e) => Err(error(e).set_persistent()),
                }
            };
            within(SYNC, syncing).await.map_err(Error::set_persistent)?;
            drop(file);
            held.answered();
        }
        self.broken = false;
        Ok(MetadataBuilder::unknown().build())
    }

    /// What was written is removed by whoever has begun it.
    async fn abort(&mut self) -> Result<()> {
        self.open = None;
        Ok(())
    }
}

/// What is in a folder; a folder that is not there is an empty one.
pub(super) struct Lister {
    pool: Pool,
    path: String,
    prefix: String,
    patience: Duration,
    open: Option<Option<(Pin<Box<ReadDir>>, Held)>>,
}

impl Lister {
    async fn begin(&self) -> Result<Option<(Pin<Box<ReadDir>>, Held)>> {
        let held = self.pool.take().await?;
        match held.fs().open_dir(&self.path).await {
            Ok(folder) => Ok(Some((Box::pin(folder.read_dir()), held))),
            Err(e) => match held.end(Err(e)) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                refused => refused,
            },
        }
    }
}

impl oio::List for Lister {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        if self.open.is_none() {
            self.open = Some(within(2 * self.patience, self.begin()).await?);
        }
        let patience = self.patience;
        let Some(Some((folder, held))) = &mut self.open else { return Ok(None) };
        loop {
            let next = async { folder.next().await.transpose().map_err(error) };
            let Some(entry) = within(patience, next).await? else {
                held.answered();
                self.open = Some(None);
                return Ok(None);
            };
            // A name that is no text is none of ours.
            let Some(name) = entry.filename().to_str() else { continue };
            let found = metadata(entry.metadata())?;
            let folder = if found.mode() == EntryMode::DIR { "/" } else { "" };
            let path = match name {
                ".." => continue,
                "." if self.prefix.is_empty() => "/".to_owned(),
                "." => self.prefix.clone(),
                name => format!("{}{name}{folder}", self.prefix),
            };
            return Ok(Some(oio::Entry::new(&path, found)));
        }
    }
}

pub(super) struct Deleter(Files);

impl oio::OneShotDelete for Deleter {
    async fn delete_once(&self, path: String, _: OpDelete) -> Result<()> {
        let held = self.0.pool.take().await?;
        let (mut fs, at) = (held.fs(), self.0.at(&path));
        let removed = match path.ends_with('/') {
            true => fs.remove_dir(at).await,
            false => fs.remove_file(at).await,
        };
        match held.end(removed) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
