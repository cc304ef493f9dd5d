//! What a hot rollback journal would restore, read without SQLite, which would do it in the source.
//! <https://sqlite.org/fileformat2.html#the_rollback_journal>

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::detect::is_page_size;
use super::overlay::Overlay;
use crate::system::{path_from_bytes, read_at};

pub(super) const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// The page at this offset is never used; a record with its number holds a super-journal's name.
const LOCK_BYTE: u64 = 0x4000_0000;

/// What a journal file says.
#[derive(Debug)]
pub(super) enum Journal {
    /// Empty, finished (its header zeroed) or never synced: the database file stands alone.
    Cold,
    /// To be rolled back, if the super-journal named exists.
    Hot(Overlay, Option<PathBuf>),
}

/// Reads a journal as SQLite's `pager_playback` does.
pub(super) fn read(journal: &File, size: u64, database_page_size: u32) -> io::Result<Journal> {
    let mut header = [0; 28];
    if read_at(journal, 0, &mut header)? < header.len() || header[..8] != MAGIC {
        return Ok(Journal::Cold);
    }
    let (sector, page_size) = (word(&header, 20), word(&header, 24));
    let page_size = if page_size == 0 { database_page_size } else { page_size };
    if !is_page_size(page_size) || !sector.is_power_of_two() || !(32..=65_536).contains(&sector) {
        return Ok(Journal::Cold);
    }
    let pages = word(&header, 16);
    let lock_page = u32::try_from(LOCK_BYTE / u64::from(page_size) + 1).unwrap_or(u32::MAX);
    let (sector, record_size) = (u64::from(sector), u64::from(page_size) + 8);
    let mut record = vec![0; page_size as usize + 8];
    let mut offsets = HashMap::new();
    let mut offset = 0;
    'segments: while offset + sector <= size {
        if read_at(journal, offset, &mut header)? < header.len() || header[..8] != MAGIC {
            break;
        }
        let nonce = word(&header, 12);
        let count = match word(&header, 8) {
            // Written without syncing: as many as there are.
            u32::MAX => (size - offset - sector) / record_size,
            count => u64::from(count),
        };
        offset += sector;
        for _ in 0..count {
            if read_at(journal, offset, &mut record)? < record.len() {
                break 'segments;
            }
            let (number, page) = (word(&record, 0), &record[4..record.len() - 4]);
            let intact = word(&record, record.len() - 4) == checksum(nonce, page);
            if number == 0 || number == lock_page || (number <= pages && !intact) {
                break 'segments;
            }
            if number <= pages {
                // Should a page come twice, SQLite writes both in order: the later one stays.
                offsets.insert(number, offset + 4);
            }
            offset += record_size;
        }
        offset = offset.next_multiple_of(sector);
    }
    Ok(Journal::Hot(Overlay { page_size, pages, offsets }, super_journal(journal, size)?))
}

fn checksum(nonce: u32, page: &[u8]) -> u32 {
    let mut sum = nonce;
    let mut at = page.len().saturating_sub(200);
    while at > 0 {
        sum = sum.wrapping_add(u32::from(page[at]));
        at = at.saturating_sub(200);
    }
    sum
}

/// The name at the journal's end: name, its length, the sum of its bytes, the magic.
fn super_journal(journal: &File, size: u64) -> io::Result<Option<PathBuf>> {
    let mut tail = [0; 16];
    let Some(tail_at) = size.checked_sub(16) else { return Ok(None) };
    if read_at(journal, tail_at, &mut tail)? < 16 || tail[8..] != MAGIC {
        return Ok(None);
    }
    let length = u64::from(word(&tail, 0));
    let Some(name_at) = tail_at.checked_sub(length).filter(|_| (1..=4096).contains(&length)) else {
        return Ok(None);
    };
    let mut name = vec![0; usize::try_from(length).unwrap_or(0)];
    read_at(journal, name_at, &mut name)?;
    // SQLite sums C's `char`, which is signed on some processors.
    let signed = |sum: u32, &byte: &u8| sum.wrapping_add(i32::from(byte.cast_signed()).cast_unsigned());
    let unsigned = |sum: u32, &byte: &u8| sum.wrapping_add(u32::from(byte));
    let expected = word(&tail, 4);
    if expected != name.iter().fold(0, signed) && expected != name.iter().fold(0, unsigned) {
        return Ok(None);
    }
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok((!name.is_empty()).then(|| path_from_bytes(name)))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
