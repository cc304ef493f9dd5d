//! Files with several names: the second name is stored as a hard link to the first.

use crate::system::{self, Stat};
use std::{
    collections::HashMap,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::BorrowedFd,
};

/// Remembers the first name of every file that has several. Memory: about 48 bytes per such file until all its names were
/// seen; the names themselves are in an unlinked temporary file.
#[derive(Default)]
pub(crate) struct LinkTable {
    seen: HashMap<(u64, u64), Seen>,
    names: Option<File>,
    end: u64,
}

struct Seen {
    offset: u64,
    names_left: u32,
    made: u64,
}

/// What tells a file from a later one that got its inode: when it was made, or else its size and time.
pub(crate) fn made(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    match system::birth_at(dir, name, stat.ino) {
        Some(birth) => (0, birth).hash(&mut hasher),
        None => (1, stat.size, stat.mtime).hash(&mut hasher),
    }
    hasher.finish()
}

impl LinkTable {
    /// Whether no file with several names was seen, or all of them were.
    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The name under which this file (device and inode, and [`made`]) is stored already.
    pub(crate) fn first_name(&mut self, file: (u64, u64), made: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(seen) = self.seen.get_mut(&file) else { return Ok(None) };
        if seen.made != made {
            return Ok(None);
        }
        let offset = seen.offset;
        seen.names_left = seen.names_left.saturating_sub(1);
        if seen.names_left == 0 {
            self.seen.remove(&file);
        }
        let Some(names) = &mut self.names else { return Ok(None) };
        names.seek(SeekFrom::Start(offset))?;
        let mut length = [0; 4];
        names.read_exact(&mut length)?;
        let mut name = vec![0; u32::from_le_bytes(length) as usize];
        names.read_exact(&mut name)?;
        Ok(Some(name))
    }

    /// This name of a file (device and inode, and [`made`]) with `links` names will be stored.
    pub(crate) fn remember(
        &mut self,
        file: (u64, u64),
        made: u64,
        links: u64,
        name: &[u8],
    ) -> io::Result<()> {
        let names = match &mut self.names {
            Some(names) => names,
            none => none.insert(tempfile::tempfile()?),
        };
        names.seek(SeekFrom::Start(self.end))?;
        let mut record = Vec::with_capacity(4 + name.len());
        record.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(name);
        names.write_all(&record)?;
        let names_left = u32::try_from(links.saturating_sub(1)).unwrap_or(u32::MAX);
        self.seen.insert(file, Seen { offset: self.end, names_left, made });
        self.end += record.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_later_name_leads_to_the_first_and_finished_files_are_forgotten() {
        let mut table = LinkTable::default();
        assert_eq!(table.first_name((1, 2), 7).unwrap(), None);
        table.remember((1, 2), 7, 3, b"a\xff").unwrap();
        table.remember((1, 3), 7, 2, b"b/c").unwrap();
        assert_eq!(table.first_name((1, 2), 7).unwrap().unwrap(), b"a\xff");
        assert_eq!(table.first_name((1, 3), 7).unwrap().unwrap(), b"b/c");
        assert_eq!(table.first_name((2, 2), 7).unwrap(), None);
        assert_eq!(table.first_name((1, 2), 7).unwrap().unwrap(), b"a\xff");
        assert!(table.seen.is_empty());
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let mut table = LinkTable::default();
        table.remember((1, 2), 7, 2, b"old").unwrap();
        assert_eq!(table.first_name((1, 2), 8).unwrap(), None);
        table.remember((1, 2), 8, 2, b"new").unwrap();
        assert_eq!(table.first_name((1, 2), 8).unwrap().unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_written_to_between_two_of_its_names_is_the_same() {
        use std::os::fd::AsFd;
        let folder = tempfile::tempdir().unwrap();
        let dir = system::open_dir(folder.path()).unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        std::fs::write(&one, "x").unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        let told = |name: &[u8]| made(dir.as_fd(), name, &system::stat_at(dir.as_fd(), name).unwrap());
        let before = told(b"one");
        assert_eq!(before, told(b"two"));
        std::fs::write(&one, "more").unwrap();
        let birth = system::birth_at(dir.as_fd(), b"two", system::stat_at(dir.as_fd(), b"two").unwrap().ino);
        assert_eq!(before == told(b"two"), birth.is_some());
        std::fs::write(folder.path().join("other"), "more").unwrap();
        assert_ne!(told(b"two"), told(b"other"));
    }
}
