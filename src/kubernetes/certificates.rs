//! The certificate that the secure port shows: given as files, or made here at first start.
//!
//! A made one lives in the data directory's `certs/`: `serving.crt` (with the certificate of the
//! authority that signed it, `own_ca`) and `serving.key` (readable by its owner only). It is kept
//! from start to start, and replaced, also while it is served, when it is near its end, damaged, or
//! without a name that it should have. `ca.crt` beside it is what to trust: `curl --cacert`, or an
//! APIService's `caBundle`.

use super::own_ca::{CaFiles, OwnCa};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The cryptography of every TLS connection and certificate check here.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long a made certificate is valid.
const VALIDITY_DAYS: i64 = 365;
/// A made certificate that ends within this is replaced.
const RENEWAL_DAYS: i64 = 30;
/// Names that every made certificate has.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no certificate to serve with. Each names the file and what to do.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A given file is not usable.
    #[error("{flag} {path}: {reason}")]
    Given {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A made certificate's file can't be read or written.
    #[error(
        "{path}: {source}: make it readable and writable for this user, or give a certificate with \
         --tls-cert-file and --tls-private-key-file, or turn the secure port off with --secure-port 0"
    )]
    Kept {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate can't be made.
    #[error("can't make a serving certificate for {names:?}: {reason}")]
    Made {
        /// The names it should have.
        names: Vec<String>,
        /// Why.
        reason: String,
    },
}

/// A certificate with its key.
pub struct ServingCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCertificate").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl ServingCertificate {
    /// From `--tls-cert-file` (leaf first) and `--tls-private-key-file`, both PEM.
    pub fn from_files(
        certificate_file: &Path,
        key_file: &Path,
        now_ms: i64,
    ) -> Result<Self, CertificateError> {
        let of_certificate = |reason| CertificateError::Given {
            flag: "--tls-cert-file",
            path: certificate_file.to_owned(),
            reason,
        };
        let of_key = |reason| CertificateError::Given {
            flag: "--tls-private-key-file",
            path: key_file.to_owned(),
            reason,
        };
        let certificate_pem =
            fs::read(certificate_file).map_err(|error| of_certificate(error.to_string()))?;
        let key_pem = fs::read(key_file).map_err(|error| of_key(error.to_string()))?;
        let chain = parse_chain(&certificate_pem).map_err(of_certificate)?;
        let key = parse_key(&key_pem).map_err(of_key)?;
        let certificate = Self { chain, key };
        certificate
            .check_key()
            .map_err(|reason| of_key(format!("{reason} ({})", certificate_file.display())))?;
        match certificate.expires_ms() {
            Some(end_ms) if end_ms > now_ms => {}
            Some(_) => {
                warn!(file = %certificate_file.display(), "the serving certificate has expired: callers will refuse it")
            }
            None => return Err(of_certificate("its first certificate is not X.509".to_owned())),
        }
        Ok(certificate)
    }

    /// The one kept in `data_dir/certs`, or a new one where there is none that will do. `names` are
    /// DNS names or addresses beyond the local ones, such as `lookback.monitoring.svc`.
    pub fn self_made(data_dir: &Path, names: &[String], now_ms: i64) -> Result<Self, CertificateError> {
        let files = KeptFiles::of(data_dir);
        let names: BTreeSet<String> =
            LOCAL_NAMES.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
        match files.read()? {
            Some((certificate_pem, key_pem)) => match usable(&certificate_pem, &key_pem, &names, now_ms)
                .and_then(|certificate| trusted(certificate, &CaFiles::of(&files.directory)))
            {
                Ok(certificate) => return Ok(certificate),
                Err(reason) => {
                    warn!(%reason, file = %files.certificate.display(), "making a new serving certificate");
                }
            },
            None => info!(file = %files.certificate.display(), "making a serving certificate"),
        }
        files.make_directory()?;
        let ca = CaFiles::of(&files.directory).load_or_make(now_ms)?;
        let (certificate_pem, key_pem) = make(&names, &ca, now_ms)?;
        files.write(&certificate_pem, &key_pem)?;
        usable(certificate_pem.as_bytes(), key_pem.as_bytes(), &names, now_ms)
            .map_err(|reason| CertificateError::Made { names: names.into_iter().collect(), reason })
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The last of them: of a made one, the authority's, which is what to trust.
    #[must_use]
    pub fn ca(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    pub(crate) fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }

    fn check_key(&self) -> Result<(), String> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &crypto_provider())
            .map(drop)
            .map_err(|error| format!("does not fit the certificate: {error}"))
    }

    fn expires_ms(&self) -> Option<i64> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first()?).ok()?;
        leaf.validity().not_after.timestamp().checked_mul(1_000)
    }

    /// DNS names and addresses that the leaf is for.
    fn names(&self) -> Option<BTreeSet<String>> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let alternatives = leaf.subject_alternative_name().ok()??;
        let name = |general: &GeneralName<'_>| match general {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        };
        Some(alternatives.value.general_names.iter().filter_map(name).collect())
    }
}

