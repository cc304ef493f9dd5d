//! The 512-byte header block: POSIX ustar as we write it; ustar, GNU and version 7 as we read them.

use super::error::TarFault;
use super::member::BLOCK;
use super::number::{self, put_octal};

/// Bytes of a name in a header block.
pub(super) const NAME: usize = 100;

const TEMPLATE: [u8; BLOCK] = {
    let mut block = [0; BLOCK];
    let fixed: [(usize, &[u8]); 8] = [
        (100, b"0000000\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"00000000000\0"),
        (136, b"00000000000\0"),
        // The checksum is taken with spaces in its place.
        (148, b"        "),
        (257, b"ustar\x0000"),
        (329, b"0000000\x000000000\0"),
    ];
    let mut i = 0;
    while i < fixed.len() {
        let (at, text) = fixed[i];
        let mut j = 0;
        while j < text.len() {
            block[at + j] = text[j];
            j += 1;
        }
        i += 1;
    }
    block
};

/// A header block being written.
pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    pub(super) fn new(typeflag: u8) -> Block {
        let mut block = Block(TEMPLATE);
        block.0[156] = typeflag;
        block
    }
    pub(super) fn name(&mut self, name: &[u8]) {
        let kept = name.len().min(NAME);
        self.0[..kept].copy_from_slice(&name[..kept]);
    }
    pub(super) fn link(&mut self, link: &[u8]) {
        let kept = link.len().min(NAME);
        self.0[157..157 + kept].copy_from_slice(&link[..kept]);
    }
    pub(super) fn mode(&mut self, mode: u32) {
        put_octal(&mut self.0[100..108], u64::from(mode));
    }
    pub(super) fn owner(&mut self, uid: u64, gid: u64) {
        put_octal(&mut self.0[108..116], uid);
        put_octal(&mut self.0[116..124], gid);
    }
    pub(super) fn size(&mut self, size: u64) {
        put_octal(&mut self.0[124..136], size);
    }
    pub(super) fn mtime(&mut self, seconds: u64) {
        put_octal(&mut self.0[136..148], seconds);
    }
    pub(super) fn device(&mut self, device: (u32, u32)) {
        for (at, value) in [(329, device.0), (337, device.1)] {
            let field = &mut self.0[at..at + 8];
            if u64::from(value) > number::largest_octal(8) {
                number::put_base256(field, u64::from(value));
            } else {
                put_octal(field, u64::from(value));
            }
        }
    }
    /// The finished block, with its checksum.
    pub(super) fn seal(mut self) -> [u8; BLOCK] {
        let sum: u32 = self.0.iter().map(|&b| u32::from(b)).sum();
        put_octal(&mut self.0[148..155], u64::from(sum));
        self.0
    }
}

/// A header block being read.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the checksum.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Header<'a>, TarFault> {
        let claimed = number::signed(&block[148..156], "checksum").map_err(|_| TarFault::Checksum)?;
        // The checksum itself counts as spaces.
        let spaces = 8 * i64::from(b' ');
        let total = |sum: fn(&[u8]) -> i64| sum(&block[..148]) + spaces + sum(&block[156..]);
        // Some old programs added the bytes up as signed.
        if claimed != total(|bytes| bytes.iter().map(|&b| i64::from(b)).sum())
            && claimed != total(|bytes| bytes.iter().map(|&b| i64::from(b as i8)).sum())
        {
            return Err(TarFault::Checksum);
        }
        Ok(Header(block))
    }
    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }
    /// Name with the prefix of ustar. GNU and version 7 have other things in the prefix' place.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let mut prefix: &[u8] = b"";
        if &self.0[257..263] == b"ustar\0" {
            // star ends its header with "tar" and keeps times after a shorter prefix.
            prefix = text(if &self.0[508..] == b"tar\0" { &self.0[345..476] } else { &self.0[345..500] });
        }
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
    pub(super) fn link(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }
    pub(super) fn mode(&self) -> Result<u32, TarFault> {
        // Old programs put the file type into the upper bits.
        Ok((number::unsigned(&self.0[100..108], "mode")? & 0o7777) as u32)
    }
    pub(super) fn uid(&self) -> Result<u64, TarFault> {
        number::unsigned(&self.0[108..116], "uid")
    }
    pub(super) fn gid(&self) -> Result<u64, TarFault> {
        number::unsigned(&self.0[116..124], "gid")
    }
    pub(super) fn size(&self) -> Result<u64, TarFault> {
        number::unsigned(&self.0[124..136], "size")
    }
    pub(super) fn mtime(&self) -> Result<i64, TarFault> {
        number::signed(&self.0[136..148], "mtime")
    }
    pub(super) fn device(&self) -> Result<(u32, u32), TarFault> {
        let one = |at: usize, name| {
            let value = number::unsigned(&self.0[at..at + 8], name)?;
            u32::try_from(value).map_err(|_| TarFault::Number(name))
        };
        Ok((one(329, "devmajor")?, one(337, "devminor")?))
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_block_reads_back() {
        let mut block = Block::new(b'3');
        block.name(&[b'n'; 100]);
        block.mode(0o4755);
        block.owner(1000, 0o7777777);
        block.size(0o77777777777);
        block.device((u32::MAX, 7));
        let block = block.seal();
        let header = Header::new(&block).unwrap();
        assert_eq!(header.path(), [b'n'; 100]);
        assert_eq!((header.mode().unwrap(), header.gid().unwrap()), (0o4755, 0o7777777));
        assert_eq!((header.size().unwrap(), header.device().unwrap()), (0o77777777777, (u32::MAX, 7)));
    }

    #[test]
    fn a_changed_byte_fails_the_checksum() {
        let block = Block::new(b'0').seal();
        for i in 0..BLOCK {
            let mut changed = block;
            changed[i] ^= 1;
            // The byte after the checksum's NUL is filling.
            assert!(Header::new(&changed).is_err() || (154..156).contains(&i), "byte {i}");
        }
    }

    #[test]
    fn a_checksum_of_signed_bytes_is_accepted() {
        let mut block = Block::new(b'0');
        block.name(b"\xff\xfe");
        let mut block = block.seal();
        let sum = number::unsigned(&block[148..156], "checksum").unwrap() - 512;
        put_octal(&mut block[148..155], sum);
        assert!(Header::new(&block).is_ok());
        put_octal(&mut block[148..155], sum + 256);
        assert!(Header::new(&block).is_err());
    }

    #[test]
    fn the_prefix_of_ustar_comes_before_the_name() {
        let mut block = Block::new(b'0');
        block.name(b"name");
        block.0[345..348].copy_from_slice(b"a/b");
        assert_eq!(Header::new(&block.seal()).unwrap().path(), b"a/b/name");
    }
}
