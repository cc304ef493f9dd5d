//! Where a sparse file has data.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Offset and length of the data, in order, up to `size`; None for a file without holes, or if the file system does
/// not tell. Moves the descriptor's position.
///
/// Never more than `max_extents` (at least 1): the smallest holes count as data then, for which zeroes are read.
pub(crate) fn data_extents(
    file: BorrowedFd<'_>,
    size: u64,
    max_extents: usize,
) -> io::Result<Option<Vec<(u64, u64)>>> {
    match seek(file, SeekFrom::Hole(0)) {
        Ok(hole) if hole < size => {}
        // Dense, empty, truncated meanwhile, or unknown.
        Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::NOTSUP) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut extents = Extents { list: Vec::new(), smallest_hole: 1, most: max_extents.max(1) };
    let mut offset = 0;
    while offset < size {
        let start = match seek(file, SeekFrom::Data(offset)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        offset = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        extents.push(start, offset);
    }
    let list = extents.list;
    if list.first() == Some(&(0, size)) {
        return Ok(None);
    }
    Ok(Some(list.into_iter().map(|(start, end)| (start, end - start)).collect()))
}

/// Start and end of each; holes smaller than `smallest_hole` are closed.
struct Extents {
    list: Vec<(u64, u64)>,
    smallest_hole: u64,
    most: usize,
}

impl Extents {
    fn push(&mut self, start: u64, end: u64) {
        self.add(start, end);
        while self.list.len() > self.most {
            self.smallest_hole = self.smallest_hole.saturating_mul(2);
            for (start, end) in std::mem::take(&mut self.list) {
                self.add(start, end);
            }
        }
    }

    fn add(&mut self, start: u64, end: u64) {
        match self.list.last_mut() {
            Some(last) if start - last.1 < self.smallest_hole => last.1 = end,
            _ => self.list.push((start, end)),
        }
    }
}
