//! Worked examples of the controller's own formulas, from the real engine.

use super::*;
use crate::testing::{NOW_MS, TestApp};

const HPA: [(&str, &str); 2] = [("namespace", "shop"), ("horizontalpodautoscaler", "web")];

/// A store of series about an autoscaler of 4 replicas, from 1 to 20, and its target's pods.
struct Past(TestApp);

impl Past {
    fn new() -> Self {
        let past = Self(TestApp::new());
        for (metric, value) in
            [("spec_min_replicas", 1.0), ("spec_max_replicas", 20.0), ("status_current_replicas", 4.0)]
        {
            past.hpa(&format!("kube_horizontalpodautoscaler_{metric}"), &[], 250, value);
        }
        let target = [("scaletargetref_kind", "Deployment"), ("scaletargetref_name", "web")];
        past.hpa("kube_horizontalpodautoscaler_info", &target, 250, 1.0);
        past.put(
            "kube_replicaset_owner",
            &[
                ("namespace", "shop"),
                ("replicaset", "web-1"),
                ("owner_kind", "Deployment"),
                ("owner_name", "web"),
            ],
            0,
            1.0,
        );
        past
    }

    fn put(&self, metric: &str, labels: &[(&str, &str)], ago_seconds: i64, value: f64) {
        let labels: Vec<_> = labels.iter().copied().chain([("__name__", metric)]).collect();
        self.0.put(&labels, NOW_MS - ago_seconds * 1_000, value);
    }

    fn hpa(&self, metric: &str, more: &[(&str, &str)], ago_seconds: i64, value: f64) {
        self.put(metric, &[&HPA[..], more].concat(), ago_seconds, value);
    }

    fn target(&self, name: &str, source: &str, kind: &str, more: &[(&str, &str)], value: f64) {
        let labels = [("metric_name", name), ("metric_source", source), ("metric_target_type", kind)];
        self.hpa(
            "kube_horizontalpodautoscaler_spec_target_metric",
            &[&labels[..], more].concat(),
            250,
            value,
        );
    }

    fn answered(
        &self,
        (metric, object, selector): (&str, &str, &str),
        ago_seconds: i64,
        items: f64,
        sum: f64,
    ) {
        let labels =
            [("answered_metric", metric), ("answered_object", object), ("answered_selector", selector)];
        self.hpa("lookback_autoscaler_answer_items", &labels, ago_seconds, items);
        self.hpa("lookback_autoscaler_answer_sum", &labels, ago_seconds, sum);
    }

    /// What counted of an answer: sum, items, missing, pending; and what these pods request.
    fn counted(
        &self,
        (metric, object, selector): (&str, &str, &str),
        ago_seconds: i64,
        counted: [f64; 4],
        requested: Option<[f64; 3]>,
    ) {
        let labels =
            [("answered_metric", metric), ("answered_object", object), ("answered_selector", selector)];
        let counted =
            ["counted_sum", "counted_items", "counted_missing", "counted_pending"].into_iter().zip(counted);
        let whose = ["requested_by_counted", "requested_by_missing", "requested_by_pending"];
        let requested = requested.into_iter().flat_map(|requested| whose.into_iter().zip(requested));
        for (what, value) in counted.chain(requested) {
            self.hpa(&format!("lookback_autoscaler_{what}"), &labels, ago_seconds, value);
        }
    }

    /// A pod of the target with 500m of cpu.
    fn pod(&self, name: &str, phase: &str, ready: &str) {
        let of = |more: &[(&'static str, &str)]| -> Vec<(String, String)> {
            let all = [("namespace", "shop"), ("pod", name)].into_iter().chain(more.iter().copied());
            all.map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
        };
        for (metric, labels, value) in [
            ("kube_pod_owner", of(&[("owner_kind", "ReplicaSet"), ("owner_name", "web-1")]), 1.0),
            ("kube_pod_status_phase", of(&[("phase", phase)]), 1.0),
            ("kube_pod_status_ready", of(&[("condition", ready)]), 1.0),
            ("kube_pod_labels", of(&[("label_app", "web")]), 1.0),
            ("kube_pod_container_resource_requests", of(&[("container", "app"), ("resource", "cpu")]), 0.5),
        ] {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(l, v)| (l.as_str(), v.as_str())).collect();
            self.put(metric, &labels, 0, value);
        }
    }

    async fn said(&self, ago_seconds: i64) -> String {
        let at_ms = NOW_MS - ago_seconds * 1_000;
        let said = explain(
            self.0.store.as_ref(),
            &self.0.context(),
            &self.0.app.settings.controller,
            ("shop", "web"),
            at_ms,
        )
        .await;
        said.expect("read").expect("something is remembered")
    }
}

#[track_caller]
fn has(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
}

const RPS: (&str, &str, &str) = ("rps", "pods/*", "app=web");

