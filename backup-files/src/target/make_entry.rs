//! Making one thing in the shadow.

use crate::{
    devices, system,
    target::attributes::{Losses, apply_to_new_file, attributes},
    target::place::SHADOW,
    target::write_out::WriteOut,
};
use backup_core::{Entry, Error, ErrorKind, Extent, Kind, Posix, Result, display_path};
use bytes::Bytes;
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

/// Parents that a thread keeps open.
const OPEN_PARENTS: usize = 16;

/// What all threads that make things share.
pub(crate) struct Maker {
    pub(crate) home: OwnedFd,
    pub(crate) no_owner: bool,
    /// Somebody has agreed to devices.
    pub(crate) devices: bool,
    /// Owner and group of every new file, if that is certain.
    pub(crate) own: Option<(u32, u32)>,
    pub(crate) losses: Losses,
    pub(crate) write_out: WriteOut,
}

/// Something to be made.
pub(crate) enum Job {
    /// A file with all of its data.
    File(Entry, Bytes),
    /// A symbolic link, pipe, device or hard link.
    Node(Entry),
    /// A folder; its attributes come at the end.
    Folder(Bytes),
}

/// Folders that are open, the last used one last.
#[derive(Default)]
pub(crate) struct Parents(Vec<(Vec<u8>, Arc<OwnedFd>)>);

/// Where an entry is inside the home.
pub(crate) fn in_shadow(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { SHADOW.to_vec() } else { [SHADOW, b"/", path].concat() }
}

impl Parents {
    /// The folder that holds this entry, made if it is missing, and the entry's name in it.
    fn open<'a>(&mut self, maker: &Maker, path: &'a [u8]) -> io::Result<(Arc<OwnedFd>, &'a [u8])> {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (Some(&path[..slash]), &path[slash + 1..]),
            None => {
                (Some(&b""[..]).filter(|_| !path.is_empty()), if path.is_empty() { SHADOW } else { path })
            }
        };
        let Some(parent) = parent else {
            return Ok((Arc::new(maker.home.try_clone()?), name));
        };
        if let Some(at) = self.0.iter().rposition(|(path, _)| path == parent) {
            if at + 1 < self.0.len() {
                let last = self.0.remove(at);
                self.0.push(last);
            }
        } else {
            // The last name is not looked at.
            let inside = [&in_shadow(parent)[..], b"/x"].concat();
            let (fd, _) = system::open_parent_beneath(maker.home.as_fd(), &inside, true)?;
            if self.0.len() == OPEN_PARENTS {
                self.0.remove(0);
            }
            self.0.push((parent.to_vec(), Arc::new(fd)));
        }
        match self.0.last() {
            Some((_, fd)) => Ok((fd.clone(), name)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Maker {
    /// Makes it.
    pub(crate) fn run(&self, parents: &mut Parents, job: &Job) -> Result<()> {
        match job {
            Job::File(entry, data) => {
                let mut file = NewFile::create(self, parents, entry)?;
                file.write(self, data)
                    .and_then(|()| file.finish(self, entry))
                    .map_err(|e| failed(&entry.path, e))
            }
            Job::Node(entry) => self.node(parents, entry).map_err(|e| failed(&entry.path, e)),
            Job::Folder(path) => self.folder(parents, path).map_err(|e| failed(path, e)),
        }
    }

    fn folder(&self, parents: &mut Parents, path: &[u8]) -> io::Result<()> {
        let (parent, name) = parents.open(self, path)?;
        match system::make_dir(parent.as_fd(), name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                // It was made for what is in it.
                match system::stat_at(parent.as_fd(), name)?.kind {
                    system::Kind::Directory => Ok(()),
                    _ => Err(e),
                }
            }
            made => made,
        }
    }

    fn node(&self, parents: &mut Parents, entry: &Entry) -> io::Result<()> {
        let (parent, name) = parents.open(self, &entry.path)?;
        let dir = parent.as_fd();
        // Without the right to make one it is a loss like others, and no danger.
        if devices::is_device(entry) && !self.devices && system::is_root() {
            return Err(devices::not_agreed_to());
        }
        let link = entry.link.as_deref().unwrap_or_default();
        let (major, minor) = entry.posix.as_ref().and_then(|p| p.device).unwrap_or_default();
        let lost = |what, made: io::Result<()>| match made {
            // Not ours to fail with: the rest can be restored, and the result says what is missing.
            Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
                self.losses.add(what, &entry.path, &e);
                Ok(false)
            }
            made => made.map(|()| true),
        };
        let made = match entry.kind {
            Kind::Symlink => system::make_symlink(link, dir, name).map(|()| true),
            Kind::Fifo => lost("fifo", system::make_fifo(dir, name)),
            Kind::CharDevice => {
                lost("device", system::make_device(dir, name, system::Kind::CharacterDevice, major, minor))
            }
            Kind::BlockDevice => {
                lost("device", system::make_device(dir, name, system::Kind::BlockDevice, major, minor))
            }
            Kind::HardLink => {
                let made = system::make_hard_link(self.home.as_fd(), &in_shadow(link), dir, name);
                return match made {
                    // Its file was lost in the backup, or this file system has no hard links. Never through a link.
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !is_in_the_way(&e) => {
                        self.losses.add("link", &entry.path, &e);
                        Ok(())
                    }
                    made => made,
                };
            }
            Kind::File | Kind::Directory => Err(io::ErrorKind::InvalidInput.into()),
        };
        if made? && let Some(posix) = &entry.posix {
            self.attributes(dir, name, &entry.path, posix);
        }
        Ok(())
    }

    /// Sets the attributes of something that is no open file.
    pub(crate) fn attributes(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], posix: &Posix) {
        let (attributes, impossible) = attributes(posix, self.no_owner);
        if impossible && !self.no_owner {
            self.losses.add("owner", path, &io::Error::other("no such number on this system"));
        }
        for (what, e) in system::apply_attributes(dir, name, &attributes) {
            self.losses.add(&what, path, &e);
        }
    }
}

