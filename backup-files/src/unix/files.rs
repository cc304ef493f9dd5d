//! Opening and reading files, folders and symbolic links.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// NONBLOCK: a FIFO which took a file's place must not hang the run.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens a folder by its path; its last component may not be a symbolic link, the others may.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Opens a folder in a folder.
pub(crate) fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// Opens a file in a folder for reading, without changing its access time where that is permitted. It may have
/// become something else since it was listed: compare with [`super::stat_fd`].
pub(crate) fn open_file_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match openat(dir, name, FILE | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => {}
        opened => return Ok(opened?.into()),
    }
    Ok(openat(dir, name, FILE, Mode::empty())?.into())
}

/// As [`open_file_at`], by path.
pub(crate) fn open_for_reading(path: &Path) -> io::Result<File> {
    open_file_at(CWD, path.as_os_str().as_bytes())
}

/// Fills `buffer` from `offset` on; less than its length means the end of the file.
pub(crate) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where a symbolic link points to, as stored.
pub(crate) fn read_link_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Device and inode.
pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Seconds and nanoseconds of the last change of content or attributes, which nobody can set.
pub(crate) fn change_time(metadata: &Metadata) -> (i64, u32) {
    (metadata.ctime(), u32::try_from(metadata.ctime_nsec()).unwrap_or(0))
}

pub(crate) fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

pub(crate) fn path_to_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// The names in a folder, read a buffer at a time; without `.` and `..`, in no order.
pub(crate) struct DirNames(rustix::fs::Dir);

/// Lists a folder with a position of its own: the descriptor's is left alone.
pub(crate) fn read_dir(dir: BorrowedFd<'_>) -> io::Result<DirNames> {
    Ok(DirNames(rustix::fs::Dir::read_from(dir.as_fd())?))
}

impl Iterator for DirNames {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        loop {
            match self.0.read()? {
                Err(error) => return Some(Err(error.into())),
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => return Some(Ok(name.to_vec())),
                },
            }
        }
    }
}
