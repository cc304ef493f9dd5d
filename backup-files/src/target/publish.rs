//! Swapping the shadow in, and back: in one step where the system can, else by renames that are journalled.

use crate::{
    system,
    target::attributes::attributes,
    target::merge::Merge,
    target::phase::{
        Phase, attributes_of, forget, read_phase, remember_attributes, remembered_attributes, write_phase,
    },
    target::place::{FOUND, PREVIOUS, Place, SHADOW},
};
use moving::Way;
use record::{Id, found, record, record_one};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

mod moving;
mod record;
mod side_files;

/// Asked before every change of what is on disk: where tests stop a publish as a kill would.
#[derive(Clone, Default)]
pub(crate) struct Steps(pub(crate) Option<Arc<dyn Fn() -> io::Result<()> + Send + Sync>>);

impl Steps {
    pub(crate) fn next(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |step| step())
    }
}

/// The folders that a publish works on, open.
pub(crate) struct Publisher {
    parent: OwnedFd,
    name: Vec<u8>,
    home: OwnedFd,
    mount_point: bool,
    steps: Steps,
    /// Names in `found` of what was not ours and in the way.
    set_aside: Mutex<Vec<Vec<u8>>>,
}

impl Publisher {
    /// `None`: there is no home, so that nothing was begun or all is over.
    pub(crate) fn open(place: &Place, steps: Steps) -> io::Result<Option<Self>> {
        let Some((parent, name, home)) = place.open()? else {
            if place.mount_point && !system::is_mount_point(&place.target).unwrap_or(false) {
                return Err(io::Error::other("it is not mounted"));
            }
            return Ok(None);
        };
        Ok(Some(Publisher {
            parent,
            name,
            home,
            mount_point: place.mount_point,
            steps,
            set_aside: Mutex::default(),
        }))
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    fn home(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }

    fn at_target(&self) -> io::Result<Option<Id>> {
        found(self.parent(), &self.name)
    }

    fn at_home(&self, name: &[u8]) -> io::Result<Option<Id>> {
        found(self.home(), name)
    }

    fn phase(&self, phase: Phase) -> io::Result<()> {
        self.steps.next()?;
        write_phase(self.home(), phase)
    }

    fn sync(&self) -> io::Result<()> {
        system::fsync_dir(self.home())?;
        system::fsync_dir(self.parent())
    }

    /// Whether there is something to make effective.
    pub(crate) fn has_shadow(&self) -> io::Result<bool> {
        Ok(self.at_home(SHADOW)?.is_some())
    }

    /// Makes the shadow effective. Nothing was restored: nothing changes. `replaces_data`: what the plan says.
    pub(crate) fn publish(&self, replaces_data: bool) -> io::Result<()> {
        let Some(shadow) = self.at_home(SHADOW)? else { return Ok(()) };
        if self.mount_point {
            return self.one_by_one();
        }
        let replaces = self.at_target()?.is_some();
        let empty = replaces && !replaces_data;
        self.phase(Phase::Whole { new: shadow.ino, born: shadow.born, replaces, empty })?;
        self.side_files_out(replaces)?;
        self.steps.next()?;
        if !replaces {
            rename_new(self.home(), SHADOW, self.parent(), &self.name)?;
            return self.sync();
        }
        match system::exchange(self.home(), SHADOW, self.parent(), &self.name) {
            Ok(()) => {
                self.steps.next()?;
                system::rename(self.home(), SHADOW, self.home(), PREVIOUS)?;
            }
            // Overlayfs, for folders that are in a lower layer.
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => return self.one_by_one(),
            Err(e) if cannot(&e) => match system::rename(self.parent(), &self.name, self.home(), PREVIOUS) {
                Ok(()) => {
                    self.steps.next()?;
                    rename_new(self.home(), SHADOW, self.parent(), &self.name)?;
                }
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => return self.one_by_one(),
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e),
        }
        self.sync()
    }

    /// Of a merge, after the swap: what was made in the old tree since the shadow was. It has no name that is new.
    pub(crate) fn keep_late(&self) -> io::Result<()> {
        let open = |dir: BorrowedFd<'_>, name: &[u8]| match system::stat_at(dir, name) {
            Ok(stat) if stat.kind == system::Kind::Directory => system::open_dir_at(dir, name).map(Some),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(None),
        };
        let (old, new) = (open(self.home(), PREVIOUS)?, open(self.parent(), &self.name)?);
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        let merge = Merge {
            step: &|| self.steps.next(),
            // A revert must know it from what others make.
            at_top: &|name| record_one(self.home(), new.as_fd(), name),
            folder: &|dir, name, _, posix| set_attributes(dir, name, posix),
            unfinished: false,
        };
        merge.keep(old.as_fd(), new.as_fd())?;
        self.sync()
    }

