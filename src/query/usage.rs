//! What pods and nodes use now, of their two newest points: as metrics-server computes it from kubelets' answers,
//! but from what is stored, so that a restart loses nothing.
//!
//! CPU is the difference of the cumulative counter over the time between the two points, which is the window; the
//! time of an answer is that of the newer point. A container that was started between 10 s and one resolution
//! before its newest point counts from its start. A counter that went back, or a container that was started since
//! the older point, has no window yet. As in metrics-server a pod is told of only when each of its containers can be: a part
//! of them would look like a pod that uses little. Points older than the freshness of latest values do not count.

use crate::app::App;
use crate::store::{Context, Latest, SeriesSamples, StoreError};
use crate::time::whole_ms;
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher, STALENESS_MARKER_BITS, Sample};
use std::collections::BTreeMap;

/// How far ahead of the clock samples may be, which is what the store takes.
const AHEAD_MS: i64 = 600_000;

/// A container that was started less than this before its point has used too little to tell.
const STARTED_MS_MIN: i64 = 10_000;

/// The name that container runtimes give a pod's sandbox, which is no container of its specification.
pub const PAUSE_CONTAINER: &str = "POD";

/// What something uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a core.
    pub cpu_nanocores: u64,
    /// The working set.
    pub memory_bytes: u64,
    /// The time of the newer point, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Between the two points.
    pub window_ms: i64,
}

/// What a pod's containers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// By name; never empty.
    pub containers: BTreeMap<String, Usage>,
}

impl PodUsage {
    /// Time and window of the container whose newer point is the oldest.
    #[must_use]
    pub fn oldest(&self) -> Option<Usage> {
        self.containers.values().min_by_key(|usage| usage.timestamp_ms).copied()
    }
}

/// What pods use, by namespace and name.
///
/// # Errors
/// The store's.
pub async fn pods(
    app: &App,
    context: &Context,
    namespace: Option<&str>,
    pod: Option<&str>,
) -> Result<Vec<PodUsage>, StoreError> {
    let mut matchers = vec![Matcher::none_of("container", ["", PAUSE_CONTAINER].into_iter())];
    matchers.push(
        namespace.map_or_else(|| Matcher::not_equal("namespace", ""), |n| Matcher::equal("namespace", n)),
    );
    matchers.push(pod.map_or_else(|| Matcher::not_equal("pod", ""), |pod| Matcher::equal("pod", pod)));
    let asking = Asking::new(app, context, matchers);
    let key = |labels: &Labels| {
        let label = |name: &str| labels.get(name).unwrap_or_default().to_owned();
        ((label("namespace"), label("pod")), label("container"))
    };
    let cpu = newest(asking.points("container_cpu_usage_seconds_total").await?, key);
    let memory = latest(asking.latest("container_memory_working_set_bytes").await?, key);
    let started = latest(asking.latest("container_start_time_seconds").await?, key);
    let mut pods: BTreeMap<(String, String), Option<BTreeMap<String, Usage>>> = BTreeMap::new();
    for (key, points) in cpu {
        let usage = memory.get(&key).and_then(|memory| {
            #[expect(clippy::cast_possible_truncation, reason = "as wide as times are")]
            let started_ms = started.get(&key).map(|sample| (sample.value * 1_000.0) as i64);
            asking.usage(&points, memory.value, started_ms)
        });
        let (pod, container) = key;
        let containers = pods.entry(pod).or_insert_with(|| Some(BTreeMap::new()));
        match (containers.as_mut(), usage) {
            (Some(all), Some(usage)) => drop(all.insert(container, usage)),
            // One that can't be told of: nor can the pod.
            _ => *containers = None,
        }
    }
    let told = |((namespace, name), containers)| Some(PodUsage { namespace, name, containers: containers? });
    Ok(pods.into_iter().filter_map(told).collect())
}

/// What nodes use, by name.
///
/// # Errors
/// The store's.
pub async fn nodes(
    app: &App,
    context: &Context,
    node: Option<&str>,
) -> Result<BTreeMap<String, Usage>, StoreError> {
    let of_node = node.map_or_else(|| Matcher::not_equal("node", ""), |node| Matcher::equal("node", node));
    let asking = Asking::new(app, context, vec![of_node]);
    let key = |labels: &Labels| labels.get("node").unwrap_or_default().to_owned();
    let cpu = newest(asking.points("node_cpu_usage_seconds_total").await?, key);
    let memory = latest(asking.latest("node_memory_working_set_bytes").await?, key);
    let told = |(node, points): (String, Vec<Sample>)| {
        let usage = asking.usage(&points, memory.get(&node)?.value, None)?;
        Some((node, usage))
    };
    Ok(cpu.into_iter().filter_map(told).collect())
}

