use super::*;
use crate::app::Settings;
use crate::http::kubernetes_apis::routes;
use crate::kubernetes::served::Served;
use crate::store::Scope;
use crate::testing::{Answer, NOW_MS, TestApp};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const BASE: &str = "/apis/metrics.k8s.io/v1beta1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

fn server() -> TestApp {
    let served = Served::of_runtime_config(["metrics.k8s.io=true"]).expect("usable");
    let server = TestApp::with_settings(Settings { served, ..Settings::default() }).routed(routes());
    for (namespace, pod, container, cores) in [
        ("shop", "web-0", "app", 0.25_f64),
        ("shop", "web-0", "side", 0.001),
        ("shop", "web-1", "app", 0.5),
        ("bank", "db", "pg", 2.0),
    ] {
        let labels = |metric: &'static str| {
            [("__name__", metric), ("namespace", namespace), ("pod", pod), ("container", container)]
        };
        let points = [(NOW_MS - 20_046, 100.0), (NOW_MS - 5_000, cores.mul_add(15.046, 100.0))];
        server.put_all(&labels("container_cpu_usage_seconds_total"), &points);
        server.put(&labels("container_memory_working_set_bytes"), NOW_MS, 52_428_800.0);
    }
    let cpu = [("__name__", "node_cpu_usage_seconds_total"), ("node", "n1")];
    server.put_all(&cpu, &[(NOW_MS - 60_000, 1.0), (NOW_MS, 31.0)]);
    server.put(&[("__name__", "node_memory_working_set_bytes"), ("node", "n1")], NOW_MS, 4_096_000.0);
    server
}

async fn ask(server: &TestApp, path: &str, accept: &str) -> Answer {
    let request = Request::get(format!("{BASE}/{path}")).header("Accept", accept);
    server.call(request.body(Body::empty()).expect("a request")).await
}

