//! prometheus-adapter's rules over other servers: Debian's Prometheus and VictoriaMetrics, several at once, and the
//! original rules where there is no configuration.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::adapter::{
    CONFIG, RESOURCE_RULES, Target, check_answers, check_usage, is_near, items, listed, told,
    wait_until_listed,
};
use common::process::{Server, free_port, wait_until};
use common::prometheus::{self, Prometheus};
use common::remote_write::{message, series};
use common::store::now_ms;
use common::victoria::{self, VictoriaMetrics};
use lookback::kubernetes::quantity::Quantity;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;

/// The values of a query by a label, as quantities.
fn quantities(prometheus: &mut Prometheus, query: &str, label: &str) -> Vec<(String, String)> {
    let value = |one: &Value| {
        let value: f64 = one["value"][1].as_str().unwrap().parse().unwrap();
        let quantity = Quantity::from_f64(value).unwrap().to_string();
        (one["metric"][label].as_str().unwrap_or_default().to_owned(), quantity)
    };
    let mut values: Vec<_> = prometheus.query(query).iter().map(value).collect();
    values.sort();
    values
}

fn start_prometheus(dir: &Path, target: &Target) -> Option<Prometheus> {
    if !prometheus::is_there("prometheus") {
        return None;
    }
    Some(Prometheus::start(dir, |_| target.scrape_config(), &["--web.enable-remote-write-receiver"]))
}

/// A server with the published configuration, whose rules look there.
fn start_over(url: &str, data: &Path, dir: &Path) -> Server {
    let config = dir.join("config.yaml");
    std::fs::write(&config, format!("{CONFIG}{RESOURCE_RULES}")).unwrap();
    let (url, config) = (format!("--prometheus-url={url}"), format!("--config={}", config.display()));
    let serving = "--runtime-config=metrics.k8s.io=true";
    let server = Server::start(data, &[&url, &config, serving, "--metrics-relist-interval=1s"]);
    wait_until_listed(&server);
    server
}

#[test]
fn the_same_configuration_over_a_prometheus_gives_its_own_rates() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let Some(mut prometheus) = start_prometheus(dir.path(), &target) else { return };
    let server = start_over(&format!("http://{}", prometheus.address), data.path(), dir.path());
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
            let before = quantities(&mut prometheus, query, label);
            let answered = told(&server, rest);
            !before.is_empty() && before == answered && quantities(&mut prometheus, query, label) == before
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
fn the_same_configuration_works_over_victoria_metrics() {
    if !victoria::is_there() {
        return;
    }
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let scrape = format!("-promscrape.config={}", target.scrape_config_file(dir.path()).display());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // Else it hides the newest 30 s, and with them the first scrapes.
    let engine = VictoriaMetrics::start_with(dir.path(), address, &[&scrape, "-search.latencyOffset=1s"]);
    let server = start_over(&format!("http://{}", engine.address), data.path(), dir.path());
    check_answers(&server);
    check_usage(&server);
    assert!(server.terminate().success());
}

#[test]
fn of_several_servers_and_the_own_store_each_rule_asks_the_one_that_it_names() {
    if !victoria::is_there() {
        return;
    }
    let dirs: [tempfile::TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let target = Target::start();
    let Some(mut main) = start_prometheus(dirs[0].path(), &target) else { return };
    let mut long_term = VictoriaMetrics::start(dirs[1].path());
    // The newest 30 s are hidden by VictoriaMetrics.
    let at_ms = now_ms() - 60_000;
    let depth = |value| {
        let labels = [("__name__", "depth"), ("namespace", "shop"), ("pod", "web-0")];
        message(vec![series(&labels, &[(at_ms, value)])])
    };
    assert!(main.client.remote_write(&depth(1.0)).unwrap().is_success());
    assert!(long_term.client.remote_write(&depth(2.0)).unwrap().is_success());
    let rule = |name: &str, server: &str| {
        format!(
            "- seriesQuery: 'depth{{namespace!=\"\",pod!=\"\"}}'\n  resources: {{template: \"<<.Resource>>\"}}\n  \
             name: {{as: \"{name}\"}}\n  {server}\n  metricsQuery: 'sum(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)'\n"
        )
    };
    let rules = [
        rule("first_depth", ""),
        rule("main_depth", "prometheus: main"),
        rule("long_depth", "prometheus: long-term"),
        rule("own_depth", "prometheus: store"),
    ];
    let config = dirs[2].path().join("config.yaml");
    std::fs::write(&config, format!("rules:\n{}", rules.concat())).unwrap();
    let urls =
        format!("--prometheus-url=main=http://{},long-term=http://{}", main.address, long_term.address);
    let config = format!("--config={}", config.display());
    let server =
        Server::start(&dirs[2].path().join("data"), &[&urls, &config, "--metrics-relist-interval=1s"]);
    assert!(server.remote_write(&depth(3.0)).is_success());
    for (name, value) in [("first_depth", "1"), ("main_depth", "1"), ("long_depth", "2"), ("own_depth", "3")]
    {
        wait_until("the server that is named answers", || {
            let answered = told(&server, &format!("namespaces/shop/pods/*/{name}"));
            assert!(answered.len() < 2, "{name}: {answered:?}");
            answered == [("web-0".to_owned(), value.to_owned())]
        });
    }
    // One that is gone takes its own rules with it, and no others.
    long_term.process.kill9();
    let path = |name: &str| format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/web-0/{name}");
    let reply = server.get(&path("long_depth"));
    assert!(reply.status == 503 && reply.text().contains("long-term"), "{}", reply.text());
    for name in ["main_depth", "own_depth"] {
        assert_eq!(server.get(&path(name)).status, 200, "{name}");
    }
    assert!(server.terminate().success());
}

#[test]
fn without_a_configuration_the_original_rules_hold_over_a_prometheus() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let Some(prometheus) = start_prometheus(dir.path(), &target) else { return };
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
