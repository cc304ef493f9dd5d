//! What a merge keeps: second names for all that the backup lacks, in the tree that takes the place of the old one.

use crate::{
    spool::Spool,
    sqlite::{self, SIDE_FILES},
    system::{self, Kind},
    target::{phase::attributes_of, unchanged::is_home},
};
use backup_core::{Entry, Posix, Stage};
use rustix::fs::{AtFlags, linkat};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What was kept, and what was not though the backup lacks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Files, links and special files that have a second name now.
    pub(crate) files: u64,
    /// Folders that were made again.
    pub(crate) folders: u64,
    /// Folders in whose place the backup has something else: nothing in them is kept.
    pub(crate) hidden: u64,
    /// Files of SQLite beside a database that comes from the backup.
    pub(crate) side_files: u64,
}

/// Where a folder lies and its name, its path, and what to set.
type SetFolder<'a> = dyn Fn(BorrowedFd<'_>, &[u8], &[u8], &Posix) -> io::Result<()> + 'a;

/// How the two trees are merged.
pub(crate) struct Merge<'a> {
    /// Asked before every change.
    pub(crate) step: &'a dyn Fn() -> io::Result<()>,
    /// Told of what gets a name at the top.
    pub(crate) at_top: &'a dyn Fn(&[u8]) -> io::Result<()>,
    /// Sets the attributes of a folder.
    pub(crate) folder: &'a SetFolder<'a>,
    /// Folders of the new tree have no attributes yet: those of the old are theirs until the backup's are set.
    pub(crate) unfinished: bool,
}

impl Merge<'_> {
    /// Gives everything beneath `live` that `new` lacks a second name in `new`. Folders are made again, with their attributes;
    /// other folders of `new` keep their times. Idempotent. Errors name the path.
    pub(crate) fn keep(&self, live: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<Kept> {
        let mut kept = Kept::default();
        let mut attributes = Vec::new();
        let mut level = Spool::default();
        level.push(&folder(b"", None))?;
        // A level of folders after the other: neither open folders nor memory grow with the depth.
        while !level.is_empty() {
            level = self.level(level, (live, new), &mut kept, &mut attributes)?;
        }
        // From the inside out: an outer one may forbid to go in.
        for spool in attributes.into_iter().rev() {
            for entry in spool.read()? {
                let entry = entry?;
                let Some(posix) = &entry.posix else { continue };
                (self.step)()?;
                if entry.path.is_empty() {
                    (self.folder)(new, b".", &entry.path, posix)?;
                } else {
                    let (dir, name) = system::open_parent_beneath(new, &entry.path, false)
                        .map_err(|e| at(&entry.path, &e))?;
                    (self.folder)(dir.as_fd(), &name, &entry.path, posix)?;
                }
            }
        }
        Ok(kept)
    }

    fn level(
        &self,
        folders: Spool,
        trees: (BorrowedFd<'_>, BorrowedFd<'_>),
        kept: &mut Kept,
        attributes: &mut Vec<Spool>,
    ) -> io::Result<Spool> {
        let (mut next, mut set) = (Spool::default(), Spool::default());
        for entry in folders.read()? {
            let path = entry?.path;
            let (live, new) = match (beneath(trees.0, &path), beneath(trees.1, &path)) {
                // It is gone by now.
                (Err(e), _) if e.kind() == io::ErrorKind::NotFound => continue,
                (live, new) => (live.map_err(|e| at(&path, &e))?, new.map_err(|e| at(&path, &e))?),
            };
            let time = system::stat_fd(new.as_fd())?.mtime;
            let mut changed = false;
            for name in system::read_dir(live.as_fd()).map_err(|e| at(&path, &e))? {
                let name = name.map_err(|e| at(&path, &e))?;
                let inner = if path.is_empty() { name.clone() } else { [&path[..], b"/", &name].concat() };
                if path.is_empty() && is_home(live.as_fd(), &name) {
                    continue;
                }
                let done = self.one(live.as_fd(), new.as_fd(), &name, kept).map_err(|e| at(&inner, &e))?;
                if matches!(done, Done::Named | Done::Made) {
                    changed = true;
                    if path.is_empty() {
                        (self.at_top)(&name)?;
                    }
                }
                if matches!(done, Done::Made | Done::Both) {
                    next.push(&folder(&inner, None))?;
                }
                if done == Done::Made || (done == Done::Both && self.unfinished) {
                    let of =
                        system::open_dir_at(live.as_fd(), &name).and_then(|dir| attributes_of(dir.as_fd()));
                    let mut posix = of.map_err(|e| at(&inner, &e))?;
                    if done == Done::Both {
                        // The backup's own are not known here, and would not take these away.
                        posix.xattrs.clear();
                    }
                    set.push(&folder(&inner, Some(posix)))?;
                }
            }
            if changed && !self.unfinished {
                system::set_times(new.as_fd(), b".", time).map_err(|e| at(&path, &e))?;
            }
        }
        attributes.push(set);
        Ok(next)
    }

    fn one(
        &self,
        live: BorrowedFd<'_>,
        new: BorrowedFd<'_>,
        name: &[u8],
        kept: &mut Kept,
    ) -> io::Result<Done> {
        let Some(old) = stat(live, name)? else { return Ok(Done::Nothing) };
        match (stat(new, name)?, old.kind) {
            (Some(there), Kind::Directory) if there.kind == Kind::Directory => return Ok(Done::Both),
            (Some(_), Kind::Directory) => {
                kept.hidden += 1;
                return Ok(Done::Nothing);
            }
            (Some(_), _) => return Ok(Done::Nothing),
            (None, Kind::Directory) => {
                (self.step)()?;
                system::make_dir(new, name)?;
                system::remove_acls(system::open_dir_at(new, name)?.as_fd())?;
                kept.folders += 1;
                return Ok(Done::Made);
            }
            (None, _) => {}
        }
        if is_side_file(live, new, name)? {
            kept.side_files += 1;
            return Ok(Done::Nothing);
        }
        (self.step)()?;
        match linkat(live, name, new, name, AtFlags::empty()) {
            Ok(()) => {
                kept.files += 1;
                Ok(Done::Named)
            }
            Err(rustix::io::Errno::NOENT) => Ok(Done::Nothing),
            Err(e) => Err(io::Error::new(
                io::Error::from(e).kind(),
                format!("it cannot be given a second name, by which a merge keeps it: {e}"),
            )),
        }
    }
}

