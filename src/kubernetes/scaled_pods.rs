//! The pods of an autoscaler's target, told apart as its formula does.
//!
//! Facts of `groupPods` and `calculateRequests` in `pkg/controller/podautoscaler/replica_calculator.go` of Kubernetes
//! 1.36: pods that have failed or are being deleted do not count at all; those that are pending have not started;
//! of `cpu`, neither have those that are not ready after their start, whose start-up work is no load.

use super::controller_settings::ControllerSettings;
use super::pod::{Container, Pod, PodSpec};
use super::quantity::Quantity;
use super::replica_formula::{Requested, Summary};
use k8s_openapi::apimachinery::pkg::api::resource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod's phase, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has not started.
    Pending,
    /// It runs.
    Running,
    /// All of its containers ended, and one of them failed.
    Failed,
    /// All of its containers ended well.
    Succeeded,
    /// Its node does not say.
    Unknown,
    /// It has none.
    #[default]
    None,
}

impl Phase {
    /// That of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Failed" => Self::Failed,
            "Succeeded" => Self::Succeeded,
            "" => Self::None,
            _ => Self::Unknown,
        }
    }
}

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

/// Amounts in millis, by resource.
type ByResource = BTreeMap<String, i64>;

/// What a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// Each container that goes on beside the others.
    pub containers: Vec<(String, ByResource)>,
    /// The pod as a whole, where it says so, with what its runtime takes.
    pub pod: Option<ByResource>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScaledPod {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// When it was started, Unix milliseconds.
    pub started_ms: Option<i64>,
    /// Its condition `Ready`, if it has one.
    pub readiness: Option<Readiness>,
    /// What it requests. Pods of one workload share it.
    pub requests: Arc<Requests>,
}

/// What a pod has of a metric, or uses of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// How much, in millis.
    pub milli: i64,
    /// When it was measured, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Over which time, in milliseconds.
    pub window_ms: i64,
}

/// What pods have of a metric, or use of a resource, by pod.
pub type UsedByPod = BTreeMap<String, Used>;

impl From<Pod> for ScaledPod {
    fn from(pod: Pod) -> Self {
        Self::of(&pod)
    }
}

impl Requests {
    fn of(spec: &PodSpec) -> Self {
        // Init containers that go on beside the others count with them.
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let of_container = |container: &Container| {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            (container.name.clone(), requests.map(millis).unwrap_or_default())
        };
        let containers = spec.containers.iter().flatten().chain(sidecars).map(of_container).collect();
        let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()).map(millis);
        let is_of_pods = |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
        let mut pod = whole.unwrap_or_default();
        pod.retain(|name, _| is_of_pods(name));
        let overhead = spec.overhead.as_ref().map(millis).unwrap_or_default();
        for (name, milli) in &mut pod {
            *milli = milli.saturating_add(overhead.get(name).copied().unwrap_or_default());
        }
        Self { containers, pod: (!pod.is_empty()).then_some(pod) }
    }

    /// In millis of a resource, by one container or the whole pod; `None`: a container, or the pod, says nothing, or
    /// there is no such container. Of pods that request as a whole kube-apiserver has filled in what they left out.
    #[must_use]
    pub fn of_resource(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        if let (Some(pod), None) = (&self.pod, container) {
            return pod.get(resource).copied();
        }
        let mut of = self.containers.iter().filter(|(name, _)| container.is_none_or(|wanted| wanted == name));
        let first = of.next()?.1.get(resource).copied()?;
        of.try_fold(first, |sum, (_, requests)| sum.checked_add(*requests.get(resource)?))
    }
}

fn millis(of: &BTreeMap<String, resource::Quantity>) -> ByResource {
    let milli = |text: &str| Quantity::parse(text).ok()?.milli();
    of.iter().filter_map(|(name, text)| Some((name.clone(), milli(&text.0)?))).collect()
}