    fn one_by_one(&self) -> io::Result<()> {
        let target = system::open_dir_at(self.parent(), &self.name)?;
        let shadow = system::open_dir_at(self.home(), SHADOW)?;
        // Moving what is in them changes their times.
        let posix = attributes_of(shadow.as_fd())?;
        remember_attributes(self.home(), b"", attributes_of(target.as_fd())?)?;
        self.phase(Phase::MovingOut)?;
        let previous = self.folder_at_home(PREVIOUS)?;
        self.move_all(target.as_fd(), previous.as_fd(), b"", Way::Out)?;
        record(self.home(), shadow.as_fd())?;
        self.phase(Phase::MovingIn)?;
        self.move_all(shadow.as_fd(), target.as_fd(), b"", Way::In)?;
        self.steps.next()?;
        set_attributes(target.as_fd(), b".", &posix)?;
        self.phase(Phase::Published)
    }

    fn folder_at_home(&self, name: &[u8]) -> io::Result<OwnedFd> {
        match system::make_dir(self.home(), name) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        system::open_dir_at(self.home(), name)
    }

    /// Everything as it was before, from wherever it stands.
    pub(crate) fn revert(&self) -> io::Result<()> {
        match read_phase(self.home())? {
            None => {}
            Some(Phase::Whole { new, born, replaces, .. }) => {
                let new = Id { ino: new, born };
                if self.at_target()?.is_some_and(|id| id.is(new)) {
                    self.side_files_away()?;
                }
                self.revert_whole(new, replaces)?;
                self.side_files_back()?;
            }
            Some(Phase::MovingOut) => self.move_back()?,
            Some(Phase::MovingIn | Phase::Published) => {
                let target = system::open_dir_at(self.parent(), &self.name)?;
                let shadow = self.folder_at_home(SHADOW)?;
                self.move_all(target.as_fd(), shadow.as_fd(), b"", Way::Away)?;
                self.phase(Phase::MovingOut)?;
                self.move_back()?;
            }
        }
        self.clear()
    }

