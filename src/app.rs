//! What every handler works with.

use crate::budget::ByteBudget;
use crate::clock::Clock;
use crate::kubernetes::adapter::Adapter;
use crate::kubernetes::catalog::Catalog;
use crate::kubernetes::cluster::Cluster;
use crate::kubernetes::controller_settings::ControllerSettings;
use crate::kubernetes::live::{Live, LiveSettings};
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::served::Served;
use crate::metadata::Metadata;
use crate::query::freshness::{MetricRule, Policies};
use crate::rules::Rules;
use crate::store::{Context, Scope, Store, StoreError, StoreStats};
use crate::telemetry::Metrics;
use lookback_storage::Extent;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bounds and choices that handlers need, made of the configuration once.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Samples older than this are not served as a latest value.
    pub freshness: Duration,
    /// By which metrics differ from that; the first that fits decides.
    pub metric_rules: Vec<MetricRule>,
    /// How long one call of the store may take.
    pub store_timeout: Duration,
    /// Most points a series in one range answer.
    pub points_max: usize,
    /// Most samples that one read of the store may take. A range question reads each of its sources.
    pub samples_max: usize,
    /// Most points of one source that a range answer holds at a time, 16 bytes each; what has more is read and
    /// sent part by part.
    pub range_points_held_max: usize,
    /// Largest request body, in bytes, as sent.
    pub body_bytes_max: usize,
    /// Largest request body, in bytes, after decompression.
    pub decoded_bytes_max: usize,
    /// Most bytes that all requests under way may take together for what they carry; at least what the
    /// largest one takes.
    pub request_bytes_max: usize,
    /// Most questions about history a second of one client; `None`: as many as it likes.
    pub client_requests_per_second: Option<NonZeroU32>,
    /// How often it is written down who owns which pods; `None`: not at all.
    pub ownership_interval: Option<Duration>,
    /// How often kubelets are asked what is used.
    pub metric_resolution: Duration,
    /// How the cluster's autoscaling is set.
    pub controller: ControllerSettings,
    /// Most `resource/metric` entries in discovery.
    pub discovery_max: usize,
    /// Which series answer `metric=cpu`, `metric=memory`, …, in order of preference.
    pub usage_sources: BTreeMap<String, Vec<UsageSource>>,
    /// How PromQL is evaluated.
    pub query: QuerySettings,
    /// Whether the Kubernetes APIs are also served on the plain port: only without a cluster.
    pub kubernetes_apis_on_plain_port: bool,
    /// Where backups that are asked for over HTTP go.
    pub backup_dir: Option<PathBuf>,
    /// Which Kubernetes APIs are served.
    pub served: Served,
    /// Choices about what is known of the cluster.
    pub live: LiveSettings,
}

/// Bounds and choices of PromQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// How long a query may take; a caller can ask for less.
    pub timeout: Duration,
    /// How many are evaluated at once; others wait for their turn within their time.
    pub concurrency: usize,
    /// How old a sample may be that stands for its series at an instant.
    pub lookback_delta: Duration,
    /// The step of a subquery that says none.
    pub evaluation_interval: Duration,
    /// Metric names go at the end of a query instead of with each function.
    pub delayed_name_removal: bool,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            concurrency: 20,
            lookback_delta: Duration::from_secs(300),
            evaluation_interval: Duration::from_secs(60),
            delayed_name_removal: false,
        }
    }
}

/// One series name that can answer for a usage metric.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct UsageSource {
    /// The metric's name.
    pub series: String,
    /// Whether it is a counter, to be read as a rate a second.
    #[serde(default)]
    pub counter: bool,
}

impl Settings {
    /// How old latest values may be.
    #[must_use]
    pub fn latest_policies(&self) -> Policies<'_> {
        Policies { rules: &self.metric_rules, freshness: self.freshness }
    }
}

impl Settings {
    /// The names of counters among the usage sources.
    #[must_use]
    pub fn counters(&self) -> BTreeSet<String> {
        let sources = self.usage_sources.values().flatten();
        sources.filter(|source| source.counter).map(|source| source.series.clone()).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        let source = |series: &str, counter| UsageSource { series: series.to_owned(), counter };
        Self {
            freshness: Duration::from_secs(300),
            metric_rules: Vec::new(),
            store_timeout: Duration::from_secs(30),
            points_max: 50_000,
            samples_max: 50_000_000,
            range_points_held_max: 500_000,
            body_bytes_max: 32 << 20,
            decoded_bytes_max: 128 << 20,
            request_bytes_max: 512 << 20,
            ownership_interval: Some(Duration::from_secs(60)),
            client_requests_per_second: NonZeroU32::new(1_000),
            metric_resolution: Duration::from_secs(15),
            controller: ControllerSettings::default(),
            discovery_max: 2_000,
            usage_sources: BTreeMap::from([
                (
                    "cpu".to_owned(),
                    vec![
                        source("cpu", false),
                        source("container_cpu_usage_seconds_total", true),
                        source("container_cpu_usage_cores", false),
                    ],
                ),
                (
                    "memory".to_owned(),
                    vec![source("memory", false), source("container_memory_working_set_bytes", false)],
                ),
            ]),
            query: QuerySettings::default(),
            kubernetes_apis_on_plain_port: true,
            backup_dir: None,
            served: Served::default(),
            live: LiveSettings::default(),
        }
    }
}

