//! What a point of a resampled series is. This file is the one place that says it.
//!
//! A question has a `start`, an `end` and a `step`. Its points lie at `t = start + k·step`, for every
//! whole `k ≥ 0` with `t ≤ end`. The point at `t` aggregates the samples in the left-open window
//! `(t − step, t]`, as Prometheus 3 computes `agg_over_time(m[step])` at `t`. A window without
//! samples gives no point. Samples that are NaN or infinite (staleness markers among them) are
//! missing samples here, so no point is ever NaN or infinite by its input; a sum that overflows f64 gives no point.
//!
//! Percentiles interpolate linearly between the two nearest ranks: the value at rank `p/100·(n−1)` of
//! the sorted samples, as `quantile_over_time` does.

use crate::labels::start_of;
use crate::sample::Sample;
use std::str::FromStr;
use thiserror::Error;

/// What a point says of the samples in its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    /// Their arithmetic mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The newest.
    Last,
    /// Their sum.
    Sum,
    /// How many there are.
    Count,
    /// A percentile, 0 to 100, with linear interpolation.
    Percentile(f64),
}

/// An aggregation that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "unknown aggregation {0:?}: use avg, min, max, last, sum, count, or a percentile such as p50, p95 or p99.9"
)]
pub struct UnknownAggregation(String);

impl FromStr for Aggregation {
    type Err = UnknownAggregation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownAggregation(start_of(text));
        Ok(match text {
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "last" => Self::Last,
            "sum" => Self::Sum,
            "count" => Self::Count,
            _ => {
                let digits = text.strip_prefix('p').ok_or_else(unknown)?;
                if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                    return Err(unknown());
                }
                match digits.parse::<f64>() {
                    Ok(percent) if (0.0..=100.0).contains(&percent) => Self::Percentile(percent),
                    _ => return Err(unknown()),
                }
            }
        })
    }
}

/// The grid of a question: where its points lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first point, Unix milliseconds.
    pub start_ms: i64,
    /// No point lies after this, Unix milliseconds.
    pub end_ms: i64,
    /// From point to point, and how far back each looks, milliseconds; more than 0.
    pub step_ms: i64,
}

impl Grid {
    /// The point whose window holds a sample of this time, if there is one.
    pub(crate) fn point_of(&self, timestamp_ms: i64) -> Option<i64> {
        // Wide numbers take long to divide, and hardly any times need them.
        let since_start = timestamp_ms.checked_sub(self.start_ms).filter(|since| since.abs() < i64::MAX / 4);
        match since_start.filter(|_| self.step_ms < i64::MAX / 4) {
            Some(since_start) if since_start <= -self.step_ms => None,
            Some(since_start) => {
                let steps =
                    if since_start <= 0 { 0 } else { (since_start + self.step_ms - 1) / self.step_ms };
                self.start_ms.checked_add(steps * self.step_ms).filter(|point| *point <= self.end_ms)
            }
            None => self.point_of_wide(timestamp_ms),
        }
    }

    /// Whether a sample of this time belongs to this point.
    pub(crate) fn is_of(&self, point_ms: i64, timestamp_ms: i64) -> bool {
        timestamp_ms <= point_ms && timestamp_ms > point_ms.saturating_sub(self.step_ms)
    }

    fn point_of_wide(&self, timestamp_ms: i64) -> Option<i64> {
        let (start, step) = (i128::from(self.start_ms), i128::from(self.step_ms));
        let since_start = i128::from(timestamp_ms) - start;
        if since_start <= -step {
            return None;
        }
        // Rounded up; everything in (start − step, start] belongs to the point at start.
        let steps = if since_start <= 0 { 0 } else { (since_start + step - 1) / step };
        let point = start + steps * step;
        (point <= i128::from(self.end_ms)).then(|| i64::try_from(point).ok()).flatten()
    }

    /// How many points the grid has.
    #[must_use]
    pub fn points(&self) -> u64 {
        if self.end_ms < self.start_ms || self.step_ms <= 0 {
            return 0;
        }
        let span = i128::from(self.end_ms) - i128::from(self.start_ms);
        u64::try_from(span / i128::from(self.step_ms) + 1).unwrap_or(u64::MAX)
    }

    /// The earliest time a sample may have that counts for the first point.
    #[must_use]
    pub fn first_sample_ms(&self) -> i64 {
        self.start_ms.saturating_sub(self.step_ms).saturating_add(1)
    }
}

