//! What is scraped: a server that stands for every pod of the cases that are scraped.

#![allow(unreachable_pub, missing_docs, reason = "a part of a test")]

use super::cases::{Case, Found, Told};
use axum::Router;
use axum::routing::get;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The address of every pod here.
pub const POD_IP: &str = "127.0.0.1";

/// The name of the port that a job's rules keep.
pub const PORT_NAME: &str = "metrics";

/// Exposes what the cases that are scraped have at the moment; its port.
pub async fn expose(cases: Arc<Vec<Case>>, high: Arc<AtomicBool>) -> u16 {
    let listener = tokio::net::TcpListener::bind((POD_IP, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let exposed = move || {
        let value = |case: &Case| if high.load(Ordering::SeqCst) { case.high } else { case.low };
        let scraped = cases.iter().filter(|case| matches!(case.told, Told::Scraped(_)));
        let lines = scraped.map(|case| format!("e2e_{} {}\n", case.name, value(case)));
        std::future::ready(lines.collect::<String>())
    };
    let router = Router::new().route("/metrics", get(exposed));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// A job whose rules keep the pods of the case that is found by them.
pub fn scrape_config(directory: &Path, namespace: &str, cases: &[Case]) -> PathBuf {
    let file = directory.join("scrape.yml");
    let found = cases.iter().find(|case| matches!(case.told, Told::Scraped(Found::ByRule))).unwrap();
    let config = format!(
        "scrape_configs:
- job_name: by-rule
  scrape_interval: 1s
  scrape_timeout: 1s
  kubernetes_sd_configs:
  - role: pod
    namespaces: {{names: [{namespace}]}}
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_label_app], regex: {}, action: keep}}
  - {{source_labels: [__meta_kubernetes_pod_container_port_name], regex: {PORT_NAME}, action: keep}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
",
        found.name
    );
    std::fs::write(&file, config).unwrap();
    file
}
