//! Connecting: TCP or a Unix socket, TLS with the modes of the vendors' clients.

use super::Session;
#[cfg(unix)]
use super::named_server;
use crate::{
    address::{Endpoint, Host, SslMode},
    error::ClientError,
};
use mysql_async::{ClientIdentity, Conn, DriverError, Error as Driver, Opts, OptsBuilder, SslOpts};
use rustls::crypto::{CryptoProvider, ring};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONNECT: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(3);
/// What a single row may take: the limit of the protocol. The server has one of its own.
const LARGEST_ROW: usize = 1 << 30;

/// Connects and logs in.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Session, ClientError> {
    // The driver takes the one of the process; where several are linked in, rustls chooses none by itself.
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been quicker.
        let _ = ring::default_provider().install_default();
    }
    let encrypted = endpoint.ssl.mode != SslMode::Disabled && !matches!(endpoint.host, Host::Socket(_));
    let attempts = async {
        match Conn::new(options(endpoint, encrypted)).await {
            Err(Driver::Driver(DriverError::NoClientSslFlagFromServer))
                if endpoint.ssl.mode == SslMode::Preferred =>
            {
                Conn::new(options(endpoint, false)).await
            }
            #[cfg(unix)]
            Err(e) if named_server::may_be_named(&endpoint.ssl, &e) => {
                named_server::connect(endpoint, |socket| builder(endpoint).socket(Some(socket)).into()).await
            }
            other => other,
        }
    };
    match tokio::time::timeout(CONNECT, attempts).await {
        Ok(Ok(conn)) => Ok(Session::new(conn)),
        Ok(Err(e)) => Err(e.into()),
        Err(_) if is_postgres(&endpoint.host).await => {
            let why = "it answers as a PostgreSQL server does, whose address begins with postgres://";
            Err(ClientError::Foreign(why.to_owned()))
        }
        Err(_) => Err(ClientError::Late(CONNECT)),
    }
}

/// Whether what said nothing, as MySQL does first, answers a PostgreSQL client that asks for encryption. Asked only then: to a MySQL
/// server it would be a failed attempt.
async fn is_postgres(host: &Host) -> bool {
    let Host::Name(name, port) = host else { return false };
    let asking = async {
        let mut stream = TcpStream::connect((name.as_str(), *port)).await.ok()?;
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.ok()?;
        stream.read_u8().await.ok()
    };
    matches!(tokio::time::timeout(PROBE, asking).await, Ok(Some(b'S' | b'N')))
}

fn options(endpoint: &Endpoint, encrypted: bool) -> Opts {
    let builder = builder(endpoint).ssl_opts(encrypted.then(|| ssl(endpoint)));
    match &endpoint.host {
        Host::Name(name, port) => builder.ip_or_hostname(name.as_str()).tcp_port(*port),
        Host::Socket(path) => builder.socket(Some(path.to_string_lossy())),
    }
    .into()
}

/// All but where the server is, and how the connection is protected.
fn builder(endpoint: &Endpoint) -> OptsBuilder {
    OptsBuilder::default()
        .user(Some(endpoint.user.as_str()))
        .pass(endpoint.password.as_ref().map(|p| p.expose()))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .max_allowed_packet(Some(LARGEST_ROW))
        .wait_timeout(Some(28_800))
}

fn ssl(endpoint: &Endpoint) -> SslOpts {
    let ssl = &endpoint.ssl;
    let verified = matches!(ssl.mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
    let mut opts = SslOpts::default()
        .with_danger_accept_invalid_certs(!verified)
        .with_danger_skip_domain_validation(ssl.mode != SslMode::VerifyIdentity);
    if ssl.mode == SslMode::VerifyCa {
        // The driver passes over a wrong name by this word in what rustls says, and rustls says only the name that was expected.
        opts = opts.with_danger_tls_hostname_override(Some("NotValidForName"));
    }
    if let Some(ca) = &ssl.ca {
        opts = opts.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(verified);
    }
    if let Some((certificate, key)) = &ssl.identity {
        opts = opts
            .with_client_identity(Some(ClientIdentity::new(certificate.clone().into(), key.clone().into())));
    }
    opts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_postgresql_server_is_known_by_its_answer() {
        for (answer, is) in [(b"S", true), (b"N", true), (b"x", false)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = Host::Name("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_exact(&mut [0; 8]).await.unwrap();
                stream.write_all(answer).await.unwrap();
            };
            assert_eq!(tokio::join!(is_postgres(&host), answering).0, is);
        }
        assert!(!is_postgres(&Host::Name("127.0.0.1".to_owned(), 1)).await);
    }
}