/// Two counter samples further apart than this, and than the step, give no rate: the series was away.
pub const COUNTER_GAP_MAX_MS: i64 = 300_000;

/// Turns samples of a counter into its rate a second: each sample but the first becomes the increase
/// since the one before, over the time between. A counter that fell was reset to 0 in between. Over a
/// gap of more than `gap_max_ms`, and after a NaN (a staleness marker among them), there is no rate.
#[must_use]
pub fn counter_rates(samples: &[Sample], gap_max_ms: i64) -> Vec<Sample> {
    counter_rates_and_gap(samples, gap_max_ms).0
}

/// [`counter_rates`], and the shortest gap that was too long for a rate.
pub(crate) fn counter_rates_and_gap(samples: &[Sample], gap_max_ms: i64) -> (Vec<Sample>, Option<i64>) {
    let mut gap_min_ms: Option<i64> = None;
    let rate = |pair: &[Sample]| {
        let [before, after] = pair else { return None };
        if !before.value.is_finite() || !after.value.is_finite() {
            return None;
        }
        let span_ms = after.timestamp_ms.checked_sub(before.timestamp_ms)?;
        if span_ms > gap_max_ms {
            gap_min_ms = Some(gap_min_ms.map_or(span_ms, |gap_ms| gap_ms.min(span_ms)));
        }
        let increase = if after.value < before.value { after.value } else { after.value - before.value };
        let within = (1..=gap_max_ms).contains(&span_ms);
        within.then(|| Sample::new(after.timestamp_ms, increase / (span_ms as f64 / 1000.0)))
    };
    let rates = samples.windows(2).filter_map(rate).collect();
    (rates, gap_min_ms)
}

/// The points of a series of samples, which must be in time order.
#[must_use]
pub fn resample(samples: &[Sample], grid: Grid, aggregation: Aggregation) -> Vec<Sample> {
    let mut points = Vec::new();
    let mut window = Vec::new();
    let mut open_point = None;
    for sample in samples.iter().filter(|s| s.value.is_finite()) {
        let same = open_point.is_some_and(|point| grid.is_of(point, sample.timestamp_ms));
        if !same {
            let Some(point) = grid.point_of(sample.timestamp_ms) else { continue };
            close(open_point, &mut window, aggregation, &mut points);
            open_point = Some(point);
        }
        window.push(sample.value);
    }
    close(open_point, &mut window, aggregation, &mut points);
    points
}

fn close(point: Option<i64>, window: &mut Vec<f64>, aggregation: Aggregation, points: &mut Vec<Sample>) {
    if let (Some(timestamp_ms), Some(value)) = (point, aggregate(window, aggregation))
        && value.is_finite()
    {
        points.push(Sample { timestamp_ms, value });
    }
    window.clear();
}

/// What an aggregation says of some finite values in time order; reorders them. Of none: nothing.
pub(crate) fn aggregate(values: &mut [f64], aggregation: Aggregation) -> Option<f64> {
    let count = values.len() as f64;
    let last = *values.last()?;
    Some(match aggregation {
        Aggregation::Avg => match sum(values) {
            sum if sum.is_finite() => sum / count,
            // The sum overflows; the mean does not.
            _ => values.iter().map(|v| v / count).sum(),
        },
        Aggregation::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregation::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Last => last,
        Aggregation::Sum => sum(values),
        Aggregation::Count => count,
        Aggregation::Percentile(percent) => percentile(values, percent),
    })
}

fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.total()
}

/// A sum with Neumaier's compensation (Zeitschrift für angewandte Mathematik und Mechanik 54, 1974),
/// which Prometheus uses as well.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let next = self.sum + value;
        self.compensation +=
            if self.sum.abs() >= value.abs() { (self.sum - next) + value } else { (value - next) + self.sum };
        self.sum = next;
    }

    pub(crate) fn total(&self) -> f64 {
        if self.compensation.is_finite() { self.sum + self.compensation } else { self.sum }
    }
}

