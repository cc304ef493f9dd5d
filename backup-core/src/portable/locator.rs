//! The fixed-size last member: where the manifest is, and its digest. A ranged reader finds everything from here.

use crate::{Error, Result, Sha, tar};

/// Name of the member.
pub(super) const NAME: &[u8] = b"locator";
/// Bytes of its data.
const DATA: usize = 512;
/// Header, data and the two zero blocks that end a tar.
pub(super) const FRAME: usize = tar::BLOCK + DATA + 2 * tar::BLOCK;

/// Where `manifest.json` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locator {
    /// Where its header begins in the tar.
    pub(super) offset: u64,
    /// Bytes of its content.
    pub(super) length: u64,
    /// sha256 of its content.
    pub(super) sha256: Sha,
}

impl Locator {
    /// The last frame of an archive.
    pub(super) fn to_frame(&self) -> Vec<u8> {
        let text = format!(
            "backup archive, format 1\nmanifest.json\noffset {}\nlength {}\nsha256 {}\n",
            self.offset,
            self.length,
            hex::encode(self.sha256)
        );
        let mut out = Vec::with_capacity(FRAME);
        super::own_member(NAME, DATA as u64).encode(&mut out);
        out.extend_from_slice(text.as_bytes());
        // Newlines up to the fixed size: the member stays a text file.
        out.resize(tar::BLOCK + DATA, b'\n');
        out.resize(FRAME, 0);
        out
    }

    /// From exactly the last frame. Whatever is not as `to_frame` writes it is no locator.
    pub(super) fn from_frame(frame: &[u8]) -> Result<Self> {
        let parse = || {
            let data = std::str::from_utf8(frame.get(tar::BLOCK..tar::BLOCK + DATA)?).ok()?;
            let mut lines = data.lines().skip(2);
            let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
            let offset = field("offset")?.parse().ok()?;
            let length = field("length")?.parse().ok()?;
            let sha256 = hex::decode(field("sha256")?).ok()?.try_into().ok()?;
            Some(Locator { offset, length, sha256 })
        };
        parse().filter(|found| found.to_frame() == frame).ok_or_else(|| {
            Error::damaged(
                "find the manifest",
                "there is no locator at the end: the backup is incomplete or damaged",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_of_a_locator_is_noticed_or_changes_what_it_says() {
        let locator = Locator { offset: 5120, length: 77, sha256: [9; 32] };
        let frame = locator.to_frame();
        assert_eq!(frame.len(), FRAME);
        assert_eq!(Locator::from_frame(&frame).unwrap(), locator);
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Locator::from_frame(&flipped).ok(), Some(locator.clone()), "bit {bit}");
        }
    }
}
