//! Targets of the cluster: pods that are annotated to be scraped.
//!
//! ```text
//! prometheus.io/scrape: "true"     it is a target, while it runs
//! prometheus.io/port: "8080"       needed
//! prometheus.io/path: /metrics     unless said
//! prometheus.io/scheme: http       or https, with a certificate that the system believes
//! ```
//!
//! Its series get `namespace`, `pod`, `node`, `job` (the value of the pod's label `app.kubernetes.io/name`
//! or `app`, else its namespace) and `instance`. Only annotated pods are kept in memory.

use super::config::{INTERVAL, SAMPLES_MAX, TIMEOUT};
use super::pod_watch::{key, watch};
use super::settings::{Job, Target, Tls};
use crate::kubernetes::pod::Pod;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Sender;

/// The annotated pods of a cluster.
pub struct Pods {
    client: Client,
    interval: Duration,
}

impl Pods {
    /// Of this cluster, each scraped once an `interval`.
    #[must_use]
    pub fn new(client: Client, interval: Option<Duration>) -> Self {
        Self { client, interval: interval.unwrap_or(INTERVAL) }
    }

    /// Watches pods for ever and tells which targets there are.
    pub(super) async fn follow(self, targets: Sender<Vec<Target>>) {
        let jobs = Jobs::new(self.interval);
        let targets_of = |pod: &Pod| Ok(Vec::from_iter(target(pod, &jobs)));
        let tell = |found| drop(targets.send_replace(found));
        watch(Api::all(self.client), Config::default(), targets_of, tell).await;
    }
}

/// How pods are scraped, with and without TLS.
struct Jobs {
    plain: Arc<Job>,
    tls: Arc<Job>,
}

impl Jobs {
    fn new(interval: Duration) -> Self {
        let job = |tls| Job {
            interval,
            timeout: TIMEOUT.min(interval),
            tls,
            authorization: None,
            follow_redirects: true,
            honor_labels: false,
            honor_timestamps: true,
            metric_rules: Vec::new(),
            samples_max: SAMPLES_MAX,
            body_bytes_max: None,
        };
        Self { plain: Arc::new(job(None)), tls: Arc::new(job(Some(Tls::default()))) }
    }
}

/// The target that a pod is; `None`: it is none, or none yet.
fn target(pod: &Pod, jobs: &Jobs) -> Option<Target> {
    let annotation = |name: &str| {
        let annotations = pod.metadata.annotations.as_ref()?;
        annotations.get(&format!("prometheus.io/{name}")).map(String::as_str)
    };
    let status = pod.status.as_ref()?;
    let wanted = annotation("scrape") == Some("true") && status.phase.as_deref() == Some("Running");
    if !wanted || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let port: u16 = annotation("port")?.parse().ok()?;
    let ip: std::net::IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let address = std::net::SocketAddr::new(ip, port).to_string();
    let path = annotation("path").unwrap_or("/metrics");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    path.parse::<axum::http::uri::PathAndQuery>().ok()?;
    let job = match annotation("scheme") {
        None | Some("http") => &jobs.plain,
        Some("https") => &jobs.tls,
        Some(_) => return None,
    };
    let (namespace, name) = key(pod);
    let label = |label: &str| pod.metadata.labels.as_ref()?.get(label).filter(|value| !value.is_empty());
    let job_name = label("app.kubernetes.io/name").or_else(|| label("app")).unwrap_or(&namespace).clone();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let labels = [
        ("instance", address.clone()),
        ("job", job_name),
        ("namespace", namespace),
        ("node", node),
        ("pod", name),
    ];
    let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
    let labels = labels.map(|(label, value)| (label.to_owned(), value)).collect();
    Some(Target { address, path, labels, job: Arc::clone(job) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(annotations: &serde_json::Value, status: &serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": []},
            "status": status,
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn an_annotated_pod_that_runs_is_a_target() {
        let jobs = Jobs::new(INTERVAL);
        let all = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "m?x=1"});
        let runs = json!({"phase": "Running", "podIP": "fd00::1"});
        let found = target(&pod(&all, &runs), &jobs).expect("a target");
        assert_eq!(found.url(), "http://[fd00::1]:8080/m?x=1");
        let labels: Vec<_> = found.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(labels, ["instance=[fd00::1]:8080", "job=web", "namespace=shop", "node=n1", "pod=web-0"]);
        for (annotations, status) in [
            (json!({"prometheus.io/scrape": "true"}), runs.clone()),
            (json!({"prometheus.io/scrape": "false", "prometheus.io/port": "1"}), runs.clone()),
            (
                json!({"prometheus.io/scrape": "true", "prometheus.io/port": "1", "prometheus.io/scheme": "ftp"}),
                runs,
            ),
            (all.clone(), json!({"phase": "Succeeded", "podIP": "10.0.0.1"})),
            (all, json!({"phase": "Running"})),
        ] {
            assert_eq!(target(&pod(&annotations, &status), &jobs), None, "{annotations} {status}");
        }
    }
}
