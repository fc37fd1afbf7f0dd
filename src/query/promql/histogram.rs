//! Quantiles and fractions of classic histograms: one series a bucket, with its upper bound as `le`.

use super::aggregate::Groups;
use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::Expr;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::METRIC_NAME_LABEL;

/// The label with a bucket's upper bound.
const BOUND_LABEL: &str = "le";

/// Counts that differ by less, relative to them, are the same: their difference is rounding.
const TOLERANCE: f64 = 1e-12;

/// A bucket: how many observations are at most as large as its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) bound: f64,
    pub(super) count: f64,
}

/// The series of one histogram.
struct Histogram {
    drop_name: bool,
    buckets: Vec<(f64, Points)>,
}

impl Engine<'_> {
    /// `histogram_quantile`.
    pub(super) fn histogram_quantile(
        &self,
        q: &Expr,
        expr: &Expr,
        steps: Steps,
        sink: Sink<'_>,
    ) -> Result<()> {
        let quantiles = self.scalar(q, steps)?;
        self.check_quantiles(&quantiles);
        let of = &mut |step: usize, buckets: &mut Vec<Bucket>| {
            let q = quantiles.get(step).copied().unwrap_or(f64::NAN);
            let (value, was_forced) = quantile(q, buckets);
            if was_forced {
                self.notes.borrow_mut().info(
                    "input to histogram_quantile needed to be fixed for monotonicity (see \
                     https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                );
            }
            value
        };
        self.of_histograms(expr, steps, of, sink)
    }

    /// `histogram_fraction`.
    pub(super) fn histogram_fraction(
        &self,
        lower: &Expr,
        upper: &Expr,
        expr: &Expr,
        steps: Steps,
        sink: Sink<'_>,
    ) -> Result<()> {
        let (lowers, uppers) = (self.scalar(lower, steps)?, self.scalar(upper, steps)?);
        let of = &mut |step: usize, buckets: &mut Vec<Bucket>| match (lowers.get(step), uppers.get(step)) {
            (Some(lower), Some(upper)) => fraction(*lower, *upper, buckets),
            _ => f64::NAN,
        };
        self.of_histograms(expr, steps, of, sink)
    }

    fn of_histograms(
        &self,
        expr: &Expr,
        steps: Steps,
        of: &mut dyn FnMut(usize, &mut Vec<Bucket>) -> f64,
        sink: Sink<'_>,
    ) -> Result<()> {
        let mut histograms: Groups<Histogram> = Groups::new();
        let mut held = self.hold(0)?;
        let bound_label = [BOUND_LABEL.to_owned()];
        self.vector(expr, steps, &mut |series| {
            let Some(bound) = self.bound_of(&series) else { return Ok(()) };
            held.absorb(self.hold(series.points.len())?);
            let make = || Ok(Histogram { drop_name: false, buckets: Vec::new() });
            let histogram = histograms.of(series.labels.without_any_of(&bound_label), make)?;
            histogram.drop_name |= series.drop_name;
            histogram.buckets.push((bound, series.points));
            Ok(())
        })?;
        self.dropping_names(false, sink, &mut |sink| {
            for (labels, histogram) in std::mem::take(&mut histograms.all) {
                let mut points = Points::absent(steps.count());
                let mut buckets = Vec::new();
                for step in 0..steps.count() {
                    buckets.clear();
                    let at_step = |(bound, points): &(f64, Points)| {
                        Some(Bucket { bound: *bound, count: points.get(step)? })
                    };
                    buckets.extend(histogram.buckets.iter().filter_map(at_step));
                    self.work(buckets.len())?;
                    if !buckets.is_empty() {
                        points.set(step, Some(of(step, &mut buckets)));
                    }
                }
                sink(Series { labels, drop_name: histogram.drop_name, points })?;
            }
            Ok(())
        })
    }

    fn bound_of(&self, series: &Series) -> Option<f64> {
        let text = series.labels.get(BOUND_LABEL);
        if let Ok(bound) = text.parse::<f64>() {
            return Some(bound);
        }
        let delayed = self.options().delayed_name_removal;
        let name = if delayed { series.labels.get(METRIC_NAME_LABEL) } else { "" };
        let of_name = if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") };
        self.notes.borrow_mut().warn(&format!(
            "bucket label \"{BOUND_LABEL}\" is missing or has a malformed value of {text:?}{of_name}"
        ));
        None
    }
}

/// In the order of their bounds, one a bound. `None` unless the last one is +∞.
fn ordered(buckets: &mut Vec<Bucket>) -> Option<()> {
    buckets.sort_by(|a, b| a.bound.partial_cmp(&b.bound).unwrap_or(std::cmp::Ordering::Equal));
    buckets.dedup_by(|later, first| {
        let same = later.bound == first.bound;
        if same {
            first.count += later.count;
        }
        same
    });
    buckets.last().filter(|last| last.bound == f64::INFINITY).map(|_| ())
}

/// Whether two counts differ by rounding only.
fn is_almost(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// Sees to it that no bucket has fewer observations than the one before it. Whether one had, by more than
/// rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let Some((first, rest)) = buckets.split_first_mut() else { return false };
    let mut before = first.count;
    for bucket in rest {
        if bucket.count == before {
            continue;
        }
        if is_almost(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            bucket.count = before;
            forced = true;
        } else {
            before = bucket.count;
        }
    }
    forced
}

/// The `q`-quantile, interpolated within its bucket, and whether the counts had to be made monotonic.
pub(super) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    if ordered(buckets).is_none() {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    (interpolated(q, buckets).unwrap_or(f64::NAN), forced)
}

fn interpolated(q: f64, buckets: &[Bucket]) -> Option<f64> {
    let (last, finite) = buckets.split_last()?;
    let highest = finite.last()?;
    if last.count == 0.0 {
        return None;
    }
    let mut rank = q * last.count;
    let place =
        finite.partition_point(|bucket| bucket.count < rank || bucket.count.is_nan() || rank.is_nan());
    let Some(bucket) = finite.get(place) else { return Some(highest.bound) };
    let Some(before) = place.checked_sub(1).and_then(|place| finite.get(place)) else {
        if bucket.bound <= 0.0 {
            return Some(bucket.bound);
        }
        return Some(bucket.bound * (rank / bucket.count));
    };
    rank -= before.count;
    Some(before.bound + (bucket.bound - before.bound) * (rank / (bucket.count - before.count)))
}

/// How much of the observations lies between two values.
pub(super) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if ordered(buckets).is_none() {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |last| last.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets, count) - rank_of(lower, buckets, count)) / count
}

/// How many observations are at most as large as `value`, interpolated within its bucket.
fn rank_of(value: f64, buckets: &[Bucket], count: f64) -> f64 {
    let starts_below_zero = buckets.first().is_some_and(|first| first.bound <= 0.0);
    let mut from = if starts_below_zero { f64::NEG_INFINITY } else { 0.0 };
    let mut rank = 0.0;
    for bucket in buckets {
        if from >= value {
            return rank;
        }
        if bucket.bound > value {
            // Nothing is known of where within an infinite bucket its observations lie.
            let within = if from == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + (bucket.count - rank) * (value - from) / (bucket.bound - from)
            };
            return if within > count { count } else { within };
        }
        rank = bucket.count;
        from = bucket.bound;
    }
    count
}
