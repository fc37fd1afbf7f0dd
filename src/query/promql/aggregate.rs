//! Aggregations: the series of a group to one, or to as many as there are values.

use super::accumulate::Accumulator;
use super::engine::{Engine, Held, Sink};
use super::error::{EvalError, Result};
use super::expr::{Aggregate, AggregateOp, Expr, Grouping};
use super::labels::SeriesLabels;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::METRIC_NAME_LABEL;
use std::collections::HashMap;

impl Grouping {
    /// The labels of the group that a series belongs to.
    pub(super) fn of(&self, labels: &SeriesLabels) -> SeriesLabels {
        match self {
            Self::By(names) => labels.only(names),
            Self::Without(names) => labels.without(names),
        }
    }
}

/// Groups in the order in which they came.
pub(super) struct Groups<T> {
    places: HashMap<SeriesLabels, usize>,
    pub(super) all: Vec<(SeriesLabels, T)>,
}

impl<T> Groups<T> {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), all: Vec::new() }
    }

    /// The group with these labels; made if need be.
    pub(super) fn of(&mut self, labels: SeriesLabels, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
        let place = match self.places.get(&labels) {
            Some(place) => *place,
            None => {
                let place = self.all.len();
                self.all.push((labels.clone(), make()?));
                self.places.insert(labels, place);
                place
            }
        };
        let group = self.all.get_mut(place).map(|(_, group)| group);
        group.ok_or_else(|| EvalError::execution("a group was lost"))
    }
}

struct Group<'e> {
    accumulator: Accumulator,
    drop_name: bool,
    _held: Held<'e>,
}

impl Engine<'_> {
    /// An aggregation.
    pub(super) fn aggregate(&self, aggregate: &Aggregate, steps: Steps, sink: Sink<'_>) -> Result<()> {
        match aggregate.op {
            AggregateOp::Topk | AggregateOp::Bottomk => self.top(aggregate, steps, sink),
            AggregateOp::CountValues => self.count_values(aggregate, steps, sink),
            op => self.accumulate(op, aggregate, steps, sink),
        }
    }

    fn accumulate(&self, op: AggregateOp, aggregate: &Aggregate, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let params = aggregate.param.as_ref().map(|param| self.scalar(param, steps)).transpose()?;
        let quantiles = params.unwrap_or_default();
        if op == AggregateOp::Quantile {
            self.check_quantiles(&quantiles);
        }
        let mut groups = Groups::new();
        let mut values_held = self.hold(0)?;
        self.vector(&aggregate.expr, steps, &mut |series| {
            self.work(series.points.len())?;
            if op == AggregateOp::Quantile {
                values_held.absorb(self.hold(series.points.iter().count())?);
            }
            let group: &mut Group<'_> = groups.of(aggregate.grouping.of(&series.labels), || {
                let accumulator = Accumulator::new(op, steps.count())
                    .ok_or_else(|| EvalError::execution("unknown aggregation"))?;
                let values = steps.count().saturating_mul(accumulator.values_per_step());
                Ok(Group { accumulator, drop_name: false, _held: self.hold(values)? })
            })?;
            group.drop_name |= series.drop_name;
            group.accumulator.add(&series.points);
            Ok(())
        })?;
        for (labels, group) in groups.all {
            let points = group.accumulator.finish(&quantiles);
            if !points.is_empty() {
                sink(Series { labels, drop_name: group.drop_name, points })?;
            }
        }
        Ok(())
    }

    /// One series a group and value: how many series of the group have it.
    fn count_values(&self, aggregate: &Aggregate, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let Some(Expr::Text(name)) = &aggregate.param else {
            return Err(EvalError::execution("count_values takes the name of a label and a vector"));
        };
        if name.is_empty() {
            return Err(EvalError::execution("invalid label name \"\""));
        }
        let mut groups: Groups<(Points, bool)> = Groups::new();
        let mut held = self.hold(0)?;
        self.vector(&aggregate.expr, steps, &mut |series| {
            self.work(series.points.len())?;
            let group = aggregate.grouping.of(&series.labels);
            for (step, value) in series.points.iter() {
                let labels = group.with(name, &super::windows::plain(value));
                let (points, drop_name) = groups.of(labels, || {
                    held.absorb(self.hold(steps.count())?);
                    Ok((Points::absent(steps.count()), false))
                })?;
                let count = points.get(step).unwrap_or(0.0);
                points.set(step, Some(count + 1.0));
                *drop_name |= series.drop_name && name != METRIC_NAME_LABEL;
            }
            Ok(())
        })?;
        for (labels, (points, drop_name)) in groups.all {
            sink(Series { labels, drop_name, points })?;
        }
        Ok(())
    }
}
