//! Which of what is at the top of a target the restore has put there.

use crate::{system, target::phase::ENTRIES};
use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::fd::{AsFd, BorrowedFd},
};

/// What a file keeps when it is renamed, and after a reboot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Id {
    pub(super) ino: u64,
    /// Inode numbers are used again. None where the system does not tell.
    pub(super) born: Option<(i64, u32)>,
}

impl Id {
    pub(super) fn is(self, other: Id) -> bool {
        let born = self.born.zip(other.born).is_none_or(|(a, b)| a == b);
        self.ino == other.ino && born
    }
}

/// What has this name; `None`: nothing.
pub(super) fn found(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Id>> {
    match system::stat_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        stat => Ok(Some(Id { ino: stat?.ino, born: system::birth_time_at(dir, name) })),
    }
}

/// Writes down all that is in the shadow, before any of it is moved. Durable when it returns.
pub(super) fn record(home: BorrowedFd<'_>, shadow: BorrowedFd<'_>) -> io::Result<()> {
    let names = system::read_dir(shadow)?.collect::<io::Result<Vec<_>>>()?;
    let mut text = Vec::new();
    for name in names {
        if let Some(id) = found(shadow, &name)? {
            line(&name, id, &mut text)?;
        }
    }
    append(home, &text)?;
    system::fsync_dir(home)
}

/// The same for a folder that was made again because it cannot be renamed.
pub(super) fn record_one(home: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mut text = Vec::new();
    if let Some(id) = found(dir, name)? {
        line(name, id, &mut text)?;
    }
    append(home, &text)
}

fn line(name: &[u8], id: Id, text: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *text, &(name, id))?;
    text.push(b'\n');
    Ok(())
}

fn append(home: BorrowedFd<'_>, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(home.as_fd(), ENTRIES, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(text)?;
    file.sync_all()
}

/// Names, sorted.
pub(super) type Recorded = Vec<(Vec<u8>, Id)>;

/// All that was written down, sorted by name; `None`: nothing was, by an older version.
pub(super) fn recorded(home: BorrowedFd<'_>) -> io::Result<Option<Recorded>> {
    let file = match system::open_file_at(home, ENTRIES) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut all = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        // One that was cut short by a crash was not acted upon.
        all.extend(serde_json::from_slice::<(Vec<u8>, Id)>(&line?).ok());
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Some(all))
}

/// Overlays of several file systems number their files anew; two that were made in one moment are both from the shadow.
fn same_birth(a: Id, b: Id) -> bool {
    a.born.is_some() && a.born == b.born
}

/// Whether what has this name now is what was written down.
pub(super) fn is_recorded(all: &[(Vec<u8>, Id)], name: &[u8], id: Id) -> bool {
    let first = all.partition_point(|(other, _)| &other[..] < name);
    all[first..]
        .iter()
        .take_while(|(other, _)| other == name)
        .any(|(_, recorded)| recorded.is(id) || same_birth(*recorded, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_number_that_is_used_again_is_another_file() {
        let id = |ino, born| Id { ino, born };
        assert!(id(1, Some((5, 6))).is(id(1, Some((5, 6)))));
        assert!(!id(1, Some((5, 6))).is(id(1, Some((5, 7)))));
        assert!(!id(1, None).is(id(2, None)));
        // Told once, and not by the next kernel.
        assert!(id(1, Some((5, 6))).is(id(1, None)));
    }

    #[test]
    fn what_is_recorded_is_known_again_and_a_line_cut_short_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = system::open_dir(dir.path()).unwrap();
        assert!(recorded(open.as_fd()).unwrap().is_none());
        std::fs::create_dir(dir.path().join("shadow")).unwrap();
        let shadow = system::open_dir(&dir.path().join("shadow")).unwrap();
        for name in ["a", "new\nline", "z"] {
            std::fs::write(dir.path().join("shadow").join(name), name).unwrap();
        }
        record(open.as_fd(), shadow.as_fd()).unwrap();
        append(open.as_fd(), b"[[120],{\"ino\"").unwrap();
        let all = recorded(open.as_fd()).unwrap().unwrap();
        assert_eq!(all.len(), 3);
        let id = found(shadow.as_fd(), b"new\nline").unwrap().unwrap();
        assert!(is_recorded(&all, b"new\nline", id) && !is_recorded(&all, b"x", id));
        let later = Id { ino: id.ino, born: id.born.map(|(s, n)| (s + 1, n)) };
        assert!(later.born.is_none() || !is_recorded(&all, b"new\nline", later));
        let stranger = Id { ino: u64::MAX, ..later };
        assert!(!is_recorded(&all, b"new\nline", stranger));
    }
}
