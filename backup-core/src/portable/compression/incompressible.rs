//! Whether compressing pays. zstd notices by itself, and cheaply, what cannot be compressed; gzip and xz try as hard as ever.

use crate::{Error, ErrorKind, Result};

/// Less than this part of the length is worth the time: of what is compressed already, one or two percent can be had.
const PAYS: f64 = 0.98;

/// Tries samples with a quick compressor.
pub(super) struct Probe {
    quick: zstd::bulk::Compressor<'static>,
    /// Bytes that are tried of every `every` bytes.
    sample: usize,
    every: usize,
    packed: Vec<u8>,
}

impl Probe {
    pub(super) fn new(sample: usize, every: usize) -> Result<Self> {
        let quick =
            zstd::bulk::Compressor::new(1).map_err(|e| Error::new(ErrorKind::Destination, "compress", e))?;
        Ok(Probe { quick, sample, every, packed: Vec::new() })
    }

    pub(super) fn pays(&mut self, raw: &[u8]) -> Result<bool> {
        let (mut tried, mut packed) = (0, 0);
        for part in raw.chunks(self.every) {
            let sample = &part[..part.len().min(self.sample)];
            self.packed.clear();
            self.packed.reserve(zstd::zstd_safe::compress_bound(sample.len()));
            packed += self
                .quick
                .compress_to_buffer(sample, &mut self.packed)
                .map_err(|e| Error::new(ErrorKind::Destination, "compress", e))?;
            tried += sample.len();
        }
        Ok((packed as f64) < tried as f64 * PAYS)
    }
}
