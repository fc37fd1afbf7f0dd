//! `lookback shadow` beside a (fake) cluster with an adapter and a real Lookback.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::FakeKubernetes;
use common::process::{Server, lookback, run_to_end};
use common::store::now_ms;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io";
const USAGE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers";

fn autoscaler(target: &str, metrics: Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "spec": {
            "minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
            "scaleTargetRef": {"kind": "Deployment", "name": target, "apiVersion": "apps/v1"},
        },
    })
}

fn pods_metric() -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": "rps"},
        "target": {"type": "AverageValue", "averageValue": "10"}}})
}

fn values(items: &[(&str, &str)]) -> Value {
    let item = |(name, value): &(&str, &str)| {
        json!({"describedObject": {"kind": "Pod", "namespace": "shop", "name": name, "apiVersion": "/v1"},
            "metricName": "rps", "timestamp": "2026-11-22T09:02:00Z", "value": value})
    };
    json!({"kind": "MetricValueList", "items": items.iter().map(item).collect::<Vec<_>>()})
}

/// A cluster whose adapter answers `rps` of two pods and knows no external metric `jobs`.
async fn cluster() -> FakeKubernetes {
    let fake = FakeKubernetes::start().await;
    let group = |group: &str| {
        let version = json!({"groupVersion": format!("{group}/v1beta1"), "version": "v1beta1"});
        json!({"kind": "APIGroup", "versions": [version], "preferredVersion": version})
    };
    fake.put(CUSTOM, group("custom.metrics.k8s.io"));
    fake.put("/apis/metrics.k8s.io", group("metrics.k8s.io"));
    fake.put(EXTERNAL, group("external.metrics.k8s.io"));
    for target in ["web", "idle", "jobs"] {
        let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 2},
            "status": {"replicas": 2, "selector": format!("app={target}")}});
        fake.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{target}/scale"), scale);
    }
    for name in ["web-0", "web-1"] {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": status});
        fake.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod);
    }
    fake.put(&format!("{AUTOSCALERS}/web"), autoscaler("web", json!([pods_metric()])));
    let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
        "target": {"type": "AverageValue", "averageValue": "4"}}});
    fake.put(&format!("{AUTOSCALERS}/jobs"), autoscaler("jobs", json!([external])));
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 60}}});
    fake.put(&format!("{AUTOSCALERS}/idle"), autoscaler("idle", json!([cpu])));
    let used = |name: &str| {
        json!({"metadata": {"name": name}, "timestamp": "2026-11-22T09:02:00Z", "window": "15s",
            "containers": [{"name": "app", "usage": {"cpu": "900m", "memory": "512Mi"}}]})
    };
    fake.put(USAGE, json!({"kind": "PodMetricsList", "items": [used("idle-0"), used("idle-1")]}));
    fake.put(
        &format!("{CUSTOM}/v1beta1/namespaces/shop/pods/%2A/rps"),
        values(&[("web-0", "20"), ("web-1", "20")]),
    );
    fake
}

fn shadow(state: &Path, more: &[&str]) -> Command {
    let mut command = lookback();
    command.args(["shadow", "--interval=1s"]).arg(format!("--state-file={}", state.display())).args(more);
    command
}

