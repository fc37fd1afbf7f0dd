//! Reading series one after another, from a thread that may block.

use super::StoreError;
use lookback_storage::{Figure, Labels, Matcher, Pick, RangeUse, SeriesParts, Spans, Visit, VisitParts};
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

/// Of which series [`SeriesReader::parts`] hands out what.
#[derive(Clone, Copy, Debug)]
pub struct PartsRequest<'a> {
    /// Which series.
    pub matchers: &'a [Matcher],
    /// Which samples are looked at together.
    pub spans: Spans,
    /// What is wanted of them.
    pub figure: Figure,
    /// Most samples and parts of one series; more is [`StoreError::TooLarge`].
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

    /// As [`each`](Self::each), but a part may stand for several samples, where all of them lie in the same
    /// spans; see [`Spans`]. Answers what was read; a store without rollups reads samples.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    fn parts(
        &self,
        request: &PartsRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut VisitParts<'_>,
    ) -> Result<RangeUse, StoreError> {
        let PartsRequest { matchers, spans, samples_max, .. } = *request;
        let (start_ms, end_ms) = (spans.start_ms(), spans.last_end_ms);
        let each = EachRequest { matchers, start_ms, end_ms, pick: Pick::All, samples_max };
        self.each(&each, cancelled, &mut |labels, samples| visit(labels, SeriesParts::Samples(samples)))?;
        Ok(RangeUse::default())
    }

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
