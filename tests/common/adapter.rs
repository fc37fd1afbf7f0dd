//! What tests of prometheus-adapter's rules share: a configuration as it is published, a target that exposes what it
//! asks for, and what is to be answered.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it"
)]

use super::process::{Server, wait_until};
use super::store::now_ms;
use lookback::kubernetes::quantity::Quantity;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// In the form of the configurations that prometheus-adapter's documentation and charts publish.
pub const CONFIG: &str = r#"
rules:
- seriesQuery: '{__name__=~"^container_.*",container!="POD",namespace!="",pod!=""}'
  resources:
    overrides:
      namespace: {resource: "namespace"}
      pod: {resource: "pod"}
  name:
    matches: "^container_(.*)_seconds_total$"
  metricsQuery: "sum(rate(<<.Series>>{<<.LabelMatchers>>,container!=\"POD\"}[10s])) by (<<.GroupBy>>)"
- seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
  resources:
    template: "<<.Resource>>"
  name:
    matches: "^(.*)_total$"
    as: "${1}_per_second"
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[10s])) by (<<.GroupBy>>)'
- seriesQuery: 'machine_heat{kubernetes_node!=""}'
  resources:
    overrides:
      kubernetes_node: {resource: "node"}
  metricsQuery: 'avg(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: 'queue_depth{topic!=""}'
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (topic)'
  resources:
    namespaced: false
"#;

/// The metric list that the documentation states for it.
pub const CUSTOM: [&str; 6] = [
    "namespaces/cpu_usage",
    "namespaces/http_requests_per_second",
    "nodes/machine_heat",
    "pods/cpu_usage",
    "pods/http_requests_per_second",
    "services/http_requests_per_second",
];

/// A target whose counters grow by known rates, exactly at the times that it says, until it is dropped.
pub struct Target {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Requests a second of a pod, of each verb.
pub fn rate_of(pod: usize) -> f64 {
    4.0 * (pod as f64 + 1.0)
}

pub fn exposed(begun_ms: i64) -> String {
    let at_ms = now_ms() / 100 * 100;
    let seconds = (at_ms - begun_ms) as f64 / 1_000.0;
    let mut text = String::from("# TYPE http_requests_total counter\n");
    for pod in 0..3 {
        for (verb, part) in [("GET", 0.75), ("PUT", 0.25)] {
            let count = rate_of(pod) * part * seconds;
            text += &format!(
                "http_requests_total{{namespace=\"shop\",pod=\"web-{pod}\",service=\"web\",verb=\"{verb}\"}} {count} {at_ms}\n"
            );
        }
    }
    for (container, rate) in [("app", 0.5), ("POD", 9.0)] {
        let count = rate * seconds;
        text += &format!(
            "container_cpu_usage_seconds_total{{namespace=\"shop\",pod=\"web-0\",container=\"{container}\"}} {count} {at_ms}\n"
        );
    }
    text +=
        "container_memory_working_set_bytes{namespace=\"shop\",pod=\"web-0\",container=\"app\"} 67108864\n";
    text += "machine_cores{kubernetes_node=\"n1\"} 1.5\nmachine_cores{kubernetes_node=\"n2\"} 1\n";
    text += "machine_bytes{kubernetes_node=\"n1\"} 1073741824\n";
    text += "machine_heat{kubernetes_node=\"n1\"} 41.5\nmachine_heat{kubernetes_node=\"n2\"} NaN\n";
    text += "queue_depth{topic=\"orders\",namespace=\"infra\"} 7\nqueue_depth{topic=\"mail\"} +Inf\n";
    text
}

impl Target {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, begun_ms) = (Arc::clone(&stopped), now_ms() / 100 * 100);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let _ = stream.read(&mut [0; 16 << 10]);
                let body = exposed(begun_ms);
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { address, stopped, thread: Some(thread) }
    }

    /// Prometheus' own words for scraping it.
    pub fn scrape_config(&self) -> String {
        format!(
            "scrape_configs:\n- job_name: shop\n  honor_labels: true\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             static_configs:\n  - targets: ['{}']\n",
            self.address
        )
    }

    /// The same in a file.
    pub fn scrape_config_file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("scrape.yml");
        std::fs::write(&path, self.scrape_config()).unwrap();
        path
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn listed(server: &Server, group_version: &str) -> Vec<String> {
    let list = server.get(&format!("/apis/{group_version}")).json();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    list["resources"].as_array().unwrap().iter().map(name).collect()
}

/// The items of an answer, by object: value, milliseconds since its time, window.
pub fn items(server: &Server, rest: &str) -> Vec<(String, f64, i64, Option<u64>)> {
    let answer = server.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/{rest}"));
    assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
    let item = |item: &Value| {
        let name = item["describedObject"]["name"].as_str().unwrap().to_owned();
        (name, number(&item["value"]), since(&item["timestamp"]), item["windowSeconds"].as_u64())
    };
    answer.json()["items"].as_array().unwrap().iter().map(item).collect()
}

pub fn number(quantity: &Value) -> f64 {
    Quantity::parse(quantity.as_str().unwrap()).unwrap().value().unwrap()
}

pub fn since(timestamp: &Value) -> i64 {
    let at: jiff::Timestamp = timestamp.as_str().unwrap().parse().unwrap();
    now_ms() - at.as_millisecond()
}

pub fn is_near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected.abs() * 1e-6
}

