//! Usage collected from kubelets: real HTTPS on loopback, nodes told by a (fake) API server, the built binary.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubelets::{Container, Kubelet, Kubelets, Telling};
use common::fake_kubernetes::FakeKubernetes;
use common::process::{Server, wait_until};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const TOKEN: &str = "of-lookback";

struct Cluster {
    kubernetes: FakeKubernetes,
    kubelets: Kubelets,
    dir: TempDir,
}

impl Cluster {
    async fn start(nodes: &[&str]) -> Self {
        let names: Vec<String> = nodes.iter().map(|name| (*name).to_owned()).collect();
        let (kubernetes, kubelets) = (FakeKubernetes::start().await, Kubelets::start(&names, TOKEN).await);
        for kubelet in &kubelets.all {
            kubernetes.put(&format!("/api/v1/nodes/{}", kubelet.name), kubelet.node());
        }
        Self { kubernetes, kubelets, dir: tempfile::tempdir().unwrap() }
    }

    fn kubelet(&self, place: usize) -> &Arc<Kubelet> {
        &self.kubelets.all[place]
    }

    /// The built server, asking every second.
    fn lookback(&self, more: &[&str]) -> Server {
        let kubeconfig = format!("--kubeconfig={}", self.kubernetes.kubeconfig(TOKEN).display());
        let flags = [
            "--collect-usage",
            "--metric-resolution=1s",
            "--kubelet-use-node-status-port",
            "--trust-loopback",
        ];
        let flags = [&[kubeconfig.as_str()], &flags[..], more].concat();
        tokio::task::block_in_place(|| Server::start(&self.dir.path().join("data"), &flags))
    }

    fn with_ca(&self, more: &[&str]) -> Server {
        let ca = format!("--kubelet-certificate-authority={}", self.kubelets.ca().display());
        self.lookback(&[&[ca.as_str()], more].concat())
    }
}

