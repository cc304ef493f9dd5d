//! What a compression does for an archive.

use crate::{Error, Result};

/// The largest frame, compressed or not: a reader must bound what it holds at once.
pub(in crate::portable) const LARGEST_FRAME: u32 = 16 << 20;

/// Both lengths of one frame, as its table says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portable) struct Lengths {
    /// Compressed.
    pub(in crate::portable) packed: u32,
    /// Of the tar.
    pub(in crate::portable) raw: u32,
}

/// Why nothing more came out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portable) enum Ended {
    /// It says that it is at its end.
    Whole,
    /// There is nothing left to read.
    Cut,
    /// What follows cannot be decompressed.
    Damaged,
}

/// One way to write frames of a tar, each readable without the others, and behind them a table of them.
///
/// A reader takes nothing that a writer would not have written so: where a format leaves a choice, `read_table` followed by
/// `write_table` must give the same bytes, and `decode` compares what surrounds the compressed data.
pub(in crate::portable) trait Codec: Send + Sync {
    /// What stands before the first frame.
    fn head(&self) -> &'static [u8] {
        &[]
    }

    /// Compresses frames one after another.
    fn encoder(&self, level: i32) -> Result<Box<dyn Encoder>>;

    /// Encoders that run at once where frames may wait for `threads` cores, and how many frames may wait for each other. One more
    /// than there are cores bridges the moment between two frames, where an encoder costs little memory, and one more yet the
    /// moment in which the first of them is written.
    fn at_once(&self, threads: usize) -> (usize, usize) {
        (threads + 1, threads + 2)
    }

    /// Decompresses one frame into `raw`, which is empty. Anything but exactly one frame of exactly these lengths is an error.
    fn decode(&self, packed: &[u8], lengths: Lengths, raw: &mut Vec<u8>) -> Result<()>;

    /// Decompresses a frame that may be cut or damaged into `raw`, which is empty: as far as it goes, up to the length of the largest
    /// frame. What came out may be wrong wherever damage is: no checksum is compared.
    fn decode_beginning(&self, packed: &[u8], raw: &mut Vec<u8>) -> Ended;

    /// How many bytes of the file a frame takes that the table lists with this length.
    fn stored(&self, packed: u32) -> u32 {
        packed
    }

    /// How long the table is, from the last bytes of a file; `None` if this is another compression's file.
    fn table_length(&self, tail: &[u8]) -> Option<u64>;

    /// The table of these frames.
    fn write_table(&self, frames: &[Lengths]) -> Result<Vec<u8>>;

    /// Where in these bytes a frame may begin: to find frames of a file whose table is lost.
    fn find_frame(&self, bytes: &[u8]) -> Option<usize>;

    /// The lengths of the frame at the beginning of these bytes, as it tells them itself; `None`: it is none, or not whole. That its
    /// content is right only `decode` says.
    fn lengths_at(&self, bytes: &[u8]) -> Option<Lengths>;

    /// The length of the content that a frame promises whose data may be damaged.
    fn promised(&self, bytes: &[u8]) -> Option<u32> {
        self.lengths_at(bytes).map(|lengths| lengths.raw)
    }

    /// What a table of `table_length` bytes says. No length in it is believed before there are bytes for it.
    fn read_table(&self, table: &[u8]) -> Result<Vec<Lengths>>;
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::portable) enum Holds {
    /// Entries.
    #[default]
    Data,
    /// Shards of the index and of the sums. An encoder may take less trouble with them.
    Lists,
}

/// Compresses frames, on a thread that may be blocked.
pub(in crate::portable) trait Encoder: Send {
    /// One frame of `raw` into `packed`, which is empty. Returns the length that the table lists for it.
    fn encode(&mut self, raw: &[u8], what: Holds, packed: &mut Vec<u8>) -> Result<usize>;
}

/// Where a text begins in others.
pub(super) fn find(text: &[u8], bytes: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|there| there == text)
}

pub(super) fn damaged_table(text: &str) -> Error {
    Error::damaged("read the table of frames", text)
}

pub(super) fn damaged_frame(text: &str) -> Error {
    Error::damaged("decompress a frame", text)
}

pub(super) const OTHER_LENGTH: &str = "its length is not what the table of frames says";
pub(super) const OTHER_CONTENT: &str = "it does not hold what the table of frames says";
