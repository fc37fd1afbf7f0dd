//! `POST /write-metrics/…`: one value; `POST /write-metrics`: many.
//!
//! One value: 200 with an empty body once it is durable, else a metav1 Status. Many: 200 when all
//! entries were taken, 207 when some were, 400 when none was, each with a
//! [`BatchAnswer`]; a Status when the body could not be cut into
//! entries at all, or the store failed.

use super::append::{append, count_rejected};
use super::auth::Caller;
use super::error::{ApiError, KubernetesError};
use super::{Api, body};
use crate::app::App;
use crate::ingest::batch::{BatchAnswer, BatchError, ParsedBatch};
use crate::ingest::resource_info::ResourceInfo;
use crate::ingest::write_metrics::{Push, PushError};
use crate::kubernetes::resources::Resource;
use crate::store::{Scope, StoreError};
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Json, Router};
use lookback_storage::{OutOfOrder, WriteBatch};
use std::sync::Arc;

const API_ONE: Api = Api("write_metrics");
const API_MANY: Api = Api("write_metrics_batch");

/// This file's routes.
pub fn routes() -> Router<App> {
    let one: MethodRouter<App> = post(write_one).fallback(|| method_not_allowed(API_ONE));
    let many = || -> MethodRouter<App> { post(write_many).fallback(|| method_not_allowed(API_MANY)) };
    Router::new()
        .route("/write-metrics", many())
        .route("/write-metrics/", many())
        .route("/write-metrics/{*path}", one)
        .layer(Extension(Arc::<ResourceInfo>::default()))
}

async fn method_not_allowed(api: Api) -> impl IntoResponse {
    let error = ApiError::method_not_allowed("metrics are written with POST", "POST");
    (Extension(api), KubernetesError(error))
}

async fn write_one(
    State(app): State<App>,
    Extension(info): Extension<Arc<ResourceInfo>>,
    caller: Caller,
    request: Request<Body>,
) -> Response {
    (Extension(API_ONE), append_one(&app, &info, &caller, request).await).into_response()
}

async fn append_one(
    app: &App,
    info: &ResourceInfo,
    caller: &Caller,
    request: Request<Body>,
) -> Result<StatusCode, KubernetesError> {
    caller.require_write()?;
    let uri = request.uri().clone();
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    let push =
        parse_push(app, &uri, &body).await.inspect_err(|error| count_rejected(app, error.reason(), 1))?;
    let object = push.object.clone();
    let namespace = object.scope_namespace();
    if !caller.scope.allows(namespace) {
        count_rejected(app, "out_of_scope", 1);
        let namespace = namespace.unwrap_or_default().to_owned();
        return Err(StoreError::OutOfScope { namespace }.into());
    }
    let report = append(app, caller, API_ONE.0, push.into_batch()).await?;
    if let Some((_, reject)) = report.rejected.first() {
        let message = reject.to_string();
        let limit = reject.is_limit();
        return Err(
            if limit { ApiError::too_many_series(message) } else { ApiError::bad_request(message) }.into()
        );
    }
    remember(app, info, [(&object.resource, object.is_namespaced())]).await;
    Ok(StatusCode::OK)
}

/// A resource that the cluster got a moment ago is looked for once more.
async fn parse_push(app: &App, uri: &Uri, body: &[u8]) -> Result<Push, PushError> {
    let parse = || Push::parse(&app.resolver(), uri.path(), uri.query().unwrap_or_default(), body);
    match (parse(), app.live()) {
        (Err(error), Some(live)) if error.is_not_in_cluster() => {
            live.mapping.refresh_after_miss().await;
            parse()
        }
        (parsed, _) => parsed,
    }
}

impl From<PushError> for ApiError {
    fn from(error: PushError) -> Self {
        let code = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        Self::new(code, error.to_string())
    }
}

async fn write_many(
    State(app): State<App>,
    Extension(info): Extension<Arc<ResourceInfo>>,
    caller: Caller,
    request: Request<Body>,
) -> Response {
    (Extension(API_MANY), append_many(&app, &info, &caller, request).await).into_response()
}

