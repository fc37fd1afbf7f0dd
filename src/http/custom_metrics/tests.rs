use super::*;
use crate::app::Settings;
use crate::http::kubernetes_apis::routes;
use crate::kubernetes::resources::{resolve, resource_info_labels};
use crate::query::freshness::{MetricRule, Pattern};
use crate::store::Scope;
use crate::testing::{Fault, NOW_MS, TestApp};
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, header};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const BASE: &str = "/apis/custom.metrics.k8s.io";

struct Server(TestApp);

impl Server {
    /// Two pods and a node, a service, a namespace and a widget with metrics; all fresh.
    async fn new() -> Self {
        let server = TestApp::serving(routes());
        for (labels, value) in [
            (vec![("pod", "p1"), ("__name__", "rps")], 1.5),
            (vec![("pod", "p2"), ("__name__", "rps")], 1000.0),
            (vec![("pod", "p1"), ("__name__", "http"), ("verb", "GET"), ("code", "200")], 0.1),
            (vec![("pod", "p1"), ("__name__", "http"), ("verb", "PUT"), ("code", "201")], 0.2),
            (vec![("pod", "p2"), ("__name__", "http"), ("verb", "PUT"), ("code", "500")], 7.0),
            (vec![("service", "web"), ("__name__", "svc")], 3.0),
            (vec![("deployment", "web"), ("__name__", "dep")], 4.0),
            (vec![("__name__", "queue")], 5.0),
            (vec![("__name__", "size"), ("widgets_example_com", "w1")], 6.0),
        ] {
            let labels: Vec<_> = labels.into_iter().chain([("namespace", "default")]).collect();
            server.put(&labels, NOW_MS + 999, value);
        }
        server.put(&[("node", "n1"), ("__name__", "load")], NOW_MS, 0.5);
        let widgets = resolve("widgets.example.com").expect("custom");
        let info = resource_info_labels(&widgets, true).expect("info");
        server.put(&info.iter().collect::<Vec<_>>(), NOW_MS, 1.0);
        let refreshed = server.app.catalog.refresh(server.store.as_ref(), Duration::from_secs(1), 100);
        refreshed.await.expect("refreshed");
        Self(server)
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        let accept = HeaderValue::from_static("application/vnd.kubernetes.protobuf, */*");
        request.headers_mut().insert(header::ACCEPT, accept);
        let answer = self.0.call(request).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json", "{path}");
        assert!(answer.api.is_some(), "{path} says which API answered");
        (answer.code, answer.json())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, &format!("{BASE}{path}")).await
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        let (code, body) = self.get(path).await;
        assert_eq!(code, StatusCode::OK, "{path}: {body}");
        body["items"].as_array().expect("a list").clone()
    }

    /// `name=value` of each item.
    async fn values(&self, path: &str) -> Vec<String> {
        let shown = |item: &Value| {
            format!(
                "{}={}",
                item["describedObject"]["name"].as_str().unwrap_or("?"),
                item["value"].as_str().unwrap_or("?")
            )
        };
        self.items(path).await.iter().map(shown).collect()
    }

    async fn error(&self, path: &str) -> (u16, String) {
        let (code, body) = self.get(path).await;
        assert_eq!(body["kind"], "Status", "{path}: {body}");
        assert_eq!(body["code"], code.as_u16(), "{path}");
        (code.as_u16(), body["message"].as_str().expect("a message").to_owned())
    }
}

#[tokio::test]
async fn one_object_is_answered_in_the_exact_shape_of_each_version() {
    let server = Server::new().await;
    let object = json!({"kind": "Pod", "namespace": "default", "name": "p1", "apiVersion": "v1"});
    assert_eq!(
        server.get("/v1beta1/namespaces/default/pods/p1/rps").await.1,
        json!({
            "kind": "MetricValueList",
            "apiVersion": "custom.metrics.k8s.io/v1beta1",
            "metadata": {},
            "items": [{
                "describedObject": object,
                "metricName": "rps",
                "timestamp": "2026-11-22T09:02:00Z",
                "value": "1500m",
                "selector": null,
            }],
        })
    );
    assert_eq!(
        server.get("/v1beta2/namespaces/default/pods/p1/rps").await.1,
        json!({
            "kind": "MetricValueList",
            "apiVersion": "custom.metrics.k8s.io/v1beta2",
            "metadata": {},
            "items": [{
                "describedObject": object,
                "metric": {"name": "rps", "selector": null},
                "timestamp": "2026-11-22T09:02:00Z",
                "value": "1500m",
            }],
        })
    );
}

