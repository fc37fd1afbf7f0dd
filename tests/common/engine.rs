//! What is asked of a server whose store is an engine elsewhere.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it"
)]

use super::process::{Server, wait_until};

/// Pushes a value of a pod; the status of the answer.
pub fn push(server: &Server, pod: &str, value: u32) -> u16 {
    server.post(&format!("/write-metrics/namespaces/default/pods/{pod}/load"), format!("\"{value}\"")).status
}

/// What an autoscaler reads.
#[track_caller]
pub fn latest(server: &Server, pod: &str) -> String {
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/{pod}/load");
    let reply = server.get(&path);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["items"][0]["value"].as_str().unwrap().to_owned()
}

pub fn figure(server: &Server, name: &str) -> Option<u64> {
    let metrics = server.get("/metrics").text();
    let after_name = |line: &str| line.strip_prefix(name)?.trim_start_matches("{}").trim().parse().ok();
    metrics.lines().find_map(after_name)
}

#[track_caller]
pub fn wait_until_sent(server: &Server) {
    wait_until("everything is sent", || figure(server, "lookback_outbox_samples") == Some(0));
}
