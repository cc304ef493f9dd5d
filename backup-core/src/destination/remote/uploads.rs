//! Uploads in parts, whatever the server: made without OpenDAL, which holds five parts for each upload, cannot send one from a
//! file, and knows nothing of uploads that others began.

use super::{part::Part, transport::Water};
use crate::Result;
use async_trait::async_trait;
use crc_fast::CrcAlgorithm;
use std::sync::Arc;

/// An object: its key, and what people call it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) path: String,
    pub(super) shown: String,
}

/// Metadata that tells our object from one that somebody else put there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark<'a>(pub(super) &'a str);

impl Mark<'_> {
    /// Its name. Azure takes no hyphen in it, and there are proxies that drop what has an underscore.
    pub(super) const NAME: &'static str = "backupupload";
}

/// A part that the server has.
#[derive(Clone, Debug)]
pub(super) struct PartSent {
    pub(super) number: usize,
    /// What the completion says of it.
    pub(super) element: String,
}

/// Calls about uploads in one bucket. Nothing is seen of an upload under its key before it is completed.
#[async_trait]
pub(super) trait Uploads: Send + Sync {
    /// How large a part is, by its number, which counts from 0.
    fn part_sizes(&self) -> fn(usize) -> u64;

    /// The checksum that the server compares.
    fn checksum(&self) -> CrcAlgorithm;

    /// Begins one, and says its id.
    async fn begin(&self, key: &Key, mark: Mark<'_>) -> Result<String>;

    /// Sends a part; the first has number 1. The server compares its checksum.
    async fn send(
        &self,
        key: &Key,
        id: &str,
        number: usize,
        part: Part,
        water: Arc<Water>,
    ) -> Result<PartSent>;

    /// Makes the object of its parts unless there is one of this key: that is an error of kind `Refused`.
    async fn complete(&self, key: &Key, id: &str, parts: &[PartSent], mark: Mark<'_>) -> Result<()>;

    /// Gives up one.
    async fn give_up(&self, key: &Key, id: &str) -> Result<()>;

    /// Gives up all of exactly this key, which nobody else may be writing to. What is gone meanwhile is no error.
    async fn give_up_all(&self, key: &Key) -> Result<()>;
}
