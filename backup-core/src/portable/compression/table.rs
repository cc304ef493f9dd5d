//! Where the frames of a file are.

use super::codec::{Codec, LARGEST_FRAME, Lengths, damaged_table};
use crate::{Error, ErrorKind, Result};

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portable) struct FrameAt {
    /// Where it begins in the file.
    pub(in crate::portable) packed: u64,
    /// Where its content begins in the tar.
    pub(in crate::portable) raw: u64,
    /// How long both are.
    pub(in crate::portable) lengths: Lengths,
}

/// Lengths of frames while they are written: 8 bytes for each.
#[derive(Default)]
pub(in crate::portable) struct TableOfFrames(Vec<Lengths>);

impl TableOfFrames {
    pub(in crate::portable) fn push(&mut self, packed: usize, raw: usize) -> Result<()> {
        let (Ok(packed), Ok(raw)) = (u32::try_from(packed), u32::try_from(raw)) else {
            let text = "a frame is too large";
            return Err(Error::new(ErrorKind::Destination, "write the table of frames", text));
        };
        self.0.push(Lengths { packed, raw });
        Ok(())
    }

    pub(in crate::portable) fn into_bytes(self, codec: &dyn Codec) -> Result<Vec<u8>> {
        codec.write_table(&self.0)
    }
}

/// Reads a whole table (`bytes` is exactly it) of a file whose frames end at `end`.
pub(in crate::portable) fn frames_of(codec: &dyn Codec, bytes: &[u8], end: u64) -> Result<Vec<FrameAt>> {
    let lengths = codec.read_table(bytes)?;
    let (mut packed, mut raw) = (codec.head().len() as u64, 0);
    let mut frames = Vec::with_capacity(lengths.len());
    for (i, one) in lengths.iter().enumerate() {
        if one.packed == 0 || one.raw == 0 || one.packed.max(one.raw) > LARGEST_FRAME {
            return Err(damaged_table(&format!("frame {i} has an impossible size")));
        }
        frames.push(FrameAt { packed, raw, lengths: *one });
        packed += u64::from(codec.stored(one.packed));
        raw += u64::from(one.raw);
    }
    if packed != end {
        return Err(damaged_table("the frames that it names are not as long as the file"));
    }
    if codec.write_table(&lengths)? != bytes {
        return Err(damaged_table("it is not written as the format wants it"));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Compression, Holds},
        *,
    };

    fn codecs() -> impl Iterator<Item = &'static dyn Codec> {
        Compression::ALL.into_iter().filter_map(Compression::codec)
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut x = 7_u64;
        let step = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (0..n).map(step).collect()
    }

    #[test]
    fn a_table_comes_back_and_every_changed_bit_of_it_is_noticed() {
        for codec in codecs() {
            let lengths = [Lengths { packed: 100, raw: 1000 }, Lengths { packed: 48, raw: 2000 }];
            let bytes = codec.write_table(&lengths).unwrap();
            assert_eq!(codec.table_length(&bytes), Some(bytes.len() as u64));
            let end = codec.head().len() as u64 + 148;
            let frames = frames_of(codec, &bytes, end).unwrap();
            assert_eq!((frames[1].raw, frames[1].lengths), (1000, lengths[1]));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // A changed raw length of a frame is the one thing that only the frame itself can contradict.
                if let Ok(other) = frames_of(codec, &flipped, end) {
                    assert_ne!(other, frames, "bit {bit}");
                    let same = |(a, b): (&FrameAt, &FrameAt)| a.lengths.packed == b.lengths.packed;
                    assert!(other.iter().zip(&frames).all(same));
                }
            }
            for length in 0..bytes.len() {
                assert!(frames_of(codec, &bytes[..length], end).is_err(), "cut to {length}");
                assert!(frames_of(codec, &bytes[length + 1..], end).is_err(), "without the first {length}");
            }
        }
    }

    #[test]
    fn a_table_of_very_many_frames_comes_back() {
        for codec in codecs() {
            let lengths: Vec<_> = (1..20_000).map(|i| Lengths { packed: i * 4, raw: i }).collect();
            let bytes = codec.write_table(&lengths).unwrap();
            assert_eq!(codec.table_length(&bytes[bytes.len() - 64..]), Some(bytes.len() as u64));
            assert_eq!(codec.read_table(&bytes).unwrap(), lengths);
        }
    }

    #[test]
    fn only_one_compression_knows_its_table() {
        for (i, codec) in codecs().enumerate() {
            let table = codec.write_table(&[Lengths { packed: 100, raw: 1000 }]).unwrap();
            for (j, other) in codecs().enumerate() {
                assert_eq!(other.table_length(&table).is_some(), i == j);
            }
        }
    }

    #[test]
    fn frames_come_back_and_every_changed_byte_of_them_is_noticed() {
        let contents = [b"tar ".repeat(700), noise(3000), vec![0; 1], noise(70_000), vec![7; 200_000]];
        for codec in codecs() {
            for level in [1, 6, 9] {
                let mut encoder = codec.encoder(level).unwrap();
                for content in &contents {
                    let mut packed = Vec::new();
                    let listed = encoder.encode(content, Holds::Data, &mut packed).unwrap() as u32;
                    assert_eq!(codec.stored(listed) as usize, packed.len());
                    let lengths = Lengths { packed: listed, raw: content.len() as u32 };
                    let mut raw = Vec::new();
                    codec.decode(&packed, lengths, &mut raw).unwrap();
                    assert!(raw == *content);
                    // Without a table, between other bytes.
                    let among = [&b"\0\0x\0"[..], &packed, &codec.write_table(&[lengths]).unwrap()].concat();
                    let at = (0..among.len()).find(|at| {
                        codec.find_frame(&among[*at..]) == Some(0)
                            && codec.lengths_at(&among[*at..]).is_some()
                    });
                    assert_eq!(at.map(|at| codec.lengths_at(&among[at..])), Some(Some(lengths)));
                    assert_eq!((at, codec.find_frame(&among)), (Some(4), Some(4)));
                    assert_eq!(codec.lengths_at(&packed[..packed.len() - 1]), None);
                    for at in (0..packed.len()).step_by(1 + packed.len() / 300) {
                        let mut flipped = packed.clone();
                        flipped[at] ^= 1 << (at % 8);
                        let mut raw = Vec::new();
                        if codec.decode(&flipped, lengths, &mut raw).is_ok() {
                            assert!(raw == *content, "byte {at} of {}", packed.len());
                        }
                    }
                    for wrong in [
                        Lengths { packed: listed + 4, ..lengths },
                        Lengths { packed: listed - 1, ..lengths },
                        Lengths { raw: lengths.raw + 1, ..lengths },
                        Lengths { raw: lengths.raw - 1, ..lengths },
                    ] {
                        assert!(codec.decode(&packed, wrong, &mut Vec::new()).is_err(), "{wrong:?}");
                    }
                    assert!(codec.decode(&packed[..packed.len() - 1], lengths, &mut Vec::new()).is_err());
                }
            }
        }
    }
}
