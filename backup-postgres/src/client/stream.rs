//! The connection below a session: TCP, a Unix socket, or a way through the container; with or without TLS.

use super::{error::ClientError, tls, tunnel::tunnel};
use crate::address::{Endpoint, Host, SslMode};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// Whatever carries the messages.
pub(super) type Stream = Box<dyn Carrier>;

pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// Asks for TLS: length and code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub(super) async fn connect_stream(endpoint: &Endpoint) -> Result<Stream, ClientError> {
    let (name, stream) = match &endpoint.host {
        Host::Socket(folder) => return Ok(unix_socket(folder, endpoint.port).await?),
        // Nothing of it leaves the container and this host's engine.
        Host::Inside(passage) => return Ok(Box::new(tunnel(passage, endpoint.port))),
        Host::Name(name) => (name, TcpStream::connect((name.as_str(), endpoint.port)).await?),
    };
    stream.set_nodelay(true)?;
    // As libpq does: what stands between forgets a connection on which an index is built for long.
    let alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(20));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    match endpoint.ssl.mode {
        SslMode::Disable => Ok(Box::new(stream)),
        mode => negotiate(stream, name, mode, endpoint).await,
    }
}

async fn negotiate(
    mut stream: TcpStream,
    name: &str,
    mode: SslMode,
    endpoint: &Endpoint,
) -> Result<Stream, ClientError> {
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => Ok(Box::new(tls::wrap(stream, name, &endpoint.ssl).await?)),
        b'N' if mode == SslMode::Prefer => Ok(Box::new(stream)),
        b'N' => Err(ClientError::Protocol("the server has no TLS, and sslmode asks for it".into())),
        _ => Err(ClientError::Protocol("it does not answer as a PostgreSQL server does".into())),
    }
}

#[cfg(unix)]
async fn unix_socket(folder: &std::path::Path, port: u16) -> io::Result<Stream> {
    Ok(Box::new(tokio::net::UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?))
}

#[cfg(not(unix))]
async fn unix_socket(_folder: &std::path::Path, _port: u16) -> io::Result<Stream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets: name a host"))
}
