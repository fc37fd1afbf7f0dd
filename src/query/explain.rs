//! What an autoscaler asked, was answered and made of it, at a moment: from the series that are remembered
//! of it, and of its target's pods.

mod moment;
mod pods;
#[cfg(test)]
mod tests;

use self::moment::{Moment, Remembered, whole};
use self::pods::TargetPods;
use crate::kubernetes::autoscalers::answers;
use crate::kubernetes::behavior::Behavior;
use crate::kubernetes::replica_formula::{
    Replicas, Summary, TargetKind, Tolerances, Usage, proposed, proposed_by_utilization,
};
use crate::kubernetes::scaled_pods;
use crate::store::{Context, Store, StoreError};
use jiff::Timestamp;
use lookback_storage::{Labels, Matcher};
use std::fmt::Write;

/// How far back of the moment a sample may lie.
const LOOK_BACK_MS: i64 = 300_000;
/// For how long an autoscaler may weigh what it asked for: Kubernetes' bound on stabilization windows.
const STABILIZATION_MS_MAX: i64 = 3_600_000;
/// Most samples that are read.
const SAMPLES_MAX: usize = 500_000;

/// The explanation, as a text; `None`: nothing is remembered of this autoscaler at that time.
///
/// # Errors
/// The store's.
pub async fn explain(
    store: &dyn Store,
    context: &Context,
    (namespace, name): (&str, &str),
    at_ms: i64,
) -> Result<Option<String>, StoreError> {
    let matchers = [Matcher::equal("namespace", namespace), Matcher::equal("horizontalpodautoscaler", name)];
    let from_ms = at_ms.saturating_sub(LOOK_BACK_MS).saturating_sub(STABILIZATION_MS_MAX);
    let remembered = Remembered(store.select(context, &matchers, from_ms, at_ms, SAMPLES_MAX).await?);
    let moment = remembered.at(at_ms);
    if moment.is_empty() {
        return Ok(None);
    }
    let pods = match moment.target() {
        Some((kind, target)) => {
            TargetPods::read(store, context, (namespace, kind, target), at_ms, SAMPLES_MAX).await?
        }
        None => None,
    };
    Ok(Some(text(&remembered, &moment, pods.as_ref(), (namespace, name), at_ms)))
}

fn text(
    remembered: &Remembered,
    moment: &Moment<'_>,
    pods: Option<&TargetPods>,
    (namespace, name): (&str, &str),
    at_ms: i64,
) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let spec = |what: &str| moment.value(&format!("kube_horizontalpodautoscaler_{what}"));
    let (min, max) = (spec("spec_min_replicas"), spec("spec_max_replicas"));
    let (current, desired) = (spec("status_current_replicas"), spec("status_desired_replicas"));
    let mut text = format!(
        "HorizontalPodAutoscaler {namespace}/{name} at {}\n  replicas: {} now, {} desired by it, {} at least, {} at most\n",
        time(at_ms),
        shown(current),
        shown(desired),
        shown(min),
        shown(max)
    );
    let holding =
        moment.of("kube_horizontalpodautoscaler_status_condition").filter(|(.., value)| *value == 1.0);
    let conditions: Vec<String> = holding
        .filter_map(|(labels, ..)| Some(format!("{}={}", labels.get("condition")?, labels.get("status")?)))
        .collect();
    let _ = writeln!(text, "  conditions: {}", conditions.join(" "));
    of_pods(pods, &mut text);
    let behavior = moment.behavior();
    let asking =
        Asking { moment, pods, current: current.map(whole), at_ms, tolerances: behavior.tolerances() };
    let bounds = (min.map_or(1, whole), max.map_or(u32::MAX, whole));
    let wanted = asking.together(&mut text);
    let Some(wanted) = wanted else { return text };
    let bounded = wanted.clamp(bounds.0.min(bounds.1), bounds.1);
    let _ = writeln!(text, "  together: the most, {wanted}, within its bounds {bounded}");
    decision(&mut text, remembered, &behavior, (bounded, current.map_or(bounded, whole)), bounds, at_ms);
    text
}

fn of_pods(pods: Option<&TargetPods>, text: &mut String) {
    let Some(pods) = pods else {
        text.push_str("  pods: nothing is remembered of their phases: all are taken as started and ready\n");
        return;
    };
    let ((started, pending), ready) = (pods.counted(), scaled_pods::ready(&pods.pods));
    let uncounted = pods.pods.len() - started as usize - pending as usize;
    let _ = writeln!(
        text,
        "  pods: {started} started, {ready} ready, {pending} pending, {uncounted} failed or being deleted"
    );
}