impl ScaledPod {
    /// As the cluster has it.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let readiness = ready.map(|condition| Readiness {
            is_ready: condition.status == "True",
            is_unready: condition.status == "False",
            since_ms: condition.last_transition_time.as_ref().map(|time| time.0.as_millisecond()),
        });
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let started = status.and_then(|status| status.start_time.as_ref());
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            phase: Phase::of(phase),
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
            started_ms: started.map(|time| time.0.as_millisecond()),
            readiness,
            requests: Arc::new(pod.spec.as_ref().map(Requests::of).unwrap_or_default()),
        }
    }

    /// Whether it is running, and ready: then it counts for metrics of other objects.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.readiness.is_some_and(|readiness| readiness.is_ready)
    }

    /// Whether it counts where metrics of pods are counted.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.is_terminating && self.phase != Phase::Failed
    }

    /// Whether its workload counts it among its replicas.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.counts() && self.phase != Phase::Succeeded
    }

    /// Whether what it uses of `cpu` is its start-up work. Where times are not known, whether it is not ready.
    fn is_starting(&self, used: &Used, now_ms: i64, controller: &ControllerSettings) -> bool {
        let Some(readiness) = self.readiness else { return true };
        let (Some(started_ms), Some(since_ms)) = (self.started_ms, readiness.since_ms) else {
            return readiness.is_unready || self.started_ms.is_none() && readiness.since_ms.is_some();
        };
        if started_ms.saturating_add(controller.cpu_initialization_ms) > now_ms {
            let is_before = |measured_ms| measured_ms < since_ms.saturating_add(used.window_ms);
            return readiness.is_unready || used.timestamp_ms.is_some_and(is_before);
        }
        readiness.is_unready && started_ms.saturating_add(controller.initial_readiness_ms) > since_ms
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
    count(pods.iter().filter(|pod| pod.is_ready()).count())
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Pods, told apart by what they have of a metric or use of a resource.
#[derive(Debug)]
pub struct Apart<'a> {
    all: &'a [ScaledPod],
    sum_milli: i64,
    with_value: Vec<&'a ScaledPod>,
    missing: Vec<&'a ScaledPod>,
    pending: Vec<&'a ScaledPod>,
}

impl<'a> Apart<'a> {
    /// These. `resource` is empty for a metric.
    #[must_use]
    pub fn of(
        all: &'a [ScaledPod],
        resource: &str,
        used: &UsedByPod,
        now_ms: i64,
        controller: &ControllerSettings,
    ) -> Self {
        let mut apart =
            Self { all, sum_milli: 0, with_value: Vec::new(), missing: Vec::new(), pending: Vec::new() };
        for pod in all.iter().filter(|pod| pod.counts()) {
            let is_starting = |used: &Used| resource == "cpu" && pod.is_starting(used, now_ms, controller);
            match used.get(&pod.name) {
                _ if pod.phase == Phase::Pending => apart.pending.push(pod),
                None => apart.missing.push(pod),
                Some(used) if is_starting(used) => apart.pending.push(pod),
                Some(used) => {
                    apart.with_value.push(pod);
                    apart.sum_milli = apart.sum_milli.saturating_add(used.milli);
                }
            }
        }
        apart
    }

