//! What the collector tells about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a question ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `ok`, `late` or `failed`.
    pub outcome: &'static str,
}

/// Figures of the collector. Which kubelet does not answer is told by the series `up` and in the log.
#[derive(Debug)]
pub struct KubeletMetrics {
    /// Kubelets that are asked.
    pub nodes: Gauge,
    /// Kubelets whose last answer was none.
    pub failing: Gauge,
    /// Questions, by how they ended.
    pub requests: Family<OutcomeLabels, Counter>,
    /// How long kubelets took, in seconds.
    pub seconds: Histogram,
}

impl KubeletMetrics {
    /// Registered.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            nodes: Gauge::default(),
            failing: Gauge::default(),
            requests: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.5, 11)),
        };
        registry.register("kubelets", "Kubelets that are asked for usage", metrics.nodes.clone());
        registry.register(
            "kubelets_failing",
            "Kubelets that gave no usage when they were last asked",
            metrics.failing.clone(),
        );
        registry.register(
            "kubelet_requests",
            "Questions to kubelets, by how they ended: ok, late or failed",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "kubelet_request_duration",
            "How long kubelets took to answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }
}
