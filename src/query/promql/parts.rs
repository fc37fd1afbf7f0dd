//! Functions over time of parts: of samples, and of windows of rollups in the place of samples.
//!
//! The same as of samples, but for the order in which sums are added up: that of a window is already one number,
//! rounded once. So a sum or a mean may differ in the last bits of the sum of the values' amounts.

use super::engine::{Engine, StoredSink};
use super::error::Result;
use super::expr::{RangeExpr, Selector};
use super::functions::RangeFunction;
use super::kahan::{Mean, Sum};
use super::labels::SeriesLabels;
use super::over_time::{greatest, least};
use super::series::Points;
use super::steps::Steps;
use lookback_storage::{Figure, Part, STALENESS_MARKER_BITS, SeriesParts, Spans};

/// Takes series one by one, with their samples or parts.
type PartsSink<'s> = &'s mut dyn FnMut(SeriesLabels, SeriesParts) -> Result<()>;

/// What a function needs to know of each window; `None`: rollups do not tell it.
pub(super) fn figure(function: RangeFunction) -> Option<Figure> {
    match function {
        RangeFunction::Avg | RangeFunction::Sum => Some(Figure::Sum),
        RangeFunction::Min => Some(Figure::Min),
        RangeFunction::Max => Some(Figure::Max),
        RangeFunction::Count | RangeFunction::Last | RangeFunction::Present => Some(Figure::Last),
        _ => None,
    }
}

impl Engine<'_> {
    /// Hands out what there is in the windows of the steps, staleness markers left out.
    pub(super) fn parts(
        &self,
        range: &RangeExpr,
        selector: &Selector,
        figure: Figure,
        steps: Steps,
        visit: PartsSink<'_>,
    ) -> Result<()> {
        if steps.count() == 0 {
            return Ok(());
        }
        let spans = Spans {
            first_end_ms: self.moment_ms(selector.moment, steps.time_ms(0)),
            last_end_ms: self.moment_ms(selector.moment, steps.last_ms()),
            step_ms: steps.step_ms(),
            range_ms: range.range_ms,
        };
        let visit: StoredSink<'_, SeriesParts> = &mut |labels, mut read| {
            match &mut read {
                SeriesParts::Samples(samples) => samples.retain(|sample| !sample.is_staleness_marker()),
                SeriesParts::Parts(parts) => {
                    parts.retain(|part| part.value.to_bits() != STALENESS_MARKER_BITS);
                }
            }
            visit(SeriesLabels::stored(labels.clone()), read)
        };
        self.read_parts(&selector.matchers, spans, figure, visit)
    }

    /// A function of the parts in each step's window.
    pub(super) fn parts_at_each_step(
        &self,
        function: RangeFunction,
        range: &RangeExpr,
        steps: Steps,
        parts: &[Part],
    ) -> Result<Points> {
        let is_same_at_each_step = range.moment().at.is_some();
        self.slide(range, steps, is_same_at_each_step, (parts, |part| part.at_ms), |place| {
            self.work(place.to - place.from)?;
            Ok(of_parts(function, parts.get(place.from..place.to).unwrap_or_default()))
        })
    }
}

fn of_parts(function: RangeFunction, parts: &[Part]) -> Option<f64> {
    let (first, rest) = parts.split_first()?;
    let values = || parts.iter().map(|part| part.value);
    match function {
        RangeFunction::Avg => {
            let mut mean = Mean::of_sum(first.value, f64::from(first.count));
            rest.iter().for_each(|part| mean.add_sum(part.value, f64::from(part.count)));
            Some(mean.get())
        }
        RangeFunction::Sum => {
            let mut sum = Sum::default();
            values().for_each(|value| sum.add(value));
            Some(sum.total())
        }
        RangeFunction::Count => Some(parts.iter().map(|part| f64::from(part.count)).sum()),
        RangeFunction::Min => least(values()),
        RangeFunction::Max => greatest(values()),
        RangeFunction::Last => values().next_back(),
        RangeFunction::Present => Some(1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
