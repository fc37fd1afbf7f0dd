//! What a window says of the samples in it.

use crate::resample::{Sum, counter_rates_and_gap};
use crate::sample::Sample;

/// A window at `end_ms`, of at least one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) end_ms: i64,
    pub(crate) count: u32,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) sum: f64,
    pub(crate) last: f64,
}

/// A series rolled up over one partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rolled {
    /// Windows of its values, in time order.
    pub(crate) values: Vec<Window>,
    /// Of a counter: its rates.
    pub(crate) rates: Option<Rates>,
}

/// The rates of a counter over one partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Windows of the rates between samples of the partition, in time order.
    pub(crate) windows: Vec<Window>,
    pub(crate) edges: Edges,
}

/// What it takes to join the rates of one partition with those of the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edges {
    /// The first sample.
    pub(crate) first: Sample,
    /// The last sample.
    pub(crate) last: Sample,
    /// The shortest gap over which no rate was taken because it was too long.
    pub(crate) gap_min_ms: Option<i64>,
}

/// The longest gap over which a rate is taken for windows of this length.
pub(crate) fn gap_max_ms(window_ms: i64) -> i64 {
    crate::resample::COUNTER_GAP_MAX_MS.max(window_ms)
}

impl Rolled {
    /// Of the samples of one partition, in time order. `None`: there are none, or a sum is beyond f64.
    pub(crate) fn of(samples: &[Sample], window_ms: i64, counter: bool) -> Option<Self> {
        let (first, last) = (*samples.first()?, *samples.last()?);
        let values = windows(samples, window_ms)?;
        let rates = if counter {
            let (rates, gap_min_ms) = counter_rates_and_gap(samples, gap_max_ms(window_ms));
            let edges = Edges { first, last, gap_min_ms };
            windows(&rates, window_ms).map(|windows| Rates { windows, edges })
        } else {
            None
        };
        Some(Self { values, rates })
    }

    /// Without the windows that hold anything of `[start_ms, end_ms]`. `None`: nothing is left.
    pub(crate) fn without(mut self, window_ms: i64, start_ms: i64, end_ms: i64) -> Option<Self> {
        let holds =
            |w: &Window, end_ms: i64| w.end_ms >= start_ms && w.end_ms.saturating_sub(window_ms) < end_ms;
        self.values.retain(|window| !holds(window, end_ms));
        if let Some(mut rates) = self.rates.take() {
            // A rate also says something of the sample before it. What is at an edge can't be told apart.
            let end_ms = end_ms.saturating_add(gap_max_ms(window_ms));
            rates.windows.retain(|window| !holds(window, end_ms));
            let deleted = |sample: &Sample| (start_ms..=end_ms).contains(&sample.timestamp_ms);
            let Edges { first, last, .. } = &mut rates.edges;
            if deleted(first) {
                first.value = f64::NAN;
            }
            if deleted(last) {
                last.value = f64::NAN;
            }
            self.rates = Some(rates);
        }
        (!self.values.is_empty()).then_some(self)
    }
}

/// Where the window that holds this time ends. Times at the end of all time are in no window.
pub(crate) fn end_of(timestamp_ms: i64, window_ms: i64) -> Option<i64> {
    let started = timestamp_ms.div_euclid(window_ms);
    let begun = i64::from(timestamp_ms.rem_euclid(window_ms) != 0);
    started.checked_add(begun)?.checked_mul(window_ms)
}

/// The windows of samples in time order; `None`: a sum is beyond f64, or a time beyond all windows.
fn windows(samples: &[Sample], window_ms: i64) -> Option<Vec<Window>> {
    let mut windows: Vec<Window> = Vec::new();
    let mut sum = Sum::default();
    for Sample { timestamp_ms, value } in samples.iter().filter(|s| s.value.is_finite()).copied() {
        let end_ms = end_of(timestamp_ms, window_ms)?;
        match windows.last_mut().filter(|window| window.end_ms == end_ms) {
            Some(window) => {
                sum.add(value);
                window.count = window.count.checked_add(1)?;
                window.min = window.min.min(value);
                window.max = window.max.max(value);
                window.last = value;
                window.sum = sum.total();
            }
            None => {
                sum = Sum::default();
                sum.add(value);
                windows.push(Window { end_ms, count: 1, min: value, max: value, sum: value, last: value });
            }
        }
    }
    windows.iter().all(|window| window.sum.is_finite()).then_some(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(i64, f64)]) -> Vec<Sample> {
        pairs.iter().map(|(t, v)| Sample::new(*t, *v)).collect()
    }

    #[test]
    fn windows_are_open_on_the_left_and_lie_on_multiples() {
        let rolled = Rolled::of(&samples(&[(-10, 1.0), (0, 2.0), (1, 8.0), (10, 4.0), (11, 5.0)]), 10, false);
        let told: Vec<_> =
            rolled.expect("rolled").values.iter().map(|w| (w.end_ms, w.count, w.sum)).collect();
        assert_eq!(told, [(-10, 1, 1.0), (0, 1, 2.0), (10, 2, 12.0), (20, 1, 5.0)]);
        assert_eq!(end_of(i64::MAX, 10), None);
    }

    #[test]
    fn what_is_not_finite_is_missing_and_a_sum_beyond_f64_is_not_rolled_up() {
        let rolled = Rolled::of(&samples(&[(1, f64::NAN), (2, f64::INFINITY), (3, 7.0)]), 10, false);
        assert_eq!(rolled.expect("rolled").values.len(), 1);
        assert_eq!(Rolled::of(&samples(&[(1, f64::MAX), (2, f64::MAX)]), 10, false), None);
        assert_eq!(Rolled::of(&[], 10, false), None);
    }

    #[test]
    fn a_delete_takes_every_window_that_it_touches() {
        let rolled =
            Rolled::of(&samples(&[(5, 1.0), (15, 2.0), (25, 3.0), (35, 4.0)]), 10, true).expect("rolled");
        let left = rolled.without(10, 15, 25).expect("left");
        assert_eq!(left.values.iter().map(|w| w.end_ms).collect::<Vec<_>>(), [10, 40]);
        let rates = left.rates.expect("a counter");
        assert!(rates.windows.is_empty(), "the rate at 35 tells of the sample at 25");
        assert!(rates.edges.first.value == 1.0 && rates.edges.last.value.is_nan());
    }
}
