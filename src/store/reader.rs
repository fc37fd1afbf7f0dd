//! Reading series one after another, from a thread that may block.

use super::StoreError;
use lookback_storage::{Labels, Matcher, Pick, Visit};
use std::sync::Arc;

/// Which samples of which series [`SeriesReader::each`] hands out.
#[derive(Clone, Copy, Debug)]
pub struct EachRequest<'a> {
    /// Which series.
    pub matchers: &'a [Matcher],
    /// The first time, Unix milliseconds.
    pub start_ms: i64,
    /// The last time, Unix milliseconds.
    pub end_ms: i64,
    /// All samples of the range, or its newest.
    pub pick: Pick,
    /// Most samples of one series; more is [`StoreError::TooLarge`].
    pub samples_max: usize,
}

/// Reads within one scope. Its calls block: they belong on a blocking thread.
pub trait SeriesReader: Send + Sync {
    /// Hands `visit` the matching series that have samples in the range, bit for bit and in time order,
    /// one series after another in the order of their labels, until it breaks off. `cancelled` is asked
    /// between series; true is [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// When a bound is met or the store fails.
    fn each(
        &self,
        request: &EachRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// The label sets of the matching series that may have samples in `[start_ms, end_ms]`, in the order
    /// of their labels.
    ///
    /// # Errors
    /// When the store fails.
    fn series(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Arc<Labels>>, StoreError>;
}
