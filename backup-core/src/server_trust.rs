//! Which servers are trusted that speak TLS: one verifier for all stores and destinations.

use crate::{Error, ErrorKind, Result};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{path::Path, sync::Arc};

/// Which servers a client trusts that speaks TLS to them.
#[derive(Debug)]
pub struct ServerTrust {
    /// Servers' own certificates, for which nobody has to vouch.
    named: Vec<CertificateDer<'static>>,
    /// `None`: whoever answers is trusted.
    authorities: Option<Arc<dyn ServerCertVerifier>>,
    any_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerTrust {
    /// Those for whom the authorities of a file vouch, and those whose own certificate is in it. The file is PEM; `option` is what it
    /// is called where it is configured. A file that cannot be read, or has no certificate, is an error of use.
    pub fn in_file(file: &Path, option: &str) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| {
            let text = format!("the {option} {}: {e}", file.display());
            Error::new(ErrorKind::Usage, "read the certificates", text)
                .hint("it is a file of certificates in PEM: -----BEGIN CERTIFICATE-----")
        };
        let (mut roots, mut named) = (RootCertStore::empty(), Vec::new());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| fail(&e))? {
            let certificate = certificate.map_err(|e| fail(&e))?;
            roots.add(certificate.clone()).map_err(|e| fail(&e))?;
            named.push(certificate);
        }
        if roots.is_empty() {
            return Err(fail(&"no certificate is in it"));
        }
        let provider = Arc::new(ring::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        Ok(ServerTrust { named, authorities: Some(built.map_err(|e| fail(&e))?), any_name: false, provider })
    }

    /// Those for whom the authorities of this system vouch.
    pub fn of_system() -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let system = rustls_platform_verifier::Verifier::new(provider.clone()).map_err(|e| {
            Error::new(ErrorKind::Usage, "read the certificates of this system", e)
                .hint("install them (ca-certificates), or name a file of certificates")
        })?;
        Ok(ServerTrust { named: Vec::new(), authorities: Some(Arc::new(system)), any_name: false, provider })
    }

    /// Whoever answers: what is said is encrypted, but nobody knows to whom.
    pub fn anybody() -> Self {
        let provider = Arc::new(ring::default_provider());
        ServerTrust { named: Vec::new(), authorities: None, any_name: true, provider }
    }

    /// The same servers, whatever name is in their certificates.
    pub fn under_any_name(mut self) -> Self {
        self.any_name = true;
        self
    }

    /// A configuration of rustls, but for what the client shows of itself.
    pub fn client_config(self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
        let versions =
            ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions();
        let versions = versions.map_err(|e| Error::new(ErrorKind::Usage, "prepare TLS", e))?;
        Ok(versions.dangerous().with_custom_certificate_verifier(Arc::new(self)))
    }
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(certificate, between, name, ocsp, now) {
            // `openssl req -x509` makes a server's own certificate one of an authority, which webpki accepts of no server. It says so
            // by an error that rustls has no name for, after it has looked at the dates.
            Err(TlsError::InvalidCertificate(CertificateError::Other(_)))
                if self.named.contains(certificate) =>
            {
                if !self.any_name {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            // The chain is sound: names are looked at last.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
