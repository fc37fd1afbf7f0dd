//! The engine's series, one after another, within a scope.

use super::{into_store_error, within};
use crate::store::{EachRequest, PartsRequest, Scope, SeriesReader, StoreError};
use lookback_storage::{Db, Error, Labels, Matcher, RangeUse, ReadLimits, Visit, VisitParts};
use std::sync::Arc;
use std::time::Duration;

/// Reads what its scope allows.
pub(super) struct EmbeddedReader {
    db: Db,
    scope: Scope,
}

impl EmbeddedReader {
    pub(super) fn new(db: Db, scope: Scope) -> Self {
        Self { db, scope }
    }
}

fn failed(error: Error) -> StoreError {
    match error {
        Error::Cancelled => StoreError::Unavailable("the read was broken off".to_owned()),
        error => into_store_error(error, Duration::ZERO),
    }
}

impl SeriesReader for EmbeddedReader {
    fn each(
        &self,
        request: &EachRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let limits = ReadLimits { samples_max: request.samples_max, cancelled };
        let range = (request.start_ms, request.end_ms);
        within(&self.scope, request.matchers, |selection| {
            self.db.select_each(selection, range, request.pick, limits, visit)
        })
        .map_err(failed)
    }

    fn parts(
        &self,
        request: &PartsRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut VisitParts<'_>,
    ) -> Result<RangeUse, StoreError> {
        let limits = ReadLimits { samples_max: request.samples_max, cancelled };
        within(&self.scope, request.matchers, |selection| {
            self.db.parts_each(selection, request.spans, request.figure, limits, visit)
        })
        .map_err(failed)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Arc<Labels>>, StoreError> {
        Ok(within(&self.scope, matchers, |selection| self.db.series_within(selection, start_ms, end_ms)))
    }
}