/// Exit code, stdout and stderr.
async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(move || run_to_end(&mut command)).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_asked_and_differences_are_reported_in_values_and_replicas_over_restarts() {
    let fake = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = tokio::task::spawn_blocking(move || Server::start(&data, &[])).await.unwrap();
    let push = |path: &str, value: &str| {
        assert_eq!(server.post(&format!("/write-metrics/namespaces/shop/{path}"), value).status, 200);
    };
    push("pods/web-0/rps", "20");
    push("pods/web-1/rps", "20");
    let state = dir.path().join("state.json");
    let kubeconfig = format!("--kubeconfig={}", fake.kubeconfig("admin").display());
    let url = format!("--server=http://{}", server.address);
    // A selector of objects needs a cluster; this Lookback has none, so its pods carry the label themselves.
    let args = [kubeconfig.as_str(), url.as_str()];

    let (code, said, log) = run(shadow(&state, &[&args[..], &["--rounds=1"]].concat())).await;
    assert_eq!(code, Some(0), "{log}");
    // Without a cluster Lookback can't select pods, and says so.
    assert!(
        said.contains("1 rounds") && said.contains("1 of 3 autoscalers would have been scaled otherwise"),
        "{said}"
    );
    assert!(said.contains("shop/web: other replicas in 1 of 1 rounds"), "{said}");
    assert!(said.contains("of 2 replicas 4 by the present adapter, - by Lookback"), "{said}");
    assert!(said.contains("Lookback had none in 1 rounds: answers 501"), "{said}");
    assert!(said.contains("shop/jobs: the same replicas in 1 rounds"), "{said}");
    assert!(said.contains("neither had one in 1 rounds"), "{said}");
    assert!(said.contains("shop/idle: the same replicas in 1 rounds"), "{said}");
    assert!(log.contains("4 by the present adapter, nothing by Lookback"), "{log}");

    // The pods' selector is empty now, as a scale without one has it.
    for target in ["web", "jobs"] {
        let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 2}, "status": {"replicas": 2}});
        fake.put(&format!("/apis/apps/v1/namespaces/shop/deployments/{target}/scale"), scale);
    }
    let (_, said, _) = run(shadow(&state, &[&args[..], &["--rounds=2"]].concat())).await;
    assert!(said.contains("shop/web: other replicas in 1 of 2 rounds"), "the same now: {said}");
    assert!(
        said.contains("pods rps: 1 answers of both, 0 with other values, by 0.0 % at the most"),
        "{said}"
    );

    push("pods/web-1/rps", "60");
    push("metrics/jobs", "18");
    let (_, said, _) = run(shadow(&state, &[&args[..], &["--rounds=3", "--output=json"]].concat())).await;
    let found: Value = serde_json::from_str(&said).unwrap();
    let web = &found["autoscalers"]["shop/web"];
    assert_eq!(
        (&web["rounds"], &web["differing"], &web["mostMore"]),
        (&json!(3), &json!(2), &json!(4)),
        "{found}"
    );
    let last = &web["lastDifference"];
    assert_eq!((&last["present"], &last["lookback"]), (&json!(4), &json!(8)));
    assert_eq!(web["metrics"]["pods rps"]["mostRelative"], 0.5);
    let jobs = &found["autoscalers"]["shop/jobs"];
    assert_eq!(
        (&jobs["lastDifference"]["present"], &jobs["lastDifference"]["lookback"]),
        (&json!(null), &json!(5))
    );
    let asked = fake.asked(&format!("{CUSTOM}/v1beta1/namespaces"));
    assert!(asked[0].path.ends_with("/pods/%2A/rps?labelSelector=app%3Dweb"), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.method == "GET"), "a shadow changes nothing");

    let (code, said, _) = run(shadow(&state, &["--report"])).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("3 rounds from 20"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_use_is_compared_where_lookback_serves_it_too() {
    let fake = cluster().await;
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 2}, "status": {"replicas": 2}});
    fake.put("/apis/apps/v1/namespaces/shop/deployments/idle/scale", scale);
    for name in ["web-0", "web-1"] {
        fake.delete(&format!("/api/v1/namespaces/shop/pods/{name}"));
    }
    let requests = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
    let status = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]});
    for name in ["idle-0", "idle-1"] {
        let spec = json!({"containers": [{"name": "app", "resources": requests}]});
        let pod = json!({"metadata": {"labels": {"app": "idle"}}, "spec": spec, "status": status});
        fake.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod);
    }
    let memory = json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "app",
        "target": {"type": "AverageValue", "averageValue": "256Mi"}}});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 60}}});
    fake.put(&format!("{AUTOSCALERS}/idle"), autoscaler("idle", json!([cpu, memory])));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let flags = ["--runtime-config=metrics.k8s.io=true"];
    let server = tokio::task::spawn_blocking(move || Server::start(&data, &flags)).await.unwrap();
    let now_ms = now_ms();
    let mut lines = String::new();
    // 300m of cpu, and twice the memory.
    for (ago_ms, seconds) in [(30_000, 100.0), (15_000, 104.5)] {
        for pod in ["idle-0", "idle-1"] {
            for (metric, value) in [
                ("container_cpu_usage_seconds_total", seconds),
                ("container_memory_working_set_bytes", 1_073_741_824.0),
            ] {
                let line = json!({"namespace": "shop", "resource": "pods", "name": pod, "metric": metric, "value": value,
                    "labels": {"container": "app"}, "timestamp": now_ms - ago_ms});
                lines.push_str(&format!("{line}\n"));
            }
        }
    }
    assert_eq!(server.post("/write-metrics", &lines).status, 200);
    let kubeconfig = format!("--kubeconfig={}", fake.kubeconfig("admin").display());
    let idle = async |server: &Server, state: &str| {
        let url = format!("--server=http://{}", server.address);
        let args = [kubeconfig.as_str(), url.as_str(), "--rounds=1", "--output=json"];
        let (_, said, log) = run(shadow(&dir.path().join(state), &args)).await;
        let found: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said} {log}"));
        found["autoscalers"]["shop/idle"].clone()
    };
    // Where Lookback does not serve it, whoever does goes on to.
    let data = dir.path().join("other");
    let other = tokio::task::spawn_blocking(move || Server::start(&data, &[])).await.unwrap();
    let found = idle(&other, "other.json").await;
    assert_eq!(
        (&found["differing"], &found["metrics"]["usage cpu"]["both"]),
        (&json!(0), &json!(1)),
        "{found}"
    );

    let found = idle(&server, "state.json").await;
    // 90 % at 60 % and 512Mi at 256Mi, of 2 pods; then 30 % and 1Gi.
    let difference = &found["lastDifference"];
    assert_eq!((&difference["present"], &difference["lookback"]), (&json!(4), &json!(8)), "{found}");
    let relative = |metric: &str| found["metrics"][metric]["mostRelative"].as_f64().unwrap_or_default();
    assert!((relative("usage cpu") - 2.0 / 3.0).abs() < 0.01, "{found}");
    assert_eq!(relative("usage memory app"), 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_used_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.json");
    let (code, _, error) = run(shadow(&state, &["--report"])).await;
    assert!(code == Some(1) && error.contains("nothing has been compared yet"), "{error}");
    std::fs::write(&state, "{}").unwrap();
    let (code, _, error) = run(shadow(&state, &["--report"])).await;
    assert!(code == Some(1) && error.contains("is no state of lookback shadow"), "{error}");
    let fake = FakeKubernetes::start().await;
    let kubeconfig = format!("--kubeconfig={}", fake.kubeconfig("admin").display());
    let other = dir.path().join("other.json");
    let (code, _, error) = run(shadow(&other, &[&kubeconfig])).await;
    assert!(code == Some(1) && error.contains("by which CA"), "{error}");
}
