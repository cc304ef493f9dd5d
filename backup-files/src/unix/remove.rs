//! Removing a tree without ever leaving it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::attributes::set_mode;
use super::beneath::check_name;
use super::files::{open_dir_at, read_dir};
use super::filesystem::is_mount_root;
use super::stat::{Kind, stat_at, stat_fd};

/// Folders open at a time; deeper ones are first moved up.
const DEPTH: usize = 64;

/// Removes `name` in `parent` with everything beneath it; one that is gone already is no error. Symbolic links are
/// removed, not followed; folders without permission bits are given them first. Stops with the first error, before
/// anything that is mounted (`CrossesDevices`).
pub(crate) fn remove_tree_beneath(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    check_name(name)?;
    let kind = match stat_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        stat => stat?.kind,
    };
    if kind != Kind::Directory {
        return Ok(unlinkat(parent, name, AtFlags::empty())?);
    }
    let top = open_for_removal(parent, name, None)?;
    let mut removal = Removal { device: stat_fd(top.as_fd())?.dev, moved: 0 };
    removal.empty(top.as_fd(), top.as_fd(), 0)?;
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

struct Removal {
    device: u64,
    moved: u64,
}

impl Removal {
    fn empty(&mut self, top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        // Again until nothing is found: some file systems skip names while others are removed, and folders are
        // moved here from below.
        loop {
            let mut found = false;
            for name in read_dir(dir)? {
                found = true;
                self.remove(top, dir, &name?, depth)?;
            }
            if !found {
                return Ok(());
            }
        }
    }

    fn remove(
        &mut self,
        top: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // What unlink says of a folder, on Linux and elsewhere.
            Err(Errno::ISDIR | Errno::PERM) if stat_at(dir, name)?.kind == Kind::Directory => {}
            Err(error) => return Err(error.into()),
        }
        let child = open_for_removal(dir, name, Some(self.device))?;
        if depth < DEPTH {
            self.empty(top, child.as_fd(), depth + 1)?;
            return Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?);
        }
        drop(child);
        loop {
            self.moved += 1;
            let new = format!("removed-{}", self.moved);
            match renameat_with(dir, name, top, new.as_bytes(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                moved => return Ok(moved?),
            }
        }
    }
}

fn open_for_removal(parent: BorrowedFd<'_>, name: &[u8], device: Option<u64>) -> io::Result<OwnedFd> {
    let dir = match open_dir_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            set_mode(parent, name, 0o700)?;
            open_dir_at(parent, name)
        }
        dir => dir,
    }?;
    let stat = stat_fd(dir.as_fd())?;
    if device.is_some_and(|device| device != stat.dev) || is_mount_root(dir.as_fd())? {
        return Err(io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted there"));
    }
    if stat.mode & 0o700 != 0o700 && !super::is_root() {
        // If it is not ours to change, removing what is in it will say so.
        let _ = rustix::fs::fchmod(&dir, rustix::fs::Mode::RWXU);
    }
    Ok(dir)
}
