//! Compensated summation: Kahan's, with Neumaier's improvement, and means by it.

/// A sum and what rounding took from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) sum: f64,
    pub(super) lost: f64,
}

impl Sum {
    pub(super) fn of(first: f64) -> Self {
        Self { sum: first, lost: 0.0 }
    }

    pub(super) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

/// A mean: of the sum as long as that does not overflow, then moved from value to value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    /// The sum; the mean itself once `moving`.
    sum: Sum,
    count: f64,
    moving: bool,
}

impl Mean {
    pub(super) fn of(first: f64) -> Self {
        Self { sum: Sum::of(first), count: 1.0, moving: false }
    }

    /// Of values with this sum.
    pub(super) fn of_sum(sum: f64, count: f64) -> Self {
        Self { sum: Sum::of(sum), count, moving: false }
    }

    pub(super) fn add(&mut self, value: f64) {
        self.add_sum(value, 1.0);
    }

    /// Adds so many values with this sum.
    pub(super) fn add_sum(&mut self, value: f64, count: f64) {
        self.count += count;
        if !self.moving {
            let mut sum = self.sum;
            sum.add(value);
            if !sum.sum.is_infinite() {
                self.sum = sum;
                return;
            }
            self.moving = true;
            self.sum.sum /= self.count - count;
            self.sum.lost /= self.count - count;
        }
        let share = (self.count - count) / self.count;
        self.sum = Sum { sum: share * self.sum.sum, lost: share * self.sum.lost };
        self.sum.add(value / self.count);
    }

    pub(super) fn get(self) -> f64 {
        let Sum { sum, lost } = self.sum;
        if self.moving { sum + lost } else { sum / self.count + lost / self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_are_not_lost_beside_large_ones() {
        let mut sum = Sum::default();
        for value in [1e16, 1.0, 1.0, -1e16] {
            sum.add(value);
        }
        assert_eq!(sum.total(), 2.0);
        sum.add(f64::INFINITY);
        assert_eq!(sum.total(), f64::INFINITY);
    }

    #[test]
    fn a_mean_survives_a_sum_that_overflows() {
        let mut mean = Mean::of(1e308);
        for _ in 0..9 {
            mean.add(1e308);
        }
        assert!((mean.get() / 1e308 - 1.0).abs() < 1e-12, "{}", mean.get());
        let mut mean = Mean::of(1.0);
        mean.add(2.0);
        assert_eq!(mean.get(), 1.5);
        mean.add(f64::INFINITY);
        assert_eq!(mean.get(), f64::INFINITY);
        let mut mean = Mean::of_sum(1.5e308, 2.0);
        mean.add_sum(1.2e308, 4.0);
        assert!((mean.get() / 4.5e307 - 1.0).abs() < 1e-12, "{}", mean.get());
    }
}
