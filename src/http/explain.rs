//! `GET /api/v1/explain/hpa/{namespace}/{name}?at=TIME`: what an autoscaler asked, was answered and made of it.
//!
//! A text for people; `at` is a time as in the other questions, now where it is left out. It stands on what is
//! remembered of the autoscaler, so that any moment within the retention can be explained.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::query::explain::explain;
use crate::time::{UnixUnit, parse_timestamp};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

/// This file's route.
pub fn routes() -> Router<App> {
    Router::new().route("/api/v1/explain/hpa/{namespace}/{name}", get(explain_hpa))
}

#[derive(Deserialize)]
struct Parameters {
    at: Option<String>,
}

async fn explain_hpa(
    State(app): State<App>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let answer = answer(&app, &caller, (&namespace, &name), parameters.at.as_deref()).await;
    Api("explain").answered(match answer {
        Ok(text) => text.into_response(),
        Err(error) => error.into_status(),
    })
}

async fn answer(app: &App, caller: &Caller, hpa: (&str, &str), at: Option<&str>) -> Result<String, ApiError> {
    caller.require_read()?;
    if !caller.scope.allows(Some(hpa.0)) {
        let message = format!("namespace {:?} is outside of what these credentials may use", hpa.0);
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let at_ms = match at {
        Some(at) => {
            parse_timestamp(at, UnixUnit::Seconds).map_err(|e| ApiError::bad_request(e.to_string()))?
        }
        None => app.clock.now_ms(),
    };
    let text = explain(app.store.as_ref(), &app.context(&caller.scope), &app.settings.controller, hpa, at_ms)
        .await?;
    text.ok_or_else(|| {
        let (namespace, name) = hpa;
        let cluster = match app.live() {
            Some(_) => "it did not exist then, or Lookback did not run",
            None => "this Lookback has no cluster whose autoscalers it could watch: give --kubeconfig",
        };
        ApiError::not_found(format!(
            "nothing is remembered of HorizontalPodAutoscaler {namespace}/{name} in the 5 minutes before: {cluster}"
        ))
    })
}
