//! `topk` and `bottomk`: the series with the largest, or smallest, values of each group at each step.

use super::aggregate::Groups;
use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::{Aggregate, AggregateOp};
use super::labels::SeriesLabels;
use super::series::{Points, Series};
use super::steps::Steps;

/// 2⁶³: where the whole numbers of Prometheus' own implementation end.
const INT64_BOUND: f64 = (1_u64 << 63) as f64;

/// Values and the places of their series, the best one first.
type Best = Vec<(f64, usize)>;

impl Engine<'_> {
    /// The series that are among the best `k` of their group, at the steps at which they are.
    pub(super) fn top(&self, aggregate: &Aggregate, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let param = aggregate.param.as_ref();
        let param =
            param.ok_or_else(|| EvalError::execution("topk and bottomk take a number and a vector"))?;
        let Some(ks) = how_many(self.scalar(param, steps)?)? else { return Ok(()) };
        let largest = aggregate.op == AggregateOp::Topk;
        let mut groups: Groups<Vec<Best>> = Groups::new();
        let mut labels: Vec<(SeriesLabels, bool)> = Vec::new();
        let mut held = self.hold(0)?;
        self.vector(&aggregate.expr, steps, &mut |series| {
            let place = labels.len();
            let group = groups.of(aggregate.grouping.of(&series.labels), || {
                held.absorb(self.hold(steps.count().saturating_mul(3))?);
                Ok(vec![Best::new(); steps.count()])
            })?;
            labels.push((series.labels, series.drop_name));
            let mut kept = 0;
            for (step, value) in series.points.iter() {
                let (Some(best), Some(k)) = (group.get_mut(step), ks.get(step)) else { continue };
                kept += usize::from(best.len() < *k);
                insert(best, *k, value, place, largest);
            }
            held.absorb(self.hold(kept.saturating_mul(2))?);
            self.work(series.points.len())
        })?;
        if steps.count() == 1 {
            // At an instant they come in their order.
            for (value, place) in groups.all.into_iter().flat_map(|(_, best)| best).flatten() {
                let mut points = Points::absent(1);
                points.set(0, Some(value));
                let Some((labels, drop_name)) = labels.get(place).cloned() else { continue };
                sink(Series { labels, drop_name, points })?;
            }
            return Ok(());
        }
        self.spread(groups, labels, steps, sink)
    }

    /// Brings what was chosen step by step back to its series.
    fn spread(
        &self,
        groups: Groups<Vec<Best>>,
        labels: Vec<(SeriesLabels, bool)>,
        steps: Steps,
        sink: Sink<'_>,
    ) -> Result<()> {
        let mut chosen: Vec<Option<Points>> = vec![None; labels.len()];
        let mut held = self.hold(0)?;
        for (_, bests) in groups.all {
            for (step, best) in bests.into_iter().enumerate() {
                for (value, place) in best {
                    let Some(slot) = chosen.get_mut(place) else { continue };
                    if slot.is_none() {
                        held.absorb(self.hold(steps.count())?);
                    }
                    slot.get_or_insert_with(|| Points::absent(steps.count())).set(step, Some(value));
                }
            }
        }
        for ((labels, drop_name), points) in labels.into_iter().zip(chosen) {
            if let Some(points) = points {
                sink(Series { labels, drop_name, points })?;
            }
        }
        Ok(())
    }
}

/// How many at each step; `None`: at no step any.
fn how_many(params: Vec<f64>) -> Result<Option<Vec<usize>>> {
    let most = params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if params.iter().any(|k| k.is_nan()) {
        return Err(EvalError::execution("Parameter value is NaN"));
    }
    if most < 1.0 {
        return Ok(None);
    }
    if let Some(k) = params.iter().find(|k| **k <= -INT64_BOUND) {
        return Err(EvalError::execution(format!(
            "Scalar value {} underflows int64",
            super::windows::plain(*k)
        )));
    }
    if most >= INT64_BOUND {
        return Err(EvalError::execution(format!(
            "Scalar value {} overflows int64",
            super::windows::plain(most)
        )));
    }
    // Truncated, and none where it is negative.
    Ok(Some(params.into_iter().map(|k| k as usize).collect()))
}

fn is_better(value: f64, than: f64, largest: bool) -> bool {
    if than.is_nan() {
        return !value.is_nan();
    }
    if largest { value > than } else { value < than }
}

/// Puts a value in its place, behind those that are as good, and lets go of what is over `k`.
fn insert(best: &mut Best, k: usize, value: f64, series: usize, largest: bool) {
    if best.len() >= k && !best.last().is_some_and(|(last, _)| is_better(value, *last, largest)) {
        return;
    }
    let place = best.partition_point(|(other, _)| !is_better(value, *other, largest));
    best.insert(place, (value, series));
    best.truncate(k);
}
