//! `POST /api/v1/write` with a remote write 2.0 message; [`super::remote_write`] tells the two apart.
//!
//! Answers as 1.0 does, and says in headers how many samples, histograms and exemplars are durable,
//! however it ends: senders count by them what was lost.

use super::append::append_taken;
use super::auth::Caller;
use super::body;
use super::error::{ApiError, PrometheusError};
use crate::app::App;
use crate::budget::Share;
use crate::ingest::intake::{Intake, IntakeError, Taken};
use crate::ingest::remote_write::decompress;
use crate::ingest::remote_write_v2::{V2Error, decode};
use crate::store::Scope;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// Answers a request whose headers say that it is 2.0.
pub(super) async fn respond(
    app: &App,
    caller: &Caller,
    api: &'static str,
    request: Request<Body>,
) -> Response {
    let (written, mut response) = match write(app, caller, api, request).await {
        Ok((written, None)) => (written, StatusCode::NO_CONTENT.into_response()),
        Ok((written, Some(error))) => (written, PrometheusError(error).into_response()),
        Err(error) => (0, PrometheusError(error).into_response()),
    };
    let headers = response.headers_mut();
    headers.insert(SAMPLES_WRITTEN, HeaderValue::from(written));
    // Neither is kept yet: a sender sees it here, and operators in /metrics.
    headers.insert(HISTOGRAMS_WRITTEN, HeaderValue::from(0));
    headers.insert(EXEMPLARS_WRITTEN, HeaderValue::from(0));
    response
}

/// How many samples are durable, and what was refused of the others.
async fn write(
    app: &App,
    caller: &Caller,
    api: &'static str,
    request: Request<Body>,
) -> Result<(usize, Option<ApiError>), ApiError> {
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    let decoded_bytes = snap::raw::decompress_len(&body).unwrap_or(0).min(app.settings.decoded_bytes_max);
    share.grow(decoded_bytes)?;
    // The share is held until the answer is there.
    let (taken, _share) = take(body, app.settings.decoded_bytes_max, &caller.scope, share).await?;
    let outcome = append_taken(app, caller, api, taken).await?;
    if outcome.refusals.is_empty() {
        return Ok((outcome.written, None));
    }
    Ok((outcome.written, Some(ApiError::refused(outcome.written, &outcome.refusals))))
}

async fn take(
    body: Bytes,
    decoded_bytes_max: usize,
    scope: &Scope,
    mut share: Share,
) -> Result<(Taken, Share), ApiError> {
    let scope = scope.clone();
    let taken = body::decode(body, move |body| {
        let message = decompress(body, decoded_bytes_max)?;
        let mut intake = Intake::new(&scope, &mut share);
        decode(&message, &mut intake)?;
        let taken = intake.taken;
        Ok::<_, ApiError>((taken, share))
    });
    taken.await?
}

impl From<V2Error> for ApiError {
    fn from(error: V2Error) -> Self {
        match error {
            V2Error::Intake(error) => error.into(),
            V2Error::TooManySymbols => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            V2Error::Malformed(_) => Self::bad_request(error.to_string()),
        }
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Budget(spent) => spent.into(),
            IntakeError::TooManySamples => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::auth::Caller;
    use crate::http::remote_write::routes;
    use crate::ingest::remote_write::messages::compress;
    use crate::ingest::remote_write_v2::messages::{Builder, Metadata};
    use crate::metadata::MetricType;
    use crate::telemetry::ApiLabels;
    use crate::testing::{Answer, NOW_MS, TestApp};
    use axum::http::Request;

    async fn send(server: &TestApp, body: Vec<u8>) -> Answer {
        let request = Request::post("/api/v1/write")
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
            .header("x-prometheus-remote-write-version", "2.0.0")
            .body(body.into());
        server.call(request.expect("a request")).await
    }

    fn written(answer: &Answer) -> [&str; 3] {
        ["samples", "histograms", "exemplars"].map(|what| {
            let header = answer.headers.get(format!("x-prometheus-remote-write-{what}-written"));
            header.expect("is always there").to_str().expect("a number")
        })
    }

    #[tokio::test]
    async fn what_is_sent_is_stored_and_the_headers_say_so() {
        let server = TestApp::serving(routes());
        let mut request = Builder::default();
        let help = request.symbol("help");
        let up = request.series(&[("__name__", "up"), ("job", "j")], &[(NOW_MS, 1.0), (NOW_MS + 1, 0.0)]);
        up.metadata = Some(Metadata { kind: 1, help_ref: help, unit_ref: 0 });
        up.exemplars = vec![vec![]];
        let body = compress(&request.encode());
        for _ in 0..2 {
            let answer = send(&server, body.clone()).await;
            assert_eq!((answer.code.as_u16(), written(&answer)), (204, ["2", "0", "0"]), "{}", answer.body);
            assert_eq!(answer.api, Some("remote_write"));
        }
        let name = || r#"up{job="j"}"#.to_owned();
        assert_eq!(server.everything(), [(name(), NOW_MS, 1.0), (name(), NOW_MS + 1, 0.0)]);
        assert_eq!(server.app.metadata.get("up").map(|said| said.kind), Some(MetricType::Counter));
        let labels = ApiLabels { api: "remote_write" };
        assert_eq!(server.app.metrics.exemplars_ignored.get_or_create(&labels).get(), 2);
    }

    #[tokio::test]
    async fn one_bad_sample_does_not_hold_its_neighbours_back() {
        let server = TestApp::serving(routes());
        let mut request = Builder::default();
        request.series(&[("__name__", "good")], &[(NOW_MS, 1.0)]);
        request.series(&[("__name__", "future")], &[(NOW_MS + 3_600_000, 1.0), (NOW_MS, 2.0)]);
        request.series(&[("__name__", "h")], &[]).histograms = vec![vec![]];
        request.series(&[("job", "nameless")], &[(NOW_MS, 1.0)]);
        let answer = send(&server, compress(&request.encode())).await;
        assert_eq!((answer.code.as_u16(), written(&answer)), (400, ["2", "0", "0"]));
        let error = answer.json()["error"].as_str().expect("an error").to_owned();
        for part in ["2 samples are stored, 3 refused", "\"future\"", "native histograms", "no name"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(server.everything().len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_read_or_stored_writes_nothing_and_says_so() {
        let server = TestApp::serving(routes());
        let bomb = compress(&vec![0; 5 << 20]);
        for (body, code) in [(b"junk".to_vec(), 400), (compress(b"\x2a\xff"), 400), (bomb, 413)] {
            let answer = send(&server, body).await;
            assert_eq!((answer.code.as_u16(), written(&answer)), (code, ["0"; 3]), "{}", answer.body);
        }
        let mut request = Builder::default();
        request.series(&[("__name__", "up")], &[(NOW_MS, 1.0)]);
        let body = compress(&request.encode());
        let full = TestApp::full(routes());
        let answer = send(&full, body.clone()).await;
        assert_eq!((answer.code.as_u16(), written(&answer)), (507, ["0"; 3]));
        let mut reader = TestApp::serving(routes());
        reader.caller = Some(Caller { write: false, ..Caller::local() });
        assert_eq!(send(&reader, body).await.code.as_u16(), 403);
        assert!(server.everything().is_empty() && reader.everything().is_empty());
    }
}
