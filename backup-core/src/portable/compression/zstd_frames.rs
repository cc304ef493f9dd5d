//! zstd: independent frames, and the standard seek table of zstd's seekable format. zeekstd reads and writes the table.

use super::codec::{
    Codec, Encoder, Ended, Holds, LARGEST_FRAME, Lengths, OTHER_CONTENT, OTHER_LENGTH, damaged_frame,
    damaged_table, find,
};
use crate::{Error, ErrorKind, Result};
use std::io::{ErrorKind as ErrorOfInput, Read};
use zstd::zstd_safe::{self, CParameter};

/// Fixed end of a table: number of frames (4 bytes), descriptor (1), magic (4).
const FOOTER: usize = 9;
/// Magic and length of the skippable frame around it.
const HEADER: usize = 8;
const MAGIC: u32 = 0x8F92_EAB1;

pub(super) struct ZstdFrames;

struct ZstdEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    level: i32,
    /// The level that is set now.
    now: i32,
}

/// Lists of names and digests get no smaller with more trouble: 15.6 MB became 4.95 MB at level 1, at 357 MB/s, and 5.34 MB at
/// level 3, at 197 MB/s.
const LEVEL_OF_LISTS: i32 = 1;

/// The default level, and how it is done here.
const USUAL: i32 = 3;
/// Binary logarithms of the entries of both hash tables (of long and of short matches), and the bytes of a short match. Together
/// 384 KiB, half of what zstd takes at this level, so that the tables stay in a core's cache beside the data: 360 against
/// 322 MB/s, for 0.2 % of size (the mixed tree of the benchmark, frames of 4 MiB).
const USUAL_TABLES: [CParameter; 3] =
    [CParameter::HashLog(16), CParameter::ChainLog(15), CParameter::MinMatch(6)];
/// As the level has it.
const TABLES_OF_LEVEL: [CParameter; 3] =
    [CParameter::HashLog(0), CParameter::ChainLog(0), CParameter::MinMatch(0)];

fn failed(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Destination, "compress", e)
}

impl ZstdEncoder {
    fn new(level: i32) -> std::io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let mut encoder = ZstdEncoder { compressor, level, now: level };
        encoder.set_tables()?;
        Ok(encoder)
    }

    fn set_tables(&mut self) -> std::io::Result<()> {
        let tables = if self.now == USUAL { USUAL_TABLES } else { TABLES_OF_LEVEL };
        tables.into_iter().try_for_each(|table| self.compressor.set_parameter(table))
    }

    fn set_level(&mut self, level: i32) -> std::io::Result<()> {
        if level != self.now {
            self.compressor.set_compression_level(level)?;
            self.now = level;
            self.set_tables()?;
        }
        Ok(())
    }
}

impl Encoder for ZstdEncoder {
    fn encode(&mut self, raw: &[u8], what: Holds, packed: &mut Vec<u8>) -> Result<usize> {
        let level = match what {
            Holds::Data => self.level,
            Holds::Lists => self.level.min(LEVEL_OF_LISTS),
        };
        self.set_level(level).map_err(failed)?;
        packed.reserve(zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, packed).map_err(failed)
    }
}

