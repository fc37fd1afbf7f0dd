//! What Lookback tells about itself: metrics and logs.

use crate::rules::RulesMetrics;
use crate::sources::kubelet::metrics::KubeletMetrics;
use crate::store::StoreStats;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
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

/// Which API answered, and who gave the values.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    /// The API's short name: `custom_metrics` or `external_metrics`.
    pub api: &'static str,
    /// `store`: Lookback's own series; `delegate`: the adapter that is asked for other metrics; …
    pub source: &'static str,
}

/// Which resource of the cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ResourceLabels {
    /// With its group: `pods`, `deployments.apps`.
    pub resource: String,
}

/// How it went.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// A short word: `ok`, `unknown`, `slow`, …
    pub outcome: &'static str,
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
    /// Latest values that were served although they are not fresh, as a rule allows.
    pub values_held: Counter,
    /// Answers with values, by who gave them.
    pub metric_answers: Family<SourceLabels, Counter>,
    /// Questions that were passed on to another adapter.
    pub delegate_requests: Family<OutcomeLabels, Counter>,
    /// Answers that were given and could not be left to be remembered.
    pub answers_dropped: Counter,
    /// Objects of the cluster whose labels are kept; set at each scrape.
    pub watched_objects: Family<ResourceLabels, Gauge>,
    /// What that takes; set at each scrape.
    pub watched_objects_bytes: Family<ResourceLabels, Gauge>,
    /// Exemplars that came with samples and are not kept.
    pub exemplars_ignored: Family<ApiLabels, Counter>,
    /// Whether the rule file of retention, as it is now, holds.
    pub retention_rules: Gauge,
    /// How the rules of `--config` stand.
    pub rules: RulesMetrics,
    /// What the collector of usage does.
    pub kubelets: KubeletMetrics,
    /// What the store holds; set at each scrape.
    pub store: StoreGauges,
}

/// A kind of samples or bytes.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabels {
    /// Samples: `head` or `sealed`. Bytes: `log`, `blocks`, `rollups` or `index`.
    pub kind: &'static str,
}

/// A metric that is there or not, and has no labels.
type NoLabels = [(&'static str, &'static str); 0];

/// What the store holds.
#[derive(Debug, Default)]
pub struct StoreGauges {
    series: Gauge,
    samples: Family<KindLabels, Gauge>,
    disk_bytes: Family<KindLabels, Gauge>,
    partitions: Gauge,
    damaged_blocks: Gauge,
    damaged_chunks: Gauge,
    set_aside: Gauge,
    lost_log_groups: Gauge,
    damaged_rollups: Gauge,
    latest_undurable: Gauge,
    partitions_dropped: Gauge,
    size_limit: Family<NoLabels, Gauge>,
    full: Family<NoLabels, Gauge>,
    outbox_samples: Family<NoLabels, Gauge>,
    outbox_bytes: Family<NoLabels, Gauge>,
    dead_letter_samples: Family<NoLabels, Gauge>,
    engine_taking: Family<NoLabels, Gauge>,
    writable: Gauge,
    readable: Gauge,
}

impl StoreGauges {
    fn registered(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        registry.register("store_series", "Series in the index", gauges.series.clone());
        registry.register(
            "store_samples",
            "Samples held, by kind: head (in memory, and in the log) or sealed (in blocks)",
            gauges.samples.clone(),
        );
        registry.register_with_unit(
            "store_disk",
            "Bytes on disk, by kind: log, blocks, rollups or index",
            Unit::Bytes,
            gauges.disk_bytes.clone(),
        );
        registry.register("store_partitions", "Time partitions on disk", gauges.partitions.clone());
        registry.register(
            "store_damaged_blocks",
            "Blocks that failed a checksum and are left out of answers",
            gauges.damaged_blocks.clone(),
        );
        registry.register(
            "store_damaged_chunk_reads",
            "Reads since the start of chunks that failed a checksum and were left out of answers",
            gauges.damaged_chunks.clone(),
        );
        registry.register(
            "store_set_aside",
            "Damaged files and directories in the directory quarantine",
            gauges.set_aside.clone(),
        );
        registry.register(
            "store_lost_log_groups",
            "Acknowledged groups of the write-ahead log that were found to be lost at the start",
            gauges.lost_log_groups.clone(),
        );
        registry.register(
            "store_latest_undurable",
            "Series whose latest value could not be written and is served from memory",
            gauges.latest_undurable.clone(),
        );
        registry.register(
            "store_partitions_dropped",
            "Partitions that went before their time, because room ran out (--retention-size)",
            gauges.partitions_dropped.clone(),
        );
        registry.register_with_unit(
            "store_size_limit",
            "What the data may take at most (--retention-size); absent: as much as the volume holds",
            Unit::Bytes,
            gauges.size_limit.clone(),
        );
        registry.register_with_unit(
            "store_full",
            "In how long the volume is full or --retention-size is reached, as the data grew in the last 25 hours; \
             absent: it does not grow, or that is not known yet",
            Unit::Seconds,
            gauges.full.clone(),
        );
        registry.register(
            "store_damaged_rollups",
            "Rollups that failed a checksum: left out, and made anew while the samples are there",
            gauges.damaged_rollups.clone(),
        );
        registry.register(
            "outbox_samples",
            "Acknowledged samples that the engine of --store prometheus has not taken yet",
            gauges.outbox_samples.clone(),
        );
        registry.register_with_unit(
            "outbox_disk",
            "What the outbox takes on disk",
            Unit::Bytes,
            gauges.outbox_bytes.clone(),
        );
        registry.register(
            "outbox_dead_letter_samples",
            "Samples that the engine refused for good (lookback outbox list)",
            gauges.dead_letter_samples.clone(),
        );
        registry.register(
            "outbox_engine_taking",
            "1 where the engine takes samples, 0 where the last attempt failed",
            gauges.engine_taking.clone(),
        );
        registry.register("store_writable", "1 where writes are taken, else 0", gauges.writable.clone());
        registry.register("store_readable", "1 where the store answers, else 0", gauges.readable.clone());
        gauges
    }

