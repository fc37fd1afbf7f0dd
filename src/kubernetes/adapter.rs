//! Another server of the metrics APIs, as its clients see it: the adapter that was there before.
//!
//! Lookback asks one for metrics that it does not know (`--delegate-custom-metrics`), and `lookback shadow`
//! compares two. Every answer is bounded in time and bytes, and is read before anyone believes it.
//!
//! On the way there Lookback is a client like any other: it verifies the server's certificate and shows a
//! bearer token, which the adapter has reviewed by kube-apiserver. The front proxy's certificate, by which
//! an aggregator speaks for its users, is the aggregator's alone; so the adapter sees Lookback's own
//! ServiceAccount, and Lookback has authorised the user before.

mod usage;
mod versions;

pub use self::usage::{PodUsage, used};

use self::versions::Lacked;
use super::cluster::reasons;
use super::quantity::Quantity;
use super::served::GroupVersion;
use crate::text;
use axum::http::{HeaderName, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;

/// Most bytes of one answer.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Most characters of an error's text that are repeated.
const MESSAGE_CHARS_MAX: usize = 300;
/// Most questions to one adapter at a time; more wait, within their time.
const AT_ONCE_MAX: usize = 16;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Says that the question comes from a Lookback that does not know the metric: whoever is asked so delegates
/// no further, so that two that point at each other do not ask in circles.
pub const DELEGATED: HeaderName = HeaderName::from_static("x-lookback-delegated");

/// Where an adapter is: `NAMESPACE/SERVICE[:PORT]`, or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterAddress {
    /// As people call it.
    pub name: String,
    /// Where it is asked.
    pub url: String,
    /// Whether it is a Service of the cluster.
    pub is_service: bool,
}

impl FromStr for AdapterAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use NAMESPACE/SERVICE[:PORT], or https://HOST[:PORT]".to_owned();
        if text.contains("://") {
            let url = text.trim_end_matches('/');
            let uri: axum::http::Uri = url.parse().map_err(|_| wrong())?;
            let host = uri.host().filter(|_| uri.path() == "/" && uri.query().is_none()).ok_or_else(wrong)?;
            let is_loopback = host == "localhost"
                || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
            return match uri.scheme_str() {
                Some("https") => Ok(()),
                Some("http") if is_loopback => Ok(()),
                Some("http") => Err("use https: only on this machine may a token go over http".to_owned()),
                _ => Err(wrong()),
            }
            .map(|()| Self { name: url.to_owned(), url: url.to_owned(), is_service: false });
        }
        let (namespace, service) = text.split_once('/').ok_or_else(wrong)?;
        let (service, port) = service.split_once(':').unwrap_or((service, "443"));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let is_name = |name: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !name.is_empty() && name.bytes().all(plain)
        };
        if !is_name(namespace) || !is_name(service) {
            return Err(wrong());
        }
        let url = format!("https://{service}.{namespace}.svc:{port}");
        Ok(Self { name: format!("{namespace}/{service}"), url, is_service: true })
    }
}

/// By what an adapter is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterSettings {
    /// Where it is.
    pub address: AdapterAddress,
    /// The CA of its certificate, PEM; read again when it changes.
    pub ca_file: Option<PathBuf>,
    /// The bearer token to show, read again each minute; `None`: none is shown.
    pub token_file: Option<PathBuf>,
    /// The name in its certificate; `None`: that of the address.
    pub server_name: Option<String>,
    /// How long an answer may take, all in all.
    pub timeout: Duration,
}