impl Codec for ZstdFrames {
    fn encoder(&self, level: i32) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(ZstdEncoder::new(level).map_err(failed)?))
    }

    fn decode(&self, packed: &[u8], lengths: Lengths, raw: &mut Vec<u8>) -> Result<()> {
        let (packed_length, raw_length) = (lengths.packed as usize, lengths.raw as usize);
        match zstd_safe::find_frame_compressed_size(packed) {
            Ok(n) if n == packed.len() && n == packed_length => {}
            _ => return Err(damaged_frame(OTHER_LENGTH)),
        }
        let promised = zstd_safe::get_frame_content_size(packed).ok().flatten();
        if promised != Some(raw_length as u64) {
            return Err(damaged_frame(OTHER_CONTENT));
        }
        raw.reserve_exact(raw_length);
        let fail = |e: std::io::Error| damaged_frame(&e.to_string());
        let mut context = zstd::bulk::Decompressor::new().map_err(fail)?;
        match context.decompress_to_buffer(packed, raw).map_err(fail)? {
            n if n == raw_length => Ok(()),
            _ => Err(damaged_frame(OTHER_CONTENT)),
        }
    }

    fn decode_beginning(&self, packed: &[u8], raw: &mut Vec<u8>) -> Ended {
        let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(packed) else { return Ended::Damaged };
        let mut decoder = decoder.single_frame().take(LARGEST_FRAME.into());
        // A call that meets damage loses what it has decompressed itself: each is asked for little.
        let mut piece = [0; 512];
        loop {
            match decoder.read(&mut piece) {
                Ok(0) => return Ended::Whole,
                Ok(n) => raw.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorOfInput::UnexpectedEof => return Ended::Cut,
                Err(_) => return Ended::Damaged,
            }
        }
    }

    fn table_length(&self, tail: &[u8]) -> Option<u64> {
        let footer = &tail[tail.len().checked_sub(FOOTER)?..];
        if footer[5..] != MAGIC.to_le_bytes() || footer[4] != 0 {
            return None;
        }
        let frames = u32::from_le_bytes(footer[..4].try_into().ok()?);
        Some(u64::from(frames) * 8 + (HEADER + FOOTER) as u64)
    }

    fn find_frame(&self, bytes: &[u8]) -> Option<usize> {
        find(&zstd_safe::zstd_sys::ZSTD_MAGICNUMBER.to_le_bytes(), bytes)
    }

    fn lengths_at(&self, bytes: &[u8]) -> Option<Lengths> {
        let packed = zstd_safe::find_frame_compressed_size(bytes).ok()?;
        let packed = u32::try_from(packed).ok().filter(|n| *n <= LARGEST_FRAME)?;
        Some(Lengths { packed, raw: self.promised(bytes)? })
    }

    fn promised(&self, bytes: &[u8]) -> Option<u32> {
        let raw = zstd_safe::get_frame_content_size(bytes).ok().flatten()?;
        u32::try_from(raw).ok().filter(|n| (1..=LARGEST_FRAME).contains(n))
    }

    fn write_table(&self, frames: &[Lengths]) -> Result<Vec<u8>> {
        let mut table = zeekstd::SeekTable::new();
        for frame in frames {
            table.log_frame(frame.packed, frame.raw).map_err(|_| {
                let text = "the archive has too many frames";
                Error::new(ErrorKind::Destination, "write the seek table", text)
            })?;
        }
        let mut serializer = table.into_serializer();
        let mut out = vec![0; serializer.encoded_len()];
        let mut at = 0;
        while at < out.len() {
            match serializer.write_into(&mut out[at..]) {
                0 => break,
                n => at += n,
            }
        }
        Ok(out)
    }

    fn read_table(&self, bytes: &[u8]) -> Result<Vec<Lengths>> {
        // Checked before the library believes a number of frames.
        if self.table_length(bytes) != Some(bytes.len() as u64) {
            return Err(damaged_table("it is not as long as its number of frames wants it"));
        }
        let table = zeekstd::SeekTable::from_seekable(&mut zeekstd::BytesWrapper::new(bytes))
            .map_err(|e| damaged_table(&e.to_string()))?;
        let length = |n: zeekstd::Result<u64>| n.ok().and_then(|n| u32::try_from(n).ok());
        (0..table.num_frames())
            .map(|i| {
                let (packed, raw) = (length(table.frame_size_comp(i)), length(table.frame_size_decomp(i)));
                match (packed, raw) {
                    (Some(packed), Some(raw)) => Ok(Lengths { packed, raw }),
                    _ => Err(damaged_table("a frame is missing")),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_frames_is_not_believed() {
        let bytes = [&[0x5E, 0x2A, 0x4D, 0x18, 0x21, 0, 0, 0][..], &[0; 25], &[0, 0, 0, 8]].concat();
        for descriptor in [0, 3] {
            let table = [&bytes[..], &[descriptor], &MAGIC.to_le_bytes()].concat();
            assert!(ZstdFrames.read_table(&table).is_err());
        }
        assert!(ZstdFrames.read_table(&[]).is_err());
    }
}
