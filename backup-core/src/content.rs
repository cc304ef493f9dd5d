//! The bytes of one entry, with an explicit end.

use crate::{Entry, Error, ErrorKind, Extent, Facts, Result, proof::Sha};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// What a stream of a content is made of.
#[derive(Debug)]
pub enum Part {
    /// Some bytes; at most about 1 MiB at once.
    Bytes(Bytes),
    /// The content is whole: said by whoever knows it (exit status, row count, file length), with what it counted.
    End(Facts),
}

/// Bytes that come to an explicit end. A stream that merely stops (a dropped sender, a panicked task, a closed socket) is an
/// error, and so is another length or digest than was promised.
///
/// A content does nothing until it is polled (or was `begun`), reaches its end without any other put progressing, and holds at most one
/// chunk ahead.
pub struct Content {
    inner: Inner,
    promised: Option<u64>,
    got: u64,
    hasher: Option<Box<ContentHasher>>,
    expected: Option<Sha>,
    digest: Option<Sha>,
    cancel: Option<CancellationToken>,
    tally: Option<Arc<AtomicU64>>,
    failure: Option<Arc<OnceLock<Error>>>,
}

enum Inner {
    Whole(Bytes),
    Stream(BoxStream<'static, Result<Part>>),
    Ended(Facts),
    Broken,
}

impl Content {
    fn new(inner: Inner) -> Self {
        Content {
            inner,
            promised: None,
            got: 0,
            hasher: None,
            expected: None,
            digest: None,
            cancel: None,
            tally: None,
            failure: None,
        }
    }

    /// No bytes, and whole.
    pub fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// Bytes that are in memory already.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Inner::Whole(bytes.into()))
    }

    /// Bytes that are in memory already, and what was counted in them.
    pub fn counted(bytes: impl Into<Bytes>, facts: Facts) -> Self {
        if facts.is_empty() {
            return Self::whole(bytes);
        }
        Self::stream(futures::stream::iter([Ok(Part::Bytes(bytes.into())), Ok(Part::End(facts))]))
    }

    /// A content that failed before its first byte: how an unreadable thing is put, so that it is counted.
    pub fn failed(error: Error) -> Self {
        Self::stream(futures::stream::iter([Err(error)]))
    }

    /// A stream; its last item must be `End`.
    pub fn stream(s: impl Stream<Item = Result<Part>> + Send + 'static) -> Self {
        Self::new(Inner::Stream(s.boxed()))
    }

