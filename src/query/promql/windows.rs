//! Samples in ranges, and functions of them at each step.

use super::engine::{Engine, Sink};
use super::error::{EvalError, Result};
use super::expr::{Expr, RangeExpr, RangeSource};
use super::functions::RangeFunction;
use super::labels::SeriesLabels;
use super::merge::is_distinct_without_name;
use super::series::{Points, Series};
use super::steps::Steps;
use super::{over_time, parts};
use lookback_storage::{Pick, Sample, SeriesParts};

/// What a function of a range works on.
pub(super) struct Window<'a> {
    /// At least one; all lie after `start_ms` and not after `end_ms`.
    pub(super) samples: &'a [Sample],
    /// For each fall of a counter within: the value before it.
    pub(super) before_falls: &'a [f64],
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    /// The step's own time, which an offset or `@` does not move.
    pub(super) step_ms: i64,
    /// The function's scalar argument.
    pub(super) param: f64,
}

/// Where a step's window lies.
pub(super) struct Place {
    step: usize,
    /// Of what it holds, the first,
    pub(super) from: usize,
    /// and the one after the last; more than `from`.
    pub(super) to: usize,
    start_ms: i64,
    end_ms: i64,
}

/// Takes the samples of a range's series one by one, with whether the series' name has to go.
pub(super) type RangeSink<'s> = &'s mut dyn FnMut(SeriesLabels, bool, &[Sample]) -> Result<()>;

/// Where a series falls, so that windows that overlap need not look for it again and again.
#[derive(Default)]
struct Falls {
    /// The place of the sample that is lower than the one before it.
    places: Vec<usize>,
    before: Vec<f64>,
}

impl Falls {
    fn of(samples: &[Sample]) -> Self {
        let mut falls = Self::default();
        for (place, pair) in samples.windows(2).enumerate() {
            if let [before, after] = pair
                && after.value < before.value
            {
                falls.places.push(place + 1);
                falls.before.push(before.value);
            }
        }
        falls
    }

    /// Those between samples of `from..to`.
    fn within(&self, from: usize, to: usize) -> &[f64] {
        let first = self.places.partition_point(|place| *place <= from);
        let last = self.places.partition_point(|place| *place < to);
        self.before.get(first..last).unwrap_or_default()
    }
}

