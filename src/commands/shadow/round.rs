//! One round: every autoscaler's questions, put to both, and what the autoscaler would make of the answers.

use super::question::{Question, question, resource};
use crate::kubernetes::adapter::{Adapter, Item};
use crate::kubernetes::live_mapping::LiveMapping;
use crate::kubernetes::replica_formula::{Replicas, Summary, TargetKind, proposed, together};
use crate::kubernetes::served::{CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP, GroupVersion};
use futures::StreamExt;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use std::collections::{BTreeMap, BTreeSet};

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
}

/// What one of the two answers: the values summed up, or why there are none.
pub(super) type Answered = Result<Summary, String>;

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

/// The pods of an autoscaler's target, as its formula tells them apart.
#[derive(Debug, Default, PartialEq)]
struct Pods {
    /// Have started.
    started: BTreeSet<String>,
    /// Have not.
    pending: u32,
    ready: u32,
}

impl Round {
    pub(super) fn new(
        client: Client,
        present: Adapter,
        lookback: Adapter,
        namespace: Option<String>,
    ) -> Self {
        let mapping = LiveMapping::new(client.clone(), false);
        Self { client, mapping, present, lookback, namespace }
    }

    /// Compares every autoscaler that has a question for these APIs.
    ///
    /// # Errors
    /// When autoscalers can't be listed.
    pub(super) async fn compare(&self) -> Result<Vec<Compared>, kube::Error> {
        self.mapping.refresh_after_miss().await;
        let all = self.autoscalers().await?;
        let versions = [&self.present, &self.lookback].map(|adapter| async move {
            let mut versions = BTreeMap::new();
            for group in [CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP] {
                versions.insert(group, adapter.preferred(group).await.map_err(|error| error.to_string()));
            }
            versions
        });
        let [present, lookback] = versions;
        let versions = tokio::join!(present, lookback);
        let comparing = all.iter().map(|one| self.autoscaler(one, (&versions.0, &versions.1)));
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
        let compared = self.with_pods(spec, namespace, name.clone(), versions).await;
        compared
            .inspect_err(|error| tracing::warn!(autoscaler = name, error, "left out of this round"))
            .ok()
            .flatten()
    }

    async fn with_pods(
        &self,
        spec: &HorizontalPodAutoscalerSpec,
        namespace: &str,
        name: String,
        (present, lookback): (&Versions, &Versions),
    ) -> Result<Option<Compared>, String> {
        let failed = |error: kube::Error| crate::kubernetes::cluster::reasons(&error);
        let scale = self.scale(spec, namespace).await.map_err(failed)?;
        let count = |replicas: Option<i32>| replicas.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let current = count(scale.spec.and_then(|spec| spec.replicas));
        let min = count(spec.min_replicas.or(Some(1)));
        if current == 0 && min > 0 {
            // Scaling is turned off, as the autoscaler has it.
            return Ok(None);
        }
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        let pods = self.pods(namespace, &selector).await?;
        let replicas = Replicas { current, ready: pods.ready };
        let mut metrics = Vec::new();
        let mut proposals = (Vec::new(), Vec::new());
        let resolver = self.mapping.resolver();
        for metric in spec.metrics.iter().flatten() {
            let Some(asked) = question(metric, namespace, &selector, &resolver) else { continue };
            let (of_present, of_lookback) = tokio::join!(
                answer(&self.present, present, &asked, &pods),
                answer(&self.lookback, lookback, &asked, &pods)
            );
            let propose =
                |answer: &Answered| proposed(asked.kind, asked.target, *answer.as_ref().ok()?, replicas);
            proposals.0.push(propose(&of_present));
            proposals.1.push(propose(&of_lookback));
            metrics.push(ComparedMetric { name: asked.name, present: of_present, lookback: of_lookback });
        }
        let bounds = (min, count(Some(spec.max_replicas)));
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

    async fn pods(&self, namespace: &str, selector: &str) -> Result<Pods, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let listed = listed(&api, &ListParams::default().labels(selector), PODS_MAX).await;
        let all = listed.map_err(|error| crate::kubernetes::cluster::reasons(&error))?;
        Ok(told_apart(all))
    }
}

type Versions = BTreeMap<&'static str, Result<GroupVersion, String>>;

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

fn told_apart(all: Vec<Pod>) -> Pods {
    let mut pods = Pods::default();
    for pod in all {
        let status = pod.status.unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            continue;
        }
        let is_ready = |condition: &k8s_openapi::api::core::v1::PodCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        if phase == "Running" && status.conditions.iter().flatten().any(is_ready) {
            pods.ready += 1;
        }
        if phase == "Pending" {
            pods.pending += 1;
        } else if let Some(name) = pod.metadata.name {
            pods.started.insert(name);
        }
    }
    pods
}

async fn answer(adapter: &Adapter, versions: &Versions, asked: &Question, pods: &Pods) -> Answered {
    let version = match versions.get(asked.group) {
        Some(Ok(version)) => version.version(),
        Some(Err(error)) => return Err(error.clone()),
        None => return Err("nobody serves this API".to_owned()),
    };
    let path = format!("/apis/{}/{version}/{}", asked.group, asked.rest);
    let values = adapter.values(&path).await.map_err(|error| error.to_string())?;
    summary(asked, &values.items, pods)
}

fn summary(asked: &Question, items: &[Item], pods: &Pods) -> Answered {
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    if items.is_empty() {
        return Err("no values".to_owned());
    }
    if asked.kind != TargetKind::PodsAverage {
        if asked.group == CUSTOM_METRICS_GROUP && items.len() != 1 {
            return Err(format!("{} values, and one object has one", items.len()));
        }
        let sum = items.iter().map(|item| item.value).sum();
        return Ok(Summary { sum, items: count(items.len()), ..Summary::default() });
    }
    let of_started: BTreeMap<&str, f64> = items
        .iter()
        .filter_map(|item| Some((item.object.as_deref()?, item.value)))
        .filter(|(name, _)| pods.started.contains(*name))
        .collect();
    if of_started.is_empty() {
        return Err("no value of a pod that has started".to_owned());
    }
    let missing = pods.started.len() - of_started.len();
    Ok(Summary {
        sum: of_started.values().sum(),
        items: count(of_started.len()),
        missing: count(missing),
        pending: pods.pending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, phase: &str, ready: &str, deleted: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "deletionTimestamp": deleted},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn pods_are_told_apart_as_the_formula_does() {
        let pods = told_apart(vec![
            pod("a", "Running", "True", None),
            pod("b", "Running", "False", None),
            pod("c", "Pending", "False", None),
            pod("d", "Failed", "False", None),
            pod("e", "Running", "True", Some("2026-11-22T09:02:00Z")),
        ]);
        let started = ["a", "b"].map(str::to_owned).into();
        assert_eq!(pods, Pods { started, pending: 1, ready: 1 });
        let asked = Question {
            name: String::new(),
            group: CUSTOM_METRICS_GROUP,
            rest: String::new(),
            kind: TargetKind::PodsAverage,
            target: 1.0,
        };
        let item = |name: &str, value| Item { object: Some(name.to_owned()), value, timestamp_ms: None };
        let items = [item("a", 2.0), item("c", 30.0), item("e", 400.0)];
        let expected = Summary { sum: 2.0, items: 1, missing: 1, pending: 1 };
        assert_eq!(summary(&asked, &items, &pods), Ok(expected));
        assert!(summary(&asked, &[item("c", 1.0)], &pods).is_err());
        let of_object = Question { kind: TargetKind::Value, ..asked };
        assert!(summary(&of_object, &items, &pods).is_err(), "an object has one value");
    }
}
