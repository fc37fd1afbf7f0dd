//! The custom metrics API: discovery, and latest values for the autoscaler.
//!
//! Contract: `k8s.io/metrics/pkg/apis/custom_metrics`, and what kube-apiserver's aggregator and the
//! autoscaler were seen to ask. Everything answers JSON whatever `Accept` says: the autoscaler asks for
//! protobuf first and is content with it.

pub mod answer;
pub mod path;
mod values;

use self::path::{PathError, Question, Values, no_such_route, parse_path};
use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::kubernetes::discovery::{group, group_list, resource_list, version_info};
use crate::kubernetes::objects::{Known, NotKnown};
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::resources::ResourceError;
use crate::kubernetes::selector;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use kube::core::Selector;
use serde::Deserialize;
use std::sync::Arc;

/// The routes of this API, and those around it that every API server has.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/apis", read_only(get(apis)))
        .route("/apis/", read_only(get(apis)))
        .route("/apis/{*path}", read_only(get(apis)))
        .route("/openapi/{*path}", read_only(get(no_openapi)))
        .route("/version", read_only(get(version)))
        .route("/version/", read_only(get(version)))
}

fn read_only(routes: MethodRouter<App>) -> MethodRouter<App> {
    routes.fallback(method_not_allowed)
}

/// Selectors of a question for values. Any other parameter (`timeout`, `pretty`) is nothing to it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selectors {
    #[serde(default)]
    label_selector: String,
    #[serde(default)]
    metric_label_selector: String,
}

async fn apis(State(app): State<App>, caller: Caller, uri: Uri) -> Response {
    let question = question(&app, uri.path()).await;
    let api = match &question {
        Ok(Question::Groups | Question::Group | Question::Resources(_)) => "discovery",
        _ => "custom_metrics",
    };
    let answer = match (caller.read, question) {
        (false, _) => Err(forbidden(uri.path(), &caller.user)),
        (true, Err(error)) => Err(error),
        (true, Ok(Question::Groups)) => Ok(Json(group_list()).into_response()),
        (true, Ok(Question::Group)) => Ok(Json(group()).into_response()),
        (true, Ok(Question::Resources(version))) => {
            Ok(Json(resource_list(version, &app.catalog.snapshot())).into_response())
        }
        (true, Ok(Question::Values(asked))) => latest_values(&app, &caller, &uri, &asked).await,
    };
    respond(api, answer)
}

/// What a path asks. A resource that the cluster got a moment ago is looked for once more.
async fn question(app: &App, path: &str) -> Result<Question, ApiError> {
    let parse = || parse_path(&app.resolver().for_reads(), path);
    match (parse(), app.live()) {
        (Err(PathError::Resource(ResourceError::NotInCluster { .. })), Some(live)) => {
            live.mapping.refresh_after_miss().await;
            Ok(parse()?)
        }
        (question, _) => Ok(question?),
    }
}

async fn latest_values(app: &App, caller: &Caller, uri: &Uri, asked: &Values) -> Result<Response, ApiError> {
    let Query(selectors) =
        Query::<Selectors>::try_from_uri(uri).map_err(|error| ApiError::bad_request(error.body_text()))?;
    let bad_selector = |error: selector::SelectorError| ApiError::bad_request(error.to_string());
    let of_objects = selector::parse(&selectors.label_selector).map_err(bad_selector)?;
    let of_series = selector::parse(&selectors.metric_label_selector).map_err(bad_selector)?;
    let snapshot = app.catalog.snapshot();
    let place = values::place(asked, &snapshot)?;
    if !caller.scope.allows(place.scope.as_deref()) {
        return Err(forbidden(uri.path(), &caller.user));
    }
    let objects = objects(app, asked, &of_objects).await?;
    let context = app.context(&caller.scope);
    let asking = values::Asking {
        app,
        context: &context,
        asked,
        place: &place,
        snapshot: &snapshot,
        of_series: &of_series,
        objects: objects.as_deref(),
        of_objects: &of_objects,
    };
    let values::Answered { list, warnings } = asking.answer().await?;
    let mut response = Json(list).into_response();
    for warning in warnings {
        response.headers_mut().append(header::WARNING, warning_header(&warning));
    }
    Ok(response)
}

/// The objects that there are; `None`: that is not known, and nothing is asked of their labels.
async fn objects(app: &App, asked: &Values, selector: &Selector) -> Result<Option<Arc<Known>>, ApiError> {
    match (app.live(), selector.selects_all()) {
        (None, true) => Ok(None),
        (None, false) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "labelSelector is served only in a cluster: it selects objects by labels that only the cluster \
             knows; leave it out, select series by metricLabelSelector, or give --kubeconfig",
        )),
        (Some(live), true) => Ok(live.objects_if_known(&asked.resource).await),
        (Some(live), false) => Ok(Some(live.objects_to_select(&asked.resource).await?)),
    }
}

impl From<NotKnown> for ApiError {
    fn from(error: NotKnown) -> Self {
        let retry_after = (header::RETRY_AFTER, HeaderValue::from_static("2"));
        Self { headers: vec![retry_after], ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()) }
    }
}

/// A warning as clients of Kubernetes show it to people (RFC 7234, section 5.5).
fn warning_header(text: &str) -> HeaderValue {
    let quotable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let text: String = text.chars().map(quotable).collect();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    let header = HeaderValue::try_from(format!("299 lookback \"{text}\""));
    header.unwrap_or(HeaderValue::from_static("299 lookback \"\""))
}

/// 403: this user may not get this path.
fn forbidden(path: &str, user: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, RequestAttributes::of("GET", path).forbidden(user))
}

async fn version(caller: Caller, uri: Uri) -> Response {
    let allowed = if caller.read { Ok(()) } else { Err(forbidden(uri.path(), &caller.user)) };
    respond("discovery", allowed.map(|()| Json(version_info()).into_response()))
}

/// The aggregator asks each minute and is content without.
async fn no_openapi(_: Caller) -> Response {
    respond("discovery", Err(no_such_route()))
}

async fn method_not_allowed() -> Response {
    let message = "the server does not allow this method on the requested resource";
    respond("custom_metrics", Err(ApiError::method_not_allowed(message, "GET, HEAD")))
}

fn respond(api: &'static str, answer: Result<Response, ApiError>) -> Response {
    Api(api).answered(answer.unwrap_or_else(ApiError::into_status))
}

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod tests;
