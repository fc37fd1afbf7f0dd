//! Flags of TLS on the secure port, under Kubernetes' own names where it has one.

use crate::http::tls::{CipherSuite, MinVersion, TlsOptions};
use crate::kubernetes::ca_bundle::ServiceName;
use clap::{Args, ValueEnum};

/// Flags of TLS.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// The oldest version of TLS that is spoken.
    #[arg(long, value_name = "VERSION", env = "LOOKBACK_TLS_MIN_VERSION", default_value = "VersionTLS12")]
    pub tls_min_version: TlsVersion,

    /// Cipher suites of TLS 1.2, in Go's names, separated by commas [default: all that are safe]. Those of
    /// TLS 1.3 are always on.
    #[arg(long, value_name = "SUITES", env = "LOOKBACK_TLS_CIPHER_SUITES", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<CipherSuite>,

    /// The Service by which kube-apiserver reaches this server, as NAME or NAMESPACE/NAME [namespace: the
    /// pod's]. A certificate that Lookback makes is for its names, and in a cluster the caBundle of the
    /// APIServices that lead to it is kept right.
    #[arg(long, value_name = "SERVICE", env = "LOOKBACK_SERVICE", default_value = "lookback")]
    pub service: String,

    /// A Secret in the pod's namespace in which replicas share the CA of the certificates that Lookback makes
    /// [default: each has its own]. It is made when it is not there.
    #[arg(long, value_name = "NAME", env = "LOOKBACK_CA_SECRET")]
    pub ca_secret: Option<String>,
}

/// A version of TLS, as Kubernetes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[value(name = "VersionTLS12")]
    V1_2,
    /// TLS 1.3.
    #[value(name = "VersionTLS13")]
    V1_3,
}

impl TlsArgs {
    /// What the secure port speaks.
    #[must_use]
    pub fn options(&self) -> TlsOptions {
        TlsOptions {
            min_version: match self.tls_min_version {
                TlsVersion::V1_2 => MinVersion::Tls12,
                TlsVersion::V1_3 => MinVersion::Tls13,
            },
            cipher_suites: (!self.tls_cipher_suites.is_empty()).then(|| self.tls_cipher_suites.clone()),
        }
    }

    /// The Service; `None`: there is no namespace for it.
    #[must_use]
    pub fn service(&self, namespace: Option<&str>) -> Option<ServiceName> {
        let (namespace, name) = match self.service.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => (namespace?, self.service.as_str()),
        };
        Some(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}
