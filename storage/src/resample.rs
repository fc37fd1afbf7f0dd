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
        let unknown = || UnknownAggregation(text.chars().take(64).collect());
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
