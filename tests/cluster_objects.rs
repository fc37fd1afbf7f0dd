//! What the cluster says of its resources and objects shapes the answers: names, selectors, deletions.
//!
//! The API server is a fake over real TLS; the store and the handlers are the real ones.

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::fake_kubernetes::{FakeKubernetes, Fault};
use http_body_util::BodyExt;
use lookback::app::{App, Parts, Settings};
use lookback::clock::SystemClock;
use lookback::http::auth::Caller;
use lookback::http::{kubernetes_apis, write_metrics};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::kubernetes::live_mapping::LiveMapping;
use lookback::kubernetes::objects::{Bounds, NotKnown, Objects};
use lookback::kubernetes::resources::resolve;
use lookback::kubernetes::served::Served;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/shop/pods";

struct Harness {
    fake: FakeKubernetes,
    app: App,
    router: Router,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn cluster_of(fake: &FakeKubernetes) -> Cluster {
    let settings = ClusterSettings { kubeconfig: Some(fake.kubeconfig("lookback")), ..Default::default() };
    Cluster::connect(&settings).await.expect("usable").expect("a cluster")
}

fn discovery(fake: &FakeKubernetes) {
    let resource = |plural: &str, singular: &str, kind: &str, short: &str, scope: &str| {
        json!({
            "resource": plural, "singularResource": singular, "scope": scope, "shortNames": [short],
            "responseKind": {"group": "", "version": "", "kind": kind}, "verbs": ["get", "list", "watch"],
        })
    };
    let group = |name: &str, version: &str, resources: Vec<Value>| json!({"metadata": {"name": name}, "versions": [{"version": version, "resources": resources}]});
    let list = |items: Vec<Value>| json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items});
    let core = vec![
        resource("pods", "pod", "Pod", "po", "Namespaced"),
        resource("services", "service", "Service", "svc", "Namespaced"),
    ];
    fake.put("/api", list(vec![group("", "v1", core)]));
    let carts = vec![resource("carts", "cart", "ShoppingCart", "sc", "Namespaced")];
    let racks = vec![resource("racks", "rack", "Rack", "rk", "Cluster")];
    fake.put(
        "/apis",
        list(vec![group("shop.example.com", "v2", carts), group("infra.example.com", "v1", racks)]),
    );
}

