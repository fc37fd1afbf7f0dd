//! The custom metrics API: latest values of objects, for the autoscaler.
//!
//! Contract: `k8s.io/metrics/pkg/apis/custom_metrics`, and what the autoscaler was seen to ask.

pub mod answer;
mod by_rule;
pub mod path;
mod values;

use self::by_rule::ByRule;
use self::path::{PathError, Values, no_such_route, parse_path};
use super::Source;
use super::auth::Caller;
use super::delegation::Delegate;
use super::error::ApiError;
use super::warnings::warn;
use crate::app::App;
use crate::kubernetes::objects::{Known, NotKnown};
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::resources::ResourceError;
use crate::kubernetes::selector::{self, Requirements};
use axum::extract::Query;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use kube::core::Selector;
use serde::Deserialize;
use std::sync::Arc;

/// Selectors of a question for values. Any other parameter (`timeout`, `pretty`) is nothing to it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selectors {
    #[serde(default)]
    label_selector: String,
    #[serde(default)]
    metric_label_selector: String,
}

/// Answers a path of this API that is none of its discovery. `delegate` is asked for metrics that are not known
/// here.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    delegate: Option<Delegate<'_>>,
) -> Result<Response, ApiError> {
    if !caller.read {
        return Err(forbidden(uri.path(), &caller.user));
    }
    let asked = question(app, uri.path()).await?;
    if !app.settings.served.serves(asked.version.with_group()) {
        return Err(no_such_route());
    }
    latest_values(app, caller, uri, &asked, delegate).await
}

/// What a path asks. A resource that the cluster got a moment ago is looked for once more.
async fn question(app: &App, path: &str) -> Result<Values, ApiError> {
    let parse = || parse_path(&app.resolver().for_reads(), path);
    match (parse(), app.live()) {
        (Err(PathError::Resource(ResourceError::NotInCluster { .. })), Some(live)) => {
            live.mapping.refresh_after_miss().await;
            Ok(parse()?)
        }
        (asked, _) => Ok(asked?),
    }
}

async fn latest_values(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    asked: &Values,
    delegate: Option<Delegate<'_>>,
) -> Result<Response, ApiError> {
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
    let context = app.context(&caller.scope);
    let by_rule = ByRule::of(app, asked);
    let delegate = delegate.filter(|_| by_rule.is_none()).filter(|_| asked.metric.is_some());
    let unknown_elsewhere = match delegate {
        Some(delegate) if !values::is_known(app, &context, asked, &place).await? => {
            let question = values::noted_question(asked, &place, &of_objects, &of_series);
            match delegate.answer(uri, question).await? {
                Ok(response) => return Ok(response),
                Err(unknown) => Some(unknown),
            }
        }
        _ => None,
    };
    let objects = objects(app, asked, &of_objects).await?;
    let asking = values::Asking {
        app,
        context: &context,
        asked,
        place: &place,
        snapshot: &snapshot,
        of_series: &of_series,
        objects: objects.as_deref(),
        of_objects: &of_objects,
        series_required: Requirements::of(&of_series),
        objects_required: Requirements::of(&of_objects),
    };
    let (source, answered) = match by_rule {
        Some(by_rule) => ("rule", by_rule.answer(&asking).await),
        None => ("store", asking.answer().await),
    };
    let answered = answered.map_err(|error| match unknown_elsewhere {
        Some(unknown) => unknown.added_to(error),
        None => error,
    });
    let values::Answered { list, warnings } = answered?;
    let mut response = Source(source).gave(list.into_response());
    warn(&mut response, warnings);
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

/// 403: this user may not get this path.
fn forbidden(path: &str, user: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, RequestAttributes::of("GET", path).forbidden(user))
}

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod tests;
