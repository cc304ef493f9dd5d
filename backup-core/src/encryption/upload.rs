//! Encrypts what is written.

use super::{Recipients, blocking};
use crate::{Error, ErrorKind, Result, Sha, destination::Upload};
use age::stream::StreamWriter;
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// What was written in the end, encrypted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipt(Arc<OnceLock<(u64, Sha)>>);

impl Receipt {
    /// Length and sha256, once all is written.
    pub(crate) fn get(&self) -> Option<(u64, Sha)> {
        self.0.get().copied()
    }
}

/// An encrypted file that is ready to begin.
pub(crate) struct Encryption {
    writer: StreamWriter<Encrypted>,
    encrypted: Encrypted,
}

impl Encryption {
    pub(crate) async fn begin(recipients: Recipients) -> Result<Self> {
        blocking("encrypt to the recipients", move || {
            let encrypted = Encrypted::default();
            let writer = recipients.encryptor()?.wrap_output(encrypted.clone()).map_err(failed)?;
            Ok(Encryption { writer, encrypted })
        })
        .await
    }
}

fn failed(e: io::Error) -> Error {
    Error::new(ErrorKind::Destination, "encrypt", e)
}

/// What age has given out and nobody has written yet.
#[derive(Clone, Default)]
struct Encrypted(Arc<Mutex<Vec<u8>>>);

impl Encrypted {
    /// `room` is memory to use again.
    fn replace(&self, room: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), room)
    }
}

impl Encrypted {
    /// No more than is needed: it may be kept for a while. Chunks of 64 KiB grow by 16 bytes.
    fn reserve(&self, bytes: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.reserve(bytes + bytes / 4096 + (64 << 10) + 16);
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An upload of what is encrypted on the way to it.
pub(crate) struct EncryptedUpload {
    inner: Box<dyn Upload>,
    /// Not there while a call of it goes on, and after one that did not come back.
    encryption: Option<Encryption>,
    /// Memory to use again.
    room: Vec<u8>,
    length: u64,
    sha256: Sha256,
    receipt: Receipt,
    /// All of it is encrypted and handed over.
    finished: bool,
}

impl EncryptedUpload {
    pub(crate) fn new(inner: Box<dyn Upload>, encryption: Encryption) -> (Self, Receipt) {
        let receipt = Receipt::default();
        let upload = EncryptedUpload {
            inner,
            encryption: Some(encryption),
            room: Vec::new(),
            length: 0,
            sha256: Sha256::new(),
            receipt: receipt.clone(),
            finished: false,
        };
        (upload, receipt)
    }

    /// Encrypts off the runtime, so that it costs a core and not the others' time, and writes what came out.
    async fn pass(&mut self, bytes: Bytes, end: bool) -> Result<()> {
        let Some(mut encryption) = self.encryption.take() else {
            return Err(Error::contract("a write after the end").on("an encrypted archive"));
        };
        let (mut sha256, room) = (self.sha256.clone(), std::mem::take(&mut self.room));
        let call = blocking("encrypt", move || {
            encryption.encrypted.reserve(bytes.len());
            encryption.writer.write_all(&bytes).map_err(failed)?;
            drop(bytes);
            let (encrypted, rest) = match end {
                false => (encryption.encrypted.replace(room), Some(encryption)),
                true => (encryption.writer.finish().map_err(failed)?.replace(room), None),
            };
            sha256.update(&encrypted);
            Ok((encrypted, rest, sha256))
        });
        let (encrypted, rest, sha256) = call.await?;
        (self.encryption, self.sha256) = (rest, sha256);
        self.length += encrypted.len() as u64;
        let encrypted = Bytes::from(encrypted);
        self.inner.write(encrypted.clone()).await?;
        if let Ok(mut room) = encrypted.try_into_mut().map(Vec::from) {
            room.clear();
            self.room = room;
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for EncryptedUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.pass(bytes, false).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.pass(Bytes::new(), true).await?;
        self.inner.finish().await?;
        self.finished = true;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<String> {
        if !self.finished {
            // The failure is what is told.
            let _ = self.inner.abort().await;
            return Err(Error::contract("a commit before the end is encrypted").on("an encrypted archive"));
        }
        let name = self.inner.commit().await?;
        // It is set once: here.
        let _ = self.receipt.0.set((self.length, self.sha256.finalize().into()));
        Ok(name)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