#[tokio::test]
async fn every_form_of_path_finds_its_objects() {
    let server = Server::new().await;
    for (path, values) in [
        ("/namespaces/default/pods/%2A/rps", vec!["p1=1500m", "p2=1k"]),
        ("/namespaces/default/pods/*/rps?labelSelector=&timeout=32s", vec!["p1=1500m", "p2=1k"]),
        ("/namespaces/default/pod/p2/rps", vec!["p2=1k"]),
        ("/namespaces/default/services/web/svc", vec!["web=3"]),
        ("/namespaces/default/deployments.apps/web/dep", vec!["web=4"]),
        ("/namespaces/default/metrics/queue", vec!["default=5"]),
        ("/namespaces/default/nodes/n1/load", vec!["n1=500m"]),
        ("/nodes/n1/load", vec!["n1=500m"]),
        ("/nodes/*/load", vec!["n1=500m"]),
        ("/namespaces/default/widgets.example.com/w1/size", vec!["w1=6"]),
        ("/namespaces/default/widgets.example.com/*/size", vec!["w1=6"]),
        ("/namespaces/default/pods/p1/http", vec!["p1=300m"]),
        // All of a namespace, where nothing was written of the namespace itself.
        ("/namespaces/default/metrics/rps", vec!["default=1001500m"]),
        ("/namespaces/*/queue", vec!["default=5"]),
    ] {
        assert_eq!(server.values(&format!("/v1beta2{path}")).await, values, "{path}");
    }
    let node = &server.items("/v1beta1/namespaces/default/nodes/n1/load").await[0]["describedObject"];
    assert_eq!(node, &json!({"kind": "Node", "name": "n1", "apiVersion": "v1"}));
    let web = &server.items("/v1beta1/namespaces/default/deployment/web/dep").await[0]["describedObject"];
    assert_eq!(web["apiVersion"], "apps/v1");
}

#[tokio::test]
async fn an_object_lists_all_its_fresh_metrics() {
    let server = Server::new().await;
    for path in ["/v1beta1/namespaces/default/pods/p1/", "/v1beta1/namespaces/default/pods/p1"] {
        let items = server.items(path).await;
        let listed: Vec<_> = items.iter().map(|i| (i["metricName"].clone(), i["value"].clone())).collect();
        assert_eq!(listed, [(json!("http"), json!("300m")), (json!("rps"), json!("1500m"))]);
    }
    assert_eq!(
        server.error("/v1beta1/namespaces/default/pods/p9/").await,
        (404, "the server could not find any metric for pods p9".to_owned())
    );
}

