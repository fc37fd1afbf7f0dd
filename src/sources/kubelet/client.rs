//! Asking a kubelet: `GET https://NODE/metrics/resource` with the credentials that Lookback has in the cluster.
//!
//! Token, client certificate and CA are those of the connection to kube-apiserver, and like there they are read
//! again when they are rotated. Connections are kept from one question to the next.

use super::settings::KubeletSettings;
use crate::budget::Share;
use crate::kubernetes::cluster::reasons;
use crate::sources::scrape::fetch::{FetchError, Fetched, decoded, read};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::ConfigExt;
use std::time::Duration;
use thiserror::Error;
use tower::util::{BoxCloneSyncService, option_layer};
use tower::{BoxError, Layer, ServiceExt};

/// Where kubelets tell what is used.
const PATH: &str = "/metrics/resource";

/// Most bytes that a connection keeps to read into: there is one a node, and between two answers it is idle.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// A connection that was not used for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Why a kubelet gave nothing. Each says what to do.
#[derive(Debug, Error)]
pub enum KubeletError {
    /// There is no connection, or it broke off.
    #[error("it can't be asked: {0}")]
    Unreachable(String),
    /// Its certificate is not believed.
    #[error(
        "its certificate is not believed: {0}: let the cluster's CA sign kubelets' certificates (serverTLSBootstrap), \
         or give --kubelet-certificate-authority FILE"
    )]
    Certificate(String),
    /// It does not know the token.
    #[error("it answers 401: it has to accept tokens (authentication.webhook.enabled)")]
    Unauthorized,
    /// The right is missing.
    #[error("it answers 403: let Lookback's ServiceAccount get nodes/metrics")]
    Forbidden,
    /// Another answer.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// What it answered can't be taken.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It takes too long.
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    /// Something of it can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// There is more of it than a kubelet can have.
    #[error("it has {samples} samples, more than {max}")]
    TooManySamples {
        /// How many.
        samples: usize,
        /// The bound.
        max: usize,
    },
}

type Service = BoxCloneSyncService<Request<Body>, axum::http::Response<Incoming>, BoxError>;

/// Asks kubelets; a cheap clone.
#[derive(Clone)]
pub struct KubeletClient(Service);

impl KubeletClient {
    /// With the credentials of a connection to kube-apiserver.
    ///
    /// # Errors
    /// When they, or the CA of the settings, can't be used.
    pub fn new(mut config: Config, settings: &KubeletSettings) -> Result<Self, kube::Error> {
        // What is said of kube-apiserver's name and certificate says nothing of kubelets.
        config.tls_server_name = None;
        config.accept_invalid_certs = settings.insecure_tls;
        if let Some(path) = &settings.certificate_authority {
            config.root_cert = Some(Vec::new());
            config.root_cert_file = Some(path.clone());
        }
        let connector = config.rustls_https_connector()?;
        let client: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(READ_BUFFER_BYTES)
            .build(connector);
        let client = client.map_err(BoxError::from);
        let service = option_layer(config.auth_layer()?).layer(client);
        Ok(Self(BoxCloneSyncService::new(service.map_err(BoxError::from))))
    }

    /// Asks the kubelet at `host:port`. What the body takes, `share` pays; the caller bounds the time.
    ///
    /// # Errors
    /// When it does not answer with metrics, or with too many bytes.
    pub async fn ask(
        &self,
        address: &str,
        bytes_max: usize,
        share: &mut Share,
    ) -> Result<Fetched, KubeletError> {
        let request = Request::get(format!("https://{address}{PATH}"))
            .header(header::ACCEPT, "text/plain;version=0.0.4")
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::USER_AGENT, concat!("lookback/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(FetchError::from)?;
        let answer = self.0.clone().oneshot(request).await.map_err(|error| failed(error.as_ref()))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(KubeletError::Unauthorized),
            StatusCode::FORBIDDEN => return Err(KubeletError::Forbidden),
            other => return Err(KubeletError::Status(other)),
        }
        let (parts, body) = answer.into_parts();
        let body = read(body, bytes_max, share).await?;
        Ok(decoded(&parts.headers, body, bytes_max, share).await?)
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> KubeletError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<rustls::Error>() {
            Some(tls @ rustls::Error::InvalidCertificate(_)) => {
                return KubeletError::Certificate(tls.to_string());
            }
            Some(tls) => return KubeletError::Unreachable(tls.to_string()),
            None => {}
        }
        // What an I/O error was made of is not its source.
        let made_of = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = made_of.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    KubeletError::Unreachable(reasons(error))
}
