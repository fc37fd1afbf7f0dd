//! Rates of counters, where latest values are answered.

use super::error::ApiError;
use crate::app::App;
use crate::store::{Context, Latest, RangeRequest};
use crate::time::whole_ms;
use lookback_storage::{Aggregation, METRIC_NAME_LABEL, Matcher};
use std::collections::BTreeMap;
use std::time::Duration;

/// Puts the rate over `window` in place of each value found of the counter `metric`, among series of `matchers`. The
/// time stays the newest sample's own; a series without a rate (one sample only) is left out.
pub(super) async fn put(
    app: &App,
    context: &Context,
    matchers: &[Matcher],
    (metric, window): (&str, Duration),
    found: &mut Vec<Latest>,
    now_ms: i64,
) -> Result<(), ApiError> {
    // Up to the newest sample of each series: those that come in rarely are no slower for it.
    let of_metric = found.iter().filter(|latest| latest.labels.metric_name() == metric);
    let Some(newest_ms) = of_metric.map(|latest| latest.sample.timestamp_ms).max() else { return Ok(()) };
    let at_ms = newest_ms.min(now_ms);
    let of_name = Matcher::equal(METRIC_NAME_LABEL, metric);
    let request = RangeRequest {
        matchers: matchers.iter().cloned().chain([of_name]).collect(),
        start_ms: at_ms,
        end_ms: at_ms,
        step_ms: whole_ms(window).max(1),
        aggregation: Aggregation::Avg,
        counter: true,
        samples_max: app.settings.samples_max,
        points_max: usize::MAX,
    };
    let rates = app.store.range(context, request).await?;
    let rates: BTreeMap<_, f64> = rates
        .series
        .iter()
        .filter_map(|series| Some((series.labels.as_ref(), series.samples.first()?.value)))
        .collect();
    found.retain_mut(|latest| {
        if latest.labels.metric_name() != metric {
            return true;
        }
        let rate = rates.get(latest.labels.as_ref());
        latest.sample.value = rate.copied().unwrap_or(f64::NAN);
        rate.is_some()
    });
    Ok(())
}