/// Sorts the values; at least one.
fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = percent / 100.0 * (values.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, (rank.ceil() as usize).min(values.len() - 1));
    let weight = rank - rank.floor();
    values[below] * (1.0 - weight) + values[above] * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(samples: &[(i64, f64)], grid: (i64, i64, i64), aggregation: Aggregation) -> Vec<(i64, f64)> {
        let samples: Vec<Sample> = samples.iter().map(|(t, v)| Sample::new(*t, *v)).collect();
        let grid = Grid { start_ms: grid.0, end_ms: grid.1, step_ms: grid.2 };
        resample(&samples, grid, aggregation).iter().map(|s| (s.timestamp_ms, s.value)).collect()
    }

    #[test]
    fn a_window_is_open_on_the_left_and_closed_on_the_right() {
        let samples = [(0, 1.0), (10, 2.0), (11, 3.0), (20, 4.0), (21, 9.0)];
        assert_eq!(points(&samples, (10, 20, 10), Aggregation::Sum), [(10, 2.0), (20, 7.0)]);
        assert_eq!(points(&samples, (0, 25, 10), Aggregation::Count), [(0, 1.0), (10, 1.0), (20, 2.0)]);
        assert_eq!(points(&samples, (5, 5, 5), Aggregation::Sum), []);
    }

    #[test]
    fn empty_windows_and_non_finite_samples_give_no_point() {
        let samples = [(1, f64::NAN), (12, f64::INFINITY), (35, 5.0)];
        assert_eq!(points(&samples, (0, 50, 10), Aggregation::Avg), [(40, 5.0)]);
    }

    #[test]
    fn each_aggregation_says_what_it_should() {
        let samples = [(1, 4.0), (2, 1.0), (3, 3.0), (4, 2.0)];
        let one = |name: &str| points(&samples, (10, 10, 10), name.parse().expect("known"))[0].1;
        let named = ["avg", "min", "max", "last", "sum", "count", "p0", "p50", "p90", "p100"].map(one);
        assert_eq!(named, [2.5, 1.0, 4.0, 2.0, 10.0, 4.0, 1.0, 2.5, 3.7, 4.0]);
        for unknown in ["", "p", "p101", "p-1", "pNaN", "pinf", "p1e1", "median", "AVG"] {
            assert!(unknown.parse::<Aggregation>().is_err(), "{unknown}");
        }
    }

    #[test]
    fn sums_are_compensated_and_means_do_not_overflow() {
        let samples = [(1, 1e100), (2, 1.0), (3, -1e100)];
        assert_eq!(points(&samples, (10, 10, 10), Aggregation::Sum), [(10, 1.0)]);
        let large = [(1, f64::MAX), (2, f64::MAX)];
        assert_eq!(points(&large, (10, 10, 10), Aggregation::Avg), [(10, f64::MAX)]);
        assert_eq!(points(&large, (10, 10, 10), Aggregation::Sum), []);
    }

    #[test]
    fn a_counter_becomes_its_rate_across_resets_but_not_across_gaps() {
        let samples: Vec<Sample> =
            [(0, 10.0), (10_000, 15.0), (20_000, 2.0), (400_000, 9.0), (410_000, 10.0)]
                .map(|(t, v)| Sample::new(t, v))
                .to_vec();
        let rates: Vec<_> =
            counter_rates(&samples, COUNTER_GAP_MAX_MS).iter().map(|s| (s.timestamp_ms, s.value)).collect();
        assert_eq!(rates, [(10_000, 0.5), (20_000, 0.2), (410_000, 0.1)]);
    }

    proptest! {
        #[test]
        fn every_sample_counts_in_the_one_window_that_holds_it(
            mut times in proptest::collection::vec(-50i64..250, 0..60),
            start in -20i64..100, span in 0i64..120, step in 1i64..40,
        ) {
            times.sort_unstable();
            let samples: Vec<(i64, f64)> = times.iter().map(|t| (*t, 1.0)).collect();
            let found = points(&samples, (start, start + span, step), Aggregation::Count);
            let mut expected = Vec::new();
            let mut t = start;
            while t <= start + span {
                let count = times.iter().filter(|s| **s > t - step && **s <= t).count();
                if count > 0 {
                    expected.push((t, count as f64));
                }
                t += step;
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn extreme_grids_never_panic(t in any::<i64>(), start in any::<i64>(), end in any::<i64>(), step in 1..=i64::MAX) {
            let _ = points(&[(t, 1.0)], (start, end, step), Aggregation::Avg);
            let _ = Grid { start_ms: start, end_ms: end, step_ms: step }.points();
        }
    }
}
