//! Rates, increases and deltas.

use super::windows::Window;
use lookback_storage::Sample;

/// How much a window's samples changed, extrapolated to its ends where the samples come near them, and
/// otherwise by half of the mean distance between samples. A counter's falls are made good, and it is not
/// extrapolated below zero. A second, or in all. `None` with fewer than two samples.
pub(super) fn extrapolated(window: &Window<'_>, counter: bool, a_second: bool) -> Option<f64> {
    let samples = window.samples;
    let (first, last) = (samples.first()?, samples.last()?);
    let gaps = samples.len().checked_sub(1).filter(|gaps| *gaps > 0)?;
    let mut change = last.value - first.value;
    if counter {
        for before in window.before_falls {
            change += before;
        }
    }
    let seconds = |from_ms: i64, to_ms: i64| (to_ms - from_ms) as f64 / 1_000.0;
    let mut to_start = seconds(window.start_ms, first.timestamp_ms);
    let mut to_end = seconds(last.timestamp_ms, window.end_ms);
    let sampled = seconds(first.timestamp_ms, last.timestamp_ms);
    let gap = sampled / gaps as f64;
    let near = gap * 1.1;
    if to_start >= near {
        to_start = gap / 2.0;
    }
    if counter && change > 0.0 && first.value >= 0.0 {
        let to_zero = sampled * (first.value / change);
        to_start = if to_zero < to_start { to_zero } else { to_start };
    }
    if to_end >= near {
        to_end = gap / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if a_second {
        factor /= seconds(window.start_ms, window.end_ms);
    }
    Some(change * factor)
}

/// The change between the last two samples: a second, a counter's fall made good, or as it is.
pub(super) fn instant_change(samples: &[Sample], rate: bool) -> Option<f64> {
    let [.., before, last] = samples else { return None };
    let change = if rate && last.value < before.value { last.value } else { last.value - before.value };
    let seconds = (last.timestamp_ms - before.timestamp_ms) as f64 / 1_000.0;
    Some(if rate { change / seconds } else { change })
}
