//! Large files, streamed while they may be changing.

use crate::{
    source::run::Run,
    stamp::{Change, change_since, fingerprint, is_fresh, posix_of},
    system::{self, Stat},
};
use backup_core::{Content, Entry, Error, ErrorKind, Extent, Facts, Feed, Result, Stage, tar};
use bytes::Bytes;
use std::{fs::File, hash::Hasher, io, os::fd::AsFd, sync::Arc, time::SystemTime};
use twox_hash::XxHash3_64;

/// Up to this size a file that changed is read again: its bytes are stored again, too.
const RETRIED_UP_TO: u64 = 64 << 20;
/// How often a file is read in all.
pub(crate) const TRIES: u32 = 3;
const CHUNK: u64 = 512 * 1024;
/// One mebibyte of them; the smallest holes beyond are stored as zeros.
const MOST_EXTENTS: usize = 65_536;

/// A file that is open, as it was when it was opened or last tried.
pub(crate) struct LargeFile {
    pub(crate) run: Arc<Run>,
    pub(crate) path: Bytes,
    pub(crate) file: Arc<File>,
    pub(crate) stat: Stat,
    pub(crate) try_number: u32,
}

impl LargeFile {
    /// Its entry and its content.
    pub(crate) fn entry(self) -> (Entry, Content) {
        let mut entry = Entry::file(self.path.clone(), Stage::Data).sized(self.stat.size);
        let made = posix_of(&self.stat, &*self.file).and_then(|posix| {
            entry.posix = Some(posix);
            // Another change within the same tick of the clock would have the same one.
            let fresh = is_fresh(&self.stat, SystemTime::now());
            entry.fingerprint = (!fresh).then(|| fingerprint(&self.stat));
            entry.extents = extents(&self.file, &self.stat)?;
            Ok(())
        });
        if let Err(e) = made {
            let e = self.run.unreadable(&self.path, "read the attributes", e);
            return (entry, Content::failed(e));
        }
        let extents = entry.extents.clone();
        let content = Content::produce(move |feed| async move {
            let read = tokio::task::spawn_blocking(move || self.read(extents.as_deref(), &feed));
            read.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Panicked, "read a file", "the reading thread panicked"))
            })
        });
        (entry, content)
    }

    fn read(self, extents: Option<&[Extent]>, feed: &Feed) -> Result<Facts> {
        let whole = [Extent { offset: 0, length: self.stat.size }];
        let last_try = self.try_number >= TRIES || self.stat.size > RETRIED_UP_TO;
        let mut shrank = false;
        let mut stored = XxHash3_64::new();
        for extent in extents.unwrap_or(&whole) {
            let (mut at, end) = (extent.offset, extent.offset + extent.length);
            while at < end {
                let mut chunk = vec![0; usize::try_from(CHUNK.min(end - at)).unwrap_or(0)];
                let got = system::read_at(&self.file, at, &mut chunk)
                    .map_err(|e| self.run.unreadable(&self.path, "read", e))?;
                if got < chunk.len() {
                    shrank = true;
                    if !last_try {
                        return Err(self.again());
                    }
                }
                if self.stat.size <= RETRIED_UP_TO {
                    stored.write(&chunk);
                }
                at += chunk.len() as u64;
                feed.blocking_send(chunk)?;
            }
        }
        let now =
            system::stat_fd(self.file.as_fd()).map_err(|e| self.run.unreadable(&self.path, "stat", e))?;
        let change = match change_since(&self.stat, &now) {
            Change::Grew if !shrank && !self.begins_with(extents, stored.finish())? => Change::Content,
            change => change,
        };
        match change {
            _ if shrank => {
                self.run.warn(&self.path, "became shorter while it was read; filled up with zeros")
            }
            Change::None => {}
            Change::Grew => {
                self.run.note(&self.path, "grew while it was read; stored up to its size at open")
            }
            Change::Content if !last_try => return Err(self.again()),
            Change::Content => self.run.warn(&self.path, "changed while it was read; stored as it was read"),
        }
        Ok(Facts::new())
    }

    /// Whether it still begins with what was stored; of a large file that is not asked: no.
    fn begins_with(&self, stored_extents: Option<&[Extent]>, stored: u64) -> Result<bool> {
        if self.stat.size > RETRIED_UP_TO {
            return Ok(false);
        }
        let read = || {
            if extents(&self.file, &self.stat)?.as_deref() != stored_extents {
                return Ok(false);
            }
            let whole = [Extent { offset: 0, length: self.stat.size }];
            let mut again = XxHash3_64::new();
            let mut chunk = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
            for extent in stored_extents.unwrap_or(&whole) {
                let (mut at, end) = (extent.offset, extent.offset + extent.length);
                while at < end {
                    let wanted = usize::try_from(CHUNK.min(end - at)).unwrap_or(0);
                    let got = system::read_at(&self.file, at, &mut chunk[..wanted])?;
                    again.write(&chunk[..got]);
                    if got < wanted {
                        return Ok(false);
                    }
                    at += got as u64;
                }
            }
            Ok(again.finish() == stored)
        };
        read().map_err(|e| self.run.unreadable(&self.path, "read again", e))
    }

    /// Offers the next try and says why this one failed.
    fn again(self) -> Error {
        let e = Error::new(ErrorKind::Source, "read the file", "it changed meanwhile")
            .on(backup_core::display_path(&self.path));
        let retries = self.run.retries.clone();
        retries.offer(self.path.clone(), Box::new(move || self.next_try()));
        e
    }

    fn next_try(mut self) -> (Entry, Content) {
        self.try_number += 1;
        match system::stat_fd(self.file.as_fd()) {
            Ok(stat) => {
                self.stat = stat;
                self.entry()
            }
            Err(e) => {
                let e = self.run.unreadable(&self.path, "stat", e);
                (Entry::file(self.path, Stage::Data), Content::failed(e))
            }
        }
    }
}

/// Where a sparse file has data; `None`: everywhere.
pub(crate) fn extents(file: &File, stat: &Stat) -> io::Result<Option<Arc<[Extent]>>> {
    if stat.blocks.saturating_mul(512) >= stat.size {
        return Ok(None);
    }
    let found = system::data_extents(file.as_fd(), stat.size, MOST_EXTENTS)?;
    Ok(found.map(|list| aligned(&list, stat.size)))
}

/// Some file systems have smaller blocks than archives.
fn aligned(list: &[(u64, u64)], size: u64) -> Arc<[Extent]> {
    let list: Vec<_> = list.iter().map(|&(offset, length)| tar::Extent { offset, length }).collect();
    let list = tar::align_extents(&list, size).into_iter();
    list.map(|tar::Extent { offset, length }| Extent { offset, length }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_of_whole_blocks_of_the_archive_or_end_with_the_file() {
        let extent = |offset, length| Extent { offset, length };
        let found = [(100, 10), (1030, 600), (1700, 1), (5000, 100)];
        assert_eq!(aligned(&found, 5100)[..], [extent(0, 512), extent(1024, 1024), extent(4608, 492)]);
        assert_eq!(aligned(&[(512, 512)], 2000)[..], [extent(512, 512)]);
    }
}
