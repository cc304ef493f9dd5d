//! What SQLite has beside a database that is restored as a single file. It is a part of that database: beside another one,
//! its log would be applied to that.
//!
//! What belongs to the old database leaves before the new one comes, and comes back after it: at no moment is the log of one
//! beside the other.

use super::{Publisher, Way, rename_new};
use crate::{
    sqlite::{SIDE_FILES, is_database, is_log},
    system::{self, Kind},
    target::phase::Written,
    target::place::{PREVIOUS, SHADOW},
};
use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
};

/// What a file is that lies beside a database under a name which SQLite would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// A log that SQLite would apply.
    Log,
    /// Nothing that counts without its log: it is empty, has ended, or is the index of a log.
    Idle,
    /// Somebody's file: SQLite has not made it, and may destroy it.
    Foreign,
}

/// What is done with one of them when the database `new` comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Leaves,
    Stays,
    InTheWay,
}

impl Side {
    fn of(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Self>> {
        if !is_file(dir, name)? {
            return Ok(None);
        }
        if name.ends_with(b"-shm") {
            return Ok(Some(Side::Idle));
        }
        Ok(Some(match begin_of(dir, name)? {
            Some(begin) if is_log(&begin) => Side::Log,
            Some(begin) if begin.iter().take(28).all(|byte| *byte == 0) => Side::Idle,
            Some(_) => Side::Foreign,
            // Not this user's to read. It is moved with its database, or it is in the way.
            None => Side::Log,
        }))
    }

    fn fate(self, old_is_database: bool, new_is_database: bool) -> Fate {
        match self {
            Side::Log | Side::Idle if old_is_database => Fate::Leaves,
            Side::Log | Side::Foreign if new_is_database => Fate::InTheWay,
            _ => Fate::Stays,
        }
    }
}

/// What the plan of a restore says of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Names of those that leave with the old database.
    pub(crate) leave: Vec<String>,
    /// Name of one that is in the way.
    pub(crate) in_the_way: Option<String>,
}

/// Looks at what is beside a target of this name. `replaces`: there is a file; `database`: a database comes.
pub(crate) fn beside(
    parent: BorrowedFd<'_>,
    name: &[u8],
    replaces: bool,
    database: bool,
) -> io::Result<Beside> {
    let old = replaces && may_be_database(parent, name)?;
    let mut beside = Beside::default();
    for (name, side) in sides(parent, name)? {
        let shown = name.escape_ascii().to_string();
        match side.fate(old, database) {
            Fate::Leaves => beside.leave.push(shown),
            Fate::InTheWay => beside.in_the_way = Some(shown),
            Fate::Stays => {}
        }
    }
    Ok(beside)
}

impl Publisher {
    /// Those of the old database go to the home. Nothing else goes: nobody has agreed to lose it.
    pub(super) fn side_files_out(&self, replaces: bool) -> io::Result<()> {
        let new = may_be_database(self.home(), SHADOW)?;
        let beside = beside(self.parent(), &self.name, replaces, new)?;
        if let Some(name) = beside.in_the_way {
            return Err(stands_there(&name));
        }
        match replaces && may_be_database(self.parent(), &self.name)? {
            true => self.move_side_files(Way::Out),
            false => Ok(()),
        }
    }

    /// Those that the new database has by now leave with it; before the old one comes to a name that is free, too.
    pub(super) fn side_files_away(&self) -> io::Result<()> {
        let of_a_database = match self.at_target()? {
            Some(_) => may_be_database(self.parent(), &self.name)?,
            None => may_be_database(self.home(), PREVIOUS)?,
        };
        if of_a_database { self.move_side_files(Way::Away) } else { Ok(()) }
    }

    /// Those of the old database come back. If it was back already, or never gone, and is not what it was without them any more,
    /// they would be applied to what they are not of: then they are set aside. `was`: what it was.
    pub(super) fn side_files_back(&self, was: Option<Written>) -> io::Result<()> {
        let kept = sides(self.home(), PREVIOUS)?;
        let changed =
            || was.map_or(Ok(false), |was| Ok::<_, io::Error>(self.written_at_target()? != Some(was)));
        if kept.is_empty() || !changed()? {
            return self.move_side_files(Way::Back);
        }
        for (name, _) in kept {
            self.set_aside(self.home(), &name)?;
        }
        Ok(())
    }

    fn move_side_files(&self, way: Way) -> io::Result<()> {
        for ending in SIDE_FILES.map(str::as_bytes) {
            let live = [&self.name[..], ending].concat();
            let kept = [if way == Way::Away { SHADOW } else { PREVIOUS }, ending].concat();
            let ((from, old), (to, new)) = match way {
                Way::Back => ((self.home(), &kept), (self.parent(), &live)),
                _ => ((self.parent(), &live), (self.home(), &kept)),
            };
            if !matches!(Side::of(from, old)?, Some(Side::Log | Side::Idle)) {
                continue;
            }
            self.steps.next()?;
            match way {
                Way::Away => system::rename(from, old, to, new)?,
                _ => rename_new(from, old, to, new).map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => stands_there(&live.escape_ascii().to_string()),
                    _ => e,
                })?,
            }
        }
        self.sync()
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

/// All that are beside this name.
fn sides(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Side)>> {
    let mut all = Vec::new();
    for ending in SIDE_FILES {
        let name = [name, ending.as_bytes()].concat();
        if let Some(side) = Side::of(dir, &name)? {
            all.push((name, side));
        }
    }
    Ok(all)
}

fn stands_there(name: &str) -> io::Error {
    io::Error::other(format!(
        "{name} stands beside it, and SQLite would take it for the log of a database that it is not of: move it away, and try again"
    ))
}

fn is_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match system::stat_at(dir, name) {
        // A name that is too long for its ending has none.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => Ok(false),
        stat => Ok(stat?.kind == Kind::File),
    }
}

/// `None`: this user may not read it.
fn begin_of(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut begin = Vec::new();
    match system::open_file_at(dir.as_fd(), name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        file => file?.take(100).read_to_end(&mut begin)?,
    };
    Ok(Some(begin))
}

/// Whether a file of this name is there and is a database, or cannot be looked at.
fn may_be_database(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    Ok(is_file(dir, name)? && begin_of(dir, name)?.is_none_or(|begin| is_database(&begin)))
}
