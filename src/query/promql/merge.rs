//! One series a label set.

use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::{Binary, Call, Cardinality, Expr, Grouping, RangeSource, Selector};
use super::functions::Function;
use super::labels::SeriesLabels;
use super::series::Series;
use lookback_storage::{METRIC_NAME_LABEL, MatchOp};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Brings series with equal labels together. They are one as long as no two of them have a value at a step.
#[derive(Default)]
pub(super) struct Merger {
    places: HashMap<SeriesLabels, usize>,
    series: Vec<Series>,
}

impl Merger {
    pub(super) fn add(&mut self, series: Series) -> Result<()> {
        match self.places.entry(series.labels.clone()) {
            Entry::Vacant(place) => {
                place.insert(self.series.len());
                self.series.push(series);
                Ok(())
            }
            Entry::Occupied(place) => {
                let first = self.series.get_mut(*place.get()).ok_or_else(EvalError::same_labels)?;
                if !first.points.merge(&series.points) {
                    return Err(EvalError::same_labels());
                }
                first.drop_name &= series.drop_name;
                Ok(())
            }
        }
    }

    /// The series in the order in which their labels first came.
    pub(super) fn into_series(self) -> Vec<Series> {
        self.series
    }
}

impl Engine<'_> {
    /// Runs what makes series of `expr`'s that stand for something else, so that their names go: at once,
    /// or at the end of the evaluation.
    pub(super) fn dropping_names(
        &self,
        distinct: bool,
        sink: Sink<'_>,
        run: &mut dyn FnMut(Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.options().delayed_name_removal {
            return run(&mut |series| sink(Series { drop_name: true, ..series }));
        }
        if distinct {
            return run(&mut |series| sink(Series { labels: series.labels.without_name(), ..series }));
        }
        let mut merger = Merger::default();
        let mut held = self.hold(0)?;
        run(&mut |series| {
            held.absorb(self.hold(series.points.len())?);
            merger.add(Series { labels: series.labels.without_name(), ..series })
        })?;
        merger.into_series().into_iter().try_for_each(sink)
    }
}

/// Whether the series of an expression are sure to differ by more than their names.
pub(super) fn is_distinct_without_name(expr: &Expr) -> bool {
    match expr {
        Expr::Selector(selector) => has_one_name(selector),
        Expr::Range(range) => match &range.source {
            RangeSource::Selector(selector) => has_one_name(selector),
            RangeSource::Subquery { expr, .. } => is_distinct_without_name(expr),
        },
        Expr::Negate(expr) => is_distinct_without_name(expr),
        Expr::Aggregate(aggregate) => match &aggregate.grouping {
            _ if is_picking(aggregate.op) => is_distinct_without_name(&aggregate.expr),
            Grouping::By(names) => !names.iter().any(|name| name == METRIC_NAME_LABEL),
            Grouping::Without(_) => true,
        },
        Expr::Call(call) => is_call_distinct(call),
        Expr::Binary(binary) => is_binary_distinct(binary),
        Expr::Number(_) | Expr::Text(_) => true,
    }
}

fn is_picking(op: super::expr::AggregateOp) -> bool {
    matches!(op, super::expr::AggregateOp::Topk | super::expr::AggregateOp::Bottomk)
}

fn has_one_name(selector: &Selector) -> bool {
    selector
        .matchers
        .iter()
        .any(|m| m.name() == METRIC_NAME_LABEL && m.op() == MatchOp::Equal && !m.value().is_empty())
}

fn is_call_distinct(call: &Call) -> bool {
    match call.function {
        Function::LabelReplace | Function::LabelJoin => false,
        Function::Range(function) if function.keeps_name() => call.args.iter().all(is_distinct_without_name),
        Function::Sort | Function::SortDesc => call.args.iter().all(is_distinct_without_name),
        // Their outcome has no names.
        _ => true,
    }
}

fn is_binary_distinct(binary: &Binary) -> bool {
    if binary.op.changes_meaning() || binary.as_bool {
        return true;
    }
    binary.matching.card == Cardinality::OneToOne
        && binary.op != super::expr::BinaryOp::Or
        && is_distinct_without_name(&binary.left)
        && is_distinct_without_name(&binary.right)
}
