//! Who is let in where a cluster says so: the built server beside an API server that can be made to fail.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes, Fault};
use common::process::{Client as PlainClient, Reply, Server, free_port, wait_until};
use common::remote_write::{message, series};
use common::tls::{Answer, Client, ClientIdentity, Http, TestCa, Tls, Validity};
use futures::future::join_all;
use kube::Client as KubeClient;
use lookback::kubernetes::certificates::kept_ca_path;
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::kubernetes::reviews::{KEPT, TokenReviews};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const BASE: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const POD: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-0/rps";

struct Setup {
    fake: FakeKubernetes,
    front_ca: TestCa,
    user_ca: TestCa,
    server: Server,
    secure: Client,
    _dir: TempDir,
}

fn config_map(user_ca: &str, front_ca: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {
        "client-ca-file": user_ca,
        "requestheader-client-ca-file": front_ca,
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
    }})
}

fn may(spec: &Value, user: &str, namespace: &str) -> bool {
    let resource = &spec["resourceAttributes"];
    spec["user"] == user
        && resource["group"] == "custom.metrics.k8s.io"
        && resource["namespace"] == namespace
        && spec["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:authenticated")))
}

impl Setup {
    /// alice may do all in `shop`, and so may its pods; the HPA's controller may read everywhere.
    async fn new() -> Self {
        let fake = FakeKubernetes::start().await;
        let (front_ca, user_ca) = (TestCa::new("front proxy CA"), TestCa::new("user CA"));
        fake.put(AUTHENTICATION_CONFIG, config_map(user_ca.pem(), front_ca.pem()));
        fake.put_token("of-alice", "alice", &["system:authenticated"]);
        fake.put_token(
            "of-pod",
            "system:serviceaccount:shop:web",
            &["system:serviceaccounts", "system:authenticated"],
        );
        fake.allow(|spec| may(spec, "alice", "shop"));
        fake.allow(|spec| may(spec, "system:serviceaccount:shop:web", "shop"));
        fake.allow(|spec| spec["user"] == "hpa" && spec["resourceAttributes"]["verb"] == "get");
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = fake.kubeconfig("lookback");
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--secure-port={}", free_port()),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        let server = Server::start(dir.path(), &flags.each_ref().map(String::as_str));
        let pem = std::fs::read(kept_ca_path(dir.path())).unwrap();
        let secure = Client {
            address: server.secure_address.unwrap(),
            server_certificate: CertificateDer::from_pem_slice(&pem).unwrap(),
            server_name: "localhost".to_owned(),
            identity: None,
            tls: Tls::V1_3,
            http: Http::V1,
        };
        let setup = Self { fake, front_ca, user_ca, server, secure, _dir: dir };
        setup.wait_for_cas().await;
        setup
    }

    async fn wait_for_cas(&self) {
        for _ in 0..500 {
            if self.front_proxy("alice").get("/apis").await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the ConfigMap was not followed: {}", self.server.process.stderr.so_far());
    }

    fn front_proxy(&self, user: &'static str) -> Asking {
        Asking {
            client: self.secure.identity(&self.front_ca.client("front-proxy-client")),
            headers: vec![("X-Remote-User", user)],
        }
    }

    fn certificate(&self, identity: &ClientIdentity) -> Asking {
        Asking { client: self.secure.identity(identity), headers: Vec::new() }
    }

    fn token(&self, authorization: &'static str) -> Asking {
        Asking { client: self.secure.clone(), headers: vec![("Authorization", authorization)] }
    }

    fn plain(&self, method: &str, path: &str, token: &str, body: &[u8]) -> Reply {
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("Authorization", authorization.as_str())];
        if path == "/api/v1/write" {
            headers.extend([("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")]);
        }
        PlainClient::new(self.server.address).send(method, path, &headers, body).unwrap()
    }
}

/// A client of the secure port, as someone.
struct Asking {
    client: Client,
    headers: Vec<(&'static str, &'static str)>,
}

