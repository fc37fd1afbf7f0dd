//! What is remembered of an autoscaler, as of any moment.

use super::LOOK_BACK_MS;
use crate::kubernetes::behavior::{Behavior, Change, Direction, Policy, Rules, Select};
use crate::store::SeriesSamples;
use lookback_storage::{Labels, Sample};
use std::collections::BTreeSet;

/// The series of an autoscaler, with what they held for a while.
pub(super) struct Remembered(pub(super) Vec<SeriesSamples>);

impl Remembered {
    /// The newest value of each series at a moment.
    pub(super) fn at(&self, at_ms: i64) -> Moment<'_> {
        let value = |series: &'_ SeriesSamples| newest(&series.samples, at_ms);
        let mut values = Vec::new();
        for series in &self.0 {
            if let Some(sample) = value(series) {
                values.push((series.labels.as_ref(), sample.timestamp_ms, sample.value));
            }
        }
        Moment(values)
    }

    fn of<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a SeriesSamples> {
        self.0.iter().filter(move |series| series.labels.metric_name() == metric)
    }

    /// When it was answered, from a time on and before another.
    pub(super) fn answered_within(&self, from_ms: i64, before_ms: i64) -> BTreeSet<i64> {
        let series = self.of("lookback_autoscaler_answer_items");
        let times = series.flat_map(|series| series.samples.iter().map(|sample| sample.timestamp_ms));
        times.filter(|at_ms| (from_ms..before_ms).contains(at_ms)).collect()
    }

    /// How the replicas changed before a moment.
    pub(super) fn changes(&self, at_ms: i64) -> Vec<Change> {
        let Some(series) = self.of("kube_horizontalpodautoscaler_status_current_replicas").next() else {
            return Vec::new();
        };
        let before: Vec<&Sample> = series
            .samples
            .iter()
            .filter(|sample| sample.timestamp_ms <= at_ms && !sample.is_staleness_marker())
            .collect();
        let change = |pair: &[&Sample]| {
            let [former, later] = pair else { return None };
            #[expect(clippy::cast_possible_truncation, reason = "counts; a cast saturates")]
            let by = (later.value - former.value) as i64;
            (by != 0).then_some(Change { ago_ms: at_ms.saturating_sub(later.timestamp_ms), by })
        };
        before.windows(2).filter_map(change).collect()
    }
}

/// The newest sample at a moment, unless it is too old or ends the series.
pub(super) fn newest(samples: &[Sample], at_ms: i64) -> Option<Sample> {
    let until = samples.partition_point(|sample| sample.timestamp_ms <= at_ms);
    let sample = samples.get(..until)?.last()?;
    let is_recent = sample.timestamp_ms >= at_ms.saturating_sub(LOOK_BACK_MS);
    (is_recent && !sample.is_staleness_marker()).then_some(*sample)
}

/// The newest value of each series at a moment, and its time.
pub(super) struct Moment<'a>(Vec<(&'a Labels, i64, f64)>);

impl<'a> Moment<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first series of this name.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        self.of(metric).next().map(|(_, _, value)| value)
    }

    /// The series of this name, each with its time and value.
    pub(super) fn of(&self, metric: &str) -> impl Iterator<Item = (&'a Labels, i64, f64)> {
        self.0.iter().filter(move |(labels, ..)| labels.metric_name() == metric).copied()
    }

    /// The target of the autoscaler: kind and name.
    pub(super) fn target(&self) -> Option<(&'a str, &'a str)> {
        let (labels, ..) = self.of("kube_horizontalpodautoscaler_info").max_by_key(|(_, at, _)| *at)?;
        Some((labels.get("scaletargetref_kind")?, labels.get("scaletargetref_name")?))
    }

    /// Its behavior.
    pub(super) fn behavior(&self) -> Behavior {
        let default = Behavior::default();
        let windows = self.of("lookback_autoscaler_behavior_stabilization_seconds");
        // What it was before a change is no part of it.
        let Some(since_ms) = windows.map(|(_, at, _)| at).max() else { return default };
        let up = self.rules(Direction::Up, default.up, since_ms);
        let down = self.rules(Direction::Down, default.down, since_ms);
        Behavior { up, down, is_default: false }
    }

    fn rules(&self, direction: Direction, default: Rules, since_ms: i64) -> Rules {
        let of = |metric: &str| -> Vec<(&'a Labels, f64)> {
            let fits =
                |labels: &Labels, at| at >= since_ms && labels.get("direction") == Some(direction.as_str());
            let found = self.of(metric).filter(|(labels, at, _)| fits(labels, *at));
            found.map(|(labels, _, value)| (labels, value)).collect()
        };
        let value = |metric: &str| of(metric).first().map(|(_, value)| *value);
        let policy = |(labels, value): (&Labels, f64)| {
            let period_seconds = labels.get("period_seconds")?.parse().ok()?;
            let is_percent = labels.get("policy_type")? == "Percent";
            Some(Policy { is_percent, value: whole(value), period_seconds })
        };
        let select = of("lookback_autoscaler_behavior_select_policy");
        let select = select.first().and_then(|(labels, _)| labels.get("select_policy")).map(Select::of);
        Rules {
            stabilization_seconds: value("lookback_autoscaler_behavior_stabilization_seconds")
                .map_or(default.stabilization_seconds, whole),
            tolerance: value("lookback_autoscaler_behavior_tolerance").unwrap_or(default.tolerance),
            policies: of("lookback_autoscaler_behavior_policy").into_iter().filter_map(policy).collect(),
            select: select.unwrap_or(default.select),
        }
    }
}

/// A count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts; a cast saturates")]
pub(super) fn whole(count: f64) -> u32 {
    count as u32
}