/// The path of the certificates by which those of [`ServingCertificate::self_made`] are trusted, PEM.
#[must_use]
pub fn kept_ca_path(data_dir: &Path) -> PathBuf {
    CaFiles::of(&KeptFiles::of(data_dir).directory).certificate
}

/// The files of the authority that signs those of [`ServingCertificate::self_made`], in a directory that is there.
pub(super) fn ca_files(data_dir: &Path) -> Result<CaFiles, CertificateError> {
    let files = KeptFiles::of(data_dir);
    files.make_directory()?;
    Ok(CaFiles::of(&files.directory))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if chain.is_empty() {
        return Err(
            "no CERTIFICATE in it: give the certificate in PEM, followed by its intermediates".to_owned()
        );
    }
    Ok(chain)
}

fn parse_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("no private key in it: {error}: give one in PEM, without a passphrase"))
}

/// A kept certificate, if it can still be served.
fn usable(
    certificate_pem: &[u8],
    key_pem: &[u8],
    names: &BTreeSet<String>,
    now_ms: i64,
) -> Result<ServingCertificate, String> {
    let certificate = ServingCertificate { chain: parse_chain(certificate_pem)?, key: parse_key(key_pem)? };
    certificate.check_key()?;
    if certificate.chain.len() < 2 {
        return Err("the kept one is not signed by an authority of its own".to_owned());
    }
    let end_ms = certificate.expires_ms().ok_or("the kept one is not X.509")?;
    if end_ms < now_ms.saturating_add(RENEWAL_DAYS * DAY_MS) {
        return Err(format!("the kept one ends within {RENEWAL_DAYS} days"));
    }
    let has = certificate.names().unwrap_or_default();
    if let Some(missing) = names.iter().find(|name| !has.contains(*name)) {
        return Err(format!("the kept one is not for {missing}"));
    }
    Ok(certificate)
}

/// A kept certificate whose authority's is kept beside it, for others to trust.
fn trusted(certificate: ServingCertificate, ca: &CaFiles) -> Result<ServingCertificate, String> {
    match certificate.ca() {
        Some(authority) if ca.trust(authority) => Ok(certificate),
        _ => Err(format!("{} does not have the authority of the kept one", ca.certificate.display())),
    }
}

/// A day from now: year, month, day.
pub(super) fn day(now_ms: i64, days: i64) -> Result<(i32, u8, u8), CertificateError> {
    let failed = |reason: String| CertificateError::Made { names: Vec::new(), reason };
    let ms = now_ms.saturating_add(days * DAY_MS);
    let date = jiff::Timestamp::from_millisecond(ms).map_err(|error| failed(error.to_string()))?;
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).date();
    let [month, day] = [date.month(), date.day()].map(|part| u8::try_from(part).unwrap_or(1));
    Ok((date.year().into(), month, day))
}

/// A certificate, followed by its authority's, and its key, PEM.
fn make(names: &BTreeSet<String>, ca: &OwnCa, now_ms: i64) -> Result<(String, String), CertificateError> {
    let failed = |reason: String| CertificateError::Made { names: names.iter().cloned().collect(), reason };
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())
        .map_err(|error| failed(error.to_string()))?;
    // A caller's clock may be behind.
    let ((y, m, d), (end_y, end_m, end_d)) = (day(now_ms, -1)?, day(now_ms, VALIDITY_DAYS)?);
    params.not_before = rcgen::date_time_ymd(y, m, d);
    params.not_after = rcgen::date_time_ymd(end_y, end_m, end_d);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "lookback");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
    let certificate = params.signed_by(&key, &ca.issuer).map_err(|error| failed(error.to_string()))?;
    Ok((format!("{}{}", certificate.pem(), ca.pem), key.serialize_pem()))
}

/// A certificate and its key, PEM.
type Pems = (Vec<u8>, Vec<u8>);

/// Where a made certificate is kept.
struct KeptFiles {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl KeptFiles {
    fn of(data_dir: &Path) -> Self {
        let directory = data_dir.join("certs");
        Self { certificate: directory.join("serving.crt"), key: directory.join("serving.key"), directory }
    }

    /// Certificate and key; `None`: one of them is not there yet.
    fn read(&self) -> Result<Option<Pems>, CertificateError> {
        let read = |path: &Path| match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CertificateError::Kept { path: path.to_owned(), source }),
        };
        let kept = read(&self.certificate)?.zip(read(&self.key)?);
        if kept.is_some() {
            keep_private(&self.key)
                .map_err(|source| CertificateError::Kept { path: self.key.clone(), source })?;
        }
        Ok(kept)
    }

    fn make_directory(&self) -> Result<(), CertificateError> {
        let failed = |source| CertificateError::Kept { path: self.directory.clone(), source };
        fs::create_dir_all(&self.directory).map_err(failed)
    }

    /// Durable when it returns. A crash in between leaves a key that does not fit its certificate,
    /// which the next start replaces.
    fn write(&self, certificate_pem: &str, key_pem: &str) -> Result<(), CertificateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::Kept { path, source }
        };
        replace(&self.key, key_pem.as_bytes(), 0o600).map_err(at(&self.key))?;
        replace(&self.certificate, certificate_pem.as_bytes(), 0o644).map_err(at(&self.certificate))?;
        let parent = self.directory.parent().unwrap_or(&self.directory);
        for directory in [&self.directory, parent] {
            File::open(directory).and_then(|d| d.sync_all()).map_err(at(directory))?;
        }
        Ok(())
    }
}

