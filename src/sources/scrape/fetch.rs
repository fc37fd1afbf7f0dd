//! One GET of a target's metrics, and of where it sends on to: a connection of its own, bounded in bytes; the
//! caller bounds the time.

use super::settings::{Authorization, Certificate, Job, Secret, Target, Tls, address};
use crate::budget::{BudgetSpent, Share};
use crate::ingest::exposition::Syntax;
use crate::ingest::inflate::{InflateError, gunzip};
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What Lookback likes best to be answered with.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// How often a target may send on.
const REDIRECTS_MAX: usize = 10;

/// Largest file with a secret or a CA, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a target gave no metrics.
#[derive(Debug, Error)]
pub enum FetchError {
    /// There is no connection.
    #[error("it can't be reached: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection breaks off, or is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request can't be made.
    #[error("{0}")]
    Request(#[from] axum::http::Error),
    /// It answers otherwise than by 200.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// It sends on to nowhere, or round and round.
    #[error("it sends on to {0:?}, where it can't be followed")]
    Redirect(String),
    /// A file that is needed can't be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No name that a certificate can be for.
    #[error("its name can't be that of a certificate: {0}")]
    Name(#[from] InvalidDnsNameError),
    /// TLS can't be spoken so.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The body is too large.
    #[error("its answer has more than {0} bytes (body_size_limit)")]
    TooLarge(usize),
    /// The body is compressed in a way that is not understood.
    #[error("its answer is encoded as {0:?}, and gzip is understood")]
    Encoding(String),
    /// The body can't be decompressed.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// There is no room for the body now.
    #[error(transparent)]
    Budget(#[from] BudgetSpent),
}

/// What a target exposes.
pub struct Fetched {
    /// The text.
    pub body: Bytes,
    /// In which format.
    pub syntax: Syntax,
}

/// Asks a target, and where it sends on to. What the body takes, `share` pays.
///
/// # Errors
/// When it does not answer with metrics, or with too many bytes.
pub async fn fetch(target: &Target, bytes_max: usize, share: &mut Share) -> Result<Fetched, FetchError> {
    let mut place = Place::of(target);
    for _ in 0..=REDIRECTS_MAX {
        match ask(&place, target, bytes_max, share).await? {
            Answer::Metrics(fetched) => return Ok(fetched),
            Answer::Elsewhere(location) => place = place.towards(&location)?,
        }
    }
    Err(FetchError::Redirect(place.path))
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    https: bool,
    /// `host:port`
    address: String,
    path: String,
}

impl Place {
    fn of(target: &Target) -> Self {
        Self { https: target.job.tls.is_some(), address: target.address.clone(), path: target.path.clone() }
    }

    /// Whether credentials may be shown there: they are for the target, and nobody else.
    fn is_at(&self, target: &Target) -> bool {
        self.address == target.address && self.https == target.job.tls.is_some()
    }

    /// What a `Location` means here.
    fn towards(&self, location: &str) -> Result<Self, FetchError> {
        let wrong = || FetchError::Redirect(crate::text::start_of(location));
        let location = location.split('#').next().unwrap_or_default();
        let at = |https: bool, rest: &str| {
            let (authority, path) = match rest.find(['/', '?']) {
                Some(end) => rest.split_at(end),
                None => (rest, "/"),
            };
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            Ok(Self { https, address: address(authority, https).map_err(|_| wrong())?, path })
        };
        if let Some(rest) = location.strip_prefix("https://") {
            return at(true, rest);
        }
        if let Some(rest) = location.strip_prefix("http://") {
            return at(false, rest);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return at(self.https, rest);
        }
        if location.is_empty() || location.split(['/', '?']).next().unwrap_or_default().contains(':') {
            return Err(wrong());
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let here = self.path.split('?').next().unwrap_or_default();
            format!("{}/{location}", here.rsplit_once('/').map_or("", |(parent, _)| parent))
        };
        Ok(Self { path, ..self.clone() })
    }
}

/// What came of one request.
enum Answer {
    Metrics(Fetched),
    Elsewhere(String),
}

async fn ask(
    place: &Place,
    target: &Target,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Answer, FetchError> {
    let own = place.is_at(target);
    let authorization = match &target.job.authorization {
        Some(authorization) if own => Some(header_of(authorization).await?),
        _ => None,
    };
    let tcp = TcpStream::connect(&place.address).await.map_err(FetchError::Connect)?;
    if !place.https {
        return exchange(tcp, place, target, authorization, bytes_max, share).await;
    }
    let tls = target.job.tls.clone().unwrap_or_default();
    let tls = if own { tls } else { Tls { server_name: None, certificate: None, ..tls } };
    let host = place.address.rsplit_once(':').map_or(place.address.as_str(), |(host, _)| host);
    let name = tls.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
    let name = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(client_config(&tls).await?);
    let stream = connector.connect(name, tcp).await.map_err(FetchError::Connect)?;
    exchange(stream, place, target, authorization, bytes_max, share).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    place: &Place,
    target: &Target,
    authorization: Option<String>,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Answer, FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(&place.path)
        .header(header::HOST, &place.address)
        .header(header::ACCEPT, ACCEPT)
        .header(header::ACCEPT_ENCODING, "gzip")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("lookback/", env!("CARGO_PKG_VERSION")))
        .header("x-prometheus-scrape-timeout-seconds", target.job.timeout.as_secs_f64().to_string());
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Body::empty())?;
    let answering = async {
        let answer = sender.send_request(request).await?;
        if let Some(location) = location(&answer, &target.job) {
            return Ok(Answer::Elsewhere(location));
        }
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let (parts, body) = answer.into_parts();
        let body = read(body, bytes_max, share).await?;
        decoded(&parts.headers, body, bytes_max, share).await.map(Answer::Metrics)
    };
    // The connection makes progress while it is asked; it closes with this function.
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => { ended?; answering.await }
    }
}

/// Where an answer sends on to, if that is to be followed.
fn location<B>(answer: &Response<B>, job: &Job) -> Option<String> {
    let sends_on = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION).filter(|_| sends_on && job.follow_redirects)?;
    location.to_str().ok().map(str::to_owned)
}

