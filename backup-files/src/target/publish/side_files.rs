//! What SQLite has beside a database that is restored as a single file. It is a part of that database: beside another one,
//! its log would be applied to that.
//!
//! What belongs to the old database leaves before the new one comes, and comes back after it: at no moment is the log of one
//! beside the other.

use super::{Publisher, Way, rename_new};
use crate::{
    sqlite::{SIDE_FILES, is_database},
    system::{self, Kind},
    target::place::{PREVIOUS, SHADOW},
};
use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
};

impl Publisher {
    /// Those of the old database go to the home. Where nothing is replaced none may be there: nobody has agreed to lose them.
    pub(super) fn side_files_out(&self, replaces: bool) -> io::Result<()> {
        if !begins_a_database(self.home(), SHADOW)? && !begins_a_database(self.parent(), &self.name)? {
            return Ok(());
        }
        if let Some(ending) = self.side_files()?.first().filter(|_| !replaces) {
            return Err(stands_there(&[&self.name[..], ending].concat()));
        }
        self.move_side_files(Way::Out)
    }

    /// Those that the new database has by now leave with it.
    pub(super) fn side_files_away(&self) -> io::Result<()> {
        match begins_a_database(self.parent(), &self.name)? {
            true => self.move_side_files(Way::Away),
            false => Ok(()),
        }
    }

    /// Those of the old database come back.
    pub(super) fn side_files_back(&self) -> io::Result<()> {
        self.move_side_files(Way::Back)
    }

    fn move_side_files(&self, way: Way) -> io::Result<()> {
        for ending in SIDE_FILES.map(str::as_bytes) {
            let live = [&self.name[..], ending].concat();
            let kept = [if way == Way::Away { SHADOW } else { PREVIOUS }, ending].concat();
            let ((from, old), (to, new)) = match way {
                Way::Back => ((self.home(), &kept), (self.parent(), &live)),
                _ => ((self.parent(), &live), (self.home(), &kept)),
            };
            if !is_file(from, old)? {
                continue;
            }
            self.steps.next()?;
            match way {
                Way::Away => system::rename(from, old, to, new)?,
                _ => rename_new(from, old, to, new).map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => stands_there(&live),
                    _ => e,
                })?,
            }
        }
        self.sync()
    }

    /// Endings of those that are there.
    fn side_files(&self) -> io::Result<Vec<&'static [u8]>> {
        let mut there = Vec::new();
        for ending in SIDE_FILES.map(str::as_bytes) {
            if is_file(self.parent(), &[&self.name[..], ending].concat())? {
                there.push(ending);
            }
        }
        Ok(there)
    }

    /// Drops those that are not live.
    pub(super) fn clear_side_files(&self) -> io::Result<()> {
        for name in [SHADOW, PREVIOUS] {
            for ending in SIDE_FILES {
                system::remove_tree_beneath(self.home(), &[name, ending.as_bytes()].concat())?;
            }
        }
        Ok(())
    }
}

fn stands_there(name: &[u8]) -> io::Error {
    let name = name.escape_ascii();
    io::Error::other(format!(
        "{name} stands beside it, and SQLite would apply it to a database that it is not of: move it away, and try again"
    ))
}

fn is_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match system::stat_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        stat => Ok(stat?.kind == Kind::File),
    }
}

/// Whether a file of this name is there and is a database.
fn begins_a_database(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    if !is_file(dir, name)? {
        return Ok(false);
    }
    let mut begin = Vec::new();
    system::open_file_at(dir.as_fd(), name)?.take(100).read_to_end(&mut begin)?;
    Ok(is_database(&begin))
}
