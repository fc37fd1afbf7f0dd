//! Latest values whose write failed: served to whoever asks what is newest now, and promised to nobody.
//!
//! A volume that is full or fails must not take the autoscaler's eyes. So the newest sample of a series
//! whose write was refused is kept here, and only here: it is in no history, its writer is told that it
//! was not stored, and a restart forgets it. It goes as soon as a sample of its series as new as it is
//! durable, or when it is older than [`KEPT_MS`].
//!
//! invariant: nothing here is ever acknowledged, and nothing here reaches the log or a block.

use crate::labels::Labels;
use crate::labels::METRIC_NAME_LABEL;
use crate::matcher::MatchOp;
use crate::sample::Sample;
use crate::select::Selection;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most series of which a value is kept. At the bound those that have one are kept up to date, and no
/// more are taken: they have no latest value until their writes succeed.
const SERIES_MAX: usize = 100_000;

/// How long a value is kept at most; whoever serves values is stricter.
const KEPT_MS: i64 = 60 * 60_000;

type OfMetric = HashMap<Arc<Labels>, Sample>;
type ByMetric = HashMap<Box<str>, OfMetric>;

/// The values, by metric name, since every question of the autoscaler names its metric.
#[derive(Default)]
pub(crate) struct Undurable {
    by_metric: RwLock<ByMetric>,
    /// How many there are: normally none, and then nothing is locked.
    count: AtomicUsize,
}

impl Undurable {
    /// How many series have such a value.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Takes a sample that could not be written, if it is the newest of its series.
    pub(crate) fn note(&self, labels: &Arc<Labels>, durable: Option<Sample>, sample: Sample) {
        if durable.is_some_and(|durable| durable.timestamp_ms >= sample.timestamp_ms) {
            return;
        }
        let mut by_metric = self.by_metric.write();
        let full = self.len() >= SERIES_MAX;
        let of_metric = match by_metric.get_mut(labels.metric_name()) {
            Some(of_metric) => of_metric,
            None if full => return,
            None => by_metric.entry(labels.metric_name().into()).or_default(),
        };
        match of_metric.get_mut(labels) {
            // The later of two pushes in one millisecond.
            Some(held) if held.timestamp_ms <= sample.timestamp_ms => *held = sample,
            Some(_) => {}
            None if full => {}
            None => {
                of_metric.insert(Arc::clone(labels), sample);
                self.count.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// A sample of this series of this time is durable: what is not newer is not needed any more.
    pub(crate) fn settle(&self, labels: &Labels, durable_ms: i64) {
        if self.len() == 0 {
            return;
        }
        let held = |by_metric: &ByMetric| {
            by_metric.get(labels.metric_name()).and_then(|of_metric| of_metric.get(labels)).copied()
        };
        if held(&self.by_metric.read()).is_some_and(|held| held.timestamp_ms <= durable_ms) {
            self.retain(
                |of, sample| of != labels || sample.timestamp_ms > durable_ms,
                Some(labels.metric_name()),
            );
        }
    }

    /// Forgets what is older than it may be.
    pub(crate) fn expire(&self, now_ms: i64) {
        if self.len() > 0 {
            let oldest_ms = now_ms.saturating_sub(KEPT_MS);
            self.retain(|_, sample| sample.timestamp_ms >= oldest_ms, None);
        }
    }

    /// Forgets the selected series' values in `[start_ms, end_ms]`: they were deleted.
    pub(crate) fn delete(&self, selection: Selection<'_>, start_ms: i64, end_ms: i64) {
        if self.len() > 0 {
            let within = start_ms..=end_ms;
            self.retain(|labels, s| !(within.contains(&s.timestamp_ms) && selection.fits(labels)), None);
        }
    }

    /// The values of the selected series.
    pub(crate) fn select(&self, selection: Selection<'_>) -> Vec<(Arc<Labels>, Sample)> {
        if self.len() == 0 {
            return Vec::new();
        }
        let named =
            selection.matchers.iter().find(|m| m.op() == MatchOp::Equal && m.name() == METRIC_NAME_LABEL);
        let by_metric = self.by_metric.read();
        let fitting = |of_metric: &OfMetric| {
            let fitting = of_metric.iter().filter(|(labels, _)| selection.fits(labels));
            fitting.map(|(labels, sample)| (Arc::clone(labels), *sample)).collect::<Vec<_>>()
        };
        match named {
            Some(name) => by_metric.get(name.value()).map(fitting).unwrap_or_default(),
            None => by_metric.values().flat_map(fitting).collect(),
        }
    }

    fn retain(&self, keep: impl Fn(&Labels, &Sample) -> bool, metric: Option<&str>) {
        let mut by_metric = self.by_metric.write();
        let mut gone = 0;
        for (_, of_metric) in by_metric.iter_mut().filter(|(name, _)| metric.is_none_or(|m| m == &***name)) {
            let before = of_metric.len();
            of_metric.retain(|labels, sample| keep(labels, sample));
            gone += before - of_metric.len();
        }
        by_metric.retain(|_, of_metric| !of_metric.is_empty());
        self.count.fetch_sub(gone, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Matcher;

    fn labels(metric: &str, pod: &str) -> Arc<Labels> {
        Arc::new(Labels::new([("__name__", metric), ("pod", pod)]).expect("valid"))
    }

    fn values(held: &Undurable, matchers: &[Matcher]) -> Vec<(i64, f64)> {
        let mut found = held.select(Selection { matchers, visible: None });
        found.sort_by_key(|(_, sample)| sample.timestamp_ms);
        found.iter().map(|(_, s)| (s.timestamp_ms, s.value)).collect()
    }

    #[test]
    fn only_the_newest_is_kept_until_one_as_new_is_durable() {
        let held = Undurable::default();
        let series = labels("m", "p1");
        held.note(&series, Some(Sample::new(9, 0.0)), Sample::new(9, 1.0));
        assert_eq!(held.len(), 0, "the durable one is as new");
        for (t, v) in [(10, 1.0), (12, 2.0), (11, 3.0), (12, 4.0)] {
            held.note(&series, None, Sample::new(t, v));
        }
        held.note(&labels("n", "p1"), None, Sample::new(20, 9.0));
        assert_eq!(values(&held, &[]), [(12, 4.0), (20, 9.0)]);
        assert_eq!(values(&held, &[Matcher::equal("__name__", "m")]), [(12, 4.0)]);
        assert_eq!(values(&held, &[Matcher::equal("pod", "p2")]), []);
        held.settle(&series, 11);
        assert_eq!(held.len(), 2);
        held.settle(&series, 12);
        assert_eq!(values(&held, &[]), [(20, 9.0)]);
        held.expire(20 + KEPT_MS);
        assert_eq!(held.len(), 1);
        held.expire(21 + KEPT_MS);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn at_the_bound_no_more_series_are_taken_and_known_ones_go_on() {
        let held = Undurable::default();
        for pod in 0..SERIES_MAX {
            held.note(&labels("m", &pod.to_string()), None, Sample::new(1, 1.0));
        }
        held.note(&labels("m", "more"), None, Sample::new(1, 1.0));
        held.note(&labels("n", "more"), None, Sample::new(1, 1.0));
        held.note(&labels("m", "0"), None, Sample::new(2, 2.0));
        assert_eq!(held.len(), SERIES_MAX);
        assert_eq!(values(&held, &[Matcher::equal("pod", "0")]), [(2, 2.0)]);
        held.delete(Selection { matchers: &[Matcher::equal("pod", "0")], visible: None }, 0, 2);
        assert_eq!(held.len(), SERIES_MAX - 1);
    }
}
