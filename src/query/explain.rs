//! What an autoscaler asked, was answered and made of it, at a moment: from the series that are remembered
//! of it, and of its target's pods.

mod answered;
mod moment;
mod pods;
#[cfg(test)]
mod tests;

use self::answered::Answered;
use self::moment::{Moment, Remembered, whole};
use self::pods::{History, TargetPods};
use crate::kubernetes::behavior::Behavior;
use crate::kubernetes::controller_settings::ControllerSettings;
use crate::kubernetes::quantity::saturating_milli;
use crate::kubernetes::replica_formula::{
    AtZero, Replicas, Requested, Summary, TargetKind, Tolerances, proposed, proposed_by_utilization,
    utilization, without_metrics,
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
/// Most samples that are read of an autoscaler.
const SAMPLES_MAX: usize = 500_000;
/// Most that are read of its target's pods: an hour of 3,000 pods.
const POD_SAMPLES_MAX: usize = 2_000_000;

/// The explanation, as a text; `None`: nothing is remembered of this autoscaler at that time.
///
/// # Errors
/// The store's.
pub async fn explain(
    store: &dyn Store,
    context: &Context,
    controller: &ControllerSettings,
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
    let behavior = moment.behavior(controller);
    // The target's pods matter as far back as answers do.
    let weighed_ms = i64::from(behavior.weighed_seconds()) * 1_000;
    let span = (at_ms.saturating_sub(weighed_ms.max(LOOK_BACK_MS)), at_ms);
    let pods = match moment.target() {
        Some((kind, target)) => {
            History::read(store, context, (namespace, kind, target), span, POD_SAMPLES_MAX).await?
        }
        None => None,
    };
    let explained = Explained { remembered: &remembered, pods: pods.as_ref(), behavior, at_ms };
    Ok(Some(explained.text(&moment, (namespace, name))))
}

/// What an explanation is made of.
struct Explained<'a> {
    remembered: &'a Remembered,
    /// The target's pods, if they are remembered.
    pods: Option<&'a History>,
    behavior: Behavior,
    at_ms: i64,
}

