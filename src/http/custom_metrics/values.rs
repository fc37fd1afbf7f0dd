//! Latest values of objects, from the store to the answer.

use super::answer::MetricValueList;
use super::path::Values;
use crate::app::App;
use crate::http::error::ApiError;
use crate::http::{rates, warnings};
use crate::kubernetes::autoscalers::{Answer, Counted};
use crate::kubernetes::catalog::Snapshot;
use crate::kubernetes::objects::Known;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::resources::{NAMESPACE_LABEL, RESOURCE_INFO_METRIC};
use crate::kubernetes::scaled_pods::{Apart, Used};
use crate::kubernetes::selector::{self, Requirements};
use crate::query::absence::{Missing, why};
use crate::query::freshness::{self, LatestPolicy};
use crate::query::latest::{ObjectValue, Rule, object_values};
use crate::store::{Context, LabelsRequest, Latest};
use crate::time::whole_ms;
use kube::core::Selector;
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where the asked objects lie.
pub(super) struct Place {
    /// Whether they lie in namespaces.
    pub(super) namespaced: bool,
    /// The namespace by which a caller's scope is judged.
    pub(super) scope: Option<String>,
}

/// Where the objects of a question lie: an object of the whole cluster (a node) may be asked for
/// under a namespace, as the autoscaler does.
pub(super) fn place(asked: &Values, snapshot: &Snapshot) -> Result<Place, ApiError> {
    let namespaced = snapshot.namespaced(&asked.resource).unwrap_or(asked.namespace.is_some());
    if namespaced && asked.namespace.is_none() {
        let resource = asked.resource.group_resource();
        return Err(ApiError::not_found(format!(
            "{resource} lie in namespaces: ask for them at namespaces/{{namespace}}/{resource}/{{name}}/{{metric}}"
        )));
    }
    let scope = if asked.resource.is_namespace() { &asked.name } else { &asked.namespace };
    let scope = scope.clone().filter(|_| namespaced || asked.resource.is_namespace());
    Ok(Place { namespaced, scope })
}

/// A question for one metric as it is remembered, without its answer.
pub(super) fn noted_question(
    asked: &Values,
    place: &Place,
    of_objects: &Selector,
    of_series: &Selector,
) -> Option<Answer> {
    let object = asked.name.as_deref().unwrap_or("*");
    let selectors = [of_objects, of_series].into_iter().filter(|selector| !selector.selects_all());
    Some(Answer {
        namespace: asked.namespace.as_ref().or(place.scope.as_ref())?.clone(),
        object: format!("{}/{object}", asked.resource.group_resource()),
        metric: asked.metric.clone()?,
        selector: selectors.map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        ..Answer::default()
    })
}

/// Whether there is, or was within the retention, a series of the asked metric of any object of the
/// resource in the place. One that is only stale is known.
pub(super) async fn is_known(
    app: &App,
    context: &Context,
    asked: &Values,
    place: &Place,
) -> Result<bool, ApiError> {
    let matchers = matchers(&Values { name: None, ..asked.clone() }, place);
    let request = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers };
    Ok(!app.store.labels(context, request).await?.is_empty())
}

/// A question for values, with what it takes to answer it.
pub(super) struct Asking<'a> {
    pub(super) app: &'a App,
    pub(super) context: &'a Context,
    pub(super) asked: &'a Values,
    pub(super) place: &'a Place,
    pub(super) snapshot: &'a Snapshot,
    /// Selects series by their metric labels.
    pub(super) of_series: &'a Selector,
    /// The objects that there are; `None`: not known. What is no more is left out.
    pub(super) objects: Option<&'a Known>,
    /// Selects objects by their labels.
    pub(super) of_objects: &'a Selector,
    /// What `of_series` requires.
    pub(super) series_required: Requirements,
    /// What `of_objects` requires.
    pub(super) objects_required: Requirements,
}

/// The answer, and what to say beside it.
pub(super) struct Answered {
    pub(super) list: MetricValueList,
    /// For people, each one line of ASCII or not; goes into a header.
    pub(super) warnings: Vec<String>,
}