#[tokio::test]
async fn metric_labels_select_series() {
    let server = Server::new().await;
    let pods = "/v1beta2/namespaces/default/pods";
    for (query, values) in [
        ("verb%3DGET", vec!["p1=100m"]),
        ("code+in+%28200%2C201%29", vec!["p1=300m"]),
        ("verb!%3DGET", vec!["p1=200m", "p2=7"]),
        ("%21canary", vec!["p1=300m", "p2=7"]),
        ("tier+notin+(a,b),verb==PUT,code=500", vec!["p2=7"]),
        ("verb%3DPATCH", vec![]),
    ] {
        let path = format!("{pods}/*/http?metricLabelSelector={query}");
        assert_eq!(server.values(&path).await, values, "{query}");
    }
    let item = &server.items(&format!("{pods}/p1/http?metricLabelSelector=verb%3DGET")).await[0];
    assert_eq!(item["metric"]["selector"], json!({"matchLabels": {"verb": "GET"}}));
    assert_eq!(
        server.error(&format!("{pods}/p1/rps?metricLabelSelector=verb%3DGET")).await,
        (
            404,
            "the server could not find the metric rps for pods p1 with selector verb=GET: the selector excludes \
             all 1 series that there are, such as rps{namespace=\"default\",pod=\"p1\"}"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn errors_are_statuses_in_the_words_of_the_contract() {
    let server = Server::new().await;
    let ns = "/v1beta2/namespaces/default";
    for (path, code, message) in [
        (
            format!("{ns}/pods/p9/rps"),
            404,
            "the server could not find the metric rps for pods p9: it is written for other pods: p1, p2",
        ),
        (
            format!("{ns}/pods/p1/nope"),
            404,
            "the server could not find the metric nope for pods p1: nothing of this name was written",
        ),
        (
            format!("{ns}/pods/*/nope"),
            404,
            "the server could not find the metric nope for pods: nothing of this name was written",
        ),
        (
            "/v1beta2/namespaces/other/pods/*/rps".to_owned(),
            404,
            "the server could not find the metric rps for pods: it is written for pods of other namespaces: default",
        ),
        (
            format!("{ns}/deployments/x/dep"),
            404,
            "the server could not find the metric dep for deployments.apps x: it is written for other \
             deployments.apps: web",
        ),
        (format!("{ns}/foo"), 400, "invalid request path"),
        ("/v1".to_owned(), 404, "the server could not find the requested resource"),
        ("/v1beta2/pods".to_owned(), 404, "the server could not find the requested resource"),
    ] {
        assert_eq!(server.error(&path).await, (code, message.to_owned()), "{path}");
    }
    for (path, code, start) in [
        (format!("{ns}/pods/*/rps?metricLabelSelector=a+in"), 400, "unable to parse requirement: "),
        (format!("{ns}/pods/*/rps?labelSelector=!!"), 400, "unable to parse requirement: "),
        (
            format!("{ns}/pods/*/rps?labelSelector=app%3Dweb"),
            501,
            "labelSelector is served only in a cluster",
        ),
        (format!("{ns}/podz/p/rps"), 404, "unknown resource \"podz\""),
        ("/v1beta2/pods/p1/rps".to_owned(), 404, "pods lie in namespaces"),
        (format!("{ns}/pods/p1/rps?labelSelector=a&labelSelector=b"), 400, ""),
    ] {
        let (found, message) = server.error(&path).await;
        assert_eq!(found, code, "{path}");
        assert!(message.starts_with(start), "{path}: {message}");
    }
}

#[tokio::test]
async fn stale_and_unusable_samples_are_missing() {
    let server = Server::new().await;
    let pod = |metric, name| [("__name__", metric), ("namespace", "default"), ("pod", name)];
    server.0.put(&pod("old", "p1"), NOW_MS - 300_001, 1.0);
    server.0.put(&pod("edge", "p1"), NOW_MS - 300_000, 1.0);
    server.0.put(&pod("bad", "p1"), NOW_MS, f64::NAN);
    server.0.put(&pod("bad", "p2"), NOW_MS, f64::INFINITY);
    server.0.put(&pod("bad", "p3"), NOW_MS, 1e300);
    server.0.put(&pod("bad", "p4"), NOW_MS, -2.0);
    for part in ["a", "b"] {
        let labels: Vec<_> = pod("big", "p1").into_iter().chain([("part", part)]).collect();
        server.0.put(&labels, NOW_MS, 9e15);
    }
    let ns = "/v1beta1/namespaces/default/pods";
    assert_eq!(server.get(&format!("{ns}/*/old")).await.1["items"], json!([]));
    assert_eq!(
        server.error(&format!("{ns}/p1/old")).await,
        (
            404,
            "the server could not find the metric old for pods p1: stale since 2026-11-22T09:01:59Z: the newest \
             sample is of 2026-11-22T08:56:59Z, 5m ago, and may be 5m old"
                .to_owned()
        )
    );
    assert_eq!(server.values(&format!("{ns}/p1/edge")).await, ["p1=1"]);
    assert_eq!(server.items(&format!("{ns}/p1/edge")).await[0]["timestamp"], "2026-11-22T08:57:00Z");
    assert_eq!(server.values(&format!("{ns}/*/bad")).await, ["p4=-2"]);
    assert_eq!(server.error(&format!("{ns}/p1/bad")).await.0, 404);
    assert_eq!(server.values(&format!("{ns}/*/big")).await, [""; 0]);
}

#[tokio::test]
async fn rules_say_how_old_a_value_may_be_and_hold_it_marked() {
    let rule = |metric: &str, freshness_s, hold_s: Option<u64>| MetricRule {
        metric: Pattern::new(metric),
        namespace: Pattern::any(),
        resource: Pattern::any(),
        freshness: Some(Duration::from_secs(freshness_s)),
        hold: hold_s.map(Duration::from_secs),
        rate_window: None,
    };
    let metric_rules = vec![rule("short", 10, None), rule("held", 10, Some(60))];
    let server = TestApp::with_settings(Settings { metric_rules, ..Settings::default() }).routed(routes());
    let server = Server(server);
    let pod = |metric, name| [("__name__", metric), ("namespace", "default"), ("pod", name)];
    for metric in ["short", "held", "other"] {
        server.0.put(&pod(metric, "p1"), NOW_MS - 11_000, 1.0);
        server.0.put(&pod(metric, "p2"), NOW_MS - 10_000, 2.0);
    }
    server.0.put(&pod("held", "p3"), NOW_MS - 70_001, 3.0);
    let pods = "/v1beta2/namespaces/default/pods";
    assert_eq!(server.values(&format!("{pods}/*/short")).await, ["p2=2"]);
    assert_eq!(server.values(&format!("{pods}/*/other")).await, ["p1=1", "p2=2"]);
    assert_eq!(server.values(&format!("{pods}/p1")).await, ["p1=1", "p1=1"], "held and other");
    let answer = server.0.get(&format!("{BASE}{pods}/*/held")).await;
    assert_eq!(answer.json()["items"].as_array().map(Vec::len), Some(2), "p3 is too old to be held");
    assert_eq!(answer.json()["items"][0]["timestamp"], "2026-11-22T09:01:49Z", "the sample's own time");
    let warning = "299 lookback \"1 values of held are not fresh: held as a metric rule allows\"";
    assert_eq!(answer.headers[header::WARNING], warning);
    let (_, message) = server.error(&format!("{pods}/p3/held")).await;
    assert!(message.contains("and may be 1m10s old"), "{message}");
    assert_eq!(server.0.app.metrics.values_held.get(), 2);
}

#[tokio::test]
async fn an_empty_answer_says_why_in_a_warning() {
    let server = Server::new().await;
    server.0.put(&[("__name__", "old"), ("namespace", "default"), ("pod", "p1")], NOW_MS - 300_001, 1.0);
    let answer = server.0.get(&format!("{BASE}/v1beta1/namespaces/default/pods/*/old")).await;
    let warning = answer.headers[header::WARNING].to_str().expect("text").to_owned();
    assert!(warning.contains("no value of the metric old for pods: stale since"), "{warning}");
    let fresh = server.0.get(&format!("{BASE}/v1beta1/namespaces/default/pods/*/rps")).await;
    assert_eq!(fresh.headers.get(header::WARNING), None);
}

#[tokio::test]
async fn a_counter_is_answered_as_a_rate_with_its_window() {
    let metric_rules = vec![MetricRule {
        metric: Pattern::new("*_total"),
        namespace: Pattern::any(),
        resource: Pattern::new("pods"),
        freshness: None,
        hold: None,
        rate_window: Some(Duration::from_secs(60)),
    }];
    let server = TestApp::with_settings(Settings { metric_rules, ..Settings::default() }).routed(routes());
    let server = Server(server);
    let pod = |metric, name| [("__name__", metric), ("namespace", "default"), ("pod", name)];
    let grows: Vec<_> = (0..=4).map(|i| (NOW_MS - 65_000 + i * 15_000, 100.0 + i as f64 * 30.0)).collect();
    server.0.put_all(&pod("requests_total", "p1"), &grows);
    server.0.put(&pod("requests_total", "p2"), NOW_MS, 7.0);
    server.0.put(&pod("gauge", "p1"), NOW_MS, 7.0);
    for (version, window) in [("v1beta1", "window"), ("v1beta2", "windowSeconds")] {
        let items = server.items(&format!("/{version}/namespaces/default/pods/*/requests_total")).await;
        assert_eq!(items.len(), 1, "one sample has no rate: {items:?}");
        assert_eq!((&items[0]["value"], &items[0][window]), (&json!("2"), &json!(60)));
        assert_eq!(items[0]["timestamp"], "2026-11-22T09:01:55Z", "the sample's own time");
    }
    let all = server.items("/v1beta2/namespaces/default/pods/p1").await;
    let shown: Vec<_> = all.iter().map(|item| (&item["value"], item.get("windowSeconds"))).collect();
    assert_eq!(shown, [(&json!("7"), None), (&json!("2"), Some(&json!(60)))]);
}

#[tokio::test]
async fn discovery_lists_what_was_written_whatever_the_store_does() {
    let server = Server::new().await;
    for (slash, fault) in [("", Fault::Hanging), ("/", Fault::Failing)] {
        server.0.store.set_fault(Some(fault));
        let (code, groups) = server.ask(Method::GET, &format!("/apis{slash}")).await;
        assert_eq!((code, &groups["kind"]), (StatusCode::OK, &json!("APIGroupList")));
        assert_eq!(groups["groups"][0]["name"], "custom.metrics.k8s.io");
        assert_eq!(server.get(slash).await.1["kind"], "APIGroup");
        let (code, list) = server.get(&format!("/v1beta1{slash}?timeout=32s")).await;
        assert_eq!((code, &list["kind"]), (StatusCode::OK, &json!("APIResourceList")));
        let resources = list["resources"].as_array().expect("a list");
        let names: Vec<_> = resources.iter().filter_map(|r| r["name"].as_str()).collect();
        assert_eq!(
            names,
            [
                "deployments.apps/dep",
                "namespaces/queue",
                "nodes/load",
                "pods/http",
                "pods/rps",
                "services/svc",
                "widgets.example.com/size",
            ]
        );
    }
    let (code, message) = server.error("/v1beta1/namespaces/default/pods/p1/rps").await;
    assert_eq!(code, 503, "{message}");
}

#[tokio::test]
async fn other_methods_and_routes_are_refused() {
    let server = Server::new().await;
    for path in ["/apis", "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/p1/rps", "/version"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let (code, body) = server.ask(method, path).await;
            assert_eq!((code.as_u16(), &body["reason"]), (405, &json!("MethodNotAllowed")), "{path}");
        }
    }
    for path in ["/openapi/v1", "/openapi/v3/apis/x", "/apis/apps/v1"] {
        let (code, body) = server.ask(Method::GET, path).await;
        assert_eq!((code.as_u16(), &body["reason"]), (404, &json!("NotFound")), "{path}");
    }
    let (code, version) = server.ask(Method::GET, "/version").await;
    assert_eq!((code, &version["gitVersion"]), (StatusCode::OK, &json!("v0.1.0")));
}

#[tokio::test]
async fn a_caller_sees_only_what_they_may() {
    let mut server = Server::new().await;
    let message = "pods.custom.metrics.k8s.io \"p1\" is forbidden: User \"eve\" cannot get resource \
                   \"pods/rps\" in API group \"custom.metrics.k8s.io\" in the namespace \"default\"";
    let only = |namespace: &str| Scope::Namespaces(Arc::new(BTreeSet::from([namespace.to_owned()])));
    let eve = |scope| Caller { user: "eve".to_owned(), scope, ..Caller::local() };
    server.0.caller = Some(eve(only("other")));
    let ns = "/v1beta1/namespaces/default";
    assert_eq!(server.error(&format!("{ns}/pods/p1/rps")).await, (403, message.to_owned()));
    for path in ["/metrics/queue", "/nodes/n1/load", "/pods/*/rps?labelSelector=a", "/pods/p1"] {
        assert_eq!(server.error(&format!("{ns}{path}")).await.0, 403, "{path}");
    }
    assert_eq!(server.error("/v1beta1/nodes/n1/load").await.0, 403);
    assert_eq!(server.error("/v1beta1/namespaces/*/queue").await.0, 403);
    server.0.caller = Some(eve(only("default")));
    assert_eq!(server.values(&format!("{ns}/pods/p1/rps")).await, ["p1=1500m"]);
    assert_eq!(server.values(&format!("{ns}/metrics/queue")).await, ["default=5"]);
    server.0.caller = Some(Caller { read: false, ..eve(only("default")) });
    assert_eq!(server.error(&format!("{ns}/pods/p1/rps")).await, (403, message.to_owned()));
    assert_eq!(server.error("/v1beta1").await.0, 403);
}
