//! A part of an object that is being uploaded: the bytes themselves, shared with whoever else sends them, or a file if it is large.

use super::transport::Outgoing;
use crate::{Error, ErrorKind, Result, spool_folder};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use opendal::Buffer;
use std::{fs::File, io::Write, sync::Arc};

/// The smallest part; as long as parts are so small, they are kept in memory.
const SMALLEST: u64 = 8 << 20;
/// So many are of the smallest size: 31 GiB.
const SMALLEST_PARTS: usize = 4000;
/// Then each so many are twice as large.
const GROWS_EVERY: usize = 600;
/// Of Azure.
const LARGEST_BLOCK: u64 = 2 << 30;
/// Larger parts go through a file.
const LARGEST_IN_MEMORY: u64 = 16 << 20;

/// How large the part of this number is, which counts from 0: for stores that take 10,000 parts of 5 GiB at most, as S3 does.
pub(super) fn size(number: usize) -> u64 {
    match number.checked_sub(SMALLEST_PARTS) {
        None => SMALLEST,
        Some(later) => SMALLEST << (1 + later / GROWS_EVERY).min(9),
    }
}

/// The same for Azure, which takes 50,000 blocks of 4000 MiB at most.
pub(super) fn size_of_block(number: usize) -> u64 {
    size(number).min(LARGEST_BLOCK)
}

/// Bytes that are collected for a part.
pub(super) struct Part {
    length: u64,
    algorithm: CrcAlgorithm,
    kept: Kept,
}

enum Kept {
    Memory(Vec<Bytes>),
    /// A file without a name; its checksum so far.
    File(File, Box<Digest>),
}

impl Part {
    /// An empty one that will have this size, and a checksum of this kind.
    pub(super) async fn begin(size: u64, algorithm: CrcAlgorithm) -> Result<Self> {
        let kept = match size <= LARGEST_IN_MEMORY {
            true => Kept::Memory(Vec::new()),
            false => Kept::File(
                blocking(|| tempfile::tempfile_in(spool_folder())).await?,
                Box::new(Digest::new(algorithm)),
            ),
        };
        Ok(Part { length: 0, algorithm, kept })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.kept, Kept::Memory(_))
    }

    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.length += bytes.len() as u64;
        match &mut self.kept {
            Kept::Memory(all) => all.push(bytes),
            Kept::File(file, checksum) => {
                let mut file = file.try_clone().map_err(failed)?;
                checksum.update(&bytes);
                blocking(move || file.write_all(&bytes)).await?;
            }
        }
        Ok(())
    }

    /// Its checksum, and itself as it is sent.
    pub(super) async fn into_outgoing(self) -> Result<(u64, Outgoing)> {
        match self.kept {
            Kept::File(file, checksum) => {
                Ok((checksum.finalize(), Outgoing::File(Arc::new(file), self.length)))
            }
            Kept::Memory(all) => {
                blocking(move || {
                    let mut checksum = Digest::new(self.algorithm);
                    all.iter().for_each(|bytes| checksum.update(bytes));
                    Ok((checksum.finalize(), Outgoing::Memory(Buffer::from(all))))
                })
                .await
            }
        }
    }

    /// Itself, if it is in memory.
    pub(super) fn into_buffer(self) -> Option<Buffer> {
        match self.kept {
            Kept::Memory(all) => Some(Buffer::from(all)),
            Kept::File(..) => None,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::new(ErrorKind::Panicked, "write the upload", e))?.map_err(failed)
}

fn failed(e: std::io::Error) -> Error {
    Error::io(ErrorKind::Destination, "keep a part of the upload in a temporary file", e)
        .on(spool_folder().display())
        .hint("free some space there, or name another folder with TMPDIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_are_enough_for_five_terabytes() {
        let all: u64 = (0..10_000).map(size).sum();
        assert!(all > 5 << 40, "{all}");
        assert_eq!((size(0), size(3999), size(4000)), (SMALLEST, SMALLEST, 2 * SMALLEST));
        assert!((0..9_999).all(|n| size(n) <= size(n + 1) && size(n + 1) <= 5 << 30));
        let blocks: u64 = (0..50_000).map(size_of_block).sum();
        assert!(blocks > 64 << 40 && (0..50_000).all(|n| size_of_block(n) <= 4000 << 20), "{blocks}");
    }

    #[tokio::test]
    async fn a_part_in_a_file_is_the_same_as_one_in_memory() {
        let mut sent = Vec::new();
        for size in [LARGEST_IN_MEMORY, LARGEST_IN_MEMORY + 1] {
            let mut part = Part::begin(size, CrcAlgorithm::Crc32Iscsi).await.unwrap();
            for piece in ["first ", "second"] {
                part.push(Bytes::from(piece)).await.unwrap();
            }
            assert_eq!(part.length(), 12);
            sent.push(part.into_outgoing().await.unwrap());
        }
        assert!(matches!((&sent[0].1, &sent[1].1), (Outgoing::Memory(_), Outgoing::File(_, 12))));
        assert_eq!(sent[0].0, sent[1].0);
        // CRC-32C as RFC 3720 defines it, and CRC-64/NVME: the check values of their catalogues.
        let known =
            [(CrcAlgorithm::Crc32Iscsi, 0xE306_9283), (CrcAlgorithm::Crc64Nvme, 0xAE8B_1486_0A79_9888)];
        for (algorithm, checksum) in known {
            let mut part = Part::begin(9, algorithm).await.unwrap();
            part.push(Bytes::from("123456789")).await.unwrap();
            assert_eq!(part.into_outgoing().await.unwrap().0, checksum);
        }
    }
}
