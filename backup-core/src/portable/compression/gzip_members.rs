//! gzip: every frame is a member; the table of them is in the extra fields of empty members behind them.

use super::{
    codec::{
        Codec, Encoder, Ended, Holds, LARGEST_FRAME, Lengths, OTHER_CONTENT, OTHER_LENGTH, damaged_frame,
        damaged_table, find,
    },
    incompressible::Probe,
};
use crate::{Error, ErrorKind, Result};
use flate2::{Compress, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// deflate, no name, no time, no word about the level, an unknown system.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
/// The same with an extra field.
const HEADER_WITH_EXTRA: [u8; 10] = [0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 0xFF];
/// Checksum and length of the content.
const TRAILER: usize = 8;
/// No content: an empty last block, its checksum and length.
const NOTHING: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Names of the one field within the extra field: lengths of frames, and the number of all frames.
const LENGTHS: [u8; 2] = *b"BT";
const NUMBER: [u8; 2] = *b"BE";
/// Lengths of as many frames as an extra field holds.
const FRAMES_OF_MEMBER: usize = (65_535 - 4) / 8;
/// What a member with an extra field has beside the field's content.
const AROUND: usize = HEADER_WITH_EXTRA.len() + 2 + 4 + NOTHING.len();
/// The last member, whose field is the number of frames.
const LAST: usize = AROUND + 4;
/// The most that a stored block of deflate holds.
const STORED_BLOCK: usize = 65_535;

pub(super) struct GzipMembers;

struct GzipEncoder {
    deflate: Compress,
    probe: Probe,
}

impl Encoder for GzipEncoder {
    fn encode(&mut self, raw: &[u8], _what: Holds, packed: &mut Vec<u8>) -> Result<usize> {
        packed.extend_from_slice(&HEADER);
        let stored = stored_length(raw.len());
        // What deflate makes larger than this is stored instead.
        packed.reserve(stored + TRAILER);
        if !self.probe.pays(raw)? || !self.deflate(raw, packed, stored)? {
            packed.truncate(HEADER.len());
            store(raw, packed);
        }
        let mut crc = Crc::new();
        crc.update(raw);
        packed.extend_from_slice(&crc.sum().to_le_bytes());
        packed.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        Ok(packed.len())
    }
}

impl GzipEncoder {
    /// `false` if it comes to more than `most` bytes.
    fn deflate(&mut self, raw: &[u8], packed: &mut Vec<u8>, most: usize) -> Result<bool> {
        let fail = |e| Error::new(ErrorKind::Destination, "compress", e);
        self.deflate.reset();
        let status = self.deflate.compress_vec(raw, packed, FlushCompress::Finish).map_err(fail)?;
        Ok(status == Status::StreamEnd && packed.len() - HEADER.len() <= most)
    }
}

fn stored_length(raw: usize) -> usize {
    raw + raw.div_ceil(STORED_BLOCK).max(1) * 5
}

fn store(raw: &[u8], packed: &mut Vec<u8>) {
    let blocks = raw.len().div_ceil(STORED_BLOCK);
    for (i, block) in raw.chunks(STORED_BLOCK).enumerate() {
        let length = block.len() as u16;
        packed.push(u8::from(i + 1 == blocks));
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&(!length).to_le_bytes());
        packed.extend_from_slice(block);
    }
}

impl Codec for GzipMembers {
    fn encoder(&self, level: i32) -> Result<Box<dyn Encoder>> {
        let level = u32::try_from(level).unwrap_or_default();
        Ok(Box::new(GzipEncoder {
            deflate: Compress::new(flate2::Compression::new(level), false),
            // deflate sees 32 KiB at a time: samples of half of it, an eighth of all.
            probe: Probe::new(16 << 10, 128 << 10)?,
        }))
    }

    fn decode(&self, packed: &[u8], lengths: Lengths, raw: &mut Vec<u8>) -> Result<()> {
        let body = packed.strip_prefix(&HEADER).filter(|_| packed.len() == lengths.packed as usize);
        let Some((body, trailer)) = body.and_then(|body| body.split_last_chunk::<TRAILER>()) else {
            return Err(damaged_frame(OTHER_LENGTH));
        };
        raw.reserve_exact(lengths.raw as usize);
        let mut inflate = Decompress::new(false);
        let status = inflate
            .decompress_vec(body, raw, FlushDecompress::Finish)
            .map_err(|e| damaged_frame(&e.to_string()))?;
        if status != Status::StreamEnd || inflate.total_in() != body.len() as u64 {
            return Err(damaged_frame(OTHER_LENGTH));
        }
        let mut crc = Crc::new();
        crc.update(raw);
        let expected = [crc.sum().to_le_bytes(), lengths.raw.to_le_bytes()].concat();
        if raw.len() != lengths.raw as usize || *trailer != expected[..] {
            return Err(damaged_frame(OTHER_CONTENT));
        }
        Ok(())
    }

