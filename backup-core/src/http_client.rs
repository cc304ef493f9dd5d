//! HTTP with TLS by rustls and the certificates of this system.

use crate::{Error, ErrorKind, Result, server_trust::ServerTrust};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{path::Path, sync::Arc, time::Duration};

const CONNECT: Duration = Duration::from_secs(15);

/// `tls`: whether certificates are needed: those of `ca_file`, else those of this system.
pub(crate) fn client(tls: bool, ca_file: Option<&Path>) -> Result<reqwest::Client> {
    let fail = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Usage, "prepare TLS", e);
    let config = match (ca_file, tls) {
        (Some(file), _) => ServerTrust::in_file(file, "ca_file")?.client_config()?,
        (None, true) => ServerTrust::of_system()?.client_config()?,
        (None, false) => ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| fail(&e))?
            .with_root_certificates(RootCertStore::empty()),
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(config.with_no_client_auth())
        .connect_timeout(CONNECT)
        .user_agent(concat!("backup/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| fail(&e))
}
