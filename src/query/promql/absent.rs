//! `absent` and `absent_over_time`: whether there is nothing.

use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::{Expr, RangeExpr, RangeSource};
use super::labels::SeriesLabels;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::{METRIC_NAME_LABEL, MatchOp, Matcher};
use std::collections::{BTreeMap, BTreeSet};

impl Engine<'_> {
    /// 1 at the steps at which a vector is empty.
    pub(super) fn absent(&self, expr: &Expr, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let mut absent = Points::absent(steps.count());
        absent.fill(Some(1.0));
        self.vector(expr, steps, &mut |series| {
            series.points.iter().for_each(|(step, _)| absent.set(step, None));
            Ok(())
        })?;
        let labels = match expr {
            Expr::Selector(selector) => labels_of(&selector.matchers),
            _ => SeriesLabels::none(),
        };
        if absent.is_empty() { Ok(()) } else { sink(Series::new(labels, absent)) }
    }

    /// 1 at the steps at whose range no series has a sample.
    pub(super) fn absent_over_time(&self, range: &RangeExpr, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let mut absent = Points::absent(steps.count());
        absent.fill(Some(1.0));
        self.ranges(range, steps, &mut |_, _, samples| {
            self.work(steps.count())?;
            for step in 0..steps.count() {
                let end_ms = self.moment_ms(range.moment(), steps.time_ms(step));
                let start_ms = end_ms.saturating_sub(range.range_ms);
                let next = samples.partition_point(|sample| sample.timestamp_ms <= start_ms);
                if samples.get(next).is_some_and(|sample| sample.timestamp_ms <= end_ms) {
                    absent.set(step, None);
                }
            }
            Ok(())
        })?;
        let labels = match &range.source {
            RangeSource::Selector(selector) => labels_of(&selector.matchers),
            RangeSource::Subquery { .. } => SeriesLabels::none(),
        };
        if absent.is_empty() { Ok(()) } else { sink(Series::new(labels, absent)) }
    }
}

/// What a selector says for sure of the labels of what is not there: as in Prometheus the first `=` of a label
/// counts, unless another matcher of it comes after.
fn labels_of(matchers: &[Matcher]) -> SeriesLabels {
    let mut equal: BTreeSet<&str> = BTreeSet::new();
    let mut sure: BTreeMap<&str, &str> = BTreeMap::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME_LABEL) {
        if matcher.op() == MatchOp::Equal && equal.insert(matcher.name()) {
            sure.insert(matcher.name(), matcher.value());
        } else {
            sure.remove(matcher.name());
        }
    }
    SeriesLabels::of(sure)
}
