//! One round: every autoscaler's questions, put to both, and what the autoscaler would make of the answers.

use super::question::{Question, Target, UsageTarget, question, resource};
use crate::kubernetes::adapter::{Adapter, AdapterError, Item, used};
use crate::kubernetes::behavior::Behavior;
use crate::kubernetes::controller_settings::ControllerSettings;
use crate::kubernetes::live_mapping::LiveMapping;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::quantity::saturating_milli;
use crate::kubernetes::replica_formula::{
    AtZero, Replicas, Requested, Summary, TargetKind, Tolerances, proposed, proposed_by_utilization,
    together, without_metrics,
};
use crate::kubernetes::scaled_pods::{self, Apart, ScaledPod, Used, UsedByPod};
use crate::kubernetes::served::{
    CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP, GroupVersion, RESOURCE_METRICS_GROUP,
};
use futures::StreamExt;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use std::collections::BTreeMap;

/// Autoscalers whose questions are asked at once.
const AT_ONCE: usize = 4;
/// Most autoscalers of a round; more are left out.
pub(super) const AUTOSCALERS_MAX: usize = 20_000;
/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 500;
/// Most pods of one autoscaler; one with more is left out.
const PODS_MAX: usize = 50_000;

/// Who is asked.
pub(super) struct Round {
    client: Client,
    mapping: LiveMapping,
    present: Adapter,
    lookback: Adapter,
    namespace: Option<String>,
    controller: ControllerSettings,
}

/// What one of the two answers: the values summed up, or why there are none.
pub(super) type Answered = Result<Sums, String>;

/// The values of an answer, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sums {
    /// Of a metric, or of what pods use against an amount.
    Values(Summary),
    /// Of what pods use against what they request.
    Usage(Summary, Requested),
}

impl Sums {
    const fn summary(&self) -> Summary {
        match self {
            Self::Values(summary) | Self::Usage(summary, _) => *summary,
        }
    }

    pub(super) fn sum(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let sum = self.summary().sum_milli as f64 / 1e3;
        sum
    }

    pub(super) const fn items(&self) -> u32 {
        self.summary().items
    }
}

/// One metric of an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ComparedMetric {
    pub(super) name: String,
    pub(super) present: Answered,
    pub(super) lookback: Answered,
}

/// One autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compared {
    /// With its namespace.
    pub(super) name: String,
    /// The replicas that there are.
    pub(super) current: u32,
    /// Those that it would ask for by the present adapter's answers; `None`: it could not tell.
    pub(super) present: Option<u32>,
    /// The same by Lookback's.
    pub(super) lookback: Option<u32>,
    pub(super) metrics: Vec<ComparedMetric>,
}

impl Compared {
    /// In words, where they would scale otherwise.
    pub(super) fn difference(&self) -> Option<String> {
        let shown =
            |replicas: Option<u32>| replicas.map_or_else(|| "nothing".to_owned(), |count| count.to_string());
        let (present, lookback) = (shown(self.present), shown(self.lookback));
        (present != lookback).then(|| format!("{present} by the present adapter, {lookback} by Lookback"))
    }
}

impl Round {
    pub(super) fn new(
        client: Client,
        present: Adapter,
        lookback: Adapter,
        namespace: Option<String>,
        controller: ControllerSettings,
    ) -> Self {
        let mapping = LiveMapping::new(client.clone(), false);
        Self { client, mapping, present, lookback, namespace, controller }
    }

    /// Compares every autoscaler that has a question for these APIs, now.
    ///
    /// # Errors
    /// When autoscalers can't be listed.
    pub(super) async fn compare(&self, now_ms: i64) -> Result<Vec<Compared>, kube::Error> {
        self.mapping.refresh_after_miss().await;
        let all = self.autoscalers().await?;
        let versions = [&self.present, &self.lookback].map(|adapter| async move {
            let mut versions = BTreeMap::new();
            for group in [CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP, RESOURCE_METRICS_GROUP] {
                versions.insert(group, adapter.preferred(group).await);
            }
            versions
        });
        let [present, lookback] = versions;
        let versions = tokio::join!(present, lookback);
        let comparing = all.iter().map(|one| self.autoscaler(one, (&versions.0, &versions.1), now_ms));
        let compared = futures::stream::iter(comparing).buffer_unordered(AT_ONCE);
        Ok(compared.filter_map(std::future::ready).collect().await)
    }

    async fn autoscalers(&self) -> Result<Vec<HorizontalPodAutoscaler>, kube::Error> {
        let api: Api<HorizontalPodAutoscaler> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        listed(&api, &ListParams::default(), AUTOSCALERS_MAX).await
    }

