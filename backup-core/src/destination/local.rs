//! A folder of a local disk: temporary name, 0600, fsync of file and folder, rename without replace.

use super::{Blob, Destination, Stored, Upload};
use crate::{Error, ErrorKind, Result, buffers::Buffers};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// After this many bytes the kernel is asked to write out what it holds, so that the last fsync has little left to do.
const FLUSH_EVERY: u64 = 8 << 20;
/// Of so many bytes before these the pages are given back, which are on the disk by then, or else later: a backup does not push what
/// applications read out of the memory. Where a host gives a virtual machine its memory as it is first used, using the same pages
/// again costs a fifth, too (400 MB: 0.18 and 0.85 s of CPU time).
const GIVEN_BACK: u64 = 16 << 20;

/// Reads of at least this length use their buffers again, and so many of these are kept.
const LARGE: usize = 256 << 10;
const KEPT_BUFFERS: usize = 4;

/// Begins the names of files that only try whether a folder can be written.
const PROBE: &str = ".backup-probe-";

/// A folder.
#[derive(Clone, Debug)]
pub struct LocalFolder {
    path: PathBuf,
}

impl LocalFolder {
    /// The folder at `path`; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LocalFolder { path: path.into() }
    }

    fn error(&self, operation: &'static str, name: &str, e: io::Error) -> Error {
        let hint = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some space there, or choose another destination")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("its file system is read-only: mount it for writing, or choose another destination")
            }
            _ => None,
        };
        // What was to be read may be missing; where something was to be written, the place itself is.
        let reads = matches!(operation, "open" | "list" | "read");
        let kind = match e.kind() {
            io::ErrorKind::NotFound if reads => ErrorKind::NotFound,
            _ => ErrorKind::Destination,
        };
        let subject = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        let error = Error::io(kind, operation, e).on(subject.display());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn lock_error(&self, name: &str, e: io::Error) -> Error {
        let held = e.kind() == io::ErrorKind::TimedOut;
        let error = self.error("lock the folder", name, e);
        if held { error.hint("wait until it has ended: runs hold it for an instant only") } else { error }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.path.join(temporary_name(name));
        let written = create_private(&temporary).and_then(|mut f| {
            f.write_all(bytes)?;
            f.sync_all()?;
            std::fs::rename(&temporary, self.path.join(name))?;
            sync_folder(&self.path)
        });
        written.map_err(|e| {
            // The provisional file is of no use to anybody; that it cannot be removed adds nothing to the error.
            let _ = std::fs::remove_file(&temporary);
            self.error("write", name, e)
        })
    }

    /// Removes small temporary files. Whoever writes one holds the lock of the folder, as the caller does: they are of runs that
    /// were killed.
    fn clear_small(&self) -> io::Result<()> {
        for item in std::fs::read_dir(&self.path)? {
            let Ok(name) = item?.file_name().into_string() else { continue };
            if name.starts_with(PROBE) || is_temporary_name(&name) {
                match std::fs::remove_file(self.path.join(name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn remove_now(&self, name: &str) -> Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("remove", name, e)),
            _ => sync_folder(&self.path).map_err(|e| self.error("remove", name, e)),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalFolder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let me = self.clone();
        blocking(move || work(&me)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "use the disk", e.to_string())))
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file and its length; `None`: it is something else. Never waits: the opening of a pipe would, for somebody who writes into it.
fn open_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = options.open(path)?;
    let meta = file.metadata()?;
    Ok(meta.is_file().then_some((file, meta.len())))
}

/// The same; what is no file is as if it were not there, as in a list.
fn open_if_there(path: &Path) -> io::Result<Option<(File, u64)>> {
    match open_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened,
    }
}

/// Under what something small is written before it takes its name.
pub(super) fn temporary_name(name: &str) -> String {
    format!(".{}.tmp-{}", name.trim_start_matches('.'), ulid::Ulid::generate())
}

