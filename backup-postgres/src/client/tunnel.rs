//! A connection through a program in the server's container: for a server that no port leads to.

use crate::address::Passage;
use backup_core::{Content, Facts, Part, Result, ToolCommand};
use bytes::BytesMut;
use futures::stream;
use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf},
    task::JoinHandle,
};

const BUFFER: usize = 256 << 10;
/// Carries bytes both ways. It is the reader that stays as the program: what ends it ends the tunnel. When nobody writes any more,
/// the writer ends it, and the server sees the connection closed.
const CARRY: &str = "exec 3<>\"/dev/tcp/127.0.0.1/$1\" 4<&0 || exit 1; (cat <&4 >&3; kill -TERM $$) 2>/dev/null & exec cat <&3 4<&-";

/// A connection that lasts as long as this is kept.
pub(super) struct Tunnel {
    near: DuplexStream,
    failure: Arc<OnceLock<String>>,
    carrying: JoinHandle<()>,
}

/// Begins one. That the server is not reached is told by the first read.
pub(super) fn tunnel(passage: &Passage, port: u16) -> Tunnel {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (read, mut write) = tokio::io::split(far);
    let mut command = ToolCommand::new("bash").args(["-c", CARRY, "bash"]).arg(port.to_string());
    command.input = Some(Content::stream(stream::unfold(Some(read), next)));
    command.at_once = true;
    let mut output = passage.runner().run(command);
    let failure: Arc<OnceLock<String>> = Arc::default();
    let said = failure.clone();
    let carrying = tokio::spawn(async move {
        loop {
            match output.next().await {
                Ok(Some(bytes)) if write.write_all(&bytes).await.is_ok() => {}
                Ok(_) => break,
                Err(e) => {
                    let _ = said.set(e.message().to_owned());
                    break;
                }
            }
        }
        // Nobody may be listening any more.
        let _ = write.shutdown().await;
    });
    Tunnel { near, failure, carrying }
}

async fn next(
    read: Option<ReadHalf<DuplexStream>>,
) -> Option<(Result<Part>, Option<ReadHalf<DuplexStream>>)> {
    let mut read = read?;
    let mut bytes = BytesMut::with_capacity(BUFFER / 4);
    match read.read_buf(&mut bytes).await {
        Ok(1..) => Some((Ok(Part::Bytes(bytes.freeze())), Some(read))),
        _ => Some((Ok(Part::End(Facts::new())), None)),
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.near).poll_read(cx, buffer));
        let ended = buffer.filled().len() == before;
        Poll::Ready(match (read, self.failure.get()) {
            (Ok(()), Some(why)) if ended => Err(io::Error::other(format!("through the container: {why}"))),
            (read, _) => read,
        })
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(cx)
    }
}
