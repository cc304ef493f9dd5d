//! Swapping the shadow in, and back: in one step where the system can, else by renames that are journalled.

use crate::{
    system,
    target::attributes::attributes,
    target::merge::Merge,
    target::phase::{
        Phase, Written, attributes_of, forget, read_phase, remember_attributes, remembered_attributes,
        write_phase,
    },
    target::place::{FOUND, PREVIOUS, Place, SHADOW},
    target::unchanged::LOST_AND_FOUND,
};
use moving::Way;
use record::{Id, found, record, record_one};
pub(crate) use side_files::{Beside, beside};
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
        let old = self.written_at_target()?;
        self.phase(Phase::Whole { new: shadow.ino, born: shadow.born, replaces, empty, old })?;
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
            Some(phase @ Phase::Whole { .. }) => self.revert_whole(phase)?,
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

    /// Whether `revert` would find what was published, and what it replaced. Reads only.
    pub(crate) fn check_revert(&self) -> io::Result<()> {
        let Some(Phase::Whole { new, born, replaces, .. }) = read_phase(self.home())? else { return Ok(()) };
        let new = Id { ino: new, born };
        let there = self.there(new)?;
        match there.target {
            Some(target) if !there.is_back && !target.is(new) => Err(exchanged()),
            _ => there.may_go_back(replaces),
        }
    }

    fn there(&self, new: Id) -> io::Result<There> {
        let (previous, shadow) = (self.at_home(PREVIOUS)?, self.at_home(SHADOW)?);
        let is_new = |id: &Option<Id>| id.is_some_and(|id| id.is(new));
        Ok(There {
            new,
            target: self.at_target()?,
            is_back: is_new(&previous),
            old: match (previous, shadow) {
                (Some(_), _) => Some(PREVIOUS),
                // Exchanged, and interrupted before the old data got its name.
                (None, Some(shadow)) if !shadow.is(new) => Some(SHADOW),
                _ => None,
            },
            is_published: !is_new(&shadow),
        })
    }

    /// Of the file that is live: what changes when somebody writes to it.
    fn written_at_target(&self) -> io::Result<Option<Written>> {
        written(self.parent(), &self.name)
    }

    fn revert_whole(&self, phase: Phase) -> io::Result<()> {
        let Phase::Whole { new, born, replaces, empty, old: was } = phase else { return Ok(()) };
        let there = self.there(Id { ino: new, born })?;
        if there.is_back {
            return self.side_files_back(was);
        }
        // Before anything moves: what cannot be brought back stays with all that belongs to it.
        there.may_go_back(replaces)?;
        let Some(old) = there.old else {
            if there.target.is_some_and(|target| target.is(there.new)) {
                self.side_files_away()?;
                self.steps.next()?;
                rename_new(self.parent(), &self.name, self.home(), SHADOW)?;
            }
            self.side_files_back(was)?;
            return self.sync();
        };
        if old == SHADOW {
            self.steps.next()?;
            system::rename(self.home(), SHADOW, self.home(), PREVIOUS)?;
        }
        let now = written(self.home(), PREVIOUS)?;
        if now != was {
            // Whoever had it open has gone on with it, and with its logs.
            self.phase(Phase::Whole { new, born, replaces, empty, old: now })?;
        }
        self.side_files_away()?;
        self.steps.next()?;
        match there.target {
            None => rename_new(self.home(), PREVIOUS, self.parent(), &self.name)?,
            Some(_) => match system::exchange(self.home(), PREVIOUS, self.parent(), &self.name) {
                Err(e) if cannot(&e) => {
                    system::rename(self.parent(), &self.name, self.home(), SHADOW)?;
                    self.steps.next()?;
                    rename_new(self.home(), PREVIOUS, self.parent(), &self.name)?;
                }
                other => other?,
            },
        }
        self.side_files_back(None)?;
        self.sync()
    }

    /// Drops whatever is not live. Idempotent. Of a folder that was empty nobody has agreed to lose what came later, from
    /// whoever had it open.
    pub(crate) fn clear(&self) -> io::Result<()> {
        if let Some(Phase::Whole { new, born, empty: true, .. }) = read_phase(self.home())?
            && self.at_home(PREVIOUS)?.is_some_and(|id| !id.is(Id { ino: new, born }))
        {
            self.steps.next()?;
            if let Ok(previous) = system::open_dir_at(self.home(), PREVIOUS) {
                // Made by the file system, and kept only if something is in it.
                let _ = rustix::fs::unlinkat(previous, LOST_AND_FOUND, rustix::fs::AtFlags::REMOVEDIR);
            }
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

/// Where the data of a restore is that takes its place as a whole.
struct There {
    new: Id,
    target: Option<Id>,
    /// It was brought back already.
    is_back: bool,
    /// Where the old data is, if it has left its place.
    old: Option<&'static [u8]>,
    /// The new data is not where it was made.
    is_published: bool,
}

impl There {
    /// That what comes back is there, and nobody else's data in its place.
    fn may_go_back(&self, replaces: bool) -> io::Result<()> {
        match self.target {
            _ if self.is_back => Ok(()),
            Some(target) if self.old.is_some() && !target.is(self.new) => Err(exchanged()),
            target
                if replaces
                    && self.old.is_none()
                    && self.is_published
                    && target.is_none_or(|t| t.is(self.new)) =>
            {
                Err(io::Error::other(
                    "the old data is gone: this restore was settled, or somebody has removed it",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Of a file of this name, if there is one.
fn written(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Written>> {
    match system::stat_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        stat => {
            let stat = stat?;
            let is_file = stat.kind == system::Kind::File;
            Ok(is_file.then_some(Written { size: stat.size, mtime: stat.mtime }))
        }
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