    /// A producer in a task of its own, started at the first poll. It writes through `Feed`; its `Ok(facts)` is the end;
    /// a panic, a drop or an `Err` is an error of the content.
    pub fn produce<F, Fut>(producer: F) -> Self
    where
        F: FnOnce(Feed) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Facts>> + Send + 'static,
    {
        let start = async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(2);
            produced(receiver, AbortOnDropHandle::new(tokio::spawn(producer(Feed(sender)))))
        };
        Self::stream(futures::stream::once(start).flatten())
    }

    /// The same content, read from now on, by a task of its own: some pieces of it wait until they are asked for.
    #[must_use]
    pub fn begun(mut self) -> Self {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let reading = async move {
            let feed = Feed(sender);
            while let Some(bytes) = self.next().await? {
                feed.send(bytes).await?;
            }
            Ok(self.facts().cloned().unwrap_or_default())
        };
        Self::stream(produced(receiver, AbortOnDropHandle::new(tokio::spawn(reading))))
    }

    /// Holds the content to its entry: length, cancellation, a running count of bytes, and a digest to ask for at the end.
    #[must_use]
    pub fn watched(mut self, entry: &Entry, cancel: &CancellationToken, tally: &Arc<AtomicU64>) -> Self {
        self.promised = entry.stored_size();
        self.cancel = Some(cancel.clone());
        self.tally = Some(tally.clone());
        self.hashed(entry)
    }

    /// Computes the sha256 of the expanded content (a sparse file's holes are zeros) for `digest`.
    #[must_use]
    pub fn hashed(mut self, entry: &Entry) -> Self {
        self.hasher.get_or_insert_with(|| Box::new(ContentHasher::new(entry.size, entry.extents.as_ref())));
        self
    }

    /// The content is whole only if it has this sha256.
    #[must_use]
    pub fn expecting(mut self, sha256: Sha, entry: &Entry) -> Self {
        self.expected = Some(sha256);
        self.hashed(entry)
    }

    /// Keeps why it failed, should it fail: a sink that discards it says that as a text only.
    #[must_use]
    pub fn telling(mut self, failure: &Arc<OnceLock<Error>>) -> Self {
        self.failure = Some(failure.clone());
        self
    }

    /// The length, if all of it is in memory.
    pub fn in_memory(&self) -> Option<usize> {
        match &self.inner {
            Inner::Whole(b) => Some(b.len()),
            _ => None,
        }
    }

    /// The next bytes; `None`: the content is whole. An error is final: every later call errs too.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = self.next_checked().await;
        if let (Err(e), Some(failure)) = (&next, &self.failure) {
            // Only the first failure says what happened.
            let _ = failure.set(e.clone());
        }
        next
    }

    async fn next_checked(&mut self) -> Result<Option<Bytes>> {
        match self.step().await {
            Ok(Some(bytes)) => {
                self.got += bytes.len() as u64;
                if let Some(promised) = self.promised
                    && self.got > promised
                {
                    self.inner = Inner::Broken;
                    return Err(wrong_length(promised, self.got));
                }
                self.hash(&bytes).await?;
                if let Some(tally) = &self.tally {
                    tally.fetch_add(bytes.len() as u64, Relaxed);
                }
                Ok(Some(bytes))
            }
            Ok(None) => match self.conclude().await {
                Ok(()) => Ok(None),
                Err(e) => {
                    self.inner = Inner::Broken;
                    Err(e)
                }
            },
            Err(e) => {
                self.inner = Inner::Broken;
                Err(e)
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>> {
        if self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Err(Error::cancelled());
        }
        match &mut self.inner {
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Ended(Facts::new());
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Inner::Stream(stream) => loop {
                let item = match &self.cancel {
                    Some(cancel) => tokio::select! {
                        biased;
                        item = stream.next() => item,
                        () = cancel.cancelled() => return Err(Error::cancelled()),
                    },
                    None => stream.next().await,
                };
                match item {
                    Some(Ok(Part::Bytes(b))) if b.is_empty() => {}
                    Some(Ok(Part::Bytes(b))) => return Ok(Some(b)),
                    Some(Ok(Part::End(facts))) => {
                        self.inner = Inner::Ended(facts);
                        return Ok(None);
                    }
                    Some(Err(e)) => return Err(e),
                    None => return Err(Error::cut()),
                }
            },
            Inner::Ended(_) => Ok(None),
            Inner::Broken => Err(Error::cut()),
        }
    }

    /// Holes are hashed a piece at a time: a file may claim more zeros than anybody can wait for.
    async fn hash(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(hasher) = &mut self.hasher
            && !hasher.update(&mut bytes)
        {
            self.pause().await?;
        }
        Ok(())
    }

    async fn pause(&mut self) -> Result<()> {
        tokio::task::yield_now().await;
        if self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
            self.inner = Inner::Broken;
            return Err(Error::cancelled());
        }
        Ok(())
    }

    async fn conclude(&mut self) -> Result<()> {
        if let Some(promised) = self.promised
            && promised != self.got
        {
            return Err(wrong_length(promised, self.got));
        }
        while let Some(hasher) = &mut self.hasher
            && !hasher.end()
        {
            self.pause().await?;
        }
        if let Some(hasher) = self.hasher.take() {
            self.digest = Some(hasher.sha.finalize().into());
        }
        match (self.expected, self.digest) {
            (Some(expected), Some(found)) if expected != found => Err(Error::damaged(
                "read the content",
                format!("its sha256 is {}, not {}", hex::encode(found), hex::encode(expected)),
            )),
            _ => Ok(()),
        }
    }

    /// The sha256 of the expanded content; known once `next` has said `None`, if a digest was asked for.
    pub fn digest(&self) -> Option<Sha> {
        self.digest
    }

    /// What the producer counted; known once `next` has said `None`.
    pub fn facts(&self) -> Option<&Facts> {
        match &self.inner {
            Inner::Ended(facts) => Some(facts),
            _ => None,
        }
    }

    /// Bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.got
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("delivered", &self.got).finish_non_exhaustive()
    }
}

