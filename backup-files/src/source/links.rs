//! Files with several names: the second name is stored as a hard link to the first.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

/// Remembers the first name of every file that has several. Memory: about 32 bytes per such file until all its names were
/// seen; the names themselves are in an unlinked temporary file.
#[derive(Default)]
pub(crate) struct LinkTable {
    seen: HashMap<(u64, u64), (u64, u32)>,
    names: Option<File>,
    end: u64,
}

impl LinkTable {
    /// Whether no file with several names was seen, or all of them were.
    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The name under which this file is stored already.
    pub(crate) fn first_name(&mut self, device: u64, inode: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((offset, left)) = self.seen.get_mut(&(device, inode)) else { return Ok(None) };
        let offset = *offset;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.seen.remove(&(device, inode));
        }
        let Some(file) = &mut self.names else { return Ok(None) };
        file.seek(SeekFrom::Start(offset))?;
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let mut name = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact(&mut name)?;
        Ok(Some(name))
    }

    /// This name of a file with `links` names will be stored.
    pub(crate) fn remember(&mut self, device: u64, inode: u64, links: u64, name: &[u8]) -> io::Result<()> {
        let file = match &mut self.names {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.end))?;
        let mut record = Vec::with_capacity(4 + name.len());
        record.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(name);
        file.write_all(&record)?;
        let others = u32::try_from(links.saturating_sub(1)).unwrap_or(u32::MAX);
        self.seen.insert((device, inode), (self.end, others));
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
        assert_eq!(table.first_name(1, 2).unwrap(), None);
        table.remember(1, 2, 3, b"a\xff").unwrap();
        table.remember(1, 3, 2, b"b/c").unwrap();
        assert_eq!(table.first_name(1, 2).unwrap().unwrap(), b"a\xff");
        assert_eq!(table.first_name(1, 3).unwrap().unwrap(), b"b/c");
        assert_eq!(table.first_name(2, 2).unwrap(), None);
        assert_eq!(table.first_name(1, 2).unwrap().unwrap(), b"a\xff");
        assert!(table.seen.is_empty());
    }
}