/// The result of a PromQL query now.
fn query(server: &Server, promql: &str) -> Vec<Value> {
    let promql = utf8_percent_encode(promql, NON_ALPHANUMERIC);
    let answer = server.get(&format!("/api/v1/query?query={promql}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["result"].as_array().unwrap().clone()
}

/// The value of a series that is the only one of a query.
fn value(server: &Server, promql: &str) -> Option<f64> {
    match query(server, promql).as_slice() {
        [one] => one["value"][1].as_str().unwrap().parse().ok(),
        _ => None,
    }
}

fn metric(server: &Server, name: &str) -> i64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().to_owned();
    line.parse().unwrap()
}

fn web(pod: &str) -> Container {
    Container::new("shop", pod, "app", 0.25, 100 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubelets_tell_is_kept_under_their_names_with_node_and_job() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0")]));
    cluster
        .kubelet(1)
        .tells(Telling::Containers(vec![web("web-1"), Container::new("shop", "db", "pg", 1.0, 1 << 30)]));
    let server = cluster.with_ca(&[]);
    tokio::task::block_in_place(|| {
        wait_until("three containers have a rate", || {
            query(&server, "irate(container_cpu_usage_seconds_total[1m])").len() == 3
        });
        let cpu = query(&server, "container_cpu_usage_seconds_total{pod=\"web-0\"}");
        let labels = serde_json::json!({"__name__": "container_cpu_usage_seconds_total", "namespace": "shop",
            "pod": "web-0", "container": "app", "node": "n1", "job": "kubelet-resource"});
        assert_eq!(cpu[0]["metric"], labels);
        let rate = value(&server, "irate(container_cpu_usage_seconds_total{pod=\"web-1\"}[1m])").unwrap();
        assert!((rate - 0.25).abs() < 1e-3, "{rate}");
        assert_eq!(
            value(&server, "container_memory_working_set_bytes{pod=\"db\"}"),
            Some(f64::from(1 << 30))
        );
        assert_eq!(
            value(&server, "sum(pod_memory_working_set_bytes{node=\"n2\"})"),
            Some((1_u64 << 30) as f64 + f64::from(100 << 20))
        );
        assert_eq!(value(&server, "node_memory_working_set_bytes{node=\"n1\"}"), Some(f64::from(200 << 20)));
        assert_eq!(value(&server, "sum(up{job=\"kubelet-resource\"})"), Some(2.0));
        let up = &query(&server, "up{node=\"n1\"}")[0]["metric"];
        assert_eq!(up["instance"], format!("127.0.0.1:{}", cluster.kubelet(0).port));
        let metadata = server.get("/api/v1/metadata?metric=container_cpu_usage_seconds_total").json();
        assert_eq!(metadata["data"]["container_cpu_usage_seconds_total"][0]["type"], "counter");
        // OptiPod's own question, over what was collected.
        let cores = || {
            let at = common::store::now_ms() / 1_000;
            let path =
                format!("/api/v1/metrics?workload=web&namespace=shop&metric=cpu&start={at}&end={at}&step=1m");
            let answer = server.get(&path).json();
            let told = |one: &Value| -> (String, f64) {
                let cores = one["values"][0][1].as_str().unwrap().parse().unwrap();
                (one["metric"]["pod"].as_str().unwrap().to_owned(), cores)
            };
            answer["data"]["result"].as_array().unwrap().iter().map(told).collect::<Vec<_>>()
        };
        wait_until("both pods have a point", || cores().len() == 2);
        for ((pod, cores), expected) in cores().into_iter().zip(["web-0", "web-1"]) {
            assert!(pod == expected && (cores - 0.25).abs() < 1e-2, "{pod}: {cores}");
        }
        assert!(server.terminate().success());
    });
    let paths: BTreeSet<String> = cluster
        .kubernetes
        .asked("/api/v1/nodes")
        .iter()
        .map(|asked| asked.path.split('?').next().unwrap().to_owned())
        .collect();
    assert_eq!(paths, BTreeSet::from(["/api/v1/nodes".to_owned()]), "never by nodes/proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_misbehaves_keeps_no_other_from_being_asked() {
    let cluster =
        Cluster::start(&["good", "hangs", "within", "endless", "garbage", "forbids", "empty"]).await;
    let bad = [
        Telling::Hang,
        Telling::HangWithin,
        Telling::Endless,
        Telling::Text("container_cpu_usage_seconds_total{pod=\"p\"} 1\n\u{0}\u{1}{{{ nonsense\n".to_owned()),
        Telling::Status(403),
        Telling::Text(String::new()),
    ];
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0")]));
    for (place, telling) in bad.into_iter().enumerate() {
        cluster.kubelet(place + 1).tells(telling);
    }
    let server = cluster.with_ca(&[]);
    tokio::task::block_in_place(|| {
        wait_until("all have failed but the good one", || metric(&server, "lookback_kubelets_failing") == 6);
        let before = cluster.kubelet(0).asked();
        wait_until("the good one is asked on", || cluster.kubelet(0).asked() >= before + 3);
        assert_eq!(query(&server, "up == 0").len(), 6);
        assert_eq!(
            query(&server, "container_cpu_usage_seconds_total").len(),
            1,
            "of a bad answer nothing is kept"
        );
        let said = server.process.stderr.so_far();
        for why in [
            "it did not answer within 1s",
            "its answer has more than 16777216 bytes",
            "it answers 403: let Lookback's ServiceAccount get nodes/metrics",
            "there is no sample in its answer",
            "line 2: ",
        ] {
            assert!(said.contains(why), "{why}: {said}");
        }
        assert_eq!(said.matches("a kubelet gives no usage").count(), 6, "once each: {said}");
        // And each is well again as soon as it answers.
        for kubelet in &cluster.kubelets.all {
            kubelet.tells(Telling::Containers(vec![web(&format!("{}-0", kubelet.name))]));
        }
        wait_until("all are well", || {
            metric(&server, "lookback_kubelets_failing") == 0
                && query(&server, "container_cpu_usage_seconds_total{pod!=\"web-0\"}").len() == 7
        });
        assert!(server.terminate().success());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_not_believed_unless_a_flag_says_so() {
    let cluster = Cluster::start(&["n1"]).await;
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0")]));
    let server = cluster.lookback(&[]);
    tokio::task::block_in_place(|| {
        let said = || server.process.stderr.so_far();
        wait_until("it is not believed", || metric(&server, "lookback_kubelets_failing") == 1);
        assert!(
            said().contains("its certificate is not believed")
                && said().contains("--kubelet-certificate-authority"),
            "{}",
            said()
        );
        assert_eq!(cluster.kubelet(0).asked(), 0, "the token is shown to nobody");
        assert!(server.terminate().success());
    });
    let server = cluster.lookback(&["--kubelet-insecure-tls"]);
    tokio::task::block_in_place(|| {
        wait_until("it is asked", || cluster.kubelet(0).asked() > 0);
        assert!(server.terminate().success());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_ends_also_when_it_went_while_nobody_looked() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0"), web("web-1"), web("web-2")]));
    cluster.kubelet(1).tells(Telling::Containers(vec![web("web-3")]));
    let pods = |server: &Server| -> String {
        let all = query(server, "container_memory_working_set_bytes");
        let mut names: Vec<_> =
            all.iter().map(|one| one["metric"]["pod"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    let server = cluster.with_ca(&[]);
    tokio::task::block_in_place(|| {
        wait_until("all are there", || pods(&server) == "web-0 web-1 web-2 web-3");
        cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0"), web("web-1")]));
        wait_until("one has ended", || pods(&server) == "web-0 web-1 web-3");
        cluster.kubernetes.delete("/api/v1/nodes/n2");
        wait_until("a node has gone", || pods(&server) == "web-0 web-1" && query(&server, "up").len() == 1);
        cluster.kubelet(0).tells(Telling::Hang);
        wait_until("it is failing", || metric(&server, "lookback_kubelets_failing") == 1);
        assert_eq!(pods(&server), "web-0 web-1", "a kubelet that does not answer ends nothing");
        assert_eq!(metric(&server, "lookback_kubelets"), 1);
        assert!(server.terminate().success());
    });
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-1")]));
    let server = cluster.with_ca(&[]);
    tokio::task::block_in_place(|| {
        wait_until("what went in between has ended", || pods(&server) == "web-1");
        assert!(server.terminate().success());
    });
}

/// One container whose CPU counter is at `cpu` at a time in Unix milliseconds.
fn counter_page(cpu: f64, at_ms: i64) -> Telling {
    let labels = "container=\"app\",namespace=\"shop\",pod=\"web-0\"";
    Telling::Text(format!(
        "# TYPE container_cpu_usage_seconds_total counter\n\
         container_cpu_usage_seconds_total{{{labels}}} {cpu} {at_ms}\n\
         # TYPE container_memory_working_set_bytes gauge\n\
         container_memory_working_set_bytes{{{labels}}} {} {at_ms}\n",
        1e6 + cpu
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn optipods_two_queries_are_right_over_collected_counters_that_were_reset() {
    let cluster = Cluster::start(&["n1"]).await;
    // Every 15 s; between the third and the fourth the container starts anew.
    let start_ms = common::store::now_ms() / 30_000 * 30_000 - 300_000;
    let told = [(0, 100.0), (15, 104.0), (30, 109.0), (45, 2.0), (60, 5.0), (75, 9.0)];
    cluster.kubelet(0).tells(counter_page(told[0].1, start_ms));
    let server = cluster.with_ca(&[]);
    let start_s = start_ms / 1_000;
    tokio::task::block_in_place(|| {
        for (seconds, cpu) in told {
            let at_ms = start_ms + seconds * 1_000;
            cluster.kubelet(0).tells(counter_page(cpu, at_ms));
            wait_until("it is collected", || {
                let at = format!("timestamp(container_cpu_usage_seconds_total @ {})", at_ms / 1_000);
                value(&server, &at) == Some((at_ms / 1_000) as f64)
            });
        }
        // As OptiPod asks: by POST, start and end with fractions, always at 30 s.
        let ask = |promql: &str| -> Vec<(i64, f64)> {
            let form = format!(
                "query={}&start={}.000&end={}.000&step=30",
                utf8_percent_encode(promql, NON_ALPHANUMERIC),
                start_s + 15,
                start_s + 75
            );
            let headers = [("Content-Type", "application/x-www-form-urlencoded")];
            let reply =
                server.client().send("POST", "/api/v1/query_range", &headers, form.as_bytes()).unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text());
            let answer = reply.json();
            assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 1, "{answer}");
            let values = answer["data"]["result"][0]["values"].as_array().unwrap().iter();
            let number = |value: &Value| value.as_str().unwrap().parse().unwrap();
            values.map(|point| (point[0].as_i64().unwrap() - start_s, number(&point[1]))).collect()
        };
        let selector = "{namespace=\"shop\",pod=\"web-0\",container=\"app\"}";
        let cpu = |window: &str| ask(&format!("rate(container_cpu_usage_seconds_total{selector}[{window}])"));
        // What a window's samples rose by, with what was lost at the reset, over the time between the first and the
        // last; to the window's start that is extrapolated, by half an interval where it begins far before them.
        let expected = [
            (15, 4.0 / 15.0 * 22.5 / 60.0),  // 100 104
            (45, 11.0 / 45.0 * 60.0 / 60.0), // 100 104 109 | 2
            (75, 9.0 / 45.0 * 60.0 / 60.0),  // 109 | 2 5 9
        ];
        let week = 604_800.0;
        let of_week = [
            (15, 4.0 / 15.0 * 22.5 / week),
            (45, 11.0 / 45.0 * 52.5 / week),
            (75, 18.0 / 75.0 * 82.5 / week),
        ];
        for (found, expected) in [(cpu("1m"), expected), (cpu("168h"), of_week)] {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((at, value), (expected_at, expected)) in found.into_iter().zip(expected) {
                assert!(
                    at == expected_at && (value / expected - 1.0).abs() < 1e-14,
                    "{at}: {value}, not {expected}"
                );
            }
        }
        assert_eq!(
            ask(&format!("container_memory_working_set_bytes{selector}")),
            [(15, 1_000_104.0), (45, 1_000_002.0), (75, 1_000_009.0)]
        );
        assert!(server.terminate().success());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelets_that_answer_without_an_end_take_little_memory() {
    const ENDLESS: usize = 4;
    let names: Vec<String> = (0..=ENDLESS).map(|number| format!("n{number}")).collect();
    let cluster = Cluster::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    cluster.kubelet(0).tells(Telling::Containers(vec![web("web-0")]));
    let server = cluster.with_ca(&[]);
    tokio::task::block_in_place(|| {
        wait_until("all are asked", || cluster.kubelets.all.iter().all(|kubelet| kubelet.asked() > 1));
        let process = &server.process;
        process.forget_peak();
        let before = process.peak_bytes();
        // Ten million lines are 500 MB.
        for kubelet in cluster.kubelets.all.iter().skip(1) {
            kubelet.tells(Telling::Endless);
        }
        let failing = || metric(&server, "lookback_kubelets_failing");
        wait_until("all have been refused", || failing() == ENDLESS as i64);
        let rounds = cluster.kubelet(0).asked();
        wait_until("it goes on", || cluster.kubelet(0).asked() > rounds + 3);
        let grown = process.peak_bytes().saturating_sub(before);
        println!("it grew by {grown} bytes");
        assert!(grown < (ENDLESS as u64 * 40) << 20, "it grew by {grown} bytes");
        assert!(server.terminate().success());
    });
}

#[test]
fn without_a_cluster_there_are_no_kubelets_to_ask() {
    let output = Command::new(env!("CARGO_BIN_EXE_lookback"))
        .args(["serve", "--collect-usage", "--listen=127.0.0.1:0", "--data-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-kubelets"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--collect-usage needs a cluster"), "{said}");
}
