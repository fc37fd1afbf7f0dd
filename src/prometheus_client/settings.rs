//! Which server, and how it is spoken to.

use super::error::SettingsError;
use crate::text::start_of;
use axum::http::{HeaderName, HeaderValue, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Largest file with a secret or certificates, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A server, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where it is.
    pub url: ServerUrl,
    /// The files of TLS.
    pub tls: TlsFiles,
    /// As whom Lookback goes there.
    pub credentials: Option<Credentials>,
    /// Headers that go with each request; a tenant's among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields that go with each question in PromQL or about series.
    pub fields: Vec<(String, String)>,
    /// How questions are asked.
    pub verb: Verb,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// Largest answer that is read at once, in bytes.
    pub body_bytes_max: usize,
}

impl ServerSettings {
    /// Of a server without any secret: POST, 5 s to connect, answers of up to 64 MiB.
    #[must_use]
    pub fn new(url: ServerUrl) -> Self {
        Self {
            url,
            tls: TlsFiles::default(),
            credentials: None,
            headers: Vec::new(),
            fields: Vec::new(),
            verb: Verb::Post,
            connect_timeout: Duration::from_secs(5),
            body_bytes_max: 64 << 20,
        }
    }
}

/// How questions are asked where the API takes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Verb {
    /// In the URL: some proxies let nothing else through, and cut long ones off.
    #[value(name = "GET")]
    Get,
    /// In a form, of any length.
    #[default]
    #[value(name = "POST")]
    Post,
}

/// Under which part of a server a path is. Only the cluster of VictoriaMetrics makes a difference, whose API is under
/// `/select/TENANT/prometheus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The API: behind the server's URL.
    #[default]
    Api,
    /// What deletes: `/delete/TENANT/prometheus`.
    Deletes,
    /// What is of no tenant.
    Root,
}

/// Before a tenant in URLs of VictoriaMetrics' cluster.
const CLUSTER_SELECTS: &str = "/select/";
const CLUSTER_DELETES: &str = "/delete/";

/// The URL under which a server's API is: `https://host:port/prefix`, with fields of a query if need be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// `http` or `https`, the host and the port.
    origin: String,
    is_tls: bool,
    /// Without a slash at its end.
    prefix: String,
    query: Option<String>,
}

impl ServerUrl {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The URL of a path, with more fields of a query.
    ///
    /// # Errors
    /// When that is no URL.
    pub(super) fn at(&self, at: At, path: &str, query: Option<&str>) -> Result<Uri, SettingsError> {
        let (before, selects) = match self.prefix.rsplit_once(CLUSTER_SELECTS) {
            Some((before, tenant)) if !tenant.is_empty() => (before, Some(tenant)),
            _ => (self.prefix.as_str(), None),
        };
        let prefix = match (at, selects) {
            (At::Deletes, Some(tenant)) => format!("{before}{CLUSTER_DELETES}{tenant}"),
            (At::Root, Some(_)) => before.to_owned(),
            _ => self.prefix.clone(),
        };
        let mut url = format!("{}{prefix}{path}", self.origin);
        if prefix.is_empty() && path.is_empty() {
            url.push('/');
        }
        let queries = self.query.as_deref().into_iter().chain(query).filter(|query| !query.is_empty());
        let query = queries.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            url.push('?');
            url.push_str(&query);
        }
        url.parse().map_err(|error| SettingsError::Url { url: start_of(&url), reason: format!("{error}") })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

impl FromStr for ServerUrl {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| SettingsError::Url { url: start_of(text), reason: reason.to_owned() };
        let uri: Uri = text.trim().parse().map_err(|error| wrong(&format!("{error}")))?;
        let scheme = uri.scheme_str().ok_or_else(|| wrong("it names no scheme"))?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("its scheme is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(SettingsError::Url {
                url: format!("{scheme}://…@{}", authority.host()),
                reason: "a secret does not belong into a URL: put it into a file".to_owned(),
            });
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            is_tls,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

/// The files by which TLS is spoken. They are read again when a connection fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA of the server, PEM; `None`: those that the system believes.
    pub ca: Option<PathBuf>,
    /// The certificate with which Lookback goes there and its key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Those that were given. A certificate counts with its key only: flags require both.
    #[must_use]
    pub fn given(ca: Option<&PathBuf>, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Self {
        Self { ca: ca.cloned(), client: certificate.cloned().zip(key.cloned()) }
    }
}

/// As whom Lookback goes to a server. The file is read at each request, so that it may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A file with a bearer token.
    BearerFile(PathBuf),
    /// A file with `user:password`.
    BasicFile(PathBuf),
}