/// What was done with one name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Named,
    Made,
    /// It is a folder in both.
    Both,
}

fn folder(path: &[u8], posix: Option<Posix>) -> Entry {
    Entry { posix, ..Entry::file(path.to_vec(), Stage::Complete) }
}

fn at(path: &[u8], e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", backup_core::display_path(path)))
}

fn beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return system::open_dir_at(root, b".");
    }
    let (dir, name) = system::open_parent_beneath(root, path, false)?;
    system::open_dir_at(dir.as_fd(), &name)
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<system::Stat>> {
    match system::stat_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        stat => stat.map(Some),
    }
}

/// Whether it is a file of SQLite's beside a database that comes from the backup and not from the old tree.
fn is_side_file(live: BorrowedFd<'_>, new: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let Some(database) = SIDE_FILES.iter().find_map(|ending| name.strip_suffix(ending.as_bytes())) else {
        return Ok(false);
    };
    if database.is_empty() {
        return Ok(false);
    }
    let Some(there) = stat(new, database)?.filter(|there| there.kind == Kind::File) else { return Ok(false) };
    if stat(live, database)?.is_some_and(|old| (old.dev, old.ino) == (there.dev, there.ino)) {
        return Ok(false);
    }
    // An empty file is a database, too, to which what stands in its log belongs.
    Ok(sqlite::is_database(&first_bytes(new, database)?)
        || there.size == 0 && sqlite::is_log(&first_bytes(live, name)?))
}

fn first_bytes(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut first = Vec::new();
    match system::open_file_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        file => drop(file?.take(16).read_to_end(&mut first)?),
    }
    Ok(first)
}