    async fn autoscaler(
        &self,
        one: &HorizontalPodAutoscaler,
        versions: (&Versions, &Versions),
        now_ms: i64,
    ) -> Option<Compared> {
        let (namespace, spec) = (one.metadata.namespace.as_deref()?, one.spec.as_ref()?);
        let name = format!("{namespace}/{}", one.metadata.name.as_deref()?);
        let has_questions = |spec: &HorizontalPodAutoscalerSpec| {
            let metrics = spec.metrics.iter().flatten();
            metrics
                .into_iter()
                .any(|metric| question(metric, namespace, "", &self.mapping.resolver()).is_some())
        };
        if !has_questions(spec) {
            return None;
        }
        let compared = self.with_pods(one, spec, (namespace, name.clone()), versions, now_ms).await;
        compared
            .inspect_err(|error| tracing::warn!(autoscaler = name, error, "left out of this round"))
            .ok()
            .flatten()
    }

    async fn with_pods(
        &self,
        one: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        (namespace, name): (&str, String),
        (present, lookback): (&Versions, &Versions),
        now_ms: i64,
    ) -> Result<Option<Compared>, String> {
        let failed = |error: kube::Error| crate::kubernetes::cluster::reasons(&error);
        let scale = self.scale(spec, namespace).await.map_err(failed)?;
        let count = |replicas: Option<i32>| replicas.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let current = count(scale.spec.and_then(|spec| spec.replicas));
        let bounds = (count(spec.min_replicas.or(Some(1))), count(Some(spec.max_replicas)));
        if without_metrics(current, bounds, at_zero(one)).is_some() {
            return Ok(None);
        }
        let status = scale.status.as_ref().map(|status| status.replicas);
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        let pods = self.pods(namespace, &selector).await?;
        let ready = (!pods.is_empty()).then(|| scaled_pods::ready(&pods));
        let replicas = Replicas { current, status: count(status), ready };
        let tolerances = Behavior::of(spec, &self.controller).tolerances();
        let counting = Counting { pods: &pods, now_ms, controller: &self.controller };
        let mut metrics = Vec::new();
        let mut proposals = (Vec::new(), Vec::new());
        let resolver = self.mapping.resolver();
        for metric in spec.metrics.iter().flatten() {
            let Some(asked) = question(metric, namespace, &selector, &resolver) else { continue };
            let of_lookback = async {
                // What Lookback does not serve is left to whoever does.
                match lookback.get(asked.group) {
                    Some(Err(AdapterError::Status { code: 404, .. }))
                        if asked.group == RESOURCE_METRICS_GROUP =>
                    {
                        None
                    }
                    _ => Some(answer(&self.lookback, lookback, &asked, counting).await),
                }
            };
            let (of_present, of_lookback) =
                tokio::join!(answer(&self.present, present, &asked, counting), of_lookback);
            let of_lookback = of_lookback.unwrap_or_else(|| of_present.clone());
            let propose =
                |answer: &Answered| replicas_of(&asked.target, answer.as_ref().ok()?, replicas, tolerances);
            proposals.0.push(propose(&of_present));
            proposals.1.push(propose(&of_lookback));
            metrics.push(ComparedMetric { name: asked.name, present: of_present, lookback: of_lookback });
        }
        Ok(Some(Compared {
            name,
            current,
            present: together(&proposals.0, current, bounds),
            lookback: together(&proposals.1, current, bounds),
            metrics,
        }))
    }

    async fn scale(
        &self,
        spec: &HorizontalPodAutoscalerSpec,
        namespace: &str,
    ) -> Result<k8s_openapi::api::autoscaling::v1::Scale, kube::Error> {
        let target = &spec.scale_target_ref;
        let resource = resource(target, &self.mapping.resolver());
        let plural = resource.split('.').next().unwrap_or_default();
        let (group, version) =
            target.api_version.as_deref().unwrap_or("v1").rsplit_once('/').unwrap_or(("", "v1"));
        let kind = GroupVersionKind::gvk(group, version, &target.kind);
        let kind = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        api.get_scale(&target.name).await
    }

    async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<ScaledPod>, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let listed = listed(&api, &ListParams::default().labels(selector), PODS_MAX).await;
        let all = listed.map_err(|error| crate::kubernetes::cluster::reasons(&error))?;
        Ok(all.into_iter().map(ScaledPod::from).collect())
    }
}

type Versions = BTreeMap<&'static str, Result<GroupVersion, AdapterError>>;

/// All pages of a list, up to a bound.
async fn listed<K>(api: &Api<K>, params: &ListParams, objects_max: usize) -> Result<Vec<K>, kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let mut page = params.clone().limit(PAGE_OBJECTS);
        page.continue_token = from;
        let page = api.list(&page).await?;
        all.extend(page.items);
        from = page.metadata.continue_.filter(|token| !token.is_empty());
        if from.is_none() || all.len() >= objects_max {
            all.truncate(objects_max);
            return Ok(all);
        }
    }
}

fn replicas_of(target: &Target, answer: &Sums, replicas: Replicas, tolerances: Tolerances) -> Option<u32> {
    match (target, answer) {
        (Target::Metric(kind, target), Sums::Values(summary)) => {
            proposed(*kind, *target, *summary, replicas, tolerances)
        }
        (Target::Usage { target: UsageTarget::Average(target), .. }, Sums::Values(summary)) => {
            proposed(TargetKind::PodsAverage, *target, *summary, replicas, tolerances)
        }
        (
            Target::Usage { target: UsageTarget::Utilization(percent), .. },
            Sums::Usage(summary, requested),
        ) => proposed_by_utilization(*percent, *summary, *requested, replicas.current, tolerances),
        _ => None,
    }
}

