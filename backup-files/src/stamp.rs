//! What the system says of a file, as the archive keeps it, and whether it has changed since.

use crate::system::{self, Stat, Xattr};
use backup_core::{Kind, Posix};
use bytes::Bytes;
use std::{
    io,
    os::fd::AsFd,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The kind of entry it is; `None`: a socket, or what systems to come have.
pub(crate) fn entry_kind(stat: &Stat) -> Option<Kind> {
    match stat.kind {
        system::Kind::File => Some(Kind::File),
        system::Kind::Directory => Some(Kind::Directory),
        system::Kind::Symlink => Some(Kind::Symlink),
        system::Kind::Fifo => Some(Kind::Fifo),
        system::Kind::CharacterDevice => Some(Kind::CharDevice),
        system::Kind::BlockDevice => Some(Kind::BlockDevice),
        system::Kind::Socket | system::Kind::Unknown => None,
    }
}

/// What differs whenever the content differs: size, time of change, time of the last change of anything, inode.
pub(crate) fn fingerprint(stat: &Stat) -> Bytes {
    let mut out = Vec::with_capacity(40);
    out.extend_from_slice(&stat.size.to_le_bytes());
    for (seconds, nanoseconds) in [stat.mtime, stat.ctime] {
        out.extend_from_slice(&seconds.to_le_bytes());
        out.extend_from_slice(&nanoseconds.to_le_bytes());
    }
    out.extend_from_slice(&stat.ino.to_le_bytes());
    out.into()
}

/// Owner, mode, time, device numbers and these extended attributes.
pub(crate) fn posix(stat: &Stat, xattrs: Vec<Xattr>) -> Posix {
    let is_device = matches!(stat.kind, system::Kind::CharacterDevice | system::Kind::BlockDevice);
    Posix {
        mode: stat.mode,
        uid: u64::from(stat.uid),
        gid: u64::from(stat.gid),
        mtime: stat.mtime,
        xattrs: xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        device: is_device.then_some(stat.rdev),
    }
}

/// The same of an open file or folder, with its extended attributes.
pub(crate) fn posix_of(stat: &Stat, fd: impl AsFd) -> io::Result<Posix> {
    Ok(posix(stat, system::list_xattrs(fd.as_fd())?))
}

/// What happened to a file while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It is longer than it was: a log, most likely.
    Grew,
    Content,
}

/// How long after a change another one may leave the same times: clocks of file systems tick every 1 to 10 ms.
const TICK: Duration = Duration::from_millis(50);

/// Whether the file was changed so shortly before `now` that its times may not tell the next change.
pub(crate) fn is_fresh(stat: &Stat, now: SystemTime) -> bool {
    let (seconds, nanoseconds) = stat.ctime;
    let Ok(seconds) = u64::try_from(seconds) else { return false };
    let changed = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    match now.duration_since(changed) {
        Ok(age) => age < TICK,
        // The clock of a file server may be ahead a little.
        Err(ahead) => ahead.duration() < TICK,
    }
}

/// How the file differs from what it was `before`.
pub(crate) fn change_since(before: &Stat, now: &Stat) -> Change {
    if now.size > before.size {
        Change::Grew
    } else if (now.size, now.mtime, now.ctime) == (before.size, before.mtime, before.ctime) {
        Change::None
    } else if (now.size, now.mtime) == (before.size, before.mtime) && now.nlink != before.nlink {
        // It got or lost a name.
        Change::None
    } else {
        Change::Content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_a_moment_ago_is_fresh() {
        let file = tempfile::tempfile().unwrap();
        let stat = system::stat_fd(file.as_fd()).unwrap();
        let changed = UNIX_EPOCH + Duration::new(u64::try_from(stat.ctime.0).unwrap(), stat.ctime.1);
        let fresh = |milliseconds| is_fresh(&stat, changed + Duration::from_millis(milliseconds));
        assert!(fresh(0) && fresh(49) && !fresh(50) && !fresh(5000));
        assert!(is_fresh(&stat, changed - Duration::from_millis(10)));
        assert!(!is_fresh(&stat, changed - Duration::from_secs(3600)));
    }
}
