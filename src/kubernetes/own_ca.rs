//! The certificate authority that signs Lookback's own certificates.
//!
//! It lives ten years while the certificates that it signs are renewed each year, so that whoever
//! trusts it (an APIService's `caBundle`, `curl --cacert`) sees no change. A new one is made in time to
//! outlive whatever it signs; the file of certificates to trust then has the old one too.

use super::certificates::{CertificateError, DAY_MS, day, keep_private, replace};
use rcgen::PublicKeyData as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

const VALIDITY_DAYS: i64 = 3_653;
/// One that ends within this is replaced: longer than what it signs is valid.
const RENEWAL_DAYS: i64 = 400;

/// The authority, with its key.
pub(super) struct OwnCa {
    /// Signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(super) pem: String,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

/// An authority as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CaPems {
    /// The certificates to trust, PEM, the one that signs now first.
    pub(super) certificates: String,
    /// Its key, PEM.
    pub(super) key: String,
}

/// What a kept authority is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaState {
    /// It signs.
    Usable,
    /// It is to be replaced, and trusted until then.
    Ending,
    /// It is none.
    Damaged,
}

impl CaPems {
    pub(super) fn state(&self, now_ms: i64) -> CaState {
        let first = first_pem(&self.certificates);
        let is_usable = |at_ms| usable(&first, &self.key, at_ms).is_ok();
        // At a time long before its end whatever is whole signs.
        match (is_usable(now_ms), is_usable(2 * DAY_MS)) {
            (true, _) => CaState::Usable,
            (false, true) => CaState::Ending,
            (false, false) => CaState::Damaged,
        }
    }
}

/// Where it is kept.
pub(super) struct CaFiles {
    /// The certificates to trust, the one that signs now first.
    pub(super) certificate: PathBuf,
    key: PathBuf,
}

impl CaFiles {
    pub(super) fn of(directory: &Path) -> Self {
        Self { certificate: directory.join("ca.crt"), key: directory.join("ca.key") }
    }

    /// Whether this certificate is among those to trust.
    pub(super) fn trust(&self, certificate: &CertificateDer<'_>) -> bool {
        let pem = fs::read(&self.certificate).unwrap_or_default();
        CertificateDer::pem_slice_iter(&pem).flatten().any(|trusted| trusted == *certificate)
    }

    /// What is kept; `None`: nothing whole.
    pub(super) fn read(&self) -> Result<Option<CaPems>, CertificateError> {
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(None)
            }
            Err(source) => Err(CertificateError::Kept { path: path.to_owned(), source }),
        };
        let kept = read(&self.certificate)?.zip(read(&self.key)?);
        Ok(kept.map(|(certificates, key)| CaPems { certificates, key }))
    }

    /// Keeps this authority from now on; answers whether it is another one.
    pub(super) fn adopt(&self, pems: &CaPems) -> Result<bool, CertificateError> {
        if self.read()?.as_ref() == Some(pems) {
            return Ok(false);
        }
        self.write(pems)?;
        Ok(true)
    }

    fn write(&self, pems: &CaPems) -> Result<(), CertificateError> {
        for (path, text, mode) in
            [(&self.key, &pems.key, 0o600), (&self.certificate, &pems.certificates, 0o644)]
        {
            replace(path, text.as_bytes(), mode)
                .map_err(|source| CertificateError::Kept { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// The kept one, or a new one where there is none that will do.
    pub(super) fn load_or_make(&self, now_ms: i64) -> Result<OwnCa, CertificateError> {
        let mut trusted = String::new();
        if let Some(CaPems { certificates, key }) = self.read()? {
            keep_private(&self.key)
                .map_err(|source| CertificateError::Kept { path: self.key.clone(), source })?;
            let first = first_pem(&certificates);
            match usable(&first, &key, now_ms) {
                Ok(issuer) => return Ok(OwnCa { issuer, pem: first, is_new: false }),
                Err(reason) => {
                    warn!(%reason, file = %self.certificate.display(), "making a new certificate authority");
                    trusted = first;
                }
            }
        } else {
            info!(file = %self.certificate.display(), "making a certificate authority");
        }
        let made = make(now_ms)?;
        let certificates = format!("{}{trusted}", made.pem);
        self.write(&CaPems { certificates, key: made.issuer.key().serialize_pem() })?;
        Ok(made)
    }
}

/// The first certificate of a PEM file, as text.
fn first_pem(text: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----\n";
    text.find(END).and_then(|at| text.get(..at + END.len())).unwrap_or_default().to_owned()
}

fn usable(pem: &str, key_pem: &str, now_ms: i64) -> Result<Issuer<'static, KeyPair>, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| format!("not PEM: {error}"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| format!("not X.509: {error}"))?;
    let end_ms = certificate.validity().not_after.timestamp().saturating_mul(1_000);
    if end_ms < now_ms.saturating_add(RENEWAL_DAYS * DAY_MS) {
        return Err(format!("the kept one ends within {RENEWAL_DAYS} days"));
    }
    let key = KeyPair::from_pem(key_pem).map_err(|error| format!("its key: {error}"))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("its key does not fit it".to_owned());
    }
    let params = params(now_ms).map_err(|error| error.to_string())?;
    Ok(Issuer::new(params, key))
}

/// The same for ever but for the times: what is signed names the authority by these and by its key.
fn params(now_ms: i64) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "lookback CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ((y, m, d), (end_y, end_m, end_d)) = (day(now_ms, -1)?, day(now_ms, VALIDITY_DAYS)?);
    params.not_before = rcgen::date_time_ymd(y, m, d);
    params.not_after = rcgen::date_time_ymd(end_y, end_m, end_d);
    Ok(params)
}

fn make(now_ms: i64) -> Result<OwnCa, CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Made {
        names: vec!["lookback CA".to_owned()],
        reason: error.to_string(),
    };
    let params = params(now_ms)?;
    let key = KeyPair::generate().map_err(failed)?;
    let pem = params.self_signed(&key).map_err(failed)?.pem();
    Ok(OwnCa { issuer: Issuer::new(params, key), pem, is_new: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn it_is_kept_and_replaced_in_time_beside_the_old_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = CaFiles::of(dir.path());
        let first = files.load_or_make(NOW_MS).expect("made").pem;
        let year_ms = 365 * DAY_MS;
        assert_eq!(files.load_or_make(NOW_MS + 8 * year_ms).expect("kept").pem, first);
        let second = files.load_or_make(NOW_MS + 9 * year_ms).expect("made").pem;
        assert_ne!(second, first);
        let trusted = fs::read_to_string(&files.certificate).expect("read");
        assert_eq!(trusted, format!("{second}{first}"));
    }

    #[test]
    fn a_damaged_one_is_replaced() {
        for file in ["ca.crt", "ca.key"] {
            let dir = tempfile::tempdir().expect("a directory");
            let files = CaFiles::of(dir.path());
            let first = files.load_or_make(NOW_MS).expect("made").pem;
            fs::write(dir.path().join(file), b"\xff junk").expect("written");
            assert_ne!(files.load_or_make(NOW_MS).expect("made").pem, first, "{file}");
        }
    }
}
