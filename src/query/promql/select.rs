//! Series at instants: the newest sample that is not older than the lookback.

use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::{Moment, Selector};
use super::labels::SeriesLabels;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::{Pick, Sample, Steps as Instants};

/// What is told of the sample that stands for a series.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Value,
    Seconds,
}

impl Engine<'_> {
    /// The selected series' values.
    pub(super) fn select(&self, selector: &Selector, steps: Steps, sink: Sink<'_>) -> Result<()> {
        self.tell(selector, steps, Told::Value, sink)
    }

    /// The times of the samples that stand for the selected series.
    pub(super) fn select_times(&self, selector: &Selector, steps: Steps, sink: Sink<'_>) -> Result<()> {
        self.tell(selector, steps, Told::Seconds, sink)
    }

    fn tell(&self, selector: &Selector, steps: Steps, told: Told, sink: Sink<'_>) -> Result<()> {
        if steps.count() == 0 {
            return Ok(());
        }
        let lookback_ms = self.options().lookback_ms;
        let first_ms = self.moment_ms(selector.moment, steps.time_ms(0));
        let last_ms = self.moment_ms(selector.moment, steps.last_ms());
        // The oldest instant of the lookback is outside of it.
        let oldest_ms = |at_ms: i64| at_ms.saturating_sub(lookback_ms).saturating_add(1);
        let mut range = (oldest_ms(first_ms), last_ms);
        if told == Told::Seconds && selector.moment.at.is_some() {
            // As in Prometheus: an offset beside an `@` shifts what is read, but not the instant that stands.
            let at_ms = self.moment_ms(Moment { offset_ms: 0, ..selector.moment }, first_ms);
            range = (range.0.max(oldest_ms(at_ms)), range.1.min(at_ms));
            if range.0 > range.1 {
                return Ok(());
            }
        }
        let pick = match first_ms == last_ms {
            true => Pick::Newest,
            false => Pick::AtSteps(Instants { first_ms, step_ms: steps.step_ms() }),
        };
        let counts = self.hold(steps.count())?;
        self.read(&selector.matchers, range, pick, &mut |labels, samples| {
            let mut points = Points::absent(steps.count());
            if first_ms == last_ms {
                points.fill(samples.last().and_then(|sample| tell(sample, told)));
            } else {
                self.look_up(selector, steps, told, &samples, &mut points)?;
            }
            if points.is_empty() {
                return Ok(());
            }
            sink(Series::new(SeriesLabels::stored(labels.clone()), points))
        })?;
        drop(counts);
        Ok(())
    }

    fn look_up(
        &self,
        selector: &Selector,
        steps: Steps,
        told: Told,
        samples: &[Sample],
        points: &mut Points,
    ) -> Result<()> {
        let lookback_ms = self.options().lookback_ms;
        self.work(steps.count())?;
        let mut next = 0;
        for step in 0..steps.count() {
            let at_ms = self.moment_ms(selector.moment, steps.time_ms(step));
            next = first_after(samples, next, at_ms);
            let newest = next.checked_sub(1).and_then(|place| samples.get(place));
            let fresh = |sample: &&Sample| sample.timestamp_ms > at_ms.saturating_sub(lookback_ms);
            points.set(step, newest.filter(fresh).and_then(|sample| tell(sample, told)));
        }
        Ok(())
    }
}

/// The place of the first sample newer than `at_ms`, which is not before `from`; behind the last sample if there is
/// none. It is looked for in strides that double: most steps move on by a few samples only.
fn first_after(samples: &[Sample], from: usize, at_ms: i64) -> usize {
    let (mut low, mut stride) = (from, 1);
    while samples.get(low + stride - 1).is_some_and(|sample| sample.timestamp_ms <= at_ms) {
        low += stride;
        stride *= 2;
    }
    let within = samples.get(low..(low + stride - 1).min(samples.len())).unwrap_or_default();
    low + within.partition_point(|sample| sample.timestamp_ms <= at_ms)
}

fn tell(sample: &Sample, told: Told) -> Option<f64> {
    if sample.is_staleness_marker() {
        return None;
    }
    Some(match told {
        Told::Value => sample.value,
        Told::Seconds => sample.timestamp_ms as f64 / 1_000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_sample_after_an_instant_is_found_from_any_place_before_it(
            gaps in proptest::collection::vec(1i64..9, 0..60),
            at_ms in -5i64..300,
            before in 0usize..60,
        ) {
            let mut at = 0;
            let sample = |gap: &i64| {
                at += gap;
                Sample::new(at, 0.0)
            };
            let samples: Vec<Sample> = gaps.iter().map(sample).collect();
            let place = samples.iter().filter(|sample| sample.timestamp_ms <= at_ms).count();
            prop_assert_eq!(first_after(&samples, place.saturating_sub(before), at_ms), place);
        }
    }
}
