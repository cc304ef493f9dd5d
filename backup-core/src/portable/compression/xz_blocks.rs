//! xz: one stream, every frame a block of it with its lengths in its header; the index that every stream ends with is the table.
//! liblzma compresses; header, index and footer are written here, because it gives no access to single blocks.

use super::{
    codec::{
        Codec, Encoder, Ended, Holds, LARGEST_FRAME, Lengths, OTHER_CONTENT, OTHER_LENGTH, damaged_frame,
        damaged_table,
    },
    incompressible::Probe,
    xz_checks::{crc32, crc64, read_number, write_number},
};
use crate::{Error, ErrorKind, Result};
use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};

/// Flags of the stream: checked with CRC64.
const FLAGS: [u8; 2] = [0, 4];
/// Magic, flags, and their CRC32.
const HEAD: [u8; 12] = [0xFD, b'7', b'z', b'X', b'Z', 0, 0, 4, 0xE6, 0xD6, 0xB4, 0x46];
/// CRC32, length of the index, flags, magic.
const FOOTER: usize = 12;
const FOOTER_MAGIC: [u8; 2] = *b"YZ";
/// CRC64 at the end of a block.
const CHECK: usize = 8;
/// Of the LZMA2 filter.
const LZMA2: u8 = 0x21;
/// Of an encoder, which needs twelve times as much: 26 MB. The dictionaries of the presets, up to 64 MiB, would be of no use in a frame, and
/// one of 4 MiB saves 0.1 % of size and costs 22 MB more for every core.
const DICTIONARY: u32 = 2 << 20;
/// The property of the largest dictionary that is read, 16 MiB.
const LARGEST_DICTIONARY: u8 = 24;
/// The most that a chunk of LZMA2 holds uncompressed.
const STORED_CHUNK: usize = 1 << 16;

pub(super) struct XzBlocks;

struct XzEncoder {
    preset: u32,
    /// In bytes.
    dictionary: u32,
    probe: Probe,
}

fn failed(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Destination, "compress", e.into().to_string())
}

impl Encoder for XzEncoder {
    fn encode(&mut self, raw: &[u8], _what: Holds, packed: &mut Vec<u8>) -> Result<usize> {
        let property = dictionary_property(self.dictionary.min(raw.len() as u32));
        let stored = stored_length(raw.len());
        // Room for the header, whose length depends on that of the data.
        let mut body = std::mem::take(packed);
        let room = block_header(LARGEST_FRAME, raw.len() as u32, property).len();
        body.reserve(room + stored + 4 + CHECK);
        body.resize(room, 0);
        if !self.probe.pays(raw)? || !self.compress(raw, property, &mut body, room + stored)? {
            body.truncate(room);
            store(raw, &mut body);
        }
        let length = body.len() - room;
        let packed_length = u32::try_from(length).map_err(failed)?;
        let header = block_header(packed_length, raw.len() as u32, property);
        // Of shorter data it is shorter.
        let at = room - header.len();
        body[at..room].copy_from_slice(&header);
        body.drain(..at);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(&crc64(raw));
        *packed = body;
        Ok(header.len() + length + CHECK)
    }
}

impl XzEncoder {
    /// `false` if it comes to more than up to `end`.
    fn compress(&self, raw: &[u8], property: u8, out: &mut Vec<u8>, end: usize) -> Result<bool> {
        let mut options = LzmaOptions::new_preset(self.preset).map_err(failed)?;
        options.dict_size(dictionary_size(property));
        let mut filters = Filters::new();
        filters.lzma2(&options);
        let mut stream = Stream::new_raw_encoder(&filters).map_err(failed)?;
        let mut at = 0;
        loop {
            let before = stream.total_in();
            let status = stream.process_vec(&raw[at..], out, Action::Finish).map_err(failed)?;
            at += (stream.total_in() - before) as usize;
            if status == Status::StreamEnd {
                return Ok(out.len() <= end);
            }
            if out.len() >= end {
                return Ok(false);
            }
        }
    }
}

fn stored_length(raw: usize) -> usize {
    raw + raw.div_ceil(STORED_CHUNK) * 3 + 1
}

