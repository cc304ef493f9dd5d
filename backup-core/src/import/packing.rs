//! How a file of another program is compressed, and what is read through its decompressor.

use liblzma::stream::{CONCATENATED, Stream};
use std::io::{self, BufRead, Read};

/// Bytes that a decompressor of xz may take: `xz -9` needs 65 MiB. That of zstd has a limit of its own, 128 MiB.
const MOST_MEMORY: u64 = 256 << 20;

/// A compression, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    /// What is compressed so begins with these bytes, six if there are so many.
    pub(super) fn of(first: &[u8]) -> Self {
        match first {
            [0x1F, 0x8B, ..] => Packing::Gzip,
            // A frame that is passed over may stand first: `pzstd` writes one.
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Packing::Zstd,
            [0xFD, b'7', b'z', b'X', b'Z', 0] => Packing::Xz,
            _ => Packing::Plain,
        }
    }

    /// What a file of this name in lower case must be; `None`: the name says nothing.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        let endings = [
            (".gz", Packing::Gzip),
            (".tgz", Packing::Gzip),
            (".zst", Packing::Zstd),
            (".xz", Packing::Xz),
            (".txz", Packing::Xz),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, packing)| packing)
    }

    /// For people.
    pub(super) fn program(self) -> &'static str {
        match self {
            Packing::Plain => "cat",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::Xz => "xz",
        }
    }

    /// The content. What is cut or damaged is an error, at its end at the latest; the memory that it takes is bounded.
    pub(super) fn unpack<'a>(self, file: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(GzipMembers { member: Some(flate2::bufread::GzDecoder::new(file)) }),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
            Packing::Xz => {
                let stream = Stream::new_stream_decoder(MOST_MEMORY, CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream))
            }
        })
    }
}

/// Whether it takes more memory to decompress than is allowed: then nobody can say whether it is whole.
pub(super) fn takes_too_much_memory(e: &io::Error) -> bool {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
    matches!(inner, Some(liblzma::stream::Error::MemLimit)) || e.to_string().contains("too much memory")
}

/// Members one after another. Zeros after the last are padding, as `gzip` takes them; anything else is damage.
struct GzipMembers<R> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let Some(ended) = self.member.take() else { break };
            let mut rest = ended.into_inner();
            match rest.fill_buf()?.first().copied() {
                None => {}
                Some(0) => only_zeros(&mut rest)?,
                Some(_) => self.member = Some(flate2::bufread::GzDecoder::new(rest)),
            }
        }
        Ok(0)
    }
}

fn only_zeros(rest: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|b| *b != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is something after its end"));
        }
        let n = bytes.len();
        rest.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn unpacked(packing: Packing, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        packing.unpack(Cursor::new(bytes))?.read_to_end(&mut out).map(|_| out)
    }

    /// The same text twice, packed twice: every format may be put together.
    fn packed() -> Vec<(Packing, Vec<u8>, Vec<u8>)> {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&text).unwrap();
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        zstd.include_checksum(true).unwrap();
        zstd.write_all(&text).unwrap();
        let all = [
            (Packing::Gzip, gzip.finish().unwrap()),
            (Packing::Xz, xz.finish().unwrap()),
            (Packing::Zstd, zstd.finish().unwrap()),
        ];
        all.into_iter().map(|(packing, one)| (packing, one.repeat(2), text.repeat(2))).collect()
    }

    #[test]
    fn what_is_whole_is_read_and_what_is_cut_or_damaged_is_an_error() {
        for (packing, whole, text) in packed() {
            assert_eq!(Packing::of(&whole[..6]), packing);
            assert!(unpacked(packing, &whole).unwrap() == text, "{packing:?}");
            for cut in [7, 30, whole.len() / 4, whole.len() / 2 + 9, whole.len() - 4, whole.len() - 1] {
                assert!(unpacked(packing, &whole[..cut]).is_err(), "{packing:?} cut to {cut}");
            }
            for at in [whole.len() / 4, whole.len() / 2 + 1000, whole.len() - 6] {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                let read = unpacked(packing, &flipped);
                assert!(read.is_err(), "{packing:?}: byte {at}");
            }
            let garbage = [&whole[..], b"something else"].concat();
            assert!(unpacked(packing, &garbage).is_err(), "{packing:?}");
        }
        let (gzip, whole, text) = packed().remove(0);
        assert!(unpacked(gzip, &[&whole[..], &[0; 5000]].concat()).unwrap() == text);
        assert!(unpacked(gzip, &[&whole[..], &[0; 5000], b"x"].concat()).is_err());
    }

    #[test]
    fn a_window_of_zstd_that_is_too_large_is_no_damage() {
        // The header of a frame with a window of 2 GiB, and one empty raw block.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x01, 0x00, 0x00];
        let e = unpacked(Packing::Zstd, &frame).unwrap_err();
        assert!(takes_too_much_memory(&e), "{e}");
        assert!(takes_too_much_memory(&io::Error::from(liblzma::stream::Error::MemLimit)));
        assert!(!takes_too_much_memory(&io::Error::from(liblzma::stream::Error::Data)));
    }
}
