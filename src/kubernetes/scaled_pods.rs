//! The pods of an autoscaler's target, told apart as its formula does.
//!
//! Facts of `groupPods` and `calculateRequests` in `pkg/controller/podautoscaler/replica_calculator.go` of Kubernetes
//! 1.36: pods that have failed or are being deleted do not count at all; those that are pending have not started;
//! of `cpu`, neither have those that are not ready after their start, whose start-up work is no load.

use super::quantity::Quantity;
use super::replica_formula::{Summary, Usage};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;

/// For how long after its start what a pod uses of `cpu` does not count while it is not ready, in milliseconds:
/// kube-controller-manager's default.
const CPU_INITIALIZATION_MS: i64 = 300_000;
/// A pod that was found not ready so soon after its start was never ready, in milliseconds: likewise.
const INITIAL_READINESS_MS: i64 = 30_000;

/// A pod's condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It is `True`.
    pub is_ready: bool,
    /// It is `False`; neither: `Unknown`.
    pub is_unready: bool,
    /// Since when it is what it is, Unix milliseconds; `None`: that is not known.
    pub since_ms: Option<i64>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScaledPod {
    /// Its name.
    pub name: String,
    /// `Pending`, `Running`, …
    pub phase: String,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// When it was started, Unix milliseconds.
    pub started_ms: Option<i64>,
    /// Its condition `Ready`, if it has one.
    pub readiness: Option<Readiness>,
    /// What each container requests, in millis, by resource.
    pub requests: Vec<(String, BTreeMap<String, i64>)>,
}

/// What a pod uses of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// How much, in millis.
    pub milli: i64,
    /// When it was measured, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Over which time, in milliseconds.
    pub window_ms: i64,
}

/// How a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    NotAtAll,
    AsPending,
    AsMissing,
    /// With this value.
    With(i64),
}

impl From<Pod> for ScaledPod {
    fn from(pod: Pod) -> Self {
        let (status, spec) = (pod.status.unwrap_or_default(), pod.spec.unwrap_or_default());
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let readiness = ready.map(|condition| Readiness {
            is_ready: condition.status == "True",
            is_unready: condition.status == "False",
            since_ms: condition.last_transition_time.as_ref().map(|time| time.0.as_millisecond()),
        });
        // Init containers that go on beside the others count with them.
        let sidecars = spec.init_containers.into_iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        Self {
            name: pod.metadata.name.unwrap_or_default(),
            phase: status.phase.unwrap_or_default(),
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
            started_ms: status.start_time.map(|time| time.0.as_millisecond()),
            readiness,
            requests: spec.containers.into_iter().chain(sidecars).map(requests).collect(),
        }
    }
}

fn requests(container: Container) -> (String, BTreeMap<String, i64>) {
    let requests = container.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let milli = |text: &str| Quantity::parse(text).ok()?.milli();
    let requests = requests.into_iter().filter_map(|(name, text)| Some((name, milli(&text.0)?)));
    (container.name, requests.collect())
}

impl ScaledPod {
    /// Whether it is running, and ready: then it counts for metrics of other objects.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == "Running" && self.readiness.is_some_and(|readiness| readiness.is_ready)
    }

    fn counts(&self, is_cpu: bool, used: Option<&Used>, now_ms: i64) -> Counts {
        if self.is_terminating || self.phase == "Failed" {
            return Counts::NotAtAll;
        }
        if self.phase == "Pending" {
            return Counts::AsPending;
        }
        match used {
            None => Counts::AsMissing,
            Some(used) if is_cpu && self.is_starting(used, now_ms) => Counts::AsPending,
            Some(used) => Counts::With(used.milli),
        }
    }

    /// Whether what it uses of `cpu` is its start-up work. Where times are not known, whether it is not ready.
    fn is_starting(&self, used: &Used, now_ms: i64) -> bool {
        let Some(readiness) = self.readiness else { return true };
        let (Some(started_ms), Some(since_ms)) = (self.started_ms, readiness.since_ms) else {
            return readiness.is_unready;
        };
        if started_ms.saturating_add(CPU_INITIALIZATION_MS) > now_ms {
            let is_before = |measured_ms| measured_ms < since_ms.saturating_add(used.window_ms);
            return readiness.is_unready || used.timestamp_ms.is_some_and(is_before);
        }
        readiness.is_unready && started_ms.saturating_add(INITIAL_READINESS_MS) > since_ms
    }

    /// What it requests of a resource, in millis, by one container or all; `None`: one of them says nothing.
    #[must_use]
    pub fn requested(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let mut of = self.requests.iter().filter(|(name, _)| container.is_none_or(|wanted| wanted == name));
        of.try_fold(0_i64, |sum, (_, requests)| sum.checked_add(*requests.get(resource)?))
    }
}