/// Why an adapter can't be asked by these settings. Each says what to do.
#[derive(Debug, Error)]
pub enum AdapterSettingsError {
    /// Nothing says whose certificates are believed.
    #[error("nothing says by which CA the certificate of {0} is verified: give its file, PEM")]
    NoCa(String),
    /// A file that can't be used.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Anything else.
    #[error("{name} can't be asked: {reason}")]
    Client {
        /// Which adapter.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Why an adapter gave no values. To be read after its name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AdapterError {
    /// It answers with another status than 200.
    #[error("answers {code}: {message}")]
    Status {
        /// The status.
        code: u16,
        /// Its own words.
        message: String,
    },
    /// It takes too long.
    #[error("does not answer within {0:?}")]
    Slow(Duration),
    /// There is no connection, or it breaks off.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// The answer is too large.
    #[error("answers with more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer is not what it should be.
    #[error("answers with something else than was asked for: {0}")]
    Invalid(String),
}

impl AdapterError {
    /// In a word, for a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Status { code: 404, .. } => "unknown",
            Self::Status { code: 401 | 403, .. } => "refused",
            Self::Status { .. } => "failed",
            Self::Slow(_) => "slow",
            Self::Unreachable(_) => "unreachable",
            Self::TooLarge => "too_large",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The object that it describes; `None`: of an external metric.
    pub object: Option<String>,
    /// The value.
    pub value: f64,
    /// The time of the sample, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
}

/// An answer, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterValues {
    /// As it came.
    pub body: Bytes,
    /// What is in it.
    pub items: Vec<Item>,
}

/// One entry of its discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `pods/rps`; of external metrics the metric's name.
    pub name: String,
    /// Whether the objects lie in namespaces.
    pub namespaced: bool,
}

