//! Functions of the samples in a window, `None` where they have no value.

use super::functions::RangeFunction;
use super::kahan::{Mean, Sum};
use super::quantile::quantile;
use super::rate::{extrapolated, instant_change};
use super::regression::{Line, fit};
use super::windows::Window;
use lookback_storage::Sample;

/// The function's value in a window. `scratch` is room that it may use.
pub(super) fn apply(function: RangeFunction, window: &Window<'_>, scratch: &mut Vec<f64>) -> Option<f64> {
    let samples = window.samples;
    let (first, last) = (samples.first()?, samples.last()?);
    let values = || samples.iter().map(|sample| sample.value);
    match function {
        RangeFunction::Avg => Some(mean(samples)?.get()),
        RangeFunction::Sum => {
            let mut sum = Sum::default();
            values().for_each(|value| sum.add(value));
            Some(sum.total())
        }
        RangeFunction::Count => Some(samples.len() as f64),
        RangeFunction::Min => least(values()),
        RangeFunction::Max => greatest(values()),
        RangeFunction::First => Some(first.value),
        RangeFunction::Last => Some(last.value),
        RangeFunction::Present => Some(1.0),
        RangeFunction::Quantile => {
            scratch.clear();
            scratch.extend(values());
            Some(quantile(window.param, scratch))
        }
        RangeFunction::Stdvar => Some(variance(samples)),
        RangeFunction::Stddev => Some(variance(samples).sqrt()),
        RangeFunction::Changes => Some(changes(samples) as f64),
        RangeFunction::Resets => Some(window.before_falls.len() as f64),
        RangeFunction::Rate => extrapolated(window, true, true),
        RangeFunction::Increase => extrapolated(window, true, false),
        RangeFunction::Delta => extrapolated(window, false, false),
        RangeFunction::Irate => instant_change(samples, true),
        RangeFunction::Idelta => instant_change(samples, false),
        RangeFunction::Deriv => fit(samples, first.timestamp_ms).map(|line| line.slope),
        RangeFunction::PredictLinear => {
            let Line { slope, intercept } = fit(samples, window.step_ms)?;
            Some(slope * window.param + intercept)
        }
    }
}

/// The least value that is a number, if any is.
pub(super) fn least(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|min, v| if v < min || min.is_nan() { v } else { min })
}

/// The greatest value that is a number, if any is.
pub(super) fn greatest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|max, v| if v > max || max.is_nan() { v } else { max })
}

fn mean(samples: &[Sample]) -> Option<Mean> {
    let (first, rest) = samples.split_first()?;
    let mut mean = Mean::of(first.value);
    rest.iter().for_each(|sample| mean.add(sample.value));
    Some(mean)
}

/// Welford's, both sums compensated.
fn variance(samples: &[Sample]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for sample in samples {
        count += 1.0;
        let delta = sample.value - (mean.sum + mean.lost);
        mean.add(delta / count);
        squares.add(delta * (sample.value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / count
}

fn changes(samples: &[Sample]) -> usize {
    let differ = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
    samples.windows(2).filter(|pair| matches!(pair, [a, b] if differ(a.value, b.value))).count()
}