impl Explained<'_> {
    fn text(&self, moment: &Moment<'_>, (namespace, name): (&str, &str)) -> String {
        let shown = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let spec = |what: &str| moment.value(&format!("kube_horizontalpodautoscaler_{what}"));
        let (min, max) = (spec("spec_min_replicas"), spec("spec_max_replicas"));
        let (current, desired) = (spec("status_current_replicas"), spec("status_desired_replicas"));
        let mut text = format!(
            "HorizontalPodAutoscaler {namespace}/{name} at {}\n  replicas: {} now, {} desired by it, {} at least, {} at most\n",
            time(self.at_ms),
            shown(current),
            shown(desired),
            shown(min),
            shown(max)
        );
        let holding =
            moment.of("kube_horizontalpodautoscaler_status_condition").filter(|(.., value)| *value == 1.0);
        let conditions: Vec<String> = holding
            .filter_map(|(labels, ..)| {
                Some(format!("{}={}", labels.get("condition")?, labels.get("status")?))
            })
            .collect();
        let _ = writeln!(text, "  conditions: {}", conditions.join(" "));
        of_pods(self.pods.and_then(|pods| pods.at(self.at_ms)).as_ref(), &mut text);
        let bounds = (min.map_or(1, whole), max.map_or(u32::MAX, whole));
        let bounds = (bounds.0.min(bounds.1), bounds.1);
        let current = current.map(whole);
        if let Some(decided) = current.and_then(|current| without_metrics(current, bounds, at_zero(moment))) {
            text.push_str(match decided {
                0 => "  scaling is turned off: its target has no replicas, and not by its doing\n",
                _ => "  there are more or fewer replicas than its bounds allow, which it mends before it asks for any metric\n",
            });
            let _ = writeln!(text, "  so: {decided} replicas");
            return text;
        }
        let asking = self.asking(moment, self.at_ms);
        let Some(wanted) = asking.together(&mut text) else { return text };
        let bounded = wanted.clamp(bounds.0, bounds.1);
        let _ = writeln!(text, "  together: the most, {wanted}, within its bounds {bounded}");
        self.decision(&mut text, (bounded, current.unwrap_or(bounded)), bounds);
        text
    }

    fn asking<'a>(&'a self, moment: &'a Moment<'a>, at_ms: i64) -> Asking<'a> {
        let current = moment.value("kube_horizontalpodautoscaler_status_current_replicas").map(whole);
        Asking { moment, pods: self.pods, current, at_ms, tolerances: self.behavior.tolerances() }
    }

    /// How an autoscaler comes from what its metrics ask for to what it does.
    fn decision(&self, text: &mut String, (wanted, current): (u32, u32), bounds: (u32, u32)) {
        let (at_ms, behavior) = (self.at_ms, &self.behavior);
        let from_ms = at_ms.saturating_sub(i64::from(behavior.weighed_seconds()) * 1_000).saturating_add(1);
        let mut before = Vec::new();
        if let Some((then_ms, replicas)) = self.remembered.beginning() {
            before.push((at_ms - then_ms, whole(replicas).clamp(bounds.0, bounds.1)));
        }
        for then_ms in self.remembered.answered_within(from_ms, at_ms) {
            let moment = self.remembered.at(then_ms);
            let asking = self.asking(&moment, then_ms);
            let goes_by_metrics = asking
                .current
                .is_none_or(|current| without_metrics(current, bounds, at_zero(&moment)).is_none());
            let wanted = asking.together(&mut String::new()).filter(|_| goes_by_metrics);
            before.extend(wanted.map(|wanted| (at_ms - then_ms, wanted.clamp(bounds.0, bounds.1))));
        }
        let decided = behavior.decide(wanted, current, &before, &self.remembered.changes(at_ms), bounds);
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

/// What matters where the target has no replicas.
fn at_zero(moment: &Moment<'_>) -> AtZero {
    let mut targets = moment.of("kube_horizontalpodautoscaler_spec_target_metric");
    AtZero {
        is_its_doing: moment.condition("ScaledToZero"),
        has_shared_metric: targets
            .any(|(labels, ..)| matches!(labels.get("metric_source"), Some("object" | "external"))),
        is_active: moment.condition("ScalingActive") != Some(false),
    }
}

/// What an autoscaler knows at a moment.
struct Asking<'a> {
    moment: &'a Moment<'a>,
    pods: Option<&'a History>,
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
        let pods_now = self.pods.and_then(|pods| pods.at(self.at_ms));
        let Some(answer) = Answered::newest(self.moment, (name, source, container), pods_now.as_ref()) else {
            text.push_str("    not asked of Lookback in the 5 minutes before");
            text.push_str(if is_usage { ": another serves metrics.k8s.io\n" } else { "\n" });
            return None;
        };
        answer.tell(self.at_ms, text);
        let current = self.current?;
        // As they were when it was answered.
        let pods = self.pods.and_then(|pods| pods.at(answer.answered_ms));
        let summary = answer.summary(pods.as_ref(), source);
        let proposal = if kind == "utilization" {
            let requested = answer.requested(pods.as_ref(), (name, container), summary, text);
            requested
                .and_then(|requested| self.by_utilization(whole(target), summary, requested, current, text))
        } else {
            let kind = match (source, kind) {
                ("object" | "external", "average") => TargetKind::SharedAverage,
                ("object" | "external", _) => TargetKind::Value,
                _ => TargetKind::PodsAverage,
            };
            let replicas = pods.as_ref().map_or_else(
                || Replicas::all_ready(current),
                |pods| Replicas {
                    current,
                    status: pods.replicas(),
                    ready: Some(scaled_pods::ready(&pods.pods)),
                },
            );
            proposed(kind, saturating_milli(target), summary, replicas, self.tolerances)
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

    fn by_utilization(
        &self,
        target: u32,
        summary: Summary,
        requested: Requested,
        current: u32,
        text: &mut String,
    ) -> Option<u32> {
        if let Some(utilization) = utilization(summary, requested) {
            let _ = writeln!(text, "    that is {utilization} % of what they request");
        }
        proposed_by_utilization(target, summary, requested, current, self.tolerances)
    }
}

fn time(timestamp_ms: i64) -> String {
    let time = Timestamp::from_second(timestamp_ms.div_euclid(1_000));
    time.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}
