//! Answers that are too large to be held are those that would be held, if they could be.

use super::*;
use crate::app::Settings;
use crate::testing::{Fault, TestApp};
use axum::body::BodyDataStream;
use axum::response::Response;
use futures::StreamExt;
use tower::ServiceExt;

/// 2024-01-24T12:00:00Z, in milliseconds.
const START_MS: i64 = 1_706_097_600_000;

/// A workload whose pods are known by their owners, by the label and by their names, and another kind of its name.
fn server(held_max: usize) -> TestApp {
    let settings = Settings { range_points_held_max: held_max, ..Settings::default() };
    let server = TestApp::with_settings(settings).routed(routes());
    let put = |name: &str, labels: &[(&str, &str)], values: &[f64]| {
        let labels = [&[("__name__", name), ("namespace", "shop")], labels].concat();
        let samples: Vec<_> = (0..).map(|i| START_MS + i * 30_000).zip(values.iter().copied()).collect();
        server.put_all(&labels, &samples);
    };
    let owner = |pod: &str, kind: &str, owner: &str| {
        put("kube_pod_owner", &[("pod", pod), ("owner_kind", kind), ("owner_name", owner)], &[1.0]);
    };
    for set in 0..3 {
        let replicaset = format!("web-66b6c48dd{set}");
        let of_web =
            [("owner_kind", "Deployment"), ("owner_name", "web"), ("replicaset", replicaset.as_str())];
        put("kube_replicaset_owner", &of_web, &[1.0]);
        for pod in 0..7 {
            let pod = format!("{replicaset}-vmz8{pod}");
            owner(&pod, "ReplicaSet", &replicaset);
            for container in ["app", "proxy"] {
                let values: Vec<f64> = (0..20).map(|i| f64::from(i) / 7.0).collect();
                put("cpu", &[("pod", &pod), ("container", container)], &values);
            }
        }
    }
    for (workload, kind) in [("both", "StatefulSet"), ("both", "DaemonSet")] {
        for pod in 0..9 {
            let pod = format!("both-{kind}-{pod}");
            owner(&pod, kind, workload);
            put("cpu", &[("pod", &pod), ("container", "app")], &[1.0, 2.0, 3.0]);
        }
    }
    for pod in 0..11 {
        let (labelled, named) = (format!("any-{pod}"), format!("web-{pod}"));
        put("cpu", &[("pod", &labelled), ("container", "app"), ("workload", "web")], &[0.5; 9]);
        put("cpu", &[("pod", &named), ("container", "app")], &[0.25; 5]);
        put("container_cpu_usage_cores", &[("pod", &named), ("container", "late")], &[0.75; 5]);
    }
    put("cpu", &[("workload", "web"), ("container", "app")], &[4.0; 4]);
    server
}

fn path(workload: &str, more: &str) -> String {
    let (start, end) = (START_MS / 1_000, START_MS / 1_000 + 600);
    format!(
        "/api/v1/metrics?workload={workload}&namespace=shop&metric=cpu&start={start}&end={end}&step=30s{more}"
    )
}

#[tokio::test]
async fn a_large_answer_is_the_same_as_a_whole_one() {
    let whole = server(1_000_000);
    for held_max in [1, 30, 100, 300] {
        let large = server(held_max);
        for (workload, more) in [
            ("web", ""),
            ("web", "&container=app"),
            ("web", "&kind=Deployment"),
            ("web", "&merge=avg"),
            ("both", ""),
            ("both", "&kind=daemonset"),
            ("both", "&kind=Job"),
        ] {
            let (expected, told) =
                (whole.get(&path(workload, more)).await, large.get(&path(workload, more)).await);
            assert!(expected.headers.contains_key(header::ETAG));
            assert_eq!(told.body, expected.body, "{workload}{more} by {held_max}");
            if held_max == 1 {
                // What is merged can be held, as can nothing, and is tagged.
                let is_held = more.contains("merge") || told.json()["data"]["result"][0].is_null();
                assert_eq!(told.headers.contains_key(header::ETAG), is_held, "{workload}{more}");
            }
        }
        assert_eq!(large.get(&path("nobody", "")).await.body, whole.get(&path("nobody", "")).await.body);
    }
}

async fn begin(server: &TestApp) -> BodyDataStream {
    let mut request = Request::get(path("web", "")).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Caller::local());
    let response: Response =
        routes().with_state(server.app.clone()).oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().into_data_stream()
}

#[tokio::test]
async fn what_is_read_later_is_not_read_before_and_a_failure_breaks_the_answer_off() {
    let server = server(30);
    let mut body = begin(&server).await;
    assert!(body.next().await.expect("a piece").is_ok());
    server.store.set_fault(Some(Fault::Failing));
    let mut rest = Vec::new();
    while let Some(piece) = body.next().await {
        rest.push(piece.is_ok());
    }
    assert_eq!(rest.last(), Some(&false), "what was not read yet can't be sent");
    server.store.set_fault(None);
    let mut body = begin(&server).await;
    while let Some(piece) = body.next().await {
        piece.expect("a piece");
    }
    server.store.set_fault(Some(Fault::Failing));
    assert_eq!(server.get(&path("web", "")).await.code, StatusCode::SERVICE_UNAVAILABLE);
}
