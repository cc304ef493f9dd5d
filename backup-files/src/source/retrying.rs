//! A file that changed while it was streamed is streamed again, from within the put that was discarded.

use async_trait::async_trait;
use backup_core::{Content, Context, Entry, Error, ErrorKind, Proof, Put, Result, Sink};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What makes the entry and its content again.
pub(crate) type Again = Box<dyn FnOnce() -> (Entry, Content) + Send>;

/// Second tries by path: said by a content that failed, taken by the put that sees it discarded. Empty nearly always.
#[derive(Clone, Default)]
pub(crate) struct Retries(Arc<Mutex<HashMap<Bytes, Again>>>);

impl Retries {
    /// The content of this path is about to fail, and this is its next try.
    pub(crate) fn offer(&self, path: Bytes, again: Again) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, again);
    }

    fn take(&self, path: &Bytes) -> Option<Again> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path)
    }
}

/// Puts again what was discarded and has a next try.
pub(crate) struct Retrying {
    sink: Arc<dyn Sink>,
    retries: Retries,
}

impl Retrying {
    pub(crate) fn new(sink: Arc<dyn Sink>, retries: Retries) -> Self {
        Retrying { sink, retries }
    }
}

impl fmt::Display for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

#[async_trait]
impl Sink for Retrying {
    async fn put(&self, mut entry: Entry, mut content: Content) -> Result<Put> {
        if content.in_memory().is_some() {
            return self.sink.put(entry, content).await;
        }
        let path = entry.path.clone();
        loop {
            let put = self.sink.put(entry, content).await?;
            match self.retries.take(&path) {
                // Opens files and waits for locks.
                Some(again) if matches!(put, Put::Discarded(_)) => {
                    (entry, content) = tokio::task::spawn_blocking(again).await.map_err(|_| {
                        Error::new(ErrorKind::Panicked, "read a file again", "the reading thread panicked")
                    })?;
                }
                _ => return Ok(put),
            }
        }
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.sink.finish(cx).await
    }
}
