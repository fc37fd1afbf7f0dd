//! The instants at which a query is evaluated.

/// Instants at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    start_ms: i64,
    step_ms: i64,
    count: usize,
}

impl Steps {
    /// One instant.
    #[must_use]
    pub fn instant(time_ms: i64) -> Self {
        Self { start_ms: time_ms, step_ms: 1, count: 1 }
    }

    /// From `start_ms` on every `step_ms` up to `end_ms`; `None` when `step_ms` is not positive. None of
    /// them when the end lies before the start.
    #[must_use]
    pub fn range(start_ms: i64, end_ms: i64, step_ms: i64) -> Option<Self> {
        if step_ms <= 0 {
            return None;
        }
        let span_ms = i128::from(end_ms) - i128::from(start_ms);
        let count = if span_ms < 0 { 0 } else { span_ms / i128::from(step_ms) + 1 };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Some(Self { start_ms, step_ms, count })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// From instant to instant, in milliseconds.
    #[must_use]
    pub fn step_ms(&self) -> i64 {
        self.step_ms
    }

    /// Unix milliseconds of the instant with this number.
    #[must_use]
    pub fn time_ms(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.start_ms.saturating_add(step.saturating_mul(self.step_ms))
    }

    /// The last instant; where there is none, the start.
    pub(super) fn last_ms(&self) -> i64 {
        self.time_ms(self.count.saturating_sub(1))
    }

    /// The instants at which a subquery is evaluated whose windows end at `first_ms` … `last_ms`: the
    /// multiples of its step after the oldest instant.
    pub(super) fn of_subquery(first_ms: i64, last_ms: i64, range_ms: i64, step_ms: i64) -> Option<Self> {
        let oldest_ms = first_ms.saturating_sub(range_ms);
        let start_ms = oldest_ms.checked_div_euclid(step_ms)?.saturating_add(1).saturating_mul(step_ms);
        Self::range(start_ms, last_ms, step_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_steps_where_they_fall_on_one() {
        let steps = Steps::range(0, 100, 30).expect("steps");
        assert_eq!((steps.count(), steps.time_ms(3), steps.last_ms()), (4, 90, 90));
        assert_eq!(Steps::range(0, 90, 30).expect("steps").count(), 4);
        assert_eq!(Steps::range(1, 0, 30).expect("steps").count(), 0);
        assert_eq!(Steps::range(0, 1, 0), None);
    }

    #[test]
    fn a_subquery_starts_at_the_first_multiple_of_its_step_after_its_oldest_instant() {
        for (first_ms, range_ms, start_ms) in [(100, 50, 60), (100, 40, 70), (5, 20, -10), (0, 20, -10)] {
            let steps = Steps::of_subquery(first_ms, first_ms, range_ms, 10).expect("steps");
            assert_eq!(steps.time_ms(0), start_ms, "{first_ms} {range_ms}");
        }
    }
}
