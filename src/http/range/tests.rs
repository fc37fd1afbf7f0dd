//! The endpoint over the real engine.

use super::*;
use crate::app::Settings;
use crate::store::Scope;
use crate::testing::TestApp;
use axum::body::Body;
use std::collections::BTreeSet;
use std::sync::Arc;

const QUESTION: &str = "workload=my-app&namespace=default&container=my-app&metric=cpu\
                        &start=2024-01-24T12:00:00Z&end=2024-01-24T12:10:00Z&step=5m";

/// 2024-01-24T12:00:00Z, in milliseconds.
const START_MS: i64 = 1_706_097_600_000;

fn server() -> TestApp {
    server_with(Settings::default())
}

/// One container of one pod, as in the guide.
fn server_with(settings: Settings) -> TestApp {
    let server = TestApp::with_settings(settings).routed(routes());
    let labels = [
        ("__name__", "cpu"),
        ("namespace", "default"),
        ("pod", "my-app-7d4b9c6f5-x2k9p"),
        ("container", "my-app"),
    ];
    let samples = [(START_MS, 0.25), (START_MS + 300_000, 0.3), (START_MS + 600_000, 0.28)];
    server.put_all(&labels, &samples);
    server
}

async fn send(server: &TestApp, request: axum::http::request::Builder, body: &str) -> (u16, String) {
    let answer = server.call(request.body(Body::from(body.to_owned())).expect("a request")).await;
    assert_eq!(answer.api, Some("range"));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    (answer.code.as_u16(), answer.body)
}

async fn get(server: &TestApp, query: &str) -> (u16, String) {
    send(server, Request::builder().uri(format!("/api/v1/metrics?{query}")), "").await
}

#[tokio::test]
async fn the_published_question_is_answered_by_get_and_by_form() {
    let server = server();
    let (code, body) = get(&server, QUESTION).await;
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
    assert_eq!(send(&server, form, QUESTION).await, (200, body));
}

#[tokio::test]
async fn errors_are_prometheus_json_with_the_parameter_named() {
    let server = server();
    for (query, code, kind, said) in [
        ("", 400, "bad_data", "workload"),
        ("workload=a&namespace=b&metric=cpu&start=0&end=1&step=0", 400, "bad_data", "step"),
        ("workload=a&namespace=b&metric=cpu&start=2&end=1", 400, "bad_data", "start"),
        ("workload=a&namespace=b&metric=cpu&start=0&end=1000000&step=1", 400, "bad_data", "step"),
        ("workload=a&namespace=b&metric=cpux&start=0&end=1", 404, "not_found", "cpu"),
    ] {
        let (got, body) = get(&server, query).await;
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((got, json["status"].as_str()), (code, Some("error")), "{body}");
        assert_eq!(json["errorType"], kind, "{body}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(said)), "{body}");
    }
    let put = Request::builder().method("PUT").uri("/api/v1/metrics");
    assert_eq!(send(&server, put, "").await.0, 405);
}

#[tokio::test]
async fn a_question_that_would_read_too_much_is_told_what_to_do() {
    let server = server_with(Settings { samples_max: 2, ..Settings::default() });
    let (code, body) = get(&server, QUESTION).await;
    assert_eq!(code, 422);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON"),
        serde_json::json!({
            "status": "error",
            "errorType": "execution",
            "error": "the answer needs more than 2 samples: ask for fewer series or a shorter time",
        })
    );
}

#[tokio::test]
async fn only_who_may_read_the_namespace_is_answered() {
    let mut server = server();
    server.caller = None;
    assert_eq!(get(&server, QUESTION).await.0, 401);
    server.caller = Some(Caller { read: false, ..Caller::local() });
    assert_eq!(get(&server, QUESTION).await.0, 403);
    let scope = Scope::Namespaces(Arc::new(BTreeSet::from(["other".to_owned()])));
    server.caller = Some(Caller { scope, ..Caller::local() });
    let (code, body) = get(&server, QUESTION).await;
    assert_eq!(code, 403);
    assert!(body.contains(r#"may not read namespace \"default\""#), "{body}");
}