impl Asking {
    async fn get(&self, path: &str) -> Answer {
        self.client.get(path, &self.headers).await
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn code_and_message(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["kind"], "Status", "{body}");
    assert_eq!(body["code"], answer.status.as_u16());
    (answer.status.as_u16(), body["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_of_identity_is_answered_as_kubernetes_library_does() {
    let setup = Setup::new().await;
    let reply = setup.plain("POST", "/write-metrics/namespaces/shop/pods/web-0/rps", "of-pod", b"7");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let elsewhere = TestCa::new("front proxy CA");
    let expired =
        |ca: &TestCa, name: &str| ca.issue(&[name], Validity::Expired, ExtendedKeyUsagePurpose::ClientAuth);
    let alice = setup.user_ca.client("alice");
    for (case, asking) in [
        ("a front proxy", setup.front_proxy("alice")),
        ("a user's certificate", setup.certificate(&alice)),
        ("a token", setup.token("Bearer of-alice")),
        (
            "a user's certificate, whatever headers say",
            setup.certificate(&alice).with("X-Remote-User", "eve"),
        ),
    ] {
        let answer = asking.get(POD).await;
        assert_eq!(answer.status, 200, "{case}: {answer:?}");
        assert_eq!(answer.json()["items"][0]["value"], "7");
    }
    let proxy = |identity: &ClientIdentity| setup.certificate(identity).with("X-Remote-User", "alice");
    for (case, code, asking) in [
        ("nobody", 403, Asking { client: setup.secure.clone(), headers: Vec::new() }),
        ("headers without a certificate", 403, setup.token("").with("X-Remote-User", "alice")),
        ("another CA of that name", 401, proxy(&elsewhere.client("front-proxy-client"))),
        ("another common name", 401, proxy(&setup.front_ca.client("someone"))),
        ("an expired front proxy", 401, proxy(&expired(&setup.front_ca, "front-proxy-client"))),
        ("an expired user", 401, setup.certificate(&expired(&setup.user_ca, "alice"))),
        ("a front proxy of nobody", 401, setup.certificate(&setup.front_ca.client("front-proxy-client"))),
        ("a user's certificate and alice's header", 403, proxy(&setup.user_ca.client("bob"))),
        ("a bad token", 401, setup.token("Bearer guess")),
        ("no token at all", 401, setup.token("Bearer ")),
        ("another scheme", 401, setup.token("Basic YTpi")),
        ("a user who may not", 403, setup.front_proxy("eve")),
    ] {
        let mut asking = asking;
        asking.headers.retain(|(name, value)| *name != "Authorization" || !value.is_empty());
        let (found, message) = code_and_message(&asking.get(POD).await);
        assert_eq!(found, code, "{case}: {message}");
    }
    let (_, message) = code_and_message(&setup.front_proxy("eve").get(POD).await);
    assert_eq!(
        message,
        "pods.custom.metrics.k8s.io \"web-0\" is forbidden: User \"eve\" cannot get resource \"pods/rps\" \
         in API group \"custom.metrics.k8s.io\" in the namespace \"shop\""
    );
    // Probes are for anyone, whatever they present.
    for asking in [setup.token("Bearer guess"), setup.token("Bearer of-alice")] {
        assert_eq!(asking.get("/readyz").await.status, 200);
    }
    assert!(setup.server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_kubernetes_is_what_its_library_asks() {
    let setup = Setup::new().await;
    let hpa = setup.front_proxy("hpa").with("X-Remote-Group", "g").with("X-Remote-Extra-Scopes", "s");
    for (path, expected) in [
        (
            POD,
            json!({"verb": "get", "namespace": "shop", "resource": "pods", "subresource": "rps", "name": "web-0"}),
        ),
        (
            &format!("{BASE}/namespaces/shop/pods/%2A/rps?labelSelector=a"),
            json!({"verb": "get", "namespace": "shop", "resource": "pods", "subresource": "rps", "name": "*"}),
        ),
        (
            &format!("{BASE}/namespaces/shop/metrics/queue"),
            json!({"verb": "get", "namespace": "shop", "resource": "metrics", "name": "queue"}),
        ),
        (
            &format!("{BASE}/nodes/n1/load"),
            json!({"verb": "get", "resource": "nodes", "subresource": "load", "name": "n1"}),
        ),
    ] {
        hpa.get(path).await;
        let asked = setup.fake.asked(REVIEWS).pop().unwrap().body;
        let mut expected = expected;
        expected["group"] = "custom.metrics.k8s.io".into();
        expected["version"] = "v1beta2".into();
        assert_eq!(asked["spec"]["resourceAttributes"], expected, "{path}");
        assert_eq!(asked["spec"]["groups"], json!(["g", "system:authenticated"]));
        assert_eq!(asked["spec"]["extra"], json!({"scopes": ["s"]}));
    }
    hpa.get("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=a").await;
    let asked = setup.fake.asked(REVIEWS).pop().unwrap().body;
    let expected = json!({"verb": "list", "group": "external.metrics.k8s.io", "version": "v1beta1",
        "namespace": "shop", "resource": "queue"});
    assert_eq!(asked["spec"]["resourceAttributes"], expected);
    let asked = setup.fake.asked(REVIEWS).len();
    hpa.get(POD).await;
    setup.front_proxy("root").with("X-Remote-Group", "system:masters").get(POD).await;
    assert_eq!(setup.fake.asked(REVIEWS).len(), asked, "answers are kept, and masters are not asked about");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kubernetes_is_away_nobody_new_gets_in_and_discovery_answers() {
    let setup = Setup::new().await;
    for fault in [Fault::Failing(500), Fault::Hanging] {
        setup.fake.set_fault(Some(fault));
        let aggregator = setup.front_proxy("system:kube-aggregator");
        let discovery = aggregator.get("/apis/custom.metrics.k8s.io/v1beta1").await;
        assert_eq!(discovery.status, 200, "{fault:?}");
        if fault != Fault::Hanging {
            let (code, message) = code_and_message(&setup.front_proxy("alice").get(POD).await);
            assert_eq!(code, 503, "{message}");
            let (code, message) = code_and_message(&setup.token("Bearer of-alice").get(POD).await);
            assert_eq!(code, 401, "{message}");
            for (path, body) in
                [("/write-metrics/namespaces/shop/pods/web-0/rps", &b"1"[..]), ("/api/v1/write", b"")]
            {
                let reply = setup.plain("POST", path, "of-pod", body);
                assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{path}");
            }
        }
    }
    setup.fake.set_fault(None);
    assert_eq!(
        setup.plain("POST", "/write-metrics/namespaces/shop/pods/web-0/rps", "of-pod", b"1").status,
        200
    );
    assert_eq!(setup.front_proxy("alice").get(POD).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_writes_and_reads_its_own_namespace_only() {
    let setup = Setup::new().await;
    let range = |namespace: &str| {
        format!("/api/v1/metrics?workload=web&namespace={namespace}&metric=cpu&start=1&end=2&step=1s")
    };
    let entry = |namespace: &str| {
        json!({"namespace": namespace, "resource": "pods", "name": "web-0", "metric": "cpu", "value": 1})
            .to_string()
    };
    let written = |namespace: &str| {
        let now_ms = common::store::now_ms();
        let labels = [("__name__", "cpu"), ("namespace", namespace), ("pod", "web-0")];
        snap::raw::Encoder::new().compress_vec(&message(vec![series(&labels, &[(now_ms, 1.0)])])).unwrap()
    };
    let ask = |namespace: &str, token: &str| -> Vec<(String, u16)> {
        [
            ("POST", format!("/write-metrics/namespaces/{namespace}/pods/web-0/cpu"), b"1".to_vec()),
            ("POST", format!("/write-metrics/namespaces/{namespace}/metrics/queue"), b"1".to_vec()),
            ("POST", "/write-metrics".to_owned(), entry(namespace).into_bytes()),
            ("POST", "/api/v1/write".to_owned(), written(namespace)),
            ("GET", range(namespace), Vec::new()),
        ]
        .into_iter()
        .map(|(method, path, body)| {
            let status = setup.plain(method, &path, token, &body).status;
            (path, status)
        })
        .collect()
    };
    for (path, status) in ask("shop", "of-pod") {
        assert!((200..300).contains(&status), "{path}: {status}");
    }
    for (path, status) in ask("bank", "of-pod") {
        // Batches and remote write refuse what lies elsewhere entry by entry.
        let refused = if path == "/write-metrics" || path == "/api/v1/write" { 400 } else { 403 };
        let sees_nothing = path.starts_with("/api/v1/metrics") && status == 404;
        assert!(status == refused || status == 403 || sees_nothing, "{path}: {status}");
    }
    for path in ["/write-metrics/nodes/n1/load", "/write-metrics/namespaces/shop/nodes/n1/load"] {
        assert_eq!(setup.plain("POST", path, "of-pod", b"1").status, 403, "{path}");
    }
    assert_eq!(setup.plain("GET", "/metrics", "of-pod", b"").status, 403);
    for token in ["guess", ""] {
        for (path, status) in ask("shop", token) {
            assert_eq!(status, 401, "{path}");
        }
    }
    let without = setup.server.get(&range("shop"));
    assert_eq!(without.status, 401);
    assert_eq!(setup.server.get("/readyz").status, 200);
    assert_eq!(setup.server.get("/apis").status, 401, "the Kubernetes APIs are on the secure port only");
    assert_eq!(setup.plain("GET", "/apis", "of-pod", b"").status, 404);
    // On the secure port: every form of path.
    let other = [
        "/namespaces/bank/pods/web-0/cpu",
        "/namespaces/bank/pods/*/cpu",
        "/namespaces/bank/pods/web-0",
        "/namespaces/bank/metrics/queue",
        "/namespaces/bank/nodes/n1/load",
        "/namespaces/*/queue",
        "/nodes/n1/load",
        "/nodes/*/load",
    ];
    let external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/bank/queue";
    assert_eq!(setup.token("Bearer of-pod").get(external).await.status, 403);
    for version in ["v1beta1", "v1beta2"] {
        for path in other {
            let path = format!("/apis/custom.metrics.k8s.io/{version}{path}");
            assert_eq!(setup.token("Bearer of-pod").get(&path).await.status, 403, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_is_made_to_wait_and_a_known_token_is_not() {
    let setup = Setup::new().await;
    let path = "/write-metrics/namespaces/shop/pods/web-0/rps";
    assert_eq!(setup.plain("POST", path, "of-pod", b"1").status, 200);
    let refused = (0..10_000).map(|guess| setup.plain("POST", path, &format!("guess-{guess}"), b"1"));
    let refused = refused.into_iter().find(|reply| reply.status != 401).unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    assert_eq!(setup.plain("POST", path, "of-pod", b"1").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_front_proxys_ca_fails_no_request() {
    let setup = Setup::new().await;
    let next = TestCa::new("the next front proxy CA");
    let (old, new) = (setup.front_ca.client("front-proxy-client"), next.client("front-proxy-client"));
    let (rotated, stop, answered) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let traffic = async |protocol: Http| {
        let mut open = None;
        let mut with_new = false;
        while !stop.load(Ordering::SeqCst) {
            if open.is_none() || with_new != rotated.load(Ordering::SeqCst) {
                with_new = rotated.load(Ordering::SeqCst);
                let identity = if with_new { &new } else { &old };
                open = Some(setup.secure.identity(identity).http(protocol).open().await.unwrap());
            }
            let connection = open.as_mut().unwrap();
            let answer = connection.send("GET", "/apis", &[("X-Remote-User", "hpa")]).await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    let more = async || {
        let goal = answered.load(Ordering::SeqCst) + 50;
        while answered.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let believes = async |identity: &ClientIdentity| {
        setup.certificate(identity).with("X-Remote-User", "hpa").get("/apis").await.status == 200
    };
    let rotation = async {
        more().await;
        // As kubeadm does: first both, then the clients change, then the old one goes.
        let both = format!("{}{}", setup.front_ca.pem(), next.pem());
        setup.fake.put(AUTHENTICATION_CONFIG, config_map(setup.user_ca.pem(), &both));
        while !believes(&new).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rotated.store(true, Ordering::SeqCst);
        more().await;
        more().await;
        setup.fake.put(AUTHENTICATION_CONFIG, config_map(setup.user_ca.pem(), next.pem()));
        while believes(&old).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        more().await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(traffic(Http::V1), traffic(Http::V2), traffic(Http::V1), rotation);
    assert!(answered.load(Ordering::SeqCst) >= 200);
}

async fn client_of(fake: &FakeKubernetes) -> KubeClient {
    let kubeconfig = Some(fake.kubeconfig("lookback"));
    let settings = ClusterSettings { kubeconfig, ..ClusterSettings::default() };
    Cluster::connect(&settings).await.unwrap().unwrap().authentication
}

#[tokio::test]
async fn the_same_question_at_once_is_sent_once_and_kept() {
    let fake = FakeKubernetes::start().await;
    fake.put_token("good", "alice", &[]);
    fake.set_fault(Some(Fault::Slow(Duration::from_millis(100))));
    let reviews = Arc::new(TokenReviews::new(client_of(&fake).await, KEPT));
    for (token, known) in [("good", true), ("bad", false)] {
        for user in join_all((0..20).map(|_| reviews.review(token))).await {
            assert_eq!(user.unwrap().is_some(), known);
        }
    }
    assert_eq!(fake.asked(TOKENS).len(), 2);

    let forgetful = TokenReviews::new(client_of(&fake).await, Duration::ZERO);
    assert!(forgetful.review("good").await.unwrap().is_some());
    fake.delete_token("good");
    assert!(forgetful.review("good").await.unwrap().is_none(), "what has expired is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_can_be_trusted_and_then_a_token_still_counts() {
    let fake = FakeKubernetes::start().await;
    fake.put_token("of-pod", "system:serviceaccount:shop:web", &[]);
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = format!("--kubeconfig={}", fake.kubeconfig("lookback").display());
    let server = Server::start(dir.path(), &[&kubeconfig, "--trust-loopback"]);
    assert_eq!(server.post("/write-metrics/nodes/n1/load", "1").status, 200);
    let headers = [("Authorization", "Bearer of-pod")];
    let path = "/write-metrics/namespaces/bank/pods/p/m";
    let reply = PlainClient::new(server.address).send("POST", path, &headers, b"1").unwrap();
    assert_eq!(reply.status, 403, "{}", reply.text());
    wait_until("it says so", || !server.process.stderr.so_far().is_empty());
}
