//! Ways into the readers for the fuzz targets: no promise, and nothing for anybody else.

use super::{Compression, compression::frames_of, index::Line, locator::Locator, reader::PortableReader};
use crate::{BackupReader, Error, Result, destination::Blob, encryption::Identities};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A line of the index without its digest, which nobody can guess: `{…}`. With the digest, and what is written again is the same.
pub fn index_line(body: &[u8]) {
    let _ = Line::decode(body);
    let Some(open) = body.strip_suffix(b"}") else { return };
    let digest = hex::encode(&Sha256::digest(body)[..8]);
    let line = [open, b",\"d\":\"", digest.as_bytes(), b"\"}"].concat();
    let Ok(mut line) = Line::decode(&line) else { return };
    // Numbers with a fraction are the store's affair.
    line.entry.store = None;
    let mut again = Vec::new();
    line.encode(&mut again);
    assert_eq!(again.pop(), Some(b'\n'));
    assert_eq!(Line::decode(&again).ok(), Some(line));
}

/// A table of frames of every compression, of a file that is as long as the frames are.
pub fn table_of_frames(bytes: &[u8]) {
    for codec in Compression::ALL.into_iter().filter_map(Compression::codec) {
        let _ = codec.table_length(bytes);
        let Ok(lengths) = codec.read_table(bytes) else { continue };
        let frames: u64 = lengths.iter().map(|one| u64::from(codec.stored(one.packed))).sum();
        let _ = frames_of(codec, bytes, codec.head().len() as u64 + frames);
    }
}

/// The last frame.
pub fn locator(bytes: &[u8]) {
    if let Ok(locator) = Locator::from_frame(bytes) {
        assert_eq!(locator.to_frame(), bytes);
    }
}

/// A whole archive in memory.
pub async fn open(archive: Bytes) -> Result<Arc<dyn BackupReader>> {
    Ok(Arc::new(
        PortableReader::open(Arc::new(Memory(archive)), "memory".to_owned(), &Identities::default()).await?,
    ))
}

struct Memory(Bytes);

#[async_trait]
impl Blob for Memory {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let begin = usize::try_from(offset).ok();
        let range = begin.and_then(|begin| Some(begin..begin.checked_add(length)?));
        match range.filter(|r| r.end <= self.0.len()) {
            Some(range) => Ok(self.0.slice(range)),
            None => Err(Error::damaged("read", "it is not there")),
        }
    }
}
