//! Who a request is from, where a front proxy says so: kube-apiserver's aggregator authenticates the
//! user and passes the name on in headers.
//!
//! invariant: those headers count only on a connection whose client certificate is signed by the
//! requestheader CA and carries an allowed common name; in any other request they are taken out
//! unread. The certificate is verified at each request, so that one that expires on an open
//! connection stops counting.
//!
//! The rules are those of `k8s.io/apiserver/pkg/authentication/request/headerrequest`.

pub use crate::kubernetes::user::{ANONYMOUS, Identity};

use super::client_certificate::Authority;
use axum::http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use thiserror::Error;

/// Which front proxies to believe, and in which headers they speak. The names are those of
/// kube-apiserver's flags and of ConfigMap `kube-system/extension-apiserver-authentication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxySettings {
    /// `--requestheader-client-ca-file`: the CA of the front proxies' certificates, PEM.
    pub requestheader_client_ca_file: PathBuf,
    /// `--requestheader-allowed-names`: the common names that a front proxy may have; none: any.
    pub requestheader_allowed_names: Vec<String>,
    /// `--requestheader-username-headers`: the user is in the first of these that has a value.
    pub requestheader_username_headers: Vec<String>,
    /// `--requestheader-uid-headers`: so is the user's UID.
    pub requestheader_uid_headers: Vec<String>,
    /// `--requestheader-group-headers`: all values of all of these are the user's groups.
    pub requestheader_group_headers: Vec<String>,
    /// `--requestheader-extra-headers-prefix`: headers that begin so are the user's extras.
    pub requestheader_extra_headers_prefix: Vec<String>,
}

impl FrontProxySettings {
    /// With this CA, any common name, and the header names that kube-apiserver sends by default.
    pub fn new(requestheader_client_ca_file: impl Into<PathBuf>) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            requestheader_client_ca_file: requestheader_client_ca_file.into(),
            requestheader_allowed_names: Vec::new(),
            requestheader_username_headers: one("X-Remote-User"),
            requestheader_uid_headers: one("X-Remote-Uid"),
            requestheader_group_headers: one("X-Remote-Group"),
            requestheader_extra_headers_prefix: one("X-Remote-Extra-"),
        }
    }
}

/// Why the settings can't be used. Each says what to do.
#[derive(Debug, Error)]
pub enum FrontProxyError {
    /// The CA file can't be read, or is not PEM.
    #[error("--requestheader-client-ca-file {path}: {reason}: give a PEM file with at least one CERTIFICATE")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A header name that no header can have.
    #[error("{flag}: {name:?} is no header name: give for example {example}")]
    HeaderName {
        /// The flag it comes from.
        flag: &'static str,
        /// The name.
        name: String,
        /// One that would do.
        example: &'static str,
    },
}

/// Why a request has no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unidentified {
    /// The certificate does not come from the requestheader CA, or is not valid now.
    #[error("the client certificate is not a front proxy's: {0}")]
    Certificate(String),
    /// The certificate has another common name than the allowed ones.
    #[error("the client certificate's common name is not an allowed front proxy's")]
    CommonName,
    /// The front proxy named no user.
    #[error("the front proxy named no user: it sends one in {0}")]
    NoUser(String),
    /// A header that is no text.
    #[error("the front proxy's header {0} is not UTF-8")]
    NotText(HeaderName),
}

/// Believes front proxies.
#[derive(Debug)]
pub struct FrontProxy {
    authority: Authority,
    allowed_names: BTreeSet<String>,
    headers: IdentityHeaders,
}

impl FrontProxy {
    /// Reads the CA file.
    pub fn new(settings: &FrontProxySettings) -> Result<Self, FrontProxyError> {
        let path = &settings.requestheader_client_ca_file;
        let invalid = |reason: String| FrontProxyError::CaFile { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
        Self::of_pem(&pem, settings)
    }

    /// With this CA in PEM in place of the file's content, which is not read.
    pub fn of_pem(pem: &[u8], settings: &FrontProxySettings) -> Result<Self, FrontProxyError> {
        let path = &settings.requestheader_client_ca_file;
        let invalid = |reason: String| FrontProxyError::CaFile { path: path.clone(), reason };
        let authority = Authority::of_pem(pem).map_err(invalid)?;
        let allowed_names = settings.requestheader_allowed_names.iter().cloned().collect();
        Ok(Self { authority, allowed_names, headers: IdentityHeaders::new(settings)? })
    }

    /// Who the request is from, on a connection with this client certificate, leaf first.
    pub fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        headers: &HeaderMap,
        now_ms: i64,
    ) -> Result<Identity, Unidentified> {
        self.verify(chain, now_ms)?;
        self.headers.read(headers)
    }

    /// Takes the identity headers out, so that nothing behind can believe them.
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.headers.strip(headers);
    }

    fn verify(&self, chain: &[CertificateDer<'_>], now_ms: i64) -> Result<(), Unidentified> {
        let verified = self.authority.verify(chain, now_ms).map_err(Unidentified::Certificate)?;
        if self.allowed_names.is_empty() {
            return Ok(());
        }
        match &verified.common_name {
            Some(name) if self.allowed_names.contains(name) => Ok(()),
            _ => Err(Unidentified::CommonName),
        }
    }
}