/// An adapter.
pub struct Adapter {
    name: String,
    client: Client,
    timeout: Duration,
    slots: Semaphore,
    lacked: Lacked,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Adapter {
    /// By these settings, within a tokio runtime. Nothing is sent yet.
    ///
    /// # Errors
    /// When a file can't be used, or the CA is not given.
    pub fn new(settings: &AdapterSettings) -> Result<Self, AdapterSettingsError> {
        let AdapterSettings { address, ca_file, token_file, server_name, timeout } = settings;
        let failed = |reason: String| AdapterSettingsError::Client { name: address.name.clone(), reason };
        let mut config = Config::new(address.url.parse().map_err(|_| failed("it is no URL".to_owned()))?);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        config.tls_server_name.clone_from(server_name);
        match ca_file {
            Some(path) => {
                check_ca(path)?;
                config.root_cert_file = Some(path.clone());
            }
            None if address.url.starts_with("https:") => {
                return Err(AdapterSettingsError::NoCa(address.name.clone()));
            }
            None => {}
        }
        if let Some(path) = token_file {
            read(path)?;
            let token_file = Some(path.display().to_string());
            config.auth_info = AuthInfo { token_file, ..AuthInfo::default() };
        }
        let client = Client::try_from(config).map_err(|error| failed(reasons(&error)))?;
        Ok(Self::of_client(address.name.clone(), client, *timeout))
    }

    /// Whoever this client asks: an adapter behind kube-apiserver, for one.
    #[must_use]
    pub fn of_client(name: String, client: Client, timeout: Duration) -> Self {
        Self { name, client, timeout, slots: Semaphore::new(AT_ONCE_MAX), lacked: Lacked::default() }
    }

    /// As people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values that it has for a question of a metrics API.
    ///
    /// # Errors
    /// When it has none, or gives none in time.
    pub async fn values(&self, path_and_query: &str) -> Result<AdapterValues, AdapterError> {
        let body = self.get(path_and_query).await?;
        let items = parse_values(&body).map_err(AdapterError::Invalid)?;
        Ok(AdapterValues { body, items })
    }

    /// What its discovery lists of a group and version.
    ///
    /// # Errors
    /// When it gives none in time.
    pub async fn list(&self, version: GroupVersion) -> Result<Vec<Listed>, AdapterError> {
        let path = format!("/apis/{}/{}", version.group(), version.version());
        parse_listed(&self.get(&path).await?).map_err(AdapterError::Invalid)
    }

    /// Which version of a group it prefers, of those that Lookback knows.
    ///
    /// # Errors
    /// When it has none, or does not say so in time.
    pub async fn preferred(&self, group: &str) -> Result<GroupVersion, AdapterError> {
        let body = self.get(&format!("/apis/{group}")).await?;
        let group: Group =
            serde_json::from_slice(&body).map_err(|error| AdapterError::Invalid(error.to_string()))?;
        let versions = group.preferred_version.into_iter().chain(group.versions);
        let known = |version: &Version| {
            GroupVersion::ALL.into_iter().find(|known| known.to_string() == version.group_version)
        };
        let mut known = versions.filter_map(|version| known(&version));
        known.next().ok_or_else(|| AdapterError::Invalid("no version that is known".to_owned()))
    }

    async fn get(&self, path_and_query: &str) -> Result<Bytes, AdapterError> {
        let asking = async {
            // It is never closed.
            let _slot = self.slots.acquire().await;
            self.exchange(path_and_query).await
        };
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(Err(AdapterError::Slow(self.timeout)))
    }

    async fn exchange(&self, path_and_query: &str) -> Result<Bytes, AdapterError> {
        let request = Request::get(path_and_query)
            .header("accept", "application/json")
            .header("user-agent", concat!("lookback/", env!("CARGO_PKG_VERSION")))
            .header(DELEGATED, "1")
            .body(Body::empty())
            .map_err(|error| AdapterError::Invalid(error.to_string()))?;
        let unreachable = |error: &dyn std::error::Error| AdapterError::Unreachable(reasons(error));
        let answer = self.client.send(request).await.map_err(|error| unreachable(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => AdapterError::TooLarge,
            None => unreachable(error.as_ref()),
        })?;
        let body = body.to_bytes();
        if parts.status == 200 {
            return Ok(body);
        }
        Err(AdapterError::Status { code: parts.status.as_u16(), message: message_of(&body) })
    }
}

/// What an error says: the message of a metav1 Status, else how the text begins.
fn message_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let text = match serde_json::from_slice::<Status>(body) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(body.get(..MESSAGE_CHARS_MAX).unwrap_or(body)).into_owned(),
    };
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, AdapterSettingsError> {
    let failed = |reason: String| AdapterSettingsError::File { path: path.to_owned(), reason };
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

fn check_ca(path: &Path) -> Result<(), AdapterSettingsError> {
    let failed = |reason: String| AdapterSettingsError::File { path: path.to_owned(), reason };
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(failed("there is no certificate in it".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Option<Version>,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct ValueList {
    kind: String,
    items: Option<Vec<RawItem>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawItem {
    described_object: Option<Described>,
    value: serde_json::Value,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

/// The values of a `MetricValueList` or `ExternalMetricValueList`, of whichever version.
///
/// # Errors
/// What is wrong with it.
pub fn parse_values(body: &[u8]) -> Result<Vec<Item>, String> {
    let list: ValueList = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !matches!(list.kind.as_str(), "MetricValueList" | "ExternalMetricValueList") {
        return Err(format!("its kind is {:?}", text::start_of(&list.kind)));
    }
    list.items.unwrap_or_default().into_iter().map(item).collect()
}

fn item(raw: RawItem) -> Result<Item, String> {
    let quantity = match &raw.value {
        serde_json::Value::String(text) => Quantity::parse(text),
        other => Quantity::parse(&other.to_string()),
    };
    let value = quantity.map_err(|error| error.to_string())?.nanos() as f64 / 1e9;
    let timestamp_ms = raw.timestamp.and_then(|text| text.parse::<Timestamp>().ok());
    Ok(Item {
        object: raw.described_object.map(|object| object.name),
        value,
        timestamp_ms: timestamp_ms.map(Timestamp::as_millisecond),
    })
}

#[derive(Deserialize)]
struct ResourceList {
    kind: String,
    resources: Option<Vec<RawListed>>,
}

#[derive(Deserialize)]
struct RawListed {
    name: String,
    namespaced: bool,
}

/// The entries of an `APIResourceList`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_listed(body: &[u8]) -> Result<Vec<Listed>, String> {
    let list: ResourceList = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if list.kind != "APIResourceList" {
        return Err(format!("its kind is {:?}", text::start_of(&list.kind)));
    }
    let listed = |RawListed { name, namespaced }| Listed { name, namespaced };
    Ok(list.resources.unwrap_or_default().into_iter().map(listed).collect())
}

#[cfg(test)]
mod tests;
