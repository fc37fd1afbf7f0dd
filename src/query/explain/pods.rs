//! The pods of an autoscaler's target at a moment, as they are remembered under kube-state-metrics' names.

use super::LOOK_BACK_MS;
use super::moment::newest;
use crate::kubernetes::quantity::saturating_milli;
use crate::kubernetes::scaled_pods::{Phase, Readiness, Requests, ScaledPod, kept_label};
use crate::kubernetes::selector::{self, Requirements};
use crate::query::range::Owners;
use crate::store::{Context, SeriesSamples, Store, StoreError};
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher};
use std::collections::BTreeMap;
use std::sync::Arc;

const PHASE: &str = "kube_pod_status_phase";
const READY: &str = "kube_pod_status_ready";
const TERMINATING: &str = "lookback_pod_terminating";
const LABELS: &str = "kube_pod_labels";
const REQUESTS: &str = "kube_pod_container_resource_requests";

/// The series of a target's pods, with what they held for a while.
pub(super) struct History(Vec<SeriesSamples>);

impl History {
    /// Of a workload of this kind and name, from a time to another; `None`: nothing is remembered of its pods.
    pub(super) async fn read(
        store: &dyn Store,
        context: &Context,
        (namespace, kind, name): (&str, &str, &str),
        (from_ms, at_ms): (i64, i64),
        samples_max: usize,
    ) -> Result<Option<Self>, StoreError> {
        let owners = Owners { store, context, namespace, start_ms: from_ms, end_ms: at_ms, samples_max };
        let mut by_kind = owners.pods_by_kind(name).await?;
        let Some(owned) = by_kind.remove(kind).filter(|owned| !owned.is_empty()) else { return Ok(None) };
        let metrics = [PHASE, READY, TERMINATING, LABELS, REQUESTS];
        let matchers = [
            Matcher::one_of(METRIC_NAME_LABEL, metrics.into_iter()),
            Matcher::equal("namespace", namespace),
            Matcher::one_of("pod", owned.iter().map(String::as_str)),
        ];
        let from_ms = from_ms.saturating_sub(LOOK_BACK_MS);
        Ok(Some(Self(store.select(context, &matchers, from_ms, at_ms, samples_max).await?)))
    }

    /// The pods at a moment; `None`: nothing is remembered of them.
    pub(super) fn at(&self, at_ms: i64) -> Option<TargetPods> {
        let present = self.0.iter().filter_map(|series| {
            let value = newest(&series.samples, at_ms)?.value;
            Some((series.labels.clone(), value))
        });
        TargetPods::of(present).filter(|found| !found.pods.is_empty())
    }
}

/// The pods of a target.
pub(super) struct TargetPods {
    /// Those that were there.
    pub(super) pods: Vec<ScaledPod>,
    /// The labels of each of which they are known.
    labels: Vec<Arc<Labels>>,
}

impl TargetPods {
    /// Of series with their values. A pod without a phase is no more.
    fn of(present: impl Iterator<Item = (Arc<Labels>, f64)>) -> Option<Self> {
        let mut by_name: BTreeMap<String, ScaledPod> = BTreeMap::new();
        let mut requests: BTreeMap<String, Requests> = BTreeMap::new();
        let (mut labels_of, mut knows_readiness) = (Vec::new(), false);
        for (labels, value) in present {
            let name = labels.get("pod")?;
            if labels.metric_name() == REQUESTS {
                request(requests.entry(name.to_owned()).or_default(), &labels, value);
                continue;
            }
            let pod = by_name
                .entry(name.to_owned())
                .or_insert_with_key(|name| ScaledPod { name: name.clone(), ..ScaledPod::default() });
            let holds = value == 1.0;
            match labels.metric_name() {
                PHASE if holds => pod.phase = Phase::of(labels.get("phase").unwrap_or_default()),
                READY if holds => {
                    let condition = labels.get("condition").unwrap_or_default();
                    let (is_ready, is_unready) = (condition == "true", condition == "false");
                    pod.readiness = Some(Readiness { is_ready, is_unready, since_ms: None });
                    knows_readiness = true;
                }
                TERMINATING => pod.is_terminating = true,
                LABELS => labels_of.push(labels.clone()),
                _ => {}
            }
        }
        let mut pods: Vec<ScaledPod> = by_name.into_values().filter(|pod| pod.phase != Phase::None).collect();
        for pod in &mut pods {
            pod.requests = Arc::new(requests.remove(&pod.name).unwrap_or_default());
            if !knows_readiness {
                pod.readiness = Some(Readiness { is_ready: true, is_unready: false, since_ms: None });
            }
        }
        Some(Self { pods, labels: labels_of })
    }

