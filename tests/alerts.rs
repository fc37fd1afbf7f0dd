//! Alerts and the dashboard: Prometheus takes the rules, and every metric that they name is one that the running
//! binary has.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::{objects, output_of, root};
use common::process::Server;
use common::store::now_ms;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// The names of all series that the server's `/metrics` has once it has taken and refused something, from its
/// `# TYPE` lines.
fn exposed() -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let path = "/write-metrics/namespaces/default/pods/web-0/load";
    let at = format!("{path}?timestamp={}", now_ms());
    let statuses =
        [(&*at, "1"), (&at, "1"), (path, "a lot")].map(|(path, body)| server.post(path, body).status);
    assert_eq!(statuses, [200, 200, 400], "taken, a duplicate, and a refusal");
    let text = server.get("/metrics").text();
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            _ => &[""],
        };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    assert!(names.contains("lookback_store_writable"), "{text}");
    names
}

/// The names of Lookback's metrics in an expression.
fn named(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("lookback_")).collect()
}

fn rules() -> Value {
    let path = root().join("deploy/components/monitoring/prometheusrule.yaml");
    objects(&std::fs::read_to_string(path).unwrap()).remove(0)["spec"].clone()
}

#[test]
fn every_alert_names_metrics_that_exist_and_what_to_do() {
    let exposed = exposed();
    let rules = rules();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        let names = named(alert["expr"].as_str().unwrap());
        assert!(!names.is_empty(), "{alert}");
        for name in names {
            assert!(exposed.contains(name), "{name} is no metric: {alert}");
        }
        for annotation in ["summary", "runbook"] {
            assert!(alert["annotations"][annotation].as_str().is_some_and(|text| text.len() > 20), "{alert}");
        }
        assert!(
            ["critical", "warning", "info"].contains(&alert["labels"]["severity"].as_str().unwrap()),
            "{alert}"
        );
    }
}

#[test]
fn prometheus_takes_the_rules() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("SKIPPED: promtool is missing: tests/run installs it with Debian's prometheus");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.json");
    // JSON is YAML.
    std::fs::write(&path, rules().to_string()).unwrap();
    let said = output_of(Command::new("promtool").args(["check", "rules"]).arg(&path));
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_panel_of_the_dashboard_names_metrics_that_exist() {
    let exposed = exposed();
    let path = root().join("deploy/components/monitoring/lookback.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut identifiers = BTreeSet::new();
    for panel in panels {
        assert!(identifiers.insert(panel["id"].as_i64().unwrap()), "two panels have one id: {panel}");
        for target in panel["targets"].as_array().unwrap() {
            let names = named(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{target}");
            for name in names {
                assert!(exposed.contains(name), "{name} is no metric: {target}");
            }
        }
    }
    let variable = dashboard["templating"]["list"][1]["query"]["query"].as_str().unwrap();
    assert!(named(variable).iter().all(|name| exposed.contains(*name)), "{variable}");
}
