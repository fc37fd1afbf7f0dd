//! `/api/v1/metrics`: the range endpoint that OptiPod's custom provider asks.
//!
//! `GET` with a query string, or `POST` with a form in the body; both say the same, and parameters in
//! the two are taken together. See [`crate::query::range`] for what is answered. Errors are Prometheus
//! JSON and name the parameter:
//!
//! | status | `errorType` | why |
//! |---|---|---|
//! | 400 | `bad_data` | a parameter is missing, unknown, given twice or wrong; too many points a series |
//! | 403 | `forbidden` | the credentials may not read, or not this namespace |
//! | 404 | `not_found` | nothing has the metric's name |
//! | 413 | `bad_data` | the form is larger than 64 KiB |
//! | 422 | `execution` | it would read more samples than one read may: ask for less |
//! | 503, 504 | `unavailable`, `timeout` | the store can't answer, or not in time |

mod matrix;
mod parameters;

use super::Api;
use super::auth::Caller;
use super::error::{ApiError, PrometheusError};
use crate::app::App;
use crate::query::range::{self, RangeError, RangeQuestion};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The route of the range endpoint.
pub fn routes() -> Router<App> {
    let methods = get(usage).post(usage).fallback(method_not_allowed);
    Router::new().route("/api/v1/metrics", methods).layer(axum::middleware::map_response(named))
}

async fn named(response: Response) -> Response {
    Api("range").answered(response)
}

async fn method_not_allowed() -> Response {
    let message = "this endpoint takes GET with a query string, or POST with a form";
    ApiError::method_not_allowed(message, "GET, HEAD, POST").into_prometheus()
}

async fn usage(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Response, PrometheusError> {
    caller.require_read()?;
    let pairs = parameters::read(request).await?;
    let question = RangeQuestion::parse(pairs, app.settings.points_max)?;
    if !caller.scope.allows(Some(&question.namespace)) {
        let RangeQuestion { namespace, .. } = &question;
        return Err(forbidden(format!("user {:?} may not read namespace {namespace:?}", caller.user)));
    }
    let context = app.context(&caller.scope);
    let answer = range::answer(app.store.as_ref(), &context, &app.settings, &question).await?;
    let body = matrix::write(&question.namespace, &answer);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn forbidden(message: String) -> PrometheusError {
    ApiError::new(StatusCode::FORBIDDEN, message).into()
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