/// Whether a name is one of those above: left by a run that was killed while it wrote.
pub(crate) fn is_temporary_name(name: &str) -> bool {
    let ours = |of: &str| {
        of.starts_with("backup-lock-") || of.ends_with(".manifest.json") || of.ends_with(".state.json")
    };
    name.strip_prefix('.')
        .and_then(|rest| rest.rsplit_once(".tmp-"))
        .is_some_and(|(of, id)| ours(of) && id.len() == 26 && id.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Keeps other processes of this machine from comparing and swapping in the same folder. Held for milliseconds; a process
/// that dies gives it back. On file systems without such locks (some network ones) nothing keeps two processes apart.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let folder = File::open(path)?;
    for _ in 0..1000 {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(std::fs::TryLockError::WouldBlock) => {
                std::thread::sleep(std::time::Duration::from_millis(10))
            }
            Err(std::fs::TryLockError::Error(_)) => return Ok(None),
        }
    }
    let who = holder(path).unwrap_or_else(|| "another process".to_owned());
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{who} holds its lock for more than ten seconds")))
}

/// Who has locked the folder, if somebody has.
pub(crate) fn holder(path: &Path) -> Option<String> {
    let folder = File::open(path).ok()?;
    let Err(std::fs::TryLockError::WouldBlock) = folder.try_lock() else { return None };
    Some(process_of_lock(&folder).unwrap_or_else(|| "another process".to_owned()))
}

/// As far as the system tells: its id and the name of its program.
fn process_of_lock(folder: &File) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = format!(":{}", folder.metadata().ok()?.ino());
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let mut fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held = |f: &Vec<&str>| matches!(f[..], [_, "FLOCK", _, _, _, file, ..] if file.ends_with(&inode));
        let pid: u32 = fields.find(held)?[4].parse().ok().filter(|pid| *pid > 0)?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(format!("process {pid} ({})", name.trim()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        None
    }
}

/// Makes names in a folder durable. Windows has no such call and needs none.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Never replaces: the second of two writers of one name is told so by the system.
fn rename_without_replace(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some network file systems do not know the flag; a hard link does not replace either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
            other => return other.map_err(Into::into),
        }
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

const WRITABLE: &str = "choose a folder that can be written";

/// With this hint, unless it has one already: that of a full disk says more.
fn or_hint(error: Error, hint: &str) -> Error {
    if error.hint_text().is_some() { error } else { error.hint(hint) }
}

impl fmt::Display for LocalFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Destination for LocalFolder {
    async fn prepare(&self) -> Result<()> {
        self.blocking(|me| {
            match std::fs::metadata(&me.path) {
                Ok(m) if m.is_dir() => {}
                Ok(_) => {
                    return Err(Error::new(
                        ErrorKind::Destination,
                        "use the destination",
                        "it is not a folder",
                    )
                    .on(me.path.display()));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // Only the last part: a whole missing path is rather a disk that is not mounted.
                    std::fs::create_dir(&me.path).map_err(|e| {
                        let hint = match e.kind() {
                            io::ErrorKind::NotFound => {
                                "create the folder above it first, or mount the disk it is on"
                            }
                            _ => WRITABLE,
                        };
                        or_hint(me.error("create the destination folder", "", e), hint)
                    })?;
                    if let Some(parent) = me.path.parent().filter(|p| !p.as_os_str().is_empty()) {
                        sync_folder(parent).map_err(|e| me.error("make the folder durable", "", e))?;
                    }
                }
                Err(e) => return Err(me.error("use the destination", "", e)),
            }
            let guard = lock_folder(&me.path).map_err(|e| me.lock_error("", e))?;
            if guard.is_some() {
                me.clear_small().map_err(|e| me.error("remove what a killed run has left", "", e))?;
            }
            let probe = format!("{PROBE}{}", ulid::Ulid::generate());
            create_private(&me.path.join(&probe))
                .and_then(|_| std::fs::remove_file(me.path.join(&probe)))
                .map_err(|e| or_hint(me.error("write to the destination", "", e), WRITABLE))
        })
        .await
    }