impl Harness {
    async fn start(fault: Option<Fault>) -> Self {
        let fake = FakeKubernetes::start().await;
        discovery(&fake);
        for (name, app) in [("web-0", "web"), ("web-1", "web"), ("db-0", "db")] {
            fake.put(&format!("{PODS}/{name}"), json!({"metadata": {"labels": {"app": app, "pod": name}}}));
        }
        fake.put("/api/v1/namespaces/shop/services/web", json!({"metadata": {"labels": {"tier": "front"}}}));
        fake.set_fault(fault);
        let dir = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(dir.path(), Options::default()).expect("opens");
        let app = App::new(Parts {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            metrics: Arc::default(),
            catalog: Arc::default(),
            metadata: Arc::default(),
            cluster: Some(cluster_of(&fake).await),
        });
        let router = kubernetes_apis::routes().merge(write_metrics::routes()).with_state(app.clone());
        let stop = CancellationToken::new();
        let live = app.live().expect("a cluster").clone();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { live.keep_fresh(&Served::default(), stopped).await });
        let harness = Self { fake, app, router, stop, _dir: dir };
        for pod in ["web-0", "web-1", "db-0", "gone-0"] {
            let path = format!("/write-metrics/namespaces/shop/pods/{pod}/rps");
            assert_eq!(harness.call("POST", &path, "7").await.0, StatusCode::OK);
        }
        if fault.is_none() {
            harness
                .until("the mapping is read", async |h| {
                    h.app.live().is_some_and(|l| l.mapping.mapping().is_some())
                })
                .await;
        }
        harness
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let mut request =
            Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).expect("a request");
        request.extensions_mut().insert(Caller::local());
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let code = response.status();
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, rest: &str) -> (StatusCode, Value) {
        self.call("GET", &format!("/apis/custom.metrics.k8s.io/v1beta2/{rest}"), "").await
    }

    /// The names in an answer, or its message.
    async fn names(&self, rest: &str) -> String {
        let (code, body) = self.get(rest).await;
        match body["items"].as_array() {
            Some(items) => {
                let name = |item: &Value| item["describedObject"]["name"].as_str().unwrap_or("?").to_owned();
                items.iter().map(name).collect::<Vec<_>>().join(" ")
            }
            None => format!("{} {}", code.as_u16(), body["message"].as_str().unwrap_or_default()),
        }
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self).await {
            assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_names(&self, rest: &str, names: &str) {
        self.until(&format!("{rest} is {names}"), async |h| h.names(rest).await == names).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_selectors_choose_live_objects_and_deleted_ones_leave_at_once() {
    let harness = Harness::start(None).await;
    let all = "namespaces/shop/pods/*/rps";
    let web = &format!("{all}?labelSelector=app%3Dweb");
    harness.until_names(web, "web-0 web-1").await;
    for (selector, names) in [
        ("app+in+(web,db)", "db-0 web-0 web-1"),
        ("app!%3Dweb", "db-0"),
        ("app,pod+notin+(web-0)", "db-0 web-1"),
        ("!app", ""),
        ("app%3Dnone", ""),
    ] {
        assert_eq!(harness.names(&format!("{all}?labelSelector={selector}")).await, names, "{selector}");
    }
    assert_eq!(harness.names(all).await, "db-0 web-0 web-1", "what is no more is left out");
    let gone = harness.names("namespaces/shop/pods/gone-0/rps").await;
    let prefix =
        "404 the server could not find the metric rps for pods gone-0: the cluster has no such object";
    assert!(gone.starts_with(prefix), "{gone}");

    harness.fake.delete(&format!("{PODS}/web-1"));
    harness.until_names(web, "web-0").await;
    harness.fake.put(&format!("{PODS}/db-0"), json!({"metadata": {"labels": {"app": "web"}}}));
    harness.until_names(web, "db-0 web-0").await;
    harness.fake.put(&format!("{PODS}/web-1"), json!({"metadata": {"labels": {"app": "web"}}}));
    harness.until_names(web, "db-0 web-0 web-1").await;

    // An API server that is away changes nothing of what is known.
    harness.fake.set_fault(Some(Fault::Failing(500)));
    assert_eq!(harness.names(web).await, "db-0 web-0 web-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_asked_about_are_listed_on_demand() {
    let harness = Harness::start(None).await;
    assert_eq!(harness.fake.asked("/api/v1/services").len(), 0);
    let path = "/write-metrics/namespaces/shop/svc/web/load";
    assert_eq!(harness.call("POST", path, "1").await.0, StatusCode::OK);
    let names = harness.names("namespaces/shop/services/*/load?labelSelector=tier%3Dfront").await;
    assert_eq!(names, "web", "the first question waits for the list");
    let listed = harness.fake.asked("/api/v1/services");
    assert!(listed.iter().any(|asked| asked.path.contains("limit=500")), "in pages: {listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_can_not_be_listed_are_503_with_a_reason_and_no_empty_list() {
    for (fault, said) in [(Fault::Failing(403), "let Lookback list and watch"), (Fault::Hanging, "ask again")]
    {
        let harness = Harness::start(Some(fault)).await;
        let all = "namespaces/shop/pods/*/rps";
        harness
            .until("the reason is told", async |h| {
                let message = h.names(&format!("{all}?labelSelector=app%3Dweb")).await;
                message.starts_with("503 ") && message.contains(said)
            })
            .await;
        // Without a selector freshness alone decides.
        assert_eq!(harness.names(all).await, "db-0 gone-0 web-0 web-1");
        harness.fake.set_fault(None);
        if fault != Fault::Hanging {
            harness.until_names(&format!("{all}?labelSelector=app%3Dweb"), "web-0 web-1").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_as_the_cluster_has_them_and_others_are_refused_with_similar_ones() {
    let harness = Harness::start(None).await;
    for (path, code) in [
        ("namespaces/shop/sc/c1/items", 200),
        ("namespaces/shop/cart.shop.example.com/c2/items", 200),
        // Of the whole cluster, wherever it is pushed.
        ("namespaces/shop/rack/r1/load", 200),
        ("namespaces/shop/cartz/c1/items", 404),
        ("namespaces/shop/widgets.example.com/w1/items", 404),
    ] {
        let (got, body) = harness.call("POST", &format!("/write-metrics/{path}"), "1").await;
        assert_eq!(got.as_u16(), code, "{path}: {body}");
        if path.contains("cartz") {
            let message = body["message"].as_str().unwrap_or_default();
            assert!(message.contains("ones such as carts.shop.example.com"), "{message}");
        }
    }
    let carts = "/apis/shop.example.com/v2/namespaces/shop/carts";
    for name in ["c1", "c2"] {
        harness.fake.put(&format!("{carts}/{name}"), json!({"metadata": {}}));
    }
    harness.until_names("namespaces/shop/carts/*/items", "c1 c2").await;
    let (_, body) = harness.get("namespaces/shop/carts/c1/items").await;
    let object = &body["items"][0]["describedObject"];
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&json!("ShoppingCart"), &json!("shop.example.com/v2"))
    );
    let (code, body) = harness.get("racks/r1/load").await;
    let object = &body["items"][0]["describedObject"];
    assert_eq!((code, &object["kind"], object.get("namespace")), (StatusCode::OK, &json!("Rack"), None));
    let batch = r#"{"namespace":"shop","resource":"podz","name":"p","metric":"m","value":1}"#;
    let (code, body) = harness.call("POST", "/write-metrics", batch).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(body["rejected"][0]["message"].as_str().is_some_and(|m| m.contains("such as pods")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_found_is_looked_for_at_once_and_by_old_discovery_too() {
    let fake = FakeKubernetes::start().await;
    // As before Kubernetes 1.26: no aggregated documents.
    let api = |name: &str, singular: &str, kind: &str| json!({"name": name, "singularName": singular, "namespaced": true, "kind": kind, "verbs": ["list", "watch"]});
    fake.put("/api/v1", json!({"groupVersion": "v1", "resources": [api("pods", "pod", "Pod")]}));
    let version = json!({"groupVersion": "shop.example.com/v2", "version": "v2"});
    let groups = json!([{"name": "shop.example.com", "versions": [version], "preferredVersion": version}]);
    fake.put("/apis", json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
    let carts = [api("carts", "cart", "Cart"), api("carts/status", "", "Cart")];
    fake.put("/apis/shop.example.com/v2", json!({"groupVersion": "shop.example.com/v2", "resources": carts}));
    let mapping = LiveMapping::new(cluster_of(&fake).await.lister, false);
    assert!(mapping.resolver().resolve("cart").is_err(), "nothing is read yet");
    mapping.refresh_after_miss().await;
    let cart = mapping.resolver().resolve("cart").expect("known");
    assert_eq!((cart.group_resource().as_str(), cart.kind.as_ref()), ("carts.shop.example.com", "Cart"));
    let asked = fake.asked("/api").len();
    mapping.refresh_after_miss().await;
    assert_eq!(fake.asked("/api").len(), asked, "not again at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_is_bounded() {
    let fake = FakeKubernetes::start().await;
    for name in ["a", "b", "c"] {
        fake.put(&format!("{PODS}/{name}"), json!({"metadata": {}}));
    }
    fake.put("/api/v1/namespaces/shop/services/web", json!({"metadata": {}}));
    let wait = Duration::from_secs(10);
    let of = |name: &str| resolve(name).expect("built in");
    let bounds = Bounds { resources_max: 1, objects_max: 2, unused_max: Duration::ZERO };
    let objects = Objects::new(cluster_of(&fake).await.lister, bounds);
    let error = objects.of(&of("pods"), wait).await.expect_err("too many");
    assert!(matches!(error, NotKnown::TooMany { objects_max: 2, .. }), "{error}");
    assert!(objects.of(&of("services"), wait).await.is_ok(), "the unused one makes room");
    let names = |objects: &Objects| objects.sizes().into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert_eq!(names(&objects), ["services"]);
    let bounds = Bounds { resources_max: 1, objects_max: 3, unused_max: Duration::from_secs(60) };
    let objects = Objects::new(cluster_of(&fake).await.lister, bounds);
    assert!(matches!(objects.of(&of("pods"), wait).await, Err(NotKnown::TooMany { .. })), "at the bound");
    let error = objects.of(&of("services"), wait).await.expect_err("one too many");
    assert!(matches!(error, NotKnown::TooManyResources { .. }), "{error}");
    objects.close();
    assert_eq!(names(&objects), [""; 0]);
}
