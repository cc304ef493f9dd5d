//! Places that keep named byte sequences: what an archive needs of a disk, a bucket, a server.

mod fan;
mod local;
mod pulse;
mod remote;

pub(crate) use fan::{Fan, Lane, Outcome, Outcomes};
pub use local::LocalFolder;
pub(crate) use local::{holder, is_temporary_name, local_blob};
pub use pulse::Pulse;
pub(crate) use remote::RemoteFolder;
pub use remote::{RemotePlace, RemoteSettings};

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::{fmt::Display, sync::Arc};

/// Something that is kept at a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name, without the place.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written.
    pub modified: Timestamp,
}

/// A flat set of named byte sequences. `Display` is the place for people, without secrets.
///
/// # Contract
/// * What `create` writes is not visible under its final name before `Upload::commit`, and is durable after it.
/// * A name is never overwritten by `commit`.
/// * A listing that failed is an error; a place that does not exist is an error of kind `NotFound`.
#[async_trait]
pub trait Destination: Display + Send + Sync {
    /// Makes sure that the place is there and can be written; makes it if only its last part is missing.
    async fn prepare(&self) -> Result<()>;

    /// Bytes that are free and bytes in all, where that is known.
    async fn space(&self) -> Result<Option<(u64, u64)>>;

    /// Begins to write under a provisional name, which `list` shows. It will become visible under the first of `names` that is
    /// free: at a disk when it is committed, at an object store already now, where the name is kept for it.
    async fn create(&self, provisional: &str, names: &[String]) -> Result<Box<dyn Upload>>;

    /// Opens for reading by ranges.
    async fn open(&self, name: &str) -> Result<Arc<dyn Blob>>;

    /// Everything, sorted by name.
    async fn list(&self) -> Result<Vec<Stored>>;

    /// Writes something small, atomically and durably; a reader sees the old or the new.
    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Compares and swaps something small: only if `name` holds exactly `expected` (`None`: does not exist) it gets `new`
    /// (`None`: is removed). Says whether it did. Of several callers with the same `expected`, one succeeds.
    async fn swap_small(&self, name: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool>;

    /// Reads something small; `None` if there is nothing of this name; longer than `limit` is an error.
    async fn read_small(&self, name: &str, limit: u64) -> Result<Option<Bytes>>;

    /// Removes; nothing of this name is no error.
    async fn remove(&self, name: &str) -> Result<()>;

    /// Removes what an upload has left under this provisional name, and all that belongs to it. Only for uploads whose run is over.
    async fn discard(&self, provisional: &str) -> Result<()> {
        self.remove(provisional).await
    }

    /// Tells it from every other place, also where people call two by one name: buckets of one name at two servers.
    fn identity(&self) -> String {
        self.to_string()
    }

    /// The folder, if it is one of this machine's.
    fn local_path(&self) -> Option<&std::path::Path> {
        None
    }
}

/// A byte sequence that is being written.
#[async_trait]
pub trait Upload: Send {
    /// Appends. When it returns, at most a small fixed number of bytes is still on its way.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Hands over what is still held here, so that little is left for `commit` to do. Called once, behind the last `write`. Nothing is
    /// visible yet: its future may be dropped, as those of `write`, and then `abort` is all that comes.
    async fn finish(&mut self) -> Result<()>;

    /// Makes it durable and visible under the first of its names that is free, and says which; none free is an error of
    /// kind `Refused`. Comes behind `finish`.
    async fn commit(self: Box<Self>) -> Result<String>;

    /// Gives it up: nothing stays behind.
    async fn abort(self: Box<Self>) -> Result<()>;

    /// Whether it may hold what it was given when `write` has returned.
    fn keeps_bytes(&self) -> bool {
        false
    }

    /// Beats whenever it comes further, if it can tell. Where there is none, each call of `write` counts.
    fn pulse(&self) -> Option<Pulse> {
        None
    }
}

/// A byte sequence that is read by ranges.
#[async_trait]
pub trait Blob: Send + Sync {
    /// Its length.
    fn bytes(&self) -> u64;

    /// Exactly these bytes; a range that is not there is an error of kind `Damaged`.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}
