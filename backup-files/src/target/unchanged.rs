//! Whether a target still is what the plan of its restore was made for.

use crate::{
    source::exclude::is_journal_home,
    system::{self, Kind},
    target::place::Place,
};
use backup_core::{Error, ErrorKind, Result};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// What file systems have at their top for their own repairs.
pub(crate) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Whether this name at the top of a target is the home of a restore, of this or of another one.
pub(crate) fn is_home(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    is_journal_home(name) && system::stat_at(dir, name).is_ok_and(|stat| stat.kind == Kind::Directory)
}

/// Whether it is a folder without data: homes of restores are none, nor is an empty `lost+found`.
pub(crate) fn is_empty(place: &Place) -> bool {
    let is_nothing = |dir: BorrowedFd<'_>, name: &[u8]| {
        is_home(dir, name)
            || name == LOST_AND_FOUND
                && system::open_dir_at(dir, name)
                    .and_then(|inner| Ok(system::read_dir(inner.as_fd())?.next().is_none()))
                    .unwrap_or(false)
    };
    let names = system::open_dir(&place.target).and_then(|dir| {
        Ok(system::read_dir(dir.as_fd())?.all(|name| name.is_ok_and(|name| is_nothing(dir.as_fd(), &name))))
    });
    names.unwrap_or(false)
}

/// Whether there is anything that a restore would replace.
pub(crate) fn has_data(place: &Place) -> Result<bool> {
    match std::fs::symlink_metadata(&place.target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(place, e)),
        Ok(_) => Ok(!is_empty(place)),
    }
}

/// `Refused`: the restore was planned without anything to be replaced, and now there is something.
pub(crate) fn refuse_new_data(place: &Place, replaces: bool) -> Result<()> {
    if !replaces && has_data(place)? {
        let why = "there is data now that was not there when the restore was planned";
        return Err(refused(place, why).hint("plan it again"));
    }
    Ok(())
}

/// `Refused`: something is mounted inside the target, which would move with it.
pub(crate) fn refuse_mounts(place: &Place) -> Result<()> {
    match mounts(place)?.first() {
        Some(first) => Err(refused(place, &format!("something is mounted inside it, at {first}"))
            .hint(format!("unmount it: umount {first}"))),
        None => Ok(()),
    }
}

/// What is mounted inside the target, for people.
pub(crate) fn mounts(place: &Place) -> Result<Vec<String>> {
    let mounts = system::mounts_beneath(&place.target).map_err(|e| failed(place, e))?;
    Ok(mounts.into_iter().map(|mount| mount.display().to_string()).collect())
}

fn refused(place: &Place, why: &str) -> Error {
    Error::new(ErrorKind::Refused, "restore", why.to_owned()).on(place.target.display())
}

fn failed(place: &Place, e: io::Error) -> Error {
    Error::io(ErrorKind::Target, "look at the target", e).on(place.target.display())
}
