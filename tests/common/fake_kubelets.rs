//! Kubelets over real HTTPS, each on a port of its own: they tell what they are told to, or misbehave.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use super::store::now_ms;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use lookback::http::server::{Limits, run};
use lookback::http::tls::TlsSettings;
use lookback::kubernetes::certificates::{ServingCertificate, kept_ca_path};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What a kubelet does when it is asked.
#[derive(Clone)]
pub enum Telling {
    /// Tells of these containers.
    Containers(Vec<Container>),
    /// Answers with this text.
    Text(String),
    /// Never answers.
    Hang,
    /// Begins its answer and never ends it.
    HangWithin,
    /// Answers lines without an end.
    Endless,
    /// Answers with this code.
    Status(u16),
}

/// What a container uses, from the second 0 of Unix time on.
#[derive(Clone)]
pub struct Container {
    pub namespace: String,
    pub pod: String,
    pub name: String,
    pub cores: f64,
    pub memory_bytes: u64,
    /// Unix milliseconds.
    pub started_ms: i64,
}

impl Container {
    pub fn new(namespace: &str, pod: &str, name: &str, cores: f64, memory_bytes: u64) -> Self {
        let text = str::to_owned;
        let started_ms = now_ms() - 3_600_000;
        Self { namespace: text(namespace), pod: text(pod), name: text(name), cores, memory_bytes, started_ms }
    }
}

/// The page that a kubelet makes of its containers: with the kubelet's own timestamps, but for start times.
pub fn page(containers: &[Container], at_ms: i64) -> String {
    let mut text = String::new();
    let seconds = |since_ms: i64| (at_ms - since_ms) as f64 / 1_000.0;
    let labels =
        |c: &Container| format!("container=\"{}\",namespace=\"{}\",pod=\"{}\"", c.name, c.namespace, c.pod);
    let of_pod = |c: &Container| format!("namespace=\"{}\",pod=\"{}\"", c.namespace, c.pod);
    let type_of = |text: &mut String, name: &str, kind: &str| {
        let _ = writeln!(text, "# HELP {name} [STABLE] What is used\n# TYPE {name} {kind}");
    };
    type_of(&mut text, "container_cpu_usage_seconds_total", "counter");
    for c in containers {
        let cpu = c.cores * seconds(c.started_ms);
        let _ = writeln!(text, "container_cpu_usage_seconds_total{{{}}} {cpu} {at_ms}", labels(c));
    }
    type_of(&mut text, "container_memory_working_set_bytes", "gauge");
    for c in containers {
        let memory = c.memory_bytes as f64;
        let _ = writeln!(text, "container_memory_working_set_bytes{{{}}} {memory:e} {at_ms}", labels(c));
    }
    type_of(&mut text, "container_start_time_seconds", "gauge");
    for c in containers {
        let start = c.started_ms as f64 / 1_000.0;
        let _ = writeln!(text, "container_start_time_seconds{{{}}} {start:e}", labels(c));
    }
    let cores: f64 = containers.iter().map(|c| c.cores).sum();
    let memory: u64 = containers.iter().map(|c| c.memory_bytes).sum();
    let since_ms = now_ms() - now_ms() % 100_000_000;
    type_of(&mut text, "node_cpu_usage_seconds_total", "counter");
    let _ =
        writeln!(text, "node_cpu_usage_seconds_total {} {at_ms}", 1_000.0 + 2.0 * cores * seconds(since_ms));
    type_of(&mut text, "node_memory_working_set_bytes", "gauge");
    let _ = writeln!(text, "node_memory_working_set_bytes {:e} {at_ms}", 2.0 * memory as f64);
    type_of(&mut text, "pod_cpu_usage_seconds_total", "counter");
    for c in containers {
        let cpu = c.cores * seconds(c.started_ms);
        let _ = writeln!(text, "pod_cpu_usage_seconds_total{{{}}} {cpu} {at_ms}", of_pod(c));
    }
    type_of(&mut text, "pod_memory_working_set_bytes", "gauge");
    for c in containers {
        let _ = writeln!(text, "pod_memory_working_set_bytes{{{}}} {} {at_ms}", of_pod(c), c.memory_bytes);
    }
    type_of(&mut text, "resource_scrape_error", "gauge");
    text += "resource_scrape_error 0\n";
    text
}

