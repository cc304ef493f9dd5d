//! Trust in the certificates of a file: in authorities, and in servers' own.

use crate::{Error, ErrorKind, Result};
use rustls::{
    DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{path::Path, sync::Arc};

/// Trusts whom the authorities of a file vouch for, and servers whose own certificate is in it.
#[derive(Debug)]
pub(crate) struct NamedCertificates {
    certificates: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl NamedCertificates {
    /// The certificates of this file, which is PEM.
    pub(crate) fn read(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| {
            let text = format!("the ca_file {}: {e}", file.display());
            Error::new(ErrorKind::Usage, "read the certificates", text)
                .hint("it is a file of certificates in PEM: -----BEGIN CERTIFICATE-----")
        };
        let (mut roots, mut certificates) = (RootCertStore::empty(), Vec::new());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| fail(&e))? {
            let certificate = certificate.map_err(|e| fail(&e))?;
            roots.add(certificate.clone()).map_err(|e| fail(&e))?;
            certificates.push(certificate);
        }
        if roots.is_empty() {
            return Err(fail(&"no certificate is in it"));
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(NamedCertificates { certificates, authorities: built.map_err(|e| fail(&e))? })
    }
}

impl ServerCertVerifier for NamedCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        match self.authorities.verify_server_cert(certificate, between, name, ocsp, now) {
            // `openssl req -x509` makes a server's own certificate one of an authority, which webpki accepts of no server. It says so
            // by an error that rustls has no name for, after it has looked at the dates.
            Err(TlsError::InvalidCertificate(rustls::CertificateError::Other(_)))
                if self.certificates.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