impl Asking<'_> {
    /// The answer.
    pub(super) async fn answer(&self) -> Result<Answered, ApiError> {
        let matchers = matchers(self.asked, self.place);
        let now_ms = self.app.clock.now_ms();
        let policies = Policies { asking: self, all: self.app.settings.latest_policies() };
        let not_before_ms = policies.not_before_ms(now_ms);
        let mut found = self.app.store.latest(self.context, &matchers, not_before_ms).await?;
        self.retain_served(&mut found, &policies, now_ms);
        self.put_rates(&mut found, &policies, &matchers, now_ms).await?;
        let values = self.object_values(&found);
        let held = held(&values, &policies, now_ms);
        let undurable = values.iter().filter(|value| !value.durable).count();
        let note = self.note(&values);
        let list = self.list(&values, &policies);
        let mut warnings = Vec::new();
        if undurable > 0 {
            warnings.push(format!("{undurable} values are not durable: the store can't write at present"));
        }
        warnings.extend(warnings::held(
            self.app,
            self.asked.metric.as_deref().unwrap_or("all metrics"),
            held,
        ));
        let checked = match list.is_empty() {
            true => self.check_may_be_empty(matchers, not_before_ms, now_ms).await,
            false => Ok(None),
        };
        if let (Some(note), Some(live)) = (note, self.app.live()) {
            let why = match &checked {
                Ok(warning) => warning.clone(),
                Err(error) => Some(error.message.clone()),
            };
            live.answers.leave(Answer { why, ..note });
        }
        warnings.extend(checked?);
        Ok(Answered { list, warnings })
    }

    /// What autoscalers are answered is remembered, where there is a cluster with autoscalers, and it is due.
    pub(super) fn note(&self, values: &[ObjectValue<'_>]) -> Option<Answer> {
        let live = self.app.live()?;
        let question = noted_question(self.asked, self.place, self.of_objects, self.of_series)?;
        let now_ms = self.app.clock.now_ms();
        if !live.answers.is_due(&question, now_ms) {
            return None;
        }
        let namespace = if self.place.namespaced { question.namespace.as_str() } else { "" };
        let selected = self
            .objects
            .filter(|_| self.asked.name.is_none())
            .map(|objects| objects.read().selected(namespace, &self.objects_required));
        // What is more than can be carried is not in the answer.
        let milli = |value: &ObjectValue<'_>| Quantity::from_nanos(value.nanos).milli();
        let sum_milli = values.iter().filter_map(milli).fold(0, i64::saturating_add);
        let of_pods = selected.as_ref().filter(|_| self.asked.resource.group_resource() == "pods");
        let counted = of_pods.and_then(|selected| {
            let pods = live.pods.of(namespace, selected)?;
            let used = |value: &ObjectValue<'_>| {
                let timestamp_ms = Some(value.timestamp_ms);
                Some((value.name.to_owned(), Used { milli: milli(value)?, timestamp_ms, window_ms: 0 }))
            };
            let used = values.iter().filter_map(used).collect();
            let summary = Apart::of(&pods, "", &used, now_ms, &self.app.settings.controller).summary();
            Some(Counted { summary, requested: None })
        });
        Some(Answer {
            sum_milli,
            items: values.len(),
            missing: selected.map(|selected| selected.len().saturating_sub(values.len())),
            oldest_ms: values.iter().map(|value| value.timestamp_ms).min(),
            counted,
            ..question
        })
    }

    /// The labels that say whose metric a series is.
    fn identity(&self) -> [&str; 3] {
        let namespace = if self.place.namespaced { NAMESPACE_LABEL } else { METRIC_NAME_LABEL };
        [METRIC_NAME_LABEL, self.asked.resource.label.as_ref(), namespace]
    }

    /// Namespace and name of the object that a series describes.
    fn object_of<'l>(&self, labels: &'l Labels) -> Option<(&'l str, &'l str)> {
        let namespace = if self.place.namespaced { labels.get(NAMESPACE_LABEL)? } else { "" };
        Some((namespace, labels.get(&self.asked.resource.label)?))
    }

    /// Whether an object is there, and is selected, as far as that is known.
    pub(super) fn is_live(&self, namespace: &str, name: &str) -> bool {
        let Some(objects) = self.objects else { return true };
        objects.read().get(namespace, name).is_some_and(|labels| labels.has(&self.objects_required))
    }

    /// Whether the object that a series describes is there, and is selected.
    fn is_there(&self, labels: &Labels) -> bool {
        self.objects.is_none()
            || self.object_of(labels).is_some_and(|(namespace, name)| self.is_live(namespace, name))
    }

    /// Why the cluster's objects leave no value, if they do.
    pub(super) fn objects_excluded(&self) -> Option<String> {
        let objects = self.objects?.read();
        let requirements = &self.objects_required;
        let namespace = self.asked.namespace.as_deref().filter(|_| self.place.namespaced).unwrap_or_default();
        match &self.asked.name {
            Some(name) => match objects.get(namespace, name) {
                None => Some(
                    "the cluster has no such object (what was written of it stays in the history)".to_owned(),
                ),
                Some(labels) if !labels.has(requirements) => Some(format!(
                    "the object's labels are not those of the labelSelector {}",
                    self.of_objects
                )),
                Some(_) => None,
            },
            None if objects.count_selected(namespace, requirements) > 0 => None,
            None if requirements.is_empty() => Some("the cluster has no such objects there".to_owned()),
            None => {
                let all = objects.count_selected(namespace, &Requirements::none());
                Some(format!("the labelSelector {} selects none of the {all} objects there", self.of_objects))
            }
        }
    }

    fn object_values<'l>(&self, found: &'l [Latest]) -> Vec<ObjectValue<'l>> {
        let rule = Rule {
            described: self.asked.resource.label.as_ref(),
            namespaced: self.place.namespaced,
            is_resource_label: &|label| self.snapshot.is_resource_label(label),
            nanos: |value| Quantity::from_f64(value).map(|quantity| quantity.nanos()),
        };
        object_values(found, &rule)
    }

    fn retain_served(&self, found: &mut Vec<Latest>, policies: &Policies<'_>, now_ms: i64) {
        if !self.of_series.selects_all() {
            found.retain(|latest| self.series_required.select(&latest.labels, &self.identity()));
        }
        if let Some(objects) = self.objects {
            let objects = objects.read();
            let mut selecting = objects.selecting(&self.objects_required);
            found.retain(|latest| {
                self.object_of(&latest.labels).is_some_and(|(of, name)| selecting.selects(of, name))
            });
        }
        if self.asked.metric.is_none() {
            let not_before_ms = |metric: &str| policies.of(metric).not_before_ms(now_ms);
            found.retain(|latest| latest.sample.timestamp_ms >= not_before_ms(latest.labels.metric_name()));
        }
    }

    /// Puts the rate in place of the value where a rule says that a metric is a counter.
    async fn put_rates(
        &self,
        found: &mut Vec<Latest>,
        policies: &Policies<'_>,
        matchers: &[Matcher],
        now_ms: i64,
    ) -> Result<(), ApiError> {
        let windows: BTreeMap<String, Duration> = match &self.asked.metric {
            Some(metric) => {
                policies.of(metric).rate_window.map(|w| (metric.clone(), w)).into_iter().collect()
            }
            None => {
                let names: BTreeSet<&str> = found.iter().map(|latest| latest.labels.metric_name()).collect();
                let window = |name: &str| Some((name.to_owned(), policies.of(name).rate_window?));
                names.into_iter().filter_map(window).collect()
            }
        };
        for (metric, window) in windows {
            rates::put(self.app, self.context, matchers, (&metric, window), found, now_ms).await?;
        }
        Ok(())
    }

    fn list(&self, values: &[ObjectValue<'_>], policies: &Policies<'_>) -> MetricValueList {
        let asked = self.asked;
        let repeated = selector::to_label_selector(self.of_series);
        let window_seconds = |metric: &str| policies.of(metric).rate_window.map(|window| window.as_secs());
        MetricValueList::new(asked.version, &asked.resource, repeated.as_ref(), values, &window_seconds)
    }

    /// An answer without items stands for objects that have the metric but no fresh sample; then this
    /// says why. It is no answer for one object's one metric, nor where nobody ever wrote: that is 404,
    /// and says why too.
    async fn check_may_be_empty(
        &self,
        matchers: Vec<Matcher>,
        not_before_ms: i64,
        now_ms: i64,
    ) -> Result<Option<String>, ApiError> {
        let asked = self.asked;
        let resource = asked.resource.group_resource();
        let whose = match &asked.name {
            Some(name) => format!("{resource} {name}"),
            None => resource.clone(),
        };
        let Some(metric) = &asked.metric else {
            return match self.is_written(matchers).await? {
                true => Ok(None),
                false => {
                    Err(ApiError::not_found(format!("the server could not find any metric for {whose}")))
                }
            };
        };
        let namespace = asked.namespace.as_deref().unwrap_or_default();
        let rate_window = self.app.settings.latest_policies().of(metric, namespace, &resource).rate_window;
        let missing = Missing {
            metric,
            label: asked.resource.label.as_ref(),
            resource: &resource,
            name: asked.name.as_deref(),
            namespace: asked.namespace.as_deref().filter(|_| self.place.namespaced),
            matchers: &matchers,
            is_selected: &|latest| {
                self.series_required.select(&latest.labels, &self.identity()) && self.is_there(&latest.labels)
            },
            resource_of_label: &|label| self.snapshot.resource_of_label(label),
            now_ms,
            not_before_ms,
            rate_window_ms: rate_window.map(whole_ms),
        };
        let why = match self.objects_excluded() {
            Some(why) => why,
            None => why(self.app.store.as_ref(), self.context, &missing).await?.to_string(),
        };
        if asked.name.is_none() && self.is_written(matchers.clone()).await? {
            return Ok(Some(format!("no value of the metric {metric} for {whose}: {why}")));
        }
        let with = match &asked.name {
            Some(_) if !self.of_series.selects_all() => format!(" with selector {}", self.of_series),
            _ => String::new(),
        };
        Err(ApiError::not_found(format!(
            "the server could not find the metric {metric} for {whose}{with}: {why}"
        )))
    }

    async fn is_written(&self, matchers: Vec<Matcher>) -> Result<bool, ApiError> {
        let request = LabelsRequest { name: Some(METRIC_NAME_LABEL.to_owned()), matchers };
        Ok(!self.app.store.labels(self.context, request).await?.is_empty())
    }
}