impl Engine<'_> {
    /// Hands out the samples of a range's series that any step's window can hold, staleness markers left
    /// out, with whether the series' name has to go.
    pub(super) fn ranges(&self, range: &RangeExpr, steps: Steps, visit: RangeSink<'_>) -> Result<()> {
        if steps.count() == 0 {
            return Ok(());
        }
        let first_ms = self.moment_ms(range.moment(), steps.time_ms(0));
        let last_ms = self.moment_ms(range.moment(), steps.last_ms());
        match &range.source {
            RangeSource::Selector(selector) => {
                let between = (first_ms.saturating_sub(range.range_ms).saturating_add(1), last_ms);
                self.read(&selector.matchers, between, Pick::All, &mut |labels, mut samples| {
                    samples.retain(|sample| !sample.is_staleness_marker());
                    visit(SeriesLabels::stored(labels.clone()), false, &samples)
                })
            }
            RangeSource::Subquery { expr, step_ms, .. } => {
                let step_ms = step_ms.unwrap_or(self.options().default_step_ms);
                let inner = Steps::of_subquery(first_ms, last_ms, range.range_ms, step_ms)
                    .ok_or_else(|| EvalError::execution("the step of a subquery must be more than 0"))?;
                let _held = self.hold(inner.count().saturating_mul(2))?;
                self.vector(expr, inner, &mut |series| {
                    let sample = |(step, value)| Sample::new(inner.time_ms(step), value);
                    let samples: Vec<Sample> = series.points.iter().map(sample).collect();
                    self.work(samples.len())?;
                    visit(series.labels, series.drop_name, &samples)
                })
            }
        }
    }

    /// A function of a range.
    pub(super) fn over_range(
        &self,
        function: RangeFunction,
        args: &[Expr],
        steps: Steps,
        sink: Sink<'_>,
    ) -> Result<()> {
        let (range, param) = match (function, args) {
            (RangeFunction::Quantile, [param, Expr::Range(range)]) => (range, Some(param)),
            (RangeFunction::PredictLinear, [Expr::Range(range), param]) => (range, Some(param)),
            (_, [Expr::Range(range)]) => (range, None),
            _ => return Err(EvalError::execution("expected a range of samples: metric[5m]")),
        };
        let params = param.map(|param| self.scalar(param, steps)).transpose()?;
        let is_quantile = function == RangeFunction::Quantile;
        if let Some(params) = params.as_ref().filter(|_| is_quantile) {
            self.check_quantiles(params);
        }
        let _held = self.hold(steps.count())?;
        let of_samples =
            |samples: &[Sample]| self.at_each_step(function, range, steps, params.as_deref(), samples);
        let mut run = |sink: Sink<'_>| {
            if let (Some(figure), RangeSource::Selector(selector)) = (parts::figure(function), &range.source)
            {
                return self.parts(range, selector, figure, steps, &mut |labels, read| {
                    let points = match &read {
                        SeriesParts::Samples(samples) => of_samples(samples)?,
                        SeriesParts::Parts(parts) => {
                            self.parts_at_each_step(function, range, steps, parts)?
                        }
                    };
                    if points.is_empty() { Ok(()) } else { sink(Series::new(labels, points)) }
                });
            }
            self.ranges(range, steps, &mut |labels, drop_name, samples| {
                let points = of_samples(samples)?;
                if points.is_empty() {
                    return Ok(());
                }
                if matches!(function, RangeFunction::Rate | RangeFunction::Increase) {
                    self.note_counter(&labels);
                }
                sink(Series { labels, drop_name, points })
            })
        };
        if function.keeps_name() {
            return run(sink);
        }
        let distinct = args.iter().all(is_distinct_without_name);
        self.dropping_names(distinct, sink, &mut run)
    }

    fn at_each_step(
        &self,
        function: RangeFunction,
        range: &RangeExpr,
        steps: Steps,
        params: Option<&[f64]>,
        samples: &[Sample],
    ) -> Result<Points> {
        let counts_falls =
            matches!(function, RangeFunction::Rate | RangeFunction::Increase | RangeFunction::Resets);
        let falls = if counts_falls { Falls::of(samples) } else { Falls::default() };
        let is_same_at_each_step = range.moment().at.is_some() && params.is_none();
        let mut scratch = Vec::new();
        self.slide(range, steps, is_same_at_each_step, (samples, |s| s.timestamp_ms), |place| {
            let Place { step, from, to, start_ms, end_ms } = place;
            let window = Window {
                samples: samples.get(from..to).unwrap_or_default(),
                before_falls: falls.within(from, to),
                start_ms,
                end_ms,
                step_ms: steps.time_ms(step),
                param: params.and_then(|params| params.get(step)).copied().unwrap_or(f64::NAN),
            };
            let value = over_time::apply(function, &window, &mut scratch);
            self.work(if counts_falls { window.before_falls.len() } else { to - from })?;
            Ok(value)
        })
    }

    /// What `tell` says of each step's window of what lies in time order; of those in which there is something.
    pub(super) fn slide<T>(
        &self,
        range: &RangeExpr,
        steps: Steps,
        is_same_at_each_step: bool,
        (all, at_ms): (&[T], impl Fn(&T) -> i64),
        mut tell: impl FnMut(Place) -> Result<Option<f64>>,
    ) -> Result<Points> {
        let mut points = Points::absent(steps.count());
        let (mut from, mut to) = (0, 0);
        for step in 0..steps.count() {
            let end_ms = self.moment_ms(range.moment(), steps.time_ms(step));
            let start_ms = end_ms.saturating_sub(range.range_ms);
            while all.get(to).is_some_and(|one| at_ms(one) <= end_ms) {
                to += 1;
            }
            while from < to && all.get(from).is_some_and(|one| at_ms(one) <= start_ms) {
                from += 1;
            }
            if from == to {
                continue;
            }
            let value = tell(Place { step, from, to, start_ms, end_ms })?;
            if is_same_at_each_step {
                points.fill(value);
                break;
            }
            points.set(step, value);
        }
        Ok(points)
    }

    /// Says of a metric whose rate is asked that its name is none of a counter's.
    fn note_counter(&self, labels: &SeriesLabels) {
        let name = labels.get(lookback_storage::METRIC_NAME_LABEL);
        let is_counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end));
        if !name.is_empty() && !is_counter {
            self.notes.borrow_mut().info(&format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
            ));
        }
    }

    /// Warns of quantiles that are none.
    pub(super) fn check_quantiles(&self, quantiles: &[f64]) {
        if let Some(q) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            let text = format!("quantile value should be between 0 and 1, got {}", plain(*q));
            self.notes.borrow_mut().warn(&text);
        }
    }
}

/// A number as Prometheus' messages have it.
pub(super) fn plain(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number == f64::INFINITY {
        "+Inf".to_owned()
    } else if number == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        number.to_string()
    }
}
