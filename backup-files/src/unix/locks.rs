//! POSIX locks: asked about, never taken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

/// What other processes hold on a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeLock {
    Free,
    Read,
    Write,
}

/// Asks whether another process holds a lock on any byte of the range. Locks of this process are not seen.
pub(crate) fn range_lock(file: &File, start: u64, length: u64) -> io::Result<RangeLock> {
    let conflict =
        |typ| fcntl_getlk(file, &Flock { start, length, pid: None, typ, offset_type: FlockOffsetType::Set });
    // A read lock would conflict with a write lock only.
    if conflict(FlockType::ReadLock)?.is_some() {
        return Ok(RangeLock::Write);
    }
    Ok(if conflict(FlockType::WriteLock)?.is_some() { RangeLock::Read } else { RangeLock::Free })
}

/// Device and inode of the files on which this process holds POSIX locks; empty without `/proc`.
pub(crate) fn locked_by_this_process() -> BTreeSet<(u64, u64)> {
    let own = std::process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: POSIX  ADVISORY  READ 1234 08:01:5678 0 EOF`. The device there is not always the one stat tells (btrfs,
    // overlayfs), so the descriptors are asked, but only if there is any lock of ours.
    let any = locks.lines().any(|line| line.split_whitespace().any(|field| field == own));
    if !any {
        return BTreeSet::new();
    }
    let Ok(descriptors) = fs::read_dir("/proc/self/fdinfo") else { return BTreeSet::new() };
    descriptors
        .flatten()
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|info| info.contains("POSIX")))
        .filter_map(|entry| fs::metadata(format!("/proc/self/fd/{}", entry.file_name().display())).ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect()
}
