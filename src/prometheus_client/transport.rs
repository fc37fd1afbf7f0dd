//! One request and its answer, bounded in time and bytes, on connections that are used again.

use super::answer::{Answer, Envelope};
use super::error::{ClientError, SettingsError};
use super::settings::{At, ServerSettings};
use super::trust::client_config;
use super::{form, reason, told};
use arc_swap::ArcSwap;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much is read of an answer that says why not, in bytes.
const REASON_BYTES_MAX: usize = 16 << 10;
/// Connections that wait for more to do.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// How long they wait. Servers and what is between are quick to close those that do nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A request, without what goes with all of them.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Under which part of the server.
    pub at: At,
    /// Behind that.
    pub path: &'a str,
    /// Fields in the URL, encoded.
    pub query: Option<String>,
    /// What is sent.
    pub body: Bytes,
    /// Headers of this call.
    pub headers: &'a [(&'static str, &'static str)],
    /// The type of what is sent.
    pub content_type: Option<&'static str>,
}

impl<'a> Call<'a> {
    /// A GET of this path.
    #[must_use]
    pub fn get(path: &'a str) -> Self {
        let (method, at, body) = (Method::GET, At::Api, Bytes::new());
        Self { method, at, path, query: None, body, headers: &[], content_type: None }
    }

    /// A POST to this path.
    #[must_use]
    pub fn post(path: &'a str, content_type: &'static str, body: Bytes) -> Self {
        Self { method: Method::POST, body, content_type: Some(content_type), ..Self::get(path) }
    }
}

pub(super) struct Transport {
    settings: ServerSettings,
    server: String,
    http: ArcSwap<Http>,
}

impl Transport {
    pub(super) fn new(settings: ServerSettings) -> Result<Self, SettingsError> {
        let http = ArcSwap::from_pointee(connections(&settings)?);
        Ok(Self { server: settings.url.to_string(), settings, http })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// A question whose answer is Prometheus' JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        mut call: Call<'_>,
        timeout: Duration,
    ) -> Result<Answer<T>, ClientError> {
        if !self.settings.fields.is_empty() {
            let fields: Vec<_> =
                self.settings.fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            let query = call.query.take().into_iter().chain([form(&fields)]);
            call.query = Some(query.collect::<Vec<_>>().join("&"));
        }
        let deadline = Instant::now() + timeout;
        let answering = async {
            let answer = self.send(&call).await?;
            let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
            let bytes_max = self.settings.body_bytes_max;
            let body = self.read(answer.into_body(), bytes_max).await?;
            let envelope = match serde_json::from_slice::<Envelope<T>>(&body) {
                Ok(envelope) => envelope,
                Err(error) if status.is_success() => {
                    return Err(ClientError::Malformed {
                        server: self.server.clone(),
                        reason: error.to_string(),
                    });
                }
                Err(_) => return Err(self.refused(status, None, told(&body), retry_after)),
            };
            match (status.is_success(), envelope.data) {
                (true, Some(data)) if envelope.status == "success" => {
                    let mut warnings = envelope.warnings.unwrap_or_default();
                    let is_partial = envelope.is_partial.unwrap_or_default();
                    if is_partial {
                        warnings.push("a part is missing: some of its storage nodes are away".to_owned());
                    }
                    Ok(Answer { data, warnings, is_partial })
                }
                _ => {
                    let reason = envelope.error.map_or_else(|| told(&body), |error| reason(&error));
                    Err(self.refused(status, envelope.error_type, reason, retry_after))
                }
            }
        };
        timeout_at(deadline, answering).await.unwrap_or_else(|_| Err(self.too_late(timeout)))
    }