/// Where an autoscaler's target may have no replicas.
fn at_zero(one: &HorizontalPodAutoscaler) -> AtZero {
    let conditions = || one.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let status =
        |kind: &str| conditions().find(|condition| condition.type_ == kind).map(|found| &*found.status);
    let metrics = one.spec.iter().flat_map(|spec| spec.metrics.iter().flatten());
    AtZero {
        is_its_doing: status("ScaledToZero").map(|status| status == "True"),
        has_shared_metric: metrics
            .into_iter()
            .any(|metric| metric.object.is_some() || metric.external.is_some()),
        is_active: status("ScalingActive") != Some("False"),
    }
}

/// What pods are counted by.
#[derive(Clone, Copy)]
struct Counting<'a> {
    pods: &'a [ScaledPod],
    now_ms: i64,
    controller: &'a ControllerSettings,
}

impl<'a> Counting<'a> {
    fn apart(self, resource: &str, used: &UsedByPod) -> Result<Apart<'a>, String> {
        let apart = Apart::of(self.pods, resource, used, self.now_ms, self.controller);
        let has_values = apart.summary().items > 0;
        has_values.then_some(apart).ok_or_else(|| "no value of a pod that has started".to_owned())
    }
}

async fn answer(
    adapter: &Adapter,
    versions: &Versions,
    asked: &Question,
    counting: Counting<'_>,
) -> Answered {
    let version = match versions.get(asked.group) {
        Some(Ok(version)) => version.version(),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("nobody serves this API".to_owned()),
    };
    let path = format!("/apis/{}/{version}/{}", asked.group, asked.rest);
    match &asked.target {
        Target::Metric(kind, _) => {
            let values = adapter.values(&path).await.map_err(|error| error.to_string())?;
            summary(*kind, asked.group, &values.items, counting).map(Sums::Values)
        }
        Target::Usage { resource, container, target } => {
            let usage = adapter.usage(&path).await.map_err(|error| error.to_string())?;
            let container = container.as_deref();
            let apart = counting.apart(resource, &used(&usage, resource, container))?;
            match target {
                UsageTarget::Average(_) => Ok(Sums::Values(apart.summary())),
                UsageTarget::Utilization(_) => {
                    let requested = apart.requested(resource, container)?;
                    Ok(Sums::Usage(apart.summary(), requested))
                }
            }
        }
    }
}

fn summary(kind: TargetKind, group: &str, items: &[Item], counting: Counting<'_>) -> Result<Summary, String> {
    if items.is_empty() {
        return Err("no values".to_owned());
    }
    if kind != TargetKind::PodsAverage {
        if group == CUSTOM_METRICS_GROUP && items.len() != 1 {
            return Err(format!("{} values, and one object has one", items.len()));
        }
        let each = items.iter().map(|item| saturating_milli(item.value));
        let sum_milli = each.fold(0_i64, i64::saturating_add);
        let items = u32::try_from(items.len()).unwrap_or(u32::MAX);
        return Ok(Summary { sum_milli, items, ..Summary::default() });
    }
    let used = |item: &Item| {
        let used =
            Used { milli: saturating_milli(item.value), timestamp_ms: item.timestamp_ms, window_ms: 0 };
        Some((item.object.clone()?, used))
    };
    let used: UsedByPod = items.iter().filter_map(used).collect();
    Ok(counting.apart("", &used)?.summary())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::scaled_pods::Phase;

    #[test]
    fn values_are_summed_up_as_the_formula_takes_them() {
        let pod = |name: &str, phase: &str| ScaledPod {
            name: name.to_owned(),
            phase: Phase::of(phase),
            ..ScaledPod::default()
        };
        let pods = [pod("a", "Running"), pod("b", "Running"), pod("c", "Pending")];
        let item = |name: &str, value| Item { object: Some(name.to_owned()), value, timestamp_ms: None };
        let items = [item("a", 2.0), item("c", 30.0), item("e", 400.0)];
        let controller = ControllerSettings::default();
        let counting = Counting { pods: &pods, now_ms: 0, controller: &controller };
        let of = |kind, items: &[Item]| summary(kind, CUSTOM_METRICS_GROUP, items, counting);
        let expected = Summary { sum_milli: 2_000, items: 1, missing: 1, pending: 1 };
        assert_eq!(of(TargetKind::PodsAverage, &items), Ok(expected));
        assert!(of(TargetKind::PodsAverage, &[item("c", 1.0)]).is_err());
        assert!(of(TargetKind::Value, &items).is_err(), "an object has one value");
        assert_eq!(of(TargetKind::Value, &items[2..]).map(|summary| summary.sum_milli), Ok(400_000));
    }
}
