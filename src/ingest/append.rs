//! The one way in: an append within a scope, counted, with what was refused in words.

use super::intake::Taken;
use super::refusals::Refusals;
use crate::app::App;
use crate::store::{Scope, StoreError};
use crate::telemetry::{ApiLabels, ReasonLabels};
use lookback_storage::{OutOfOrder, WriteBatch, WriteReport};
use std::sync::Arc;

/// Appends and counts; answers once all that was accepted is durable. `api` names the way in, for the
/// counters.
///
/// # Errors
/// The store's.
pub async fn append(
    app: &App,
    scope: &Scope,
    api: &'static str,
    batch: WriteBatch,
) -> Result<WriteReport, StoreError> {
    if batch.samples.is_empty() {
        return Ok(WriteReport::default());
    }
    let context = app.context(scope);
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

/// What became of what a request brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Samples that are durable now, or were before.
    pub written: usize,
    /// Series that did not exist before.
    pub series_created: usize,
    /// What was left out, when it was read or by the store.
    pub refusals: Refusals,
    /// The places in the batch of samples that the store left out.
    pub rejected: Vec<usize>,
}

/// Appends what was taken of a request, remembers what it says of metrics, and counts everything.
///
/// # Errors
/// The store's; nothing is written then.
pub async fn append_taken(
    app: &App,
    scope: &Scope,
    api: &'static str,
    taken: Taken,
) -> Result<Outcome, StoreError> {
    let Taken { batch, mut refusals, notes, exemplars } = taken;
    count_refusals(app, &refusals);
    count_exemplars(app, api, exemplars);
    let samples = batch.samples.len();
    let names = Names::of(&batch);
    let report = append(app, scope, api, batch).await?;
    app.metadata.note(scope, notes);
    for (place, reject) in &report.rejected {
        refusals.add(reject.reason(), 1, || match names.get(*place) {
            Some(name) => format!("series {name:?}: {reject}"),
            None => reject.to_string(),
        });
    }
    let written = samples - report.rejected.len();
    let rejected = report.rejected.iter().map(|(place, _)| *place).collect();
    Ok(Outcome { written, series_created: report.series_created, refusals, rejected })
}

/// The metric name of each sample, for words about those that are refused.
struct Names {
    names: Vec<Arc<str>>,
    of_sample: Vec<usize>,
}

impl Names {
    fn of(batch: &WriteBatch) -> Self {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut of_series = Vec::with_capacity(batch.series.len());
        for labels in &batch.series {
            // Series of one metric mostly stand side by side.
            if names.last().is_none_or(|last| **last != *labels.metric_name()) {
                names.push(Arc::from(labels.metric_name()));
            }
            of_series.push(names.len() - 1);
        }
        let of_sample = batch.samples.iter().map(|s| of_series.get(s.series).copied().unwrap_or(0)).collect();
        Self { names, of_sample }
    }

    fn get(&self, place: usize) -> Option<&str> {
        self.names.get(*self.of_sample.get(place)?).map(AsRef::as_ref)
    }
}

/// Counts exemplars, which are not kept.
pub fn count_exemplars(app: &App, api: &'static str, exemplars: usize) {
    if exemplars > 0 {
        app.metrics.exemplars_ignored.get_or_create(&ApiLabels { api }).inc_by(exemplars as u64);
    }
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
