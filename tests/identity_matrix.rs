//! Every case of identity on every route of both ports, by the built server beside an API server that reviews
//! tokens and access. The routes are those of `http::routes`, which a test of `serve` holds against the routers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes, Fault};
use common::process::{Client as PlainClient, Reply, Server, free_port};
use common::remote_write::{message, series};
use common::store::now_ms;
use common::tls::{Client, ClientIdentity, Http, TestCa, Tls, Validity};
use lookback::http::routes::{KUBERNETES, Needs, PLAIN, PROBES, Route};
use lookback::kubernetes::certificates::kept_ca_path;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Stands in every answer that shows what `bank` has.
const SECRET: &str = "vault-7";
/// All methods of HTTP that a route could take.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

struct Setup {
    fake: FakeKubernetes,
    front_ca: TestCa,
    user_ca: TestCa,
    server: Server,
    secure: Client,
    _dirs: [TempDir; 2],
}

fn is(spec: &Value, user: &str) -> bool {
    spec["user"] == user
}

impl Setup {
    /// `root` may do all; `shop`'s pod all in its namespace; the reader may read and the writer write everywhere.
    async fn new() -> Self {
        let fake = FakeKubernetes::start().await;
        let (front_ca, user_ca) = (TestCa::new("front proxy CA"), TestCa::new("user CA"));
        let config = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {
            "client-ca-file": user_ca.pem(),
            "requestheader-client-ca-file": front_ca.pem(),
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
        }});
        fake.put(AUTHENTICATION_CONFIG, config);
        for (token, user) in [
            ("of-root", "root"),
            ("of-shop", "system:serviceaccount:shop:web"),
            ("of-reader", "reader"),
            ("of-writer", "writer"),
            ("expired", "root"),
        ] {
            fake.put_token(token, user, &["system:authenticated"]);
        }
        fake.delete_token("expired");
        fake.allow(|spec| is(spec, "root"));
        fake.allow(|spec| {
            is(spec, "system:serviceaccount:shop:web") && spec["resourceAttributes"]["namespace"] == "shop"
        });
        let verb = |spec: &Value| spec["resourceAttributes"]["verb"].as_str().unwrap_or_default().to_owned();
        fake.allow(move |spec| is(spec, "reader") && ["get", "list"].contains(&verb(spec).as_str()));
        fake.allow(move |spec| is(spec, "writer") && spec["resourceAttributes"]["verb"] == "create");
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let flags = [
            format!("--kubeconfig={}", fake.kubeconfig("lookback").display()),
            format!("--secure-port={}", free_port()),
            format!("--backup-dir={}", dirs[1].path().join("backup").display()),
        ];
        let server = Server::start(dirs[0].path(), &flags.each_ref().map(String::as_str));
        let pem = std::fs::read(kept_ca_path(dirs[0].path())).unwrap();
        let secure = Client {
            address: server.secure_address.unwrap(),
            server_certificate: CertificateDer::from_pem_slice(&pem).unwrap(),
            server_name: "localhost".to_owned(),
            identity: None,
            tls: Tls::V1_3,
            http: Http::V1,
        };
        let setup = Self { fake, front_ca, user_ca, server, secure, _dirs: dirs };
        setup.wait_for_cas().await;
        for metric in ["cpu", "rows"] {
            let path = format!("/write-metrics/namespaces/bank/pods/{SECRET}/{metric}?labels=workload%3Dweb");
            let example = Example { path, headers: Vec::new(), body: b"1".to_vec(), shows: false };
            assert_eq!(setup.send("POST", &example, &[token("of-root")]).status, 200);
        }
        setup
    }

    async fn wait_for_cas(&self) {
        for _ in 0..1_500 {
            let client = self.secure.identity(&self.front_ca.client("front-proxy-client"));
            if client.get("/apis", &[("X-Remote-User", "root")]).await.status == 200 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the ConfigMap was not followed: {}", self.server.process.stderr.so_far());
    }

    fn send(&self, method: &str, example: &Example, more: &[(&str, String)]) -> Reply {
        let headers = example.headers.iter().copied();
        let headers: Vec<_> =
            headers.chain(more.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        PlainClient::new(self.server.address).send(method, &example.path, &headers, &example.body).unwrap()
    }
}

fn token(token: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {token}"))
}

/// A request of a route that concerns a namespace.
struct Example {
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    /// Whether its answer shows [`SECRET`] to one who may read `bank`.
    shows: bool,
}

/// Panics for a route that it does not know: who adds one gives an example here.
fn example(route: &Route, namespace: &str) -> Example {
    const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
    let of = |path: String| Example { path, headers: Vec::new(), body: Vec::new(), shows: false };
    let showing = |path: String| Example { shows: true, ..of(path) };
    let written = |path: &str, body: String| Example { body: body.into_bytes(), ..of(path.to_owned()) };
    // Reads by POST carry the question as a form; the namespace that bounds a token stands in the query.
    let form = |example: Example| match (route.method, example.path.split_once('?')) {
        ("POST", Some((path, question))) => Example {
            path: match question.contains("namespace=") {
                true => path.to_owned(),
                false => format!("{path}?namespace={namespace}"),
            },
            headers: vec![FORM],
            body: question.as_bytes().to_vec(),
            ..example
        },
        _ => example,
    };
    let pod = if namespace == "bank" { SECRET } else { "web-0" };
    let selector = format!("cpu%7Bnamespace%3D%22{namespace}%22%7D");
    let now_s = now_ms() / 1_000;
    let history = format!(
        "workload=web&namespace={namespace}&metric=cpu&start={}&end={}&step=1h",
        now_s - 3_600,
        now_s + 3_600
    );
    match route.path {
        "/metrics" | "/health" | "/healthz" | "/livez" | "/readyz" | "/-/healthy" | "/-/ready" => {
            of(route.path.to_owned())
        }
        "/write-metrics" | "/write-metrics/" => {
            let entry = json!({"namespace": namespace, "resource": "pods", "name": pod, "metric": "cpu", "value": 2,
                "labels": {"by": "intruder"}});
            written(route.path, entry.to_string())
        }
        "/write-metrics/{*path}" => written(
            &format!("/write-metrics/namespaces/{namespace}/pods/{pod}/cpu?labels=by%3Dintruder"),
            "2".to_owned(),
        ),
        "/api/v1/write" => {
            let labels = [("__name__", "cpu"), ("by", "intruder"), ("namespace", namespace), ("pod", pod)];
            let message = message(vec![series(&labels, &[(now_ms(), 2.0)])]);
            let headers = vec![("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")];
            let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
            Example { headers, body, ..of(route.path.to_owned()) }
        }
        "/v1/metrics" | "/api/v1/otlp/v1/metrics" => {
            let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
            let resource = [attribute("k8s.namespace.name", namespace), attribute("k8s.pod.name", pod)];
            let point = json!({"timeUnixNano": format!("{}000000", now_ms()), "asDouble": 2.0,
                "attributes": [attribute("by", "intruder")]});
            let message = json!({"resourceMetrics": [{"resource": {"attributes": resource},
                "scopeMetrics": [{"metrics": [{"name": "cpu", "gauge": {"dataPoints": [point]}}]}]}]});
            let headers = vec![("Content-Type", "application/json")];
            Example { headers, body: message.to_string().into_bytes(), ..of(route.path.to_owned()) }
        }
        "/api/v1/import/prometheus" => {
            written(route.path, format!("cpu{{by=\"intruder\",namespace=\"{namespace}\",pod=\"{pod}\"}} 2\n"))
        }
        "/metrics/{*group}" => written(
            &format!("/metrics/job/intruder/namespace/{namespace}/pod/{pod}"),
            if route.method == "DELETE" { String::new() } else { "cpu{by=\"intruder\"} 2\n".to_owned() },
        ),
        "/api/v1/metrics" => form(showing(format!("/api/v1/metrics?{history}"))),
        "/api/v1/summary" => form(showing(format!("/api/v1/summary?{history}&by=pod"))),
        "/api/v1/explain/hpa/{namespace}/{name}" => {
            of(format!("/api/v1/explain/hpa/{namespace}/web?namespace={namespace}"))
        }
        "/api/v1/query" => form(showing(format!("/api/v1/query?query={selector}"))),
        "/api/v1/query_range" => form(showing(format!(
            "/api/v1/query_range?query={selector}&start={}&end={}&step=60",
            now_s - 300,
            now_s + 60
        ))),
        "/api/v1/format_query" | "/api/v1/parse_query" => form(of(format!("{}?query=up", route.path))),
        "/api/v1/series" => form(showing(format!("/api/v1/series?match[]={selector}"))),
        "/api/v1/labels" => form(of(format!("/api/v1/labels?match[]={selector}"))),
        "/api/v1/label/{name}/values" => showing(format!("/api/v1/label/pod/values?match[]={selector}")),
        "/api/v1/query_exemplars" => {
            form(of(format!("{}?query={selector}&start={now_s}&end={now_s}", route.path)))
        }
        "/api/v1/rules" | "/api/v1/alerts" => of(route.path.to_owned()),
        "/api/v1/metadata" | "/api/v1/status/buildinfo" => of(route.path.to_owned()),
        "/api/v1/status/tsdb" => showing(route.path.to_owned()),
        "/api/v1/admin/tsdb/delete_series" => of(format!("{}?match[]={selector}&end=1", route.path)),
        "/api/v1/admin/backup" => of(route.path.to_owned()),
        other => panic!("{other} is a new route: say here how it is asked, with and without the right to"),
    }
}

fn is_refused(reply: &Reply) -> bool {
    // Of many wrong credentials in a row the later ones are told to wait.
    matches!(reply.status, 401 | 429)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_plain_port_lets_in_who_may_and_nobody_else() {
    let setup = Setup::new().await;
    tokio::task::block_in_place(|| {
        for route in PROBES {
            let example = example(route, "shop");
            for headers in [&[][..], &[token("guess")], &[token("of-shop")]] {
                assert_eq!(setup.send(route.method, &example, headers).status, 200, "{}", route.path);
            }
        }
        // A token that was right once is not among those that wrong ones from the same address make wait.
        for known in ["of-root", "of-shop", "of-reader", "of-writer"] {
            setup.send("GET", &example(&PLAIN[0], "shop"), &[token(known)]);
        }
        for route in PLAIN {
            with_the_right(&setup, route);
            without_credentials(&setup, route);
            with_the_wrong_right(&setup, route);
            of_another_namespace(&setup, route);
        }
        // Nothing of all that was refused was written, nor shown.
        let query = "/api/v1/series?match[]=%7Bby%3D%22intruder%22%2Cnamespace%3D%22bank%22%7D".to_owned();
        let all = Example { path: query, headers: Vec::new(), body: Vec::new(), shows: true };
        let found = setup.send("GET", &all, &[token("of-root")]).json();
        assert_eq!(found["data"], json!([]), "what others wrote into bank");
    });
    assert!(setup.server.terminate().success());
}

/// Who may do it does it, and no method is there that the table does not have.
fn with_the_right(setup: &Setup, route: &Route) {
    let what = format!("{} {}", route.method, route.path);
    let reply = setup.send(route.method, &example(route, "shop"), &[token("of-root")]);
    let is_nothing_there = reply.status == 404 && matches!(route.needs, Needs::Read);
    assert!(reply.is_success() || is_nothing_there, "{what}: {} {}", reply.status, reply.text());
    if route.needs == Needs::Read {
        let of_bank = example(route, "bank");
        let reply = setup.send(route.method, &of_bank, &[token("of-reader")]);
        assert!(reply.is_success() || is_nothing_there, "{what}: {} {}", reply.status, reply.text());
        assert_eq!(reply.text().contains(SECRET), of_bank.shows, "{what}: {}", reply.text());
    }
    for method in METHODS {
        let is_known = PLAIN.iter().any(|known| known.path == route.path && known.method == method);
        if !is_known && route.path != "/metrics" {
            let reply = setup.send(method, &example(route, "shop"), &[token("of-root")]);
            assert_eq!(reply.status, 405, "{method} {} is not in the table of routes", route.path);
        }
    }
}

fn without_credentials(setup: &Setup, route: &Route) {
    let what = format!("{} {}", route.method, route.path);
    let spoofed = || [("X-Remote-User", "root".to_owned()), ("X-Remote-Group", "system:masters".to_owned())];
    let asked = example(route, "bank");
    for (case, headers) in [
        ("nobody", Vec::new()),
        ("headers of a front proxy", spoofed().to_vec()),
        ("a wrong token", vec![token("guess")]),
        ("an expired token", vec![token("expired")]),
        ("no token at all", vec![token("")]),
        ("a password", vec![("Authorization", "Basic cm9vdDpyb290".to_owned())]),
        ("a wrong token and headers", [&spoofed()[..], &[token("guess")]].concat()),
    ] {
        let reply = setup.send(route.method, &asked, &headers);
        assert!(is_refused(&reply), "{what}: {case}: {} {}", reply.status, reply.text());
        assert!(!reply.text().contains(SECRET), "{what}: {case}: {}", reply.text());
    }
}

/// A right to read is none to write, and the other way; headers add nothing to a token.
fn with_the_wrong_right(setup: &Setup, route: &Route) {
    let wrong = match route.needs {
        Needs::Nothing => return,
        Needs::Read => "of-writer",
        Needs::Write => "of-reader",
        Needs::Administer => "of-reader",
        Needs::GetPath => "of-shop",
    };
    let masters = ("X-Remote-Group", "system:masters".to_owned());
    for headers in [vec![token(wrong)], vec![token(wrong), masters]] {
        let reply = setup.send(route.method, &example(route, "bank"), &headers);
        assert_eq!(reply.status, 403, "{} {} by {wrong}: {}", route.method, route.path, reply.text());
        // A refusal names what was asked for; what was not, no refusal shows.
        assert!(route.needs != Needs::Read || !reply.text().contains(SECRET), "{}", reply.text());
    }
    if route.needs == Needs::Administer {
        let reply = setup.send(route.method, &example(route, "shop"), &[token("of-writer")]);
        assert_eq!(reply.status, 403, "{} {} by a writer", route.method, route.path);
    }
}

/// A pod of `shop` that asks about `bank`: refused, or shown nothing of it.
fn of_another_namespace(setup: &Setup, route: &Route) {
    let what = format!("{} {}", route.method, route.path);
    let reply = setup.send(route.method, &example(route, "bank"), &[token("of-shop")]);
    assert!(!reply.text().contains(SECRET) || !reply.is_success(), "{what}: {}", reply.text());
    match route.needs {
        // OTLP has an answer of its own for what is refused in part.
        Needs::Write if reply.text().contains("\"rejectedDataPoints\":\"1\"") => {}
        Needs::Write => {
            assert!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.text())
        }
        Needs::GetPath => assert_eq!(reply.status, 403, "{what}"),
        _ => assert!(reply.status < 500, "{what}: {}", reply.text()),
    }
    let own = setup.send(route.method, &example(route, "shop"), &[token("of-shop")]);
    let of_all = ["/api/v1/admin/backup", "/api/v1/status/tsdb"];
    let is_for_all = of_all.contains(&route.path) || route.needs == Needs::GetPath;
    if is_for_all {
        assert_eq!(own.status, 403, "{what}: {}", own.text());
    } else {
        assert!(own.is_success() || own.status == 404, "{what}: {} {}", own.status, own.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_can_review_no_route_of_either_port_lets_anyone_new_in() {
    let setup = Setup::new().await;
    setup.fake.put_token("fresh", "root", &["system:authenticated"]);
    setup.fake.set_fault(Some(Fault::Failing(500)));
    tokio::task::block_in_place(|| {
        for route in PLAIN {
            let reply = setup.send(route.method, &example(route, "shop"), &[token("fresh")]);
            assert_eq!(reply.status, 503, "{} {}: {}", route.method, route.path, reply.text());
            assert!(reply.header("retry-after").is_some(), "{}", route.path);
        }
    });
    for (path, is_discovery) in secure_paths("shop") {
        let by_token = setup.secure.get(&path, &[("Authorization", "Bearer fresh")]).await.status.as_u16();
        assert_eq!(by_token, 401, "{path}");
        let proxy = setup.secure.identity(&setup.front_ca.client("front-proxy-client"));
        let by_proxy = proxy.get(&path, &[("X-Remote-User", "never-seen")]).await.status.as_u16();
        assert_eq!(by_proxy, if is_discovery { 200 } else { 503 }, "{path}");
    }
}

/// Paths of every route of the secure port, in every form that they have; and whether they are discovery, which
/// everyone may read who is someone.
fn secure_paths(namespace: &str) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for route in KUBERNETES {
        match route.path {
            "/apis/{*path}" => {
                for version in ["v1beta1", "v1beta2"] {
                    let base = format!("/apis/custom.metrics.k8s.io/{version}");
                    all.push((base.clone(), true));
                    for rest in [
                        format!("namespaces/{namespace}/pods/*/cpu"),
                        format!("namespaces/{namespace}/pods/{SECRET}/cpu"),
                        format!("namespaces/{namespace}/pods/{SECRET}"),
                        format!("namespaces/{namespace}/metrics/cpu"),
                        format!("namespaces/{namespace}/services/*/cpu"),
                        "namespaces/*/cpu".to_owned(),
                        "nodes/n1/cpu".to_owned(),
                        "nodes/*/cpu".to_owned(),
                    ] {
                        all.push((format!("{base}/{rest}"), false));
                    }
                }
                all.push(("/apis/custom.metrics.k8s.io".to_owned(), true));
                all.push(("/apis/external.metrics.k8s.io/v1beta1".to_owned(), true));
                all.push((
                    format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/cpu"),
                    false,
                ));
                for rest in [format!("namespaces/{namespace}/pods"), "pods".to_owned(), "nodes".to_owned()] {
                    all.push((format!("/apis/metrics.k8s.io/v1beta1/{rest}"), false));
                }
            }
            "/openapi/{*path}" => {
                all.extend([("/openapi/v2".to_owned(), true), ("/openapi/v3".to_owned(), true)])
            }
            "/apis" | "/apis/" | "/version" | "/version/" => all.push((route.path.to_owned(), true)),
            other => panic!("{other} is a new route: say here how it is asked"),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_secure_port_lets_in_who_may_and_nobody_else() {
    let setup = Setup::new().await;
    let front = setup.front_ca.client("front-proxy-client");
    let expired =
        |ca: &TestCa, name: &str| ca.issue(&[name], Validity::Expired, ExtendedKeyUsagePurpose::ClientAuth);
    let nobody = None;
    let wrong_ca = TestCa::new("front proxy CA").client("front-proxy-client");
    let wrong_name = setup.front_ca.client("someone");
    let expired_proxy = expired(&setup.front_ca, "front-proxy-client");
    let expired_user = expired(&setup.user_ca, "root");
    let spoofed = [("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];
    let ask = async |identity: Option<&ClientIdentity>, path: &str, headers: &[(&str, &str)]| {
        let client =
            identity.map_or_else(|| setup.secure.clone(), |identity| setup.secure.identity(identity));
        let answer = client.get(path, headers).await;
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    };
    for (path, is_discovery) in secure_paths("bank") {
        for (case, code, identity, headers) in [
            ("nobody", 403, nobody, &[][..]),
            ("headers without a certificate", 403, nobody, &spoofed),
            ("another CA", 401, Some(&wrong_ca), &spoofed),
            ("another name", 401, Some(&wrong_name), &spoofed),
            ("an expired front proxy", 401, Some(&expired_proxy), &spoofed),
            ("an expired user", 401, Some(&expired_user), &[]),
            ("a front proxy of nobody", 401, Some(&front), &[]),
            ("an expired token", 401, nobody, &[("Authorization", "Bearer expired")]),
        ] {
            let (status, body) = ask(identity, &path, headers).await;
            // Many wrong tokens in a row are told to wait.
            assert!(status == code || code == 401 && status == 429, "{path}: {case}: {status} {body}");
            assert!(!body.contains("\"items\""), "{path}: {case}: {body}");
        }
        let of_shop = ("X-Remote-User", "system:serviceaccount:shop:web");
        let (status, body) = ask(Some(&front), &path, &[of_shop]).await;
        let shown = is_discovery || !body.contains(SECRET) || status == 403;
        assert!(shown && status == if is_discovery { 200 } else { 403 }, "{path}: {status} {body}");
        for (identity, headers) in [
            (Some(&front), &[("X-Remote-User", "root")][..]),
            (Some(&front), &[("X-Remote-User", "reader")]),
            (nobody, &[("Authorization", "Bearer of-root")]),
        ] {
            let (status, body) = ask(identity, &path, headers).await;
            let is_nothing_there = status == 404 && !is_discovery && !path.contains("/pods/");
            assert!(status == 200 || is_nothing_there, "{path}: {status} {body}");
        }
        let user = setup.user_ca.client("root");
        assert_ne!(ask(Some(&user), &path, &[("X-Remote-User", "eve")]).await.0, 401, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let client = setup.secure.identity(&front);
            let answer = client.send(method, &path, &[("X-Remote-User", "root")]).await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    // The plain port's own are not there.
    for route in PLAIN {
        let path = example(route, "bank").path;
        assert_eq!(ask(Some(&front), &path, &[("X-Remote-User", "root")]).await.0, 404, "{path}");
    }
}