    /// How many count where pods are counted: those that have neither failed nor are being deleted; and how many of
    /// them have not started.
    pub(super) fn counted(&self) -> (u32, u32) {
        let counted: Vec<&ScaledPod> = self.pods.iter().filter(|pod| pod.counts()).collect();
        let pending = counted.iter().filter(|pod| pod.phase == Phase::Pending).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (count(counted.len() - pending), count(pending))
    }

    /// What the pods that have started request of a resource, in millis, by one container or all; `None`: it is
    /// not known of one of them.
    pub(super) fn requested(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let mut all = self.pods.iter().filter(|pod| pod.counts() && pod.phase != Phase::Pending);
        all.try_fold(0_i64, |sum, pod| {
            Some(sum.saturating_add(pod.requests.of_resource(resource, container)?))
        })
    }

    /// How many their workload counts among its replicas.
    pub(super) fn replicas(&self) -> u32 {
        let replicas = self.pods.iter().filter(|pod| pod.is_replica()).count();
        u32::try_from(replicas).unwrap_or(u32::MAX)
    }

    /// Whether a selector selects one of them, as far as that is known.
    pub(super) fn are_selected(&self, selector: &str) -> bool {
        let Ok(selector) = selector::parse(selector) else { return true };
        let requirements = Requirements::of(&selector);
        let has = |labels: &Arc<Labels>| requirements.hold(|key| labels.get(&kept_label(key)));
        self.labels.is_empty() || self.labels.iter().any(has)
    }
}

fn request(requests: &mut Requests, labels: &Labels, value: f64) {
    let (Some(container), Some(resource)) = (labels.get("container"), labels.get("resource")) else { return };
    let (milli, containers) = (saturating_milli(value), &mut requests.containers);
    match containers.iter_mut().find(|(name, _)| name == container) {
        Some((_, of)) => drop(of.insert(resource.to_owned(), milli)),
        None => containers.push((container.to_owned(), BTreeMap::from([(resource.to_owned(), milli)]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metric: &str, pod: &str, more: &[(&str, &str)], value: f64) -> (Arc<Labels>, f64) {
        let labels = [(METRIC_NAME_LABEL, metric), ("namespace", "shop"), ("pod", pod)];
        (Arc::new(Labels::new(labels.iter().chain(more).copied()).expect("labels")), value)
    }

    #[test]
    fn pods_are_what_their_series_say() {
        let cpu = [("container", "app"), ("resource", "cpu")];
        let found = TargetPods::of(
            [
                series(PHASE, "a", &[("phase", "Running")], 1.0),
                // As kube-state-metrics has it: one of several is 1.
                series(PHASE, "a", &[("phase", "Pending")], 0.0),
                series(READY, "a", &[("condition", "true")], 1.0),
                series(READY, "a", &[("condition", "false")], 0.0),
                series(REQUESTS, "a", &cpu, 0.25),
                series(LABELS, "a", &[("label_app_kubernetes_io_name", "web")], 1.0),
                series(PHASE, "b", &[("phase", "Running")], 1.0),
                series(READY, "b", &[("condition", "false")], 1.0),
                series(REQUESTS, "b", &cpu, 0.5),
                series(PHASE, "c", &[("phase", "Pending")], 1.0),
                series(PHASE, "d", &[("phase", "Failed")], 1.0),
                series(PHASE, "e", &[("phase", "Running")], 1.0),
                series(TERMINATING, "e", &[], 1.0),
                series(LABELS, "gone", &[("label_app_kubernetes_io_name", "web")], 1.0),
            ]
            .into_iter(),
        )
        .expect("pods");
        assert_eq!(found.pods.len(), 5);
        assert_eq!(crate::kubernetes::scaled_pods::ready(&found.pods), 1);
        assert_eq!((found.counted(), found.replicas()), ((2, 1), 3));
        assert_eq!((found.requested("cpu", None), found.requested("memory", None)), (Some(750), None));
        assert!(found.are_selected("app.kubernetes.io/name=web") && !found.are_selected("app=other"));
    }

    #[test]
    fn pods_of_which_nobody_says_whether_they_are_ready_are() {
        let found = TargetPods::of([series(PHASE, "a", &[("phase", "Running")], 1.0)].into_iter());
        let found = found.expect("pods");
        assert_eq!(crate::kubernetes::scaled_pods::ready(&found.pods), 1);
        assert!(found.are_selected("app=web"), "nothing is known of its labels");
    }
}