async fn append_many(
    app: &App,
    info: &ResourceInfo,
    caller: &Caller,
    request: Request<Body>,
) -> Result<(StatusCode, Json<BatchAnswer>), KubernetesError> {
    caller.require_write()?;
    let mut share = app.request_budget().share();
    let body = body::read(request, app.settings.body_bytes_max, &mut share).await?;
    // The entries that are made of it take about twice as much.
    share.grow(body.len().saturating_mul(2))?;
    let (scope, resolver) = (caller.scope.clone(), app.resolver());
    let mut parsed = body::decode(body, move |body| ParsedBatch::parse(&resolver, body, &scope)).await??;
    if let Some(live) = app.live().filter(|_| parsed.names_unknown_resources) {
        live.mapping.missed();
    }
    for (reason, entries) in parsed.refused_by_reason() {
        count_rejected(app, reason, entries);
    }
    let batch = std::mem::take(&mut parsed.batch);
    let report = append(app, caller, API_MANY.0, batch).await?;
    let described = parsed.custom_resources.iter().map(|((_, namespaced), resource)| (resource, *namespaced));
    remember(app, info, described).await;
    let limits = report.rejected.iter().all(|(_, reject)| reject.is_limit());
    let answer = parsed.answer(report.accepted, report.duplicates, &report.rejected);
    let code = match (answer.accepted + answer.duplicates, answer.rejected_count) {
        (_, 0) => StatusCode::OK,
        (0, refused) if limits && refused == report.rejected.len() => StatusCode::TOO_MANY_REQUESTS,
        (0, _) => StatusCode::BAD_REQUEST,
        _ => StatusCode::MULTI_STATUS,
    };
    Ok((code, Json(answer)))
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let code = match error {
            BatchError::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            BatchError::Empty | BatchError::Array(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(code, error.to_string())
    }
}

/// Appends the info series of those custom resources for which it is due, all at once. A failure does
/// not concern the caller, whose values are durable: the next push tries again.
async fn remember(
    app: &App,
    info: &ResourceInfo,
    described: impl IntoIterator<Item = (&Resource, bool)> + Send,
) {
    let now_ms = app.clock.now_ms();
    let mut batch = WriteBatch::default();
    for (resource, namespaced) in described {
        if let Some(labels) = info.due(resource, namespaced, now_ms) {
            batch.push(labels, None, 1.0);
        }
    }
    if batch.samples.is_empty() {
        return;
    }
    let due = batch.series.clone();
    // The series are in nobody's namespace, so the caller's scope does not hold them.
    match app.store.append(&app.context(&Scope::All), batch, now_ms, OutOfOrder::Window).await {
        Ok(_) => due.into_iter().for_each(|labels| info.appended(labels, now_ms)),
        Err(error) => {
            tracing::warn!(resources = due.len(), %error, "could not note custom resources for discovery");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{ApiLabels, ReasonLabels};
    use crate::testing::{Answer, NOW_MS, TestApp};
    use serde_json::json;

    const POD: &str = "/write-metrics/namespaces/default/pods/my-pod/my_custom_metric";

    fn status_of(answer: &Answer) -> (u16, String, String) {
        let status = answer.json();
        assert_eq!(status["kind"], "Status", "{}", answer.body);
        assert_eq!(status["code"], answer.code.as_u16());
        let text = |name: &str| status[name].as_str().expect(name).to_owned();
        (answer.code.as_u16(), text("reason"), text("message"))
    }

    #[tokio::test]
    async fn the_published_curl_works_as_printed() {
        let server = TestApp::serving(routes());
        let request = Request::post(POD)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(r#""42""#))
            .expect("a request");
        let answer = server.call(request).await;
        assert_eq!((answer.code, answer.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(answer.api, Some("write_metrics"));
        let series = r#"my_custom_metric{namespace="default",pod="my-pod"}"#.to_owned();
        assert_eq!(server.everything(), [(series, NOW_MS, 42.0)]);
        let counted = server.app.metrics.samples_appended.get_or_create(&ApiLabels { api: "write_metrics" });
        assert_eq!(counted.get(), 1);
    }

    #[tokio::test]
    async fn label_sets_stand_side_by_side_and_times_are_kept() {
        let server = TestApp::serving(routes());
        for (query, body) in [
            ("?labels=verb%3DGET", "\"300m\""),
            ("?labels=verb%3DPUT%2Ccode%3D200&timestamp=2026-11-22T09:01:00Z", " 7\n"),
            ("", "0.5"),
            ("", "0.5"),
        ] {
            assert_eq!(server.post(&format!("/write-metrics/nodes/n1/load{query}"), body).await.code, 200);
        }
        let own = |series: &str, t, v| (series.to_owned(), t, v);
        assert_eq!(
            server.everything(),
            [
                own(r#"load{code="200",node="n1",verb="PUT"}"#, NOW_MS - 60_000, 7.0),
                own(r#"load{node="n1"}"#, NOW_MS, 0.5),
                own(r#"load{node="n1"}"#, NOW_MS + 1, 0.5),
                own(r#"load{node="n1",verb="GET"}"#, NOW_MS, 0.3),
            ]
        );
    }

    #[tokio::test]
    async fn bad_values_are_refused_and_counted() {
        let server = TestApp::serving(routes());
        for body in [
            "",
            "\"42",
            "42 junk",
            "\"42\" \"43\"",
            "{\"Value\":42}",
            "NaN",
            "\"NaN\"",
            "1e400",
            "\"1e400\"",
            "[1]",
            "null",
        ] {
            let (code, reason, message) = status_of(&server.post(POD, body).await);
            assert_eq!((code, reason.as_str()), (400, "BadRequest"), "{body}");
            assert!(message.len() < 400, "{message}");
        }
        assert_eq!(server.everything(), []);
        let reason = ReasonLabels { reason: "bad_quantity" };
        assert_eq!(server.app.metrics.samples_rejected.get_or_create(&reason).get(), 11);
    }

    #[tokio::test]
    async fn bad_addresses_labels_and_times_are_refused() {
        let server = TestApp::serving(routes());
        // Some more, and the address itself would be too long (65,534 bytes) for the HTTP library.
        let many: Vec<String> = (0..9_000).map(|i| format!("{i:x}=v")).collect();
        let many = format!("?labels={}", many.join(","));
        for (path, query, code, part) in [
            ("/write-metrics/pods", "", 404, "namespaces/{namespace}/{resource}"),
            ("/write-metrics/a/b/c/d", "", 404, "namespaces/{namespace}/{resource}"),
            ("/write-metrics/namespaces/x/podz/p/m", "", 404, "podz"),
            ("/write-metrics/pods/p/m", "", 400, "namespace"),
            ("/write-metrics/namespaces/x/pods/%2A/m", "", 400, "*"),
            (POD, "?labels=oops", 400, "oops"),
            (POD, "?labels=pod%3Dx", 400, "pod"),
            (POD, "?labels=__name__%3Dx", 400, "__name__"),
            (POD, "?labels=a%3D1,a%3D2", 400, "more than once"),
            (POD, many.as_str(), 400, "9003 labels"),
            (POD, "?timestamp=yesterday", 400, "yesterday"),
            (POD, "?timestamp=1", 400, "retention"),
            (POD, "?timestamp=2026-11-22T09:13:00Z", 400, "ahead"),
            (POD, "?ts=1", 400, "ts"),
        ] {
            let (got, _, message) = status_of(&server.post(&format!("{path}{query}"), "1").await);
            assert_eq!(got, code, "{path}{query}: {message}");
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(server.everything(), []);
    }

    #[tokio::test]
    async fn odd_names_and_labels_are_stored_as_they_are() {
        let server = TestApp::serving(routes());
        let uri = "/write-metrics/namespaces/a%20b/pods/p%22%C3%A4/m%20%27%E2%82%AC?labels=k%20%22%3Dv%20%C3%A4%22x";
        assert_eq!(server.post(uri, "1").await.code, 200);
        let all = server.everything();
        assert_eq!(all[0].0, "{\"m '€\",\"k \\\"\"=\"v ä\\\"x\",namespace=\"a b\",pod=\"p\\\"ä\"}");
    }

    #[tokio::test]
    async fn other_methods_and_large_bodies_are_refused() {
        let server = TestApp::serving(routes());
        for uri in [POD, "/write-metrics"] {
            for method in ["GET", "PUT", "DELETE"] {
                let request =
                    Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
                let answer = server.call(request).await;
                assert_eq!(answer.headers["allow"], "POST");
                assert_eq!(status_of(&answer).1, "MethodNotAllowed");
            }
            let (code, reason, message) = status_of(&server.post(uri, vec![b'1'; 64 << 20]).await);
            assert_eq!((code, reason.as_str()), (413, "RequestEntityTooLarge"));
            assert!(message.contains("1048576"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_body_of_unstated_length_is_bounded_too() {
        let server = TestApp::serving(routes());
        let chunks = futures::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b'1'; 1 << 20])));
        assert_eq!(status_of(&server.post(POD, Body::from_stream(chunks)).await).0, 413);
        let cut = futures::stream::iter([Ok(vec![b'1']), Err(std::io::Error::other("gone"))]);
        assert_eq!(status_of(&server.post(POD, Body::from_stream(cut)).await).0, 400);
    }

    #[tokio::test]
    async fn callers_write_only_where_they_may() {
        let mut server = TestApp::serving(routes());
        let scope = Scope::Namespaces(Arc::new(["default".to_owned()].into()));
        server.caller = Some(Caller { scope, ..Caller::local() });
        assert_eq!(server.post(POD, "1").await.code, 200);
        for uri in ["/write-metrics/namespaces/other/pods/p/m", "/write-metrics/nodes/n1/m"] {
            assert_eq!(status_of(&server.post(uri, "1").await).1, "Forbidden");
        }
        assert_eq!(server.post("/write-metrics/namespaces/default/metrics/m", "1").await.code, 200);
        let entry =
            |ns: &str| json!({"namespace": ns, "resource": "pods", "name": "p", "metric": "m", "value": 1});
        let answer = server.post("/write-metrics", format!("{}\n{}", entry("other"), entry("default"))).await;
        assert_eq!(answer.code, StatusCode::MULTI_STATUS);
        assert_eq!(answer.json()["rejected"][0]["reason"], "out_of_scope");
        server.caller = Some(Caller { write: false, ..Caller::local() });
        for uri in [POD, "/write-metrics"] {
            assert_eq!(status_of(&server.post(uri, "1").await).1, "Forbidden");
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_nothing_acknowledged() {
        let server = TestApp::full(routes());
        let answer = server.post(POD, "1").await;
        assert_eq!(status_of(&answer).0, 507);
        assert_eq!(answer.headers["retry-after"], "5");
    }

    #[tokio::test]
    async fn a_batch_takes_the_good_and_names_the_bad() {
        let server = TestApp::serving(routes());
        let entry = |name: &str, value: &str, timestamp_ms: i64| {
            let entry = json!({
                "namespace": "default", "resource": "pods", "name": name, "metric": "m",
                "value": value, "timestamp": timestamp_ms,
            });
            format!("{entry}\n")
        };
        let good = entry("p1", "1", NOW_MS) + &entry("p2", "2", NOW_MS - 1);
        let answer = server.post("/write-metrics", good.clone()).await;
        assert_eq!(answer.code, StatusCode::OK);
        assert_eq!(answer.api, Some("write_metrics_batch"));
        assert_eq!(
            answer.json(),
            json!({"accepted": 2, "duplicates": 0, "rejected": [], "rejected_count": 0})
        );
        let mixed =
            entry("p1", "x", NOW_MS) + &good + &entry("p3", "3", 1) + "junk\n" + &entry("p4", "4", NOW_MS);
        let answer = server.post("/write-metrics", mixed).await;
        assert_eq!(answer.code, StatusCode::MULTI_STATUS);
        let body = answer.json();
        assert_eq!(
            (&body["accepted"], &body["duplicates"], &body["rejected_count"]),
            (&1.into(), &2.into(), &3.into())
        );
        let places: Vec<_> = body["rejected"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|r| (r["line"].as_u64().expect("a line"), r["reason"].as_str().expect("a reason")))
            .collect();
        assert_eq!(places, [(1, "bad_quantity"), (4, "beyond_retention"), (5, "bad_json")]);
        assert_eq!(server.log_groups(), 2, "one append a batch");
        let answer = server.post("/write-metrics/", "junk").await;
        assert_eq!((answer.code, &answer.json()["rejected_count"]), (StatusCode::BAD_REQUEST, &1.into()));
        for body in ["", "[1", "[] junk"] {
            assert_eq!(status_of(&server.post("/write-metrics", body).await).0, 400, "{body}");
        }
        assert_eq!(server.post("/write-metrics", "[]").await.code, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_large_batch_is_read_too() {
        let server = TestApp::serving(routes());
        let entry = r#"{"resource":"nodes","name":"n","metric":"m","value":1}"#;
        let answer =
            server.post("/write-metrics", format!("[{entry}{}]", format!(",{entry}").repeat(1_999))).await;
        assert_eq!((answer.code, &answer.json()["accepted"]), (StatusCode::OK, &2_000.into()));
    }

    #[tokio::test]
    async fn all_custom_resources_of_a_batch_are_noted_at_once() {
        let server = TestApp::serving(routes());
        let entry = |i| format!(r#"{{"resource":"w{i}.example.com","name":"w","metric":"m","value":1}}"#);
        let body = (0..1_000).map(entry).collect::<Vec<_>>().join("\n");
        assert_eq!(server.post("/write-metrics", body).await.code, 200);
        let all = server.everything();
        assert_eq!(all.iter().filter(|(s, ..)| s.starts_with("lookback_resource_info")).count(), 1_000);
        assert!(server.log_groups() < 100, "{} groups for 1,000 resources", server.log_groups());
    }

    #[tokio::test]
    async fn custom_resources_are_noted_once_an_hour() {
        let server = TestApp::serving(routes());
        let uri = "/write-metrics/namespaces/default/widgets.example.com/w1/m";
        let notes = || {
            let all = server.everything();
            all.iter().filter(|(series, ..)| series.starts_with("lookback_resource_info")).count()
        };
        for _ in 0..2 {
            assert_eq!(server.post(uri, "1").await.code, 200);
            let entry =
                r#"{"namespace":"x","resource":"widgets.example.com","name":"w","metric":"m","value":1}"#;
            assert_eq!(server.post("/write-metrics", entry).await.code, 200);
        }
        assert_eq!(notes(), 1);
        server.clock.set_ms(NOW_MS + 3_600_000);
        assert_eq!(server.post(uri, "1").await.code, 200);
        assert_eq!(notes(), 2);
    }
}