/// The headers in which a front proxy speaks.
#[derive(Debug)]
struct IdentityHeaders {
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// Lower case, as header names are kept.
    extra_prefixes: Vec<String>,
}

impl IdentityHeaders {
    fn new(settings: &FrontProxySettings) -> Result<Self, FrontProxyError> {
        let parse = |flag, names: &[String], example| {
            names
                .iter()
                .map(|name| {
                    HeaderName::try_from(name.trim()).map_err(|_| FrontProxyError::HeaderName {
                        flag,
                        name: name.clone(),
                        example,
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let prefixes = parse(
            "--requestheader-extra-headers-prefix",
            &settings.requestheader_extra_headers_prefix,
            "X-Remote-Extra-",
        )?;
        let user = parse(
            "--requestheader-username-headers",
            &settings.requestheader_username_headers,
            "X-Remote-User",
        )?;
        if user.is_empty() {
            return Err(FrontProxyError::HeaderName {
                flag: "--requestheader-username-headers",
                name: String::new(),
                example: "X-Remote-User",
            });
        }
        Ok(Self {
            user,
            uid: parse("--requestheader-uid-headers", &settings.requestheader_uid_headers, "X-Remote-Uid")?,
            groups: parse(
                "--requestheader-group-headers",
                &settings.requestheader_group_headers,
                "X-Remote-Group",
            )?,
            extra_prefixes: prefixes.into_iter().map(|name| name.as_str().to_owned()).collect(),
        })
    }

    fn read(&self, headers: &HeaderMap) -> Result<Identity, Unidentified> {
        let Some(user) = first(headers, &self.user)? else {
            let names: Vec<&str> = self.user.iter().map(HeaderName::as_str).collect();
            return Err(Unidentified::NoUser(names.join(", ")));
        };
        let mut groups = Vec::new();
        for name in &self.groups {
            for value in headers.get_all(name) {
                groups.push(text(name, value.as_bytes())?.to_owned());
            }
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let Some(key) = self.extra_key(name) else { continue };
            extra.entry(key).or_default().push(text(name, value.as_bytes())?.to_owned());
        }
        // The aggregator passes anonymous users on too, and some of its own requests without a group.
        Ok(Identity { user, uid: first(headers, &self.uid)?, groups, extra }.authenticated())
    }

    /// The key of an extra, which is percent-encoded where it is no header name; `None`: not an extra.
    fn extra_key(&self, name: &HeaderName) -> Option<String> {
        let key =
            self.extra_prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))?;
        // What does not decode to text stands for itself, as in kube-apiserver's library.
        let decoded = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), Into::into);
        Some(decoded.to_lowercase())
    }

    fn strip(&self, headers: &mut HeaderMap) {
        let extras: Vec<HeaderName> =
            headers.keys().filter(|n| self.extra_key(n).is_some()).cloned().collect();
        for name in self.user.iter().chain(&self.uid).chain(&self.groups).chain(&extras) {
            headers.remove(name);
        }
    }
}

/// Takes out whatever looks like an identity header, where no front proxy is believed.
pub fn strip_default_headers(headers: &mut HeaderMap) {
    let identity: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in identity {
        headers.remove(name);
    }
}

fn first(headers: &HeaderMap, names: &[HeaderName]) -> Result<Option<String>, Unidentified> {
    for name in names {
        if let Some(value) = headers.get(name).filter(|value| !value.is_empty()) {
            return Ok(Some(text(name, value.as_bytes())?.to_owned()));
        }
    }
    Ok(None)
}

fn text<'v>(name: &HeaderName, value: &'v [u8]) -> Result<&'v str, Unidentified> {
    std::str::from_utf8(value).map_err(|_| Unidentified::NotText(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn refused(change: impl FnOnce(&mut FrontProxySettings, &Path)) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let key = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate");
        let ca_file = dir.path().join("ca.crt");
        std::fs::write(&ca_file, key.cert.pem()).expect("written");
        let mut settings = FrontProxySettings::new(ca_file);
        FrontProxy::new(&settings).expect("usable before the change");
        change(&mut settings, dir.path());
        FrontProxy::new(&settings).expect_err("refused").to_string()
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        for contents in [&b""[..], b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let error = refused(|settings, _| {
                std::fs::write(&settings.requestheader_client_ca_file, contents).expect("written");
            });
            assert!(error.contains("--requestheader-client-ca-file") && error.contains("ca.crt"), "{error}");
        }
        let error = refused(|settings, dir| settings.requestheader_client_ca_file = dir.join("absent"));
        assert!(error.contains("absent"), "{error}");
    }

    #[test]
    fn a_header_name_that_can_not_be_is_named_with_its_flag() {
        let error = refused(|settings, _| settings.requestheader_group_headers = vec!["X Group".to_owned()]);
        assert!(error.contains("--requestheader-group-headers: \"X Group\""), "{error}");
        let error = refused(|settings, _| settings.requestheader_extra_headers_prefix = vec![String::new()]);
        assert!(error.contains("--requestheader-extra-headers-prefix"), "{error}");
        let error = refused(|settings, _| settings.requestheader_username_headers.clear());
        assert!(error.contains("--requestheader-username-headers"), "{error}");
    }
}