#[tokio::test]
async fn pods_that_have_not_started_count_as_the_controller_counts_them() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.answered(RPS, 0, 2.0, 60.0);
    // Nothing is remembered of the pods: 60 / 2 / 10 = 3 times two.
    let said = past.said(0).await;
    has(
        &said,
        &["nothing is remembered of their phases", "by the autoscaler's formula (tolerance 0.1): 6 replicas"],
    );
    // One is missing and one has not started: 60 / 4 / 10 = 1.5 times four, of 4.
    for (name, phase, ready) in [
        ("a", "Running", "true"),
        ("b", "Running", "true"),
        ("c", "Running", "false"),
        ("d", "Pending", "false"),
    ] {
        past.pod(name, phase, ready);
    }
    let said = past.said(0).await;
    has(
        &said,
        &[
            "pods: 3 started, 2 ready, 1 pending, 0 failed or being deleted",
            "tolerance 0.1): 6 replicas",
            "so: 6 replicas",
        ],
    );
    // 44 / 4 / 10 = 1.1 is within the tolerance.
    past.answered(RPS, -1, 2.0, 44.0);
    has(&past.said(-1).await, &["tolerance 0.1): 4 replicas"]);
    // A metric of another object goes by those that are ready: 3 times two.
    past.target("queue", "object", "value", &[], 5.0);
    past.answered(("queue", "services/web", ""), -1, 1.0, 15.0);
    has(&past.said(-1).await, &["asked: services/web\n", "tolerance 0.1): 6 replicas"]);
}

#[tokio::test]
async fn an_answer_to_another_autoscalers_selector_is_not_taken_for_its_own() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.pod("a", "Running", "true");
    past.answered(RPS, 10, 1.0, 30.0);
    past.answered(("rps", "pods/*", "app=other"), 5, 1.0, 900.0);
    has(&past.said(0).await, &["selected by app=web", "sum 30,"]);
}

#[tokio::test]
async fn what_pods_use_is_held_against_what_they_request() {
    let past = Past::new();
    past.target("cpu", "resource", "utilization", &[], 60.0);
    for name in ["a", "b", "c", "d"] {
        past.pod(name, "Running", "true");
    }
    has(
        &past.said(0).await,
        &["not asked of Lookback in the 5 minutes before: another serves metrics.k8s.io"],
    );
    past.answered(("cpu", "metrics.k8s.io pods/*", "app=web"), 0, 4.0, 1.8);
    // 1800m of 2000m are 90 %: 1.5 times four.
    has(&past.said(0).await, &["that is 90 % of what they request", "tolerance 0.1): 6 replicas"]);
    // One of them says nothing: as if idle, 1350m of 2000m are 67 %, which is 1.12 times four.
    past.answered(("cpu", "metrics.k8s.io pods/*", "app=web"), -1, 3.0, 1.35);
    has(&past.said(-1).await, &["that is 90 % of what they request", "tolerance 0.1): 5 replicas"]);
    // Of one container, and an amount.
    let past = Past::new();
    past.target("memory", "containerresource", "average", &[("container", "app")], 100.0);
    past.answered(("memory", "metrics.k8s.io pods/* container app", "app=web"), 0, 4.0, 1_000.0);
    has(
        &past.said(0).await,
        &["metric memory of container app (containerresource)", "tolerance 0.1): 10 replicas"],
    );
    past.target("cpu", "resource", "utilization", &[], 60.0);
    past.answered(("cpu", "metrics.k8s.io pods/*", "app=web"), 0, 4.0, 1.8);
    has(&past.said(0).await, &["what its pods request is not remembered"]);
}

