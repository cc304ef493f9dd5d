//! How frames of a portable archive are compressed.

use crate::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};
use zstd::zstd_safe;

/// How an archive is compressed, told by the ending of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `.tar.zst`: independent zstd frames with the standard seek table.
    #[default]
    Zstd,
    /// `.tar`: as it is.
    None,
}

impl Compression {
    /// The ending of file names, without the leading dot.
    pub fn extension(self) -> &'static str {
        match self {
            Compression::Zstd => "tar.zst",
            Compression::None => "tar",
        }
    }

    /// By the ending of a file name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Compression::Zstd, Compression::None]
            .into_iter()
            .find(|c| name.ends_with(&format!(".{}", c.extension())))
    }

    /// The level used when none is named. zstd's own default.
    pub fn default_level(self) -> i32 {
        match self {
            Compression::Zstd => zstd::DEFAULT_COMPRESSION_LEVEL,
            Compression::None => 0,
        }
    }

    /// Whether a level may be asked for.
    pub fn check_level(self, level: i32) -> Result<()> {
        let allowed = match self {
            Compression::Zstd => 1..=19,
            Compression::None => 0..=0,
        };
        if allowed.contains(&level) {
            return Ok(());
        }
        let text = format!("the levels of {} are {} to {}", self.extension(), allowed.start(), allowed.end());
        Err(Error::new(ErrorKind::Usage, "use the compression level", text).on(level))
    }
}

/// Compresses frames; contexts and buffers are used again.
pub(super) struct Compressors {
    compression: Compression,
    level: i32,
    idle: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Compressors {
    pub(super) fn new(compression: Compression, level: i32) -> Self {
        Compressors { compression, level, idle: Mutex::default(), buffers: Mutex::default() }
    }

    /// An empty buffer.
    pub(super) fn buffer(&self, capacity: usize) -> Vec<u8> {
        let mut buffer =
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve(capacity);
        buffer
    }

    /// Gives a buffer back.
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < 8 {
            buffers.push(buffer);
        }
    }

    /// One independent frame, with its length and a checksum inside. Blocks the thread.
    pub(super) fn compress(&self, raw: Vec<u8>) -> Result<Vec<u8>> {
        if self.compression == Compression::None {
            return Ok(raw);
        }
        let fail = |e: std::io::Error| Error::new(ErrorKind::Destination, "compress", e);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => {
                let mut fresh = zstd::bulk::Compressor::new(self.level).map_err(fail)?;
                fresh.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).map_err(fail)?;
                fresh
            }
        };
        let mut packed = self.buffer(zstd_safe::compress_bound(raw.len()));
        compressor.compress_to_buffer(&raw[..], &mut packed).map_err(fail)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        self.recycle(raw);
        Ok(packed)
    }
}

/// Decompresses one frame of which both lengths are known. Blocks the thread. Anything but exactly one frame of exactly these
/// lengths is an error. `raw` is memory to use again.
pub(super) fn decompress(packed: &[u8], raw_length: usize, mut raw: Vec<u8>) -> Result<Vec<u8>> {
    let fail = |text: &str| Error::damaged("decompress a frame", text);
    match zstd_safe::find_frame_compressed_size(packed) {
        Ok(n) if n == packed.len() => {}
        _ => return Err(fail("its length is not what the seek table says")),
    }
    let promised = zstd_safe::get_frame_content_size(packed).ok().flatten();
    if promised != Some(raw_length as u64) {
        return Err(fail("it does not hold what the seek table says"));
    }
    raw.clear();
    raw.reserve_exact(raw_length);
    let mut context = zstd::bulk::Decompressor::new().map_err(|e| fail(&e.to_string()))?;
    let n = context.decompress_to_buffer(packed, &mut raw).map_err(|e| fail(&e.to_string()))?;
    if n != raw_length {
        return Err(fail("it does not hold what the seek table says"));
    }
    Ok(raw)
}
