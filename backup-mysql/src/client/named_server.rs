//! A server whose own certificate is named in `ssl-ca`, and marked as an authority's, as `openssl req -x509` makes it. The driver trusts no
//! such server, and takes no verifier but its own. So it speaks in the clear to a socket of this process, which nobody else can reach,
//! and the server is spoken to from here.

use crate::address::{Endpoint, Host, Ssl, SslMode};
use backup_core::ServerTrust;
use mysql_async::{Conn, Error as Driver, IoError, Opts};
use rustls::{
    CertificateError, ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener},
};
use tokio_rustls::TlsConnector;

/// In the second byte of a client's capabilities.
const CLIENT_SSL: u8 = 0x08;
/// The beginning of a client's answer to a greeting: sent before TLS, as the request for it.
const SSL_REQUEST: usize = 32;
/// Nothing that is said before the login is complete is longer.
const LONGEST: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Whether a server that the driver has refused may be one that is named.
pub(super) fn may_be_named(ssl: &Ssl, refused: &Driver) -> bool {
    let Driver::Io(IoError::Io(e)) = refused else { return false };
    let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    ssl.ca.is_some() && matches!(tls, Some(rustls::Error::InvalidCertificate(CertificateError::Other(_))))
}

/// Connects and logs in; `options` are those for a socket at this path.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: impl FnOnce(String) -> Opts,
) -> Result<Conn, Driver> {
    let failed = |e| Driver::Io(IoError::Io(e));
    // Of this user alone.
    let folder = tempfile::Builder::new().prefix("backup-").tempdir().map_err(failed)?;
    let socket = folder.path().join("mysql");
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    let log_in = Conn::new(options(socket.to_string_lossy().into_owned()));
    // Why the server is not reached is known here only: this fails first.
    let lead = async { lead(endpoint, listener).await.map_err(failed) };
    let (conn, ()) = tokio::try_join!(log_in, lead)?;
    Ok(conn)
}

fn config(ssl: &Ssl) -> io::Result<ClientConfig> {
    let trust = match &ssl.ca {
        Some(file) => ServerTrust::in_file(file, "ssl-ca"),
        None => ServerTrust::of_system(),
    };
    let trust = trust.map_err(io::Error::other)?;
    let any_name = ssl.mode != SslMode::VerifyIdentity;
    let trust = if any_name { trust.under_any_name() } else { trust };
    let config = trust.client_config().map_err(io::Error::other)?;
    let Some((certificate, key)) = &ssl.identity else { return Ok(config.with_no_client_auth()) };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|e| io::Error::other(format!("ssl-cert {}: {e}", certificate.display())))?;
    let unusable = |e: &dyn std::fmt::Display| io::Error::other(format!("ssl-key {}: {e}", key.display()));
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(&e))?;
    config.with_client_auth_cert(chain, private).map_err(|e| unusable(&e))
}

/// Leads the driver to the server: until it is logged in, packets are counted anew, for the request for TLS is one that it does not
/// know of; from then on all is passed on as it is.
async fn lead(endpoint: &Endpoint, listener: UnixListener) -> io::Result<()> {
    let Host::Name(host, port) = &endpoint.host else { return Err(another_protocol()) };
    let tls = TlsConnector::from(Arc::new(config(&endpoint.ssl)?));
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let mut server = TcpStream::connect((host.as_str(), *port)).await?;
    server.set_nodelay(true)?;
    let (mut driver, _) = listener.accept().await?;
    let greeting = Packet::read(&mut server).await?;
    greeting.write(&mut driver, greeting.number).await?;
    if greeting.ends_login() {
        return Ok(());
    }
    let mut answer = Packet::read(&mut driver).await?;
    if answer.body.len() < SSL_REQUEST {
        return Err(another_protocol());
    }
    answer.body[1] |= CLIENT_SSL;
    let request = Packet { number: answer.number, body: answer.body[..SSL_REQUEST].to_vec() };
    request.write(&mut server, request.number).await?;
    let mut server = tls.connect(name, server).await?;
    answer.write(&mut server, answer.number.wrapping_add(1)).await?;
    loop {
        let said = Packet::read(&mut server).await?;
        said.write(&mut driver, said.number.wrapping_sub(1)).await?;
        if said.ends_login() {
            break;
        }
        // caching_sha2_password: the server knows the password already, and goes on.
        if said.body != [1, 3] {
            let answer = Packet::read(&mut driver).await?;
            answer.write(&mut server, answer.number.wrapping_add(1)).await?;
        }
    }
    tokio::spawn(async move {
        // Whoever is left by the other is left by us, and says so.
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut driver, &mut server, CHUNK, CHUNK).await;
    });
    Ok(())
}

/// A packet of the protocol.
struct Packet {
    number: u8,
    body: Vec<u8>,
}

impl Packet {
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 4];
        from.read_exact(&mut head).await?;
        let [a, b, c, number] = head;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if length > LONGEST {
            return Err(another_protocol());
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Ok(Packet { number, body })
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), number: u8) -> io::Result<()> {
        // Shorter than three bytes can say: so it was read.
        let [a, b, c, _] = (self.body.len() as u32).to_le_bytes();
        let mut bytes = vec![a, b, c, number];
        bytes.extend_from_slice(&self.body);
        to.write_all(&bytes).await?;
        to.flush().await
    }

    /// The server lets the client in, or refuses it.
    fn ends_login(&self) -> bool {
        matches!(self.body.first(), Some(0x00 | 0xff))
    }
}

fn another_protocol() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it does not answer as a MySQL server does")
}
