//! The map of GNU sparse 1.0, which stands before a sparse file's data: the number of extents, then offset and length
//! of each, every number on a line, padded to a block.

use super::error::TarFault;
use super::member::{BLOCK, Extent, padded};
use super::number::{Decimal, decimal};

/// Appends the map of a file of `real_size` bytes with data at `extents` (in order, not overlapping), padded to a
/// block. As GNU tar does, an extent without length at the end stands for a hole there.
///
/// The extents must have gone through [`align_extents`]: GNU tar starts each at a new block of the archive, whatever
/// the length of the one before.
pub fn encode_sparse_map(extents: &[Extent], real_size: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let end = end_extent(extents, real_size);
    let written = || extents.iter().filter(|extent| extent.length > 0).chain(&end);
    put_line(out, written().count() as u64);
    for extent in written() {
        put_line(out, extent.offset);
        put_line(out, extent.length);
    }
    out.resize(start + (out.len() - start).next_multiple_of(BLOCK), 0);
}

/// Widens extents (in order) to whole blocks, but not beyond the end of the file, and joins those that then touch. The
/// zeros that come in are in the file's holes: read them from there.
pub fn align_extents(extents: &[Extent], real_size: u64) -> Vec<Extent> {
    let mut aligned: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents.iter().filter(|extent| extent.length > 0 && extent.offset < real_size) {
        let offset = extent.offset - extent.offset % BLOCK as u64;
        let end = padded(extent.offset.saturating_add(extent.length)).min(real_size);
        match aligned.last_mut() {
            Some(last) if last.offset + last.length >= offset => {
                last.length = last.length.max(end.saturating_sub(last.offset));
            }
            _ => aligned.push(Extent { offset, length: end - offset }),
        }
    }
    aligned
}

/// The extent that marks a hole at the end. GNU tar takes the end of the last extent for the size it must make.
pub(super) fn end_extent(extents: &[Extent], real_size: u64) -> Option<Extent> {
    let end = extents.iter().rfind(|extent| extent.length > 0).map(|e| e.offset.saturating_add(e.length));
    (end != Some(real_size)).then_some(Extent { offset: real_size, length: 0 })
}

fn put_line(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Decimal::new(value).bytes());
    out.push(b'\n');
}

/// Extents as they are read: in order, apart, inside the file, and not too many. Those without length are checked and
/// dropped.
pub(super) struct Extents {
    kept: Vec<Extent>,
    seen: usize,
    end: u64,
    data: u64,
    real_size: u64,
    limit: usize,
}

impl Extents {
    pub(super) fn new(real_size: u64, limit: usize) -> Extents {
        Extents { kept: Vec::new(), seen: 0, end: 0, data: 0, real_size, limit }
    }

    pub(super) fn push(&mut self, offset: u64, length: u64) -> Result<(), TarFault> {
        self.seen += 1;
        if self.seen > self.limit {
            return Err(TarFault::TooManyExtents(self.limit));
        }
        if offset < self.end {
            return Err(TarFault::Sparse("extents overlap or are out of order"));
        }
        let end = offset.checked_add(length).filter(|&end| end <= self.real_size);
        self.end = end.ok_or(TarFault::Sparse("an extent reaches beyond the file"))?;
        // No overflow: extents that are apart add up to at most the file's size.
        self.data += length;
        if length > 0 {
            self.kept.push(Extent { offset, length });
        }
        Ok(())
    }

    /// The extents, if they hold `data` bytes together.
    pub(super) fn finish(self, data: u64) -> Result<Vec<Extent>, TarFault> {
        if self.data != data {
            return Err(TarFault::Sparse("the extents do not add up to the data"));
        }
        Ok(self.kept)
    }
}

/// Reads a map block by block, so that no more of the member is fetched than needed.
pub struct SparseMapDecoder {
    member_size: u64,
    used: u64,
    extents: Extents,
    expected: Option<u64>,
    offset: Option<u64>,
    digits: Vec<u8>,
}

impl SparseMapDecoder {
    /// For a member of `member_size` bytes (map included) that expands to `real_size`, with at most `limit` extents.
    pub fn new(member_size: u64, real_size: u64, limit: usize) -> SparseMapDecoder {
        SparseMapDecoder {
            member_size,
            used: 0,
            extents: Extents::new(real_size, limit),
            expected: None,
            offset: None,
            digits: Vec::new(),
        }
    }

