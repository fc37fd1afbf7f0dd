//! Calls of functions of a vector.

use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::{Call, Expr};
use super::functions::Function;
use super::labels::SeriesLabels;
use super::math;
use super::merge::is_distinct_without_name;
use super::series::{Points, Series};
use super::steps::Steps;
use std::cmp::Ordering;

impl Engine<'_> {
    /// A function's call.
    pub(super) fn call(&self, call: &Call, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let args = call.args.as_slice();
        match (call.function, args) {
            (Function::Range(function), _) => self.over_range(function, args, steps, sink),
            (Function::Value(f), [expr]) => self.map_values(expr, steps, &mut |_, v| Some(f(v)), sink),
            (Function::Date(date), [expr]) => {
                self.map_values(expr, steps, &mut |_, v| Some(date.of(v)), sink)
            }
            (Function::Date(date), []) => {
                self.of_time(steps, &mut |time_ms| date.of(time_ms.div_euclid(1_000) as f64), sink)
            }
            (Function::Round, [expr, rest @ ..]) => {
                let nearest = rest.first().map(|nearest| self.scalar(nearest, steps)).transpose()?;
                let nearest = nearest.unwrap_or_else(|| vec![1.0; steps.count()]);
                let round = &mut |step, v| Some(math::round_to(v, *nearest.get(step)?));
                self.map_values(expr, steps, round, sink)
            }
            (Function::Clamp | Function::ClampMin | Function::ClampMax, _) => self.clamp(call, steps, sink),
            (Function::Timestamp, [expr]) => self.timestamp(expr, steps, sink),
            (Function::Vector, [scalar]) => {
                let values = self.scalar(scalar, steps)?;
                let mut points = Points::absent(steps.count());
                values.into_iter().enumerate().for_each(|(step, value)| points.set(step, Some(value)));
                sink(Series::new(SeriesLabels::none(), points))
            }
            (Function::Sort, [expr]) => self.sort(expr, steps, false, sink),
            (Function::SortDesc, [expr]) => self.sort(expr, steps, true, sink),
            (Function::Absent, [expr]) => self.absent(expr, steps, sink),
            (Function::AbsentOverTime, [Expr::Range(range)]) => self.absent_over_time(range, steps, sink),
            (Function::HistogramQuantile, [q, expr]) => self.histogram_quantile(q, expr, steps, sink),
            (Function::HistogramFraction, [lower, upper, expr]) => {
                self.histogram_fraction(lower, upper, expr, steps, sink)
            }
            (Function::LabelReplace, _) => self.label_replace(args, steps, sink),
            (Function::LabelJoin, _) => self.label_join(args, steps, sink),
            _ => Err(EvalError::execution("a function was given arguments that it does not take")),
        }
    }

    /// Replaces each value of a vector; its series lose their names by it.
    pub(super) fn map_values(
        &self,
        expr: &Expr,
        steps: Steps,
        f: &mut dyn FnMut(usize, f64) -> Option<f64>,
        sink: Sink<'_>,
    ) -> Result<()> {
        self.dropping_names(is_distinct_without_name(expr), sink, &mut |sink| {
            self.vector(expr, steps, &mut |mut series| {
                series.points.replace(&mut *f);
                self.work(series.points.len())?;
                if series.points.is_empty() { Ok(()) } else { sink(series) }
            })
        })
    }

    /// One series without labels of a function of each step's time.
    fn of_time(&self, steps: Steps, f: &mut dyn FnMut(i64) -> f64, sink: Sink<'_>) -> Result<()> {
        let _held = self.hold(steps.count())?;
        let mut points = Points::absent(steps.count());
        for step in 0..steps.count() {
            points.set(step, Some(f(steps.time_ms(step))));
        }
        sink(Series::new(SeriesLabels::none(), points))
    }

    fn clamp(&self, call: &Call, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let [expr, bounds @ ..] = call.args.as_slice() else {
            return Err(EvalError::execution("clamp takes a vector and its bounds"));
        };
        let bounds = bounds.iter().map(|bound| self.scalar(bound, steps)).collect::<Result<Vec<_>>>()?;
        let bound = |place: usize, step: usize| bounds.get(place).and_then(|b| b.get(step)).copied();
        let clamp = &mut |step: usize, value: f64| match call.function {
            Function::ClampMin => Some(math::larger(bound(0, step)?, value)),
            Function::ClampMax => Some(math::smaller(bound(0, step)?, value)),
            _ => {
                let (min, max) = (bound(0, step)?, bound(1, step)?);
                if max < min { None } else { Some(math::clamp(value, min, max)) }
            }
        };
        self.map_values(expr, steps, clamp, sink)
    }

    fn timestamp(&self, expr: &Expr, steps: Steps, sink: Sink<'_>) -> Result<()> {
        let Expr::Selector(selector) = expr else {
            let seconds = &mut |step, _| Some(steps.time_ms(step) as f64 / 1_000.0);
            return self.map_values(expr, steps, seconds, sink);
        };
        self.dropping_names(is_distinct_without_name(expr), sink, &mut |sink| {
            self.select_times(selector, steps, sink)
        })
    }

    /// By value, NaN last; only at one instant, as the series of a range are ordered by their labels.
    fn sort(&self, expr: &Expr, steps: Steps, descending: bool, sink: Sink<'_>) -> Result<()> {
        let (mut all, _held) = self.collect(expr, steps)?;
        if steps.count() == 1 {
            let value = |series: &Series| series.points.get(0).unwrap_or(f64::NAN);
            all.sort_by(|a, b| {
                let (a, b) = (value(a), value(b));
                match (a.is_nan(), b.is_nan()) {
                    (false, false) if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
                    (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
                    (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
                }
            });
        } else {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            self.notes.borrow_mut().warn(text);
        }
        all.into_iter().try_for_each(sink)
    }
}
