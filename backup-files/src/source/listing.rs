//! The names in one folder, sorted, in little memory.

use crate::system::{Kind, stat_at};
use rustix::fs::{Dir, FileType};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// Names of one folder in the order of their bytes: about 20 bytes each besides the name itself.
#[derive(Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    at: Vec<Name>,
    next: usize,
}

#[derive(Clone, Copy)]
struct Name {
    start: u64,
    length: u16,
    kind: Listed,
}

/// What a name was when it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Directory,
    File,
    /// A symbolic link, a pipe, a device, a socket: to be asked for.
    Other,
}

impl Names {
    /// Lists a folder; what are folders comes second.
    pub(crate) fn read(dir: BorrowedFd<'_>) -> io::Result<(Names, Names)> {
        let (mut others, mut folders) = (Names::default(), Names::default());
        for item in Dir::read_from(dir.as_fd())? {
            let item = item?;
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match item.file_type() {
                // Some file systems do not say. If that fails, opening it as a file will say why.
                FileType::Unknown => stat_at(dir, name).map_or(Kind::File, |stat| stat.kind),
                FileType::Directory => Kind::Directory,
                FileType::RegularFile => Kind::File,
                _ => Kind::Unknown,
            };
            match kind {
                Kind::Directory => folders.push(name, Listed::Directory),
                Kind::File => others.push(name, Listed::File),
                _ => others.push(name, Listed::Other),
            }
        }
        others.sort();
        folders.sort();
        Ok((others, folders))
    }

    /// Just this file.
    pub(crate) fn only(name: &[u8]) -> Names {
        let mut names = Names::default();
        names.push(name, Listed::File);
        names
    }

    fn push(&mut self, name: &[u8], kind: Listed) {
        let start = self.bytes.len() as u64;
        self.bytes.extend_from_slice(name);
        self.at.push(Name { start, length: u16::try_from(name.len()).unwrap_or(u16::MAX), kind });
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.at.sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
    }

    /// The next name.
    pub(crate) fn next(&mut self) -> Option<(&[u8], Listed)> {
        let name = *self.at.get(self.next)?;
        self.next += 1;
        Some((slice(&self.bytes, name), name.kind))
    }
}

fn slice(bytes: &[u8], name: Name) -> &[u8] {
    let start = name.start as usize;
    &bytes[start..start + usize::from(name.length)]
}
