//! `POST /api/v1/write`: Prometheus remote write, 1.0 here and 2.0 in [`super::remote_write_v2`].
//!
//! The `Content-Type` says which of the two a message is; any other is refused with 415, by which a
//! sender knows that it is to try the other.
//!
//! 204 once everything is durable; 400 when something was refused (the rest is durable all the same,
//! and a sender does not try again); 503, 504 and 507 when a sender should try again later.

use super::append::{append, count_exemplars, count_refusals};
use super::auth::Caller;
use super::error::{ApiError, PrometheusError};
use super::{Api, body, remote_write_v2};
use crate::app::App;
use crate::ingest::refusals::Refusals;
use crate::ingest::remote_write::{self, Decoded, RemoteWriteError};
use crate::ingest::remote_write_metadata;
use crate::store::Scope;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use bytes::Bytes;
use lookback_storage::Reject;

const API: &str = "remote_write";

/// This file's routes.
pub fn routes() -> Router<App> {
    let methods: MethodRouter<App> = post(write).fallback(method_not_allowed);
    Router::new().route("/api/v1/write", methods)
}

async fn method_not_allowed() -> impl IntoResponse {
    let error = ApiError::method_not_allowed("remote write is a POST", "POST");
    (Extension(Api(API)), PrometheusError(error))
}

async fn write(State(app): State<App>, caller: Caller, request: Request<Body>) -> Response {
    let response = match check(&caller, request.headers()) {
        Ok(Protocol::V1) => respond(&app, &caller, request).await.into_response(),
        Ok(Protocol::V2) => remote_write_v2::respond(&app, &caller, API, request).await,
        Err(error) => PrometheusError(error).into_response(),
    };
    Api(API).answered(response)
}

/// Which version of the protocol a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    V1,
    V2,
}

fn check(caller: &Caller, headers: &HeaderMap) -> Result<Protocol, ApiError> {
    caller.require_write()?;
    check_headers(headers)
}

async fn respond(app: &App, caller: &Caller, request: Request<Body>) -> Result<StatusCode, PrometheusError> {
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    // The message, and the series and samples in it, which take about as much again.
    let decoded_bytes = snap::raw::decompress_len(&body).unwrap_or(0).min(app.settings.decoded_bytes_max);
    share.grow(decoded_bytes.saturating_mul(2))?;
    let (message, decoded) = decode(body, app.settings.decoded_bytes_max, &caller.scope).await?;
    let Decoded { batch, mut refusals, exemplars } = decoded;
    count_exemplars(app, API, exemplars);
    let samples = batch.samples.len();
    count_refusals(app, &refusals);
    // A hint: what is wrong with it is no reason to refuse samples.
    app.metadata.note(&caller.scope, remote_write_metadata::decode(&message).unwrap_or_default());
    let report = append(app, caller, API, batch).await?;
    if !report.rejected.is_empty() {
        add_rejects(&mut refusals, &report.rejected, &message, &caller.scope);
    }
    if refusals.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let stored = samples - report.rejected.len();
    Err(ApiError::refused(stored, &refusals).into())
}

/// What the specification says of the headers, leniently where nothing can be misunderstood.
fn check_headers(headers: &HeaderMap) -> Result<Protocol, ApiError> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    let unsupported = |message: String| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let content_type = text(header::CONTENT_TYPE).unwrap_or("application/x-protobuf");
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case("application/x-protobuf") {
        return Err(unsupported(format!(
            "remote write has the Content-Type application/x-protobuf, not {content_type:?}"
        )));
    }
    let proto = parts.find_map(|part| part.strip_prefix("proto=")).map(|proto| proto.trim_matches('"'));
    let protocol = match proto {
        None | Some("prometheus.WriteRequest") => Protocol::V1,
        Some("io.prometheus.write.v2.Request") => Protocol::V2,
        Some(other) => {
            return Err(unsupported(format!(
                "remote write 1.0 (proto=prometheus.WriteRequest) and 2.0 \
                 (proto=io.prometheus.write.v2.Request) are spoken here, not {other:?}"
            )));
        }
    };
    match text(header::CONTENT_ENCODING) {
        Some(encoding) if encoding.eq_ignore_ascii_case("snappy") => Ok(protocol),
        Some(encoding) => Err(unsupported(format!(
            "remote write has the Content-Encoding snappy (its block format), not {encoding:?}"
        ))),
        None => Err(ApiError::bad_request("remote write needs the header Content-Encoding: snappy")),
    }
}

