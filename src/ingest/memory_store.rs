//! A store in memory for the tests of this crate's writers: it keeps what it is given, and refuses or
//! fails as it is told.

use crate::store::{
    Context, LabelsRequest, Latest, RangeRequest, SeriesSamples, Store, StoreError, StoreStats,
};
use async_trait::async_trait;
use lookback_storage::{Labels, Matcher, OutOfOrder, Reject, Sample, WriteBatch, WriteReport};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// Samples further ahead of the clock than this are refused.
pub(crate) const AHEAD_MAX_MS: i64 = 600_000;

/// Samples older than this are refused.
pub(crate) const RETENTION_MS: i64 = 15 * 86_400_000;

/// Keeps samples in a map.
#[derive(Default)]
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    series: BTreeMap<Labels, BTreeMap<i64, u64>>,
    appends: Vec<(usize, OutOfOrder)>,
    failure: Option<fn() -> StoreError>,
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics with the lock")
    }

    /// All following appends fail.
    pub(crate) fn fail_with(&self, failure: fn() -> StoreError) {
        self.inner().failure = Some(failure);
    }

    /// The samples of every append so far, and its rule.
    pub(crate) fn appends(&self) -> Vec<(usize, OutOfOrder)> {
        self.inner().appends.clone()
    }

    /// Everything: series in words, time, value.
    pub(crate) fn everything(&self) -> Vec<(String, i64, f64)> {
        let inner = self.inner();
        let mut all = Vec::new();
        for (labels, samples) in &inner.series {
            all.extend(samples.iter().map(|(t, bits)| (labels.to_string(), *t, f64::from_bits(*bits))));
        }
        all
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(
        &self,
        context: &Context,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport, StoreError> {
        let mut inner = self.inner();
        if let Some(failure) = inner.failure {
            return Err(failure());
        }
        for labels in &batch.series {
            let namespace = labels.get("namespace");
            if !context.scope.allows(namespace) {
                return Err(StoreError::OutOfScope { namespace: namespace.unwrap_or_default().to_owned() });
            }
        }
        inner.appends.push((batch.samples.len(), out_of_order));
        let mut report = WriteReport::default();
        for (place, sample) in batch.samples.iter().enumerate() {
            let labels = batch.series[sample.series].clone();
            let known = inner.series.contains_key(&labels);
            let series = inner.series.entry(labels).or_default();
            let newest_ms = series.last_key_value().map_or(i64::MIN, |(t, _)| *t);
            let timestamp_ms = sample.timestamp_ms.unwrap_or_else(|| now_ms.max(newest_ms.saturating_add(1)));
            if timestamp_ms > now_ms + AHEAD_MAX_MS {
                let reject = Reject::TooFarAhead { timestamp_ms, now_ms, ahead_max_ms: AHEAD_MAX_MS };
                report.rejected.push((place, reject));
            } else if timestamp_ms < now_ms - RETENTION_MS {
                let oldest_ms = now_ms - RETENTION_MS;
                report.rejected.push((place, Reject::BeyondRetention { timestamp_ms, oldest_ms }));
            } else if series.insert(timestamp_ms, sample.value.to_bits()) == Some(sample.value.to_bits()) {
                report.duplicates += 1;
            } else {
                report.accepted += 1;
                report.series_created += usize::from(!known);
            }
        }
        inner.series.retain(|_, samples| !samples.is_empty());
        Ok(report)
    }

    async fn latest(&self, _: &Context, _: &[Matcher], _: i64) -> Result<Vec<Latest>, StoreError> {
        Ok(Vec::new())
    }

    async fn select(
        &self,
        _: &Context,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        _: usize,
    ) -> Result<Vec<SeriesSamples>, StoreError> {
        let inner = self.inner();
        let matching = inner.series.iter().filter(|(labels, _)| matchers.iter().all(|m| m.matches(labels)));
        Ok(matching
            .map(|(labels, samples)| SeriesSamples {
                labels: labels.clone().into(),
                samples: samples
                    .range(start_ms..=end_ms)
                    .map(|(t, bits)| Sample::new(*t, f64::from_bits(*bits)))
                    .collect(),
            })
            .collect())
    }

    async fn range(&self, _: &Context, _: RangeRequest) -> Result<Vec<SeriesSamples>, StoreError> {
        Ok(Vec::new())
    }

    async fn labels(&self, _: &Context, _: LabelsRequest) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &Context, _: &[Matcher], _: i64, _: i64) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(StoreStats::default())
    }
}