/// What a task sends, and how it ends.
fn produced(
    receiver: tokio::sync::mpsc::Receiver<Bytes>,
    task: AbortOnDropHandle<Result<Facts>>,
) -> impl Stream<Item = Result<Part>> + Send + 'static {
    futures::stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
        if let Some(bytes) = receiver.recv().await {
            return Some((Ok(Part::Bytes(bytes)), (receiver, task)));
        }
        let end = match task?.await {
            Ok(Ok(facts)) => Ok(Part::End(facts)),
            Ok(Err(e)) => Err(e),
            Err(e) if e.is_panic() => {
                Err(Error::new(ErrorKind::Panicked, "produce a stream", "the producer panicked"))
            }
            Err(_) => Err(Error::cancelled()),
        };
        Some((end, (receiver, None)))
    })
}

fn wrong_length(promised: u64, got: u64) -> Error {
    Error::new(ErrorKind::Source, "read the content", format!("it has {got} bytes, {promised} were promised"))
}

/// The writing end of a produced content.
#[derive(Debug)]
pub struct Feed(tokio::sync::mpsc::Sender<Bytes>);

impl Feed {
    /// Waits until the reader wants more. An error means that nobody reads any more: stop.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.0.send(bytes.into()).await.map_err(|_| Error::cancelled())
    }

    /// The same from a blocking thread.
    pub fn blocking_send(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.0.blocking_send(bytes.into()).map_err(|_| Error::cancelled())
    }
}

/// Hashes the expanded form of what may be a sparse file.
struct ContentHasher {
    sha: Sha256,
    size: Option<u64>,
    extents: Option<Arc<[Extent]>>,
    /// The extent that is being delivered, and how much of it has been.
    at: (usize, u64),
    position: u64,
}

impl ContentHasher {
    fn new(size: Option<u64>, extents: Option<&Arc<[Extent]>>) -> Self {
        ContentHasher { sha: Sha256::new(), size, extents: extents.cloned(), at: (0, 0), position: 0 }
    }

    /// Takes bytes away; `false` if it wants to be called again for the rest.
    fn update(&mut self, bytes: &mut &[u8]) -> bool {
        let Some(extents) = self.extents.clone() else {
            self.sha.update(bytes);
            return true;
        };
        while !bytes.is_empty() {
            let (index, done) = self.at;
            let Some(extent) = extents.get(index) else {
                return true; // more than promised: the length check says so
            };
            if done == 0 && !self.zeros_up_to(extent.offset) {
                return false;
            }
            let n = usize::try_from(extent.length - done).unwrap_or(usize::MAX).min(bytes.len());
            self.sha.update(&bytes[..n]);
            self.position += n as u64;
            *bytes = &bytes[n..];
            self.at =
                if done + n as u64 == extent.length { (index + 1, 0) } else { (index, done + n as u64) };
        }
        true
    }

    /// `false` if there are more than one piece.
    fn zeros_up_to(&mut self, offset: u64) -> bool {
        static ZEROS: [u8; 32 * 1024] = [0; 32 * 1024];
        const PIECE: u64 = 8 << 20;
        let piece = self.position.saturating_add(PIECE);
        while self.position < offset.min(piece) {
            let n = (offset.min(piece) - self.position).min(ZEROS.len() as u64);
            self.sha.update(&ZEROS[..n as usize]);
            self.position += n;
        }
        self.position >= offset
    }

