//! What does it take to ask the kubelets of a whole cluster? 500 nodes with 30 pods of two containers each, every 15 s, by
//! real HTTPS on loopback, a port a node, beside a (small) Kubernetes API that has the nodes, the pods and their
//! owners. Told are the CPU and the memory of the built server alone.
//!
//! Not a criterion bench: whole processes, for two minutes. The kubelets share the machine.

#[path = "../tests/common/fake_kubelets.rs"]
mod fake_kubelets;
#[path = "../tests/common/fake_kubernetes.rs"]
mod fake_kubernetes;
#[path = "peers/http.rs"]
#[allow(dead_code, reason = "nothing is written here")]
mod http;
#[path = "common/server.rs"]
mod server;
#[path = "../tests/common/store.rs"]
mod store;

use fake_kubelets::{Container, Kubelets, Telling};
use fake_kubernetes::FakeKubernetes;
use http::Connection;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NODES: usize = 500;
const PODS_PER_NODE: usize = 30;
const CONTAINERS: [&str; 2] = ["app", "sidecar"];
const NAMESPACES: usize = 50;
/// A Deployment has so many pods.
const REPLICAS: usize = 10;
const TOKEN: &str = "of-lookback";
/// Four rounds, and one writing down of who owns what.
const TIME: Duration = Duration::from_secs(60);

fn main() {
    // As by `cargo test --benches`: it is only to be seen that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Runtime::new().expect("a runtime").block_on(measure());
}

/// Namespace, ReplicaSet and name of a pod of the whole cluster.
fn pod(number: usize) -> (String, String, String) {
    let of = number / REPLICAS;
    let replicaset = format!("service-{of:04}-66b6c48dd5");
    let name = format!("{replicaset}-{:05}", number % REPLICAS);
    (format!("team-{:02}", of % NAMESPACES), replicaset, name)
}

fn owned(kind: &str, owner: &str, node: usize) -> Value {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true});
    json!({
        "apiVersion": "v1",
        "metadata": {"labels": {"app": owner["name"]}, "ownerReferences": [owner]},
        "spec": {"nodeName": format!("node-{node:03}")},
        "status": {"phase": "Running"},
    })
}

async fn measure() {
    let kubernetes = FakeKubernetes::start().await;
    kubernetes.tell_of_pods_and_nodes();
    let names: Vec<String> = (0..NODES).map(|node| format!("node-{node:03}")).collect();
    let kubelets = Kubelets::start(&names, TOKEN).await;
    for (node, kubelet) in kubelets.all.iter().enumerate() {
        let mut containers = Vec::new();
        for number in node * PODS_PER_NODE..(node + 1) * PODS_PER_NODE {
            let (namespace, replicaset, name) = pod(number);
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            kubernetes.put(&path, owned("ReplicaSet", &replicaset, node));
            if number % REPLICAS == 0 {
                let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{replicaset}");
                let deployment = replicaset.trim_end_matches("-66b6c48dd5");
                kubernetes.put(&path, owned("Deployment", deployment, node));
            }
            for container in CONTAINERS {
                let cores = 0.01 + number as f64 / 1e5;
                containers.push(Container::new(
                    &namespace,
                    &name,
                    container,
                    cores,
                    (64 << 20) + number as u64 * 4_096,
                ));
            }
        }
        kubelet.tells(Telling::Containers(containers));
        kubernetes.put(&format!("/api/v1/nodes/{}", kubelet.name), kubelet.node());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let ca = format!("--kubelet-certificate-authority={}", kubelets.ca().display());
    let flags = ["--collect-usage", "--kubelet-use-node-status-port", ca.as_str()];
    let (server, plain, _) = server::start(dir.path(), &kubernetes.kubeconfig(TOKEN), &flags);
    let asked = tokio::task::spawn_blocking(move || {
        wait_for_all(plain);
        // Into the second round, so that each connection is there.
        std::thread::sleep(Duration::from_secs(20));
        let (cpu, since) = (server.cpu_seconds(), Instant::now());
        std::thread::sleep(TIME);
        let seconds = since.elapsed().as_secs_f64();
        let cores = (server.cpu_seconds() - cpu) / seconds;
        println!(
            "{NODES} nodes, {} containers, {} series, every 15 s: {cores:.2} cores ({:.2} CPU s a round), \
             {:.0} MB, {:.0} MB at its peak",
            NODES * PODS_PER_NODE * CONTAINERS.len(),
            number(plain, "count({__name__=~\".+\"})"),
            cores * 15.0,
            server.memory_mb("VmRSS"),
            server.memory_mb("VmHWM")
        );
        let missed = number(plain, "count(up{job=\"kubelet-resource\"} == 0) or vector(0)");
        assert!(missed == 0.0, "{missed} kubelets were not reached");
    });
    asked.await.expect("measured");
}

/// The value of a query that has one; 0 where it has none.
fn number(address: SocketAddr, promql: &str) -> f64 {
    let query = percent_encoding::utf8_percent_encode(promql, percent_encoding::NON_ALPHANUMERIC);
    let mut connection = Connection::open(&address.to_string()).expect("connected");
    let status = connection.get(&format!("/api/v1/query?query={query}")).expect("answered");
    let answer: Value = serde_json::from_slice(&connection.body).unwrap_or_default();
    assert_eq!(status, 200, "{answer}");
    answer["data"]["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

fn wait_for_all(address: SocketAddr) {
    let began = Instant::now();
    let ready = || Connection::open(&address.to_string()).and_then(|mut c| c.get("/readyz"));
    while ready().ok() != Some(200) {
        assert!(began.elapsed() < Duration::from_secs(120), "it is not ready");
        std::thread::sleep(Duration::from_millis(100));
    }
    let expected = (NODES * PODS_PER_NODE * CONTAINERS.len()) as f64;
    loop {
        let found = number(address, "count(container_cpu_usage_seconds_total)");
        if found == expected {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "{found} of {expected} containers are known");
        std::thread::sleep(Duration::from_secs(1));
    }
}
