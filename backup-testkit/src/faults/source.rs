//! Sources that fail at a step.

use super::{ContentFault, panic_as_told};
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Facts, Moment, Proof, Put, Ready, Result, Sink, Source,
    Stillness, View,
};
use bytes::Bytes;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Where a source fails.
#[derive(Clone, Debug)]
pub enum SourceFault {
    /// `connect` is an error.
    Connect,
    /// `fix` is an error.
    Fix,
    /// `pour` is an error after so many puts: the connection was dropped.
    PourAfter(u64),
    /// `pour` panics after so many puts.
    PanicAfter(u64),
    /// `pour` never ends, unless cancelled.
    PourForever,
    /// The content of this path goes wrong, in every try or in the first so many.
    Content {
        /// Path of the entry.
        path: Bytes,
        /// What happens.
        fault: ContentFault,
    },
}

/// A source with a fault.
pub struct FaultySource {
    inner: Box<dyn Source>,
    fault: SourceFault,
}

impl FaultySource {
    /// `inner` with this fault in it.
    pub fn new(inner: impl Source + 'static, fault: SourceFault) -> Self {
        FaultySource { inner: Box::new(inner), fault }
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Source, "read the source", "it fails as it was told to")
}

impl fmt::Display for FaultySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Source for FaultySource {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>> {
        if matches!(self.fault, SourceFault::Connect) {
            return Err(failed());
        }
        Ok(Box::new(FaultyReady(self.inner.connect(cx).await?, self.fault.clone())))
    }

    fn origin(&self) -> serde_json::Value {
        self.inner.origin()
    }
}

struct FaultyReady(Box<dyn Ready>, SourceFault);

#[async_trait]
impl Ready for FaultyReady {
    fn stillness(&self) -> Stillness {
        self.0.stillness()
    }

    fn estimate(&self) -> Option<u64> {
        self.0.estimate()
    }

    async fn fix(self: Box<Self>, cx: &Context) -> Result<Box<dyn View>> {
        if matches!(self.1, SourceFault::Fix) {
            return Err(failed());
        }
        Ok(Box::new(FaultyView(self.0.fix(cx).await?, self.1)))
    }
}

struct FaultyView(Box<dyn View>, SourceFault);

#[async_trait]
impl View for FaultyView {
    fn moment(&self) -> Moment {
        self.0.moment()
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        if matches!(self.1, SourceFault::PourForever) {
            cx.cancel.cancelled().await;
            return Err(Error::cancelled());
        }
        self.0.pour(Arc::new(Between { sink, fault: self.1, puts: AtomicU64::new(0) }), cx).await
    }
}

/// Stands between the view and its sink.
struct Between {
    sink: Arc<dyn Sink>,
    fault: SourceFault,
    puts: AtomicU64,
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

#[async_trait]
impl Sink for Between {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let before = self.puts.fetch_add(1, SeqCst);
        let content = match &self.fault {
            SourceFault::PourAfter(n) if before >= *n => return Err(failed()),
            SourceFault::PanicAfter(n) if before >= *n => panic_as_told("this source"),
            SourceFault::Content { path, fault } if *path == entry.path => fault.of(content),
            _ => content,
        };
        self.sink.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.sink.finish(cx).await
    }
}
