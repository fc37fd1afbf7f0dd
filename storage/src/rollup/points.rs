//! Points of a grid made of windows and of samples, one behind the other.

use super::chunk::{Column, Figures};
use crate::resample::{Aggregation, Grid, aggregate};
use crate::sample::Sample;

/// The figure of a window that an aggregation needs; `None`: windows do not tell it.
pub(super) fn column(aggregation: Aggregation) -> Option<Column> {
    match aggregation {
        Aggregation::Avg | Aggregation::Sum => Some(Column::Sum),
        Aggregation::Min => Some(Column::Min),
        Aggregation::Max => Some(Column::Max),
        Aggregation::Last | Aggregation::Count => Some(Column::Last),
        Aggregation::Percentile(_) => None,
    }
}

/// Takes what lies in windows in time order and gives the points.
pub(super) struct Points {
    pub(super) grid: Grid,
    pub(super) aggregation: Aggregation,
    open: Option<Open>,
    /// All parts of the point that is open, once they are more than one.
    parts: Vec<f64>,
    points: Vec<Sample>,
}

/// The point to which the next part may belong.
struct Open {
    point_ms: i64,
    /// Its first part: mostly the only one, since mostly a point is a window.
    first: f64,
    count: u64,
}

impl Points {
    pub(super) fn new(grid: Grid, aggregation: Aggregation) -> Self {
        Self { grid, aggregation, open: None, parts: Vec::new(), points: Vec::new() }
    }

    /// Takes samples.
    pub(super) fn add_samples(&mut self, samples: &[Sample]) {
        for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
            self.add(sample.timestamp_ms, sample.value, 1);
        }
    }

    /// Takes windows that end at `oldest_ms` or later.
    pub(super) fn add_windows(&mut self, figures: &Figures, oldest_ms: i64) {
        // No more points than windows come of them, nor more than the grid has.
        let grid_points = usize::try_from(self.grid.points()).unwrap_or(usize::MAX);
        self.points.reserve(figures.len().min(grid_points));
        figures.each(|end_ms, value, count| {
            if end_ms >= oldest_ms {
                self.add(end_ms, value, u64::from(count));
            }
        });
    }

    fn add(&mut self, at_ms: i64, part: f64, count: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| self.grid.is_of(open.point_ms, at_ms)) {
            if self.parts.is_empty() {
                self.parts.push(open.first);
            }
            self.parts.push(part);
            open.count += count;
            return;
        }
        // Mostly it is the next point's, which takes no division to find.
        let next_ms = self.open.as_ref().and_then(|open| open.point_ms.checked_add(self.grid.step_ms));
        let next_ms = next_ms.filter(|next| *next <= self.grid.end_ms && self.grid.is_of(*next, at_ms));
        let Some(point_ms) = next_ms.or_else(|| self.grid.point_of(at_ms)) else { return };
        self.close();
        self.open = Some(Open { point_ms, first: part, count });
    }

    fn close(&mut self) {
        let Some(Open { point_ms, first, count }) = self.open.take() else { return };
        let count = count as f64;
        let value = match self.aggregation {
            Aggregation::Count => Some(count),
            Aggregation::Avg if self.parts.is_empty() => Some(first / count),
            // Of one part it is the least, the largest, the last and the sum.
            _ if self.parts.is_empty() => Some(first),
            Aggregation::Avg => match aggregate(&mut self.parts, Aggregation::Sum) {
                Some(sum) if sum.is_finite() => Some(sum / count),
                // The sum overflows; the mean does not.
                _ => Some(self.parts.iter().map(|part| part / count).sum()),
            },
            aggregation => aggregate(&mut self.parts, aggregation),
        };
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.points.push(Sample { timestamp_ms: point_ms, value });
        }
        self.parts.clear();
    }

    pub(super) fn finish(mut self) -> Vec<Sample> {
        self.close();
        self.points
    }
}
