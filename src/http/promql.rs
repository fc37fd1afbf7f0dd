//! The HTTP API of Prometheus that reads: queries, series, labels, metadata, status.
//!
//! | route | methods | |
//! |---|---|---|
//! | `/api/v1/query`, `/api/v1/query_range` | GET, POST form | PromQL at an instant, over a range |
//! | `/api/v1/format_query`, `/api/v1/parse_query` | GET, POST form | a query formatted; its tree |
//! | `/api/v1/query_exemplars` | GET, POST form | none: exemplars are not kept |
//! | `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/{name}/values` | GET, POST form but for values | what there is |
//! | `/api/v1/metadata` | GET | what senders say of metrics |
//! | `/api/v1/rules`, `/api/v1/alerts` | GET | none: Lookback evaluates no rules |
//! | `/api/v1/status/buildinfo`, `/api/v1/status/tsdb` | GET | who answers, how much it holds |
//!
//! A query is parsed and evaluated on a thread of its own (`run`), which ends when the client leaves or
//! the time is over, and its answer is sent as it is written, compressed for who accepts gzip or zstd. Errors are Prometheus JSON: 400 `bad_data`,
//! 422 `execution`, 503 `timeout`; a parameter that is not known is ignored, as Prometheus does it.

mod answer;
mod cardinality;
mod catalog;
mod json;
mod query;
mod request;
mod run;
mod status;

use super::Api;
use super::error::ApiError;
use crate::app::{App, QuerySettings};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use run::Turns;

/// The routes, and how many queries are evaluated at once.
pub fn routes(settings: &QuerySettings) -> Router<App> {
    let both = |methods: axum::routing::MethodRouter<App>| methods.fallback(only_get_and_post);
    let read = |methods: axum::routing::MethodRouter<App>| methods.fallback(only_get);
    Router::new()
        .route("/api/v1/query", both(get(query::instant).post(query::instant)))
        .route("/api/v1/query_range", both(get(query::range).post(query::range)))
        .route("/api/v1/format_query", both(get(query::format).post(query::format)))
        .route("/api/v1/parse_query", both(get(query::parse).post(query::parse)))
        .route("/api/v1/query_exemplars", both(get(query::exemplars).post(query::exemplars)))
        .route("/api/v1/series", both(get(catalog::series).post(catalog::series)))
        .route("/api/v1/labels", both(get(catalog::labels).post(catalog::labels)))
        .route("/api/v1/label/{name}/values", read(get(catalog::label_values)))
        .route("/api/v1/metadata", read(get(catalog::metadata)))
        .route("/api/v1/rules", read(get(status::rules)))
        .route("/api/v1/alerts", read(get(status::alerts)))
        .route("/api/v1/status/buildinfo", read(get(status::build)))
        .route("/api/v1/status/tsdb", read(get(status::store)))
        .layer(Extension(Turns::new(settings.concurrency)))
        .layer(super::compression())
        .layer(axum::middleware::map_response(named))
}

async fn named(response: Response) -> Response {
    Api("promql").answered(response)
}

async fn only_get_and_post() -> Response {
    let message = "this endpoint takes GET with a query string, or POST with a form";
    ApiError::method_not_allowed(message, "GET, HEAD, POST").into_prometheus()
}

async fn only_get() -> Response {
    ApiError::method_not_allowed("this endpoint takes GET", "GET, HEAD").into_prometheus()
}

#[cfg(test)]
mod tests;