/// The decompressed message and what is in it.
async fn decode(
    body: Bytes,
    decoded_bytes_max: usize,
    scope: &Scope,
) -> Result<(Vec<u8>, Decoded), ApiError> {
    let scope = scope.clone();
    let decoded = body::decode(body, move |body| {
        let message = remote_write::decompress(body, decoded_bytes_max)?;
        let decoded = remote_write::decode(&message, &scope)?;
        Ok::<_, RemoteWriteError>((message, decoded))
    });
    Ok(decoded.await??)
}

impl From<RemoteWriteError> for ApiError {
    fn from(error: RemoteWriteError) -> Self {
        match error {
            RemoteWriteError::TooLarge { .. } | RemoteWriteError::TooManySamples => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            RemoteWriteError::NotSnappy(_) | RemoteWriteError::Malformed(_) => {
                Self::bad_request(error.to_string())
            }
        }
    }
}

/// Adds what the store refused. The series' names are decoded a second time rather than kept by every
/// request that has nothing to complain of.
fn add_rejects(refusals: &mut Refusals, rejects: &[(usize, Reject)], message: &[u8], scope: &Scope) {
    let again = remote_write::decode(message, scope).unwrap_or_default();
    for (place, reject) in rejects {
        refusals.add(reject.reason(), 1, || {
            let sample = again.batch.samples.get(*place);
            match sample.and_then(|sample| again.batch.series.get(sample.series)) {
                Some(labels) => format!("series {:?}: {reject}", labels.metric_name()),
                None => reject.to_string(),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::remote_write::messages::{TimeSeries, compress, encode, series};
    use crate::telemetry::{ApiLabels, ReasonLabels};
    use crate::testing::{Answer, Fault, NOW_MS, TestApp};
    use std::sync::Arc;

    fn request(body: Vec<u8>) -> Request<Body> {
        Request::post("/api/v1/write")
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body.into())
            .expect("a request")
    }

    async fn send(server: &TestApp, timeseries: Vec<TimeSeries>) -> Answer {
        server.call(request(compress(&encode(timeseries)))).await
    }

    fn error_of(answer: &Answer) -> String {
        answer.json()["error"].as_str().expect("a Prometheus error").to_owned()
    }

    #[tokio::test]
    async fn nothing_is_written_while_other_requests_take_the_budget() {
        let server = TestApp::serving(routes());
        let up = || vec![series(&[("__name__", "up")], &[(NOW_MS, 1.0)])];
        let mut others = server.app.request_budget().share();
        while others.grow(1 << 20).is_ok() {}
        let answer = send(&server, up()).await;
        assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert!(server.everything().is_empty());
        drop(others);
        assert_eq!(send(&server, up()).await.code, StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn what_is_sent_is_stored_and_counted() {
        let server = TestApp::serving(routes());
        let up = || vec![series(&[("__name__", "up"), ("job", "j")], &[(NOW_MS, 1.0), (NOW_MS + 1, 0.0)])];
        let answer = send(&server, up()).await;
        assert_eq!((answer.code, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(answer.api, Some("remote_write"));
        assert_eq!(send(&server, up()).await.code, StatusCode::NO_CONTENT);
        assert_eq!(send(&server, vec![]).await.code, StatusCode::NO_CONTENT);
        let name = || r#"up{job="j"}"#.to_owned();
        assert_eq!(server.everything(), [(name(), NOW_MS, 1.0), (name(), NOW_MS + 1, 0.0)]);
        let metrics = &server.app.metrics;
        assert_eq!(metrics.samples_appended.get_or_create(&ApiLabels { api: API }).get(), 2);
        assert_eq!(metrics.samples_duplicate.get_or_create(&ApiLabels { api: API }).get(), 2);
    }

    #[tokio::test]
    async fn a_large_request_is_decoded_too() {
        let server = TestApp::serving(routes());
        let samples: Vec<(i64, f64)> =
            (0..60_000_u32).map(|i| (NOW_MS + i64::from(i), f64::from(i) / 7.0)).collect();
        let body = compress(&encode(vec![series(&[("__name__", "m")], &samples)]));
        assert!(body.len() > body::INLINE_BYTES_MAX);
        assert_eq!(server.call(request(body)).await.code, StatusCode::NO_CONTENT);
        assert_eq!(server.everything().len(), samples.len());
    }

    #[tokio::test]
    async fn refused_series_and_samples_are_told_and_their_neighbours_stored() {
        let server = TestApp::serving(routes());
        let far = NOW_MS + 3_600_000;
        let answer = send(
            &server,
            vec![
                series(&[("__name__", "good")], &[(NOW_MS, 1.0)]),
                series(&[("job", "nameless")], &[(NOW_MS, 1.0)]),
                series(&[("__name__", "early")], &[(far, 1.0), (1, 1.0), (i64::MAX / 2, 1.0)]),
            ],
        )
        .await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST);
        let error = error_of(&answer);
        for part in [
            "1 samples are stored, 4 refused",
            "too_far_ahead: 2",
            "beyond_retention: 1",
            "bad_labels: 1",
            "\"early\"",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(server.everything().len(), 1);
        let reason = ReasonLabels { reason: "too_far_ahead" };
        assert_eq!(server.app.metrics.samples_rejected.get_or_create(&reason).get(), 2);
    }

    #[tokio::test]
    async fn other_protocols_are_refused_with_what_is_spoken() {
        let server = TestApp::serving(routes());
        let body = compress(&encode(vec![]));
        let with = |name: &'static str, value: Option<&'static str>| {
            let mut request = request(body.clone());
            request.headers_mut().remove(name);
            if let Some(value) = value {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            request
        };
        for (name, value, code, part) in [
            ("content-type", Some("application/x-protobuf;proto=io.prometheus.write.v3.Request"), 415, "2.0"),
            ("content-type", Some("application/json"), 415, "application/x-protobuf"),
            ("content-encoding", Some("gzip"), 415, "snappy"),
            ("content-encoding", None, 400, "Content-Encoding: snappy"),
        ] {
            let answer = server.call(with(name, value)).await;
            assert_eq!(answer.code.as_u16(), code, "{name} {value:?}");
            assert!(error_of(&answer).contains(part), "{part}: {}", answer.body);
        }
        for value in ["application/x-protobuf;proto=prometheus.WriteRequest", "Application/X-Protobuf"] {
            assert_eq!(server.call(with("content-type", Some(value))).await.code, StatusCode::NO_CONTENT);
        }
        assert_eq!(server.call(with("content-type", None)).await.code, StatusCode::NO_CONTENT);
        let answer = server.call(Request::get("/api/v1/write").body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.code, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers["allow"], "POST");
    }

    #[tokio::test]
    async fn broken_and_oversized_bodies_are_refused() {
        let server = TestApp::serving(routes());
        let answer = server.call(request(b"not snappy".to_vec())).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST, "{}", answer.body);
        let answer = server.call(request(compress(b"not protobuf"))).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST, "{}", answer.body);
        let answer = server.call(request(compress(&vec![0; 5 << 20]))).await;
        assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(error_of(&answer).contains("when decompressed"), "{}", answer.body);
        let answer = server.call(request(vec![0; 64 << 20])).await;
        assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(error_of(&answer).contains("1048576"), "{}", answer.body);
    }

    #[tokio::test]
    async fn a_failing_store_asks_senders_to_try_again() {
        let failing = TestApp::serving(routes());
        failing.store.set_fault(Some(Fault::Failing));
        for (server, code) in [(failing, 503), (TestApp::full(routes()), 507)] {
            let answer = send(&server, vec![series(&[("__name__", "m")], &[(NOW_MS, 1.0)])]).await;
            assert_eq!(answer.code.as_u16(), code);
            assert_eq!(answer.headers["retry-after"], "5");
        }
    }

    #[tokio::test]
    async fn callers_write_only_where_they_may() {
        let mut server = TestApp::serving(routes());
        let scope = Scope::Namespaces(Arc::new(["mine".to_owned()].into()));
        server.caller = Some(Caller { scope, ..Caller::local() });
        let mine = series(&[("__name__", "m"), ("namespace", "mine")], &[(NOW_MS, 1.0)]);
        let yours = series(&[("__name__", "m"), ("namespace", "yours")], &[(NOW_MS, 1.0)]);
        let answer = send(&server, vec![mine, yours]).await;
        assert_eq!(answer.code, StatusCode::BAD_REQUEST);
        assert!(error_of(&answer).contains("\"yours\""), "{}", answer.body);
        assert_eq!(server.everything().len(), 1);
        server.caller = Some(Caller { write: false, ..Caller::local() });
        assert_eq!(send(&server, vec![]).await.code, StatusCode::FORBIDDEN);
    }
}
