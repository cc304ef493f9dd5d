//! Sinks that are slow, strange, full or gone.

use super::ContentFault;
use async_trait::async_trait;
use backup_core::{Content, Context, Entry, Error, ErrorKind, Part, Proof, Put, Result, Sink};
use bytes::Bytes;
use futures::stream;
use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Notify;

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Destination, "put", message)
}

macro_rules! displayed_as_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.inner.fmt(f)
            }
        }
    )*};
}
displayed_as_inner!(
    OneAtATime,
    LastFirst,
    SlowOn,
    BreaksAfter,
    FullAfter,
    DropsMidPut,
    DiscardsFirst,
    KeepsAll,
    RecordsPuts
);

/// Takes one put at a time: a single database connection, a tar from a pipe.
pub struct OneAtATime {
    inner: Arc<dyn Sink>,
    turn: tokio::sync::Semaphore,
}

impl OneAtATime {
    /// Before `inner`.
    pub fn new(inner: Arc<dyn Sink>) -> Arc<Self> {
        Self::at_most(inner, 1)
    }

    /// So many at a time.
    pub fn at_most(inner: Arc<dyn Sink>, puts: usize) -> Arc<Self> {
        Arc::new(OneAtATime { inner, turn: tokio::sync::Semaphore::new(puts) })
    }
}

#[async_trait]
impl Sink for OneAtATime {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let _turn = self.turn.acquire().await.map_err(|_| Error::cancelled())?;
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// Of the puts that are open it serves the one that came last.
pub struct LastFirst {
    inner: Arc<dyn Sink>,
    open: Mutex<BTreeSet<u64>>,
    next: AtomicU64,
    changed: Notify,
}

impl LastFirst {
    /// Before `inner`.
    pub fn new(inner: Arc<dyn Sink>) -> Arc<Self> {
        let (open, next, changed) = (Mutex::default(), AtomicU64::new(0), Notify::new());
        Arc::new(LastFirst { inner, open, next, changed })
    }
}

struct Waiting<'a>(&'a LastFirst, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        hold(&self.0.open).remove(&self.1);
        self.0.changed.notify_waiters();
    }
}

#[async_trait]
impl Sink for LastFirst {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let number = self.next.fetch_add(1, SeqCst);
        hold(&self.open).insert(number);
        let _waiting = Waiting(self, number);
        // Time for others to come: they go first.
        tokio::time::sleep(Duration::from_millis(2)).await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if hold(&self.open).last() == Some(&number) {
                break;
            }
            changed.await;
        }
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// Waits before every chunk of one path, or of all.
pub struct SlowOn {
    inner: Arc<dyn Sink>,
    path: Option<Bytes>,
    wait: Duration,
}

impl SlowOn {
    /// Slow on one path.
    pub fn path(inner: Arc<dyn Sink>, path: impl Into<Bytes>, wait: Duration) -> Arc<Self> {
        Arc::new(SlowOn { inner, path: Some(path.into()), wait })
    }

    /// Slow on every path.
    pub fn all(inner: Arc<dyn Sink>, wait: Duration) -> Arc<Self> {
        Arc::new(SlowOn { inner, path: None, wait })
    }
}

#[async_trait]
impl Sink for SlowOn {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if self.path.as_ref().is_some_and(|p| *p != entry.path) {
            return self.inner.put(entry, content).await;
        }
        let wait = self.wait;
        let slow = relayed(content, move |_| async move {
            tokio::time::sleep(wait).await;
            Ok(())
        });
        self.inner.put(entry, slow).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// The content, with something done before each chunk is asked for; its argument is what was delivered so far.
fn relayed<F, Fut>(content: Content, before: F) -> Content
where
    F: Fn(u64) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let state = Some((content, before));
    Content::stream(stream::unfold(state, |state| async {
        let (mut content, before) = state?;
        if let Err(e) = before(content.delivered()).await {
            return Some((Err(e), None));
        }
        match content.next().await {
            Ok(Some(bytes)) => Some((Ok(Part::Bytes(bytes)), Some((content, before)))),
            Ok(None) => Some((Ok(Part::End(content.facts().cloned().unwrap_or_default())), None)),
            Err(e) => Some((Err(e), None)),
        }
    }))
}

/// The connection is gone after so many puts: every later one is an error, and so is the end.
pub struct BreaksAfter {
    inner: Arc<dyn Sink>,
    left: Mutex<u64>,
}

impl BreaksAfter {
    /// Takes `puts` puts.
    pub fn new(inner: Arc<dyn Sink>, puts: u64) -> Arc<Self> {
        Arc::new(BreaksAfter { inner, left: Mutex::new(puts) })
    }
}

#[async_trait]
impl Sink for BreaksAfter {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        {
            let mut left = hold(&self.left);
            if *left == 0 {
                return Err(broken("the connection was dropped"));
            }
            *left -= 1;
        }
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        if *hold(&self.left) == 0 {
            return Err(broken("the connection was dropped"));
        }
        self.inner.finish(cx).await
    }
}