impl Credentials {
    /// The header `Authorization`.
    pub(super) async fn header(&self) -> Result<HeaderValue, SettingsError> {
        let (path, text) = match self {
            Self::BearerFile(path) => (path, format!("Bearer {}", secret(path).await?)),
            Self::BasicFile(path) => {
                let pair = secret(path).await?;
                if !pair.contains(':') {
                    return Err(file_error(path, &"it has to hold user:password"));
                }
                (path, format!("Basic {}", STANDARD.encode(pair)))
            }
        };
        let header = HeaderValue::from_str(&text);
        let mut header = header.map_err(|_| file_error(path, &"it holds what no header can carry"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// `Name: value` as a header.
///
/// # Errors
/// When it is none.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), SettingsError> {
    let wrong = || SettingsError::Header { header: start_of(text.split(':').next().unwrap_or_default()) };
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_str(name.trim()).map_err(|_| wrong())?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?))
}

async fn secret(path: &Path) -> Result<String, SettingsError> {
    let file = tokio::fs::File::open(path).await.map_err(|error| file_error(path, &error))?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text).await;
    read.map_err(|error| file_error(path, &error))?;
    match text.trim() {
        "" => Err(file_error(path, &"it is empty")),
        text => Ok(text.to_owned()),
    }
}

/// Reads a file of certificates or a key.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, SettingsError> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| file_error(path, &error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| file_error(path, &error))?;
    Ok(bytes)
}

pub(super) fn file_error(path: &Path, reason: &dyn fmt::Display) -> SettingsError {
    SettingsError::File { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_prefix_and_fields_of_its_own() {
        let url: ServerUrl = "https://mimir.example:8443/prometheus/?tenant=a".parse().expect("a URL");
        assert!(url.is_tls());
        assert_eq!(url.to_string(), "https://mimir.example:8443/prometheus");
        let at = |path, query| url.at(At::Api, path, query).expect("a URL").to_string();
        assert_eq!(
            at("/api/v1/query", Some("q=1")),
            "https://mimir.example:8443/prometheus/api/v1/query?tenant=a&q=1"
        );
        let plain: ServerUrl = "http://127.0.0.1:9090".parse().expect("a URL");
        assert_eq!(plain.at(At::Api, "", None).expect("a URL").to_string(), "http://127.0.0.1:9090/");
    }

    #[test]
    fn a_cluster_of_victoria_metrics_deletes_elsewhere() {
        let at = |url: &str, at, path| {
            let url: ServerUrl = url.parse().expect("a URL");
            url.at(at, path, None).expect("a URL").to_string()
        };
        let cluster = "http://vmselect:8481/select/7:1/prometheus/";
        assert_eq!(at(cluster, At::Api, "/x"), "http://vmselect:8481/select/7:1/prometheus/x");
        assert_eq!(at(cluster, At::Deletes, "/x"), "http://vmselect:8481/delete/7:1/prometheus/x");
        assert_eq!(at(cluster, At::Root, "/flags"), "http://vmselect:8481/flags");
        assert_eq!(at("http://p/vm/select/0/prometheus", At::Root, "/flags"), "http://p/vm/flags");
        for one in ["http://vm:8428", "http://p/select/"] {
            assert!(
                [At::Api, At::Deletes, At::Root].iter().all(|part| at(one, *part, "/x").starts_with(one))
            );
        }
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused_without_its_secret() {
        for text in ["", "prometheus:9090", "ftp://x", "/prometheus", "http://", "https://u:hidden@host/"] {
            let error = text.parse::<ServerUrl>().expect_err(text).to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn headers_are_name_and_value() {
        let (name, value) = parse_header("X-Scope-OrgID: team a").expect("a header");
        assert_eq!((name.as_str(), value.to_str().expect("text")), ("x-scope-orgid", "team a"));
        assert!(parse_header("no header").is_err());
        assert!(parse_header("bad name: x").is_err());
    }
}
