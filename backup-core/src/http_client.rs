//! HTTP with TLS by rustls and the certificates of this system.

use crate::{Error, ErrorKind, Result, named_certificates::NamedCertificates};
use std::{path::Path, sync::Arc, time::Duration};

const CONNECT: Duration = Duration::from_secs(15);

/// `tls`: whether certificates are needed: those of `ca_file`, else those of this system.
pub(crate) fn client(tls: bool, ca_file: Option<&Path>) -> Result<reqwest::Client> {
    let fail = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Usage, "prepare TLS", e);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(&e))?;
    let config = match (ca_file, tls) {
        (Some(file), _) => {
            let verifier = Arc::new(NamedCertificates::read(file, provider)?);
            config.dangerous().with_custom_certificate_verifier(verifier)
        }
        (None, true) => {
            use rustls_platform_verifier::BuilderVerifierExt;
            config.with_platform_verifier().map_err(|e| fail(&e))?
        }
        (None, false) => config.with_root_certificates(rustls::RootCertStore::empty()),
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(config.with_no_client_auth())
        .connect_timeout(CONNECT)
        .user_agent(concat!("backup/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| fail(&e))
}