    fn move_back(&self) -> io::Result<()> {
        let target = system::open_dir_at(self.parent(), &self.name)?;
        match system::open_dir_at(self.home(), PREVIOUS) {
            Ok(previous) => self.move_all(previous.as_fd(), target.as_fd(), b"", Way::Back)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Innermost first: they were remembered from the outside in.
        for (path, posix) in remembered_attributes(self.home())?.into_iter().rev() {
            self.steps.next()?;
            if path.is_empty() {
                set_attributes(target.as_fd(), b".", &posix)?;
            } else {
                let (dir, name) = system::open_parent_beneath(target.as_fd(), &path, false)?;
                set_attributes(dir.as_fd(), &name, &posix)?;
            }
        }
        system::fsync_dir(target.as_fd())
    }

    /// Whether `revert` would find what was published. Reads only.
    pub(crate) fn check_revert(&self) -> io::Result<()> {
        let Some(Phase::Whole { new, born, .. }) = read_phase(self.home())? else { return Ok(()) };
        let new = Id { ino: new, born };
        let is_new = |id: &Option<Id>| id.is_some_and(|id| id.is(new));
        let target = self.at_target()?;
        if is_new(&self.at_home(PREVIOUS)?) || target.is_none() || is_new(&target) {
            return Ok(());
        }
        Err(exchanged())
    }

    fn revert_whole(&self, new: Id, replaces: bool) -> io::Result<()> {
        let is_new = |id: &Option<Id>| id.is_some_and(|id| id.is(new));
        let mut previous = self.at_home(PREVIOUS)?;
        if is_new(&previous) {
            return Ok(()); // swapped back already
        }
        let shadow = self.at_home(SHADOW)?;
        if previous.is_none() && shadow.is_some() && !is_new(&shadow) {
            // Exchanged, and interrupted before the old data got its name.
            self.steps.next()?;
            system::rename(self.home(), SHADOW, self.home(), PREVIOUS)?;
            previous = shadow;
        }
        let target = self.at_target()?;
        match (previous.is_some(), &target) {
            (true, None) => {
                self.steps.next()?;
                rename_new(self.home(), PREVIOUS, self.parent(), &self.name)?;
            }
            (true, Some(_)) if is_new(&target) => {
                self.steps.next()?;
                match system::exchange(self.home(), PREVIOUS, self.parent(), &self.name) {
                    Err(e) if cannot(&e) => {
                        system::rename(self.parent(), &self.name, self.home(), SHADOW)?;
                        self.steps.next()?;
                        rename_new(self.home(), PREVIOUS, self.parent(), &self.name)?;
                    }
                    other => other?,
                }
            }
            (true, Some(_)) => {
                return Err(exchanged());
            }
            (false, Some(_)) if is_new(&target) && !replaces => {
                self.steps.next()?;
                rename_new(self.parent(), &self.name, self.home(), SHADOW)?;
            }
            (false, Some(_)) if is_new(&target) => {
                return Err(io::Error::other("the old data is gone: this restore was settled"));
            }
            (false, _) => {}
        }
        self.sync()
    }

    /// Drops whatever is not live. Idempotent. Of a folder that was empty nobody has agreed to lose what came later, from
    /// whoever had it open.
    pub(crate) fn clear(&self) -> io::Result<()> {
        if let Some(Phase::Whole { new, born, empty: true, .. }) = read_phase(self.home())?
            && self.at_home(PREVIOUS)?.is_some_and(|id| !id.is(Id { ino: new, born }))
        {
            self.steps.next()?;
            match rustix::fs::unlinkat(self.home(), PREVIOUS, rustix::fs::AtFlags::REMOVEDIR) {
                Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {
                    self.set_aside(self.home(), PREVIOUS)?;
                }
                removed => removed?,
            }
        }
        self.clear_side_files()?;
        for name in [SHADOW, PREVIOUS] {
            self.steps.next()?;
            system::remove_tree_beneath(self.home(), name)?;
        }
        self.steps.next()?;
        // What is in it is somebody else's.
        let _ = rustix::fs::unlinkat(self.home(), FOUND, rustix::fs::AtFlags::REMOVEDIR);
        forget(self.home())
    }
}

/// Renames to a name that is free.
fn rename_new(from: BorrowedFd<'_>, old: &[u8], to: BorrowedFd<'_>, new: &[u8]) -> io::Result<()> {
    match system::rename_noreplace(from, old, to, new) {
        // Some file systems know plain renames only.
        Err(e) if cannot(&e) => match found(to, new)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => system::rename(from, old, to, new),
        },
        renamed => renamed,
    }
}

/// The file system or the kernel does not know this kind of rename.
fn cannot(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let unknown = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP];
    e.raw_os_error().is_some_and(|raw| unknown.iter().any(|errno| errno.raw_os_error() == raw))
}

/// Owner and attributes that this user may not set are those that it did not change either.
fn set_attributes(dir: BorrowedFd<'_>, name: &[u8], posix: &backup_core::Posix) -> io::Result<()> {
    let failed = system::apply_attributes(dir, name, &attributes(posix, false).0);
    match failed.into_iter().find(|(_, e)| e.kind() != io::ErrorKind::PermissionDenied) {
        Some((_, e)) if system::is_root() => Err(e),
        _ => Ok(()),
    }
}

fn exchanged() -> io::Error {
    io::Error::other(
        "it is no longer what was restored: somebody has exchanged it; the old data is kept beside it",
    )
}

#[cfg(test)]
mod tests;