/// The disk is full after so many bytes: the put that crosses the limit, and all after it, are errors.
pub struct FullAfter {
    inner: Arc<dyn Sink>,
    left: Arc<Mutex<u64>>,
    full: Arc<AtomicBool>,
}

impl FullAfter {
    /// Takes `bytes` bytes.
    pub fn new(inner: Arc<dyn Sink>, bytes: u64) -> Arc<Self> {
        Arc::new(FullAfter { inner, left: Arc::new(Mutex::new(bytes)), full: Arc::default() })
    }
}

#[async_trait]
impl Sink for FullAfter {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let (left, full) = (self.left.clone(), self.full.clone());
        let seen = AtomicU64::new(0);
        let counted = relayed(content, move |delivered| {
            let more = delivered - seen.swap(delivered, SeqCst);
            let mut left = hold(&left);
            let fits = *left >= more && !full.load(SeqCst);
            *left = left.saturating_sub(more);
            if !fits {
                full.store(true, SeqCst);
            }
            drop(left);
            // Seen by the inner sink as a content that was cut off by the end of the run.
            std::future::ready(if fits { Ok(()) } else { Err(Error::cancelled()) })
        });
        let put = self.inner.put(entry, counted).await;
        if self.full.load(SeqCst) { Err(broken("no space left on the device")) } else { put }
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        if self.full.load(SeqCst) {
            return Err(broken("no space left on the device"));
        }
        self.inner.finish(cx).await
    }
}

/// Drops the inner put of one path when so many bytes of it have been delivered, and answers with an error.
pub struct DropsMidPut {
    inner: Arc<dyn Sink>,
    path: Bytes,
    after: u64,
}

impl DropsMidPut {
    /// For the puts of `path`.
    pub fn new(inner: Arc<dyn Sink>, path: impl Into<Bytes>, after: u64) -> Arc<Self> {
        Arc::new(DropsMidPut { inner, path: path.into(), after })
    }
}

#[async_trait]
impl Sink for DropsMidPut {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if entry.path != self.path {
            return self.inner.put(entry, content).await;
        }
        let reached = Arc::new(Notify::new());
        let (tell, after) = (reached.clone(), self.after);
        let watched = relayed(ContentFault::StallAfter(after).of(content), move |delivered| {
            if delivered >= after {
                tell.notify_one();
            }
            std::future::ready(Ok(()))
        });
        tokio::select! {
            put = self.inner.put(entry, watched) => put,
            () = reached.notified() => Err(broken("the writer was dropped in the middle of a put")),
        }
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// Discards the first put of every path, or of one, without polling it.
pub struct DiscardsFirst {
    inner: Arc<dyn Sink>,
    path: Option<Bytes>,
    seen: Mutex<BTreeSet<Bytes>>,
}

impl DiscardsFirst {
    /// Of every path.
    pub fn of_all(inner: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(DiscardsFirst { inner, path: None, seen: Mutex::default() })
    }

    /// Of one path.
    pub fn of(inner: Arc<dyn Sink>, path: impl Into<Bytes>) -> Arc<Self> {
        Arc::new(DiscardsFirst { inner, path: Some(path.into()), seen: Mutex::default() })
    }
}

#[async_trait]
impl Sink for DiscardsFirst {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let concerned = self.path.as_ref().is_none_or(|p| *p == entry.path);
        if concerned && hold(&self.seen).insert(entry.path.clone()) {
            return Ok(Put::Discarded("discarded as it was told to".into()));
        }
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// Has everything already: drops every content unpolled.
pub struct KeepsAll {
    inner: Arc<dyn Sink>,
}

impl KeepsAll {
    /// Before `inner`, which is given nothing but the end.
    pub fn new(inner: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(KeepsAll { inner })
    }
}

#[async_trait]
impl Sink for KeepsAll {
    async fn put(&self, _entry: Entry, _content: Content) -> Result<Put> {
        Ok(Put::Kept)
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// Remembers what was put and how many puts were open at once.
pub struct RecordsPuts {
    inner: Arc<dyn Sink>,
    paths: Mutex<Vec<Bytes>>,
    open: Mutex<(usize, usize)>,
}

impl RecordsPuts {
    /// Before `inner`.
    pub fn new(inner: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(RecordsPuts { inner, paths: Mutex::default(), open: Mutex::default() })
    }

    /// Paths in the order in which their puts began.
    pub fn paths(&self) -> Vec<Bytes> {
        hold(&self.paths).clone()
    }

    /// The most puts that were open at once.
    pub fn most_open(&self) -> usize {
        hold(&self.open).1
    }
}

struct Opened<'a>(&'a RecordsPuts);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        hold(&self.0.open).0 -= 1;
    }
}

#[async_trait]
impl Sink for RecordsPuts {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        hold(&self.paths).push(entry.path.clone());
        let _open = {
            let mut open = hold(&self.open);
            open.0 += 1;
            open.1 = open.1.max(open.0);
            Opened(self)
        };
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}