async fn names(server: &TestApp, path: &str) -> Vec<String> {
    let answer = server.get(&format!("{BASE}/{path}")).await;
    assert_eq!(
        (answer.code.as_u16(), answer.api),
        (200, Some("resource_metrics")),
        "{path}: {}",
        answer.body
    );
    let items = answer.json()["items"].as_array().expect("a list").clone();
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn pods_and_nodes_are_told_in_the_exact_shape() {
    let server = server();
    let pod = server.get(&format!("{BASE}/namespaces/shop/pods/web-0")).await;
    let now = "2026-11-22T09:02:00Z";
    let web = json!({
        "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "web-0", "namespace": "shop", "creationTimestamp": now},
        "timestamp": "2026-11-22T09:01:55Z", "window": "15.046s",
        "containers": [
            {"name": "app", "usage": {"cpu": "250m", "memory": "50Mi"}},
            {"name": "side", "usage": {"cpu": "1m", "memory": "50Mi"}},
        ],
    });
    assert_eq!(pod.json(), web);
    let node = json!({
        "metadata": {"name": "n1", "creationTimestamp": now},
        "timestamp": now, "window": "1m0s", "usage": {"cpu": "500m", "memory": "4000Ki"},
    });
    let nodes = server.get(&format!("{BASE}/nodes")).await.json();
    assert_eq!(
        nodes,
        json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": [node]})
    );
    let pods = server.get(&format!("{BASE}/pods")).await.json();
    assert_eq!((&pods["kind"], pods["items"].as_array().map(Vec::len)), (&json!("PodMetricsList"), Some(3)));
    assert_eq!(pods["items"][1].get("kind"), None, "an item of a list has none");
}

#[tokio::test]
async fn lists_are_of_a_namespace_and_of_selected_fields() {
    let server = server();
    for (path, expected) in [
        ("pods", &["db", "web-0", "web-1"][..]),
        ("namespaces/shop/pods", &["web-0", "web-1"]),
        ("namespaces/absent/pods", &[]),
        ("pods?fieldSelector=metadata.namespace%3Dbank", &["db"]),
        ("namespaces/shop/pods?fieldSelector=metadata.name!%3Dweb-0", &["web-1"]),
        ("nodes?fieldSelector=metadata.name=n1", &["n1"]),
        ("nodes?fieldSelector=metadata.name=n2", &[]),
    ] {
        assert_eq!(names(&server, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn what_can_not_be_answered_says_why() {
    let mut server = server();
    for (path, code, said) in [
        (
            "namespaces/shop/pods/absent",
            404,
            "pods.metrics.k8s.io \"shop/absent\" not found: there are no two points",
        ),
        ("nodes/n2", 404, "nodes.metrics.k8s.io \"n2\" not found"),
        ("pods?labelSelector=app%3Dweb", 501, "labelSelector is served only in a cluster"),
        ("pods?labelSelector=!!", 400, "unable to parse requirement"),
        ("pods?fieldSelector=status.phase%3DRunning", 400, "use metadata.name or metadata.namespace"),
        ("pods?watch=1", 405, "can't be watched"),
        ("pods/web-0", 404, "could not find the requested resource"),
    ] {
        let answer = server.get(&format!("{BASE}/{path}")).await;
        let status = answer.json();
        assert_eq!((answer.code.as_u16(), &status["kind"]), (code, &json!("Status")), "{path}");
        assert!(status["message"].as_str().expect("a message").contains(said), "{path}: {status}");
    }
    let shop = Scope::Namespaces(Arc::new(BTreeSet::from(["shop".to_owned()])));
    server.caller = Some(Caller { user: "eve".to_owned(), scope: shop, ..Caller::local() });
    assert_eq!(names(&server, "namespaces/shop/pods").await, ["web-0", "web-1"]);
    for path in ["pods", "namespaces/bank/pods", "nodes"] {
        assert_eq!(server.get(&format!("{BASE}/{path}")).await.code, 403, "{path}");
    }
    let off = TestApp::serving(routes());
    for path in ["", "/v1beta1", "/v1beta1/pods"] {
        assert_eq!(off.get(&format!("/apis/metrics.k8s.io{path}")).await.code, 404, "off by default: {path}");
    }
}

#[tokio::test]
async fn kubectl_get_shows_a_table() {
    let server = server();
    let table = ask(&server, "namespaces/shop/pods", TABLE).await.json();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<_> =
        table["columnDefinitions"].as_array().expect("columns").iter().map(|c| c["name"].clone()).collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    assert_eq!(table["rows"][0]["cells"], json!(["web-0", "251m", "100Mi", "15.046s"]));
    let object = &table["rows"][0]["object"];
    assert_eq!(
        (&object["kind"], &object["metadata"]["namespace"]),
        (&json!("PartialObjectMetadata"), &json!("shop"))
    );
    let one = ask(&server, "nodes/n1?includeObject=Object", TABLE).await.json();
    assert_eq!(one["rows"][0]["object"]["kind"], "NodeMetrics");
    assert_eq!(
        ask(&server, "nodes?includeObject=None", TABLE).await.json()["rows"][0]["object"],
        Value::Null
    );
    assert_eq!(ask(&server, "nodes?includeObject=x", TABLE).await.code, 400);
    for accept in [
        "application/json",
        "application/vnd.kubernetes.protobuf,application/json",
        "*/*",
        "application/json,application/json;as=Table;v=v1;g=meta.k8s.io",
    ] {
        assert_eq!(ask(&server, "nodes", accept).await.json()["kind"], "NodeMetricsList", "{accept}");
    }
}

#[tokio::test]
async fn discovery_lists_it_where_it_is_on() {
    let server = server();
    let refreshed = server.app.catalog.refresh(server.store.as_ref(), std::time::Duration::from_secs(5), 100);
    refreshed.await.expect("refreshed");
    // The catalogue of a test is of what is on by default.
    assert_eq!(server.get("/apis/metrics.k8s.io/v1beta1").await.code, 404);
    let served = Served::of_runtime_config(["metrics.k8s.io=true"]).expect("usable");
    let documents = crate::kubernetes::documents::Documents::new(&served, &Default::default());
    let list: Value = serde_json::from_slice(&documents.resources[&API].body).expect("json");
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    assert_eq!(
        list["resources"],
        json!([resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)])
    );
    let all: Value = serde_json::from_slice(&documents.aggregated_v2.body).expect("json");
    let group = all["items"]
        .as_array()
        .expect("groups")
        .iter()
        .find(|group| group["metadata"]["name"] == "metrics.k8s.io");
    let resources = &group.expect("listed")["versions"][0]["resources"];
    assert_eq!(
        resources[1]["responseKind"],
        json!({"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"})
    );
    assert_eq!(resources[0]["verbs"], json!(["get", "list"]));
}
