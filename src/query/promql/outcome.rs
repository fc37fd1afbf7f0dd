//! What a query comes to.

use super::engine::{Engine, Task};
use super::error::{EvalError, Result};
use super::expr::{Expr, RangeExpr, RangeSource};
use super::labels::SeriesLabels;
use super::lower::{Query, ValueType};
use super::merge::Merger;
use super::notes::Notes;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::Sample;

/// A value, and what is to be said of it.
#[derive(Debug)]
pub struct Outcome {
    /// The value.
    pub value: Value,
    /// Warnings and infos.
    pub notes: Notes,
}

/// What a query evaluates to.
#[derive(Debug)]
pub enum Value {
    /// A number at an instant.
    Scalar(Sample),
    /// A text at an instant, Unix milliseconds.
    Text(i64, String),
    /// A value a series at an instant, in the order of the evaluation.
    Vector(Vec<(SeriesLabels, Sample)>),
    /// Samples of series, in the order of their labels.
    Matrix(Vec<Row>),
}

/// Samples of one series.
#[derive(Debug)]
pub struct Row {
    /// The series.
    pub labels: SeriesLabels,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Stepped(Steps, Points),
    Samples(Vec<Sample>),
}

impl Row {
    /// The instants at which it may have values; `None`: at any.
    pub fn steps(&self) -> Option<Steps> {
        match self.data {
            Data::Stepped(steps, _) => Some(steps),
            Data::Samples(_) => None,
        }
    }

    /// Its samples in time order.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        let (stepped, samples) = match &self.data {
            Data::Stepped(steps, points) => {
                let sample = |(step, value)| Sample::new(steps.time_ms(step), value);
                (Some(points.iter().map(sample)), None)
            }
            Data::Samples(samples) => (None, Some(samples.iter().copied())),
        };
        stepped.into_iter().flatten().chain(samples.into_iter().flatten())
    }
}

impl Task<'_> {
    /// Evaluates at the one instant of this task.
    ///
    /// # Errors
    /// When the data does not fit the query, a bound is met, it has to stop, or the store fails.
    pub fn instant(&self, query: &Query) -> Result<Outcome> {
        let engine = Engine::new(self);
        let time_ms = self.steps.time_ms(0);
        let value = match (query.value_type(), &query.expr) {
            (ValueType::Scalar, expr) => {
                let value = engine.scalar(expr, self.steps)?.first().copied().unwrap_or(f64::NAN);
                Value::Scalar(Sample::new(time_ms, value))
            }
            (ValueType::String, Expr::Text(text)) => Value::Text(time_ms, text.clone()),
            (ValueType::Matrix, Expr::Range(range)) => Value::Matrix(engine.matrix(range)?),
            (_, expr) => {
                let sample =
                    |series: Series| Some((series.labels, Sample::new(time_ms, series.points.get(0)?)));
                Value::Vector(engine.finished(expr)?.into_iter().filter_map(sample).collect())
            }
        };
        Ok(Outcome { value, notes: engine.into_notes() })
    }

    /// Evaluates at each step of this task.
    ///
    /// # Errors
    /// As [`instant`](Self::instant); the query must be a scalar or an instant vector.
    pub fn range(&self, query: &Query) -> Result<Outcome> {
        let engine = Engine::new(self);
        let series = match query.value_type() {
            ValueType::Scalar => {
                let mut points = Points::absent(self.steps.count());
                for (step, value) in engine.scalar(&query.expr, self.steps)?.into_iter().enumerate() {
                    points.set(step, Some(value));
                }
                vec![Series::new(SeriesLabels::none(), points)]
            }
            _ => engine.finished(&query.expr)?,
        };
        let row =
            |series: Series| Row { labels: series.labels, data: Data::Stepped(self.steps, series.points) };
        let mut rows: Vec<Row> =
            series.into_iter().filter(|series| !series.points.is_empty()).map(row).collect();
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Outcome { value: Value::Matrix(rows), notes: engine.into_notes() })
    }
}

impl Engine<'_> {
    /// The series of the whole query, their names gone where they have to, one a label set.
    fn finished(&self, expr: &Expr) -> Result<Vec<Series>> {
        let (all, held) = self.collect(expr, self.task.steps)?;
        if matches!(expr, Expr::Selector(_)) {
            // As they are stored, no two have the same labels.
            return Ok(all);
        }
        let mut merger = Merger::default();
        for mut series in all {
            if series.drop_name {
                series.labels = series.labels.without_name();
            }
            merger.add(series)?;
        }
        drop(held);
        Ok(merger.into_series())
    }

    /// The samples of a range at the task's instant.
    fn matrix(&self, range: &RangeExpr) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut held = self.hold(0)?;
        let steps = self.task.steps;
        let end_ms = self.moment_ms(range.moment(), steps.time_ms(0));
        let start_ms = end_ms.saturating_sub(range.range_ms);
        self.ranges(range, steps, &mut |labels, drop_name, samples| {
            let within = |s: &&Sample| s.timestamp_ms > start_ms && s.timestamp_ms <= end_ms;
            let samples: Vec<Sample> = samples.iter().filter(within).copied().collect();
            held.absorb(self.hold(samples.len())?);
            if !samples.is_empty() {
                let labels = if drop_name { labels.without_name() } else { labels };
                rows.push(Row { labels, data: Data::Samples(samples) });
            }
            Ok(())
        })?;
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        let is_subquery = matches!(range.source, RangeSource::Subquery { .. });
        if is_subquery && rows.windows(2).any(|pair| matches!(pair, [a, b] if a.labels == b.labels)) {
            return Err(EvalError::same_labels());
        }
        Ok(rows)
    }
}
