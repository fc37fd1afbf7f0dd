//! A sample: one value at one time.

use std::cmp::Ordering;

/// One value of a series at one time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// The value. Any bit pattern is kept, NaN payloads included.
    pub value: f64,
}

/// The NaN by which Prometheus marks that a series has ended
/// (`StaleNaN` in Prometheus' `model/value/value.go`).
pub const STALENESS_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

impl Sample {
    /// A sample of `value` at `timestamp_ms`.
    #[must_use]
    pub const fn new(timestamp_ms: i64, value: f64) -> Self {
        Self { timestamp_ms, value }
    }

    /// Whether this sample says that its series has ended.
    #[must_use]
    pub fn is_staleness_marker(&self) -> bool {
        self.value.to_bits() == STALENESS_MARKER_BITS
    }

    /// Order by time, then by value in IEEE 754 total order.
    #[must_use]
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        self.timestamp_ms.cmp(&other.timestamp_ms).then_with(|| self.value.total_cmp(&other.value))
    }
}

/// Two samples are equal when their times and the bits of their values are.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.timestamp_ms == other.timestamp_ms && self.value.to_bits() == other.value.to_bits()
    }
}

impl Eq for Sample {}

/// Brings samples in any order into time order, one a timestamp.
///
/// At equal timestamps the larger value by IEEE 754 total order wins, whichever came first, so that
/// copies of one history can be merged in any order with one outcome.
pub fn sort_and_deduplicate(samples: &mut Vec<Sample>) {
    if !samples.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms) {
        samples.sort_unstable_by(|a, b| b.total_cmp(a));
        samples.dedup_by_key(|s| s.timestamp_ms);
        samples.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_value_wins_at_equal_timestamps_in_either_order() {
        for order in [[1.0, 2.0], [2.0, 1.0]] {
            let mut samples = vec![Sample::new(5, order[0]), Sample::new(5, order[1]), Sample::new(1, 9.0)];
            sort_and_deduplicate(&mut samples);
            assert_eq!(samples, [Sample::new(1, 9.0), Sample::new(5, 2.0)]);
        }
    }

    #[test]
    fn equality_is_of_bits() {
        assert_ne!(Sample::new(1, 0.0), Sample::new(1, -0.0));
        assert_eq!(Sample::new(1, f64::NAN), Sample::new(1, f64::NAN));
        assert!(Sample::new(1, f64::from_bits(STALENESS_MARKER_BITS)).is_staleness_marker());
        assert!(!Sample::new(1, f64::NAN).is_staleness_marker());
    }
}