    /// A call whose answer says only whether it was taken: its status, what it says, and when to come again.
    pub(super) async fn status(
        &self,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<(StatusCode, String, Option<Duration>), ClientError> {
        let answering = async {
            let answer = self.send(call).await?;
            let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
            let body = self.read(answer.into_body(), REASON_BYTES_MAX).await.unwrap_or_default();
            Ok((status, told(&body), retry_after))
        };
        let deadline = Instant::now() + timeout;
        timeout_at(deadline, answering).await.unwrap_or_else(|_| Err(self.too_late(timeout)))
    }

    /// A call whose answer is read as it comes.
    pub(super) async fn stream(&self, call: Call<'_>, timeout: Duration) -> Result<Streaming, ClientError> {
        let deadline = Instant::now() + timeout;
        let sent = timeout_at(deadline, self.send(&call)).await;
        let answer = sent.unwrap_or_else(|_| Err(self.too_late(timeout)))?;
        if !answer.status().is_success() {
            let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
            let read = timeout_at(deadline, self.read(answer.into_body(), REASON_BYTES_MAX)).await;
            let body = read.unwrap_or_else(|_| Err(self.too_late(timeout))).unwrap_or_default();
            return Err(self.refused(status, None, told(&body), retry_after));
        }
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let server = self.server.clone();
        Ok(Streaming { body: answer.into_body(), content_type, server, deadline, timeout })
    }

    /// Sends a request. Where there is no connection over TLS, the files of TLS are read again, once.
    async fn send(&self, call: &Call<'_>) -> Result<Response<Incoming>, ClientError> {
        let http = self.http.load_full();
        let error = match http.request(self.request(call).await?).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !(error.is_connect() && self.settings.url.is_tls()) {
            return Err(self.unreachable(&error));
        }
        let settings = self.settings.clone();
        let again = tokio::task::spawn_blocking(move || connections(&settings)).await;
        let again = Arc::new(again.map_err(|error| self.unreachable(&error))??);
        self.http.store(Arc::clone(&again));
        again.request(self.request(call).await?).await.map_err(|error| self.unreachable(&error))
    }

    async fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri = self.settings.url.at(call.at, call.path, call.query.as_deref())?;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        let agent = HeaderValue::from_static(concat!("lookback/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        if let Some(content_type) = call.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in call.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        for (name, value) in &self.settings.headers {
            headers.append(name, value.clone());
        }
        if let Some(credentials) = &self.settings.credentials {
            headers.insert(header::AUTHORIZATION, credentials.header().await?);
        }
        Ok(request)
    }

    async fn read(&self, mut body: Incoming, bytes_max: usize) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.unreachable(&error))?.into_data() else { continue };
            if data.len() > bytes_max - bytes.len() {
                return Err(ClientError::TooLarge { server: self.server.clone(), bytes_max });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    fn refused(
        &self,
        status: StatusCode,
        kind: Option<String>,
        reason: String,
        retry_after: Option<Duration>,
    ) -> ClientError {
        let (server, status) = (self.server.clone(), status.as_u16());
        ClientError::Refused { server, status, kind, reason, retry_after }
    }

    fn unreachable(&self, error: &dyn Error) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), reason: innermost(error) }
    }

    fn too_late(&self, after: Duration) -> ClientError {
        ClientError::Timeout { server: self.server.clone(), after }
    }
}

/// An answer that is read as it comes.
pub struct Streaming {
    body: Incoming,
    /// Its `Content-Type`.
    pub content_type: String,
    server: String,
    deadline: Instant,
    timeout: Duration,
}

impl Streaming {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks off, or the time is up.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Ok(frame) = timeout_at(self.deadline, self.body.frame()).await else {
                return Err(ClientError::Timeout { server: self.server.clone(), after: self.timeout });
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| ClientError::Unreachable {
                server: self.server.clone(),
                reason: innermost(&error),
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// That what came is not what it should be.
    #[must_use]
    pub fn malformed(&self, reason: impl ToString) -> ClientError {
        ClientError::Malformed { server: self.server.clone(), reason: reason.to_string() }
    }
}

/// Connections of their own. Reads the files of TLS.
fn connections(settings: &ServerSettings) -> Result<Http, SettingsError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(settings.connect_timeout));
    // Without TLS nothing of the system's certificates is read.
    let config = if settings.url.is_tls() {
        client_config(&settings.tls)?
    } else {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| SettingsError::Tls(error.to_string()))?;
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector))
}

/// After how many seconds to come again. A date instead is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The cause of all causes: what is above it says only "client error".
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
