//! An append on behalf of a caller, counted.

use super::auth::Caller;
use crate::app::App;
use crate::ingest::refusals::Refusals;
use crate::store::StoreError;
use crate::telemetry::{ApiLabels, ReasonLabels};
use lookback_storage::{OutOfOrder, WriteBatch, WriteReport};

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
    if batch.samples.is_empty() {
        return Ok(WriteReport::default());
    }
    let context = app.context(&caller.scope);
    let report = app.store.append(&context, batch, app.clock.now_ms(), OutOfOrder::Window).await?;
    if report.series_created > 0 {
        app.catalog.announce();
    }
    let labels = ApiLabels { api };
    app.metrics.samples_appended.get_or_create(&labels).inc_by(report.accepted as u64);
    app.metrics.samples_duplicate.get_or_create(&labels).inc_by(report.duplicates as u64);
    for (_, reject) in &report.rejected {
        count_rejected(app, reject.reason(), 1);
    }
    Ok(report)
}

/// Counts samples that were refused before they came to the store.
pub fn count_refusals(app: &App, refusals: &Refusals) {
    for (reason, samples) in refusals.by_reason() {
        count_rejected(app, reason, samples);
    }
}

/// Counts samples refused for one reason.
pub fn count_rejected(app: &App, reason: &'static str, samples: usize) {
    app.metrics.samples_rejected.get_or_create(&ReasonLabels { reason }).inc_by(samples as u64);
}
