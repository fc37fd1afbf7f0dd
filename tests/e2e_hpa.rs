//! HPAs of every kind against a real Kubernetes control plane: kube-apiserver with the aggregation layer and
//! kube-controller-manager, named by `KUBECONFIG`. Skipped without one.
//!
//! The built binary runs on this machine and is registered from a namespace of its own by a Service of type
//! ExternalName, so kube-apiserver has to reach this machine under `LOOKBACK_E2E_HOST` (default: `localhost`, for a
//! control plane on the same machine; then Lookback listens on loopback only). It has the rights of
//! `deploy/base/rbac.yaml` and no others, and what is pushed comes with the token of a ServiceAccount that may create
//! just that. Pods need no kubelet: those that no node takes are said to be ready. Where the cluster has no node,
//! their addresses are on loopback, and two Deployments are scraped there, by annotation and by a job's rules. Where it has
//! no metrics-server either, a kubelet of this test's tells what pods use, and HPAs on cpu and memory and `kubectl top` are
//! answered from that. Whatever an HPA comes to, `lookback explain hpa` comes to the same. A cluster in which another
//! adapter owns one of the groups is left alone.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;
mod e2e;

use common::fake_kubelets::{Container, Kubelets, Telling};
use common::manifests::{output_of, tool};
use common::process::{Client, Server, free_port, lookback};
use e2e::cases::{CONTAINER, Case, Told, cases, scraped_cases, usage_cases};
use e2e::kubernetes::{Kubernetes, condition};
use e2e::run::{REGISTRATIONS, Run, USAGE, owner};
use e2e::targets::{POD_IP, expose, scrape_config};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a kubelet would do for pods that no node takes: says that they run and are ready.
async fn say_pods_are_ready(kubernetes: Kubernetes, namespace: String) {
    loop {
        let pods = kubernetes.get(&format!("/api/v1/namespaces/{namespace}/pods")).await.unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            if !pod["spec"]["nodeName"].is_null() || condition(pod, "Ready") == "True" {
                continue;
            }
            let since = &pod["metadata"]["creationTimestamp"];
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
            let status = json!({"status": {"phase": "Running", "startTime": since, "conditions": [ready],
                "podIP": POD_IP, "podIPs": [{"ip": POD_IP}]}});
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
            // It may have gone in the meantime.
            let _ = kubernetes.call("PATCH", &path, Some(&status)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Pushes each case's value again and again, as applications do, to the address of the moment.
async fn push(
    run: Arc<Run>,
    cases: Arc<Vec<Case>>,
    high: Arc<AtomicBool>,
    address: Arc<Mutex<SocketAddr>>,
    token: String,
) {
    let authorization = format!("Bearer {token}");
    loop {
        let pods_path = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3Dpods", run.namespace);
        let pods = run.kubernetes.get(&pods_path).await.unwrap_or_default();
        let names =
            pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
        let mut pushes = Vec::new();
        for case in cases.iter() {
            let value = if high.load(Ordering::SeqCst) { case.high } else { case.low };
            match &case.told {
                Told::To(path) => pushes.push((path.clone(), value)),
                Told::ForPods => pushes.extend(names.clone().map(|name| {
                    (format!("/write-metrics/namespaces/{}/pods/{name}/e2e_load", run.namespace), value)
                })),
                Told::Cores | Told::Bytes | Told::Scraped(_) => {}
            }
        }
        let address = *address.lock().unwrap();
        let authorization = authorization.clone();
        let pushed = tokio::task::spawn_blocking(move || {
            let headers = [("Authorization", authorization.as_str())];
            let mut client = Client::new(address);
            for (path, value) in pushes {
                // An error: the server is being killed.
                let Ok(reply) = client.send("POST", &path, &headers, format!("\"{value}\"").as_bytes())
                else {
                    return;
                };
                assert!(
                    reply.is_success() || reply.status == 503,
                    "{path}: {} {}",
                    reply.status,
                    reply.text()
                );
            }
        });
        pushed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Has the kubelet tell what the pods of the cases use.
async fn tell_usage(run: Arc<Run>, cases: Arc<Vec<Case>>, high: Arc<AtomicBool>) {
    loop {
        let path = format!("/api/v1/namespaces/{}/pods", run.namespace);
        let pods = run.kubernetes.get(&path).await.unwrap_or_default();
        let mut containers = Vec::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let case = cases.iter().find(|case| pod["metadata"]["labels"]["app"] == case.name);
            let value = case.map(|case| if high.load(Ordering::SeqCst) { case.high } else { case.low });
            let (cores, bytes) = match (case.map(|case| &case.told), value) {
                (Some(Told::Cores), Some(value)) => (value.parse().unwrap(), 1_000_000),
                (Some(Told::Bytes), Some(value)) => (0.001, value.parse().unwrap()),
                _ => continue,
            };
            let name = pod["metadata"]["name"].as_str().unwrap();
            let created: jiff::Timestamp =
                pod["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
            let started_ms = created.as_millisecond();
            let container = Container::new(&run.namespace, name, CONTAINER, cores, bytes);
            containers.push(Container { started_ms, ..container });
        }
        for kubelet in run.kubelet.iter().flat_map(|kubelets| &kubelets.all) {
            kubelet.tells(Telling::Containers(containers.clone()));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// `kubectl top` of nodes and pods, from kube-apiserver.
fn look_at_top(run: &Run) {
    let Some(kubectl) = tool("kubectl") else { return };
    for args in [&["top", "nodes"][..], &["top", "pods", "--containers", "--namespace", &run.namespace]] {
        let told = output_of(Command::new(&kubectl).env("KUBECONFIG", &run.kubeconfig).args(args));
        let wanted = if args[1] == "nodes" { &run.node } else { CONTAINER };
        assert!(told.contains(wanted) && !told.contains("<unknown>"), "kubectl {args:?}: {told}");
        eprintln!("kubectl {}:\n{told}", args.join(" "));
    }
}

/// What people and tools see of it through kube-apiserver.
async fn look_through_the_aggregator(run: &Run) {
    let kubernetes = &run.kubernetes;
    let pods = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/pods/*/e2e_load", run.namespace);
    let list = kubernetes.wait_for(&pods, "pods have values", |list| list["items"][0].is_object()).await;
    assert_eq!(list["kind"], "MetricValueList");
    let path = "/apis/custom.metrics.k8s.io/v1beta1";
    let listed = |found: &Value| {
        let resources = found["resources"].as_array().into_iter().flatten();
        resources.filter_map(|resource| resource["name"].as_str()).any(|name| name == "pods/e2e_load")
    };
    kubernetes.wait_for(path, "discovery lists pods/e2e_load", listed).await;
    let groups = kubernetes.get("/apis").await.unwrap().to_string();
    for (group, version, _) in run.registrations() {
        assert!(groups.contains(&format!("{group}/{version}")), "{groups}");
    }
    let Some(kubectl) = tool("kubectl") else { return };
    let kubectl =
        |args: &[&str]| output_of(Command::new(&kubectl).env("KUBECONFIG", &run.kubeconfig).args(args));
    let versions = kubectl(&["api-versions"]);
    assert!(versions.contains("custom.metrics.k8s.io/v1beta2"), "{versions}");
    let raw: Value = serde_json::from_str(&kubectl(&["get", "--raw", &pods])).unwrap();
    assert!(raw["items"][0]["value"].is_string(), "{raw}");
    eprintln!("kubectl get --raw {pods}: {raw}");
    let hpas = kubectl(&["get", "hpa", "--namespace", &run.namespace]);
    eprintln!("kubectl get hpa:\n{hpas}");
}

/// A namespace is made and deleted, which takes working discovery of every group.
async fn delete_a_namespace(run: &Run) {
    let name = format!("{}-other", run.namespace);
    run.kubernetes.create("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
    let path = format!("/api/v1/namespaces/{name}");
    run.kubernetes.call("DELETE", &path, None).await.unwrap();
    run.kubernetes.wait_until_gone(&path).await;
    eprintln!("a namespace was deleted");
}

/// Another namespace, another metric and reading are refused to a token that may push some metrics.
fn refuse_what_the_writer_may_not(run: &Run, server: &Server, token: &str) {
    let authorization = format!("Bearer {token}");
    let mut client = server.client();
    let mut status = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let reply = client.send(method, path, headers, if method == "POST" { b"1" } else { b"" }).unwrap();
        (reply.status, reply.text())
    };
    let own = format!("/write-metrics/namespaces/{}/services/web", run.namespace);
    let bearer = [("Authorization", authorization.as_str())];
    for (method, path, headers, expected) in [
        ("POST", format!("{own}/e2e_requests"), &bearer[..], 200),
        ("POST", format!("{own}/other"), &bearer, 403),
        ("POST", "/write-metrics/namespaces/default/services/web/e2e_requests".to_owned(), &bearer, 403),
        ("POST", "/write-metrics/namespaces/default/services/web/e2e_requests".to_owned(), &[], 401),
        ("POST", format!("{own}/e2e_requests"), &[("Authorization", "Bearer nobody's")], 401),
        ("GET", format!("/api/v1/metrics?namespace={}&workload=web&metric=cpu", run.namespace), &bearer, 403),
        ("GET", "/metrics".to_owned(), &bearer, 403),
    ] {
        let (status, said) = status(method, &path, headers);
        assert_eq!(status, expected, "{method} {path}: {said}");
    }
    eprintln!("tokens: the writer may push what its role says, and nothing else");
}

/// `lookback explain hpa` comes to what each HPA came to, also to the same utilization.
async fn explain_the_same(run: &Run, cases: &[Case], address: SocketAddr, token_file: &Path) {
    for case in cases {
        let (namespace, name) = (&run.namespace, case.name);
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = run.kubernetes.get(&path).await.unwrap()["status"].clone();
            let mut command = lookback();
            command.args(["explain", "hpa", &format!("{namespace}/{name}")]);
            command.arg(format!("--server=http://{address}")).arg("--token-file").arg(token_file);
            let told = tokio::task::spawn_blocking(move || output_of(&mut command)).await.unwrap();
            let source = ["resource", "containerResource"].map(|source| &status["currentMetrics"][0][source]);
            let percent = source.iter().find_map(|source| source["current"]["averageUtilization"].as_i64());
            let mut lines = vec![format!("\n  so: {} replicas", status["desiredReplicas"])];
            lines.extend(percent.map(|percent| format!("that is {percent} % of what they request")));
            if lines.iter().all(|line| told.contains(line)) {
                eprintln!("{told}");
                break;
            }
            assert!(Instant::now() < deadline, "not {lines:?}, as {status} has it:\n{told}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn scale(run: Arc<Run>) {
    let mut cases = cases(&run.namespace, &run.node);
    if run.node_is_ours {
        cases.extend(scraped_cases());
    }
    if run.kubelet.is_some() {
        cases.extend(usage_cases());
    }
    let cases = Arc::new(cases);
    run.install().await;
    let token = run.writer().await;
    let token_file = run.directory.path().join("reader");
    std::fs::write(&token_file, run.reader().await).unwrap();
    let high = Arc::new(AtomicBool::new(true));
    let scraped_port = match run.node_is_ours {
        true => Some(expose(cases.clone(), high.clone()).await),
        false => None,
    };
    let scraping = scraped_port.map(|_| scrape_config(run.directory.path(), &run.namespace, &cases));
    let server = run.start_lookback(scraping.as_deref());
    refuse_what_the_writer_may_not(&run, &server, &token);
    run.register().await;
    let address = Arc::new(Mutex::new(server.address));
    let mut background = tokio::task::JoinSet::new();
    background.spawn(say_pods_are_ready(run.kubernetes.clone(), run.namespace.clone()));
    background.spawn(push(run.clone(), cases.clone(), high.clone(), address.clone(), token));
    background.spawn(tell_usage(run.clone(), cases.clone(), high.clone()));
    run.wait_until_available("True").await;
    let secret = format!("/api/v1/namespaces/{}/secrets/lookback-shared-ca", run.namespace);
    run.kubernetes.wait_for(&secret, "the CA is shared", |secret| secret["data"].is_object()).await;
    for case in cases.iter() {
        run.create_workload(case, scraped_port).await;
    }
    run.wait_until_scaled(&cases, "up", |case| case.replicas_high).await;
    explain_the_same(&run, &cases, server.address, &token_file).await;
    look_through_the_aggregator(&run).await;
    if run.kubelet.is_some() {
        look_at_top(&run);
    }
    delete_a_namespace(&run).await;
    high.store(false, Ordering::SeqCst);
    run.wait_until_scaled(&cases, "down", |_| 1).await;
    explain_the_same(&run, &cases, server.address, &token_file).await;

    server.kill9();
    run.wait_until_available("False").await;
    let server = run.start_lookback(scraping.as_deref());
    *address.lock().unwrap() = server.address;
    run.wait_until_available("True").await;
    high.store(true, Ordering::SeqCst);
    run.wait_until_scaled(&cases, "up after kill -9", |case| case.replicas_high).await;
    explain_the_same(&run, &cases, server.address, &token_file).await;
    let panicked = background.try_join_next().is_some();
    assert!(!panicked, "a helper ended early:\n{}", server.process.stderr.so_far());
}

#[tokio::test(flavor = "multi_thread")]
async fn hpas_of_every_kind_scale_up_and_down_and_outlive_a_kill() {
    let Some(kubeconfig) = std::env::var_os("KUBECONFIG").map(PathBuf::from) else {
        println!("SKIPPED: KUBECONFIG names no cluster; tests/README.md has a run that did not skip");
        return;
    };
    let kubernetes = Kubernetes::connect(&kubeconfig).await;
    if let Some(owner) = owner(&kubernetes, &REGISTRATIONS).await {
        println!("SKIPPED: this cluster has another adapter, which is left alone: {owner}");
        return;
    }
    let version = kubernetes.get("/version").await.unwrap();
    eprintln!("Kubernetes {}", version["gitVersion"]);
    let nodes = kubernetes.get("/api/v1/nodes?limit=1").await.unwrap();
    let existing = nodes["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
    let namespace = format!("lookback-e2e-{}", std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let node = existing.clone().unwrap_or_else(|| format!("{namespace}-node"));
    let kubelet = match owner(&kubernetes, &[USAGE]).await {
        // Its token is made with the ServiceAccount.
        None if existing.is_none() => Some(Kubelets::start(std::slice::from_ref(&node), "").await),
        _ => {
            eprintln!("not here: HPAs on usage, as the cluster has nodes or a metrics-server of its own");
            None
        }
    };
    let run = Arc::new(Run {
        kubernetes,
        kubeconfig,
        node_is_ours: existing.is_none(),
        node,
        kubelet,
        namespace,
        host: std::env::var("LOOKBACK_E2E_HOST").unwrap_or_else(|_| "localhost".to_owned()),
        port: free_port(),
        directory,
        granted: Mutex::default(),
    });
    let outcome = tokio::spawn(scale(run.clone())).await;
    run.clean_up().await;
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}
