//! TLS to a server: whom it is believed to be, and as whom Lookback goes there.

use super::error::SettingsError;
use super::settings::{TlsFiles, file_error, read_file};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Reads the files. Blocks.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| file_error(path, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| SettingsError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(wrong)?.with_root_certificates(roots);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let pem = read_file(key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| file_error(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(wrong)
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = read_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates.map_err(|error| file_error(path, &error))? {
        none if none.is_empty() => Err(file_error(path, &"there is no certificate in it")),
        certificates => Ok(certificates),
    }
}