    /// Shows what the store says it holds; `None`: it does not answer, and the last figures stay.
    pub fn set(&self, stats: Option<&StoreStats>) {
        self.readable.set(i64::from(stats.is_some()));
        self.writable.set(i64::from(stats.is_some_and(|stats| stats.write_failure.is_none())));
        let Some(stats) = stats else { return };
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.series.set(whole(stats.series));
        self.partitions.set(whole(stats.partitions));
        self.damaged_rollups.set(whole(stats.damaged_rollups));
        self.damaged_blocks.set(whole(stats.damaged_blocks));
        self.damaged_chunks.set(whole(stats.damaged_chunks));
        self.set_aside.set(whole(stats.set_aside));
        self.lost_log_groups.set(whole(stats.lost_log_groups));
        self.latest_undurable.set(whole(stats.latest_undurable));
        self.partitions_dropped.set(whole(stats.partitions_dropped));
        show(&self.size_limit, stats.size_max_bytes.map(whole));
        show(&self.full, stats.full_in_ms.map(|ms| ms / 1_000));
        let outbox = stats.outbox.as_ref();
        show(&self.outbox_samples, outbox.map(|outbox| whole(outbox.waiting_samples)));
        show(&self.outbox_bytes, outbox.map(|outbox| whole(outbox.bytes)));
        show(&self.dead_letter_samples, outbox.map(|outbox| whole(outbox.dead_letter_samples)));
        show(&self.engine_taking, outbox.map(|outbox| i64::from(outbox.engine_failure.is_none())));
        for (kind, samples) in [("head", stats.head_samples), ("sealed", stats.sealed_samples)] {
            self.samples.get_or_create(&KindLabels { kind }).set(whole(samples));
        }
        for (kind, bytes) in [
            ("log", stats.log_bytes),
            ("blocks", stats.block_bytes),
            ("rollups", stats.rollup_bytes),
            ("index", stats.index_bytes),
        ] {
            self.disk_bytes.get_or_create(&KindLabels { kind }).set(whole(bytes));
        }
    }
}

/// Sets a gauge, or takes it out where there is no figure.
fn show(gauge: &Family<NoLabels, Gauge>, figure: Option<i64>) {
    match figure {
        Some(figure) => drop(gauge.get_or_create(&[]).set(figure)),
        None => gauge.clear(),
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.5, 13))
}

impl Metrics {
    /// Shows how many objects of which resource are kept, and the bytes that they take.
    pub fn show_watched(&self, sizes: Vec<(String, usize, usize)>) {
        // What is no longer watched is not told any more.
        self.watched_objects.clear();
        self.watched_objects_bytes.clear();
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (resource, objects, bytes) in sizes {
            let labels = ResourceLabels { resource };
            self.watched_objects.get_or_create(&labels).set(whole(objects));
            self.watched_objects_bytes.get_or_create(&labels).set(whole(bytes));
        }
    }
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
        let values_held = Counter::default();
        registry.register(
            "values_held",
            "Latest values served although they are not fresh, as a metric rule allows",
            values_held.clone(),
        );
        let metric_answers = Family::default();
        registry.register(
            "metric_answers",
            "Answers of the metrics APIs that are values, by API and by who gave them: store, delegate, …",
            metric_answers.clone(),
        );
        let delegate_requests = Family::default();
        registry.register(
            "delegate_requests",
            "Questions passed on to the adapter that answers what Lookback does not know, by outcome",
            delegate_requests.clone(),
        );
        let answers_dropped = Counter::default();
        registry.register(
            "autoscaler_answers_dropped",
            "Answers that were given and not remembered, because too many waited to be written",
            answers_dropped.clone(),
        );
        let watched_objects = Family::default();
        registry.register(
            "watched_objects",
            "Objects of the cluster whose names and labels are kept, by resource",
            watched_objects.clone(),
        );
        let watched_objects_bytes = Family::default();
        registry.register_with_unit(
            "watched_objects_size",
            "What the names and labels of the cluster's objects take in memory, by resource",
            Unit::Bytes,
            watched_objects_bytes.clone(),
        );
        let exemplars_ignored = Family::default();
        registry.register(
            "exemplars_ignored",
            "Exemplars that came with samples and are not kept, by API",
            exemplars_ignored.clone(),
        );
        registry.register(
            "build",
            "The version of Lookback that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let retention_rules = Gauge::default();
        registry.register(
            "retention_rules_in_force",
            "1 where the file of --retention-rules holds as it is, 0 where it is broken and older rules hold, or there is none",
            retention_rules.clone(),
        );
        let rules = RulesMetrics::registered(&mut registry);
        let kubelets = KubeletMetrics::registered(&mut registry);
        let store = StoreGauges::registered(&mut registry);
        Self {
            registry,
            requests,
            request_seconds,
            samples_appended,
            samples_duplicate,
            samples_rejected,
            values_held,
            metric_answers,
            delegate_requests,
            answers_dropped,
            watched_objects,
            watched_objects_bytes,
            exemplars_ignored,
            retention_rules,
            rules,
            kubelets,
            store,
        }
    }
}
