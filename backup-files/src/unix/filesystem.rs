//! Facts about file systems and this process, and durability.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

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

/// Whether this process runs as root, by its effective user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