/// How an autoscaler comes from what its metrics ask for to what it does.
fn decision(
    text: &mut String,
    remembered: &Remembered,
    behavior: &Behavior,
    (wanted, current): (u32, u32),
    bounds: (u32, u32),
    at_ms: i64,
) {
    let seconds = behavior.up.stabilization_seconds.max(behavior.down.stabilization_seconds);
    let from_ms = at_ms.saturating_sub(i64::from(seconds) * 1_000).saturating_add(1);
    let mut before = Vec::new();
    for then_ms in remembered.answered_within(from_ms, at_ms) {
        let moment = remembered.at(then_ms);
        let current = moment.value("kube_horizontalpodautoscaler_status_current_replicas").map(whole);
        let tolerances = behavior.tolerances();
        let asking = Asking { moment: &moment, pods: None, current, at_ms: then_ms, tolerances };
        if let Some(wanted) = asking.together(&mut String::new()) {
            before.push((at_ms - then_ms, wanted.clamp(bounds.0.min(bounds.1), bounds.1)));
        }
    }
    let decided = behavior.decide(wanted, current, &before, &remembered.changes(at_ms), bounds);
    if decided.stabilized != wanted {
        let (rules, which) = match decided.stabilized > wanted {
            true => (&behavior.down, "most"),
            false => (&behavior.up, "least"),
        };
        let _ = writeln!(
            text,
            "  stabilization: {}, going by the {which} that it asked for in {} s",
            decided.stabilized, rules.stabilization_seconds
        );
    }
    if decided.replicas != decided.stabilized {
        let whose = if behavior.is_default { "the default behavior" } else { "its behavior's policies" };
        let _ = writeln!(
            text,
            "  step: {}, which is as far as {whose} and its bounds go at once",
            decided.replicas
        );
    }
    let _ = writeln!(text, "  so: {} replicas", decided.replicas);
}

/// What an autoscaler knows at a moment.
struct Asking<'a> {
    moment: &'a Moment<'a>,
    /// The target's pods, if they are remembered.
    pods: Option<&'a TargetPods>,
    /// The replicas that there are.
    current: Option<u32>,
    at_ms: i64,
    tolerances: Tolerances,
}