pub(in crate::sources) async fn read(
    mut body: hyper::body::Incoming,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Bytes, FetchError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(FetchError::TooLarge(bytes_max));
        }
        share.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

pub(in crate::sources) async fn decoded(
    headers: &HeaderMap,
    body: Bytes,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Fetched, FetchError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let body = match text(header::CONTENT_ENCODING) {
        "" | "identity" => body,
        "gzip" => match gunzip(&body, bytes_max, share) {
            Ok(body) => body.into(),
            Err(InflateError::TooLarge { max }) => return Err(FetchError::TooLarge(max)),
            Err(error) => return Err(error.into()),
        },
        other => return Err(FetchError::Encoding(crate::text::start_of(other))),
    };
    Ok(Fetched { body, syntax: Syntax::of_content_type(text(header::CONTENT_TYPE)) })
}

async fn header_of(authorization: &Authorization) -> Result<String, FetchError> {
    Ok(match authorization {
        Authorization::Basic { username, password } => {
            format!("Basic {}", STANDARD.encode(format!("{username}:{}", secret(password).await?)))
        }
        Authorization::Token { scheme, credentials } => format!("{scheme} {}", secret(credentials).await?),
    })
}

async fn secret(secret: &Secret) -> Result<String, FetchError> {
    match secret {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(path) => {
            let bytes = read_file(path).await?;
            let text = String::from_utf8(bytes).map_err(|_| bad_file(path, &"it is not UTF-8"))?;
            Ok(text.trim().to_owned())
        }
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let file = tokio::fs::File::open(path).await.map_err(|error| bad_file(path, &error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).await.map_err(|error| bad_file(path, &error))?;
    Ok(bytes)
}

fn bad_file(path: &Path, reason: &dyn std::fmt::Display) -> FetchError {
    FetchError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Of the CA and the certificate that the job names, read at each scrape.
async fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, FetchError> {
    let roots = match &tls.ca_file {
        None => system_roots().await,
        Some(path) => Arc::new(roots_of(path).await?),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some(Certificate { chain_file, key_file }) = &tls.certificate else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(chain_file).await?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(key_file).await?);
    let key = key.map_err(|error| bad_file(key_file, &error))?;
    Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
}

/// Those that the system believes.
async fn system_roots() -> Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = SYSTEM.get() {
        return Arc::clone(roots);
    }
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.map(|loaded| loaded.certs).unwrap_or_default());
    Arc::clone(SYSTEM.get_or_init(|| Arc::new(roots)))
}

async fn roots_of(path: &Path) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).await? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The certificates of a file, one at least.
async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let pem = read_file(path).await?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| bad_file(path, &error))?;
    if all.is_empty() { Err(bad_file(path, &"there is no certificate in it")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_from_where_it_is_said() {
        let here = Place { https: false, address: "web:8080".to_owned(), path: "/a/metrics?x=1".to_owned() };
        for (location, expected) in [
            ("/b", "http://web:8080/b"),
            ("c?d=1", "http://web:8080/a/c?d=1"),
            ("https://other/m#part", "https://other:443/m"),
            ("http://other:9", "http://other:9/"),
            ("//other:9?q", "http://other:9/?q"),
        ] {
            let place = here.towards(location).expect(location);
            let scheme = if place.https { "https" } else { "http" };
            assert_eq!(format!("{scheme}://{}{}", place.address, place.path), expected, "{location}");
        }
        for location in ["", "ftp://other/", "mailto:a", "http://", "https://u@other/"] {
            assert!(here.towards(location).is_err(), "{location}");
        }
    }
}