/// The policies of the metrics of one question.
struct Policies<'a> {
    asking: &'a Asking<'a>,
    all: freshness::Policies<'a>,
}

impl Policies<'_> {
    fn of(&self, metric: &str) -> LatestPolicy {
        let Asking { asked, place, .. } = self.asking;
        let namespace = place.scope.as_deref().unwrap_or_default();
        self.all.of(metric, namespace, &asked.resource.group_resource())
    }

    fn not_before_ms(&self, now_ms: i64) -> i64 {
        match &self.asking.asked.metric {
            Some(metric) => self.of(metric).not_before_ms(now_ms),
            None => self.all.not_before_ms(now_ms),
        }
    }
}

/// How many of the values are held: served although they are not fresh.
fn held(values: &[ObjectValue<'_>], policies: &Policies<'_>, now_ms: i64) -> usize {
    let Some(oldest) = values.iter().min_by_key(|value| value.timestamp_ms) else { return 0 };
    // All of one metric: the policy is the same for all, and mostly all are fresh.
    if policies.asking.asked.metric.is_some() {
        let policy = policies.of(oldest.metric);
        if !policy.is_held(oldest.timestamp_ms, now_ms) {
            return 0;
        }
        return values.iter().filter(|value| policy.is_held(value.timestamp_ms, now_ms)).count();
    }
    let is_held = |value: &&ObjectValue<'_>| policies.of(value.metric).is_held(value.timestamp_ms, now_ms);
    values.iter().filter(is_held).count()
}

fn matchers(asked: &Values, place: &Place) -> Vec<Matcher> {
    let metric = match &asked.metric {
        Some(metric) => Matcher::equal(METRIC_NAME_LABEL, metric),
        None => Matcher::not_equal(METRIC_NAME_LABEL, RESOURCE_INFO_METRIC),
    };
    let label = asked.resource.label.as_ref();
    let object = match &asked.name {
        Some(name) => Matcher::equal(label, name),
        None => Matcher::not_equal(label, ""),
    };
    let namespace = asked.namespace.as_deref().filter(|_| place.namespaced);
    let namespace = namespace.map(|namespace| Matcher::equal(NAMESPACE_LABEL, namespace));
    [metric, object].into_iter().chain(namespace).collect()
}
