//! Values of objects by a rule of `--config`.
//!
//! With a `labelSelector` the names of the live objects that it selects are asked about, as prometheus-adapter does;
//! without one all of them are, and those that are no more are left out of the answer.

use super::answer::MetricValueList;
use super::values::{Answered, Asking};
use crate::app::App;
use crate::http::error::ApiError;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::selector::to_label_selector;
use crate::query::latest::ObjectValue;
use crate::rules::Rules;
use crate::rules::listing::{Found, Metrics};
use crate::rules::matchers::Names;
use crate::rules::question::{AboutObjects, Unanswered, Valued};
use axum::http::{HeaderValue, StatusCode, header};
use std::sync::Arc;

use super::path::Values;

/// The rules, and the metrics that they name at present.
pub(super) struct ByRule<'a> {
    rules: &'a Rules,
    metrics: Arc<Metrics>,
}

impl<'a> ByRule<'a> {
    /// `None`: no rule names the metric that is asked for.
    pub(super) fn of(app: &'a App, asked: &Values) -> Option<Self> {
        let rules = app.rules()?;
        let metrics = rules.metrics();
        metrics.of_objects(&asked.resource, asked.metric.as_deref()?)?;
        Some(Self { rules, metrics })
    }

    /// The answer.
    pub(super) async fn answer(&self, asking: &Asking<'_>) -> Result<Answered, ApiError> {
        let asked = asking.asked;
        let metric = asked.metric.as_deref().unwrap_or_default();
        let Some(found) = self.metrics.of_objects(&asked.resource, metric) else {
            return Err(ApiError::not_found(format!("the server could not find the metric {metric}")));
        };
        let answered = self.values(asking, found).await;
        let note = |values: &[ObjectValue<'_>], why: Option<String>| {
            if let (Some(note), Some(live)) = (asking.note(values), asking.app.live()) {
                live.answers.leave(crate::kubernetes::autoscalers::Answer { why, ..note });
            }
        };
        match answered {
            Ok((values, window, mut warnings)) => {
                let namespace = asked.namespace.as_deref().filter(|_| asking.place.namespaced);
                let of_object = |one| object_value(one, namespace, metric);
                let values: Vec<ObjectValue<'_>> = values.iter().filter_map(of_object).collect();
                let why = values.is_empty().then(|| why_empty(asking, found));
                note(&values, why.clone());
                match (why, &asked.name) {
                    (Some(why), Some(_)) => return Err(ApiError::not_found(why)),
                    (Some(why), None) => warnings.push(why),
                    (None, _) => {}
                }
                let repeated = to_label_selector(asking.of_series);
                let window = |_: &str| window;
                let list =
                    MetricValueList::new(asked.version, &asked.resource, repeated.as_ref(), &values, &window);
                Ok(Answered { list, warnings })
            }
            Err(error) => {
                note(&[], Some(error.message.clone()));
                Err(error)
            }
        }
    }

    async fn values(
        &self,
        asking: &Asking<'_>,
        found: &Found,
    ) -> Result<(Vec<Valued<String>>, Option<u64>, Vec<String>), ApiError> {
        let asked = asking.asked;
        let namespace = asked.namespace.as_deref().filter(|_| asking.place.namespaced);
        let selected: Vec<String> = match (&asked.name, asking.objects) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(objects)) if !asking.of_objects.selects_all() => {
                objects.read().selected(namespace.unwrap_or_default(), &asking.objects_required)
            }
            _ => Vec::new(),
        };
        let selected: Vec<&str> = selected.iter().map(String::as_str).collect();
        let asks_all = asked.name.is_none() && asking.of_objects.selects_all();
        let about = AboutObjects {
            found,
            namespace,
            names: if asks_all { Names::All } else { Names::These(&selected) },
            of_series: asking.of_series,
            scope: &asking.context.scope,
        };
        let answered = self.rules.objects(&about, asking.app.clock.now_ms()).await?;
        let is_meant = |name: &str| {
            let is_asked = asks_all || selected.contains(&name);
            is_asked && asking.is_live(namespace.unwrap_or_default(), name)
        };
        let values = answered.values.into_iter().filter(|one| is_meant(&one.of)).collect();
        let window = answered.window.map(|window| window.as_secs()).filter(|seconds| *seconds > 0);
        Ok((values, window, answered.warning.into_iter().collect()))
    }
}

fn object_value<'a>(
    one: &'a Valued<String>,
    namespace: Option<&'a str>,
    metric: &'a str,
) -> Option<ObjectValue<'a>> {
    let nanos = Quantity::from_f64(one.value)?.nanos();
    let (name, timestamp_ms) = (one.of.as_str(), one.time_ms);
    Some(ObjectValue { namespace, name, metric, timestamp_ms, nanos, durable: true })
}

/// Why there is no value.
fn why_empty(asking: &Asking<'_>, found: &Found) -> String {
    let asked = asking.asked;
    let (metric, resource) = (asked.metric.as_deref().unwrap_or_default(), asked.resource.group_resource());
    let whose = asked.name.as_ref().map_or_else(|| resource.clone(), |name| format!("{resource} {name}"));
    let with = match asking.of_series.selects_all() {
        true => String::new(),
        false => format!(" with selector {}", asking.of_series),
    };
    let why = asking.objects_excluded().unwrap_or_else(|| {
        format!("the query of {} over {} gives no value for it at present", found.rule.name, found.series)
    });
    format!("the server could not find the metric {metric} for {whose}{with}: {why}")
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        let message = error.to_string();
        match error {
            Unanswered::CantAsk(_) => Self::bad_request(message),
            Unanswered::OutOfScope { .. } => Self::new(StatusCode::FORBIDDEN, message),
            Unanswered::Refused { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, message),
            Unanswered::Unavailable { .. } => Self {
                headers: vec![(header::RETRY_AFTER, HeaderValue::from_static("5"))],
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
        }
    }
}
