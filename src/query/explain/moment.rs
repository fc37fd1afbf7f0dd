//! What is remembered of an autoscaler, as of any moment.

use super::LOOK_BACK_MS;
use crate::kubernetes::behavior::{Behavior, Change, Direction, Policy, Rules, Select};
use crate::kubernetes::controller_settings::ControllerSettings;
use crate::store::SeriesSamples;
use lookback_storage::{Labels, Sample};
use std::collections::BTreeSet;

/// What is answered within this is asked by one look of the autoscaler at all of its metrics.
const AT_ONCE_MS: i64 = 1_000;

/// Most that lies between an autoscaler's creation and its first look.
const FIRST_LOOK_MS_MAX: f64 = 60_000.0;

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

    /// When it was answered all that it asks at once, from a time on and before another: the last of times that lie
    /// within a second of each other.
    pub(super) fn answered_within(&self, from_ms: i64, before_ms: i64) -> Vec<i64> {
        let series = self.of("lookback_autoscaler_answer_items");
        let times = series.flat_map(|series| series.samples.iter().map(|sample| sample.timestamp_ms));
        let times: BTreeSet<i64> = times.filter(|at_ms| *at_ms < before_ms).collect();
        let next = times.iter().skip(1).map(Some).chain([None]);
        let ends = times.iter().zip(next).filter(|(at_ms, next)| {
            next.map_or(before_ms, |next| *next).saturating_sub(**at_ms) > AT_ONCE_MS
        });
        ends.map(|(at_ms, _)| *at_ms).filter(|at_ms| *at_ms >= from_ms).collect()
    }

    /// When it looked first, and at how many replicas, which is what it wants to begin with; `None` where that was not
    /// seen.
    pub(super) fn beginning(&self) -> Option<(i64, f64)> {
        let created = self.of("kube_horizontalpodautoscaler_created").next()?.samples.last()?;
        let first =
            self.of("kube_horizontalpodautoscaler_status_current_replicas").next()?.samples.first()?;
        let was_seen = ms(first.timestamp_ms) - created.value * 1e3 < FIRST_LOOK_MS_MAX;
        (was_seen && !first.is_staleness_marker()).then_some((first.timestamp_ms, first.value))
    }

    /// How it changed the replicas before a moment: each time that it scaled last, with what it wanted to have then and
    /// what there was. Where those times are not known, how the replicas changed.
    pub(super) fn changes(&self, at_ms: i64) -> Vec<Change> {
        let Some(scaled) = self.of("lookback_autoscaler_last_scale_seconds").next() else {
            return self.changes_of_replicas(at_ms);
        };
        let (mut changes, mut last) = (Vec::new(), f64::NAN);
        for sample in known(&scaled.samples, at_ms).filter(|sample| !sample.is_staleness_marker()) {
            if sample.value == last {
                continue;
            }
            last = sample.value;
            let moment = self.at(sample.timestamp_ms);
            let replicas =
                |which| moment.value(&format!("kube_horizontalpodautoscaler_status_{which}_replicas"));
            let (Some(current), Some(desired)) = (replicas("current"), replicas("desired")) else { continue };
            #[expect(clippy::cast_possible_truncation, reason = "counts and times; a cast saturates")]
            let (by, second_ms) = ((desired - current) as i64, (sample.value * 1e3) as i64);
            // It is told in whole seconds; the sample comes soon after it.
            let scaled_ms = sample.timestamp_ms.min(second_ms.saturating_add(999));
            if by != 0 {
                changes.push(Change { ago_ms: at_ms.saturating_sub(scaled_ms), by });
            }
        }
        changes
    }

    fn changes_of_replicas(&self, at_ms: i64) -> Vec<Change> {
        let Some(series) = self.of("kube_horizontalpodautoscaler_status_current_replicas").next() else {
            return Vec::new();
        };
        let before: Vec<&Sample> =
            known(&series.samples, at_ms).filter(|sample| !sample.is_staleness_marker()).collect();
        let change = |pair: &[&Sample]| {
            let [former, later] = pair else { return None };
            #[expect(clippy::cast_possible_truncation, reason = "counts; a cast saturates")]
            let by = (later.value - former.value) as i64;
            (by != 0).then_some(Change { ago_ms: at_ms.saturating_sub(later.timestamp_ms), by })
        };
        before.windows(2).filter_map(change).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of this age")]
fn ms(time_ms: i64) -> f64 {
    time_ms as f64
}

/// The samples up to a moment.
fn known(samples: &[Sample], at_ms: i64) -> impl Iterator<Item = &Sample> {
    samples.iter().take_while(move |sample| sample.timestamp_ms <= at_ms)
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

    /// Whether it has a condition of this kind, and whether that is `True`; `Unknown` is neither.
    pub(super) fn condition(&self, kind: &str) -> Option<bool> {
        let mut holding = self
            .of("kube_horizontalpodautoscaler_status_condition")
            .filter(|(labels, _, value)| *value == 1.0 && labels.get("condition") == Some(kind));
        match holding.next()?.0.get("status")? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Its behavior.
    pub(super) fn behavior(&self, controller: &ControllerSettings) -> Behavior {
        let default = Behavior::default_of(controller);
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
