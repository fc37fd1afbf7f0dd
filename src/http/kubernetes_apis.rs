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
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, get};

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
        (Api("external_metrics"), external_metrics::answer(&app, &caller, &uri, delegate).await)
    } else if resource_metrics::is_asked(uri.path()) {
        (Api("resource_metrics"), resource_metrics::answer(&app, &caller, &headers, &uri).await)
    } else {
        let delegate = Delegate::for_custom(&app, &headers);
        (Api("custom_metrics"), custom_metrics::answer(&app, &caller, &uri, delegate).await)
    };
    api.answered(answer.unwrap_or_else(ApiError::into_status))
}

async fn method_not_allowed() -> Response {
    let message = "the server does not allow this method on the requested resource";
    Api("custom_metrics").answered(ApiError::method_not_allowed(message, "GET, HEAD").into_status())
}
