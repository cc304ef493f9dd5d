//! HTTP with TLS by rustls: for OpenDAL and for calls of our own. Given up when nothing moves any more, held to a rate.

use super::pace::Pace;
use crate::{
    Result,
    destination::{Pulse, local::read_exact_at},
    http_client,
};
use bytes::Bytes;
use futures::{FutureExt, Stream, TryStreamExt, ready};
use http::{Method, Request, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use opendal::{Buffer, HttpBody, HttpTransport};
use rustls::InvalidMessage;
use std::{
    fs::File,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// A body is given to the connection in pieces of this size, so that it is seen to move.
const PIECE: usize = 64 << 10;

/// What is sent. It can be sent again.
#[derive(Clone)]
pub(super) enum Outgoing {
    Memory(Buffer),
    /// All of a file, of this length.
    File(Arc<File>, u64),
}

impl Outgoing {
    pub(super) fn length(&self) -> u64 {
        match self {
            Outgoing::Memory(buffer) => buffer.len() as u64,
            Outgoing::File(_, length) => *length,
        }
    }
}

/// How far a body has come in any of its attempts: what only begins again has not come further.
pub(super) struct Water {
    pulse: Pulse,
    highest: AtomicU64,
}

impl Water {
    pub(super) fn new(pulse: Pulse) -> Arc<Self> {
        Arc::new(Water { pulse, highest: AtomicU64::new(0) })
    }

    fn rises(&self, to: u64) {
        if self.highest.fetch_max(to, Relaxed) < to {
            self.pulse.beat();
        }
    }
}

/// Sends requests.
#[derive(Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    /// A connection on which nothing moves for this long is given up.
    patience: Duration,
    pace: Option<Pace>,
}

impl Transport {
    /// `tls`: whether certificates are needed: those of `ca_file`, else those of this system.
    pub(super) fn new(
        tls: bool,
        ca_file: Option<&Path>,
        patience: Duration,
        pace: Option<Pace>,
    ) -> Result<Self> {
        let client = http_client::client(tls, ca_file)?;
        Ok(Transport { client, patience, pace })
    }

    /// Sends a request whose body comes while it is sent.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

impl Transport {
    /// One request. `water` is told how far it comes.
    pub(super) async fn exchange(
        &self,
        parts: Parts,
        body: Outgoing,
        water: Option<Arc<Water>>,
    ) -> opendal::Result<Response<HttpBody>> {
        let is_head = parts.method == Method::HEAD;
        let moved = Arc::new(Moved::now());
        let mut builder = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        let length = body.length();
        if length > 0 {
            let source = match body {
                Outgoing::Memory(buffer) => Source::Memory(buffer),
                Outgoing::File(file, _) => Source::File { file, reading: None },
            };
            let (moved, pace) = (moved.clone(), self.pace.clone());
            let pieces = Pieces { source, at: 0, length, moved, water, pace, waiting: None };
            builder = builder.body(reqwest::Body::wrap(pieces));
        }
        let mut sending = std::pin::pin!(builder.send().fuse());
        let mut response = loop {
            let (last, sent) = (moved.last(), moved.is_sent());
            // What was handed over may still be on its way, and the server may have work to do with it.
            let patience = if sent { 4 * self.patience } else { self.patience };
            tokio::select! {
                biased;
                sent = &mut sending => break sent.map_err(|e| failed("send the request", e))?,
                () = sleep_until(last + patience) => {
                    if moved.last() == last && moved.is_sent() == sent {
                        return Err(stalled(patience));
                    }
                }
            }
        };
        let encoded = response.headers().contains_key(http::header::CONTENT_ENCODING);
        let length = if is_head || encoded { None } else { response.content_length() };
        let mut out = Response::builder().status(response.status()).extension(parts.uri);
        if let Some(headers) = out.headers_mut() {
            std::mem::swap(headers, response.headers_mut());
        }
        let stream = response
            .bytes_stream()
            .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
            .map_ok(Buffer::from)
            .map_err(|e| failed("read the answer", e));
        let (inner, timer) = (Box::pin(stream), Box::pin(sleep(self.patience)));
        let pace = self.pace.clone();
        let stream = Watched { inner, timer, patience: self.patience, pace, waiting: None };
        out.body(HttpBody::new(stream, length))
            .map_err(|e| opendal::Error::new(opendal::ErrorKind::Unexpected, "read the answer").set_source(e))
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        self.exchange(parts, Outgoing::Memory(body), None).await
    }
}

fn stalled(patience: Duration) -> opendal::Error {
    let text = format!("nothing moved for {} seconds", patience.as_secs());
    opendal::Error::new(opendal::ErrorKind::Unexpected, text).set_temporary()
}

fn failed(what: &'static str, e: reqwest::Error) -> opendal::Error {
    let of_the_way = e.is_request() || e.is_body() || e.is_decode() || e.is_connect();
    let temporary = of_the_way && !is_of_the_server(&e);
    opendal::Error::new(opendal::ErrorKind::Unexpected, what)
        .with_temporary(temporary)
        .set_source(e.without_url())
}

/// A certificate that is not trusted is not trusted a moment later either, and a server without TLS has none then.
fn is_of_the_server(e: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(e) = e.downcast_ref::<rustls::Error>() {
        return matches!(
            e,
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)
        );
    }
    // What an error of a connection holds is not its source.
    let held = e.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
    held.is_some_and(|held| is_of_the_server(held)) || e.source().is_some_and(is_of_the_server)
}

/// When the connection last took something.
struct Moved {
    begin: Instant,
    after: AtomicU64,
    /// A body, and all of it, was taken.
    sent: AtomicBool,
}

impl Moved {
    fn now() -> Self {
        Moved { begin: Instant::now(), after: AtomicU64::new(0), sent: AtomicBool::new(false) }
    }

    fn note(&self, last: bool) {
        self.after.store(self.begin.elapsed().as_millis() as u64, Relaxed);
        self.sent.store(last, Relaxed);
    }

    fn is_sent(&self) -> bool {
        self.sent.load(Relaxed)
    }

    fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.after.load(Relaxed))
    }
}