/// Chunks of LZMA2 without compression.
fn store(raw: &[u8], out: &mut Vec<u8>) {
    for (i, chunk) in raw.chunks(STORED_CHUNK).enumerate() {
        // The first one begins a dictionary.
        out.push(if i == 0 { 1 } else { 2 });
        out.extend_from_slice(&((chunk.len() - 1) as u16).to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out.push(0);
}

/// The smallest dictionary of at least so many bytes, as LZMA2 writes it: 2 or 3 times a power of two.
fn dictionary_property(bytes: u32) -> u8 {
    (0..LARGEST_DICTIONARY).find(|p| dictionary_size(*p) >= bytes).unwrap_or(LARGEST_DICTIONARY)
}

fn dictionary_size(property: u8) -> u32 {
    (2 | u32::from(property & 1)) << (property / 2 + 11)
}

/// The header of a block: both lengths, one filter.
fn block_header(packed: u32, raw: u32, property: u8) -> Vec<u8> {
    let mut out = vec![0, 0xC0];
    write_number(packed.into(), &mut out);
    write_number(raw.into(), &mut out);
    out.extend_from_slice(&[LZMA2, 1, property]);
    out.resize(out.len().next_multiple_of(4), 0);
    out[0] = (out.len() / 4) as u8;
    out.extend_from_slice(&crc32(&out));
    out
}

/// The length of the compressed data and the filter's property, from a header that is exactly as it is written above.
fn parse_block_header(block: &[u8], raw: u32) -> Option<(Vec<u8>, u32, u8)> {
    let mut rest = block.get(2..)?;
    let packed = u32::try_from(read_number(&mut rest)?).ok()?;
    read_number(&mut rest)?;
    let property = *rest.get(2)?;
    let header = block_header(packed, raw, property);
    (property <= LARGEST_DICTIONARY && block.starts_with(&header)).then_some((header, packed, property))
}

impl Codec for XzBlocks {
    fn head(&self) -> &'static [u8] {
        &HEAD
    }

    fn encoder(&self, level: i32) -> Result<Box<dyn Encoder>> {
        let preset = u32::try_from(level).map_err(failed)?;
        let dictionary = match preset {
            0 => 256 << 10,
            1 => 1 << 20,
            _ => DICTIONARY,
        };
        // A hundredth of the time that xz takes for it.
        Ok(Box::new(XzEncoder { preset, dictionary, probe: Probe::new(1 << 20, 1 << 20)? }))
    }

    fn at_once(&self, threads: usize) -> (usize, usize) {
        (threads, 2 * threads)
    }

    fn decode(&self, packed: &[u8], lengths: Lengths, raw: &mut Vec<u8>) -> Result<()> {
        let parsed = parse_block_header(packed, lengths.raw);
        let (header, data, property) = parsed.ok_or_else(|| damaged_frame(OTHER_CONTENT))?;
        let end = header.len().saturating_add(data as usize);
        let rest = packed.get(end..).and_then(|rest| rest.split_last_chunk::<CHECK>());
        let Some((padding, check)) = rest else { return Err(damaged_frame(OTHER_LENGTH)) };
        if lengths.packed as usize != end + CHECK
            || packed.len() != self.stored(lengths.packed) as usize
            || padding.iter().any(|b| *b != 0)
        {
            return Err(damaged_frame(OTHER_LENGTH));
        }
        raw.reserve_exact(lengths.raw as usize);
        let fail = |e: liblzma::stream::Error| damaged_frame(&e.to_string());
        let mut filters = Filters::new();
        filters.lzma2_properties(&[property]).map_err(fail)?;
        let mut stream = Stream::new_raw_decoder(&filters).map_err(fail)?;
        let mut body = &packed[header.len()..end];
        loop {
            let before = (stream.total_in(), stream.total_out());
            let status = stream.process_vec(body, raw, Action::Finish).map_err(fail)?;
            body = &body[(stream.total_in() - before.0) as usize..];
            match status {
                Status::StreamEnd if body.is_empty() => break,
                Status::StreamEnd => return Err(damaged_frame(OTHER_LENGTH)),
                // The end may stand behind the last byte that there was room for.
                _ if before != (stream.total_in(), stream.total_out()) => {}
                _ => return Err(damaged_frame(OTHER_CONTENT)),
            }
        }
        if raw.len() != lengths.raw as usize || crc64(raw) != *check {
            return Err(damaged_frame(OTHER_CONTENT));
        }
        Ok(())
    }

    fn decode_beginning(&self, packed: &[u8], raw: &mut Vec<u8>) -> Ended {
        // More than the largest dictionary of ours takes.
        let Ok(mut stream) = Stream::new_stream_decoder(64 << 20, 0) else { return Ended::Damaged };
        let input = [&HEAD, packed].concat();
        while raw.len() < LARGEST_FRAME as usize {
            let before = (stream.total_in(), stream.total_out());
            raw.reserve(64 << 10);
            let rest = &input[(before.0 as usize).min(input.len())..];
            match stream.process_vec(rest, raw, Action::Run) {
                Ok(_) if before == (stream.total_in(), stream.total_out()) => return Ended::Cut,
                Ok(Status::Ok | Status::GetCheck) => {}
                // It says so where nothing is left to read: behind a whole block, too, for the stream goes on.
                Ok(Status::MemNeeded) => return Ended::Cut,
                Ok(Status::StreamEnd) => return Ended::Whole,
                Err(_) => return Ended::Damaged,
            }
        }
        Ended::Damaged
    }

    fn stored(&self, packed: u32) -> u32 {
        packed.saturating_add(3) & !3
    }

    fn table_length(&self, tail: &[u8]) -> Option<u64> {
        let footer = &tail[tail.len().checked_sub(FOOTER)?..];
        let stored = u32::from_le_bytes(footer[4..8].try_into().ok()?);
        let index = (u64::from(stored) + 1) * 4;
        (footer == footer_of(stored)).then_some(index + FOOTER as u64)
    }

    /// A block's header ends with a checksum of its own.
    fn find_frame(&self, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| bytes.get(at + 1) == Some(&0xC0) && self.promised(&bytes[*at..]).is_some())
    }

    fn lengths_at(&self, bytes: &[u8]) -> Option<Lengths> {
        let raw = self.promised(bytes)?;
        let (header, data, _) = parse_block_header(bytes, raw)?;
        let packed = u32::try_from(header.len() as u64 + u64::from(data).next_multiple_of(4) + CHECK as u64);
        let padding = data.next_multiple_of(4) - data;
        let packed = packed.ok().filter(|n| *n <= LARGEST_FRAME && *n as usize <= bytes.len())?;
        Some(Lengths { packed: packed - padding, raw })
    }

    fn promised(&self, bytes: &[u8]) -> Option<u32> {
        let mut rest = bytes.get(2..)?;
        read_number(&mut rest)?;
        let raw = u32::try_from(read_number(&mut rest)?).ok()?;
        parse_block_header(bytes, raw).map(|_| raw).filter(|n| (1..=LARGEST_FRAME).contains(n))
    }

    fn write_table(&self, frames: &[Lengths]) -> Result<Vec<u8>> {
        let mut out = vec![0];
        write_number(frames.len() as u64, &mut out);
        for frame in frames {
            write_number(frame.packed.into(), &mut out);
            write_number(frame.raw.into(), &mut out);
        }
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(&crc32(&out));
        let stored = u32::try_from(out.len() / 4 - 1).map_err(failed)?;
        out.extend_from_slice(&footer_of(stored));
        Ok(out)
    }

    fn read_table(&self, table: &[u8]) -> Result<Vec<Lengths>> {
        let cut = || damaged_table("it ends before its last frame");
        if self.table_length(table) != Some(table.len() as u64) {
            return Err(damaged_table("it is not as long as it says"));
        }
        let mut rest = table.get(1..).ok_or_else(cut)?;
        let count = read_number(&mut rest).ok_or_else(cut)?;
        // A frame takes two bytes at least.
        if count > rest.len() as u64 / 2 {
            return Err(cut());
        }
        let mut length = || read_number(&mut rest).and_then(|n| u32::try_from(n).ok()).ok_or_else(cut);
        (0..count).map(|_| Ok(Lengths { packed: length()?, raw: length()? })).collect()
    }
}

fn footer_of(stored: u32) -> [u8; FOOTER] {
    let mut checked = [0; 6];
    checked[..4].copy_from_slice(&stored.to_le_bytes());
    checked[4..].copy_from_slice(&FLAGS);
    let mut footer = [0; FOOTER];
    footer[..4].copy_from_slice(&crc32(&checked));
    footer[4..10].copy_from_slice(&checked);
    footer[10..].copy_from_slice(&FOOTER_MAGIC);
    footer
}
