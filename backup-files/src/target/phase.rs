//! How far a publish is, on disk before each step, so that it can be undone from any point.

use crate::{
    spool::{decode, encode},
    stamp::posix_of,
    system,
};
use backup_core::{Entry, Posix, Stage};
use rustix::fs::{AtFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

const PHASE: &[u8] = b"phase";
const PHASE_NEW: &[u8] = b"phase.new";
const ATTRIBUTES: &[u8] = b"attributes";
/// What the restore has put at the top of its target.
pub(crate) const ENTRIES: &[u8] = b"entries";

/// What changes of a file when it is written, and not when it is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) size: u64,
    pub(crate) mtime: (i64, u32),
}

/// A step of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Phase {
    /// The shadow takes the target's place as a whole, by one exchange or two renames. Where it is tells how far that is:
    /// inode numbers survive a reboot, device numbers may not.
    Whole {
        /// Inode of the shadow.
        new: u64,
        /// When it was made, where that is known: numbers are used again.
        #[serde(default)]
        born: Option<(i64, u32)>,
        /// There was something at the target.
        replaces: bool,
        /// It was a folder without data.
        #[serde(default)]
        empty: bool,
        /// What the old data was when its logs left it, if it is a file.
        #[serde(default)]
        old: Option<Written>,
    },
    /// One by one, what is in the target goes to `previous`.
    MovingOut,
    /// One by one, what is in the shadow goes to the target, in which there is nothing old any more.
    MovingIn,
    /// All of that is done.
    Published,
}

/// Durable when it returns.
pub(crate) fn write_phase(home: BorrowedFd<'_>, phase: Phase) -> io::Result<()> {
    remove_file(home, PHASE_NEW)?;
    let mut file = system::create_file(home, PHASE_NEW)?;
    file.write_all(&serde_json::to_vec(&phase)?)?;
    file.sync_all()?;
    system::rename(home, PHASE_NEW, home, PHASE)?;
    system::fsync_dir(home)
}

/// `None`: nothing of what is live was touched.
pub(crate) fn read_phase(home: BorrowedFd<'_>) -> io::Result<Option<Phase>> {
    match system::open_file_at(home, PHASE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        file => {
            let mut text = Vec::new();
            file?.take(4096).read_to_end(&mut text)?;
            Ok(Some(serde_json::from_slice(&text)?))
        }
    }
}

/// The last act of a revert or settle.
pub(crate) fn forget(home: BorrowedFd<'_>) -> io::Result<()> {
    for name in [PHASE_NEW, ATTRIBUTES, ENTRIES, PHASE] {
        remove_file(home, name)?;
    }
    system::fsync_dir(home)
}

fn remove_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Keeps the attributes of a folder that stays where it is while what is in it moves. Durable when it returns.
pub(crate) fn remember_attributes(home: BorrowedFd<'_>, path: &[u8], posix: Posix) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, openat};
    let mut entry = Entry::file(path.to_vec(), Stage::Complete);
    entry.posix = Some(posix);
    let mut record = Vec::new();
    encode(&entry, &mut record);
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(home, ATTRIBUTES, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(&record)?;
    file.sync_all()
}

/// All that was remembered, in order; a record that was cut short by a crash was not acted upon.
pub(crate) fn remembered_attributes(home: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Posix)>> {
    let file = match system::open_file_at(home, ATTRIBUTES) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut reader = io::BufReader::new(file);
    let mut out = Vec::new();
    while let Ok(entry) = decode(&mut reader) {
        out.extend(entry.posix.map(|posix| (entry.path.to_vec(), posix)));
    }
    Ok(out)
}

/// The attributes of an open folder.
pub(crate) fn attributes_of(dir: BorrowedFd<'_>) -> io::Result<Posix> {
    posix_of(&system::stat_fd(dir.as_fd())?, dir)
}
