//! A store in memory for tests: what the engine does, in the plainest way.

use crate::store::{
    Context, LabelsRequest, Latest, RangeRequest, SeriesSamples, Store, StoreError, StoreStats,
};
use async_trait::async_trait;
use lookback_storage::{Aggregation, Labels, Matcher, OutOfOrder, Sample, WriteBatch, WriteReport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Samples by series; `stats` are what a test puts there.
#[derive(Default)]
pub(crate) struct MemoryStore {
    series: Mutex<BTreeMap<Labels, Vec<Sample>>>,
    stats: Mutex<StoreStats>,
}

impl MemoryStore {
    /// Adds samples of a series: `(Unix seconds, value)`.
    pub(crate) fn with(self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Self {
        let labels = Labels::new(labels.iter().copied()).expect("valid labels");
        let samples = samples.iter().map(|(t, v)| Sample::new(t * 1_000, *v)).collect();
        self.series.lock().expect("not poisoned").insert(labels, samples);
        self
    }

    pub(crate) fn set_stats(&self, stats: StoreStats) {
        *self.stats.lock().expect("not poisoned") = stats;
    }

    fn matching(&self, context: &Context, matchers: &[Matcher]) -> Vec<(Labels, Vec<Sample>)> {
        let series = self.series.lock().expect("not poisoned");
        let fits = |labels: &Labels| {
            context.scope.allows(labels.get("namespace")) && matchers.iter().all(|m| m.matches(labels))
        };
        series.iter().filter(|(l, _)| fits(l)).map(|(l, s)| (l.clone(), s.clone())).collect()
    }
}

/// The aggregations that tests ask for.
fn aggregate(window: &[f64], aggregation: Aggregation, counter: bool, step_ms: i64) -> Option<f64> {
    let (first, last) = (window.first()?, window.last()?);
    Some(match aggregation {
        _ if counter => (last - first) * 1_000.0 / step_ms as f64,
        Aggregation::Max => window.iter().copied().fold(f64::MIN, f64::max),
        Aggregation::Last => *last,
        _ => window.iter().sum::<f64>() / window.len() as f64,
    })
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(
        &self,
        _: &Context,
        _: WriteBatch,
        _: i64,
        _: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        Err(StoreError::Unavailable("this store is read only".into()))
    }

    async fn latest(&self, _: &Context, _: &[Matcher], _: i64) -> Result<Vec<Latest>, StoreError> {
        Err(StoreError::Unavailable("this store has no latest values".into()))
    }

    async fn select(
        &self,
        _: &Context,
        _: &[Matcher],
        _: i64,
        _: i64,
        _: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        Err(StoreError::Unavailable("this store gives no samples".into()))
    }

    async fn range(
        &self,
        context: &Context,
        request: RangeRequest,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        let mut answer = Vec::new();
        for (labels, samples) in self.matching(context, &request.matchers) {
            let mut points = Vec::new();
            let mut at_ms = request.start_ms;
            while at_ms <= request.end_ms {
                let inside = at_ms - request.step_ms + 1..=at_ms;
                let window: Vec<f64> =
                    samples.iter().filter(|s| inside.contains(&s.timestamp_ms)).map(|s| s.value).collect();
                let point = aggregate(&window, request.aggregation, request.counter, request.step_ms);
                points.extend(point.map(|value| Sample::new(at_ms, value)));
                at_ms += request.step_ms;
            }
            if !points.is_empty() {
                answer.push(SeriesSamples { labels: Arc::new(labels), samples: points });
            }
        }
        Ok(answer)
    }

    async fn labels(&self, context: &Context, request: LabelsRequest) -> Result<Vec<String>, StoreError> {
        let matching = self.matching(context, &request.matchers);
        let values: BTreeSet<String> = match &request.name {
            Some(name) => {
                matching.iter().filter_map(|(labels, _)| labels.get(name).map(str::to_owned)).collect()
            }
            None => matching.iter().flat_map(|(l, _)| l.iter().map(|(n, _)| n.to_owned())).collect(),
        };
        Ok(values.into_iter().collect())
    }

    async fn delete(&self, _: &Context, _: &[Matcher], _: i64, _: i64) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable("this store is read only".into()))
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(self.stats.lock().expect("not poisoned").clone())
    }
}
