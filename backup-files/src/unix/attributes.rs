//! Owner, permissions, extended attributes and times of what was restored.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat,
    fchmod, openat, utimensat,
};
use rustix::io::Errno;

use super::stat::{Kind, stat_at, stat_fd};
use super::xattr::{Xattr, set_xattr_at};

/// What is to be set; None is left as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) owner: Option<(u32, u32)>,
    /// The twelve permission bits.
    pub(crate) mode: Option<u32>,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<Xattr>,
}

/// Sets all that can be set, and returns what could not, with the reason.
///
/// In this order, because each step undoes some of a later one:
/// 1. the owner: changing it clears the set-user-id bits and `security.capability`;
/// 2. extended attributes but ACLs: their owner needs the right to write, which the mode may take away;
/// 3. the mode (not of a symbolic link, which has none);
/// 4. ACLs and whatever else is of the file system (`system.`): they contain the mode's group bits, or are replaced by it;
/// 5. the time, which nothing after it changes.
pub(crate) fn apply_attributes(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Vec<(String, io::Error)> {
    let mut failed = Vec::new();
    let mut note = |what: String, outcome: io::Result<()>| {
        if let Err(error) = outcome {
            failed.push((what, error));
        }
    };
    let symlink = stat_at(dir, name).is_ok_and(|stat| stat.kind == Kind::Symlink);
    let (acls, others): (Vec<_>, Vec<_>) =
        attributes.xattrs.iter().partition(|(key, _)| key.starts_with(b"system."));
    let xattr =
        |(key, value): &Xattr| (format!("xattr {}", key.escape_ascii()), set_xattr_at(dir, name, key, value));

    if let Some((uid, gid)) = attributes.owner {
        note("owner".into(), set_owner(dir, name, uid, gid));
    }
    for (what, outcome) in others.into_iter().map(xattr) {
        note(what, outcome);
    }
    if let Some(mode) = attributes.mode.filter(|_| !symlink) {
        note("mode".into(), set_mode(dir, name, mode));
    }
    for (what, outcome) in acls.into_iter().map(xattr) {
        note(what, outcome);
    }
    if let Some(mtime) = attributes.mtime {
        note("time".into(), set_times(dir, name, mtime));
    }
    failed
}

/// Of a symbolic link itself.
pub(crate) fn set_owner(dir: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    if uid == u32::MAX || gid == u32::MAX {
        // "Leave as it is" to the kernel.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Never through a symbolic link: an error for one.
pub(crate) fn set_mode(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "sixteen bits on some systems"
    )]
    let mode = Mode::from_raw_mode((mode & 0o7777) as RawMode);
    // A descriptor that needs no permission and opens no device; the kernel sets modes through its /proc name only.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let handle = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if stat_fd(handle.as_fd())?.kind == Kind::Symlink {
            return Err(Errno::LOOP.into());
        }
        match chmodat(CWD, format!("/proc/self/fd/{}", handle.as_raw_fd()), mode, AtFlags::empty()) {
            // No /proc.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            set => return Ok(set?),
        }
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fchmod(openat(dir, name, flags, Mode::empty())?, mode)?)
}

/// The time of the last change of content, of a symbolic link itself; the access time stays.
pub(crate) fn set_times(dir: BorrowedFd<'_>, name: &[u8], mtime: (i64, u32)) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() },
    };
    Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
