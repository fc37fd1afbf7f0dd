//! One GET of a target's metrics: a connection of its own, bounded in bytes; the caller bounds the time.

use super::settings::{Authorization, Secret, Target, Tls};
use crate::budget::{BudgetSpent, Share};
use crate::ingest::exposition::Syntax;
use crate::ingest::inflate::{InflateError, gunzip};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
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

/// Asks a target. What the body takes, `share` pays.
///
/// # Errors
/// When it does not answer with metrics, or with too many bytes.
pub async fn fetch(target: &Target, bytes_max: usize, share: &mut Share) -> Result<Fetched, FetchError> {
    let authorization = match &target.job.authorization {
        Some(authorization) => Some(header_of(authorization).await?),
        None => None,
    };
    let tcp = TcpStream::connect(&target.address).await.map_err(FetchError::Connect)?;
    match &target.job.tls {
        None => exchange(tcp, target, authorization, bytes_max, share).await,
        Some(tls) => {
            let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
            let name = tls.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
            let name = ServerName::try_from(name.to_owned())?;
            let connector = TlsConnector::from(client_config(tls).await?);
            let stream = connector.connect(name, tcp).await.map_err(FetchError::Connect)?;
            exchange(stream, target, authorization, bytes_max, share).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    target: &Target,
    authorization: Option<String>,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Fetched, FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(&target.path)
        .header(header::HOST, &target.address)
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
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let (parts, body) = answer.into_parts();
        let body = read(body, bytes_max, share).await?;
        decoded(&parts.headers, body, bytes_max, share).await
    };
    // The connection makes progress while it is asked; it closes with this function.
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => { ended?; answering.await }
    }
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

/// Of the CA that the job names, read at each scrape, or of those that the system believes.
async fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, FetchError> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let mut roots = RootCertStore::empty();
    let Some(path) = &tls.ca_file else {
        if let Some(config) = SYSTEM.get() {
            return Ok(config.clone());
        }
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        roots.add_parsable_certificates(loaded.map(|loaded| loaded.certs).unwrap_or_default());
        let config = Arc::new(with_roots(roots)?);
        return Ok(SYSTEM.get_or_init(|| config).clone());
    };
    let pem = read_file(path).await?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| bad_file(path, &error))?)?;
    }
    if roots.is_empty() {
        return Err(bad_file(path, &"there is no certificate in it"));
    }
    Ok(Arc::new(with_roots(roots)?))
}

fn with_roots(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
