//! Metrics that Lookback does not know are answered by the adapter that was there: a second Lookback, which is
//! a real one, and a server that has every fault.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use common::process::{Client, Reply, Server, free_port, wait_until};
use common::store::now_ms;
use common::tls::{SERVICE_NAME, ServerUnderTest};
use hyper::StatusCode;
use lookback::http::server::Limits;
use lookback::kubernetes::certificates::kept_ca_path;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const TOKEN: &str = "the-token-of-the-lookback-in-front";

/// A Lookback that stands for the adapter that was there, and one in front of it.
struct Pair {
    behind: Server,
    front: Server,
    _dirs: [TempDir; 3],
}

fn path_of(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn delegating(url: &str, ca: &Path, server_name: &str, token_file: &str) -> Vec<String> {
    vec![
        format!("--delegate-custom-metrics={url}"),
        format!("--delegate-external-metrics={url}"),
        format!("--delegate-ca-file={}", ca.display()),
        format!("--delegate-server-name={server_name}"),
        format!("--delegate-token-file={token_file}"),
    ]
}

fn start(dir: &Path, flags: &[String]) -> Server {
    Server::start(dir, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

impl Pair {
    fn new(more: &[String]) -> Self {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [behind_dir, front_dir, files] = &dirs;
        let credentials = format!(
            "credentials:\n  - {{name: front, token: {TOKEN}, access: read}}\n  - {{name: pusher, token: push, access: write}}\n"
        );
        let credentials = path_of(files.path(), "credentials.yml", &credentials);
        let secure = format!("--secure-port={}", free_port());
        let flags = [secure, format!("--credentials-file={credentials}")];
        let behind = start(behind_dir.path(), &flags);
        let url = format!("https://{}", behind.secure_address.unwrap());
        let token = path_of(files.path(), "token", TOKEN);
        let mut flags = delegating(&url, &kept_ca_path(behind_dir.path()), "localhost", &token);
        flags.extend_from_slice(more);
        let front = start(front_dir.path(), &flags);
        Self { behind, front, _dirs: dirs }
    }

    fn write_behind(&self, path: &str, value: &str) {
        let headers = [("Authorization", "Bearer push")];
        let reply = Client::new(self.behind.address).send("POST", path, &headers, value.as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    fn behind(&self, path: &str) -> Reply {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("Authorization", authorization.as_str())];
        Client::new(self.behind.address).send("GET", path, &headers, b"").unwrap()
    }
}

fn push(namespace: &str, rest: &str) -> String {
    format!("/write-metrics/namespaces/{namespace}/{rest}")
}

fn pods(namespace: &str, rest: &str) -> String {
    format!("{CUSTOM}/v1beta2/namespaces/{namespace}/pods/{rest}")
}

#[track_caller]
fn refused(reply: &Reply, code: u16) -> String {
    let status = reply.json();
    assert_eq!(
        (reply.status, &status["kind"], &status["code"]),
        (code, &json!("Status"), &json!(code)),
        "{status}"
    );
    status["message"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_not_known_here_is_answered_by_the_adapter_behind_word_for_word() {
    let pair = Pair::new(&[]);
    for (path, value) in [
        ("pods/p1/theirs?labels=verb%3DGET", "3"),
        ("pods/p2/theirs", "\"1500m\""),
        ("services/web/depth", "12"),
        ("pods/p9/rps", "9"),
        ("pods/p1/old", "9"),
    ] {
        pair.write_behind(&push("shop", path), value);
    }
    pair.write_behind(&push("bank", "pods/p1/rps"), "5");
    let front = &pair.front;
    let half_an_hour_ago = now_ms() - 1_800_000;
    for path in ["pods/p1/rps".to_owned(), format!("pods/p1/old?timestamp={half_an_hour_ago}")] {
        assert_eq!(front.post(&push("shop", &path), "1").status, 200);
    }
    for path in [
        pods("shop", "*/theirs"),
        pods("shop", "%2A/theirs"),
        pods("shop", "p2/theirs"),
        pods("shop", "*/theirs?metricLabelSelector=verb%3DGET"),
        format!("{CUSTOM}/v1beta1/namespaces/shop/pods/*/theirs"),
        format!("{CUSTOM}/v1beta1/namespaces/shop/services/web/depth"),
        // Each namespace by itself: here nobody wrote it in this one.
        pods("bank", "*/rps"),
        format!("{EXTERNAL}/namespaces/shop/theirs?labelSelector=verb%3DGET"),
    ] {
        let (here, there) = (front.get(&path), pair.behind(&path));
        assert_eq!((here.status, here.text()), (200, there.text()), "{path}");
        assert!(!here.json()["items"].as_array().unwrap().is_empty(), "{path}: {}", here.text());
    }
    // A metric that is known here is never the other's, neither where it is stale nor for another object.
    assert_eq!(front.get(&pods("shop", "*/rps")).json()["items"].as_array().unwrap().len(), 1);
    let message = refused(&front.get(&pods("shop", "p9/rps")), 404);
    assert!(!message.contains("https://"), "{message}");
    let message = refused(&front.get(&pods("shop", "p1/old")), 404);
    assert!(message.contains("stale") || message.contains("since"), "{message}");

    let message = refused(&front.get(&pods("shop", "*/nobodys")), 404);
    assert!(message.starts_with("the server could not find the metric nobodys for pods"), "{message}");
    assert!(
        message.contains("; https://127.0.0.1:") && message.contains("does not have it either"),
        "{message}"
    );
    let message = refused(&front.get(&format!("{EXTERNAL}/namespaces/shop/nobodys")), 404);
    assert!(message.contains("does not have it either"), "{message}");
    // One that is asked by another Lookback asks no further.
    let headers = [("X-Lookback-Delegated", "1")];
    let reply = Client::new(front.address).send("GET", &pods("shop", "*/theirs"), &headers, b"").unwrap();
    assert!(!refused(&reply, 404).contains("either"));

    let metrics = front.get("/metrics").text();
    for line in [
        "lookback_metric_answers_total{api=\"custom_metrics\",source=\"delegate\"} 7",
        "lookback_metric_answers_total{api=\"custom_metrics\",source=\"store\"} 1",
        "lookback_metric_answers_total{api=\"external_metrics\",source=\"delegate\"} 1",
        "lookback_delegate_requests_total{outcome=\"ok\"} 8",
        "lookback_delegate_requests_total{outcome=\"unknown\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let log = front.process.stderr.so_far();
    let of = |source: &str| {
        log.lines().any(|line| line.contains("/pods/*/") && line.contains(&format!("source=\"{source}\"")))
    };
    assert!(of("delegate") && of("store"), "{log}");
}

#[test]
fn discovery_lists_both_and_keeps_the_others_when_it_dies() {
    let mut pair = Pair::new(&["--delegate-discovery-interval=1s".to_owned()]);
    pair.write_behind(&push("shop", "pods/p1/theirs"), "3");
    pair.write_behind("/write-metrics/nodes/n1/heat", "3");
    pair.front.post(&push("shop", "pods/p1/ours"), "1");
    let names = |pair: &Pair, path: &str| -> Vec<String> {
        let list = pair.front.get(path).json();
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        list["resources"].as_array().unwrap().iter().map(name).collect()
    };
    let both = ["nodes/heat", "pods/ours", "pods/theirs"];
    for version in ["v1beta1", "v1beta2"] {
        let path = format!("{CUSTOM}/{version}");
        wait_until("both are listed", || names(&pair, &path) == both);
    }
    wait_until("external metrics of both are listed", || names(&pair, EXTERNAL) == ["ours", "theirs"]);
    pair.behind.process.kill9();
    let message = refused(&pair.front.get(&pods("shop", "*/theirs")), 503);
    assert!(message.contains("can't be reached"), "{message}");
    assert_eq!(pair.front.get(&pods("shop", "*/ours")).status, 200);
    wait_until("it is told", || {
        pair.front.process.stderr.so_far().contains("discovery lists what this adapter had")
    });
    assert_eq!(names(&pair, &format!("{CUSTOM}/v1beta2")), both);
}

#[test]
fn nobody_reads_through_it_what_he_may_not_read() {
    let files = tempfile::tempdir().unwrap();
    let credentials =
        "credentials:\n  - {token: of-shop, access: read, namespaces: [shop]}\n  - {token: of-all}\n";
    let credentials = path_of(files.path(), "credentials.yml", credentials);
    let pair = Pair::new(&[format!("--credentials-file={credentials}")]);
    for namespace in ["shop", "bank"] {
        pair.write_behind(&push(namespace, "pods/p1/theirs"), "3");
    }
    pair.write_behind("/write-metrics/nodes/n1/heat", "3");
    let ask = |path: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str())];
        Client::new(pair.front.address).send("GET", path, &headers, b"").unwrap().status
    };
    let external = |namespace: &str| format!("{EXTERNAL}/namespaces/{namespace}/theirs");
    let node = format!("{CUSTOM}/v1beta2/nodes/n1/heat");
    for (path, of_shop) in [
        (pods("shop", "*/theirs"), 200),
        (external("shop"), 200),
        (pods("bank", "*/theirs"), 403),
        (external("bank"), 403),
        (node, 403),
    ] {
        assert_eq!(
            (ask(&path, "of-shop"), ask(&path, "of-all"), ask(&path, "")),
            (of_shop, 200, 401),
            "{path}"
        );
    }
}

/// Answers by the name of the metric that is asked for.
async fn ail(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let status = |code: u16, message: &str| {
        let body = json!({"kind": "Status", "message": message, "code": code}).to_string();
        (StatusCode::from_u16(code).unwrap(), body).into_response()
    };
    match path.rsplit('/').next().unwrap() {
        "slow" => std::future::pending().await,
        "forbidden" => status(403, "no rights"),
        "broken" => status(500, "out of order"),
        "bad" => status(400, "a bad selector"),
        "text" => "<html>hello</html>".into_response(),
        "status" => status(200, "fine"),
        "huge" => vec![b' '; 9 << 20].into_response(),
        "away" => Redirect::temporary("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/good")
            .into_response(),
        "good" => json!({"kind": "MetricValueList", "items": []}).to_string().into_response(),
        _ => status(404, "what?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ails_the_adapter_the_question_ends_and_the_own_metrics_are_answered() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let behind = ServerUnderTest::start(Router::new().fallback(ail), dirs[1].path(), Limits::default()).await;
    let url = format!("https://{}", behind.client.address);
    let token = path_of(dirs[1].path(), "token", "any");
    let mut flags = delegating(&url, &kept_ca_path(dirs[1].path()), SERVICE_NAME, &token);
    flags.push("--delegate-timeout=2s".to_owned());
    let asking = tokio::task::spawn_blocking(move || {
        let front = start(dirs[0].path(), &flags);
        assert_eq!(front.post(&push("shop", "pods/p1/rps"), "1").status, 200);
        for (metric, code, said) in [
            ("slow", 503, "does not answer within 2s"),
            ("forbidden", 503, "answers 403: no rights: let Lookback's ServiceAccount get"),
            ("broken", 503, "answers 500: out of order"),
            ("bad", 400, "a bad selector (says https://"),
            ("text", 503, "something else than was asked for"),
            ("status", 503, "its kind is \"Status\""),
            ("huge", 503, "answers with more than 8388608 bytes"),
            ("away", 503, "answers 307"),
            ("nothing", 404, "does not have it either: what?"),
        ] {
            let reply = front.get(&pods("shop", &format!("*/{metric}")));
            let message = refused(&reply, code);
            assert!(message.contains(said), "{metric}: {message}");
            assert_eq!(reply.header("retry-after").is_some(), code == 503, "{metric}");
            assert_eq!(front.get(&pods("shop", "*/rps")).json()["items"][0]["value"], "1");
        }
        assert_eq!(front.get(&pods("shop", "*/good")).json()["items"], json!([]));
        // As many questions as are asked at once, all of them slow, leave the own metrics alone.
        let address = front.address;
        let ask_slowly =
            || Client::new(address).send("GET", &pods("shop", "*/slow"), &[], b"").unwrap().status;
        std::thread::scope(|scope| {
            let slow: Vec<_> = (0..40).map(|_| scope.spawn(ask_slowly)).collect();
            for _ in 0..50 {
                assert_eq!(front.get(&pods("shop", "*/rps")).status, 200);
            }
            assert!(slow.into_iter().all(|slow| slow.join().unwrap() == 503));
        });
        let metrics = front.get("/metrics").text();
        for outcome in ["slow", "refused", "failed", "invalid", "too_large", "unknown", "ok"] {
            assert!(metrics.contains(&format!("outcome=\"{outcome}\"")), "{outcome}: {metrics}");
        }
        assert!(front.terminate().success());
    });
    asking.await.unwrap();
}

/// Serves one version of the custom metrics API, whose group it leaves unsaid, and notes what it is asked.
fn of_one_version(version: &'static str, asked: Arc<Mutex<Vec<String>>>) -> Router {
    Router::new().fallback(move |request: Request| async move {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        asked.lock().unwrap().push(path.clone());
        let base = format!("{CUSTOM}/{version}");
        let Some(rest) = path.strip_prefix(&base) else {
            return (StatusCode::NOT_FOUND, "404 page not found").into_response();
        };
        let object = json!({"kind": "Pod", "namespace": "shop", "name": "p1", "apiVersion": "/v1"});
        let selector = json!({"matchLabels": {"verb": "GET"}});
        let item = match version {
            "v1beta1" => {
                json!({"describedObject": object, "metricName": "rps", "timestamp": "2026-11-22T09:02:00Z",
                "window": 60, "value": "1500m", "selector": selector})
            }
            _ => json!({"describedObject": object, "metric": {"name": "rps", "selector": selector},
                "timestamp": "2026-11-22T09:02:00Z", "windowSeconds": 60, "value": "1500m"}),
        };
        let api_version = format!("custom.metrics.k8s.io/{version}");
        let list = match rest {
            "" => json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": []}),
            _ if rest.ends_with("nobodys") => {
                return (StatusCode::NOT_FOUND, "no such metric").into_response();
            }
            _ => {
                json!({"kind": "MetricValueList", "apiVersion": api_version, "metadata": {}, "items": [item]})
            }
        };
        axum::Json(list).into_response()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_of_the_other_version_is_asked_in_that_and_its_answer_translated() {
    for (served, wanted) in [("v1beta1", "v1beta2"), ("v1beta2", "v1beta1")] {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let router = of_one_version(served, asked.clone());
        let behind = ServerUnderTest::start(router, dirs[1].path(), Limits::default()).await;
        let url = format!("https://{}", behind.client.address);
        let token = path_of(dirs[1].path(), "token", "any");
        let mut flags = delegating(&url, &kept_ca_path(dirs[1].path()), SERVICE_NAME, &token);
        // So that its discovery is not read meanwhile.
        flags.push("--delegate-discovery-interval=1h".to_owned());
        let rest = "namespaces/shop/pods/*/rps?metricLabelSelector=verb%3DGET";
        let path = move |version: &str| format!("{CUSTOM}/{version}/{rest}");
        let asking = tokio::task::spawn_blocking(move || {
            let front = start(dirs[0].path(), &flags);
            let answers = [wanted, served, wanted].map(|version| {
                let reply = front.get(&path(version));
                assert_eq!(reply.status, 200, "{}", reply.text());
                reply.json()
            });
            let unknown = front.get(&format!("{CUSTOM}/{wanted}/namespaces/shop/pods/*/nobodys"));
            let message = refused(&unknown, 404);
            assert!(message.contains("does not have it either: no such metric"), "{message}");
            assert!(front.terminate().success());
            answers
        });
        let answers = asking.await.unwrap();
        assert_eq!(answers[0], answers[2]);
        for (answer, version) in answers.iter().zip([wanted, served]) {
            assert_eq!(answer["apiVersion"], format!("custom.metrics.k8s.io/{version}"));
            let item = &answer["items"][0];
            assert_eq!(item["describedObject"]["name"], "p1");
            assert_eq!(
                (&item["value"], &item["timestamp"]),
                (&json!("1500m"), &json!("2026-11-22T09:02:00Z"))
            );
            let (first, second) = (json!(["rps", 60, "GET"]), json!([null, null, null]));
            let in_first =
                json!([item["metricName"], item["window"], item["selector"]["matchLabels"]["verb"]]);
            let metric = &item["metric"];
            let in_second =
                json!([metric["name"], item["windowSeconds"], metric["selector"]["matchLabels"]["verb"]]);
            let expected = if version == "v1beta1" { (first, second) } else { (second, first) };
            assert_eq!((in_first, in_second), expected, "{answer}");
        }
        // It is asked in vain once, not each time.
        let asked = asked.lock().unwrap();
        let in_vain = asked.iter().filter(|asked| asked.starts_with(&format!("{CUSTOM}/{wanted}/"))).count();
        assert_eq!(in_vain, 1, "{asked:?}");
    }
}

#[test]
fn an_adapter_with_another_certificate_is_not_believed() {
    let pair = Pair::new(&[]);
    pair.write_behind(&push("shop", "pods/p1/theirs"), "3");
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let other = start(dirs[0].path(), &[format!("--secure-port={}", free_port())]);
    let url = format!("https://{}", pair.behind.secure_address.unwrap());
    let token = path_of(dirs[1].path(), "token", TOKEN);
    let ca = kept_ca_path(dirs[0].path());
    let fronts = tempfile::tempdir().unwrap();
    let front = start(fronts.path(), &delegating(&url, &ca, "localhost", &token));
    let message = refused(&front.get(&pods("shop", "*/theirs")), 503);
    assert!(message.contains("certificate"), "{message}");
    drop(other);
}
