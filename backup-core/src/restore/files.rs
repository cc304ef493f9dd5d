//! Small durable files: replaced by rename, made durable with their folder, readable by the owner only.

use super::trust;
use crate::{Error, ErrorKind, Result};
use serde::Serialize;
use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |e| Error::io(ErrorKind::Target, what, e).on(path.display())
}

/// The way out where nothing may be written beside the target.
pub(super) fn with_way_out(e: Error) -> Error {
    let refused =
        std::error::Error::source(&e).and_then(|e| e.downcast_ref::<io::Error>()).is_some_and(|e| {
            matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        });
    match refused && e.hint_text().is_none() {
        true => e.hint("restore as a user who may write there (only root gives files their owners), or elsewhere: --to FOLDER"),
        false => e,
    }
}

/// Name under which a file is written before it takes its place.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

/// `None`: there is no such file. `Denied`: others may have written it.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(mut file) = trust::open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed("read the journal of a restore", path))?;
    Ok(Some(bytes))
}

/// Replaces a file; durable when it returns.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    const WHAT: &str = "write the journal of a restore";
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Contract, WHAT, e).on(path.display()))?;
    bytes.push(b'\n');
    let temporary = temporary(path);
    let written = (|| {
        // A leftover of a crash may have other permissions.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = private_file(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    })();
    let written = match written {
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            let _ = fs::remove_file(&temporary);
            overwrite(path, &bytes).map_err(|_| e)
        }
        written => written,
    };
    written.map_err(failed(WHAT, path))
}

/// On a disk that is full, where what is to be written may be what makes room again: over what is there, if that has room for it.
/// One page by one call: it is written or it is not, also by a process that is killed, and where the disk has no room for a copy of
/// the page. Only a loss of power in this moment could leave a part of both.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut file = File::options().write(true).open(path)?;
    let before = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // Blanks after it are no part of what it says.
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(before.min(PAGE)), b' ');
    if before > PAGE || bytes.len() > PAGE || !has_room(&file, bytes.len() as u64)? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if file.write(&bytes)? < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    file.sync_all()
}

/// Whether so many bytes are allocated to it.
#[cfg(unix)]
fn has_room(file: &File, bytes: u64) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata()?;
    Ok(found.len() >= bytes || found.blocks() * 512 >= bytes)
}

#[cfg(not(unix))]
fn has_room(file: &File, bytes: u64) -> io::Result<bool> {
    Ok(file.metadata()?.len() >= bytes)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Removes a file and what a crash left of its writing; durable when it returns. None there is no error.
pub(super) fn remove(path: &Path) -> Result<()> {
    for path in [temporary(path), path.to_owned()] {
        match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path).map_err(failed("remove the journal of a restore", &path))?,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(failed("remove the journal of a restore", &path)(e)),
        }
    }
    Ok(())
}

/// Removes an empty folder; `false`: something is in it. None there is no error.
pub(super) fn remove_dir(path: &Path) -> Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path).map(|()| true).map_err(failed("remove the folder of a restore", path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(e) => Err(failed("remove the folder of a restore", path)(e)),
    }
}

fn builder() -> fs::DirBuilder {
    #[allow(unused_mut, reason = "only Unix has modes")]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// A folder for the owner only, that must not be there yet.
pub(super) fn make_private_dir(path: &Path) -> Result<()> {
    builder()
        .create(path)
        .and_then(|()| sync_parent(path))
        .map_err(|e| with_way_out(failed("make the folder of a restore", path)(e)))
}

/// A folder like any other, in one that is there.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| sync_parent(path))
        .map_err(|e| with_way_out(failed("make the folder above the target", path)(e)))
}

/// A folder with those above it, as far as they are missing.
pub(super) fn make_dirs(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_dirs(above)?;
    }
    match builder().create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed("make the state folder", path)(e)),
        _ => sync_parent(path).map_err(failed("make the state folder", path)),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Other systems cannot open a folder; there a rename is as durable as it gets.
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}

/// A lock file that is ours alone.
pub(super) fn lock_new(path: &Path) -> Result<File> {
    const WHAT: &str = "lock the journal of a restore";
    let file = private_file(path).map_err(failed(WHAT, path))?;
    // Whoever looks for pending restores may hold it for an instant.
    for _ in 0..100 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            // A file system without locks: the stamp of the process has to do.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(failed(WHAT, path)(e)),
        }
    }
    Err(Error::new(ErrorKind::AlreadyRunning, WHAT, "it is held by another process").on(path.display()))
}

/// The lock of a run that another process began.
pub(super) enum Lock {
    /// It goes on.
    Held,
    /// It has ended, and the lock is ours now.
    Taken(File),
    /// There is none of this user's.
    Absent,
}

pub(super) fn lock_existing(path: &Path) -> Result<Lock> {
    let file = match trust::open(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Lock::Absent),
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(Lock::Absent),
        Err(e) => return Err(e),
    };
    // A program that is being started has all open files of its parent, and with them its locks, until it runs: a lock that was
    // given back may be held for an instant yet.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(Lock::Taken(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(_)) => return Ok(Lock::Absent),
        }
    }
    Ok(Lock::Held)
}
