//! Quantiles of values, interpolated as Prometheus does it.

use std::cmp::Ordering;

/// By value, NaN below everything.
fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The `q`-quantile of `values`, whose order is lost. NaN without values, −∞ below 0 and +∞ above 1.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = values.len() - 1;
    let rank = q * last as f64;
    let below = (rank.floor() as usize).min(last);
    let weight = rank - rank.floor();
    let (_, lower, above) = values.select_nth_unstable_by(below, nan_first);
    let lower = *lower;
    let upper = above.iter().copied().min_by(nan_first).unwrap_or(lower);
    lower * (1.0 - weight) + upper * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_edges_are_as_prometheus_has_them() {
        assert!(quantile(0.5, &mut []).is_nan() && quantile(f64::NAN, &mut [1.0]).is_nan());
        assert_eq!(quantile(-0.1, &mut [1.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [1.0]), f64::INFINITY);
        assert_eq!(quantile(0.5, &mut [2.0, 0.0, 1.0, 3.0]), 1.5);
        assert!(quantile(0.0, &mut [2.0, f64::NAN]).is_nan());
    }

    proptest! {
        #[test]
        fn it_is_that_of_the_sorted_values(
            q in 0.0_f64..=1.0,
            values in proptest::collection::vec(-1e6_f64..1e6, 1..50),
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = q * (sorted.len() - 1) as f64;
            let (low, weight) = (rank.floor() as usize, rank - rank.floor());
            let high = (low + 1).min(sorted.len() - 1);
            let expected = sorted[low] * (1.0 - weight) + sorted[high] * weight;
            prop_assert_eq!(quantile(q, &mut values.clone()), expected);
        }
    }
}
