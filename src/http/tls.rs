//! What TLS asks of both sides.
//!
//! invariant: a client certificate that comes out of a handshake is in its sender's possession (its
//! signature over the handshake was verified), and nothing more: whether to believe what it says is
//! decided at each request, by [`super::identity`]. So a wrong certificate is answered with a
//! `Status` that says what is wrong, as kube-apiserver's library does, instead of a broken handshake.

use crate::kubernetes::certificates::{ServingCertificate, crypto_provider};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// TLS 1.3, or 1.2, with this certificate; offers HTTP/2 and HTTP/1.1; a cheap clone.
#[derive(Clone)]
pub struct TlsSettings {
    config: Arc<ServerConfig>,
}

/// Why TLS can't be served.
#[derive(Debug, Error)]
#[error("TLS can't be served with this certificate and key: {0}")]
pub struct TlsError(#[from] rustls::Error);

impl TlsSettings {
    /// Serves this certificate, and asks clients for theirs without requiring one.
    pub fn new(certificate: ServingCertificate) -> Result<Self, TlsError> {
        let provider = crypto_provider();
        let (chain, key) = certificate.into_parts();
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(Arc::new(PossessionOnly { provider }))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

/// Takes any client certificate, or none, and verifies only that the client holds its key.
#[derive(Debug)]
struct PossessionOnly {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Without hints the client is free to send what it has.
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Not a decision to trust: see the module's invariant.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
