//! One series under way through an evaluation.

use super::labels::SeriesLabels;
use lookback_storage::STALENESS_MARKER_BITS;

/// The values of a series at the steps of an evaluation, some of them absent.
///
/// An absent value is kept as the staleness marker, which is no value of any series: selectors leave it
/// out, and no operation makes that bit pattern. That halves what an `Option` would take.
#[derive(Clone, Debug)]
pub(super) struct Points(Vec<f64>);

const ABSENT: f64 = f64::from_bits(STALENESS_MARKER_BITS);

impl Points {
    /// So many absent ones.
    pub(super) fn absent(count: usize) -> Self {
        Self(vec![ABSENT; count])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, step: usize) -> Option<f64> {
        self.0.get(step).copied().filter(|value| value.to_bits() != STALENESS_MARKER_BITS)
    }

    pub(super) fn set(&mut self, step: usize, value: Option<f64>) {
        if let Some(place) = self.0.get_mut(step) {
            *place = value.unwrap_or(ABSENT);
        }
    }

    /// The same at every step.
    pub(super) fn fill(&mut self, value: Option<f64>) {
        self.0.fill(value.unwrap_or(ABSENT));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|value| value.to_bits() == STALENESS_MARKER_BITS)
    }

    /// Steps and values, where there is one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        let present = |(_, value): &(usize, f64)| value.to_bits() != STALENESS_MARKER_BITS;
        self.0.iter().copied().enumerate().filter(present)
    }

    /// Replaces each value by what `f` makes of its step and it.
    pub(super) fn replace(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        for (step, value) in self.0.iter_mut().enumerate() {
            if value.to_bits() != STALENESS_MARKER_BITS {
                *value = f(step, *value).unwrap_or(ABSENT);
            }
        }
    }

    /// Takes the values of another series where this one has none; false when both have one at a step.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        for (step, value) in other.iter() {
            if self.get(step).is_some() {
                return false;
            }
            self.set(step, Some(value));
        }
        true
    }
}

/// A series under way.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: SeriesLabels,
    /// Its name goes at the end of the evaluation: it stands for something else by now.
    pub(super) drop_name: bool,
    pub(super) points: Points,
}

impl Series {
    pub(super) fn new(labels: SeriesLabels, points: Points) -> Self {
        Self { labels, drop_name: false, points }
    }
}