pub fn check_answers(server: &Server) {
    let pods = "namespaces/shop/pods";
    wait_until("rates are what they are", || {
        let all = items(server, &format!("{pods}/*/http_requests_per_second"));
        all.len() == 3 && all.iter().enumerate().all(|(pod, item)| is_near(item.1, rate_of(pod)))
    });
    let all = items(server, &format!("{pods}/*/http_requests_per_second"));
    assert!(all.iter().all(|item| item.3 == Some(10)), "the window is told: {all:?}");
    assert!(all.iter().all(|item| item.2 < 60_000), "{all:?}");
    let gets =
        items(server, &format!("{pods}/web-1/http_requests_per_second?metricLabelSelector=verb%3DGET"));
    assert!(gets.len() == 1 && is_near(gets[0].1, rate_of(1) * 0.75), "{gets:?}");
    let of_service = items(server, "namespaces/shop/services/web/http_requests_per_second");
    assert!(of_service.len() == 1 && is_near(of_service[0].1, 24.0), "{of_service:?}");
    for path in ["namespaces/shop/metrics/http_requests_per_second", "namespaces/*/http_requests_per_second"]
    {
        let of_namespace = items(server, path);
        assert!(of_namespace.len() == 1 && is_near(of_namespace[0].1, 24.0), "{path}: {of_namespace:?}");
    }
    let cpu = items(server, &format!("{pods}/*/cpu_usage"));
    assert!(cpu.len() == 1 && is_near(cpu[0].1, 0.5), "without the pause container: {cpu:?}");
    for path in ["nodes/*/machine_heat", "nodes/n1/machine_heat", "namespaces/default/nodes/n1/machine_heat"]
    {
        let heat = items(server, path);
        assert!(
            heat.len() == 1 && (heat[0].0.as_str(), heat[0].1, heat[0].3) == ("n1", 41.5, None),
            "{heat:?}"
        );
    }
    let missing = server.get("/apis/custom.metrics.k8s.io/v1beta1/nodes/n2/machine_heat");
    let message = missing.json()["message"].as_str().unwrap().to_owned();
    assert!(missing.status == 404 && message.contains("the query of rules[2]"), "{message}");

    let external = server.get("/apis/external.metrics.k8s.io/v1beta1/namespaces/anywhere/queue_depth").json();
    let external = external["items"].as_array().unwrap();
    assert_eq!(external.len(), 1, "infinity is missing: {external:?}");
    assert_eq!(external[0]["metricLabels"], json!({"topic": "orders"}));
    assert_eq!(external[0]["value"], "7");
    let selected =
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/anywhere/queue_depth?labelSelector=topic%3Dmail";
    assert_eq!(server.get(selected).json()["items"], json!([]));
}

/// Rules for cpu and memory in the form that is published.
pub const RESOURCE_RULES: &str = r#"
resourceRules:
  cpu:
    containerQuery: 'sum by (<<.GroupBy>>) (rate(container_cpu_usage_seconds_total{<<.LabelMatchers>>,container!="POD"}[10s]))'
    nodeQuery: 'sum by (<<.GroupBy>>) (machine_cores{<<.LabelMatchers>>})'
    resources: {overrides: {kubernetes_node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  memory:
    containerQuery: 'sum by (<<.GroupBy>>) (container_memory_working_set_bytes{<<.LabelMatchers>>})'
    nodeQuery: 'sum by (<<.GroupBy>>) (machine_bytes{<<.LabelMatchers>>})'
    resources: {overrides: {kubernetes_node: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  window: 10s
"#;

pub fn check_usage(server: &Server) {
    let api = "/apis/metrics.k8s.io/v1beta1";
    let container = |path: &str| -> Option<Value> {
        let answer = server.get(&format!("{api}/{path}")).json();
        let pod = if answer["items"].is_array() { &answer["items"][0] } else { &answer };
        let [container] = &pod["containers"].as_array()?[..] else { panic!("one container: {pod}") };
        assert_eq!((&pod["metadata"]["name"], &pod["window"]), (&json!("web-0"), &json!("10s")));
        Some(container.clone())
    };
    for path in ["pods", "namespaces/shop/pods", "namespaces/shop/pods/web-0"] {
        wait_until("the usage is what the queries give", || {
            let Some(container) = container(path) else { return false };
            assert_eq!((&container["name"], &container["usage"]["memory"]), (&json!("app"), &json!("64Mi")));
            is_near(number(&container["usage"]["cpu"]), 0.5)
        });
    }
    let nodes = server.get(&format!("{api}/nodes")).json();
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "without memory nothing is told of a node: {nodes:?}");
    assert_eq!(nodes[0]["metadata"]["name"], "n1");
    assert_eq!(nodes[0]["usage"], json!({"cpu": "1500m", "memory": "1Gi"}));
}

/// The items of an answer as they are told: object and quantity.
pub fn told(server: &Server, rest: &str) -> Vec<(String, String)> {
    let answer = server.get(&format!("/apis/custom.metrics.k8s.io/v1beta1/{rest}"));
    let item = |item: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&item["describedObject"]["name"]), text(&item["value"]))
    };
    answer.json()["items"].as_array().into_iter().flatten().map(item).collect()
}

/// Waits until everything that the configuration names is listed.
#[track_caller]
pub fn wait_until_listed(server: &Server) {
    wait_until("all metrics of the rules are listed", || {
        let custom = listed(server, "custom.metrics.k8s.io/v1beta1");
        CUSTOM.iter().all(|name| custom.iter().any(|listed| listed == name))
    });
}
