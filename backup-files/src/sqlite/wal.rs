//! The committed content of a write-ahead log, read without SQLite, which would need a `-shm` file for it.
//! <https://sqlite.org/fileformat2.html#the_write_ahead_log>

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::detect::is_page_size;
use super::overlay::Overlay;
use crate::system::read_at;

pub(super) const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const VERSION: u32 = 3_007_000;
/// How a log begins: with its numbers little-endian, or big-endian.
pub(super) const MAGIC: [u32; 2] = [0x377f_0682, 0x377f_0683];

/// The pages of all committed transactions, or None if there is none: the database file stands alone then.
/// Reads the log once from end to end, which is what SQLite's recovery does.
pub(super) fn committed(wal: &File) -> io::Result<Option<Overlay>> {
    let mut header = [0; HEADER];
    if read_at(wal, 0, &mut header)? < HEADER {
        return Ok(None);
    }
    let page_size = word(&header, 8);
    let Some(order) = MAGIC.iter().position(|magic| *magic == word(&header, 0)) else { return Ok(None) };
    let big_endian = order == 1;
    let mut sum = checksum((0, 0), &header[..24], big_endian);
    if word(&header, 4) != VERSION
        || !is_page_size(page_size)
        || sum != (word(&header, 24), word(&header, 28))
    {
        return Ok(None);
    }

    let frame_size = FRAME_HEADER + page_size as usize;
    let mut frame = vec![0; frame_size];
    let mut offset = HEADER as u64;
    let mut pages = 0;
    let mut offsets = HashMap::new();
    let mut uncommitted = Vec::new();
    while read_at(wal, offset, &mut frame)? == frame_size {
        let (number, size_after_commit) = (word(&frame, 0), word(&frame, 4));
        if number == 0 || frame[8..16] != header[16..24] {
            break;
        }
        sum = checksum(sum, &frame[..8], big_endian);
        sum = checksum(sum, &frame[FRAME_HEADER..], big_endian);
        if sum != (word(&frame, 16), word(&frame, 20)) {
            break;
        }
        uncommitted.push((number, offset + FRAME_HEADER as u64));
        if size_after_commit != 0 {
            pages = size_after_commit;
            offsets.extend(uncommitted.drain(..));
        }
        offset += frame_size as u64;
    }
    Ok((pages != 0).then_some(Overlay { page_size, pages, offsets }))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| {
            let four = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
            if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
        };
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}