/// Shared by all handlers; a cheap clone.
#[derive(Clone)]
pub struct App(Arc<Parts>, ByteBudget, Option<Arc<Live>>, Delegates, Option<Arc<Rules>>);

/// The adapters that answer for metrics that Lookback does not know.
#[derive(Clone, Debug, Default)]
pub struct Delegates {
    /// From one reading of their discovery to the next.
    pub discovery_interval: Duration,
    /// For metrics of objects.
    pub custom: Option<Arc<Adapter>>,
    /// For external metrics.
    pub external: Option<Arc<Adapter>>,
}

/// What [`App`] is made of.
pub struct Parts {
    /// Keeps the samples.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Bounds and choices.
    pub settings: Settings,
    /// Lookback's metrics about itself.
    pub metrics: Arc<Metrics>,
    /// What discovery lists.
    pub catalog: Arc<Catalog>,
    /// The Kubernetes cluster that is served; `None`: there is none, and nothing asks for one.
    pub cluster: Option<Cluster>,
    /// What senders say of metrics.
    pub metadata: Arc<Metadata>,
}

impl App {
    /// Of its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let settings = &parts.settings;
        let largest = settings.body_bytes_max.saturating_add(settings.decoded_bytes_max.saturating_mul(2));
        let budget = ByteBudget::new(settings.request_bytes_max.max(largest));
        let dropped = &parts.metrics.answers_dropped;
        let live = |cluster| Arc::new(Live::new(cluster, parts.settings.live, dropped.clone()));
        let live = parts.cluster.clone().map(live);
        Self(Arc::new(parts), budget, live, Delegates::default(), None)
    }

    /// The same, with adapters for what it does not know.
    #[must_use]
    pub fn delegating(mut self, delegates: Delegates) -> Self {
        self.3 = delegates;
        self
    }

    /// The same, with rules that come before the store's own series.
    #[must_use]
    pub fn with_rules(mut self, rules: Option<Arc<Rules>>) -> Self {
        self.4 = rules;
        self
    }

    /// The rules of `--config`, if there are any.
    #[must_use]
    pub fn rules(&self) -> Option<&Arc<Rules>> {
        self.4.as_ref()
    }

    /// The adapters for what is not known here.
    #[must_use]
    pub fn delegates(&self) -> &Delegates {
        &self.3
    }

    /// What all requests together may take for what they carry.
    #[must_use]
    pub fn request_budget(&self) -> &ByteBudget {
        &self.1
    }

    /// The cluster at present; `None`: there is no cluster.
    #[must_use]
    pub fn live(&self) -> Option<&Arc<Live>> {
        self.2.as_ref()
    }

    /// Finds resources by name: by what the cluster has, where there is one.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        self.2.as_ref().map_or_else(Resolver::default, |live| live.mapping.resolver())
    }

    /// The context of a call of the store on behalf of a caller with this scope.
    #[must_use]
    pub fn context(&self, scope: &Scope) -> Context {
        Context { scope: scope.clone(), timeout: self.settings.store_timeout }
    }

    /// What the store holds, within the time that a call of it may take.
    ///
    /// # Errors
    /// The store's, or that it took too long.
    pub async fn store_stats(&self) -> Result<StoreStats, StoreError> {
        let timeout = self.settings.store_timeout;
        let answer = tokio::time::timeout(timeout, self.store.stats()).await;
        answer.unwrap_or(Err(StoreError::DeadlineExceeded(timeout)))
    }

    /// How far the store's samples reach, within the time that the store has; `None`: that is not known here.
    ///
    /// # Errors
    /// The store's, or that it took too long.
    pub async fn store_extent(&self) -> Result<Option<Extent>, StoreError> {
        let timeout = self.settings.store_timeout;
        let answer = tokio::time::timeout(timeout, self.store.extent()).await;
        answer.unwrap_or(Err(StoreError::DeadlineExceeded(timeout)))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