struct Asking<'a> {
    app: &'a App,
    context: &'a Context,
    matchers: Vec<Matcher>,
    now_ms: i64,
    not_before_ms: i64,
}

impl<'a> Asking<'a> {
    fn new(app: &'a App, context: &'a Context, matchers: Vec<Matcher>) -> Self {
        let now_ms = app.clock.now_ms();
        let not_before_ms = now_ms.saturating_sub(whole_ms(app.settings.freshness));
        Self { app, context, matchers, now_ms, not_before_ms }
    }

    fn of(&self, metric: &str) -> Vec<Matcher> {
        let name = Matcher::equal(METRIC_NAME_LABEL, metric);
        std::iter::once(name).chain(self.matchers.iter().cloned()).collect()
    }

    async fn points(&self, metric: &str) -> Result<Vec<SeriesSamples>, StoreError> {
        let end_ms = self.now_ms.saturating_add(AHEAD_MS);
        let samples_max = self.app.settings.samples_max;
        self.app.store.select(self.context, &self.of(metric), self.not_before_ms, end_ms, samples_max).await
    }

    async fn latest(&self, metric: &str) -> Result<Vec<Latest>, StoreError> {
        self.app.store.latest(self.context, &self.of(metric), self.not_before_ms).await
    }

    /// What these points of the CPU counter, newest last, and this memory come to.
    fn usage(&self, points: &[Sample], memory_bytes: f64, started_ms: Option<i64>) -> Option<Usage> {
        let (newer, before) = points.split_last()?;
        let since_start_ms = started_ms.map(|started_ms| newer.timestamp_ms.saturating_sub(started_ms));
        let resolution_ms = whole_ms(self.app.settings.metric_resolution);
        let (from_ms, from) = match (since_start_ms, started_ms) {
            (Some(since_ms), Some(started_ms)) if (STARTED_MS_MIN..resolution_ms).contains(&since_ms) => {
                (started_ms, 0.0)
            }
            _ => {
                let older = before.last()?;
                if started_ms.is_some_and(|started_ms| started_ms >= older.timestamp_ms) {
                    return None;
                }
                (older.timestamp_ms, older.value)
            }
        };
        let window_ms = newer.timestamp_ms.saturating_sub(from_ms);
        // Nothing that runs has used nothing: it is not measured yet.
        let is_measured = newer.value > 0.0 && memory_bytes > 0.0;
        if !is_measured || newer.value < from || window_ms <= 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "minutes")]
        let cores = (newer.value - from) / (window_ms as f64 / 1_000.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; it saturates"
        )]
        let (cpu_nanocores, memory_bytes) = ((cores * 1e9).round() as u64, memory_bytes as u64);
        Some(Usage { cpu_nanocores, memory_bytes, timestamp_ms: newer.timestamp_ms, window_ms })
    }
}

fn is_stale(sample: &Sample) -> bool {
    sample.value.to_bits() == STALENESS_MARKER_BITS
}

/// The points of each, of the series whose last is the newest, where there are several; those that have ended
/// are left out. Points before an end do not count.
fn newest<K: Ord>(series: Vec<SeriesSamples>, key: impl Fn(&Labels) -> K) -> BTreeMap<K, Vec<Sample>> {
    let mut of_key: BTreeMap<K, Vec<Sample>> = BTreeMap::new();
    for SeriesSamples { labels, mut samples } in series {
        if samples.last().is_none_or(is_stale) {
            continue;
        }
        if let Some(end) = samples.iter().rposition(is_stale) {
            samples.drain(..=end);
        }
        let last_ms = |samples: &[Sample]| samples.last().map(|sample| sample.timestamp_ms);
        let known = of_key.entry(key(&labels)).or_default();
        if last_ms(known) < last_ms(&samples) {
            *known = samples;
        }
    }
    of_key
}

fn latest<K: Ord>(found: Vec<Latest>, key: impl Fn(&Labels) -> K) -> BTreeMap<K, Sample> {
    let mut of_key: BTreeMap<K, Sample> = BTreeMap::new();
    for Latest { labels, sample, .. } in found {
        let known = of_key.entry(key(&labels)).or_insert(sample);
        if known.timestamp_ms < sample.timestamp_ms {
            *known = sample;
        }
    }
    of_key
}

#[cfg(test)]
mod tests;
