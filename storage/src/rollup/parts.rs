//! Reading: the samples of one series after another, with windows in the place of those that they stand for.
//!
//! For readers to whom every sample counts, whatever its value. Windows know of finite ones only, so they are
//! taken where they count as many samples as there are, or where the samples are gone.

use super::chunk::Column;
use super::read::{Asked, Question, RangeUse};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::sample::Sample;
use crate::select::{ReadLimits, Selection};
use crate::series::Series;
use crate::state::State;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Spans of time of which each is looked at as a whole: `(end − range_ms, end]` for each end from `first_end_ms`
/// on every `step_ms` up to `last_end_ms`.
///
/// Windows of `w` milliseconds stand for samples where all spans begin and end on multiples of `w`; and, if
/// there is but one span, in the partitions that lie within it as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Where the first one ends, Unix milliseconds.
    pub first_end_ms: i64,
    /// No one ends after this, Unix milliseconds; the same as `first_end_ms`: there is but one.
    pub last_end_ms: i64,
    /// From end to end, in milliseconds.
    pub step_ms: i64,
    /// How long each is, in milliseconds.
    pub range_ms: i64,
}

impl Spans {
    /// The first time that lies in any of them, Unix milliseconds.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.first_end_ms.saturating_sub(self.range_ms).saturating_add(1)
    }

    fn is_one(&self) -> bool {
        self.first_end_ms == self.last_end_ms
    }

    /// Whether all begin and end on multiples of this.
    pub(super) fn lie_on(&self, window_ms: i64) -> bool {
        let is_multiple = |ms: i64| ms % window_ms == 0;
        is_multiple(self.first_end_ms)
            && is_multiple(self.range_ms)
            && (self.is_one() || is_multiple(self.step_ms))
    }

    /// Whether all times of `[start_ms, end_ms)` lie in each.
    pub(super) fn all_hold(&self, start_ms: i64, end_ms: i64) -> bool {
        self.is_one() && start_ms >= self.start_ms() && end_ms <= self.last_end_ms.saturating_add(1)
    }
}

/// A sample, or what a window of a rollup says of several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// In each of the spans that were asked for lie all samples of the part if this time does, or none. Unix
    /// milliseconds.
    pub at_ms: i64,
    /// The sample's value, or the figure of the window.
    pub value: f64,
    /// How many samples.
    pub count: u32,
}

/// What is read of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesParts {
    /// Nothing but samples.
    Samples(Vec<Sample>),
    /// Windows, and samples between them, in time order.
    Parts(Vec<Part>),
}

impl SeriesParts {
    /// How many samples or parts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Samples(samples) => samples.len(),
            Self::Parts(parts) => parts.len(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes series one by one, with what is read of them, until it breaks off.
pub type VisitParts<'v> = dyn FnMut(&Arc<Labels>, SeriesParts) -> ControlFlow<()> + 'v;

impl State {
    /// As [`crate::Db::parts_each`].
    pub(crate) fn parts_each(
        &self,
        selection: Selection<'_>,
        spans: Spans,
        figure: Column,
        limits: ReadLimits<'_>,
        visit: &mut VisitParts<'_>,
    ) -> Result<RangeUse> {
        let series = self.select_in_order(selection);
        let range_ms = (spans.start_ms(), spans.last_end_ms);
        let mut used = RangeUse::default();
        for series in series {
            if (limits.cancelled)() {
                return Err(Error::Cancelled);
            }
            // What is in memory before what is in blocks, and that before what is rolled up.
            let mut in_memory = Vec::new();
            series.read_head(range_ms.0, range_ms.1, &mut in_memory);
            let question = self.question(Asked::Parts(spans), Some(figure), range_ms);
            let read = question.parts(&series, &in_memory, limits.samples_max, &mut used)?;
            let read = read.ok_or(Error::TooManySamples { samples_max: limits.samples_max })?;
            if !read.is_empty() && visit(&series.labels.share(), read).is_break() {
                break;
            }
        }
        Ok(used)
    }
}

impl Question<'_> {
    /// What there is of one series; `None`: it is more than `parts_max`.
    fn parts(
        &self,
        series: &Series,
        in_memory: &[Sample],
        parts_max: usize,
        used: &mut RangeUse,
    ) -> Result<Option<SeriesParts>> {
        let rolled = self.rolled(series, in_memory, used)?;
        if rolled.is_empty() {
            let samples = self.state.read_series(series, self.start_ms, self.end_ms, parts_max)?;
            used.samples |= samples.as_ref().is_some_and(|samples| !samples.is_empty());
            return Ok(samples.map(SeriesParts::Samples));
        }
        let mut parts = Vec::new();
        let mut at_ms = self.start_ms;
        for rolled in rolled {
            if at_ms < rolled.start_ms
                && !self.take_samples(series, (at_ms, rolled.start_ms - 1), parts_max, used, &mut parts)?
            {
                return Ok(None);
            }
            at_ms = rolled.start_ms.saturating_add(self.state.partition_ms);
            let Some((figures, _)) = &*rolled.kept else { continue };
            figures.each(|end_ms, value, count| {
                if end_ms >= rolled.oldest_ms {
                    // The last window of a partition ends with the partition's last sample.
                    parts.push(Part { at_ms: end_ms.min(at_ms - 1), value, count });
                }
            });
        }
        let rest = (at_ms, self.end_ms);
        if rest.0 <= rest.1 && !self.take_samples(series, rest, parts_max, used, &mut parts)? {
            return Ok(None);
        }
        Ok((parts.len() <= parts_max).then_some(SeriesParts::Parts(parts)))
    }

    /// Takes the samples of a time. False: there are too many.
    fn take_samples(
        &self,
        series: &Series,
        (start_ms, end_ms): (i64, i64),
        parts_max: usize,
        used: &mut RangeUse,
        parts: &mut Vec<Part>,
    ) -> Result<bool> {
        let left = parts_max.saturating_sub(parts.len());
        let Some(samples) = self.state.read_series(series, start_ms, end_ms, left)? else { return Ok(false) };
        used.samples |= !samples.is_empty();
        let part = |sample: Sample| Part { at_ms: sample.timestamp_ms, value: sample.value, count: 1 };
        parts.extend(samples.into_iter().map(part));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stand_for_spans_that_begin_and_end_with_them() {
        let spans = |first: i64, last: i64, step: i64, range: i64| Spans {
            first_end_ms: first,
            last_end_ms: last,
            step_ms: step,
            range_ms: range,
        };
        for (spans, lie_on_10, hold_100_200) in [
            (spans(200, 400, 20, 30), true, false),
            (spans(201, 400, 20, 30), false, false),
            (spans(200, 400, 15, 30), false, false),
            (spans(200, 400, 20, 35), false, false),
            // One span has no step.
            (spans(200, 200, 7, 30), true, false),
            (spans(203, 203, 7, 150), false, true),
            (spans(199, 199, 7, 100), false, true),
            (spans(198, 198, 7, 100), false, false),
            (spans(200, 200, 7, 100), true, false),
            (spans(200, 230, 7, 150), false, false),
        ] {
            assert_eq!((spans.lie_on(10), spans.all_hold(100, 200)), (lie_on_10, hold_100_200), "{spans:?}");
        }
    }
}
