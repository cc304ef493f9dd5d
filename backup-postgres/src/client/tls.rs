//! TLS, with the modes of libpq.

use crate::address::{Ssl, SslMode};
use backup_core::ServerTrust;
use rustls::pki_types::ServerName;
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(super) async fn wrap(stream: TcpStream, host: &str, ssl: &Ssl) -> io::Result<TlsStream<TcpStream>> {
    let config = trusted(ssl).and_then(ServerTrust::client_config).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config.with_no_client_auth())).connect(name, stream).await
}

fn trusted(ssl: &Ssl) -> backup_core::Result<ServerTrust> {
    let verified = || match &ssl.root_certificate {
        Some(file) => ServerTrust::in_file(file, "sslrootcert"),
        None => ServerTrust::of_system(),
    };
    match ssl.mode {
        SslMode::VerifyFull => verified(),
        SslMode::VerifyCa => Ok(verified()?.under_any_name()),
        // As libpq does: with a root certificate at hand, `require` looks at the chain.
        SslMode::Require if ssl.root_certificate.is_some() => Ok(verified()?.under_any_name()),
        SslMode::Require | SslMode::Prefer | SslMode::Disable => Ok(ServerTrust::anybody()),
    }
}
