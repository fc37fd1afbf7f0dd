//! An append on behalf of a caller, counted.

use super::auth::Caller;
use crate::app::App;
use crate::ingest::append as way_in;
use crate::ingest::append::Outcome;
use crate::ingest::intake::Taken;
use crate::store::StoreError;
use lookback_storage::{WriteBatch, WriteReport};

pub use crate::ingest::append::{count_exemplars, count_refusals, count_rejected};

/// Appends and counts; answers once all that was accepted is durable.
///
/// # Errors
/// The store's.
pub async fn append(
    app: &App,
    caller: &Caller,
    api: &'static str,
    batch: WriteBatch,
) -> Result<WriteReport, StoreError> {
    way_in::append(app, &caller.scope, api, batch).await
}

/// Appends what was taken of a request; answers once all that was accepted is durable.
///
/// # Errors
/// The store's.
pub async fn append_taken(
    app: &App,
    caller: &Caller,
    api: &'static str,
    taken: Taken,
) -> Result<Outcome, StoreError> {
    way_in::append_taken(app, &caller.scope, api, taken).await
}
