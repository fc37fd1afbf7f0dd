//! The endpoint over a store in memory.

use super::*;
use crate::app::{Parts, Settings};
use crate::clock::ManualClock;
use crate::query::range::double::MemoryStore;
use crate::store::Scope;
use axum::body::{Body, to_bytes};
use std::collections::BTreeSet;
use std::sync::Arc;
use tower::ServiceExt;

const QUESTION: &str = "workload=my-app&namespace=default&container=my-app&metric=cpu\
                        &start=2024-01-24T12:00:00Z&end=2024-01-24T12:10:00Z&step=5m";

fn app() -> App {
    let labels = |pod| [("__name__", "cpu"), ("namespace", "default"), ("pod", pod), ("container", "my-app")];
    let start = 1_706_097_600;
    let samples = [(start, 0.25), (start + 300, 0.3), (start + 600, 0.28)];
    App::new(Parts {
        store: Arc::new(MemoryStore::default().with(&labels("my-app-7d4b9c6f5-x2k9p"), &samples)),
        clock: Arc::new(ManualClock::default()),
        settings: Settings::default(),
        metrics: Arc::default(),
        catalog: Arc::default(),
    })
}

async fn send(caller: Option<Caller>, request: axum::http::request::Builder, body: &str) -> (u16, String) {
    let mut request = request.body(Body::from(body.to_owned())).expect("a request");
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let response = routes().with_state(app()).oneshot(request).await.expect("infallible");
    assert_eq!(response.extensions().get::<Api>().map(|api| api.0), Some("range"));
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let code = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (code, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

async fn get(query: &str) -> (u16, String) {
    let request = Request::builder().uri(format!("/api/v1/metrics?{query}"));
    send(Some(Caller::local()), request, "").await
}

#[tokio::test]
async fn the_published_question_is_answered_by_get_and_by_form() {
    let (code, body) = get(QUESTION).await;
    assert_eq!(code, 200);
    assert!(
        body.starts_with(concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"container":"my-app","#,
            r#""pod":"my-app-7d4b9c6f5-x2k9p","namespace":"default"},"values":[[1706097600,"0.25"],"#,
            r#"[1706097900,"0.3"],[1706098200,"0.28"]]}]},"infos":["#
        )),
        "{body}"
    );
    let form = Request::builder()
        .method("POST")
        .uri("/api/v1/metrics")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(send(Some(Caller::local()), form, QUESTION).await, (200, body));
}

#[tokio::test]
async fn errors_are_prometheus_json_with_the_parameter_named() {
    for (query, code, kind, said) in [
        ("", 400, "bad_data", "workload"),
        ("workload=a&namespace=b&metric=cpu&start=0&end=1&step=0", 400, "bad_data", "step"),
        ("workload=a&namespace=b&metric=cpu&start=2&end=1", 400, "bad_data", "start"),
        ("workload=a&namespace=b&metric=cpu&start=0&end=1000000&step=1", 400, "bad_data", "step"),
        ("workload=a&namespace=b&metric=cpux&start=0&end=1", 404, "not_found", "cpu"),
    ] {
        let (got, body) = get(query).await;
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((got, json["status"].as_str()), (code, Some("error")), "{body}");
        assert_eq!(json["errorType"], kind, "{body}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(said)), "{body}");
    }
    let put = Request::builder().method("PUT").uri("/api/v1/metrics");
    assert_eq!(send(Some(Caller::local()), put, "").await.0, 405);
}

#[tokio::test]
async fn only_who_may_read_the_namespace_is_answered() {
    let ask = || Request::builder().uri(format!("/api/v1/metrics?{QUESTION}"));
    assert_eq!(send(None, ask(), "").await.0, 401);
    let writer = Caller { read: false, ..Caller::local() };
    assert_eq!(send(Some(writer), ask(), "").await.0, 403);
    let scope = Scope::Namespaces(Arc::new(BTreeSet::from(["other".to_owned()])));
    let (code, body) = send(Some(Caller { scope, ..Caller::local() }), ask(), "").await;
    assert_eq!(code, 403);
    assert!(body.contains(r#"may not read namespace \"default\""#), "{body}");
}
