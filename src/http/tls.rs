//! What TLS asks of both sides.
//!
//! invariant: a client certificate that comes out of a handshake is in its sender's possession (its
//! signature over the handshake was verified), and nothing more: whether to believe what it says is
//! decided at each request, by [`super::identity`]. So a wrong certificate is answered with a
//! `Status` that says what is wrong, as kube-apiserver's library does, instead of a broken handshake.

use crate::kubernetes::certificates::{ServingCertificate, crypto_provider};
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2, and 1.3 with those who can.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// A cipher suite, by the name that Go and Kubernetes give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite(rustls::CipherSuite);

/// The suites that can be named.
const SUITES: [(&str, rustls::CipherSuite); 9] = [
    ("TLS_AES_128_GCM_SHA256", rustls::CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", rustls::CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        rustls::CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

impl FromStr for CipherSuite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Go's older names of two suites lack the hash.
        let same = |name: &str| {
            name == text || name.strip_suffix("_SHA256") == Some(text) && text.contains("CHACHA")
        };
        SUITES.iter().find(|(name, _)| same(name)).map(|(_, suite)| Self(*suite)).ok_or_else(|| {
            let names: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
            format!("no such cipher suite, or not a safe one: use some of {}", names.join(", "))
        })
    }
}

/// What is spoken.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// From which version on.
    pub min_version: MinVersion,
    /// Which suites of TLS 1.2; `None`: all. Those of TLS 1.3 are always on, as in Go.
    pub cipher_suites: Option<Vec<CipherSuite>>,
}

/// TLS with a certificate that can be replaced while it is served; offers HTTP/2 and HTTP/1.1; a cheap
/// clone, of which all serve the same certificate.
#[derive(Clone)]
pub struct TlsSettings {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

/// The certificate that new connections are shown.
struct Current(ArcSwap<CertifiedKey>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Why TLS can't be served.
#[derive(Debug, Error)]
#[error("TLS can't be served with this certificate and key: {0}")]
pub struct TlsError(#[from] rustls::Error);

impl TlsSettings {
    /// Serves this certificate by TLS 1.3 or 1.2, and asks clients for theirs without requiring one.
    pub fn new(certificate: ServingCertificate) -> Result<Self, TlsError> {
        Self::with_options(certificate, &TlsOptions::default())
    }

    /// The same, speaking only what these options say.
    pub fn with_options(certificate: ServingCertificate, options: &TlsOptions) -> Result<Self, TlsError> {
        let provider = crypto_provider();
        let mut spoken = CryptoProvider::clone(&provider);
        if let Some(suites) = &options.cipher_suites {
            spoken
                .cipher_suites
                .retain(|suite| suite.tls13().is_some() || suites.contains(&CipherSuite(suite.suite())));
        }
        let all = [&rustls::version::TLS13, &rustls::version::TLS12];
        // Without a suite for it TLS 1.2 can't be spoken.
        let has_tls12 = spoken.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        let versions =
            if options.min_version == MinVersion::Tls12 && has_tls12 { &all[..] } else { &all[..1] };
        let current = Arc::new(Current(ArcSwap::new(certified(certificate)?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(spoken))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::new(PossessionOnly { provider }))
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), current })
    }

    /// Shows this certificate to new connections; those that are open go on. Answers whether it is
    /// another one.
    ///
    /// # Errors
    /// When it can't be served; then the one before still is.
    pub fn replace(&self, certificate: ServingCertificate) -> Result<bool, TlsError> {
        let next = certified(certificate)?;
        let is_another = next.cert != self.current.0.load().cert;
        if is_another {
            self.current.0.store(next);
        }
        Ok(is_another)
    }

    /// What is shown now, leaf first.
    #[must_use]
    pub fn certificate(&self) -> Vec<CertificateDer<'static>> {
        self.current.0.load().cert.clone()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

fn certified(certificate: ServingCertificate) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = certificate.into_parts();
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &crypto_provider())?))
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
