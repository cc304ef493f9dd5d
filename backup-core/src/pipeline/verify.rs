//! Reads a backup and compares it with what its manifest says. Needs no server.

use crate::{
    BackupId, BackupReader, Content, Context, Depth, Entry, Error, ErrorKind, Proof, Put, Result, Sink, Tally,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What came of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The backup.
    pub id: BackupId,
    /// Its application.
    pub module: String,
    /// When it was made.
    pub created: Timestamp,
    /// How much was read.
    pub depth: Depth,
    /// Its components.
    pub components: Vec<VerifiedComponent>,
    /// Entries that were read; 0 at `Depth::Quick`.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Everything that is wrong, each naming what it is about. Empty: the backup is sound.
    pub defects: Vec<Error>,
}

/// One component of a verified backup.
#[derive(Clone, Debug, Serialize)]
pub struct VerifiedComponent {
    /// Its name.
    pub name: String,
    /// Entries that were read.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Whether nothing is wrong with it.
    pub sound: bool,
}

/// Checks the structure and, at `Depth::Full`, reads every byte. `Ok` also with defects: they are in the report. `Err`: the
/// verification itself could not be done (cancelled, the place does not answer).
pub async fn verify(reader: Arc<dyn BackupReader>, depth: Depth, cx: &Context) -> Result<VerifyReport> {
    let _ = (reader, depth, cx);
    Err(Error::new(ErrorKind::Unsupported, "verify", "not yet"))
}

/// A sink which reads everything, keeps nothing and counts what it read.
#[derive(Debug, Default)]
pub struct DigestSink(Mutex<Tally>);

impl DigestSink {
    /// Nothing read yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl fmt::Display for DigestSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("digest")
    }
}

#[async_trait]
impl Sink for DigestSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let mut content = content.hashed(&entry);
        loop {
            match content.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => return Ok(Put::Discarded(e.to_string().into())),
            }
        }
        let digest = content.digest().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, content.delivered(), &digest);
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).facts())
    }
}
