//! The standard seek table of zstd's seekable format: which frame holds which bytes. zeekstd reads and writes it; strictness is
//! ours: what is stored must be exactly what its content would be written as.

use crate::{Error, ErrorKind, Result};

/// Fixed end of a table: number of frames (4 bytes), descriptor (1), magic (4).
const FOOTER: usize = 9;
/// Magic and length of the skippable frame around it.
const HEADER: usize = 8;
/// Frames above this size are not ours; a reader must bound what it decompresses at once.
const LARGEST_FRAME: u64 = 16 << 20;

/// Lengths of frames, being collected.
pub(super) struct SeekTable(zeekstd::SeekTable);

impl Default for SeekTable {
    fn default() -> Self {
        SeekTable(zeekstd::SeekTable::new())
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameAt {
    /// Where it begins in the file.
    pub(super) packed: u64,
    /// How long it is there.
    pub(super) packed_length: u32,
    /// Where its content begins in the tar.
    pub(super) raw: u64,
    /// How long its content is.
    pub(super) raw_length: u32,
}

impl SeekTable {
    pub(super) fn push(&mut self, packed: usize, raw: usize) -> Result<()> {
        let too_large =
            || Error::new(ErrorKind::Destination, "write the seek table", "the archive has too many frames");
        let (packed, raw) = (u32::try_from(packed), u32::try_from(raw));
        let (Ok(packed), Ok(raw)) = (packed, raw) else { return Err(too_large()) };
        self.0.log_frame(packed, raw).map_err(|_| too_large())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut serializer = self.0.into_serializer();
        let mut out = vec![0; serializer.encoded_len()];
        let mut at = 0;
        while at < out.len() {
            match serializer.write_into(&mut out[at..]) {
                0 => break,
                n => at += n,
            }
        }
        out
    }
}

/// How long the table is, footer and frame header included, from the last nine bytes of a file.
pub(super) fn length_from_footer(footer: &[u8]) -> Option<u64> {
    let magic = footer.get(5..FOOTER)?;
    if magic != 0x8F92_EAB1u32.to_le_bytes() || footer[4] != 0 {
        return None;
    }
    let frames = u32::from_le_bytes(footer[..4].try_into().ok()?);
    Some(u64::from(frames) * 8 + (HEADER + FOOTER) as u64)
}

/// Reads a whole table (`bytes` is exactly it) of a file whose frames end at `frames_end`.
pub(super) fn parse(bytes: &[u8], frames_end: u64) -> Result<Vec<FrameAt>> {
    let fail = |text: &str| Error::damaged("read the seek table", text);
    // Checked before the library believes a number of frames.
    let footer = bytes.len().checked_sub(FOOTER).map(|at| &bytes[at..]);
    if footer.and_then(length_from_footer) != Some(bytes.len() as u64) {
        return Err(fail("it is not as long as its number of frames wants it"));
    }
    let table = zeekstd::SeekTable::from_seekable(&mut zeekstd::BytesWrapper::new(bytes))
        .map_err(|e| fail(&e.to_string()))?;
    let mut frames = Vec::with_capacity(table.num_frames() as usize);
    let (mut packed, mut raw) = (0u64, 0u64);
    let mut again = SeekTable::default();
    for i in 0..table.num_frames() {
        let (Ok(c), Ok(d)) = (table.frame_size_comp(i), table.frame_size_decomp(i)) else {
            return Err(fail("a frame is missing"));
        };
        if c == 0 || d == 0 || c > LARGEST_FRAME || d > LARGEST_FRAME {
            return Err(fail(&format!("frame {i} has an impossible size")));
        }
        again.push(c as usize, d as usize)?;
        frames.push(FrameAt { packed, packed_length: c as u32, raw, raw_length: d as u32 });
        packed += c;
        raw += d;
    }
    if packed != frames_end {
        return Err(fail("the frames that it names are not as long as the file"));
    }
    if again.into_bytes() != bytes {
        return Err(fail("it is not written as the format wants it"));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_frames_is_not_believed() {
        let mut bytes = [&[0x5E, 0x2A, 0x4D, 0x18, 0x21, 0, 0, 0][..], &[0; 25], &[0, 0, 0, 8]].concat();
        for descriptor in [0, 3] {
            let table = [&bytes[..], &[descriptor], &0x8F92_EAB1_u32.to_le_bytes()].concat();
            assert!(parse(&table, 100).is_err());
        }
        bytes.clear();
        assert!(parse(&bytes, 0).is_err());
    }

    #[test]
    fn a_table_comes_back_and_every_changed_bit_of_it_is_noticed() {
        let mut table = SeekTable::default();
        table.push(100, 1000).unwrap();
        table.push(7, 2000).unwrap();
        let bytes = table.into_bytes();
        assert_eq!(length_from_footer(&bytes[bytes.len() - 9..]), Some(bytes.len() as u64));
        let frames = parse(&bytes, 107).unwrap();
        assert_eq!(frames[1], FrameAt { packed: 100, packed_length: 7, raw: 1000, raw_length: 2000 });
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A changed raw length of a frame is the one thing that only the frame itself can contradict.
            if let Ok(other) = parse(&flipped, 107) {
                assert_ne!(other, frames, "bit {bit}");
                assert!(other.iter().zip(&frames).all(|(a, b)| a.packed_length == b.packed_length));
            }
        }
    }
}
