//! `lookback preflight`, `take-over` and `give-back` against a (fake) API server.

mod common;

use common::fake_kubernetes::FakeKubernetes;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const V1BETA1: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.custom.metrics.k8s.io";
const V1BETA2: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io";

/// Exit code, stdout and stderr.
async fn lookback(kubeconfig: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookback"));
    command.args(args).arg("--kubeconfig").arg(kubeconfig);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

/// The adapter that was there.
fn others() -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"labels": {"app": "prometheus-adapter"}},
        "spec": {
            "group": "custom.metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100, "versionPriority": 77,
            "service": {"namespace": "monitoring", "name": "prometheus-adapter", "port": 6443},
        },
        "status": {"conditions": [{"type": "Available", "status": "True"}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_fails_where_another_would_lose_its_autoscalers() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = fake.kubeconfig("admin");
    let (code, table, _) = lookback(&kubeconfig, &["preflight"]).await;
    assert_eq!(code, 0, "{table}");
    assert_eq!(table.matches("free: can be registered").count(), 2, "{table}");

    fake.put(V1BETA1, others());
    let (code, table, error) = lookback(&kubeconfig, &["preflight"]).await;
    assert_eq!(code, 1);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let start = ["v1beta1.custom.metrics.k8s.io", "monitoring/prometheus-adapter", "yes", "REFUSED:"];
    assert_eq!(rows[1][..4], start, "{table}");
    assert_eq!(rows[2][..4], ["v1beta2.custom.metrics.k8s.io", "nobody", "-", "REFUSED:"], "{table}");
    assert!(error.contains("v1beta2.custom.metrics.k8s.io would be taken") && error.contains("--take-over"));
    assert_eq!(lookback(&kubeconfig, &["preflight", "--take-over"]).await.0, 0);
    let external = ["preflight", "--apis", "v1beta1.external.metrics.k8s.io"];
    assert_eq!(lookback(&kubeconfig, &external).await.0, 0, "what is free can be registered alone");
    let own = ["preflight", "--service", "monitoring/prometheus-adapter"];
    assert_eq!(lookback(&kubeconfig, &own).await.0, 0, "its own is no other");
    let written = fake.asked(API_SERVICES).into_iter().filter(|asked| asked.method != "GET").count();
    assert_eq!(written, 0, "a preflight changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resource_metrics_api_is_never_taken_from_metrics_server_unasked() {
    const USAGE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    let fake = FakeKubernetes::start().await;
    let kubeconfig = fake.kubeconfig("admin");
    let asked = ["preflight", "--apis", "v1beta1.metrics.k8s.io"];
    let (code, table, _) = lookback(&kubeconfig, &asked).await;
    assert!(code == 0 && table.contains("free: can be registered"), "{table}");
    let mut metrics_server = others();
    metrics_server["metadata"]["labels"] = json!({"k8s-app": "metrics-server"});
    metrics_server["spec"]["group"] = json!("metrics.k8s.io");
    metrics_server["spec"]["service"] =
        json!({"namespace": "kube-system", "name": "metrics-server", "port": 443});
    fake.put(USAGE, metrics_server);
    let (code, table, error) = lookback(&kubeconfig, &asked).await;
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(code, 1, "{table}");
    assert_eq!(
        row[..4],
        ["v1beta1.metrics.k8s.io", "kube-system/metrics-server", "yes", "REFUSED:"],
        "{table}"
    );
    assert!(
        error.contains("v1beta1.metrics.k8s.io would be taken") && error.contains("--take-over"),
        "{error}"
    );
    assert_eq!(lookback(&kubeconfig, &[&asked[..], &["--take-over"]].concat()).await.0, 0);
    assert_eq!(
        lookback(&kubeconfig, &["preflight"]).await.0,
        0,
        "it is not among those that are registered unasked"
    );
    let written = fake.asked(API_SERVICES).into_iter().filter(|asked| asked.method != "GET").count();
    assert_eq!(written, 0, "a preflight changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_over_is_given_back_as_it_was() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = fake.kubeconfig("admin");
    fake.put(V1BETA1, others());
    let ca = fake.dir().join("ca.crt");
    std::fs::write(&ca, "a CA").expect("written");
    let ca = ca.to_str().expect("UTF-8");
    let only = ["--apis", "v1beta1.custom.metrics.k8s.io", "--wait", "1s"];
    let args = [&["take-over", "--service", "lb/lookback", "--service-ca-file", ca][..], &only].concat();
    let (code, said, error) = lookback(&kubeconfig, &args).await;
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("lb/lookback now, monitoring/prometheus-adapter before"), "{said}");
    let taken = fake.get(V1BETA1).expect("there");
    assert_eq!(taken["spec"]["service"], json!({"namespace": "lb", "name": "lookback", "port": 443}));
    assert_eq!(taken["spec"].get("insecureSkipTLSVerify"), None, "never");
    assert_eq!(taken["spec"]["caBundle"], "YSBDQQ==");
    assert_eq!(taken["spec"]["versionPriority"], 100);
    assert_eq!(taken["metadata"]["labels"]["app"], "prometheus-adapter");
    assert_eq!(lookback(&kubeconfig, &args).await.0, 0, "taking it over again keeps who had it first");

    let (code, said, error) = lookback(&kubeconfig, &["give-back"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("monitoring/prometheus-adapter again"), "{said}");
    let mut back = fake.get(V1BETA1).expect("there");
    assert!(back["metadata"]["annotations"].as_object().is_none_or(serde_json::Map::is_empty), "{back}");
    assert_eq!(back["spec"].take(), others()["spec"]);
    let (_, said, _) = lookback(&kubeconfig, &["give-back"]).await;
    assert!(said.contains("not taken over, left as it is"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_become_available_gives_all_back() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = fake.kubeconfig("admin");
    fake.put(V1BETA1, others());
    // Nobody says that the new v1beta2 is available.
    let (code, _, error) = lookback(&kubeconfig, &["take-over", "--wait", "1s"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("all is given back as it was") && error.contains("within 1s"), "{error}");
    assert_eq!(fake.get(V1BETA1).expect("there")["spec"], others()["spec"]);
    assert_eq!(fake.get(V1BETA2), None);
}
