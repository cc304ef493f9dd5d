//! Making things in an open folder, each with the least permissions, never over something else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat, renameat_with, symlinkat,
};

use super::beneath::{check_name, open_parent_beneath};
use super::stat::Kind;

const OWNER_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A new file, 0600, open for reading and writing.
pub(crate) fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    check_name(name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, OWNER_FILE)?.into())
}

/// A new folder, 0700.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    check_name(name)?;
    Ok(mkdirat(dir, name, Mode::RWXU)?)
}

/// A new symbolic link with any content.
pub(crate) fn make_symlink(target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    check_name(name)?;
    Ok(symlinkat(target, dir, name)?)
}

/// A second name for `existing`, found beneath `root`; for a symbolic link, of the link itself.
pub(crate) fn make_hard_link(
    root: BorrowedFd<'_>,
    existing: &[u8],
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    check_name(name)?;
    let (parent, last) = open_parent_beneath(root, existing, false)?;
    Ok(linkat(parent.as_fd(), &last[..], dir, name, AtFlags::empty())?)
}

/// A new FIFO, 0600.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn make_fifo(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    check_name(name)?;
    Ok(rustix::fs::mkfifoat(dir, name, OWNER_FILE)?)
}

/// A new device, 0600; needs privileges.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn make_device(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    use rustix::fs::{FileType, makedev, mknodat};
    check_name(name)?;
    let kind = match kind {
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::CharacterDevice => FileType::CharacterDevice,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device")),
    };
    Ok(mknodat(dir, name, kind, OWNER_FILE, makedev(major, minor))?)
}

/// There is no such call relative to a folder.
#[cfg(target_vendor = "apple")]
pub(crate) fn make_fifo(_dir: BorrowedFd<'_>, _name: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no such call relative to a folder.
#[cfg(target_vendor = "apple")]
pub(crate) fn make_device(
    _dir: BorrowedFd<'_>,
    _name: &[u8],
    _kind: Kind,
    _major: u32,
    _minor: u32,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Swaps two names in one step; both exist before and after. Not every file system can.
pub(crate) fn exchange(a: BorrowedFd<'_>, a_name: &[u8], b: BorrowedFd<'_>, b_name: &[u8]) -> io::Result<()> {
    Ok(renameat_with(a, a_name, b, b_name, RenameFlags::EXCHANGE)?)
}

/// `AlreadyExists` if the new name is taken.
pub(crate) fn rename_noreplace(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> io::Result<()> {
    Ok(renameat_with(from, from_name, to, to_name, RenameFlags::NOREPLACE)?)
}

/// Replaces what has the new name.
pub(crate) fn rename(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> io::Result<()> {
    Ok(renameat(from, from_name, to, to_name)?)
}
