//! The straight line through samples, by least squares.

use super::kahan::Sum;
use lookback_storage::Sample;

/// A line over seconds.
pub(super) struct Line {
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

/// The line through at least two samples; its intercept is its value at `origin_ms`.
pub(super) fn fit(samples: &[Sample], origin_ms: i64) -> Option<Line> {
    let [first, _, ..] = samples else { return None };
    if samples.iter().all(|sample| sample.value == first.value) {
        let nowhere = first.value.is_infinite();
        let level = Line { slope: 0.0, intercept: first.value };
        return Some(if nowhere { Line { slope: f64::NAN, intercept: f64::NAN } } else { level });
    }
    let (mut x, mut y, mut xy, mut xx) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for sample in samples {
        let at = sample.timestamp_ms.saturating_sub(origin_ms) as f64 / 1_000.0;
        x.add(at);
        y.add(sample.value);
        xy.add(at * sample.value);
        xx.add(at * at);
    }
    let [x, y, xy, xx] = [x, y, xy, xx].map(|sum| sum.sum + sum.lost);
    let n = samples.len() as f64;
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Some(Line { slope, intercept: y / n - slope * x / n })
}
