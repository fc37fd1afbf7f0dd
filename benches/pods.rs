//! What does a cluster of 50,000 pods cost the built server at rest? Beside a (small) Kubernetes API that tells of them page
//! by page: without pods; with pods of which names and labels are known, as selectors need them; and with what
//! autoscalers' formulas need of each, and who owns which remembered as series.
//!
//! Not a criterion bench: whole processes, for about a minute. The figure is the resident memory of the server alone, which
//! the allocator may give back late.

#[path = "../tests/common/fake_kubernetes.rs"]
mod fake_kubernetes;
#[path = "peers/http.rs"]
#[allow(dead_code, reason = "nothing is written here")]
mod http;
#[path = "common/server.rs"]
mod server;

use fake_kubernetes::FakeKubernetes;
use http::Connection;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PODS: usize = 50_000;
/// A Deployment has so many.
const REPLICAS: usize = 20;
/// Until what was read has been written down, and memory given back.
const REST: Duration = Duration::from_secs(20);

fn main() {
    // As by `cargo test --benches`: it is only to be seen that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let without = runtime.block_on(at_rest(0, &[]));
    println!("no pods: {without:.0} MB");
    for (what, flags) in [
        ("names and labels", &["--ownership-interval=off"][..]),
        ("names and labels, what formulas need, and series of who owns which", &[]),
    ] {
        let with = runtime.block_on(at_rest(PODS, flags));
        let each = (with - without) * 1_024.0 * 1_024.0 / PODS as f64;
        println!("{PODS} pods, {what}: {with:.0} MB, {each:.0} B a pod");
    }
}

/// A pod with the labels that charts give, as kubelets and controllers leave it.
fn pod(number: usize) -> (String, Value) {
    let workload = format!("service-{:04}", number / REPLICAS);
    let (replicaset, hash) = (format!("{workload}-66b6c48dd5"), "66b6c48dd5");
    let path = format!("/api/v1/namespaces/team-{:02}/pods/{replicaset}-{number:05}", number / REPLICAS % 50);
    let since = "2026-11-22T10:00:00Z";
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replicaset, "uid": replicaset, "controller": true});
    let pod = json!({
        "apiVersion": "v1",
        "metadata": {
            "labels": {"app.kubernetes.io/name": workload, "app.kubernetes.io/instance": workload,
                "app.kubernetes.io/component": "server", "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": "service-1.2.3", "pod-template-hash": hash},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": format!("node-{:03}", number % 500), "containers": [{"name": "app", "image": "registry/service:1",
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}}}]},
        "status": {"phase": "Running", "startTime": since, "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]},
    });
    (path, pod)
}

/// The megabytes of a server beside a cluster of so many pods.
async fn at_rest(pods: usize, flags: &[&str]) -> f64 {
    let kubernetes = FakeKubernetes::start().await;
    kubernetes.tell_of_pods_and_nodes();
    for (path, pod) in (0..pods).map(pod) {
        kubernetes.put(&path, pod);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (server, plain, _) = server::start(dir.path(), &kubernetes.kubeconfig("lookback"), flags);
    let measured = tokio::task::spawn_blocking(move || {
        wait_for_all(plain, pods);
        std::thread::sleep(REST);
        server.memory_mb("VmRSS")
    });
    measured.await.expect("measured")
}

fn wait_for_all(address: SocketAddr, pods: usize) {
    let (began, wanted) = (Instant::now(), format!("lookback_watched_objects{{resource=\"pods\"}} {pods}\n"));
    let metrics = || {
        let mut connection = Connection::open(&address.to_string()).ok()?;
        connection.get("/metrics").ok()?;
        String::from_utf8(connection.body).ok()
    };
    while !metrics().is_some_and(|metrics| metrics.contains(&wanted)) {
        assert!(began.elapsed() < Duration::from_secs(180), "not all pods are known");
        std::thread::sleep(Duration::from_millis(500));
    }
}