/// A file that is being written.
pub(crate) struct NewFile {
    file: File,
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
    extents: Option<Arc<[Extent]>>,
    /// The extent that comes next, and how much of it there is.
    at: (usize, u64),
    position: u64,
}

impl NewFile {
    /// For its owner only, until it is finished. What exists already is an error: two entries of one path.
    pub(crate) fn create(maker: &Maker, parents: &mut Parents, entry: &Entry) -> Result<Self> {
        let made = parents.open(maker, &entry.path).and_then(|(parent, name)| {
            Ok((system::create_file(parent.as_fd(), name)?, parent, name.to_vec()))
        });
        let (file, parent, name) = made.map_err(|e| failed(&entry.path, e))?;
        Ok(NewFile { file, parent, name, extents: entry.extents.clone(), at: (0, 0), position: 0 })
    }

    /// Writes what comes next; holes are left out.
    pub(crate) fn write(&mut self, maker: &Maker, mut data: &[u8]) -> io::Result<()> {
        maker.write_out.wrote(data.len() as u64);
        let Some(extents) = &self.extents else {
            self.file.write_all_at(data, self.position)?;
            self.position += data.len() as u64;
            return Ok(());
        };
        while !data.is_empty() {
            let (index, done) = self.at;
            let extent = extents.get(index).ok_or(io::ErrorKind::InvalidData)?;
            let count = usize::try_from(extent.length - done).unwrap_or(usize::MAX).min(data.len());
            self.file.write_all_at(&data[..count], extent.offset + done)?;
            data = &data[count..];
            let done = done + count as u64;
            self.at = if done == extent.length { (index + 1, 0) } else { (index, done) };
        }
        Ok(())
    }

    /// Gives it its length and its attributes.
    pub(crate) fn finish(&mut self, maker: &Maker, entry: &Entry) -> io::Result<()> {
        if self.extents.is_some() {
            self.file.set_len(entry.size.unwrap_or(0))?;
        }
        if let Some(posix) = &entry.posix {
            let mut failed = |what: &str, e| maker.losses.add(what, &entry.path, &e);
            apply_to_new_file(&self.file, posix, maker.no_owner, maker.own, &mut failed);
        }
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn remove(self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.parent, &self.name[..], rustix::fs::AtFlags::empty())?)
    }
}

/// Why something cannot be made.
pub(crate) fn failed(path: &[u8], e: io::Error) -> Error {
    let path = display_path(path);
    match e.kind() {
        io::ErrorKind::AlreadyExists => Error::new(
            ErrorKind::Target,
            "restore",
            "it is there already: it appears twice in the backup, or this file system takes another name for the same",
        )
        .on(path),
        _ if is_in_the_way(&e) => {
            Error::damaged("restore", "the backup has a file or link where a folder must be").on(path)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::io(ErrorKind::Target, "write", e)
            .on(path)
            .hint("make room on the file system of the target"),
        _ => Error::io(ErrorKind::Target, "write", e).on(path),
    }
}

/// Whether a link or file stands where a folder must be.
fn is_in_the_way(e: &io::Error) -> bool {
    let is_link = e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || e.kind() == io::ErrorKind::NotADirectory
}
