//! `/api/v1/metrics`: the range endpoint that OptiPod's custom provider asks.
//!
//! `GET` with a query string, or `POST` with a form in the body; both say the same, and parameters in
//! the two are taken together. The answer is written as it is sent, compressed where the client accepts
//! gzip or zstd, and has an [entity tag](super::entity_tag). One that is too large to be held is also read as it is
//! sent, pods by pods: it has no tag, and where the store fails on the way it breaks off, so that no client takes it
//! for whole. See [`crate::query::range`] for what is answered. Errors are Prometheus
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
use crate::query::range::{
    self, Answering, Asked, LargeAnswer, PodSeries, RangeAnswer, RangeError, RangeQuestion,
};
use crate::store::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use matrix::Matrix;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};

/// An answer of up to this many points, a millisecond's work, is hashed where it is.
const INLINE_POINTS_MAX: usize = 200_000;

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
    let context = context(&app, &caller, &question)?;
    match range::begin(asked(&app, &context, &question)).await.map_err(ApiError::from)? {
        Answering::Whole(answer) => whole(&question, answer, &headers).await,
        Answering::Large(large) => large_answer(app, context, question, large).await,
    }
}

async fn whole(
    question: &RangeQuestion,
    answer: RangeAnswer,
    headers: &HeaderMap,
) -> Result<Response, PrometheusError> {
    let points: usize = answer.series.iter().map(|series| series.samples.len()).sum();
    let step_ms = question.step_ms;
    let tagged = move || (tag(&answer, step_ms), answer);
    let (tag, answer) = aside(points > INLINE_POINTS_MAX, tagged).await?;
    if let Some(not_modified) = tag.not_modified(headers) {
        return Ok(not_modified);
    }
    let mut matrix = Matrix::new(question);
    matrix.add(answer.series);
    matrix.finish(answer.infos);
    let body = Body::from_stream(futures::stream::iter(matrix.map(Ok::<_, Infallible>)));
    Ok(tag.mark(([(header::CONTENT_TYPE, "application/json")], body).into_response()))
}

/// Sends an answer while it is read. What is wrong with its beginning is still told by the status.
async fn large_answer(
    app: App,
    context: Context,
    question: RangeQuestion,
    large: LargeAnswer,
) -> Result<Response, PrometheusError> {
    let mut reading = Reading { matrix: Matrix::new(&question), app, context, question, large, done: false };
    reading.read_on().await.map_err(ApiError::from)?;
    let pieces = futures::stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.piece().await {
            Ok(piece) => Some((Ok(piece?), Some(reading))),
            Err(error) => {
                tracing::error!(%error, "an answer was broken off: the store failed while it was sent");
                Some((Err(error), None))
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// A large answer on its way.
struct Reading {
    app: App,
    context: Context,
    question: RangeQuestion,
    large: LargeAnswer,
    matrix: Matrix,
    done: bool,
}

impl Reading {
    /// The next piece of the text; `None`: that was all.
    async fn piece(&mut self) -> Result<Option<String>, RangeError> {
        loop {
            if let Some(piece) = self.matrix.next() {
                return Ok(Some(piece));
            }
            if self.done {
                return Ok(None);
            }
            self.read_on().await?;
        }
    }

    async fn read_on(&mut self) -> Result<(), RangeError> {
        let asked = asked(&self.app, &self.context, &self.question);
        match self.large.next_series(asked).await? {
            Some(series) => self.matrix.add(series),
            None => {
                self.matrix.finish(self.large.infos_of(asked));
                self.done = true;
            }
        }
        Ok(())
    }
}

/// What the caller may know.
fn context(app: &App, caller: &Caller, question: &RangeQuestion) -> Result<Context, ApiError> {
    let namespace = &question.namespace;
    if !caller.scope.allows(Some(namespace)) {
        let message = format!("user {:?} may not read namespace {namespace:?}", caller.user);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(app.context(&caller.scope))
}

fn asked<'a>(app: &'a App, context: &'a Context, question: &'a RangeQuestion) -> Asked<'a> {
    Asked { question, store: app.store.as_ref(), context, settings: &app.settings }
}

/// Asks what the caller may know.
pub(super) async fn ask(
    app: &App,
    caller: &Caller,
    question: &RangeQuestion,
) -> Result<RangeAnswer, ApiError> {
    let context = context(app, caller, question)?;
    Ok(range::answer(asked(app, &context, question)).await?)
}

fn tag(answer: &RangeAnswer, step_ms: i64) -> EntityTag {
    EntityTag::of(|hasher| {
        (&answer.infos, step_ms).hash(hasher);
        for PodSeries { pod, container, kind, samples } in &answer.series {
            (pod, container, kind, samples.len()).hash(hasher);
            let (first_ms, last_ms) = (samples.first(), samples.last());
            let [first_ms, last_ms] = [first_ms, last_ms].map(|s| s.map_or(0, |sample| sample.timestamp_ms));
            (first_ms, last_ms).hash(hasher);
            // Points lie on a grid: where none is left out, the first and the last tell all times.
            let steps = i64::try_from(samples.len()).unwrap_or(i64::MAX).saturating_sub(1);
            let has_gaps = last_ms.saturating_sub(first_ms) != steps.saturating_mul(step_ms);
            for sample in samples {
                hasher.write_u64(sample.value.to_bits());
                if has_gaps {
                    hasher.write_i64(sample.timestamp_ms);
                }
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
mod large;
#[cfg(test)]
mod tests;