impl Asking<'_> {
    /// What all metrics ask for, told one by one; `None`: nothing is changed for them, and it is told why.
    fn together(&self, text: &mut String) -> Option<u32> {
        let (mut proposals, mut has_gap) = (Vec::new(), false);
        for (labels, _, target) in self.moment.of("kube_horizontalpodautoscaler_spec_target_metric") {
            match self.metric(labels, target, text) {
                Some(proposal) => proposals.push(proposal),
                None => has_gap = true,
            }
        }
        let Some(most) = proposals.into_iter().max() else {
            text.push_str("  together: no metric can be used here, so nothing is changed for them\n");
            return None;
        };
        if has_gap && self.current.is_some_and(|current| most < current) {
            text.push_str("  together: a metric is missing, so that it does not scale down\n");
            return None;
        }
        Some(most)
    }

    /// One metric; the replicas that it asks for.
    fn metric(&self, labels: &Labels, target: f64, text: &mut String) -> Option<u32> {
        let part = |label| labels.get(label).unwrap_or_default();
        let (name, source, kind) = (part("metric_name"), part("metric_source"), part("metric_target_type"));
        let container = labels.get("container");
        let of = container.map(|container| format!(" of container {container}")).unwrap_or_default();
        let _ = writeln!(text, "  metric {name}{of} ({source}), target {kind} {target}");
        let is_usage = source.ends_with("resource");
        let Some(answer) = self.answer(name, source, container) else {
            text.push_str("    not asked of Lookback in the 5 minutes before");
            text.push_str(if is_usage { ": another serves metrics.k8s.io\n" } else { "\n" });
            return None;
        };
        answer.tell(self.at_ms, text);
        let current = self.current?;
        let proposal = if kind == "utilization" {
            self.by_utilization(name, container, whole(target), &answer, current, text)
        } else {
            let kind = match (source, kind) {
                ("object" | "external", "average") => TargetKind::SharedAverage,
                ("object" | "external", _) => TargetKind::Value,
                _ => TargetKind::PodsAverage,
            };
            let ready = self.pods.map_or(current, |pods| scaled_pods::ready(&pods.pods));
            let (missing, pending) = self.without_value(&answer);
            let summary = Summary { sum: answer.sum, items: answer.items, missing, pending };
            proposed(kind, target, summary, Replicas { current, ready }, self.tolerances)
        };
        let Some(replicas) = proposal else {
            text.push_str("    nothing can be made of it: the autoscaler reports FailedGet…Metric\n");
            return None;
        };
        let Tolerances { up, down } = self.tolerances;
        let tolerance = if up == down { up.to_string() } else { format!("{up} up, {down} down") };
        let _ =
            writeln!(text, "    by the autoscaler's formula (tolerance {tolerance}): {replicas} replicas");
        Some(replicas)
    }

    /// Pods that have started and have no value, and pods that have not started.
    fn without_value(&self, answer: &Answered<'_>) -> (u32, u32) {
        match self.pods.map(TargetPods::counted) {
            Some((started, pending)) => (started.saturating_sub(answer.items), pending),
            None => (answer.missing.unwrap_or(0), 0),
        }
    }

    fn by_utilization(
        &self,
        resource: &str,
        container: Option<&str>,
        target: u32,
        answer: &Answered<'_>,
        current: u32,
        text: &mut String,
    ) -> Option<u32> {
        let (missing, pending) = self.without_value(answer);
        let started = answer.items.saturating_add(missing);
        let requested = self.pods.and_then(|pods| pods.requested(resource, container));
        let Some(requested) = requested.filter(|_| started > 0) else {
            text.push_str(
                "    what its pods request is not remembered: send kube_pod_container_resource_requests of \
                 kube-state-metrics\n",
            );
            return None;
        };
        // Pods of one target request the same.
        let of = |pods: u32| requested.saturating_mul(i64::from(pods)) / i64::from(started);
        #[expect(clippy::cast_possible_truncation, reason = "millis of cores and bytes; a cast saturates")]
        let used = (answer.sum * 1e3).round() as i64;
        let usage = Usage {
            used,
            items: answer.items,
            requested: of(answer.items),
            missing,
            requested_by_missing: of(missing),
            pending,
            requested_by_pending: of(pending),
        };
        if let Some(utilization) = usage.utilization() {
            let _ = writeln!(text, "    that is {utilization} % of what they request");
        }
        proposed_by_utilization(target, usage, current, self.tolerances)
    }

    /// The newest answer to the question for a metric, of those that are for the target's pods.
    fn answer(&self, name: &str, source: &str, container: Option<&str>) -> Option<Answered<'_>> {
        let is_of_pods = source == "pods" || source.ends_with("resource");
        let is_asked = |labels: &Labels| {
            let object = labels.get("answered_object").unwrap_or_default();
            // The selector of objects comes first, and a question for pods always has one.
            let selector = labels.get("answered_selector").unwrap_or_default();
            let selector = selector.split(" and ").next().unwrap_or_default();
            labels.get("answered_metric") == Some(name)
                && answers(object, source, container)
                && (!is_of_pods || self.pods.is_none_or(|pods| pods.are_selected(selector)))
        };
        let asked =
            self.moment.of("lookback_autoscaler_answer_items").filter(|(labels, ..)| is_asked(labels));
        let (asked, answered_ms, items) = asked.max_by_key(|(_, at, _)| *at)?;
        let same = |metric: &str| {
            let mut found = self.moment.of(metric);
            // All labels but the metric's name, which is the first.
            found
                .find(|(labels, ..)| labels.iter().skip(1).eq(asked.iter().skip(1)))
                .map(|(_, _, value)| value)
        };
        Some(Answered {
            asked,
            answered_ms,
            items: whole(items),
            sum: same("lookback_autoscaler_answer_sum").unwrap_or(0.0),
            missing: same("lookback_autoscaler_answer_missing").map(whole),
            age_seconds: same("lookback_autoscaler_answer_age_seconds"),
        })
    }
}

/// An answer, as it is remembered.
struct Answered<'a> {
    asked: &'a Labels,
    answered_ms: i64,
    items: u32,
    sum: f64,
    missing: Option<u32>,
    age_seconds: Option<f64>,
}

impl Answered<'_> {
    fn tell(&self, at_ms: i64, text: &mut String) {
        let part = |label| self.asked.get(label);
        let selector = part("answered_selector").map(|s| format!(" selected by {s}")).unwrap_or_default();
        let _ = writeln!(text, "    asked: {}{selector}", part("answered_object").unwrap_or_default());
        let has_values = self.items > 0;
        let _ = writeln!(
            text,
            "    answered {}s before: {} values, sum {}, the oldest {} old, {} objects without a value",
            at_ms.saturating_sub(self.answered_ms) / 1_000,
            self.items,
            if has_values { self.sum.to_string() } else { "-".to_owned() },
            self.age_seconds.filter(|_| has_values).map_or_else(|| "-".to_owned(), |age| format!("{age}s")),
            self.missing.map_or_else(|| "an unknown number of".to_owned(), |missing| missing.to_string()),
        );
    }
}

fn time(timestamp_ms: i64) -> String {
    let time = Timestamp::from_second(timestamp_ms.div_euclid(1_000));
    time.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}
