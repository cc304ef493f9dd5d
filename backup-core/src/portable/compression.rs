//! How the tar of an archive is compressed, told by the ending of its name. Everything that differs between the compressions is
//! behind one seam, [`Codec`].

mod codec;
mod compressors;
mod gzip_members;
mod incompressible;
mod table;
mod xz_blocks;
mod xz_checks;
mod zstd_frames;

pub(super) use codec::{Codec, Ended, Holds, LARGEST_FRAME, Lengths};
pub(super) use compressors::{Compressors, Packed};
pub(super) use table::{FrameAt, TableOfFrames, frames_of};

use crate::{Error, ErrorKind, Result};

/// How an archive is compressed, told by the ending of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `.tar.zst`: independent zstd frames with the standard seek table.
    #[default]
    Zstd,
    /// `.tar.gz`, `.tgz`: independent gzip members, a table of them in empty members.
    Gzip,
    /// `.tar.xz`, `.txz`: one xz stream of independent blocks with its index.
    Xz,
    /// `.tar`: as it is.
    None,
}

impl Compression {
    /// All of them; the usual one first.
    pub const ALL: [Compression; 4] =
        [Compression::Zstd, Compression::Gzip, Compression::Xz, Compression::None];

    /// The ending of file names, without the leading dot.
    pub fn extension(self) -> &'static str {
        match self {
            Compression::Zstd => "tar.zst",
            Compression::Gzip => "tar.gz",
            Compression::Xz => "tar.xz",
            Compression::None => "tar",
        }
    }

    /// By the ending of a file name; `.age` after it says that the file is encrypted.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.strip_suffix(super::name::ENCRYPTED).unwrap_or(name);
        Self::ALL.into_iter().find(|c| {
            let short = match c {
                Compression::Gzip => Some(".tgz"),
                Compression::Xz => Some(".txz"),
                Compression::Zstd | Compression::None => None,
            };
            let stem = name.strip_suffix(c.extension()).and_then(|stem| stem.strip_suffix('.'));
            stem.or_else(|| name.strip_suffix(short?)).is_some()
        })
    }

    /// The level used when none is named: that of the tool itself.
    pub fn default_level(self) -> i32 {
        match self {
            Compression::Zstd => 3,
            Compression::Gzip | Compression::Xz => 6,
            Compression::None => 0,
        }
    }

    /// Whether a level may be asked for.
    pub fn check_level(self, level: i32) -> Result<()> {
        let allowed = match self {
            Compression::Zstd => 1..=19,
            Compression::Gzip => 1..=9,
            Compression::Xz => 0..=9,
            Compression::None => 0..=0,
        };
        if allowed.contains(&level) {
            return Ok(());
        }
        let text = format!("the levels of {} are {} to {}", self.extension(), allowed.start(), allowed.end());
        Err(Error::new(ErrorKind::Usage, "use the compression level", text).on(level))
    }

    /// How frames are written and read; a plain tar has none.
    pub(super) fn codec(self) -> Option<&'static dyn Codec> {
        match self {
            Compression::Zstd => Some(&zstd_frames::ZstdFrames),
            Compression::Gzip => Some(&gzip_members::GzipMembers),
            Compression::Xz => Some(&xz_blocks::XzBlocks),
            Compression::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_the_compression() {
        for compression in Compression::ALL {
            assert_eq!(Compression::of_name(&format!("x.{}", compression.extension())), Some(compression));
            assert!(compression.check_level(compression.default_level()).is_ok());
            assert!(compression.check_level(20).is_err());
        }
        assert_eq!(Compression::of_name("x.tgz"), Some(Compression::Gzip));
        assert_eq!(Compression::of_name("x.txz"), Some(Compression::Xz));
        assert_eq!(Compression::of_name("x.tar.xz.age"), Some(Compression::Xz));
        for other in ["x.age", "x.tar.age.gz", "x.zst", "x.gz", "tar.gz", "tgz", "x.tar.bz2", "xtar"] {
            assert_eq!(Compression::of_name(other), None, "{other}");
        }
    }

    /// A frame of two megabytes that compress well, as each compression packs it.
    fn packed_frames() -> (Vec<u8>, Vec<(Compression, Vec<u8>)>) {
        let mut raw = Vec::new();
        for n in 0..300_000u64 {
            raw.extend_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[..(n % 7) as usize]);
            raw.extend_from_slice(b"text");
        }
        let packed = |compression: Compression| {
            let mut packed = Vec::new();
            let mut encoder = compression.codec()?.encoder(compression.default_level()).unwrap();
            encoder.encode(&raw, Holds::Data, &mut packed).unwrap();
            Some((compression, packed))
        };
        let all = Compression::ALL.into_iter().filter_map(packed).collect();
        (raw, all)
    }

    fn beginning(compression: Compression, packed: &[u8]) -> (Ended, Vec<u8>) {
        let mut out = Vec::new();
        let ended = compression.codec().unwrap().decode_beginning(packed, &mut out);
        (ended, out)
    }

    #[test]
    fn of_a_frame_that_was_cut_the_beginning_is_read() {
        let (raw, all) = packed_frames();
        for (compression, packed) in all {
            let (ended, begin) = beginning(compression, &packed[..packed.len() * 2 / 3]);
            assert_eq!(ended, Ended::Cut, "{compression:?}");
            assert!(raw.starts_with(&begin), "{compression:?}");
            assert!(
                begin.len() > raw.len() / 2 && begin.len() < raw.len(),
                "{compression:?}: {}",
                begin.len()
            );
            let (ended, whole) = beginning(compression, &packed);
            assert_ne!(ended, Ended::Damaged, "{compression:?}");
            assert!(whole == raw, "{compression:?}");
            assert!(beginning(compression, &[]).1.is_empty(), "{compression:?}");
        }
    }

    /// Whether the flip is met at once, or runs on as wrong bytes, differs with what it hits: what stands well before it is as it was.
    #[test]
    fn of_a_frame_that_is_damaged_the_beginning_is_read() {
        let (raw, all) = packed_frames();
        for (compression, packed) in all {
            for part in [4, 6, 8] {
                let mut packed = packed.clone();
                let at = packed.len() * part / 10;
                packed[at] ^= 0x10;
                let (_, begin) = beginning(compression, &packed);
                let sound = begin.iter().zip(&raw).take_while(|(a, b)| a == b).count();
                let least = raw.len() * (part - 2) / 10;
                assert!(sound > least, "{compression:?}, {part}: {sound} of {least}");
            }
        }
    }
}
