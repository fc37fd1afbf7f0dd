//! Client certificates: which authority signed them, and whom they name.
//!
//! Two authorities count on the secure port: that of front proxies ([`super::identity`]) and that of
//! users ([`ClientCa`]: the common name is the user, each organisation a group). The rules are those of
//! `k8s.io/apiserver/pkg/authentication/request/x509`.

use crate::kubernetes::certificates::crypto_provider;
use crate::kubernetes::user::Identity;
use moka::sync::Cache;
use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// Certificates by which client certificates are verified.
#[derive(Debug)]
pub struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Chains that were verified, by their digest: a signature is not verified anew at each request of a
    /// connection, nor what it signs read.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

/// What a verified chain says.
#[derive(Debug)]
pub struct Verified {
    /// The time within which all of its certificates are valid.
    validity: Validity,
    /// The leaf's common name, where there is exactly one: with several, which one counts differs by reader.
    pub common_name: Option<String>,
    /// The leaf's organisations that are text.
    pub organisations: Vec<String>,
}

impl Verified {
    /// `None`: a certificate can't be read.
    fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let text = |name: &AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
        let mut names = leaf.subject().iter_common_name();
        let common_name = names.next().and_then(text).filter(|_| names.next().is_none());
        let organisations = leaf.subject().iter_organization().filter_map(text).collect();
        Some(Self { validity: validity_of(chain)?, common_name, organisations })
    }
}

/// Most chains that are remembered as verified, and for how long.
const VERIFIED_MAX: u64 = 1_000;
const VERIFIED_FOR: Duration = Duration::from_secs(600);

/// From when until when, Unix milliseconds.
type Validity = RangeInclusive<i64>;

impl Authority {
    /// Of at least one certificate in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("no certificate in it".to_owned());
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), crypto_provider())
            .build()
            .map_err(|error| error.to_string())?;
        let verified = Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_FOR).build();
        Ok(Self { verifier, verified })
    }

    /// Verifies a chain, leaf first, at a time; gives what it says.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now_ms: i64) -> Result<Arc<Verified>, String> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Err("none was sent".to_owned()) };
        let key = digest_of(chain);
        if let Some(verified) = self.verified.get(&key).filter(|known| known.validity.contains(&now_ms)) {
            return Ok(verified);
        }
        let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(now))
            .map_err(|error| error.to_string())?;
        let verified = Arc::new(Verified::of(chain).ok_or("it can't be read")?);
        self.verified.insert(key, verified.clone());
        Ok(verified)
    }
}

fn digest_of(chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_le_bytes());
        context.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// When all certificates of a chain are valid.
fn validity_of(chain: &[CertificateDer<'_>]) -> Option<Validity> {
    let (mut from_ms, mut to_ms) = (i64::MIN, i64::MAX);
    for certificate in chain {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        from_ms = from_ms.max(validity.not_before.timestamp().checked_mul(1_000)?);
        to_ms = to_ms.min(validity.not_after.timestamp().checked_mul(1_000)?);
    }
    Some(from_ms..=to_ms)
}

/// Believes what the certificates of users say.
#[derive(Debug)]
pub struct ClientCa(Authority);

impl ClientCa {
    /// Of at least one certificate in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        Authority::of_pem(pem).map(Self)
    }

    /// The user of a client certificate, leaf first.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now_ms: i64) -> Result<Identity, String> {
        let verified = self.0.verify(chain, now_ms)?;
        let user = verified.common_name.clone().filter(|name| !name.is_empty());
        let user = user.ok_or("it names no user: it needs exactly one common name")?;
        let groups = verified.organisations.clone();
        Ok(Identity { user, groups, ..Identity::default() }.authenticated())
    }
}
