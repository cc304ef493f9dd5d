//! A database file with some of its pages replaced by those in a second file.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use crate::system::read_at;

/// Where the pages are which differ from the main file. Memory: about 20 bytes per page of the second file.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) page_size: u32,
    /// Pages of the result.
    pub(super) pages: u32,
    /// Page number (from 1) to the offset of its bytes in the second file.
    pub(super) offsets: HashMap<u32, u64>,
}

impl Overlay {
    pub(super) fn size(&self) -> u64 {
        u64::from(self.pages) * u64::from(self.page_size)
    }

    /// Reads `count` pages from page `first` (from 0) on. Pages past the end of the main file are zero.
    pub(super) fn read(&self, main: &File, second: &File, first: u32, count: u32) -> io::Result<Vec<u8>> {
        let page_size = self.page_size as usize;
        let mut chunk = vec![0; count as usize * page_size];
        read_at(main, u64::from(first) * u64::from(self.page_size), &mut chunk)?;
        for (number, page) in (first + 1..).zip(chunk.chunks_exact_mut(page_size)) {
            if let Some(&offset) = self.offsets.get(&number)
                && read_at(second, offset, page)? < page_size
            {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(chunk)
    }
}
