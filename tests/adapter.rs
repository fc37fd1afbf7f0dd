//! prometheus-adapter's rules over real parts: a published configuration over what Lookback scrapes itself and over
//! Debian's Prometheus, the original rules, and label selectors in a cluster.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::fake_kubernetes::FakeKubernetes;
use common::process::{Client, Process, Server, free_port, lookback, run_to_end, wait_until};
use http_body_util::BodyExt;
use lookback::app::{App, Parts, Settings};
use lookback::clock::SystemClock;
use lookback::http::auth::Caller;
use lookback::http::{kubernetes_apis, write_metrics};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::kubernetes::quantity::Quantity;
use lookback::query::promql::Options as QueryOptions;
use lookback::rules::source::{OWN_STORE, PromQl, Sources};
use lookback::rules::{OwnStore, Rules, RulesSettings};
use lookback::store::Store;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// In the form of the configurations that prometheus-adapter's documentation and charts publish.
const CONFIG: &str = r#"
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
const CUSTOM: [&str; 6] = [
    "namespaces/cpu_usage",
    "namespaces/http_requests_per_second",
    "nodes/machine_heat",
    "pods/cpu_usage",
    "pods/http_requests_per_second",
    "services/http_requests_per_second",
];

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A target whose counters grow by known rates, exactly at the times that it says, until it is dropped.
struct Target {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Requests a second of a pod, of each verb.
fn rate_of(pod: usize) -> f64 {
    4.0 * (pod as f64 + 1.0)
}

fn exposed(begun_ms: i64) -> String {
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
    fn start() -> Self {
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
    fn scrape_config(&self, dir: &Path) -> PathBuf {
        let path = dir.join("scrape.yml");
        let text = format!(
            "scrape_configs:\n- job_name: shop\n  honor_labels: true\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             static_configs:\n  - targets: ['{}']\n",
            self.address
        );
        std::fs::write(&path, text).unwrap();
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

fn listed(server: &Server, group_version: &str) -> Vec<String> {
    let list = server.get(&format!("/apis/{group_version}")).json();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    list["resources"].as_array().unwrap().iter().map(name).collect()
}

/// The items of an answer, by object: value, milliseconds since its time, window.
fn items(server: &Server, rest: &str) -> Vec<(String, f64, i64, Option<u64>)> {
    let answer = server.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/{rest}"));
    assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
    let item = |item: &Value| {
        let name = item["describedObject"]["name"].as_str().unwrap().to_owned();
        (name, number(&item["value"]), since(&item["timestamp"]), item["windowSeconds"].as_u64())
    };
    answer.json()["items"].as_array().unwrap().iter().map(item).collect()
}

fn number(quantity: &Value) -> f64 {
    Quantity::parse(quantity.as_str().unwrap()).unwrap().value().unwrap()
}

fn since(timestamp: &Value) -> i64 {
    let at: jiff::Timestamp = timestamp.as_str().unwrap().parse().unwrap();
    now_ms() - at.as_millisecond()
}

fn is_near(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= expected.abs() * 1e-6
}

fn check_answers(server: &Server) {
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

#[test]
fn a_published_configuration_works_over_what_lookback_scrapes_itself() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let scrape = target.scrape_config(dir.path());
    let server = Server::start(
        data.path(),
        &[
            "--scrape-config",
            scrape.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--metrics-relist-interval=1s",
        ],
    );
    let all_listed = || {
        let custom = listed(&server, "custom.metrics.k8s.io/v1beta1");
        CUSTOM.iter().all(|name| custom.iter().any(|listed| listed == name))
    };
    wait_until("all metrics of the rules are listed", all_listed);
    assert!(listed(&server, "external.metrics.k8s.io/v1beta1").contains(&"queue_depth".to_owned()));
    check_answers(&server);
    let metrics = server.get("/metrics").text();
    for line in [
        "lookback_rules{state=\"active\"} 4",
        "lookback_rules{state=\"disabled\"} 0",
        "lookback_rules_in_force 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    // Another name and a bad rule: the one holds, the other is told, and nothing flickers meanwhile.
    let changed =
        CONFIG.replace("${1}_per_second", "${1}_a_second").replace("avg(<<.Series>>", "avg(<<.Serie>>");
    std::fs::write(&config, changed).unwrap();
    wait_until("the changed file holds", || {
        assert!(
            listed(&server, "custom.metrics.k8s.io/v1beta1").contains(&"pods/cpu_usage".to_owned()),
            "flickers"
        );
        server.get("/metrics").text().contains("lookback_rules{state=\"disabled\"} 1")
    });
    let metrics = server.get("/metrics").text();
    let told = metrics.lines().find(|line| line.starts_with("lookback_rule_disabled{")).unwrap();
    assert!(told.contains("rule=\"rules[2]\"") && told.contains("there is no .Serie"), "{told}");
    wait_until("the new name is answered", || {
        server
            .get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-0/http_requests_a_second")
            .status
            == 200
    });
    std::fs::write(&config, "rules: [").unwrap();
    wait_until("a broken file is told", || {
        server.get("/metrics").text().contains("lookback_rules_in_force 0")
    });
    let still = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-0/http_requests_a_second";
    assert_eq!(server.get(still).status, 200, "the rules before hold on");
    assert!(server.terminate().success());
}

#[test]
fn check_config_tells_of_each_rule_and_fails_where_one_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = run_to_end(lookback().arg("check-config").arg(&path));
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (is_good, told, _) = check(CONFIG);
    assert!(is_good, "{told}");
    let query = r#"sum(rate(series{namespace="lookback-sample",pod=~"pod1|pod2"}[10s])) by (pod)"#;
    assert!(told.contains(&format!("rules[1] (line 11, column 3): ok: {query}")), "{told}");
    let (is_good, told, error) =
        check(&CONFIG.replace("matches: \"^(.*)_total$\"", "matches: \"^(.*)_(total)$\"\n    match: x"));
    assert!(!is_good && told.contains("rules[0] (line 3, column 3): ok"), "{told}");
    assert!(told.contains("rules[1] (line 11, column 3): DISABLED: line 16, column"), "{told}");
    assert!(error.contains("1 of 4 rules can't be used"), "{error}");
    let (is_good, _, error) = check("rulez: []");
    assert!(!is_good && error.contains("line 1, column 8"), "{error}");
}

/// Rules for cpu and memory in the form that is published.
const RESOURCE_RULES: &str = r#"
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

fn check_usage(server: &Server) {
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

/// Debian's Prometheus with its data in `dir`, scraping a target each second.
struct Prometheus {
    process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// `None`, told once: it is not installed.
    fn start(dir: &Path, target: &Target) -> Option<Self> {
        if Command::new("prometheus").arg("--version").output().is_err() {
            let sentence =
                "there is no `prometheus` on the path: apt-get install prometheus (tests/run does)";
            assert!(std::env::var_os("CI").is_none(), "{sentence}");
            eprintln!("SKIPPED: {sentence}");
            return None;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = target.scrape_config(dir);
        let process = Process::spawn(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut this = Self { process, address };
        wait_until("Prometheus is ready", || {
            assert!(this.process.ended().is_none(), "it ended:\n{}", this.process.stderr.all());
            Client::new(address).send("GET", "/-/ready", &[], b"").is_ok_and(|reply| reply.status == 200)
        });
        Some(this)
    }

    /// The values of a query by a label, as quantities.
    fn query(&self, query: &str, label: &str) -> Vec<(String, String)> {
        let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let reply =
            Client::new(self.address).send("GET", &format!("/api/v1/query?query={query}"), &[], b"").unwrap();
        let value = |one: &Value| {
            let value: f64 = one["value"][1].as_str().unwrap().parse().unwrap();
            let quantity = Quantity::from_f64(value).unwrap().to_string();
            (one["metric"][label].as_str().unwrap_or_default().to_owned(), quantity)
        };
        let mut values: Vec<_> =
            reply.json()["data"]["result"].as_array().unwrap().iter().map(value).collect();
        values.sort();
        values
    }
}

/// The items of an answer as they are told: object and quantity.
fn told(server: &Server, rest: &str) -> Vec<(String, String)> {
    let answer = server.get(&format!("/apis/custom.metrics.k8s.io/v1beta1/{rest}"));
    let item = |item: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&item["describedObject"]["name"]), text(&item["value"]))
    };
    answer.json()["items"].as_array().into_iter().flatten().map(item).collect()
}

#[test]
fn the_same_configuration_over_a_prometheus_gives_its_own_rates() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let Some(mut prometheus) = Prometheus::start(dir.path(), &target) else { return };
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, format!("{CONFIG}{RESOURCE_RULES}")).unwrap();
    let url = format!("--prometheus-url=http://{}", prometheus.address);
    let config = format!("--config={}", config.display());
    let serving = "--runtime-config=metrics.k8s.io=true";
    let server = Server::start(data.path(), &[&url, &config, serving, "--metrics-relist-interval=1s"]);
    wait_until("all metrics of the rules are listed", || {
        let custom = listed(&server, "custom.metrics.k8s.io/v1beta1");
        CUSTOM.iter().all(|name| custom.iter().any(|listed| listed == name))
    });
    check_answers(&server);
    check_usage(&server);
    for (query, label, rest) in [
        (
            "sum(rate(http_requests_total{namespace=\"shop\"}[10s])) by (pod)",
            "pod",
            "namespaces/shop/pods/*/http_requests_per_second",
        ),
        (
            "sum(rate(http_requests_total{namespace=\"shop\"}[10s])) by (service)",
            "service",
            "namespaces/shop/services/*/http_requests_per_second",
        ),
        (
            "sum(rate(http_requests_total[10s])) by (namespace)",
            "namespace",
            "namespaces/*/http_requests_per_second",
        ),
        (
            "sum(rate(container_cpu_usage_seconds_total{container!=\"POD\"}[10s])) by (pod)",
            "pod",
            "namespaces/shop/pods/*/cpu_usage",
        ),
    ] {
        // Between two scrapes nothing changes: then all three are the same, to the last digit.
        wait_until("the rates are Prometheus' own", || {
            let before = prometheus.query(query, label);
            let answered = told(&server, rest);
            !before.is_empty() && before == answered && prometheus.query(query, label) == before
        });
    }

    // Prometheus gone: discovery stays as it is, and a question says who does not answer.
    prometheus.process.kill9();
    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/http_requests_per_second";
    let reply = server.get(path);
    assert!(reply.status == 503 && reply.text().contains("prometheus does not answer"), "{}", reply.text());
    wait_until("a relist has failed", || {
        let metrics = server.get("/metrics").text();
        metrics
            .lines()
            .any(|line| line.starts_with("lookback_rules_relist_failures_total ") && !line.ends_with(" 0"))
    });
    assert!(listed(&server, "custom.metrics.k8s.io/v1beta1").contains(&"pods/cpu_usage".to_owned()));
    assert!(server.terminate().success());
}

#[test]
fn without_a_configuration_the_original_rules_hold_over_a_prometheus() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let Some(prometheus) = Prometheus::start(dir.path(), &target) else { return };
    let url = format!("--prometheus-url=main=http://{}", prometheus.address);
    let server = Server::start(
        data.path(),
        &[&url, "--metrics-relist-interval=1s", "--rate-interval=10s", "--prometheus-verb=GET"],
    );
    let expected = [
        "jobs.batch/http_requests",
        "namespaces/http_requests",
        "namespaces/queue_depth",
        "pods/cpu_usage",
        "pods/http_requests",
        "services/http_requests",
    ];
    wait_until("the metrics of the original README are listed", || {
        let custom = listed(&server, "custom.metrics.k8s.io/v1beta1");
        expected.iter().all(|name| custom.iter().any(|listed| listed == name))
    });
    let custom = listed(&server, "custom.metrics.k8s.io/v1beta1");
    assert!(
        !custom.contains(&"namespaces/cpu_usage".to_owned()),
        "container metrics are of pods only: {custom:?}"
    );
    assert!(
        custom.iter().all(|name| !name.ends_with("_total") && !name.contains("/container_")),
        "{custom:?}"
    );
    wait_until(
        "counters are rates, several resources have them, and the pause container is left out",
        || {
            let near = |rest: &str, expected: &[f64]| {
                let items = items(&server, rest);
                items.len() == expected.len()
                    && items.iter().zip(expected).all(|(item, value)| is_near(item.1, *value))
            };
            near("namespaces/shop/pods/*/http_requests", &[4.0, 8.0, 12.0])
                && near("namespaces/shop/services/web/http_requests", &[24.0])
                && near("namespaces/shop/pods/*/cpu_usage", &[0.5])
                && near("namespaces/infra/metrics/queue_depth", &[7.0])
        },
    );
    assert!(server.terminate().success());
}

/// The server's parts in this process, in a cluster that is a fake over real TLS.
struct InCluster {
    fake: FakeKubernetes,
    app: App,
    router: Router,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for InCluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl InCluster {
    async fn start(config: &str) -> Self {
        let fake = FakeKubernetes::start().await;
        let pods = json!({"resource": "pods", "singularResource": "pod", "scope": "Namespaced",
            "responseKind": {"group": "", "version": "", "kind": "Pod"}, "verbs": ["get", "list", "watch"]});
        let core = json!([{"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [pods]}]}]);
        let list = |items| json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items});
        fake.put("/api", list(core));
        fake.put("/apis", list(json!([])));
        for (name, app) in [("web-0", "web"), ("web-1", "web"), ("db-0", "db")] {
            fake.put(
                &format!("/api/v1/namespaces/shop/pods/{name}"),
                json!({"metadata": {"labels": {"app": app}}}),
            );
        }
        let settings =
            ClusterSettings { kubeconfig: Some(fake.kubeconfig("lookback")), ..Default::default() };
        let cluster = Cluster::connect(&settings).await.unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
        let own: Arc<dyn PromQl> = Arc::new(OwnStore::new(store.clone(), QueryOptions::default()));
        let settings = RulesSettings {
            relist_interval: Duration::from_secs(60),
            max_age: Duration::from_secs(300),
            query_timeout: Duration::from_secs(30),
        };
        let rules = Arc::new(Rules::new(Sources::new(vec![(OWN_STORE.to_owned(), own)]), settings));
        rules.put_text(config).unwrap();
        let app = App::new(Parts {
            store,
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            metrics: Arc::default(),
            catalog: Arc::default(),
            metadata: Arc::default(),
            cluster: Some(cluster),
        })
        .with_rules(Some(rules));
        let router = kubernetes_apis::routes().merge(write_metrics::routes()).with_state(app.clone());
        let stop = CancellationToken::new();
        let (live, stopped) = (app.live().unwrap().clone(), stop.clone().cancelled_owned());
        let served = app.settings.served.clone();
        tokio::spawn(async move { live.keep_fresh(&served, stopped).await });
        Self { fake, app, router, stop, _dir: dir }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let mut request =
            Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Caller::local());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The names in an answer, or its message.
    async fn names(&self, rest: &str) -> String {
        let (code, body) = self.call("GET", &format!("/apis/custom.metrics.k8s.io/v1beta2/{rest}"), "").await;
        match body["items"].as_array() {
            Some(items) => {
                let name = |item: &Value| item["describedObject"]["name"].as_str().unwrap_or("?").to_owned();
                items.iter().map(name).collect::<Vec<_>>().join(" ")
            }
            None => format!("{} {}", code.as_u16(), body["message"].as_str().unwrap_or_default()),
        }
    }

    async fn until_names(&self, rest: &str, names: &str) {
        let begun = Instant::now();
        loop {
            let found = self.names(rest).await;
            if found == names {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{rest} is {found} and not {names}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_selectors_choose_live_objects_for_a_rules_query() {
    let config = r#"
rules:
- seriesQuery: 'load{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: "load_by_rule"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
"#;
    let cluster = InCluster::start(config).await;
    for pod in ["web-0", "web-1", "db-0", "gone-0"] {
        let path = format!("/write-metrics/namespaces/shop/pods/{pod}/load");
        assert_eq!(cluster.call("POST", &path, "7").await.0, StatusCode::OK);
    }
    let rules = cluster.app.rules().unwrap();
    let failures = rules.relist(&cluster.app.resolver(), now_ms()).await;
    assert!(failures.is_empty(), "{failures:?}");
    let all = "namespaces/shop/pods/*/load_by_rule";
    cluster.until_names(&format!("{all}?labelSelector=app%3Dweb"), "web-0 web-1").await;
    cluster.until_names(all, "db-0 web-0 web-1").await;
    assert_eq!(cluster.names(&format!("{all}?labelSelector=app%3Dnone")).await, "");
    let gone = cluster.names("namespaces/shop/pods/gone-0/load_by_rule").await;
    assert!(gone.starts_with("404 ") && gone.contains("the cluster has no such object"), "{gone}");
    cluster.fake.delete("/api/v1/namespaces/shop/pods/web-1");
    cluster.until_names(&format!("{all}?labelSelector=app%3Dweb"), "web-0").await;
    let odd = cluster.names(&format!("{all}?metricLabelSelector=a.b%3Dc")).await;
    assert!(odd.starts_with("400 \"a.b\" can't be a label"), "{odd}");
}