    /// Counted.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            sum_milli: self.sum_milli,
            items: count(self.with_value.len()),
            missing: count(self.missing.len()),
            pending: count(self.pending.len()),
        }
    }

    /// What they request of a resource, by one container or all.
    ///
    /// # Errors
    /// Which pod says nothing, of all that are selected: then nothing can be made of what they use.
    pub fn requested(&self, resource: &str, container: Option<&str>) -> Result<Requested, String> {
        let of = |pod: &ScaledPod| pod.requests.of_resource(resource, container);
        if let Some(pod) = self.all.iter().find(|pod| of(pod).is_none()) {
            let whose =
                container.map_or_else(|| "a container".to_owned(), |name| format!("container {name}"));
            return Err(format!("{whose} of pod {} has no request of {resource}", pod.name));
        }
        let sum =
            |pods: &[&ScaledPod]| pods.iter().filter_map(|pod| of(pod)).fold(0_i64, i64::saturating_add);
        Ok(Requested {
            counted: sum(&self.with_value),
            missing: sum(&self.missing),
            pending: sum(&self.pending),
        })
    }
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

    fn apart<'a>(pods: &'a [ScaledPod], resource: &str, used: &UsedByPod) -> Apart<'a> {
        Apart::of(pods, resource, used, NOW_MS, &ControllerSettings::default())
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
        let used = used(&[("a", 2_000), ("c", 30_000), ("e", 400_000), ("stranger", 5_000_000)]);
        let expected = Summary { sum_milli: 2_000, items: 1, missing: 1, pending: 1 };
        assert_eq!(apart(&pods, "", &used).summary(), expected);
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
            let counts = Summary { sum_milli: 500, items: 1, ..Summary::default() };
            let starts = Summary { pending: 1, ..Summary::default() };
            let expected = if is_starting { starts } else { counts };
            let found = apart(&pods, "cpu", &used(&[("a", 500)])).summary();
            assert_eq!(found, expected, "{ready} {ago_seconds:?}");
            // Memory counts from the beginning, and so does a metric of this name.
            assert_eq!(apart(&pods, "memory", &used(&[("a", 500)])).summary(), counts);
            assert_eq!(apart(&pods, "", &used(&[("a", 500)])).summary(), counts);
        }
        // As the controller's flags have it.
        let controller = ControllerSettings {
            cpu_initialization_ms: 100_000,
            initial_readiness_ms: 150_000,
            ..ControllerSettings::default()
        };
        let summary = |ready, ago_seconds| {
            let pods = [pod("a", "Running", ready, ago_seconds)];
            Apart::of(&pods, "cpu", &used(&[("a", 500)]), NOW_MS, &controller).summary()
        };
        assert_eq!(summary("True", [200, 30]).items, 1, "its first 100 s are over");
        assert_eq!(summary("False", [200, 60]).pending, 1, "not ready within 150 s of its start");
        let mut unknown = pod("a", "Running", "True", [200, 60]);
        unknown.started_ms = None;
        assert_eq!(apart(&[unknown], "cpu", &used(&[("a", 500)])).summary().pending, 1, "it has no start");
    }

    #[test]
    fn requests_are_those_of_all_containers_or_of_one() {
        let old = [3_600, 3_500];
        let pods = [
            pod("a", "Running", "True", old),
            pod("b", "Running", "True", old),
            pod("c", "Pending", "False", old),
        ];
        let used = used(&[("a", 700)]);
        let apart = apart(&pods, "cpu", &used);
        let expected = |each| Ok(Requested { counted: each, missing: each, pending: each });
        assert_eq!(apart.requested("cpu", None), expected(1_000));
        assert_eq!(apart.requested("cpu", Some("app")), expected(800));
        let requested = apart.requested("cpu", None).expect("known");
        assert_eq!(crate::kubernetes::replica_formula::utilization(apart.summary(), requested), Some(70));
        let refused = |resource, container| apart.requested(resource, container).expect_err("refused");
        assert_eq!(refused("memory", None), "a container of pod a has no request of memory");
        assert_eq!(refused("cpu", Some("none")), "container none of pod a has no request of cpu");
        assert!(apart.requested("memory", Some("app")).is_ok());
        assert_eq!(
            super::Apart::of(&[], "cpu", &used, NOW_MS, &ControllerSettings::default()).summary().items,
            0
        );
    }

    #[test]
    fn a_pod_that_requests_as_a_whole_goes_before_its_containers() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {
            "overhead": {"cpu": "50m", "memory": "1"},
            "resources": {"requests": {"cpu": "2", "example.com/gpu": "1"}},
            "containers": [{"name": "app", "resources": {"requests": {"cpu": "800m", "memory": "1Ki"}}}],
        }}))
        .expect("a pod");
        let requests = ScaledPod::of(&pod).requests;
        assert_eq!(requests.of_resource("cpu", None), Some(2_050));
        assert_eq!(requests.of_resource("cpu", Some("app")), Some(800));
        assert_eq!(requests.of_resource("memory", None), None, "kube-apiserver would have filled it in");
        assert_eq!(requests.of_resource("example.com/gpu", None), None);
    }
}
