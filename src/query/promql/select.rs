//! Series at instants: the newest sample that is not older than the lookback.

use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::{Moment, Selector};
use super::labels::SeriesLabels;
use super::series::{Points, Series};
use super::steps::Steps;
use lookback_storage::{Pick, Sample};

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
        let pick = if first_ms == last_ms { Pick::Newest } else { Pick::All };
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
        let mut rest = samples.iter().peekable();
        let mut newest: Option<&Sample> = None;
        for step in 0..steps.count() {
            let at_ms = self.moment_ms(selector.moment, steps.time_ms(step));
            while let Some(sample) = rest.next_if(|sample| sample.timestamp_ms <= at_ms) {
                newest = Some(sample);
            }
            let fresh = |sample: &&Sample| sample.timestamp_ms > at_ms.saturating_sub(lookback_ms);
            points.set(step, newest.filter(fresh).and_then(|sample| tell(sample, told)));
        }
        Ok(())
    }
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