/// The label under which kube-state-metrics keeps a label of an object.
#[must_use]
pub fn kept_label(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    format!("label_{}", name.chars().map(allowed).collect::<String>())
}

/// How many of them are ready.
#[must_use]
pub fn ready(pods: &[ScaledPod]) -> u32 {
    u32::try_from(pods.iter().filter(|pod| pod.is_ready()).count()).unwrap_or(u32::MAX)
}

/// The values of a metric of pods, summed up; `None`: none is of a pod that counts.
#[must_use]
pub fn summary(pods: &[ScaledPod], values: &BTreeMap<&str, f64>) -> Option<Summary> {
    let mut summary = Summary::default();
    for pod in pods {
        let value = values.get(pod.name.as_str());
        // The value itself is no matter here.
        let used = value.map(|_| Used { milli: 0, timestamp_ms: None, window_ms: 0 });
        match pod.counts(false, used.as_ref(), 0) {
            Counts::NotAtAll => {}
            Counts::AsPending => summary.pending += 1,
            Counts::AsMissing => summary.missing += 1,
            Counts::With(_) => {
                summary.items += 1;
                summary.sum += value.copied().unwrap_or_default();
            }
        }
    }
    (summary.items > 0).then_some(summary)
}

/// What pods use of a resource, by pod.
pub type UsedByPod = BTreeMap<String, Used>;

/// What they use of a resource against a target that is an amount, summed up (in whole units); `None`: none is of a
/// pod that counts.
#[must_use]
pub fn summary_of_usage(
    pods: &[ScaledPod],
    resource: &str,
    used: &UsedByPod,
    now_ms: i64,
) -> Option<Summary> {
    let usage = counted(pods, resource, used, now_ms, |_| Some(0))?;
    #[expect(clippy::cast_precision_loss, reason = "millis of cores and bytes")]
    let sum = usage.used as f64 / 1e3;
    Some(Summary { sum, items: usage.items, missing: usage.missing, pending: usage.pending })
}

/// What they use of a resource against what they request.
///
/// # Errors
/// Why nothing can be made of it.
pub fn usage(
    pods: &[ScaledPod],
    (resource, container): (&str, Option<&str>),
    used: &UsedByPod,
    now_ms: i64,
) -> Result<Usage, String> {
    let silent = pods.iter().find(|pod| pod.requested(resource, container).is_none());
    if let Some(pod) = silent {
        return Err(format!("a container of pod {} has no request of {resource}", pod.name));
    }
    let usage = counted(pods, resource, used, now_ms, |pod| pod.requested(resource, container));
    usage.ok_or_else(|| "no value of a pod that has started".to_owned())
}

