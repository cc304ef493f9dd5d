//! HTTP as OpenDAL needs it, with TLS by rustls, and given up when nothing moves any more.

use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::{FutureExt, Stream, TryStreamExt};
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opendal::{Buffer, HttpBody, HttpTransport};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

const CONNECT: Duration = Duration::from_secs(15);
/// A body is given to the connection in pieces of this size, so that it is seen to move.
const PIECE: usize = 64 << 10;

/// Sends requests.
#[derive(Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    /// A connection on which nothing moves for this long is given up.
    patience: Duration,
}

impl Transport {
    /// `tls`: whether the certificates of this system are needed.
    pub(super) fn new(tls: bool, patience: Duration) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Usage, "prepare TLS", e);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| fail(&e))?;
        let config = match tls {
            true => {
                use rustls_platform_verifier::BuilderVerifierExt;
                config.with_platform_verifier().map_err(|e| fail(&e))?
            }
            false => config.with_root_certificates(rustls::RootCertStore::empty()),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config.with_no_client_auth())
            .connect_timeout(CONNECT)
            .user_agent(concat!("backup/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| fail(&e))?;
        Ok(Transport { client, patience })
    }

    /// Sends a request whose body comes while it is sent.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let moved = Arc::new(Moved::now());
        let mut builder = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        if !body.is_empty() {
            builder = builder.body(reqwest::Body::wrap(Pieces { left: body, moved: moved.clone() }));
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
        let stream = Watched { inner, timer, patience: self.patience };
        out.body(HttpBody::new(stream, length))
            .map_err(|e| opendal::Error::new(opendal::ErrorKind::Unexpected, "read the answer").set_source(e))
    }
}

fn stalled(patience: Duration) -> opendal::Error {
    let text = format!("nothing moved for {} seconds", patience.as_secs());
    opendal::Error::new(opendal::ErrorKind::Unexpected, text).set_temporary()
}

fn failed(what: &'static str, e: reqwest::Error) -> opendal::Error {
    let temporary = e.is_request() || e.is_body() || e.is_decode() || e.is_connect();
    opendal::Error::new(opendal::ErrorKind::Unexpected, what)
        .with_temporary(temporary)
        .set_source(e.without_url())
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

/// A body in pieces.
struct Pieces {
    left: Buffer,
    moved: Arc<Moved>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.current().len().min(PIECE);
        let piece = self.left.split_to(length).to_bytes();
        self.moved.note(self.left.is_empty());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// An answer that must go on coming.
struct Watched<S> {
    inner: Pin<Box<S>>,
    timer: Pin<Box<Sleep>>,
    patience: Duration,
}

impl<S: Stream<Item = opendal::Result<Buffer>>> Stream for Watched<S> {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.inner.as_mut().poll_next(cx) {
            Poll::Pending => {
                let patience = self.patience;
                self.timer.as_mut().poll(cx).map(|()| Some(Err(stalled(patience))))
            }
            ready => {
                let next = Instant::now() + self.patience;
                self.timer.as_mut().reset(next);
                ready
            }
        }
    }
}