#[tokio::test]
async fn its_behavior_decides_how_far_it_goes_now() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    // By default it doubles at the most.
    past.answered(RPS, 200, 4.0, 300.0);
    has(&past.said(200).await, &["together: the most, 30, within its bounds 20"]);
    has(
        &past.said(100).await,
        &["step: 8, which is as far as the default behavior and its bounds go at once", "so: 8 replicas"],
    );
    // Down only as far as the most of five minutes.
    past.answered(RPS, 0, 4.0, 8.0);
    let said = past.said(0).await;
    has(
        &said,
        &[
            "together: the most, 1, within its bounds 1",
            "stabilization: 20, going by the most that it asked for in 300 s",
        ],
    );

    // Its own: a pod a minute up, at once down by half in five minutes, of which one is gone already.
    for (direction, window, tolerance) in [("up", 0.0, 0.1), ("down", 60.0, 0.5)] {
        let direction = ("direction", direction);
        past.hpa("lookback_autoscaler_behavior_stabilization_seconds", &[direction], 0, window);
        past.hpa("lookback_autoscaler_behavior_tolerance", &[direction], 0, tolerance);
        past.hpa(
            "lookback_autoscaler_behavior_select_policy",
            &[direction, ("select_policy", "Max")],
            0,
            1.0,
        );
        let (kind, period, value) =
            if direction.1 == "up" { ("Pods", "60", 1.0) } else { ("Percent", "300", 50.0) };
        let policy = [direction, ("policy_type", kind), ("period_seconds", period)];
        past.hpa("lookback_autoscaler_behavior_policy", &policy, 0, value);
    }
    past.hpa("kube_horizontalpodautoscaler_status_current_replicas", &[], 120, 5.0);
    past.hpa("kube_horizontalpodautoscaler_status_current_replicas", &[], 60, 4.0);
    let said = past.said(0).await;
    // Of five at the beginning of the period half are three, rounded down to two.
    has(
        &said,
        &[
            "(tolerance 0.1 up, 0.5 down): 1 replicas",
            "step: 2, which is as far as its behavior's policies",
            "so: 2 replicas",
        ],
    );
    past.answered(RPS, -1, 4.0, 300.0);
    has(&past.said(-1).await, &["step: 5, which is as far as its behavior's policies", "so: 5 replicas"]);
    // Half too few is tolerated on the way down.
    past.answered(RPS, -2, 4.0, 24.0);
    has(&past.said(-2).await, &["): 4 replicas", "so: 4 replicas"]);
}

#[tokio::test]
async fn what_counted_when_it_was_answered_is_what_the_formula_takes() {
    let past = Past::new();
    past.target("cpu", "resource", "utilization", &[], 50.0);
    let of = ("cpu", "metrics.k8s.io pods/*", "app=web");
    past.answered(of, 0, 4.0, 1.9);
    // One of the four is starting, which takes a core: 900m of 1500m are 60 %, and it counts as idle.
    past.counted(of, 0, [0.9, 3.0, 0.0, 1.0], Some([1.5, 0.0, 0.5]));
    has(
        &past.said(0).await,
        &[
            "of its pods count: 3 with a value, sum 0.9; 0 without one; 1 that have not started or are starting",
            "that is 60 % of what they request",
            // 900m of 2000m are 45 %, which is less than the target: nothing.
            "tolerance 0.1): 4 replicas",
        ],
    );
    // All of them are starting: nothing counts.
    past.answered(of, -6, 4.0, 4.0);
    past.counted(of, -6, [0.0, 0.0, 0.0, 4.0], Some([0.0, 0.0, 2.0]));
    has(&past.said(-6).await, &["of its pods count: 0 with a value", "nothing can be made of it"]);
    // A container says nothing of what it requests.
    past.answered(of, -12, 4.0, 4.0);
    past.counted(of, -12, [4.0, 4.0, 0.0, 0.0], None);
    has(&past.said(-12).await, &["a container of one of its pods has no request of cpu"]);
    // What counted of an earlier answer is not taken for what counts of this one.
    past.answered(of, -18, 4.0, 4.0);
    has(&past.said(-18).await, &["what its pods request is not remembered"]);
}

#[tokio::test]
async fn means_are_of_whole_millis_and_shares_of_the_replicas_that_there_are() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 0.001);
    past.answered(RPS, 0, 3.0, 0.005);
    // 5 / 3 of a thousandth is one, which is the target.
    has(&past.said(0).await, &["tolerance 0.1): 4 replicas"]);
    let past = Past::new();
    past.target("queue", "external", "average", &[], 10.0);
    past.answered(("queue", "external", ""), 0, 1.0, 31.0);
    past.target("depth", "object", "value", &[], 10.0);
    past.answered(("depth", "services/web", ""), 0, 1.0, 10.5);
    for (name, phase, ready) in [
        ("a", "Running", "true"),
        ("b", "Running", "true"),
        ("c", "Pending", "false"),
        ("d", "Failed", "false"),
    ] {
        past.pod(name, phase, ready);
    }
    // To be four, of which there are three: 31 / 30 is within the tolerance, and so is 10.5 / 10.
    let said = past.said(0).await;
    has(&said, &["metric queue (external)", "tolerance 0.1): 3 replicas", "tolerance 0.1): 4 replicas"]);
}

#[tokio::test]
async fn bounds_go_first_and_no_replicas_turn_it_off() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.answered(RPS, 0, 4.0, 300.0);
    past.hpa("kube_horizontalpodautoscaler_spec_max_replicas", &[], 0, 3.0);
    let said = past.said(0).await;
    has(&said, &["than its bounds allow, which it mends before", "so: 3 replicas"]);
    assert!(!said.contains("metric rps"), "{said}");

    let past = Past::new();
    past.target("jobs", "external", "average", &[], 10.0);
    past.answered(("jobs", "external", ""), 0, 1.0, 25.0);
    past.hpa("kube_horizontalpodautoscaler_status_current_replicas", &[], 0, 0.0);
    has(&past.said(0).await, &["scaling is turned off", "so: 0 replicas"]);
    // Where the autoscaler itself went to zero, it goes by the metric.
    let zero = [("condition", "ScaledToZero"), ("status", "true")];
    past.hpa("kube_horizontalpodautoscaler_status_condition", &zero, 0, 1.0);
    has(&past.said(0).await, &["tolerance 0.1): 3 replicas", "so: 3 replicas"]);
}

