//! `POST /api/v1/import/prometheus`: what applications expose, pushed as it is, as VictoriaMetrics has it.
//!
//! The body is text exposition or OpenMetrics (by its `Content-Type`), plain or gzip. `extra_label=NAME=VALUE`
//! in the query, as often as wanted, is put on every series; `timestamp` (Unix milliseconds) is the time of
//! samples without one. 204 once everything is durable; 400 when something was refused: the rest is durable
//! all the same.

use super::append::append_taken;
use super::auth::Caller;
use super::error::{ApiError, PrometheusError};
use super::inflate::Encoding;
use super::{Api, body};
use crate::app::App;
use crate::budget::Share;
use crate::ingest::exposition::{Outer, Reading, Syntax, read};
use crate::ingest::intake::{Intake, Taken};
use crate::store::Scope;
use crate::text::{decode_form, start_of};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use lookback_storage::METRIC_NAME_LABEL;

const API: &str = "exposition";

/// This file's routes.
pub fn routes() -> Router<App> {
    let methods: MethodRouter<App> = post(import).put(import).fallback(method_not_allowed);
    Router::new().route("/api/v1/import/prometheus", methods)
}

async fn method_not_allowed() -> impl IntoResponse {
    let error = ApiError::method_not_allowed("an import is a POST", "POST, PUT");
    (Extension(Api(API)), PrometheusError(error))
}

async fn import(State(app): State<App>, caller: Caller, request: Request<Body>) -> Response {
    Api(API).answered(respond(&app, &caller, request).await.into_response())
}

async fn respond(app: &App, caller: &Caller, request: Request<Body>) -> Result<StatusCode, PrometheusError> {
    caller.require_write()?;
    let Query { extra, timestamp_ms } = Query::parse(request.uri().query().unwrap_or_default())?;
    let syntax = syntax_of(request.headers());
    let (mut taken, _, _share) = receive(app, &caller.scope, request, move |body, intake| {
        Ok(read(body, syntax, Outer::Wins(&extra), intake)?)
    })
    .await?;
    for sample in &mut taken.batch.samples {
        sample.timestamp_ms = sample.timestamp_ms.or(timestamp_ms);
    }
    let outcome = append_taken(app, caller, API, taken).await?;
    if outcome.refusals.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::refused(outcome.written, &outcome.refusals).into())
}

/// The format of a text, as its `Content-Type` says.
pub(super) fn syntax_of(headers: &HeaderMap) -> Syntax {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.map(Syntax::of_content_type).unwrap_or_default()
}

/// Reads a request's body, plain or gzip, and what is in it, within a share of the budget that is to be
/// held as long as what was taken is.
pub(super) async fn receive(
    app: &App,
    scope: &Scope,
    request: Request<Body>,
    read: impl FnOnce(&[u8], &mut Intake<'_>) -> Result<Reading, ApiError> + Send + 'static,
) -> Result<(Taken, Reading, Share), ApiError> {
    let encoding = Encoding::of(request.headers())?;
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    let (scope, bytes_max) = (scope.clone(), app.settings.decoded_bytes_max);
    let taking = body::decode(body, move |body| {
        let text = encoding.decode(body, bytes_max, &mut share)?;
        let mut intake = Intake::new(&scope, &mut share);
        let reading = read(&text, &mut intake)?;
        let taken = intake.taken;
        Ok::<_, ApiError>((taken, reading, share))
    });
    taking.await?
}

/// What the query of an import says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    extra: Vec<(String, String)>,
    timestamp_ms: Option<i64>,
}

impl Query {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let bad = |message: &str| ApiError::bad_request(format!("{:?}: {message}", start_of(part)));
            let value = decode_form(value).ok_or_else(|| bad("it is not UTF-8"))?;
            match name {
                "extra_label" => match value.split_once('=') {
                    Some((METRIC_NAME_LABEL | "", _)) | None => {
                        return Err(bad("write extra_label=NAME=VALUE, and no metric's name"));
                    }
                    Some((name, value)) => parsed.extra.push((name.to_owned(), value.to_owned())),
                },
                "timestamp" => {
                    let time = value.parse().map_err(|_| bad("it is no time in Unix milliseconds"))?;
                    parsed.timestamp_ms = Some(time);
                }
                _ => return Err(bad("an import takes extra_label and timestamp")),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, TestApp};

    const URI: &str = "/api/v1/import/prometheus";

    #[tokio::test]
    async fn text_is_stored_with_labels_and_time_of_the_query() {
        let server = TestApp::serving(routes());
        let uri = format!("{URI}?extra_label=pod%3Dp&extra_label=job=j&timestamp={}", NOW_MS - 5);
        let body = format!("# TYPE a gauge\na{{pod=\"own\"}} 1\nb 2 {NOW_MS}\n");
        let answer = server.post(&uri, body).await;
        assert_eq!((answer.code.as_u16(), answer.api), (204, Some("exposition")), "{}", answer.body);
        let series = |name: &str| format!("{name}{{job=\"j\",pod=\"p\"}}");
        assert_eq!(server.everything(), [(series("a"), NOW_MS - 5, 1.0), (series("b"), NOW_MS, 2.0)]);
    }

    #[tokio::test]
    async fn bad_lines_are_told_and_the_others_stored() {
        let server = TestApp::serving(routes());
        let answer = server.post(URI, "good 1\nbad\ntwice{a=\"1\",a=\"2\"} 1\nlate 1 1\n").await;
        assert_eq!(answer.code.as_u16(), 400);
        let error = answer.json()["error"].as_str().expect("an error").to_owned();
        for part in ["1 samples are stored, 3 refused", "line 2", "\"twice\"", "beyond_retention"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(server.everything().len(), 1);
        for query in ["extra_label=x", "extra_label=__name__=x", "timestamp=now", "db=x"] {
            assert_eq!(server.post(&format!("{URI}?{query}"), "a 1").await.code.as_u16(), 400, "{query}");
        }
        let request = Request::post(URI).header("content-encoding", "br").body("a 1".into());
        assert_eq!(server.call(request.expect("a request")).await.code.as_u16(), 415);
    }
}
