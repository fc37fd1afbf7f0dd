//! prometheus-adapter's rules in a cluster: label selectors choose live objects.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::fake_kubernetes::FakeKubernetes;
use common::store::now_ms;
use http_body_util::BodyExt;
use lookback::app::{App, Parts, Settings};
use lookback::clock::SystemClock;
use lookback::http::auth::Caller;
use lookback::http::{kubernetes_apis, write_metrics};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::query::promql::Options as QueryOptions;
use lookback::rules::source::{OWN_STORE, PromQl, Sources};
use lookback::rules::{OwnStore, Rules, RulesSettings};
use lookback::store::Store;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The server's parts in this process, in a cluster that is a fake over real TLS.
struct InCluster {
    fake: FakeKubernetes,
    app: App,
    router: Router,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for InCluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl InCluster {
    async fn start(config: &str) -> Self {
        let fake = FakeKubernetes::start().await;
        fake.tell_of_pods_and_nodes();
        for (name, app) in [("web-0", "web"), ("web-1", "web"), ("db-0", "db")] {
            fake.put(
                &format!("/api/v1/namespaces/shop/pods/{name}"),
                json!({"metadata": {"labels": {"app": app}}}),
            );
        }
        let settings =
            ClusterSettings { kubeconfig: Some(fake.kubeconfig("lookback")), ..Default::default() };
        let cluster = Cluster::connect(&settings).await.unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
        let own: Arc<dyn PromQl> = Arc::new(OwnStore::new(store.clone(), QueryOptions::default()));
        let settings = RulesSettings {
            relist_interval: Duration::from_secs(60),
            max_age: Duration::from_secs(300),
            query_timeout: Duration::from_secs(30),
        };
        let rules = Arc::new(Rules::new(Sources::new(vec![(OWN_STORE.to_owned(), own)]), settings));
        rules.put_text(config).unwrap();
        let app = App::new(Parts {
            store,
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            metrics: Arc::default(),
            catalog: Arc::default(),
            metadata: Arc::default(),
            cluster: Some(cluster),
        })
        .with_rules(Some(rules));
        let router = kubernetes_apis::routes().merge(write_metrics::routes()).with_state(app.clone());
        let stop = CancellationToken::new();
        let (live, stopped) = (app.live().unwrap().clone(), stop.clone().cancelled_owned());
        let served = app.settings.served.clone();
        tokio::spawn(async move { live.keep_fresh(&served, stopped).await });
        Self { fake, app, router, stop, _dir: dir }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let mut request =
            Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Caller::local());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The names in an answer, or its message.
    async fn names(&self, rest: &str) -> String {
        let (code, body) = self.call("GET", &format!("/apis/custom.metrics.k8s.io/v1beta2/{rest}"), "").await;
        match body["items"].as_array() {
            Some(items) => {
                let name = |item: &Value| item["describedObject"]["name"].as_str().unwrap_or("?").to_owned();
                items.iter().map(name).collect::<Vec<_>>().join(" ")
            }
            None => format!("{} {}", code.as_u16(), body["message"].as_str().unwrap_or_default()),
        }
    }

    async fn until_names(&self, rest: &str, names: &str) {
        let begun = Instant::now();
        loop {
            let found = self.names(rest).await;
            if found == names {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{rest} is {found} and not {names}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_selectors_choose_live_objects_for_a_rules_query() {
    let config = r#"
rules:
- seriesQuery: 'load{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: "load_by_rule"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
"#;
    let cluster = InCluster::start(config).await;
    for pod in ["web-0", "web-1", "db-0", "gone-0"] {
        let path = format!("/write-metrics/namespaces/shop/pods/{pod}/load");
        assert_eq!(cluster.call("POST", &path, "7").await.0, StatusCode::OK);
    }
    let rules = cluster.app.rules().unwrap();
    let failures = rules.relist(&cluster.app.resolver(), now_ms()).await;
    assert!(failures.is_empty(), "{failures:?}");
    let all = "namespaces/shop/pods/*/load_by_rule";
    cluster.until_names(&format!("{all}?labelSelector=app%3Dweb"), "web-0 web-1").await;
    cluster.until_names(all, "db-0 web-0 web-1").await;
    assert_eq!(cluster.names(&format!("{all}?labelSelector=app%3Dnone")).await, "");
    let gone = cluster.names("namespaces/shop/pods/gone-0/load_by_rule").await;
    assert!(gone.starts_with("404 ") && gone.contains("the cluster has no such object"), "{gone}");
    cluster.fake.delete("/api/v1/namespaces/shop/pods/web-1");
    cluster.until_names(&format!("{all}?labelSelector=app%3Dweb"), "web-0").await;
    let odd = cluster.names(&format!("{all}?metricLabelSelector=a.b%3Dc")).await;
    assert!(odd.starts_with("400 \"a.b\" can't be a label"), "{odd}");
}