#[tokio::test]
async fn what_a_new_autoscaler_finds_keeps_it_from_going_down_at_once() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.answered(RPS, 0, 4.0, 8.0);
    has(&past.said(0).await, &["so: 1 replicas"]);
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let created = (NOW_MS / 1_000 - 260) as f64;
    past.hpa("kube_horizontalpodautoscaler_created", &[], 250, created);
    has(
        &past.said(0).await,
        &["stabilization: 4, going by the most that it asked for in 300 s", "so: 4 replicas"],
    );
    for (metric, value) in
        [("spec_min_replicas", 1.0), ("spec_max_replicas", 20.0), ("status_current_replicas", 4.0)]
    {
        past.hpa(&format!("kube_horizontalpodautoscaler_{metric}"), &[], 0, value);
    }
    let labels = [("metric_name", "rps"), ("metric_source", "pods"), ("metric_target_type", "average")];
    past.hpa("kube_horizontalpodautoscaler_spec_target_metric", &labels, 0, 10.0);
    past.answered(RPS, -60, 4.0, 8.0);
    has(&past.said(-60).await, &["so: 1 replicas"]);
}

#[tokio::test]
async fn policies_count_from_when_it_scaled() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.answered(RPS, 0, 4.0, 300.0);
    for direction in ["up", "down"] {
        let direction = ("direction", direction);
        past.hpa("lookback_autoscaler_behavior_stabilization_seconds", &[direction], 0, 0.0);
        let policy = [direction, ("policy_type", "Pods"), ("period_seconds", "60")];
        past.hpa("lookback_autoscaler_behavior_policy", &policy, 0, 3.0);
    }
    has(&past.said(0).await, &["step: 7", "so: 7 replicas"]);
    // It went from two to four 30 s ago; its status had two as those that there are until its next look.
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let scaled = (NOW_MS / 1_000 - 30) as f64;
    past.hpa("lookback_autoscaler_last_scale_seconds", &[], 29, scaled);
    past.hpa("kube_horizontalpodautoscaler_status_current_replicas", &[], 29, 2.0);
    past.hpa("kube_horizontalpodautoscaler_status_desired_replicas", &[], 29, 4.0);
    past.hpa("kube_horizontalpodautoscaler_status_current_replicas", &[], 14, 4.0);
    past.hpa("lookback_autoscaler_last_scale_seconds", &[], 14, scaled);
    past.hpa("kube_horizontalpodautoscaler_status_desired_replicas", &[], 14, 4.0);
    has(&past.said(0).await, &["step: 5", "so: 5 replicas"]);
}

#[tokio::test]
async fn answers_of_one_look_count_together() {
    let past = Past::new();
    past.target("rps", "pods", "average", &[], 10.0);
    past.target("queue", "external", "average", &[], 10.0);
    let queue = ("queue", "external", "");
    // Both times it wants five: for one metric at first, then for the other.
    past.answered(RPS, 60, 4.0, 50.0);
    past.answered(queue, 60, 1.0, 30.0);
    past.answered(RPS, 30, 4.0, 30.0);
    past.0.clock.set_ms(NOW_MS);
    let labels = [("answered_metric", "queue"), ("answered_object", "external"), ("answered_selector", "")];
    let labels = [&HPA[..], &labels[..2]].concat();
    for (metric, value) in [("items", 1.0), ("sum", 50.0)] {
        let name = format!("lookback_autoscaler_answer_{metric}");
        let labels: Vec<_> = labels.iter().copied().chain([("__name__", name.as_str())]).collect();
        past.0.put(&labels, NOW_MS - 29_800, value);
    }
    past.answered(RPS, 0, 4.0, 60.0);
    past.answered(queue, 0, 1.0, 10.0);
    for (direction, window) in [("up", 120.0), ("down", 0.0)] {
        let direction = ("direction", direction);
        past.hpa("lookback_autoscaler_behavior_stabilization_seconds", &[direction], 0, window);
        let policy = [direction, ("policy_type", "Pods"), ("period_seconds", "60")];
        past.hpa("lookback_autoscaler_behavior_policy", &policy, 0, 9.0);
    }
    // The least of two minutes is five; what it would have wanted between its two answers, three, is no such.
    has(&past.said(0).await, &["stabilization: 5, going by the least that it asked for in 120 s"]);
}
