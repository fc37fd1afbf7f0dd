//! External metrics of stored series.

use super::{Answered, Asked, ExternalMetricValue, ExternalMetricValueList, ITEMS_MAX, MetricLabels};
use crate::app::App;
use crate::http::error::ApiError;
use crate::http::{rates, warnings};
use crate::kubernetes::quantity::{Quantity, saturating_milli};
use crate::kubernetes::resources::{NAMESPACE_LABEL, RESOURCE_INFO_METRIC};
use crate::kubernetes::selector::Requirements;
use crate::kubernetes::served::GroupVersion;
use crate::query::absence::{Missing, why_external};
use crate::query::freshness::LatestPolicy;
use crate::store::{Context, LabelsRequest, Latest};
use crate::time::whole_ms;
use axum::http::StatusCode;
use jiff::Timestamp;
use lookback_storage::{METRIC_NAME_LABEL, Matcher};
use std::collections::BTreeMap;

/// A question, with what it takes to answer it.
pub(super) struct Asking<'a> {
    pub(super) app: &'a App,
    pub(super) context: &'a Context,
    pub(super) asked: &'a Asked,
    pub(super) requirements: Requirements,
}

impl Asking<'_> {
    fn matchers(&self) -> [Matcher; 2] {
        let Asked { namespace, metric, .. } = self.asked;
        [Matcher::equal(METRIC_NAME_LABEL, metric), Matcher::equal(NAMESPACE_LABEL, namespace)]
    }

    /// Whether the namespace has, or had within the retention, a series of this metric.
    pub(super) async fn is_known(&self) -> Result<bool, ApiError> {
        let matchers = self.matchers().to_vec();
        let request = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers };
        let is_hidden = self.asked.metric == RESOURCE_INFO_METRIC;
        Ok(!is_hidden && !self.app.store.labels(self.context, request).await?.is_empty())
    }

    pub(super) async fn answer(&self) -> Result<Answered, ApiError> {
        let Self { app, context, asked, .. } = self;
        let now_ms = app.clock.now_ms();
        let policy = app.settings.latest_policies().of(&asked.metric, &asked.namespace, "");
        let matchers = self.matchers();
        let mut found = app.store.latest(context, &matchers, policy.not_before_ms(now_ms)).await?;
        found.retain(|latest| self.requirements.select(&latest.labels, &[METRIC_NAME_LABEL]));
        if found.len() > ITEMS_MAX {
            let message = format!(
                "{} series, and {ITEMS_MAX} are the most: select fewer by labelSelector",
                found.len()
            );
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        if let Some(window) = policy.rate_window {
            rates::put(app, context, &matchers, (&asked.metric, window), &mut found, now_ms).await?;
        }
        let window = policy.rate_window.map(|window| window.as_secs());
        let mut items = Vec::with_capacity(found.len());
        let (mut sum_milli, mut oldest_ms, mut held) = (0_i64, None::<i64>, 0);
        for latest in found {
            let sample = latest.sample;
            let Some(item) = item(&asked.metric, latest, window) else { continue };
            items.push(item);
            held += usize::from(policy.is_held(sample.timestamp_ms, now_ms));
            sum_milli = sum_milli.saturating_add(saturating_milli(sample.value));
            oldest_ms = Some(oldest_ms.map_or(sample.timestamp_ms, |at| at.min(sample.timestamp_ms)));
        }
        let why = match items.is_empty() {
            true => Some(self.why_empty(&matchers, &policy, now_ms).await?),
            false => None,
        };
        let mut warnings = Vec::from_iter(why.clone());
        warnings.extend(warnings::held(app, &asked.metric, held));
        let list = ExternalMetricValueList {
            kind: GroupVersion::ExternalV1Beta1.list_kind(),
            api_version: GroupVersion::ExternalV1Beta1.to_string(),
            metadata: BTreeMap::new(),
            items,
        };
        Ok(Answered { list, why, warnings, sum_milli, oldest_ms })
    }

    /// Why there is no item.
    ///
    /// # Errors
    /// 404 with the reason where the namespace has no series of this metric at all.
    async fn why_empty(
        &self,
        matchers: &[Matcher],
        policy: &LatestPolicy,
        now_ms: i64,
    ) -> Result<String, ApiError> {
        let Asked { namespace, metric, .. } = self.asked;
        let missing = Missing {
            metric,
            label: NAMESPACE_LABEL,
            resource: "",
            name: None,
            namespace: Some(namespace),
            matchers,
            is_selected: &|latest| self.requirements.select(&latest.labels, &[METRIC_NAME_LABEL]),
            resource_of_label: &|_| None,
            now_ms,
            not_before_ms: policy.not_before_ms(now_ms),
            rate_window_ms: policy.rate_window.map(whole_ms),
        };
        let why = why_external(self.app.store.as_ref(), self.context, &missing).await?;
        if !self.is_known().await? {
            return Err(ApiError::not_found(format!(
                "the server could not find the metric {metric} in the namespace {namespace}: {why}"
            )));
        }
        Ok(format!("no value of the metric {metric} in the namespace {namespace}: {why}"))
    }
}

/// A value that can't be carried is a missing one.
fn item(
    metric: &str,
    Latest { labels, sample, .. }: Latest,
    window: Option<u64>,
) -> Option<ExternalMetricValue> {
    let quantity = Quantity::from_f64(sample.value)?;
    quantity.milli()?;
    Some(ExternalMetricValue {
        metric_name: metric.to_owned(),
        metric_labels: MetricLabels::Stored(labels),
        timestamp: Timestamp::from_second(sample.timestamp_ms.div_euclid(1000)).ok()?,
        window,
        value: quantity.to_string(),
    })
}
