//! `lookback shadow` beside a (fake) cluster with an adapter and a real Lookback.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::FakeKubernetes;
use common::process::{Server, lookback, run_to_end};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io";
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
        said.contains("1 rounds") && said.contains("1 of 2 autoscalers would have been scaled otherwise"),
        "{said}"
    );
    assert!(said.contains("shop/web: other replicas in 1 of 1 rounds"), "{said}");
    assert!(said.contains("of 2 replicas 4 by the present adapter, - by Lookback"), "{said}");
    assert!(said.contains("Lookback had none in 1 rounds: answers 501"), "{said}");
    assert!(said.contains("shop/jobs: the same replicas in 1 rounds"), "{said}");
    assert!(said.contains("neither had one in 1 rounds"), "{said}");
    assert!(!said.contains("shop/idle"), "metrics.k8s.io answers it: {said}");
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