/// Takes the key away from everyone but its owner, should it have been copied with other rights.
pub(super) fn keep_private(key: &Path) -> io::Result<()> {
    if fs::metadata(key)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    warn!(file = %key.display(), "the key could be read by others: now it can't");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))
}

/// Puts a file in place, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn service() -> Vec<String> {
        vec!["lookback.monitoring.svc".to_owned()]
    }

    fn made(data_dir: &Path, now_ms: i64) -> Vec<u8> {
        let made = ServingCertificate::self_made(data_dir, &service(), now_ms).expect("a certificate");
        made.chain()[0].to_vec()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("the file").permissions().mode() & 0o777
    }

    #[test]
    fn a_made_certificate_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = made(dir.path(), NOW_MS);
        assert_eq!(mode(&dir.path().join("certs/serving.key")), 0o600);
        assert_eq!(made(dir.path(), NOW_MS + 300 * DAY_MS), first);
        assert_eq!(fs::read_dir(dir.path().join("certs")).expect("the directory").count(), 4);
    }

    #[test]
    fn it_is_for_local_and_given_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = ServingCertificate::self_made(dir.path(), &service(), NOW_MS).expect("a certificate");
        let names = made.names().expect("names");
        let expected = ["127.0.0.1", "::1", "localhost", "lookback.monitoring.svc"];
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn it_is_replaced_near_its_end_and_after() {
        for days in [VALIDITY_DAYS - RENEWAL_DAYS + 1, VALIDITY_DAYS + 1] {
            let dir = tempfile::tempdir().expect("a directory");
            let first = made(dir.path(), NOW_MS);
            assert_ne!(made(dir.path(), NOW_MS + days * DAY_MS), first, "{days}");
        }
    }

    #[test]
    fn it_is_replaced_when_a_name_is_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = made(dir.path(), NOW_MS);
        let more = [service(), vec!["other.svc".to_owned()]].concat();
        let second = ServingCertificate::self_made(dir.path(), &more, NOW_MS).expect("a certificate");
        assert_ne!(second.chain()[0].to_vec(), first);
    }

    #[test]
    fn it_is_replaced_when_damaged() {
        for file in ["serving.key", "serving.crt", "ca.crt"] {
            let dir = tempfile::tempdir().expect("a directory");
            let first = made(dir.path(), NOW_MS);
            let path = dir.path().join("certs").join(file);
            let whole = fs::read(&path).expect("the file");
            fs::write(&path, &whole[..whole.len() / 2]).expect("written");
            assert_ne!(made(dir.path(), NOW_MS), first, "{file}");
        }
        // A crash between the two files.
        let (one, two) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let first = made(one.path(), NOW_MS);
        made(two.path(), NOW_MS);
        fs::copy(two.path().join("certs/serving.key"), one.path().join("certs/serving.key")).expect("copied");
        assert_ne!(made(one.path(), NOW_MS), first);
    }

    #[test]
    fn a_kept_key_is_taken_from_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = made(dir.path(), NOW_MS);
        let key = dir.path().join("certs/serving.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permitted");
        assert_eq!(made(dir.path(), NOW_MS), first);
        assert_eq!(mode(&key), 0o600);
    }

    #[test]
    fn given_files_are_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        made(dir.path(), NOW_MS);
        let (crt, key) = (dir.path().join("certs/serving.crt"), dir.path().join("certs/serving.key"));
        ServingCertificate::from_files(&crt, &key, NOW_MS).expect("usable");
        let error = |crt: &Path, key: &Path| {
            ServingCertificate::from_files(crt, key, NOW_MS).expect_err("refused").to_string()
        };
        let absent = dir.path().join("absent");
        assert!(
            error(&absent, &key).starts_with("--tls-cert-file") && error(&absent, &key).contains("absent")
        );
        assert!(error(&crt, &absent).starts_with("--tls-private-key-file"));
        assert!(error(&key, &key).contains("no CERTIFICATE in it"), "{}", error(&key, &key));
        assert!(error(&crt, &crt).contains("no private key in it"), "{}", error(&crt, &crt));
        let other = tempfile::tempdir().expect("a directory");
        made(other.path(), NOW_MS);
        let other_key = other.path().join("certs/serving.key");
        assert!(error(&crt, &other_key).contains("does not fit"), "{}", error(&crt, &other_key));
    }

    #[test]
    fn an_impossible_name_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let error =
            ServingCertificate::self_made(dir.path(), &["ü".to_owned()], NOW_MS).expect_err("refused");
        assert!(error.to_string().contains('ü'), "{error}");
    }
}
