//! What autoscaling did is remembered, and explained by `lookback explain`: the assembled server beside a (fake)
//! API server.

mod common;

use clap::Parser;
use common::fake_kubernetes::FakeKubernetes;
use lookback::app::{App, Parts};
use lookback::clock::{Clock, SystemClock};
use lookback::config::{Cli, Command};
use lookback::http::server::Limits;
use lookback::serve::prepare::{Prepared, prepare};
use lookback::serve::serve;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer
}

/// Exit code and what is said.
async fn explain(address: SocketAddr, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lookback"));
    command.args(["explain", "hpa"]).args(args).arg(format!("--server=http://{address}"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("UTF-8"))
}

fn autoscaler() -> serde_json::Value {
    let pods = json!({"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}});
    let object = json!({
        "metric": {"name": "queue"}, "target": {"type": "Value", "value": "5"},
        "describedObject": {"kind": "Service", "name": "web", "apiVersion": "v1"},
    });
    let external =
        json!({"metric": {"name": "jobs"}, "target": {"type": "AverageValue", "averageValue": "4"}});
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"uid": "u1"},
        "spec": {
            "minReplicas": 2, "maxReplicas": 5,
            "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "metrics": [{"type": "Pods", "pods": pods}, {"type": "Object", "object": object},
                {"type": "External", "external": external}],
        },
        "status": {
            "currentReplicas": 3, "desiredReplicas": 3,
            "conditions": [{"type": "ScalingActive", "status": "True"}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_autoscaler_was_answered_is_remembered_and_explained_for_any_moment() {
    let fake = FakeKubernetes::start().await;
    fake.put("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web", autoscaler());
    let owned_by = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true}]);
    for (name, phase, ready) in
        [("web-0", "Running", "True"), ("web-1", "Running", "True"), ("web-2", "Pending", "False")]
    {
        let metadata = json!({"uid": name, "labels": {"app": "web"}, "ownerReferences": owned_by("ReplicaSet", "web-1")});
        let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
        fake.put(
            &format!("/api/v1/namespaces/shop/pods/{name}"),
            json!({"metadata": metadata, "status": status}),
        );
    }
    fake.put(
        "/apis/apps/v1/namespaces/shop/replicasets/web-1",
        json!({"metadata": {"ownerReferences": owned_by("Deployment", "web")}}),
    );
    let dir = tempfile::tempdir().expect("a directory");
    let (data, kubeconfig) = (dir.path().to_str().expect("UTF-8"), fake.kubeconfig("lookback"));
    let flags =
        ["lookback", "--listen=127.0.0.1:0", "--secure-port=0", "--trust-loopback", "--data-dir", data];
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().expect("UTF-8")];
    let cli = Cli::try_parse_from([&flags[..], &kubeconfig].concat()).expect("flags");
    let Command::Serve(args) = cli.into_command() else { panic!("a server") };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Prepared { mut settings, plain, cluster, .. } =
        prepare(&args, clock.clone()).await.expect("prepared");
    // So that this test can be the autoscaler without a front proxy's certificate.
    settings.kubernetes_apis_on_plain_port = true;
    let address = plain.listener.local_addr().expect("bound");
    let store = EmbeddedStore::open(&dir.path().join("store"), Options::default()).expect("opens");
    let app = App::new(Parts {
        store: Arc::new(store),
        clock: clock.clone(),
        settings,
        metrics: Arc::default(),
        catalog: Arc::default(),
        metadata: Arc::default(),
        cluster,
    });
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(app, plain, None, Limits::default(), stop.clone().cancelled_owned()));

    let before_ms = clock.now_ms();
    for (pod, value) in [("web-0", "20"), ("web-1", "30")] {
        let path = format!("/write-metrics/namespaces/shop/pods/{pod}/rps");
        assert!(ask(address, "POST", &path, value).await.starts_with("HTTP/1.1 200"));
    }
    let path = "/write-metrics/namespaces/shop/metrics/jobs";
    assert!(ask(address, "POST", path, "14").await.starts_with("HTTP/1.1 200"));
    let base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop";
    let begun = Instant::now();
    let said = loop {
        let _ = ask(address, "GET", &format!("{base}/pods/*/rps?labelSelector=app%3Dweb"), "").await;
        let _ = ask(address, "GET", &format!("{base}/services/web/queue"), "").await;
        let _ = ask(address, "GET", "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/jobs", "").await;
        let (code, said) = explain(address, &["shop/web"]).await;
        if code == Some(0)
            && said.contains("2 values")
            && said.contains("0 values")
            && said.contains("1 values")
            && said.contains("2 started")
        {
            break said;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for line in [
        "HorizontalPodAutoscaler shop/web at 20",
        "replicas: 3 now, 3 desired by it, 2 at least, 5 at most",
        "conditions: ScalingActive=true",
        "pods: 2 started, 2 ready, 1 pending, 0 failed or being deleted",
        "metric rps (pods), target average 10",
        "asked: pods/* selected by app=web",
        "2 values, sum 50,",
        "1 objects without a value",
        // (20 + 30 + 0) / 3 / 10 = 1.67, of 3 pods.
        "by the autoscaler's formula (tolerance 0.1): 5 replicas",
        "metric queue (object), target value 5",
        "nothing can be made of it",
        "metric jobs (external), target average 4",
        "asked: external\n",
        "1 values, sum 14,",
        "by the autoscaler's formula (tolerance 0.1): 4 replicas",
        "together: the most, 5, within its bounds 5",
        "step: 4, which is as far as its behavior's policies and its bounds go at once",
        "so: 4 replicas",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    let told = ask(address, "GET", "/metrics", "").await;
    for line in
        ["lookback_watched_objects{resource=\"pods\"} 3\n", "lookback_autoscaler_answers_dropped_total 0\n"]
    {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    // An Event tells the autoscaler's owner why.
    let begun = Instant::now();
    let event = loop {
        let events = fake.asked("/apis/events.k8s.io/v1/namespaces/shop/events");
        if let Some(event) = events.into_iter().next() {
            break event.body;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no Event");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(event["regarding"]["name"], "web");
    let note = event["note"].as_str().unwrap_or_default();
    assert!(
        note.contains("metric queue for services/web") && note.contains("nothing of this name"),
        "{note}"
    );

    let at = format!("--at={}", before_ms / 1_000 - 3_600);
    let (code, said) = explain(address, &["shop/web", &at]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing is remembered of HorizontalPodAutoscaler shop/web"), "{said}");
    // A moment that has passed is explained the same when the autoscaler is gone.
    // The next whole second.
    let at = format!("--at={}", clock.now_ms() / 1_000 + 1);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    fake.delete("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (code, said) = explain(address, &["shop/web", &at]).await;
    assert_eq!((code, said.contains("2 values, sum 50")), (Some(0), true), "{said}");
    stop.cancel();
    serving.await.expect("ends");
}
