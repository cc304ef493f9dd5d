//! Facts about file systems and this process, and durability.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{fsync, stat, statvfs};

/// Bytes, and inodes, which an unprivileged process may still use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free: u64,
    pub(crate) total: u64,
    /// Zero on file systems without a fixed number of inodes: see `inodes`.
    pub(crate) free_inodes: u64,
    /// Zero: the file system does not count them.
    pub(crate) inodes: u64,
}

/// Of the file system that holds `path`.
pub(crate) fn free_space(path: &Path) -> io::Result<Space> {
    let space = statvfs(path)?;
    Ok(Space {
        free: space.f_bavail.saturating_mul(space.f_frsize),
        total: space.f_blocks.saturating_mul(space.f_frsize),
        free_inodes: space.f_favail,
        inodes: space.f_files,
    })
}

/// The device number of the file system that holds `path`, links followed.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "its type differs between systems")]
pub(crate) fn device_id(path: &Path) -> io::Result<u64> {
    Ok(stat(path)?.st_dev as u64)
}

/// Whether something is mounted at `path`, bind mounts included where the kernel tells (Linux 5.8).
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let dir = super::files::open_dir(path)?;
    is_mount_root(std::os::fd::AsFd::as_fd(&dir))
}

/// As [`is_mount_point`], of an open folder.
pub(super) fn is_mount_root(dir: BorrowedFd<'_>) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
        if let Ok(found) = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        {
            return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
    }
    let (own, parent) = (super::stat_fd(dir)?, super::stat_at(dir, b"..")?);
    Ok(own.dev != parent.dev || own.ino == parent.ino)
}

/// What is mounted somewhere inside this folder, given without links; what is mounted at the folder itself does not
/// count. Nothing where the system does not tell (only Linux does).
pub(crate) fn mounts_beneath(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let table = match std::fs::read("/proc/self/mountinfo") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        table => table?,
    };
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|point| super::path_from_bytes(unescaped(point)));
    // One that another mount hides is not there.
    let is_there = |point: &PathBuf| {
        !std::fs::symlink_metadata(point).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    };
    Ok(points.filter(|point| point.starts_with(folder) && point != folder).filter(is_there).collect())
}

/// The table has spaces, tabs, line ends and backslashes as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digits = text.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let number = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(number.unwrap_or(*byte));
        at += if number.is_some() { 4 } else { 1 };
    }
    out
}

/// Names made, renamed and removed in a folder are durable after this.
pub(crate) fn fsync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fsync(dir)?)
}

/// Everything on the file system of `file` is durable after this.
pub(crate) fn sync_filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::fs::syncfs(file)?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = file;
        rustix::fs::sync();
    }
    Ok(())
}

/// Whose files are made by this process: its effective user.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process runs as root, by its effective user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_in_the_table_of_mounts_are_read() {
        assert_eq!(super::unescaped(b"/a\\040b\\134\\012c\\"), b"/a b\\\nc\\");
    }
}