    /// The hole at the end; `false` if it wants to be called again.
    fn end(&mut self) -> bool {
        self.extents.is_none() || self.zeros_up_to(self.size.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stage;

    async fn read(mut c: Content) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(b) = c.next().await? {
            out.extend_from_slice(&b);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn what_was_begun_reads_before_it_is_asked_for_a_little_and_ends_as_it_would() {
        let sent = Arc::new(AtomicU64::new(0));
        let produce = |last: Result<Facts>| {
            let sent = sent.clone();
            Content::produce(move |feed| async move {
                for _ in 0..20 {
                    feed.send("x").await?;
                    sent.fetch_add(1, Relaxed);
                }
                last
            })
        };
        let mut content = produce(Ok(Facts::new())).begun();
        while sent.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(sent.load(Relaxed) < 10);
        while content.next().await.unwrap().is_some() {}
        assert_eq!((content.delivered(), sent.load(Relaxed)), (20, 20));
        let mut broken = produce(Err(Error::damaged("read", "it broke"))).begun();
        let e = loop {
            if let Err(e) = broken.next().await {
                break e;
            }
        };
        assert_eq!((broken.delivered(), e.to_string().contains("it broke")), (20, true));
    }

    #[tokio::test]
    async fn a_hole_that_nobody_can_wait_for_can_be_cancelled_while_it_is_hashed() {
        let mut entry = Entry::file("a", Stage::Data).sized(1 << 60);
        entry.extents = Some(Arc::new([Extent { offset: 0, length: 1 }]));
        let cancel = CancellationToken::new();
        let mut content = Content::whole("x").watched(&entry, &cancel, &Arc::default()).hashed(&entry);
        content.next().await.unwrap();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), content.next()).await;
        assert!(waited.is_err(), "it gives way to others");
        cancel.cancel();
        assert_eq!(content.next().await.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn a_stream_that_stops_without_its_end_is_an_error() {
        let c = Content::stream(futures::stream::iter([Ok(Part::Bytes("row".into()))]));
        assert_eq!(read(c).await.unwrap_err().kind(), ErrorKind::Cut);
    }

    #[tokio::test]
    async fn a_panicking_producer_is_an_error() {
        let c = Content::produce(|feed| async move {
            feed.send("row").await?;
            if true {
                panic!("decoder");
            }
            Ok(Facts::new())
        });
        assert_eq!(read(c).await.unwrap_err().kind(), ErrorKind::Panicked);
    }

    #[tokio::test]
    async fn an_error_is_final() {
        let mut c = Content::failed(Error::new(ErrorKind::Denied, "open", "no"));
        assert_eq!(c.next().await.unwrap_err().kind(), ErrorKind::Denied);
        assert!(c.next().await.is_err());
    }

    #[tokio::test]
    async fn another_length_or_digest_than_promised_is_an_error() {
        let (token, tally) = (CancellationToken::new(), Arc::default());
        for promised in [2, 4] {
            let e = Entry::file("x", Stage::Data).sized(promised);
            let e = read(Content::whole("abc").watched(&e, &token, &tally)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Source);
        }
        let e = Entry::file("x", Stage::Data);
        let c = Content::whole("abc").expecting([7; 32], &e);
        assert_eq!(read(c).await.unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[tokio::test]
    async fn the_digest_of_a_sparse_file_is_of_its_expanded_bytes() {
        let mut e = Entry::file("x", Stage::Data).sized(100_000);
        e.extents = Some([Extent { offset: 10, length: 3 }, Extent { offset: 70_000, length: 2 }].into());
        let parts = ["a", "bcd", "e"].map(|t| Ok(Part::Bytes(t.into())));
        let s = futures::stream::iter(parts).chain(futures::stream::iter([Ok(Part::End(Facts::new()))]));
        let mut c = Content::stream(s).watched(&e, &CancellationToken::new(), &Arc::default());
        while c.next().await.unwrap().is_some() {}
        let mut whole = vec![0u8; 100_000];
        whole[10..13].copy_from_slice(b"abc");
        whole[70_000..70_002].copy_from_slice(b"de");
        let expected: Sha = Sha256::digest(&whole).into();
        assert_eq!(c.digest(), Some(expected));
    }
}
