//! Where entries go.

use crate::{Content, Context, Entry, Proof, Result};
use async_trait::async_trait;
use std::{fmt::Display, sync::Arc};

/// How a put ended.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Taken.
    Stored,
    /// An entry of this fingerprint is there already; the content was dropped unpolled.
    Kept,
    /// The content failed, for this reason; the sink is sound and may be put the same entry again.
    Discarded(Arc<str>),
}

/// Takes entries.
///
/// # Contract
/// * Puts may run at the same time, any number of them; each either takes the whole content or nothing of it.
/// * A content that fails is `Ok(Discarded)`. `Err` means that the sink itself is broken: stop.
/// * A cancelled content (`ErrorKind::Cancelled`) is `Err`.
/// * A put that is dropped leaves the sink either sound, without the entry, or refusing everything after it.
#[async_trait]
pub trait Sink: Display + Send + Sync {
    /// Polls the content to its end and takes it.
    async fn put(&self, entry: Entry, content: Content) -> Result<Put>;

    /// Seals: everything put is durable and counted, nothing is effective yet. Later puts are errors.
    async fn finish(&self, cx: &Context) -> Result<Proof>;
}
