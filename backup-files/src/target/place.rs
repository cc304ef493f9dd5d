//! Where a restore goes, and the folder beside it in which shadow, old data and journal are.

use crate::{config, system};
use backup_core::{BackupId, Error, ErrorKind, Result, real_path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    path::PathBuf,
};

/// The restored data while it is being written; after an exchange, for a moment, the old data.
pub(crate) const SHADOW: &[u8] = b"shadow";
/// The old data, once the new is in its place.
pub(crate) const PREVIOUS: &[u8] = b"previous";

/// What somebody else made where this restore has to put something; never removed.
pub(crate) const FOUND: &[u8] = b"found";

/// What `Target::undo` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    version: u32,
    #[serde(with = "config::any_path")]
    pub(crate) target: PathBuf,
    #[serde(with = "config::any_path")]
    pub(crate) home: PathBuf,
    /// Something is mounted at the target: it cannot be renamed, and the home is inside.
    pub(crate) mount_point: bool,
    /// When the target was last changed, before the home was made in it.
    mtime: Option<(i64, u32)>,
}

impl Place {
    /// A new home for a restore to this absolute path.
    pub(crate) fn new(target: PathBuf) -> Result<Self> {
        let refused = |why| Error::new(ErrorKind::Refused, "restore", why).on(target.display());
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refused("a whole file system is never replaced").hint("name a folder in it"));
        };
        // Once: what a link on the way leads to may change meanwhile. A parent that is missing is for the survey to say.
        let parent = real_path(parent);
        let (target, name) = (parent.join(name), name.to_owned());
        let id = BackupId::generate();
        let mount_point = system::is_mount_point(&target).unwrap_or(false);
        let home = if mount_point {
            target.join(format!(".backup-{id}"))
        } else {
            // Names have at most 255 bytes.
            let name = system::path_to_bytes(Path::new(&name));
            let mut home = [b".", &name[..name.len().min(200)]].concat();
            home.extend_from_slice(format!(".backup-{id}").as_bytes());
            parent.join(system::path_from_bytes(home))
        };
        let mut place = Place { version: 1, home, mount_point, target, mtime: None };
        place.mtime = place.changed_at();
        Ok(place)
    }

    pub(crate) fn to_undo(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn from_undo(undo: Value) -> Result<Self> {
        let wrong =
            |why: String| Error::new(ErrorKind::Damaged, "read the journal of a restore of files", why);
        let place: Place = serde_json::from_value(undo).map_err(|e| wrong(e.to_string()))?;
        if place.version != 1 {
            return Err(wrong(format!("version {} is not known", place.version)));
        }
        // What is removed and renamed by it must be ours.
        let name = place.home.file_name().map(|name| system::path_to_bytes(Path::new(name)));
        let beside = if place.mount_point { Some(&*place.target) } else { place.target.parent() };
        if !name.is_some_and(|name| crate::source::exclude::is_journal_home(&name))
            || place.home.parent() != beside
        {
            return Err(wrong(format!("{} is not a folder of ours", place.home.display())));
        }
        Ok(place)
    }

    /// The folder that holds the target, and the target's name.
    pub(crate) fn parent(&self) -> io::Result<(OwnedFd, Vec<u8>)> {
        match (self.target.parent(), self.target.file_name()) {
            (Some(parent), Some(name)) => {
                Ok((system::open_dir(parent)?, system::path_to_bytes(Path::new(name))))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The folder that holds the target, the target's name, and the home. `None`: there is no home.
    ///
    /// The home is looked for in the folder that is open then, and must be this user's own: whoever may write there must not be able
    /// to put another in its place, or to have what is in it moved to elsewhere.
    pub(crate) fn open(&self) -> io::Result<Option<(OwnedFd, Vec<u8>, OwnedFd)>> {
        let there = |opened: io::Result<OwnedFd>| match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        let (parent, name) = match self.parent() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let home = Path::new(self.home.file_name().unwrap_or_default());
        let home = system::path_to_bytes(home);
        let home = match self.mount_point {
            false => there(system::open_dir_at(parent.as_fd(), &home))?,
            true => match there(system::open_dir_at(parent.as_fd(), &name))? {
                Some(target) => there(system::open_dir_at(target.as_fd(), &home))?,
                None => None,
            },
        };
        let Some(home) = home else { return Ok(None) };
        let owner = system::stat_fd(home.as_fd())?.uid;
        if owner != system::user() && owner != who_owns_new_files(home.as_fd())? {
            return Err(io::Error::other(format!("{} belongs to the user {owner}", self.home.display())));
        }
        Ok(Some((parent, name, home)))
    }

    /// Where the target really is: without symbolic links above it.
    pub(crate) fn real_path(&self) -> io::Result<PathBuf> {
        match (self.target.parent(), self.target.file_name()) {
            (Some(parent), Some(name)) => Ok(std::fs::canonicalize(parent)?.join(name)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Takes away the home, if nothing of anybody else's is in it. Where it is inside the target, the target keeps its time:
    /// the old one after a revert.
    pub(crate) fn remove_home(&self, reverted: bool) {
        let mtime = if reverted { self.mtime } else { self.changed_at() };
        let _ = std::fs::remove_dir(&self.home); // the journal may still be there, and removes it then
        if let Some(mtime) = mtime
            && let Ok(dir) = system::open_dir(&self.target)
        {
            let _ = system::set_times(dir.as_fd(), b".", mtime); // no more than a time
        }
    }

    /// Of a target that has the home inside.
    fn changed_at(&self) -> Option<(i64, u32)> {
        let dir = system::open_dir(&self.target).ok().filter(|_| self.mount_point)?;
        Some(system::stat_fd(dir.as_fd()).ok()?.mtime)
    }
}

/// Not every file system gives files to who makes them: a share may give all to one user.
fn who_owns_new_files(home: BorrowedFd<'_>) -> io::Result<u32> {
    const TRIAL: &[u8] = b"owner";
    // What a kill has left of an earlier trial.
    let _ = rustix::fs::unlinkat(home, TRIAL, rustix::fs::AtFlags::empty());
    let uid = system::stat_fd(system::create_file(home, TRIAL)?.as_fd())?.uid;
    rustix::fs::unlinkat(home, TRIAL, rustix::fs::AtFlags::empty())?;
    Ok(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_another_user_or_elsewhere_is_not_worked_on() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path().join("data")).unwrap();
        assert!(place.open().unwrap().is_none());
        std::fs::create_dir(&place.home).unwrap();
        assert!(place.open().unwrap().is_some());
        if system::is_root() {
            std::os::unix::fs::chown(&place.home, Some(65534), None).unwrap();
            let e = place.open().err().unwrap();
            assert!(e.to_string().contains("belongs to the user 65534"), "{e}");
            assert_eq!(std::fs::read_dir(&place.home).unwrap().count(), 0);
        }
        let mut elsewhere = place.clone();
        elsewhere.target = dir.path().join("sub/data");
        assert!(Place::from_undo(elsewhere.to_undo()).is_err());
    }

    #[test]
    fn the_root_of_the_file_system_is_refused() {
        assert_eq!(Place::new("/".into()).unwrap_err().kind(), ErrorKind::Refused);
    }

    #[test]
    fn a_link_above_the_target_is_followed_once() {
        let dir = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(dir.path()).unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let place = Place::new(dir.path().join("link/data")).unwrap();
        assert_eq!(
            (place.target.as_path(), place.home.parent()),
            (real.join("data").as_path(), Some(&*real))
        );
    }

    #[test]
    fn what_was_journalled_is_read_again_and_a_foreign_folder_is_not() {
        let place = Place::new("/nowhere/data".into()).unwrap();
        assert_eq!(Place::from_undo(place.to_undo()).unwrap(), place);
        let mut foreign = place.clone();
        foreign.home = "/nowhere/data".into();
        assert!(Place::from_undo(foreign.to_undo()).is_err());
        let long = Place::new(Path::new("/nowhere").join("x".repeat(255))).unwrap();
        assert!(long.home.file_name().unwrap().len() <= 255);
    }
}