fn counted(
    pods: &[ScaledPod],
    resource: &str,
    used: &UsedByPod,
    now_ms: i64,
    requested: impl Fn(&ScaledPod) -> Option<i64>,
) -> Option<Usage> {
    let mut usage = Usage::default();
    for pod in pods {
        let request = requested(pod)?;
        match pod.counts(resource == "cpu", used.get(&pod.name), now_ms) {
            Counts::NotAtAll => {}
            Counts::AsPending => {
                usage.pending += 1;
                usage.requested_by_pending += request;
            }
            Counts::AsMissing => {
                usage.missing += 1;
                usage.requested_by_missing += request;
            }
            Counts::With(milli) => {
                usage.items += 1;
                usage.used = usage.used.saturating_add(milli);
                usage.requested += request;
            }
        }
    }
    (usage.items > 0).then_some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-11-22T10:00:00Z";
    const NOW_MS: i64 = 1_795_341_600_000;

    /// A pod that was started and got what readiness it has so many seconds ago.
    fn pod(name: &str, phase: &str, ready: &str, ago_seconds: [i64; 2]) -> ScaledPod {
        let now: jiff::Timestamp = NOW.parse().expect("a time");
        assert_eq!(now.as_millisecond(), NOW_MS);
        let ago = |seconds: i64| jiff::Timestamp::from_millisecond(NOW_MS - seconds * 1_000).expect("a time");
        let [started, since] = ago_seconds.map(|seconds| ago(seconds).to_string());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [
                    {"name": "app", "resources": {"requests": {"cpu": "800m", "memory": "1Gi"}}},
                    {"name": "log", "resources": {"requests": {"cpu": "100m"}}}],
                "initContainers": [
                    {"name": "once", "resources": {"requests": {"cpu": "5"}}},
                    {"name": "mesh", "restartPolicy": "Always", "resources": {"requests": {"cpu": "0.1"}}}],
            },
            "status": {"phase": phase, "startTime": started,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
        }))
        .expect("a pod");
        pod.into()
    }

    fn terminating(pod: ScaledPod) -> ScaledPod {
        ScaledPod { is_terminating: true, ..pod }
    }

    fn used(of: &[(&str, i64)]) -> UsedByPod {
        let used = |milli| Used { milli, timestamp_ms: Some(NOW_MS - 20_000), window_ms: 15_000 };
        of.iter().map(|(name, milli)| ((*name).to_owned(), used(*milli))).collect()
    }

    #[test]
    fn pods_are_told_apart_as_the_controller_does() {
        let old = [3_600, 3_500];
        let pods = [
            pod("a", "Running", "True", old),
            pod("b", "Running", "False", old),
            pod("c", "Pending", "False", old),
            pod("d", "Failed", "False", old),
            terminating(pod("e", "Running", "True", old)),
        ];
        assert_eq!(ready(&pods), 2, "one that is being deleted is ready until it is not");
        let values = BTreeMap::from([("a", 2.0), ("c", 30.0), ("e", 400.0)]);
        let expected = Summary { sum: 2.0, items: 1, missing: 1, pending: 1 };
        assert_eq!(summary(&pods, &values), Some(expected));
        assert_eq!(summary(&pods, &BTreeMap::from([("c", 1.0)])), None);
    }

    #[test]
    fn the_start_up_of_a_pod_is_no_load_of_cpu() {
        for (ready, ago_seconds, is_starting) in [
            ("True", [3_600, 3_500], false),
            // Long ready once, and not any more: its load counts.
            ("False", [3_600, 60], false),
            // Never ready.
            ("False", [3_600, 3_590], true),
            // Within five minutes of its start: not ready, or measured before a window after it became so.
            ("False", [200, 60], true),
            ("True", [200, 60], false),
            ("True", [200, 30], true),
        ] {
            let pods = [pod("a", "Running", ready, ago_seconds)];
            let found = summary_of_usage(&pods, "cpu", &used(&[("a", 500)]), NOW_MS);
            let counts = Summary { sum: 0.5, items: 1, ..Summary::default() };
            assert_eq!(found, (!is_starting).then_some(counts), "{ready} {ago_seconds:?}");
            // Memory counts from the beginning.
            assert_eq!(summary_of_usage(&pods, "memory", &used(&[("a", 500)]), NOW_MS), Some(counts));
        }
    }

    #[test]
    fn requests_are_those_of_all_containers_or_of_one() {
        let old = [3_600, 3_500];
        let pods = [
            pod("a", "Running", "True", old),
            pod("b", "Running", "True", old),
            pod("c", "Pending", "False", old),
        ];
        let of = |container| usage(&pods, ("cpu", container), &used(&[("a", 700)]), NOW_MS);
        let expected = |each| Usage {
            used: 700,
            items: 1,
            requested: each,
            missing: 1,
            requested_by_missing: each,
            pending: 1,
            requested_by_pending: each,
        };
        assert_eq!(of(None), Ok(expected(1_000)));
        assert_eq!(of(Some("app")), Ok(expected(800)));
        assert_eq!(of(None).ok().and_then(|usage| usage.utilization()), Some(70));
        let error = usage(&pods, ("memory", None), &used(&[("a", 1)]), NOW_MS).expect_err("refused");
        assert_eq!(error, "a container of pod a has no request of memory");
        assert!(usage(&pods, ("memory", Some("app")), &used(&[("a", 1)]), NOW_MS).is_ok());
        assert!(usage(&pods, ("cpu", None), &used(&[]), NOW_MS).is_err());
    }
}