enum Source {
    Memory(Buffer),
    File { file: Arc<File>, reading: Option<JoinHandle<io::Result<Bytes>>> },
}

/// A body in pieces.
struct Pieces {
    source: Source,
    at: u64,
    length: u64,
    moved: Arc<Moved>,
    water: Option<Arc<Water>>,
    pace: Option<Pace>,
    /// Until the rate allows the next piece, which is the one at this place.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Source {
    fn poll_piece(&mut self, at: u64, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Source::Memory(buffer) => {
                let length = buffer.current().len().min(most);
                Poll::Ready(Ok(buffer.split_to(length).to_bytes()))
            }
            Source::File { file, reading } => {
                let task = reading.get_or_insert_with(|| {
                    let file = file.clone();
                    tokio::task::spawn_blocking(move || {
                        let mut piece = vec![0; most];
                        read_exact_at(&file, &mut piece, at).map(|()| piece.into())
                    })
                });
                let read = ready!(Pin::new(task).poll(cx));
                *reading = None;
                Poll::Ready(read.unwrap_or_else(|e| Err(io::Error::other(e))))
            }
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.at == this.length {
            return Poll::Ready(None);
        }
        let piece = this.pace.as_ref().map_or(PIECE, Pace::piece).min(PIECE);
        let most = usize::try_from(this.length - this.at).unwrap_or(piece).min(piece);
        if let Some(pace) = &this.pace {
            let at = this.at;
            if this.waiting.as_ref().is_none_or(|(of, _)| *of != at) {
                this.waiting = Some((at, Box::pin(sleep_until(pace.reserve(most)))));
            }
            if let Some((_, wait)) = &mut this.waiting {
                ready!(wait.as_mut().poll(cx));
            }
        }
        let piece = match ready!(this.source.poll_piece(this.at, most, cx)) {
            Ok(piece) => piece,
            Err(e) => return Poll::Ready(Some(Err(e))),
        };
        this.at += piece.len() as u64;
        this.moved.note(this.at == this.length);
        if let Some(water) = &this.water {
            water.rises(this.at);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

/// An answer that must go on coming.
struct Watched<S> {
    inner: Pin<Box<S>>,
    timer: Pin<Box<Sleep>>,
    patience: Duration,
    pace: Option<Pace>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream<Item = opendal::Result<Buffer>>> Stream for Watched<S> {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(wait) = &mut this.waiting {
            ready!(wait.as_mut().poll(cx));
            this.waiting = None;
            this.timer.as_mut().reset(Instant::now() + this.patience);
        }
        match this.inner.as_mut().poll_next(cx) {
            Poll::Pending => {
                let patience = this.patience;
                this.timer.as_mut().poll(cx).map(|()| Some(Err(stalled(patience))))
            }
            ready => {
                this.timer.as_mut().reset(Instant::now() + this.patience);
                if let (Some(pace), Poll::Ready(Some(Ok(buffer)))) = (&this.pace, &ready) {
                    this.waiting = Some(Box::pin(sleep_until(pace.reserve(buffer.len()))));
                }
                ready
            }
        }
    }
}
