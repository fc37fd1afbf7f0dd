//! `/api/v1/metrics`: the range endpoint that OptiPod's custom provider asks.
//!
//! `GET` with a query string, or `POST` with a form in the body; both say the same, and parameters in
//! the two are taken together. The answer is written as it is sent, compressed where the client accepts
//! gzip or zstd, and has an [entity tag](super::entity_tag). See [`crate::query::range`] for what is answered. Errors are Prometheus
//! JSON and name the parameter:
//!
//! | status | `errorType` | why |
//! |---|---|---|
//! | 400 | `bad_data` | a parameter is missing, unknown, given twice or wrong; too many points a series |
//! | 403 | `forbidden` | the credentials may not read, or not this namespace |
//! | 404 | `not_found` | nothing has the metric's name |
//! | 408 | `timeout` | the form did not come in within a minute |
//! | 413 | `bad_data` | the form is larger than 64 KiB |
//! | 422 | `execution` | it would read more samples than one read may: ask for less |
//! | 429 | `unavailable` | too many requests of this client: `Retry-After` says when |
//! | 503, 504 | `unavailable`, `timeout` | the store can't answer, or not in time |

mod matrix;

use super::auth::Caller;
use super::entity_tag::EntityTag;
use super::error::{ApiError, PrometheusError};
use super::{Api, aside, parameters};
use crate::app::App;
use crate::query::range::{self, PodSeries, RangeAnswer, RangeError, RangeQuestion};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use matrix::Matrix;
use std::convert::Infallible;
use std::hash::Hash;

/// An answer of up to this many points, a millisecond's work, is digested where it is.
pub(super) const INLINE_POINTS_MAX: usize = 20_000;

/// Largest form, in bytes: far more than all parameters can need.
pub(super) const FORM_BYTES_MAX: usize = 64 << 10;

/// The route of the range endpoint.
pub fn routes() -> Router<App> {
    let methods = get(usage).post(usage).fallback(method_not_allowed);
    Router::new()
        .route("/api/v1/metrics", methods)
        .layer(super::compression())
        .layer(axum::middleware::map_response(named))
}

async fn named(response: Response) -> Response {
    Api("range").answered(response)
}

/// 405, for endpoints of questions.
pub(super) async fn method_not_allowed() -> Response {
    let message = "this endpoint takes GET with a query string, or POST with a form";
    ApiError::method_not_allowed(message, "GET, HEAD, POST").into_prometheus()
}

async fn usage(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, PrometheusError> {
    caller.require_read()?;
    let headers = request.headers().clone();
    let pairs = parameters::read(request, FORM_BYTES_MAX).await?;
    let question = RangeQuestion::parse(pairs, app.settings.points_max, app.clock.now_ms())?;
    let answer = ask(&app, &caller, &question).await?;
    let points: usize = answer.series.iter().map(|series| series.samples.len()).sum();
    let tagged = move || (tag(&answer), answer);
    let (tag, answer) = aside(points > INLINE_POINTS_MAX, tagged).await?;
    if let Some(not_modified) = tag.not_modified(&headers) {
        return Ok(not_modified);
    }
    let pieces = Matrix::new(&question.workload, &question.namespace, answer);
    let body = Body::from_stream(futures::stream::iter(pieces.map(Ok::<_, Infallible>)));
    Ok(tag.mark(([(header::CONTENT_TYPE, "application/json")], body).into_response()))
}

/// Asks what the caller may know.
pub(super) async fn ask(
    app: &App,
    caller: &Caller,
    question: &RangeQuestion,
) -> Result<RangeAnswer, ApiError> {
    let namespace = &question.namespace;
    if !caller.scope.allows(Some(namespace)) {
        let message = format!("user {:?} may not read namespace {namespace:?}", caller.user);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let context = app.context(&caller.scope);
    Ok(range::answer(app.store.as_ref(), &context, &app.settings, question).await?)
}

fn tag(answer: &RangeAnswer) -> EntityTag {
    EntityTag::of(|hasher| {
        answer.infos.hash(hasher);
        for PodSeries { pod, container, kind, samples } in &answer.series {
            (pod, container, kind, samples.len()).hash(hasher);
            for sample in samples {
                (sample.timestamp_ms, sample.value.to_bits()).hash(hasher);
            }
        }
    })
}

impl From<RangeError> for ApiError {
    fn from(error: RangeError) -> Self {
        let message = error.to_string();
        match error {
            RangeError::Parameter { .. } => Self::bad_request(message),
            RangeError::UnknownMetric { .. } => Self::not_found(message),
            RangeError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;