    fn decode_beginning(&self, packed: &[u8], raw: &mut Vec<u8>) -> Ended {
        let Some(body) = packed.strip_prefix(&HEADER) else { return Ended::Damaged };
        let mut inflate = Decompress::new(false);
        while raw.len() < LARGEST_FRAME as usize {
            let before = (inflate.total_in(), inflate.total_out());
            raw.reserve(64 << 10);
            let rest = &body[(before.0 as usize).min(body.len())..];
            match inflate.decompress_vec(rest, raw, FlushDecompress::None) {
                Ok(Status::StreamEnd) => return Ended::Whole,
                // What it says where nothing is left to read.
                Ok(_) if before == (inflate.total_in(), inflate.total_out()) => return Ended::Cut,
                Ok(_) => {}
                Err(_) => return Ended::Damaged,
            }
        }
        Ended::Damaged
    }

    fn table_length(&self, tail: &[u8]) -> Option<u64> {
        let last = &tail[tail.len().checked_sub(LAST)?..];
        let at = AROUND - NOTHING.len();
        let number = last[at..at + 4].try_into().ok()?;
        (last == empty_member(NUMBER, &[number])).then(|| table_length(u32::from_le_bytes(number).into()))
    }

    fn find_frame(&self, bytes: &[u8]) -> Option<usize> {
        find(&HEADER, bytes)
    }

    /// Only its content tells where a member ends.
    fn lengths_at(&self, bytes: &[u8]) -> Option<Lengths> {
        let body = bytes.strip_prefix(&HEADER)?;
        let mut inflate = Decompress::new(false);
        let mut room = vec![0; 64 << 10];
        loop {
            let before = (inflate.total_in(), inflate.total_out());
            let rest = body.get(usize::try_from(before.0).ok()?..)?;
            let status = inflate.decompress(rest, &mut room, FlushDecompress::None).ok()?;
            let raw = u32::try_from(inflate.total_out()).ok().filter(|n| *n <= LARGEST_FRAME)?;
            if status == Status::StreamEnd {
                let packed = HEADER.len() + usize::try_from(inflate.total_in()).ok()? + TRAILER;
                let packed =
                    u32::try_from(packed).ok().filter(|n| *n <= LARGEST_FRAME && packed <= bytes.len())?;
                return Some(Lengths { packed, raw });
            }
            if before == (inflate.total_in(), inflate.total_out()) {
                return None;
            }
        }
    }

    fn write_table(&self, frames: &[Lengths]) -> Result<Vec<u8>> {
        let number = u32::try_from(frames.len()).map_err(|_| {
            Error::new(ErrorKind::Destination, "write the table of frames", "the archive has too many frames")
        })?;
        let mut out = Vec::with_capacity(table_length(number.into()) as usize);
        for part in frames.chunks(FRAMES_OF_MEMBER) {
            let lengths: Vec<_> =
                part.iter().flat_map(|f| [f.packed.to_le_bytes(), f.raw.to_le_bytes()]).collect();
            out.extend_from_slice(&empty_member(LENGTHS, &lengths));
        }
        out.extend_from_slice(&empty_member(NUMBER, &[number.to_le_bytes()]));
        Ok(out)
    }

    fn read_table(&self, table: &[u8]) -> Result<Vec<Lengths>> {
        if self.table_length(table) != Some(table.len() as u64) {
            return Err(damaged_table("it is not as long as its number of frames wants it"));
        }
        let mut frames = Vec::with_capacity(table.len() / 8);
        // Only the lengths are taken: that all around them is right is seen when they are written again.
        for member in table[..table.len() - LAST].chunks(AROUND + 8 * FRAMES_OF_MEMBER) {
            let lengths = member.get(AROUND - NOTHING.len()..member.len() - NOTHING.len());
            for pair in lengths.unwrap_or_default().chunks_exact(8) {
                let [a, b, c, d, e, f, g, h] = *pair else { continue };
                let (packed, raw) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
                frames.push(Lengths { packed, raw });
            }
        }
        Ok(frames)
    }
}

fn table_length(frames: u64) -> u64 {
    frames * 8 + frames.div_ceil(FRAMES_OF_MEMBER as u64) * AROUND as u64 + LAST as u64
}

/// A member without content, with numbers in its extra field.
fn empty_member(name: [u8; 2], numbers: &[[u8; 4]]) -> Vec<u8> {
    let length = 4 * numbers.len() as u16;
    let mut out = Vec::with_capacity(AROUND + usize::from(length));
    out.extend_from_slice(&HEADER_WITH_EXTRA);
    out.extend_from_slice(&(length + 4).to_le_bytes());
    out.extend_from_slice(&name);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(numbers.as_flattened());
    out.extend_from_slice(&NOTHING);
    out
}
