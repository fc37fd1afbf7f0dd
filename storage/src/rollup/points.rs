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
    open_ms: Option<i64>,
    parts: Vec<f64>,
    count: u64,
    points: Vec<Sample>,
}

impl Points {
    pub(super) fn new(grid: Grid, aggregation: Aggregation) -> Self {
        Self { grid, aggregation, open_ms: None, parts: Vec::new(), count: 0, points: Vec::new() }
    }

    /// Takes samples.
    pub(super) fn add_samples(&mut self, samples: &[Sample]) {
        for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
            self.add(sample.timestamp_ms, sample.value, 1);
        }
    }

    /// Takes windows that end at `oldest_ms` or later.
    pub(super) fn add_windows(&mut self, figures: &Figures, oldest_ms: i64) {
        for ((end_ms, value), count) in figures.ends_ms.iter().zip(&figures.values).zip(&figures.counts) {
            if *end_ms >= oldest_ms {
                self.add(*end_ms, *value, u64::from(*count));
            }
        }
    }

    fn add(&mut self, at_ms: i64, part: f64, count: u64) {
        if !self.open_ms.is_some_and(|point_ms| self.grid.is_of(point_ms, at_ms)) {
            let Some(point_ms) = self.grid.point_of(at_ms) else { return };
            self.close();
            self.open_ms = Some(point_ms);
        }
        self.parts.push(part);
        self.count += count;
    }

    fn close(&mut self) {
        let count = self.count as f64;
        let value = match self.aggregation {
            _ if self.parts.is_empty() => None,
            Aggregation::Count => Some(count),
            Aggregation::Avg => match aggregate(&mut self.parts, Aggregation::Sum) {
                Some(sum) if sum.is_finite() => Some(sum / count),
                // The sum overflows; the mean does not.
                _ => Some(self.parts.iter().map(|part| part / count).sum()),
            },
            aggregation => aggregate(&mut self.parts, aggregation),
        };
        if let (Some(timestamp_ms), Some(value)) = (self.open_ms, value.filter(|value| value.is_finite())) {
            self.points.push(Sample { timestamp_ms, value });
        }
        self.parts.clear();
        self.count = 0;
    }

    pub(super) fn finish(mut self) -> Vec<Sample> {
        self.close();
        self.points
    }
}
