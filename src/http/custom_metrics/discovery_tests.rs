//! From a push to discovery, over the real engine.

use crate::http::kubernetes_apis::routes;
use crate::http::write_metrics;
use crate::kubernetes::catalog::spawn_refresher;
use crate::testing::{Fault, TestApp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const V1BETA2: &str = "/apis/custom.metrics.k8s.io/v1beta2";

fn server() -> TestApp {
    TestApp::serving(routes().merge(write_metrics::routes()))
}

async fn push(server: &TestApp, path: &str) {
    let answer = server.post(&format!("/write-metrics/{path}"), "1").await;
    assert_eq!(answer.code, 200, "{path}: {}", answer.body);
}

/// The name and `namespaced` of each entry.
async fn listed(server: &TestApp) -> Vec<(String, bool)> {
    let list = server.get(V1BETA2).await.json();
    let told = |entry: &Value| {
        let name = entry["name"].as_str().expect("a name").to_owned();
        (name, entry["namespaced"].as_bool().expect("said"))
    };
    list["resources"].as_array().expect("a list").iter().map(told).collect()
}

async fn refresh(server: &TestApp) {
    let catalog = &server.app.catalog;
    catalog.refresh(server.store.as_ref(), Duration::from_secs(5), 1_000).await.expect("refreshed");
}

#[tokio::test]
async fn a_pushed_metric_is_listed_within_a_second_or_so_and_by_no_read_of_the_store() {
    let server = server();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let refresher = spawn_refresher(server.app.clone(), async move { drop(stopped.await) });
    push(&server, "namespaces/default/pods/p1/rps").await;
    let pushed = Instant::now();
    while listed(&server).await.is_empty() {
        assert!(pushed.elapsed() < Duration::from_secs(2), "not listed yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.store.set_fault(Some(Fault::Hanging));
    let answer = tokio::time::timeout(Duration::from_secs(1), listed(&server)).await;
    assert_eq!(answer.expect("at once"), [("pods/rps".to_owned(), true)]);
    server.store.set_fault(None);
    drop(stop);
    refresher.await.expect("ended");
}

#[tokio::test]
async fn a_resource_of_both_kinds_is_listed_as_one_kind_and_what_is_listed_can_be_read() {
    let server = server();
    push(&server, "widgets.example.com/w1/size").await;
    push(&server, "widgets.example.com/w1/only_root").await;
    refresh(&server).await;
    let root = |metric: &str| (format!("widgets.example.com/{metric}"), false);
    assert_eq!(listed(&server).await, [root("only_root"), root("size")]);
    assert_eq!(server.get(&format!("{V1BETA2}/widgets.example.com/w1/size")).await.code, 200);

    push(&server, "namespaces/default/widgets.example.com/w2/size").await;
    push(&server, "namespaces/default/pods/p1/rps").await;
    push(&server, "nodes/n1/load").await;
    // As a scraper sends it that knows no namespaces.
    server.put(&[("__name__", "scraped"), ("pod", "p1")], crate::testing::NOW_MS, 1.0);
    refresh(&server).await;
    let entries = listed(&server).await;
    let mut kinds: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for (name, namespaced) in &entries {
        let (resource, metric) = name.split_once('/').expect("resource/metric");
        kinds.entry(resource).or_default().insert(*namespaced);
        let place = if *namespaced { "namespaces/default/" } else { "" };
        let values = server.get(&format!("{V1BETA2}/{place}{resource}/*/{metric}")).await;
        let items = values.json()["items"].as_array().map_or(0, Vec::len);
        assert_eq!((values.code.as_u16(), items), (200, 1), "{name}: {}", values.body);
    }
    let one = |kind: bool| BTreeSet::from([kind]);
    let expected = [("nodes", one(false)), ("pods", one(true)), ("widgets.example.com", one(true))];
    assert_eq!(kinds, BTreeMap::from(expected), "{entries:?}");
    assert!(!entries.iter().any(|(name, _)| name == "pods/scraped"), "{entries:?}");
}
