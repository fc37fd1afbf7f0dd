//! What Lookback tells about itself: metrics and logs.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Which API, and how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's short name: `write_metrics`, `remote_write`, `range`, `custom_metrics`, …
    pub api: &'static str,
    /// The HTTP status code.
    pub code: u16,
}

/// Which API.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ApiLabels {
    /// The route's short name.
    pub api: &'static str,
}

/// Why something was refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A short word: `out_of_order`, `bad_quantity`, `bad_labels`, …
    pub reason: &'static str,
}

/// Lookback's metrics about itself.
pub struct Metrics {
    /// Where they are registered; rendered by `/metrics`.
    pub registry: Registry,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// How long answers took, in seconds.
    pub request_seconds: Family<ApiLabels, Histogram, fn() -> Histogram>,
    /// Samples made durable.
    pub samples_appended: Family<ApiLabels, Counter>,
    /// Samples dropped because the store already held them.
    pub samples_duplicate: Family<ApiLabels, Counter>,
    /// Samples refused.
    pub samples_rejected: Family<ReasonLabels, Counter>,
}

fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.5, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lookback");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered, by API and status code", requests.clone());
        let request_seconds: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(latency_histogram);
        registry.register_with_unit(
            "http_request_duration",
            "How long answers took, by API",
            Unit::Seconds,
            request_seconds.clone(),
        );
        let samples_appended = Family::default();
        registry.register("samples_appended", "Samples made durable, by API", samples_appended.clone());
        let samples_duplicate = Family::default();
        registry.register(
            "samples_duplicate",
            "Samples dropped because the store already held them, by API",
            samples_duplicate.clone(),
        );
        let samples_rejected = Family::default();
        registry.register("samples_rejected", "Samples refused, by reason", samples_rejected.clone());
        Self { registry, requests, request_seconds, samples_appended, samples_duplicate, samples_rejected }
    }
}
