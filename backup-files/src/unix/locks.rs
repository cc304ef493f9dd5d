//! POSIX locks: asked about, never taken.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

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

/// How many descriptors this process has on each file; `None` without `/proc`.
fn descriptors() -> Option<HashMap<(u64, u64), usize>> {
    let mut found = HashMap::new();
    for descriptor in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        if let Ok(metadata) = fs::metadata(descriptor.path()) {
            *found.entry((metadata.dev(), metadata.ino())).or_default() += 1;
        }
    }
    Some(found)
}

/// How many descriptors this process has on the file of this device and inode; `None` without `/proc`.
pub(crate) fn descriptors_on(identity: (u64, u64)) -> Option<usize> {
    Some(descriptors()?.get(&identity).copied().unwrap_or(0))
}

/// Files that may not be closed yet.
static PARKED: Mutex<Vec<((u64, u64), File)>> = Mutex::new(Vec::new());

/// Closes a file on which a SQLite connection of this process may hold locks: closing any descriptor drops them all.
/// As long as this process has others on it, it stays open. At once where there is no `/proc`.
pub(crate) fn close_database(file: File) {
    let Ok(metadata) = file.metadata() else { return };
    let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    parked.push(((metadata.dev(), metadata.ino()), file));
    close_unused(&mut parked);
}

/// Closes what [`close_database`] kept open and need not be any more.
pub(crate) fn close_parked() {
    close_unused(&mut PARKED.lock().unwrap_or_else(PoisonError::into_inner));
}

fn close_unused(parked: &mut Vec<((u64, u64), File)>) {
    if parked.is_empty() {
        return;
    }
    let open = descriptors().unwrap_or_default();
    let mut ours = HashMap::new();
    for (identity, _) in parked.iter() {
        *ours.entry(*identity).or_insert(0) += 1;
    }
    parked.retain(|(identity, _)| open.get(identity) > ours.get(identity));
}

/// The descriptor that was kept on this file, so that those of a process that runs for long do not become ever more.
pub(crate) fn take_parked(identity: (u64, u64)) -> Option<File> {
    let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = parked.iter().position(|(parked, _)| *parked == identity)?;
    Some(parked.swap_remove(at).1)
}

/// Whether [`close_database`] keeps any open.
pub(crate) fn any_parked() -> bool {
    !PARKED.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}
