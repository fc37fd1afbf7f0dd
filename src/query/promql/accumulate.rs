//! What an aggregation keeps of one group, step by step: never the series themselves.

use super::expr::AggregateOp;
use super::kahan::{Mean, Sum};
use super::quantile::quantile;
use super::series::Points;

/// The state of one group.
pub(super) enum Accumulator {
    Sums(Vec<Option<Sum>>),
    Means(Vec<Option<Mean>>),
    Counts(Vec<usize>),
    /// The smallest so far, or the largest.
    Extremes {
        points: Points,
        largest: bool,
    },
    Group(Points),
    Spreads {
        steps: Vec<Option<Spread>>,
        root: bool,
    },
    Values(Vec<Vec<f64>>),
}

/// Welford's running mean and sum of squares.
#[derive(Clone, Copy)]
pub(super) struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn of(first: f64) -> Self {
        let squares = if first.is_finite() { 0.0 } else { f64::NAN };
        Self { count: 1.0, mean: first, squares }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }
}

impl Accumulator {
    /// An empty one; `None` where the aggregation is none of these.
    pub(super) fn new(op: AggregateOp, steps: usize) -> Option<Self> {
        Some(match op {
            AggregateOp::Sum => Self::Sums(vec![None; steps]),
            AggregateOp::Avg => Self::Means(vec![None; steps]),
            AggregateOp::Count => Self::Counts(vec![0; steps]),
            AggregateOp::Min => Self::Extremes { points: Points::absent(steps), largest: false },
            AggregateOp::Max => Self::Extremes { points: Points::absent(steps), largest: true },
            AggregateOp::Group => Self::Group(Points::absent(steps)),
            AggregateOp::Stddev => Self::Spreads { steps: vec![None; steps], root: true },
            AggregateOp::Stdvar => Self::Spreads { steps: vec![None; steps], root: false },
            AggregateOp::Quantile => Self::Values(vec![Vec::new(); steps]),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::CountValues => return None,
        })
    }

    /// How many values one step holds before any series is added; a quantile's grow with each.
    pub(super) fn values_per_step(&self) -> usize {
        match self {
            Self::Counts(_) | Self::Extremes { .. } | Self::Group(_) => 1,
            Self::Sums(_) | Self::Values(_) => 3,
            Self::Means(_) | Self::Spreads { .. } => 5,
        }
    }

    /// Takes in the values of a series of the group.
    pub(super) fn add(&mut self, points: &Points) {
        for (step, value) in points.iter() {
            match self {
                Self::Sums(sums) => add_to(sums, step, value, Sum::of, Sum::add),
                Self::Means(means) => add_to(means, step, value, Mean::of, Mean::add),
                Self::Spreads { steps, .. } => add_to(steps, step, value, Spread::of, Spread::add),
                Self::Counts(counts) => {
                    if let Some(count) = counts.get_mut(step) {
                        *count += 1;
                    }
                }
                Self::Extremes { points, largest } => {
                    let replaces = |so_far: f64| {
                        so_far.is_nan() || if *largest { value > so_far } else { value < so_far }
                    };
                    if points.get(step).is_none_or(replaces) {
                        points.set(step, Some(value));
                    }
                }
                Self::Group(points) => points.set(step, Some(1.0)),
                Self::Values(values) => {
                    if let Some(values) = values.get_mut(step) {
                        values.push(value);
                    }
                }
            }
        }
    }

    /// What it says at each step. `quantiles`: which one, for a quantile.
    pub(super) fn finish(self, quantiles: &[f64]) -> Points {
        match self {
            Self::Sums(sums) => told(sums, |sum| sum.sum + sum.lost),
            Self::Means(means) => told(means, Mean::get),
            Self::Spreads { steps, root } => told(steps, |spread| {
                let variance = spread.squares / spread.count;
                if root { variance.sqrt() } else { variance }
            }),
            Self::Counts(counts) => {
                told(counts.into_iter().map(|count| Some(count as f64).filter(|c| *c > 0.0)), |count| count)
            }
            Self::Extremes { points, .. } | Self::Group(points) => points,
            Self::Values(values) => {
                let mut points = Points::absent(values.len());
                for (step, mut values) in values.into_iter().enumerate() {
                    let q = quantiles.get(step).copied().unwrap_or(f64::NAN);
                    points.set(
                        step,
                        Some(values.as_mut_slice()).filter(|v| !v.is_empty()).map(|v| quantile(q, v)),
                    );
                }
                points
            }
        }
    }
}

fn add_to<T>(all: &mut [Option<T>], step: usize, value: f64, first: fn(f64) -> T, next: fn(&mut T, f64)) {
    match all.get_mut(step) {
        Some(Some(so_far)) => next(so_far, value),
        Some(place) => *place = Some(first(value)),
        None => {}
    }
}

fn told<T>(
    all: impl IntoIterator<Item = Option<T>, IntoIter: ExactSizeIterator>,
    tell: impl Fn(T) -> f64,
) -> Points {
    let all = all.into_iter();
    let mut points = Points::absent(all.len());
    for (step, value) in all.enumerate() {
        points.set(step, value.map(&tell));
    }
    points
}
