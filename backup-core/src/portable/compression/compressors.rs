//! Encoders and buffers that are used again.

use super::{
    Compression,
    codec::{Encoder, Holds},
};
use crate::{Result, buffers::Buffers};
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};

/// A frame as it goes into the file.
pub(in crate::portable) struct Packed {
    pub(in crate::portable) bytes: Vec<u8>,
    /// The length that the table lists for it.
    pub(in crate::portable) listed: usize,
}

/// Compresses frames; encoders and buffers are used again.
pub(in crate::portable) struct Compressors {
    compression: Compression,
    level: i32,
    idle: Mutex<Vec<Box<dyn Encoder>>>,
    buffers: Buffers,
}

impl Compressors {
    pub(in crate::portable) fn new(compression: Compression, level: i32) -> Self {
        Compressors { compression, level, idle: Mutex::default(), buffers: Buffers::new(8) }
    }

    /// An empty buffer.
    pub(in crate::portable) fn buffer(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = self.buffers.take();
        buffer.clear();
        buffer.reserve(capacity);
        buffer
    }

    /// Gives a buffer back.
    pub(in crate::portable) fn recycle(&self, buffer: Vec<u8>) {
        self.buffers.give_back(buffer);
    }

    /// As bytes that come back when the last of them is dropped. If they will be `kept` for a while they take no more memory than
    /// they need.
    pub(in crate::portable) fn lend(&self, buffer: Vec<u8>, kept: bool) -> Bytes {
        if kept && buffer.len() < buffer.capacity() / 4 * 3 {
            let bytes = Bytes::copy_from_slice(&buffer);
            self.recycle(buffer);
            return bytes;
        }
        self.buffers.lend(buffer)
    }

    /// One independent frame. Blocks the thread.
    pub(in crate::portable) fn compress(&self, raw: Vec<u8>, what: Holds) -> Result<Packed> {
        let Some(codec) = self.compression.codec() else {
            return Ok(Packed { listed: raw.len(), bytes: raw });
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut encoder = match idle {
            Some(encoder) => encoder,
            None => codec.encoder(self.level)?,
        };
        // A little more than it holds: what cannot be compressed grows.
        let mut bytes = self.buffer(raw.len() + raw.len() / 128 + 1024);
        let listed = encoder.encode(&raw, what, &mut bytes)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
        self.recycle(raw);
        Ok(Packed { bytes, listed })
    }
}
