//! The APIs that kube-apiserver's aggregator passes on, and the paths around them that every API server
//! has.
//!
//! Everything answers JSON whatever `Accept` says: the autoscaler asks for protobuf first and is content
//! with it.

use super::Api;
use super::auth::Caller;
use super::delegation::Delegate;
use super::error::ApiError;
use super::{custom_metrics, discovery, external_metrics, resource_metrics};
use crate::app::App;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use std::time::Duration;

/// How long values are looked for, whatever stands behind: autoscalers wait 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/apis", read_only(get(apis)))
        .route("/apis/", read_only(get(apis)))
        .route("/apis/{*path}", read_only(get(apis)))
        .route("/openapi/{*path}", read_only(get(discovery::document)))
        .route("/version", read_only(get(discovery::document)))
        .route("/version/", read_only(get(discovery::document)))
}

fn read_only(routes: MethodRouter<App>) -> MethodRouter<App> {
    routes.fallback(method_not_allowed)
}

async fn apis(State(app): State<App>, caller: Caller, headers: HeaderMap, uri: Uri) -> Response {
    if let Some(found) = discovery::answer(&app, &caller, &headers, &uri) {
        return Api("discovery").answered(found);
    }
    let (api, answer) = if external_metrics::is_asked(uri.path()) {
        let delegate = Delegate::for_external(&app, &headers);
        (Api("external_metrics"), in_time(external_metrics::answer(&app, &caller, &uri, delegate)).await)
    } else if resource_metrics::is_asked(uri.path()) {
        (Api("resource_metrics"), in_time(resource_metrics::answer(&app, &caller, &headers, &uri)).await)
    } else {
        let delegate = Delegate::for_custom(&app, &headers);
        (Api("custom_metrics"), in_time(custom_metrics::answer(&app, &caller, &uri, delegate)).await)
    };
    api.answered(answer.unwrap_or_else(ApiError::into_status))
}

/// The answer, or that there is none while whoever asks still waits.
async fn in_time(answer: impl Future<Output = Result<Response, ApiError>>) -> Result<Response, ApiError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "there was no answer within {} s: what keeps the samples, or another server behind, is slow",
                ANSWER_TIMEOUT.as_secs()
            ),
        ))
    })
}

async fn method_not_allowed() -> Response {
    let message = "the server does not allow this method on the requested resource";
    Api("custom_metrics").answered(ApiError::method_not_allowed(message, "GET, HEAD").into_status())
}
