//! Swapping the shadow in, and back: in one step where the system can, else by renames that are journalled.

use crate::{
    system::{self, Kind, Stat},
    target::attributes::attributes,
    target::phase::{
        Phase, attributes_of, forget, read_phase, remember_attributes, remembered_attributes, write_phase,
    },
    target::place::{PREVIOUS, Place, SHADOW},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Asked before every change of what is on disk: where tests stop a publish as a kill would.
#[derive(Clone, Default)]
pub(crate) struct Steps(pub(crate) Option<Arc<dyn Fn() -> io::Result<()> + Send + Sync>>);

impl Steps {
    fn next(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |step| step())
    }
}

/// The folders that a publish works on, open.
pub(crate) struct Publisher {
    parent: OwnedFd,
    name: Vec<u8>,
    home: OwnedFd,
    home_inside: Option<Vec<u8>>,
    mount_point: bool,
    steps: Steps,
}

impl Publisher {
    /// `None`: there is no home, so that nothing was begun or all is over.
    pub(crate) fn open(place: &Place, steps: Steps) -> io::Result<Option<Self>> {
        let home = match system::open_dir(&place.home) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if place.mount_point && !system::is_mount_point(&place.target).unwrap_or(false) {
                    return Err(io::Error::other("it is not mounted"));
                }
                return Ok(None);
            }
            home => home?,
        };
        let (parent, name) = place.parent()?;
        let home_inside = place.name_inside();
        Ok(Some(Publisher { parent, name, home, home_inside, mount_point: place.mount_point, steps }))
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    fn home(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }

    fn at_target(&self) -> io::Result<Option<Stat>> {
        found(self.parent(), &self.name)
    }

    fn at_home(&self, name: &[u8]) -> io::Result<Option<Stat>> {
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

    /// Makes the shadow effective. Nothing was restored: nothing changes.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let Some(shadow) = self.at_home(SHADOW)? else { return Ok(()) };
        if self.mount_point {
            return self.one_by_one();
        }
        let replaces = self.at_target()?.is_some();
        self.phase(Phase::Whole { new: shadow.ino, replaces })?;
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

    fn one_by_one(&self) -> io::Result<()> {
        let target = system::open_dir_at(self.parent(), &self.name)?;
        let shadow = system::open_dir_at(self.home(), SHADOW)?;
        // Moving what is in them changes their times.
        let posix = attributes_of(shadow.as_fd())?;
        remember_attributes(self.home(), b"", attributes_of(target.as_fd())?)?;
        self.phase(Phase::MovingOut)?;
        let previous = self.folder_at_home(PREVIOUS)?;
        self.move_all(target.as_fd(), previous.as_fd(), b"", true)?;
        self.phase(Phase::MovingIn)?;
        self.move_all(shadow.as_fd(), target.as_fd(), b"", false)?;
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

    /// Moves everything in a folder to another, but for the home. What is in both already, because it was interrupted, is
    /// moved on. Durable when it returns. `remember`: attributes of folders that cannot be renamed.
    fn move_all(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
        remember: bool,
    ) -> io::Result<()> {
        let names = system::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        for name in names {
            if path.is_empty() && self.home_inside.as_ref() == Some(&name) {
                continue;
            }
            self.steps.next()?;
            match rename_new(from, &name, to, &name) {
                Ok(()) => {}
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::AlreadyExists)
                        && system::stat_at(from, &name)?.kind == Kind::Directory =>
                {
                    let path = if path.is_empty() { name.clone() } else { [path, b"/", &name[..]].concat() };
                    self.move_folder(from, to, &name, &path, remember)?;
                }
                Err(e) => return Err(e),
            }
        }
        system::fsync_dir(from)?;
        system::fsync_dir(to)
    }

    /// A folder that cannot be renamed is made again, and what is in it moved.
    fn move_folder(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        remember: bool,
    ) -> io::Result<()> {
        let inner = system::open_dir_at(from, name)?;
        let posix = attributes_of(inner.as_fd())?;
        if remember {
            remember_attributes(self.home(), path, posix.clone())?;
        }
        self.steps.next()?;
        match system::make_dir(to, name) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let outer = system::open_dir_at(to, name)?;
        self.move_all(inner.as_fd(), outer.as_fd(), path, remember)?;
        set_attributes(outer.as_fd(), b".", &posix)?;
        self.steps.next()?;
        Ok(rustix::fs::unlinkat(from, name, rustix::fs::AtFlags::REMOVEDIR)?)
    }

    /// Everything as it was before, from wherever it stands.
    pub(crate) fn revert(&self) -> io::Result<()> {
        match read_phase(self.home())? {
            None => {}
            Some(Phase::Whole { new, replaces }) => self.revert_whole(new, replaces)?,
            Some(Phase::MovingOut) => self.move_back()?,
            Some(Phase::MovingIn | Phase::Published) => {
                let target = system::open_dir_at(self.parent(), &self.name)?;
                let shadow = self.folder_at_home(SHADOW)?;
                self.move_all(target.as_fd(), shadow.as_fd(), b"", false)?;
                self.phase(Phase::MovingOut)?;
                self.move_back()?;
            }
        }
        self.clear()
    }

    fn move_back(&self) -> io::Result<()> {
        let target = system::open_dir_at(self.parent(), &self.name)?;
        match system::open_dir_at(self.home(), PREVIOUS) {
            Ok(previous) => self.move_all(previous.as_fd(), target.as_fd(), b"", false)?,
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

    fn revert_whole(&self, new: u64, replaces: bool) -> io::Result<()> {
        let is_new = |stat: &Option<Stat>| stat.is_some_and(|stat| stat.ino == new);
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
                return Err(io::Error::other("it is no longer what was restored: somebody has exchanged it"));
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

    /// Drops whatever is not live. Idempotent.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for name in [SHADOW, PREVIOUS] {
            self.steps.next()?;
            system::remove_tree_beneath(self.home(), name)?;
        }
        self.steps.next()?;
        forget(self.home())
    }
}

fn found(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match system::stat_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        stat => Ok(Some(stat?)),
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

#[cfg(test)]
mod tests;
