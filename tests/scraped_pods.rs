//! Pods that a job's rules find are scraped, and what changes is followed: pods, their labels, the file.
//!
//! The API server is a fake over real TLS; the server is the built one, and the pod is a real target on loopback.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::routing::get;
use common::fake_kubernetes::{FakeKubernetes, Fault};
use common::process::{Server, run_to_end, wait_until};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::Path;

const PODS: &str = "/api/v1/namespaces/shop/pods";

/// A target that exposes one gauge; its port.
async fn exposing() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/metrics", get(|| async { "orders 7\n" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn pod(team: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": {"team": team}},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "ports": [
            {"name": "admin", "containerPort": 1}, {"name": "metrics", "containerPort": port},
        ]}]},
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    })
}

fn config(kept_team: &str) -> String {
    format!(
        "scrape_configs:
- job_name: by-rule
  scrape_interval: 200ms
  scrape_timeout: 200ms
  kubernetes_sd_configs:
  - role: pod
    namespaces: {{names: [shop]}}
    selectors: [{{role: pod, label: 'tier!=test'}}]
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_label_team], regex: {kept_team}, action: keep}}
  - {{source_labels: [__meta_kubernetes_pod_container_port_name], regex: metrics, action: keep}}
  - {{regex: '__meta_kubernetes_pod_label_(.+)', action: labelmap}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod, action: uppercase}}
"
    )
}

/// The labels of what `query` finds, by pod.
fn found(server: &Server, query: &str) -> Vec<Value> {
    let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
    let answer = server.get(&format!("/api/v1/query?query={query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["result"].as_array().unwrap().iter().map(|one| one["metric"].clone()).collect()
}

fn pods(server: &Server) -> Vec<String> {
    found(server, "orders").iter().map(|labels| labels["pod"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_rules_keep_are_scraped_while_they_are_there() {
    let (fake, port) = (FakeKubernetes::start().await, exposing().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrape.yml");
    std::fs::write(&file, config("web|db")).unwrap();
    fake.put(&format!("{PODS}/a"), pod("web", port));
    fake.put(&format!("{PODS}/b"), pod("other", port));
    let kubeconfig = format!("--kubeconfig={}", fake.kubeconfig("lookback").display());
    let scrape = format!("--scrape-config={}", file.display());
    tokio::task::block_in_place(|| {
        let server = Server::start(dir.path(), &[&kubeconfig, &scrape, "--trust-loopback"]);
        wait_until("the pod is scraped", || pods(&server) == ["A"]);
        let instance = format!("127.0.0.1:{port}");
        let labels = json!({"__name__": "orders", "instance": instance, "job": "by-rule", "namespace": "shop",
            "pod": "A", "team": "web"});
        assert_eq!(found(&server, "orders"), [labels]);
        let lists = fake.asked(PODS);
        assert!(lists.iter().any(|asked| asked.path.contains("labelSelector=tier%21%3Dtest")), "{lists:?}");

        fake.put(&format!("{PODS}/c"), pod("db", port));
        wait_until("another pod is scraped", || pods(&server) == ["A", "C"]);
        // While the API server is away what is known goes on.
        fake.set_fault(Some(Fault::Failing(500)));
        let count = || found(&server, "count_over_time(orders{pod=\"C\"}[5m]) > 20");
        wait_until("it is scraped on", || count().len() == 1);
        fake.set_fault(None);
        fake.delete(&format!("{PODS}/a"));
        wait_until("a pod that is deleted ends", || pods(&server) == ["C"]);

        // A file that is wrong changes nothing; one that is right does.
        std::fs::write(&file, config("web").replace("role: pod", "role: node")).unwrap();
        fake.put(&format!("{PODS}/c"), pod("other", port));
        wait_until("a pod whose label changes ends", || pods(&server).is_empty());
        std::fs::write(&file, config("other")).unwrap();
        wait_until("the file is followed", || pods(&server) == ["B", "C"]);
    });
}

#[test]
fn a_job_that_finds_pods_needs_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrape.yml");
    std::fs::write(&file, config("web")).unwrap();
    let said = refused(&file, dir.path());
    assert!(
        said.contains("job \"by-rule\": kubernetes_sd_configs needs a cluster: give --kubeconfig FILE"),
        "{said}"
    );
    std::fs::write(&file, config("web").replace("role: pod\n", "role: endpoints\n")).unwrap();
    let said = refused(&file, dir.path());
    assert!(said.contains("the role \"endpoints\" is not supported, only pod is"), "{said}");
}

/// What the server says as it does not start.
fn refused(file: &Path, dir: &Path) -> String {
    let output = run_to_end(
        common::process::lookback()
            .args(["serve", "--listen", "127.0.0.1:0", "--secure-port", "0", "--scrape-config"])
            .arg(file)
            .arg("--data-dir")
            .arg(dir.join("data")),
    );
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}
