//! The collector: what every container, pod and node uses, asked of the kubelets themselves.
//!
//! ```text
//! cluster ─watch▶ [`nodes`] ─▶ [`collector`]: a task a node ─▶ [`client`] ─▶ [`node`] ─▶ store
//!                 addresses    jitter, timeout                 TLS, token     labels, up, ends
//! ```
//!
//! `/metrics/resource` of each kubelet, with the right to `nodes/metrics` alone. CPU stays the cumulative
//! counter that it is, with the kubelet's own timestamps:
//!
//! | series | labels |
//! |---|---|
//! | `container_cpu_usage_seconds_total`, `container_memory_working_set_bytes`, … | `namespace`, `pod`, `container`, `node`, `job` |
//! | `pod_cpu_usage_seconds_total`, `pod_memory_working_set_bytes`, … | `namespace`, `pod`, `node`, `job` |
//! | `node_cpu_usage_seconds_total`, `node_memory_working_set_bytes`, … | `node`, `job` |
//! | `up`, `scrape_duration_seconds`, `scrape_samples_scraped` | `node`, `job`, `instance` |
//!
//! `job` is [`JOB`], which no Prometheus gives to kubelets by itself, so that what one pushes beside is told apart.

pub mod client;
pub mod collector;
pub mod metrics;
pub mod node;
pub mod nodes;
pub mod settings;

/// The label `job` of everything that is collected.
pub const JOB: &str = "kubelet-resource";
