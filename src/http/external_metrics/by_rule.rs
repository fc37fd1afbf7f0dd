//! External metrics by a rule of `--config`.

use super::{Answered, Asked, ExternalMetricValue, ExternalMetricValueList, ITEMS_MAX, MetricLabels};
use crate::app::App;
use crate::http::error::ApiError;
use crate::kubernetes::quantity::{Quantity, saturating_milli};
use crate::kubernetes::served::GroupVersion;
use crate::rules::Rules;
use crate::rules::listing::Metrics;
use crate::rules::question::Valued;
use crate::store::Scope;
use axum::http::StatusCode;
use jiff::Timestamp;
use kube::core::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rules, and the metrics that they name at present.
pub(super) struct ByRule<'a> {
    rules: &'a Rules,
    metrics: Arc<Metrics>,
}

impl<'a> ByRule<'a> {
    /// `None`: no rule names the metric that is asked for.
    pub(super) fn of(app: &'a App, asked: &Asked) -> Option<Self> {
        let rules = app.rules()?;
        let metrics = rules.metrics();
        metrics.external(&asked.metric)?;
        Some(Self { rules, metrics })
    }

    /// The answer: an item a series of the query's outcome.
    pub(super) async fn answer(
        &self,
        app: &App,
        asked: &Asked,
        selector: &Selector,
        scope: &Scope,
    ) -> Result<Answered, ApiError> {
        let Some(found) = self.metrics.external(&asked.metric) else {
            return Err(ApiError::not_found(format!(
                "the server could not find the metric {}",
                asked.metric
            )));
        };
        let now_ms = app.clock.now_ms();
        let answered = self.rules.external(found, &asked.namespace, selector, scope, now_ms).await?;
        if answered.values.len() > ITEMS_MAX {
            let message = format!(
                "{} series, and {ITEMS_MAX} are the most: aggregate in the metricsQuery of {}",
                answered.values.len(),
                found.rule.name
            );
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        let window = answered.window.map(|window| window.as_secs()).filter(|seconds| *seconds > 0);
        let (mut items, mut sum_milli, mut oldest_ms) = (Vec::new(), 0_i64, None::<i64>);
        for Valued { of, value, time_ms } in answered.values {
            let Some(item) = item(&asked.metric, of, value, time_ms, window) else { continue };
            items.push(item);
            sum_milli = sum_milli.saturating_add(saturating_milli(value));
            oldest_ms = Some(oldest_ms.map_or(time_ms, |at| at.min(time_ms)));
        }
        let why = "the query of the metric's rule gives no value at present";
        let why = items.is_empty().then(|| why.to_owned());
        let list = ExternalMetricValueList {
            kind: GroupVersion::ExternalV1Beta1.list_kind(),
            api_version: GroupVersion::ExternalV1Beta1.to_string(),
            metadata: BTreeMap::new(),
            items,
        };
        let warnings = Vec::from_iter(why.clone());
        Ok(Answered { list, why, warnings, sum_milli, oldest_ms })
    }
}

/// A value that can't be carried is a missing one.
fn item(
    metric: &str,
    labels: BTreeMap<String, String>,
    value: f64,
    time_ms: i64,
    window: Option<u64>,
) -> Option<ExternalMetricValue> {
    let quantity = Quantity::from_f64(value)?;
    quantity.milli()?;
    Some(ExternalMetricValue {
        metric_name: metric.to_owned(),
        metric_labels: MetricLabels::Made(labels),
        timestamp: Timestamp::from_second(time_ms.div_euclid(1000)).ok()?,
        window,
        value: quantity.to_string(),
    })
}
