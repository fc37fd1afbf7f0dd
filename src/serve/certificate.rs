//! The certificate of the secure port, while it is served: read again when its files change, or renewed
//! in time where Lookback makes it.

use crate::clock::Clock;
use crate::http::reload::on_change;
use crate::http::tls::TlsSettings;
use crate::kubernetes::certificates::{CertificateError, ServingCertificate, kept_ca_path};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How often it is looked whether a made certificate is near its end.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(3_600);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// From files that someone else keeps.
    Files {
        /// `--tls-cert-file`
        certificate: PathBuf,
        /// `--tls-private-key-file`
        key: PathBuf,
    },
    /// Made here.
    Made {
        /// Where it is kept.
        directory: PathBuf,
        /// For which names, beyond the local ones.
        names: Vec<String>,
    },
}

impl Source {
    /// The certificate for now.
    ///
    /// # Errors
    /// When there is none that could be served.
    pub fn read(&self, now_ms: i64) -> Result<ServingCertificate, CertificateError> {
        match self {
            Self::Files { certificate, key } => ServingCertificate::from_files(certificate, key, now_ms),
            Self::Made { directory, names } => ServingCertificate::self_made(directory, names, now_ms),
        }
    }

    /// Where the certificates are by which a made one is trusted.
    #[must_use]
    pub fn made_ca_path(&self) -> Option<PathBuf> {
        match self {
            Self::Files { .. } => None,
            Self::Made { directory, .. } => Some(kept_ca_path(directory)),
        }
    }

    /// Serves what there is to be served now. What can't be used is logged and changes nothing.
    pub fn serve_again(&self, tls: &TlsSettings, now_ms: i64) {
        match self.read(now_ms).map_err(|error| error.to_string()) {
            Ok(certificate) => match tls.replace(certificate) {
                Ok(true) => info!("another certificate is served from now on"),
                Ok(false) => {}
                Err(error) => warn!(%error, "the certificate stays as it was"),
            },
            Err(error) => warn!(%error, "the certificate stays as it was"),
        }
    }

    /// Serves what there is to be served from now on, for ever: looks at files, or at the clock, at this
    /// interval. What can't be used is logged and changes nothing.
    pub async fn keep(self, tls: TlsSettings, clock: Arc<dyn Clock>, interval: Duration) {
        let read_again = || self.serve_again(&tls, clock.now_ms());
        match &self {
            Self::Files { certificate, key } => {
                on_change(vec![certificate.clone(), key.clone()], interval, read_again).await;
            }
            // Reading two small files an hour holds no thread up that anyone would notice.
            Self::Made { .. } => loop {
                tokio::time::sleep(interval).await;
                read_again();
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::path::Path;

    const NOW_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

    fn leaf(tls: &TlsSettings) -> Vec<u8> {
        tls.certificate().first().expect("a leaf").to_vec()
    }

    fn ca(tls: &TlsSettings) -> Vec<u8> {
        tls.certificate().last().expect("a CA").to_vec()
    }

    async fn until_changed(tls: &TlsSettings, before: &[u8]) {
        for _ in 0..1_000 {
            if leaf(tls) != before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the certificate is still the same");
    }

    #[tokio::test]
    async fn a_made_certificate_is_renewed_while_it_is_served_by_the_same_authority() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Source::Made { directory: dir.path().to_owned(), names: Vec::new() };
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let tls = TlsSettings::new(source.read(NOW_MS).expect("made")).expect("TLS");
        let (first, authority) = (leaf(&tls), ca(&tls));
        let keeping = tokio::spawn(source.keep(tls.clone(), clock.clone(), Duration::from_millis(1)));
        clock.set_ms(NOW_MS + 340 * DAY_MS);
        until_changed(&tls, &first).await;
        assert_eq!(ca(&tls), authority);
        keeping.abort();
    }

    #[tokio::test]
    async fn files_are_read_again_and_nonsense_changes_nothing() {
        let (dir, one, two) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
        let [dir, one, two] = [dir, one, two].map(|dir| dir.expect("a directory"));
        let copy = |from: &Path| {
            ServingCertificate::self_made(from, &[], NOW_MS).expect("made");
            for name in ["serving.key", "serving.crt"] {
                std::fs::copy(from.join("certs").join(name), dir.path().join(name)).expect("copied");
            }
        };
        copy(one.path());
        let (certificate, key) = (dir.path().join("serving.crt"), dir.path().join("serving.key"));
        let source = Source::Files { certificate: certificate.clone(), key };
        let tls = TlsSettings::new(source.read(NOW_MS).expect("usable")).expect("TLS");
        let first = leaf(&tls);
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let keeping = tokio::spawn(source.keep(tls.clone(), clock, Duration::from_millis(1)));
        std::fs::write(&certificate, "junk").expect("written");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(leaf(&tls), first);
        copy(two.path());
        until_changed(&tls, &first).await;
        keeping.abort();
    }
}
