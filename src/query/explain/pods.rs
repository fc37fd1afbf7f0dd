//! The pods of an autoscaler's target at a moment, as they are remembered under kube-state-metrics' names.

use super::LOOK_BACK_MS;
use super::moment::newest;
use crate::kubernetes::scaled_pods::{Readiness, ScaledPod, kept_label};
use crate::kubernetes::selector::{self, Requirements};
use crate::query::range::Owners;
use crate::store::{Context, Store, StoreError};
use lookback_storage::{Labels, METRIC_NAME_LABEL, Matcher};
use std::collections::BTreeMap;
use std::sync::Arc;

const PHASE: &str = "kube_pod_status_phase";
const READY: &str = "kube_pod_status_ready";
const TERMINATING: &str = "lookback_pod_terminating";
const LABELS: &str = "kube_pod_labels";
const REQUESTS: &str = "kube_pod_container_resource_requests";

/// The pods of a target.
pub(super) struct TargetPods {
    /// Those that were there.
    pub(super) pods: Vec<ScaledPod>,
    /// The labels of each of which they are known.
    labels: Vec<Arc<Labels>>,
}

impl TargetPods {
    /// Those of a workload of this kind and name; `None`: nothing is remembered of them.
    pub(super) async fn read(
        store: &dyn Store,
        context: &Context,
        (namespace, kind, name): (&str, &str, &str),
        at_ms: i64,
        samples_max: usize,
    ) -> Result<Option<Self>, StoreError> {
        let owners = Owners { store, context, namespace, start_ms: at_ms, end_ms: at_ms, samples_max };
        let mut by_kind = owners.pods_by_kind(name).await?;
        let Some(owned) = by_kind.remove(kind).filter(|owned| !owned.is_empty()) else { return Ok(None) };
        let metrics = [PHASE, READY, TERMINATING, LABELS, REQUESTS];
        let matchers = [
            Matcher::one_of(METRIC_NAME_LABEL, metrics.into_iter()),
            Matcher::equal("namespace", namespace),
            Matcher::one_of("pod", owned.iter().map(String::as_str)),
        ];
        let from_ms = at_ms.saturating_sub(LOOK_BACK_MS);
        let found = store.select(context, &matchers, from_ms, at_ms, samples_max).await?;
        let present = found.into_iter().filter_map(|series| {
            let value = newest(&series.samples, at_ms)?.value;
            Some((series.labels, value))
        });
        Ok(Self::of(present).filter(|found| !found.pods.is_empty()))
    }

    /// Of series with their values. A pod without a phase is no more.
    fn of(present: impl Iterator<Item = (Arc<Labels>, f64)>) -> Option<Self> {
        let mut by_name: BTreeMap<String, ScaledPod> = BTreeMap::new();
        let (mut labels_of, mut knows_readiness) = (Vec::new(), false);
        for (labels, value) in present {
            let name = labels.get("pod")?.to_owned();
            let pod = by_name
                .entry(name)
                .or_insert_with_key(|name| ScaledPod { name: name.clone(), ..ScaledPod::default() });
            let holds = value == 1.0;
            match labels.metric_name() {
                PHASE if holds => pod.phase = labels.get("phase").unwrap_or_default().to_owned(),
                READY if holds => {
                    let condition = labels.get("condition").unwrap_or_default();
                    let (is_ready, is_unready) = (condition == "true", condition == "false");
                    pod.readiness = Some(Readiness { is_ready, is_unready, since_ms: None });
                    knows_readiness = true;
                }
                TERMINATING => pod.is_terminating = true,
                LABELS => labels_of.push(labels.clone()),
                REQUESTS => request(pod, &labels, value),
                _ => {}
            }
        }
        let mut pods: Vec<ScaledPod> = by_name.into_values().filter(|pod| !pod.phase.is_empty()).collect();
        if !knows_readiness {
            let ready = Readiness { is_ready: true, is_unready: false, since_ms: None };
            pods.iter_mut().for_each(|pod| pod.readiness = Some(ready));
        }
        Some(Self { pods, labels: labels_of })
    }

    /// How many count where pods are counted: those that have neither failed nor are being deleted; and how many of
    /// them have not started.
    pub(super) fn counted(&self) -> (u32, u32) {
        let counts = |pod: &&ScaledPod| !pod.is_terminating && pod.phase != "Failed";
        let counted: Vec<&ScaledPod> = self.pods.iter().filter(counts).collect();
        let pending = counted.iter().filter(|pod| pod.phase == "Pending").count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (count(counted.len() - pending), count(pending))
    }

    /// What the pods that have started request of a resource, in millis, by one container or all; `None`: it is
    /// not known of one of them.
    pub(super) fn requested(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let started =
            |pod: &&ScaledPod| !pod.is_terminating && pod.phase != "Failed" && pod.phase != "Pending";
        let mut all = self.pods.iter().filter(started);
        all.try_fold(0_i64, |sum, pod| {
            let requested = pod.requested(resource, container).filter(|_| !pod.requests.is_empty())?;
            Some(sum.saturating_add(requested))
        })
    }

    /// Whether a selector selects one of them, as far as that is known.
    pub(super) fn are_selected(&self, selector: &str) -> bool {
        let Ok(selector) = selector::parse(selector) else { return true };
        let requirements = Requirements::of(&selector);
        let has = |labels: &Arc<Labels>| requirements.hold(|key| labels.get(&kept_label(key)));
        self.labels.is_empty() || self.labels.iter().any(has)
    }
}

fn request(pod: &mut ScaledPod, labels: &Labels, value: f64) {
    let (Some(container), Some(resource)) = (labels.get("container"), labels.get("resource")) else { return };
    #[expect(clippy::cast_possible_truncation, reason = "millis of cores and bytes; a cast saturates")]
    let milli = (value * 1e3).round() as i64;
    match pod.requests.iter_mut().find(|(name, _)| name == container) {
        Some((_, requests)) => drop(requests.insert(resource.to_owned(), milli)),
        None => pod.requests.push((container.to_owned(), BTreeMap::from([(resource.to_owned(), milli)]))),
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
        assert_eq!(found.counted(), (2, 1));
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