/// One kubelet.
pub struct Kubelet {
    pub name: String,
    pub port: u16,
    telling: Mutex<Telling>,
    asked: AtomicUsize,
    token: Mutex<String>,
}

impl Kubelet {
    /// What it does from now on.
    pub fn tells(&self, telling: Telling) {
        *self.telling.lock().expect("not poisoned") = telling;
    }

    /// The token that it wants from now on.
    pub fn wants(&self, token: &str) {
        token.clone_into(&mut self.token.lock().expect("not poisoned"));
    }

    /// How often it was asked with the right token.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// The Node object of it.
    pub fn node(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
                "allocatable": {"cpu": "4", "memory": "8Gi"},
                "capacity": {"cpu": "4", "memory": "8Gi"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }
}

/// Running kubelets with one certificate; they end when it is dropped.
pub struct Kubelets {
    pub all: Vec<Arc<Kubelet>>,
    dir: TempDir,
    _stops: Vec<oneshot::Sender<()>>,
}

impl Kubelets {
    /// Starts those of nodes of these names, within a tokio runtime. They want this token.
    pub async fn start(names: &[String], token: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut kubelets = Self { all: Vec::new(), dir, _stops: Vec::new() };
        for name in names {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let kubelet = Arc::new(Kubelet {
                name: name.clone(),
                port: listener.local_addr().expect("bound").port(),
                telling: Mutex::new(Telling::Containers(Vec::new())),
                asked: AtomicUsize::new(0),
                token: Mutex::new(token.to_owned()),
            });
            let certificate =
                ServingCertificate::self_made(kubelets.dir.path(), &[], now_ms()).expect("a certificate");
            let tls = TlsSettings::new(certificate).expect("TLS");
            let router = Router::new().fallback(answer).with_state(kubelet.clone());
            let (stop, stopped) = oneshot::channel::<()>();
            let limits = Limits { drain_timeout: Duration::ZERO, ..Limits::default() };
            tokio::spawn(run(listener, Some(tls), router, limits, async move { drop(stopped.await) }));
            kubelets.all.push(kubelet);
            kubelets._stops.push(stop);
        }
        kubelets
    }

    /// The CA of their certificate.
    pub fn ca(&self) -> PathBuf {
        kept_ca_path(self.dir.path())
    }
}

async fn answer(State(kubelet): State<Arc<Kubelet>>, request: Request) -> Response {
    if request.uri().path() != "/metrics/resource" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let expected = format!("Bearer {}", kubelet.token.lock().expect("not poisoned"));
    if request.headers().get(header::AUTHORIZATION).is_none_or(|value| value != expected.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    kubelet.asked.fetch_add(1, Ordering::Relaxed);
    let telling = kubelet.telling.lock().expect("not poisoned").clone();
    let text_plain = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    match telling {
        Telling::Containers(containers) => (text_plain, page(&containers, now_ms())).into_response(),
        Telling::Text(text) => (text_plain, text).into_response(),
        Telling::Hang => std::future::pending().await,
        Telling::HangWithin => {
            let begun =
                futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"a 1\n"))]);
            (text_plain, Body::from_stream(begun.chain(futures::stream::pending()))).into_response()
        }
        Telling::Endless => {
            let lines = futures::stream::unfold(0_u64, |from| async move {
                let mut text = String::new();
                for number in from..from + 1_000 {
                    let _ = writeln!(text, "container_cpu_usage_seconds_total{{pod=\"{number}\"}} 1");
                }
                Some((Ok::<_, std::convert::Infallible>(text), from + 1_000))
            });
            (text_plain, Body::from_stream(lines)).into_response()
        }
        Telling::Status(code) => StatusCode::from_u16(code).expect("a code").into_response(),
    }
}
