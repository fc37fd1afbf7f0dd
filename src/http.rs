//! The HTTP face: routes, one file an API, who may call, and how errors look.

pub mod append;
pub mod auth;
pub mod backup;
pub mod body;
pub mod client_certificate;
pub mod connection;
pub mod credentials;
pub mod custom_metrics;
mod decimal;
mod delegation;
pub mod delete_series;
pub mod discovery;
pub mod entity_tag;
pub mod error;
pub mod explain;
pub mod exposition;
pub mod external_metrics;
pub mod health;
pub mod identity;
pub mod inflate;
mod json;
pub mod kubernetes_apis;
pub mod observe;
pub mod otlp;
mod parameters;
pub mod promql;
pub mod pushgateway;
pub mod range;
pub mod rate_limit;
mod rates;
pub mod reload;
pub mod remote_write;
pub mod remote_write_v2;
pub mod resource_metrics;
pub mod routes;
pub mod server;
mod stamps;
pub mod summary;
pub mod tls;
pub mod trust;
mod warnings;
pub mod write_metrics;

use axum::http::StatusCode;
use axum::response::Response;
use error::ApiError;
use tokio::task::JoinError;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};

/// Does work that may be slow off the threads that serve other requests.
///
/// # Errors
/// 500 when the work panics.
async fn aside<T: Send + 'static>(
    slow: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if !slow {
        return Ok(work());
    }
    let broke = |error: JoinError| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(broke)
}

/// Which API answered: a response extension, for the request log and the request metrics.
#[derive(Clone, Copy)]
pub struct Api(pub &'static str);

impl Api {
    /// The response, marked as this API's.
    fn answered(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// Who gave the values of an answer of a metrics API: a response extension, for the request log and the
/// metrics. Not on an answer without values.
#[derive(Clone, Copy)]
pub struct Source(pub &'static str);

impl Source {
    /// The answer, marked as from this source.
    fn gave(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// Compresses answers for those who accept gzip or zstd; what is small or compressed already stays as it is.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESSED_BYTES_MIN);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

/// An answer that is known to be smaller is not compressed.
const COMPRESSED_BYTES_MIN: u64 = 1_024;