    /// Takes the next [`BLOCK`] bytes of the member's data; `true` when the map is complete.
    pub fn push(&mut self, block: &[u8]) -> Result<bool, TarFault> {
        self.used += BLOCK as u64;
        if block.len() != BLOCK || self.used > self.member_size {
            return Err(TarFault::Sparse("the map is longer than the data"));
        }
        for (i, &byte) in block.iter().enumerate() {
            if byte != b'\n' {
                if !byte.is_ascii_digit() || self.digits.len() == 20 {
                    return Err(TarFault::Sparse("the map has something else than numbers"));
                }
                self.digits.push(byte);
                continue;
            }
            let value =
                decimal(&self.digits).ok_or(TarFault::Sparse("a number in the map is out of range"))?;
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) if value > self.extents.limit as u64 => {
                    return Err(TarFault::TooManyExtents(self.extents.limit));
                }
                (None, _) => self.expected = Some(value),
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => self.extents.push(offset, value)?,
            }
            if self.offset.is_none() && self.expected == Some(self.extents.seen as u64) {
                if block[i + 1..].iter().any(|&b| b != 0) {
                    return Err(TarFault::Sparse("something follows the map in its block"));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The extents of a complete map, those without length left out, and the map's length in bytes.
    pub fn finish(self) -> Result<(Vec<Extent>, u64), TarFault> {
        if self.offset.is_some() || self.expected != Some(self.extents.seen as u64) {
            return Err(TarFault::Sparse("the map is not complete"));
        }
        Ok((self.extents.finish(self.member_size - self.used)?, self.used))
    }
}

/// Reads a map from the beginning of a member's data: extents and the map's length in bytes, or `None` if `data` (of
/// which there may be more than the map) ends too early. See [`SparseMapDecoder`].
pub fn decode_sparse_map(
    data: &[u8],
    member_size: u64,
    real_size: u64,
    limit: usize,
) -> Result<Option<(Vec<Extent>, u64)>, TarFault> {
    let mut decoder = SparseMapDecoder::new(member_size, real_size, limit);
    for block in data.chunks_exact(BLOCK) {
        if decoder.push(block)? {
            return decoder.finish().map(Some);
        }
    }
    if padded(data.len() as u64) >= padded(member_size) && data.len() as u64 >= member_size {
        return Err(TarFault::Sparse("the map is longer than the data"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn a_map_is_read_as_it_was_written() {
        for count in [0, 1, 2, 50, 1000] {
            for hole in [0, 1 << 40] {
                let extents: Vec<_> = (0..count).map(|i| extent(i * 8192 + 4096, 4096)).collect();
                let real = count * 8192 + hole;
                let mut map = Vec::new();
                encode_sparse_map(&extents, real, &mut map);
                assert_eq!(map.len() % BLOCK, 0);
                let size = map.len() as u64 + count * 4096;
                assert_eq!(
                    decode_sparse_map(&map, size, real, 2000).unwrap(),
                    Some((extents.clone(), map.len() as u64))
                );
                assert!(decode_sparse_map(&map, size + 1, real, 2000).is_err());
                assert!(matches!(
                    decode_sparse_map(&map[..map.len() - 512], size, real, 2000),
                    Ok(None) | Err(_)
                ));
            }
        }
        let mut map = Vec::new();
        encode_sparse_map(&[extent(0, 3)], 10, &mut map);
        assert!(map.starts_with(b"2\n0\n3\n10\n0\n\0"));
    }

    #[test]
    fn extents_are_widened_to_blocks_and_joined() {
        let odd = [
            extent(1, 3),
            extent(511, 2),
            extent(1500, 10),
            extent(4096, 512),
            extent(9000, 50),
            extent(9100, 0),
        ];
        let expected = [extent(0, 1536), extent(4096, 512), extent(8704, 346)];
        assert_eq!(align_extents(&odd, 9050), expected);
        assert_eq!(align_extents(&expected, 9050), expected);
        assert_eq!(align_extents(&[extent(0, 600), extent(700, u64::MAX)], 800), [extent(0, 800)]);
        assert_eq!(align_extents(&[extent(900, 1)], 800), []);
    }

    #[test]
    fn false_maps_are_errors() {
        let cases: [&[u8]; 13] = [
            b"2\n0\n5\n4\n1\n",
            b"2\n5\n1\n0\n5\n",
            b"1\n95\n6\n",
            b"1\n18446744073709551615\n6\n",
            b"11\n",
            b"1\n0\n5\n",
            b"1\n0\n7\n",
            b"x\n",
            b"1\n-1\n6\n",
            b"\n1\n0\n6\n",
            b"1 0 6\n",
            b"000000000000000000001\n0\n6\n",
            b"1\n0\n6\n9\n",
        ];
        for case in cases {
            let mut map = case.to_vec();
            map.resize(512, 0);
            assert!(decode_sparse_map(&map, 518, 100, 10).is_err(), "{}", case.escape_ascii());
        }
    }

    #[test]
    fn a_million_extents_are_refused_at_the_first_number() {
        let mut map = b"1000001\n".to_vec();
        map.resize(512, b'1');
        let result = decode_sparse_map(&map, u64::MAX / 2, u64::MAX / 2, 1_000_000);
        assert!(matches!(result, Err(TarFault::TooManyExtents(1_000_000))));
    }
}
