//! Moving what is in a folder one by one, past whatever an application that still runs makes there meanwhile.

use super::{
    Publisher,
    record::{found, is_recorded, record_one, recorded},
    rename_new, set_attributes,
};
use crate::{
    system::{self, Kind},
    target::phase::{attributes_of, remember_attributes, remembered_attributes},
    target::place::{FOUND, Place},
    target::unchanged::{LOST_AND_FOUND, is_home},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::PoisonError,
};

/// How often something new may be in the way of one name.
const TRIES: usize = 100;

/// From where to where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// What is old, from the target; attributes of folders that cannot be renamed are remembered.
    Out,
    /// What is new, to the target.
    In,
    /// What is new, from the target again.
    Away,
    /// What is old, to the target again.
    Back,
    /// What is somebody else's, from the target.
    Aside,
}

impl Publisher {
    /// Moves everything in a folder to another, but for homes of restores. What is in both already, because it was
    /// interrupted, is moved on. Durable when it returns.
    pub(super) fn move_all(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &[u8],
        way: Way,
    ) -> io::Result<()> {
        let names = system::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        let (top, from_target) = (path.is_empty(), matches!(way, Way::Out | Way::Away));
        let ours = if top && way == Way::Away { recorded(self.home())? } else { None };
        for name in names {
            if top && from_target && is_home(from, &name) {
                continue;
            }
            self.steps.next()?;
            let inner = if top { name.clone() } else { [path, b"/", &name[..]].concat() };
            if top && from_target && self.stays(from, &name, way)? {
                self.move_folder(from, to, (&name, &name), &inner, way)?;
            } else if let Some(ours) = &ours
                && let Some(id) = found(from, &name)?
                && !is_recorded(ours, &name, id)
            {
                self.set_aside(from, &name)?;
            } else {
                self.move_one(from, to, &name, &inner, way)?;
            }
        }
        system::fsync_dir(from)?;
        system::fsync_dir(to)
    }

    /// Whether it is the file system's own `lost+found`: what is in it moves, and it does not.
    fn stays(&self, target: BorrowedFd<'_>, name: &[u8], way: Way) -> io::Result<bool> {
        if !self.mount_point || name != LOST_AND_FOUND || !is_folder(target, name)? {
            return Ok(false);
        }
        let was_there =
            || remembered_attributes(self.home()).map(|all| all.iter().any(|(path, _)| path == name));
        Ok(way == Way::Out || was_there()?)
    }

    fn move_one(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        way: Way,
    ) -> io::Result<()> {
        for _ in 0..TRIES {
            let e = match rename_new(from, name, to, name) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            let taken = e.kind() == io::ErrorKind::AlreadyExists;
            if !taken && e.kind() != io::ErrorKind::CrossesDevices {
                return Err(e);
            }
            // A publish is not gone on with: what is there, somebody else has made since it was emptied.
            let stranger = way == Way::In && !(self.mount_point && path == LOST_AND_FOUND);
            if is_folder(from, name)? && (!taken || !stranger && is_folder(to, name)?) {
                return self.move_folder(from, to, (name, name), path, way);
            }
            match way {
                _ if !taken => return Err(e),
                Way::In | Way::Back => self.set_aside(to, name)?,
                Way::Away => return self.set_aside(from, name),
                Way::Out | Way::Aside => return Err(e),
            }
        }
        Err(io::Error::other(format!("{} is made again and again", name.escape_ascii())))
    }

    /// A folder that cannot be renamed is made again, and what is in it moved.
    fn move_folder(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        (name, new): (&[u8], &[u8]),
        path: &[u8],
        way: Way,
    ) -> io::Result<()> {
        let inner = system::open_dir_at(from, name)?;
        let posix = attributes_of(inner.as_fd())?;
        if way == Way::Out {
            remember_attributes(self.home(), path, posix.clone())?;
        }
        self.steps.next()?;
        let made = match system::make_dir(to, new) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            made => made.is_ok(),
        };
        let outer = system::open_dir_at(to, new)?;
        if made {
            system::remove_acls(outer.as_fd())?;
        }
        if way == Way::In && path == name {
            record_one(self.home(), to, name)?;
        }
        self.move_all(inner.as_fd(), outer.as_fd(), path, way)?;
        set_attributes(outer.as_fd(), b".", &posix)?;
        if path == name && matches!(way, Way::Out | Way::Away) && self.stays(from, name, way)? {
            return Ok(());
        }
        self.steps.next()?;
        Ok(rustix::fs::unlinkat(from, name, rustix::fs::AtFlags::REMOVEDIR)?)
    }

    /// Moves what is not ours out of the way, to where nothing is ever removed.
    pub(super) fn set_aside(&self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.steps.next()?;
        let aside = self.folder_at_home(FOUND)?;
        let mut number = 1_u32;
        let new = loop {
            // Names have at most 255 bytes.
            let new = [format!("{number}-").as_bytes(), &name[..name.len().min(240)]].concat();
            match rename_new(dir, name, aside.as_fd(), &new) {
                Ok(()) => break new,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                // It is gone again.
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices && is_folder(dir, name)? => {
                    self.move_folder(dir, aside.as_fd(), (name, &new), &new, Way::Aside)?;
                    break new;
                }
                Err(e) => return Err(e),
            }
        };
        system::fsync_dir(aside.as_fd())?;
        system::fsync_dir(self.home())?;
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).push(new);
        Ok(())
    }

    /// Names of what was moved out of the way since this was last asked, and where it is now.
    pub(crate) fn take_set_aside(&self, place: &Place) -> Vec<(Vec<u8>, PathBuf)> {
        let all = std::mem::take(&mut *self.set_aside.lock().unwrap_or_else(PoisonError::into_inner));
        let folder = place.home.join(system::path_from_bytes(FOUND.to_vec()));
        let original = |new: &[u8]| new.splitn(2, |byte| *byte == b'-').nth(1).unwrap_or_default().to_vec();
        all.into_iter().map(|new| (original(&new), folder.join(system::path_from_bytes(new)))).collect()
    }
}

fn is_folder(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    Ok(system::stat_at(dir, name)?.kind == Kind::Directory)
}