    async fn space(&self) -> Result<Option<(u64, u64)>> {
        #[cfg(not(unix))]
        return Ok(None);
        #[cfg(unix)]
        self.blocking(|me| {
            let s =
                rustix::fs::statvfs(&me.path).map_err(|e| me.error("ask for free space", "", e.into()))?;
            // As df counts: what is reserved for root belongs to neither.
            let usable = s.f_blocks.saturating_sub(s.f_bfree).saturating_add(s.f_bavail);
            Ok(Some((s.f_bavail.saturating_mul(s.f_frsize), usable.saturating_mul(s.f_frsize))))
        })
        .await
    }

    async fn create(&self, provisional: &str, names: &[String]) -> Result<Box<dyn Upload>> {
        let (name, names) = (provisional.to_owned(), names.to_vec());
        self.blocking(move |me| {
            let file = create_private(&me.path.join(&name)).map_err(|e| me.error("create", &name, e))?;
            Ok(Box::new(LocalUpload {
                folder: me.clone(),
                name,
                names,
                file: Some(Arc::new(file)),
                written: 0,
                flushed: 0,
            }) as Box<dyn Upload>)
        })
        .await
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Blob>> {
        let name = name.to_owned();
        self.blocking(move |me| {
            let path = me.path.join(&name);
            let opened = open_file(&path).and_then(|opened| {
                opened.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
            });
            let (file, bytes) = opened.map_err(|e| me.error("open", &name, e))?;
            Ok(local_blob(file, bytes, path))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Stored>> {
        self.blocking(|me| {
            let fail = |e| me.error("list", "", e);
            let mut out = Vec::new();
            for item in std::fs::read_dir(&me.path).map_err(fail)? {
                let item = item.map_err(fail)?;
                // A name that is not text is none of ours.
                let Ok(name) = item.file_name().into_string() else { continue };
                let meta = match item.metadata() {
                    Ok(meta) => meta,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(me.error("list", &name, e)),
                };
                if meta.is_file() {
                    let modified = meta.modified().ok().and_then(|t| Timestamp::try_from(t).ok());
                    out.push(Stored { name, bytes: meta.len(), modified: modified.unwrap_or_default() });
                }
            }
            out.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(out)
        })
        .await
    }

    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (name, bytes) = (name.to_owned(), bytes.to_owned());
        self.blocking(move |me| {
            let _guard = lock_folder(&me.path).map_err(|e| me.lock_error(&name, e))?;
            me.replace(&name, &bytes)
        })
        .await
    }

    async fn swap_small(&self, name: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool> {
        let (name, expected, new) = (name.to_owned(), expected.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec));
        self.blocking(move |me| {
            let _guard = lock_folder(&me.path).map_err(|e| me.lock_error(&name, e))?;
            let read = || {
                let Some((mut file, _)) = open_if_there(&me.path.join(&name))? else { return Ok(None) };
                let mut found = Vec::new();
                file.read_to_end(&mut found).map(|_| Some(found))
            };
            let found = read().map_err(|e| me.error("read", &name, e))?;
            if found != expected {
                return Ok(false);
            }
            match new {
                Some(new) => me.replace(&name, &new)?,
                None => me.remove_now(&name)?,
            }
            Ok(true)
        })
        .await
    }

    async fn read_small(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let name = name.to_owned();
        self.blocking(move |me| {
            let opened = open_if_there(&me.path.join(&name)).map_err(|e| me.error("read", &name, e))?;
            let Some((file, _)) = opened else { return Ok(None) };
            let mut out = Vec::new();
            file.take(limit + 1).read_to_end(&mut out).map_err(|e| me.error("read", &name, e))?;
            if out.len() as u64 > limit {
                return Err(Error::damaged("read", format!("it is longer than {limit} bytes"))
                    .on(me.path.join(&name).display()));
            }
            Ok(Some(out.into()))
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |me| me.remove_now(&name)).await
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

struct LocalUpload {
    folder: LocalFolder,
    name: String,
    /// Under the first of these that is free it becomes visible.
    names: Vec<String>,
    file: Option<Arc<File>>,
    written: u64,
    /// Up to here the kernel was asked to write out.
    flushed: u64,
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(file) = self.file.clone() else {
            return Err(Error::contract("a write after the end").on(&self.name));
        };
        self.written += bytes.len() as u64;
        let flush = (self.written - self.flushed >= FLUSH_EVERY)
            .then_some(self.flushed.saturating_sub(GIVEN_BACK)..self.written);
        if let Some(range) = &flush {
            self.flushed = range.end;
        }
        let (folder, name) = (self.folder.clone(), self.name.clone());
        blocking(move || {
            (&*file).write_all(&bytes).map_err(|e| folder.error("write", &name, e))?;
            flush.into_iter().for_each(|range| begin_to_write_out(&file, range));
            Ok(())
        })
        .await
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<String> {
        let Some(file) = self.file.clone() else {
            return Err(Error::contract("a commit after the end").on(&self.name));
        };
        let (folder, provisional) = (self.folder.clone(), self.name.clone());
        let names = std::mem::take(&mut self.names);
        let taken = blocking(move || {
            file.sync_all().map_err(|e| folder.error("make durable", &provisional, e))?;
            let from = folder.path.join(&provisional);
            for name in names {
                match rename_without_replace(&from, &folder.path.join(&name)) {
                    Ok(()) => {
                        sync_folder(&folder.path).map_err(|e| {
                            // An error leaves no backup behind, as far as this disk still does what it is told.
                            let _ = std::fs::remove_file(folder.path.join(&name));
                            folder.error("make durable", &name, e)
                        })?;
                        return Ok(Some(name));
                    }
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(folder.error("name", &name, e)),
                }
            }
            Ok(None)
        })
        .await?;
        taken.inspect(|_| self.file = None).ok_or_else(|| {
            Error::new(ErrorKind::Refused, "name the backup", "the name is taken").on(&self.name)
        })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.file = None;
        self.folder.remove(&self.name).await
    }
}

impl Drop for LocalUpload {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Neither committed nor aborted: a future was dropped. What stays would list as incomplete until the next run.
            let _ = std::fs::remove_file(self.folder.path.join(&self.name));
        }
    }
}

/// An open file of this length. `path` is what errors call it.
pub(crate) fn local_blob(file: File, bytes: u64, path: PathBuf) -> Arc<dyn Blob> {
    Arc::new(LocalBlob { file: Arc::new(file), bytes, path, buffers: Buffers::new(KEPT_BUFFERS) })
}

/// Lets the kernel begin to write out a part of the file, without waiting for it, and give back the pages of what is written out.
/// `fdatasync` would commit the journal of the file system each time, and cost a tenth of a backup's time. A file system that does not take
/// the advice loses nothing.
fn begin_to_write_out(file: &File, range: std::ops::Range<u64>) {
    #[cfg(target_os = "linux")]
    if let Some(length) = std::num::NonZeroU64::new(range.end - range.start) {
        // Pages that are not needed any more are written out first, and dropped only if they are clean.
        let _ = rustix::fs::fadvise(file, range.start, Some(length), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range);
}

struct LocalBlob {
    file: Arc<File>,
    bytes: u64,
    path: PathBuf,
    buffers: Buffers,
}

#[async_trait]
impl Blob for LocalBlob {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(Error::damaged("read", "it ends before what should be there").on(self.path.display()));
        }
        let (file, path, buffers) = (self.file.clone(), self.path.clone(), self.buffers.clone());
        blocking(move || {
            let mut out = if length < LARGE { Vec::new() } else { buffers.take() };
            out.resize(length, 0);
            read_exact_at(&file, &mut out, offset).map_err(|e| {
                let cut = e.kind() == io::ErrorKind::UnexpectedEof;
                let kind = if cut { ErrorKind::Damaged } else { ErrorKind::Destination };
                Error::io(kind, "read", e).on(path.display())
            })?;
            Ok(if length < LARGE { out.into() } else { buffers.lend(out) })
        })
        .await
    }
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                out = &mut out[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(folder: &LocalFolder, provisional: &str, names: &[&str]) -> Result<String> {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut up = folder.create(provisional, &names).await?;
        up.write("bytes".into()).await?;
        up.finish().await?;
        up.commit().await
    }

    #[tokio::test]
    async fn a_name_is_never_overwritten_and_nothing_stays_of_what_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LocalFolder::new(dir.path());
        folder.prepare().await.unwrap();
        assert_eq!(write(&folder, ".p1", &["a"]).await.unwrap(), "a");
        assert_eq!(write(&folder, ".p2", &["a", "a-2"]).await.unwrap(), "a-2");
        assert_eq!(write(&folder, ".p3", &["a"]).await.unwrap_err().kind(), ErrorKind::Refused);
        let up = folder.create(".p4", &[]).await.unwrap();
        up.abort().await.unwrap();
        drop(folder.create(".p5", &[]).await.unwrap());
        let names: Vec<_> = folder.list().await.unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["a", "a-2"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_that_has_the_name_of_a_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LocalFolder::new(dir.path());
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status();
        assert!(made.unwrap().success());
        let e = folder.open("pipe").await.map(drop).unwrap_err();
        assert!(e.to_string().contains("it is not a file"), "{e}");
        assert!(folder.read_small("pipe", 10).await.unwrap().is_none());
        assert!(!folder.swap_small("pipe", Some(b"1"), None).await.unwrap());
        assert!(folder.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_two_swaps_from_the_same_state_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LocalFolder::new(dir.path());
        assert!(folder.swap_small("lock", None, Some(b"1")).await.unwrap());
        assert!(!folder.swap_small("lock", None, Some(b"2")).await.unwrap());
        assert!(folder.swap_small("lock", Some(b"1"), Some(b"3")).await.unwrap());
        assert!(!folder.swap_small("lock", Some(b"1"), None).await.unwrap());
        assert_eq!(folder.read_small("lock", 10).await.unwrap().unwrap(), "3");
        assert!(folder.swap_small("lock", Some(b"3"), None).await.unwrap());
        assert_eq!(folder.list().await.unwrap(), []);
    }

    #[test]
    fn only_our_own_temporary_names_are_known_as_such() {
        for name in [".backup-lock-0123", "x.tar.zst.manifest.json", "x.tar.state.json"] {
            assert!(is_temporary_name(&temporary_name(name)), "{name}");
        }
        assert!(!is_temporary_name(".notes.tmp-01ARZ3NDEKTSV4RRFFQ69G5FAV"));
        assert!(!is_temporary_name(".x.state.json.tmp-1"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn small_files_of_killed_runs_are_gone_when_the_next_one_prepares() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LocalFolder::new(dir.path());
        for name in [temporary_name(".backup-lock-1"), format!("{PROBE}x"), ".notes".into()] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        folder.prepare().await.unwrap();
        let names: Vec<_> = folder.list().await.unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, [".notes"]);
    }

    #[tokio::test]
    async fn a_missing_folder_is_an_error_and_not_an_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LocalFolder::new(dir.path().join("none"));
        assert_eq!(folder.list().await.unwrap_err().kind(), ErrorKind::NotFound);
        let deep = LocalFolder::new(dir.path().join("not/mounted"));
        assert_eq!(deep.prepare().await.unwrap_err().kind(), ErrorKind::Destination);
    }
}
