//! How much memory all requests together may take for what they carry.
//!
//! Each body is bounded, and so are connections; their product is not small. A request takes its share
//! of one budget as its body comes in and before it is decoded, and gives it back when it is answered.
//! Where the budget is spent, it is told to come again, and nothing of it is written.

use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for, in bytes.
const UNIT_BYTES: usize = 1 << 10;

/// The budget does not have what a request needs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the requests under way take all of the {bytes} bytes that there are for them: send again in a moment"
)]
pub struct BudgetSpent {
    bytes: usize,
}

/// The budget; a cheap clone.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bytes }
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0, held: None }
    }
}

/// What one request has of the budget, until it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: ByteBudget,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// When the budget does not have them.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BudgetSpent> {
        let held = self.bytes.div_ceil(UNIT_BYTES);
        let wanted = self.bytes.saturating_add(bytes);
        let units = u32::try_from(wanted.div_ceil(UNIT_BYTES) - held).map_err(|_| self.spent())?;
        if units > 0 {
            let more = Arc::clone(&self.budget.units).try_acquire_many_owned(units);
            let more = more.map_err(|_| self.spent())?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.bytes = wanted;
        Ok(())
    }

    fn spent(&self) -> BudgetSpent {
        BudgetSpent { bytes: self.budget.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = ByteBudget::new(10 * UNIT_BYTES);
        let (mut one, mut two) = (budget.share(), budget.share());
        for _ in 0..6 {
            one.grow(UNIT_BYTES).expect("there is room");
        }
        two.grow(4 * UNIT_BYTES - 1).expect("there is room");
        two.grow(1).expect("within what it holds");
        assert_eq!(two.grow(1), Err(BudgetSpent { bytes: 10 * UNIT_BYTES }));
        assert!(two.grow(usize::MAX).is_err());
        drop(one);
        two.grow(6 * UNIT_BYTES).expect("there is room again");
    }
}
