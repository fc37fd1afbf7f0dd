//! What an autoscaler asked, was answered and made of it, at a moment: from the series that are remembered
//! of it.

use crate::kubernetes::autoscalers::EXTERNAL;
use crate::kubernetes::replica_formula::{Replicas, Summary, TOLERANCE, TargetKind, Tolerances, proposed};
use crate::store::{Context, SeriesSamples, Store, StoreError};
use jiff::Timestamp;
use lookback_storage::{Labels, Matcher};
use std::fmt::Write;

/// How far back of the moment a sample may lie.
const LOOK_BACK_MS: i64 = 300_000;
/// Most samples that are read.
const SAMPLES_MAX: usize = 200_000;

/// The newest value of each series at the moment, and its time.
struct Moment(Vec<(std::sync::Arc<Labels>, i64, f64)>);

impl Moment {
    fn value(&self, metric: &str) -> Option<f64> {
        self.0.iter().find(|(labels, ..)| labels.metric_name() == metric).map(|(_, _, value)| *value)
    }

    fn of<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a Labels, i64, f64)> {
        let fits = move |(labels, ..): &&(std::sync::Arc<Labels>, i64, f64)| labels.metric_name() == metric;
        self.0.iter().filter(fits).map(|(labels, at, value)| (labels.as_ref(), *at, *value))
    }
}

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
    let from_ms = at_ms.saturating_sub(LOOK_BACK_MS);
    let found = store.select(context, &matchers, from_ms, at_ms, SAMPLES_MAX).await?;
    let newest = |series: SeriesSamples| {
        let sample = series.samples.last()?;
        (!sample.is_staleness_marker()).then_some((series.labels, sample.timestamp_ms, sample.value))
    };
    let moment = Moment(found.into_iter().filter_map(newest).collect());
    Ok((!moment.0.is_empty()).then(|| text(&moment, namespace, name, at_ms)))
}

fn text(moment: &Moment, namespace: &str, name: &str, at_ms: i64) -> String {
    let spec = |what: &str| moment.value(&format!("kube_horizontalpodautoscaler_{what}"));
    let shown = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
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
    let mut proposals = Vec::new();
    let mut has_gap = false;
    for (labels, _, target) in moment.of("kube_horizontalpodautoscaler_spec_target_metric") {
        match metric(moment, labels, target, current, at_ms, &mut text) {
            Some(proposal) => proposals.push(proposal),
            None => has_gap = true,
        }
    }
    verdict(&mut text, &proposals, has_gap, current, (min, max));
    text
}

/// One metric; the replicas that it asks for.
fn metric(
    moment: &Moment,
    labels: &Labels,
    target: f64,
    current: Option<f64>,
    at_ms: i64,
    text: &mut String,
) -> Option<u32> {
    let part = |label| labels.get(label).unwrap_or_default();
    let (name, source, kind) = (part("metric_name"), part("metric_source"), part("metric_target_type"));
    let _ = writeln!(text, "  metric {name} ({source}), target {kind} {target}");
    let target_kind = match (source, kind) {
        ("pods", _) => TargetKind::PodsAverage,
        ("object" | "external", "average") => TargetKind::SharedAverage,
        ("object" | "external", _) => TargetKind::Value,
        _ => {
            text.push_str("    answered by metrics.k8s.io, which Lookback does not see\n");
            return None;
        }
    };
    let is_asked = |labels: &Labels| {
        let is_external = labels.get("answered_object") == Some(EXTERNAL);
        labels.get("answered_metric") == Some(name) && is_external == (source == "external")
    };
    let answers = moment.of("lookback_autoscaler_answer_items").filter(|(labels, ..)| is_asked(labels));
    let Some((asked, answered_ms, items)) = answers.max_by_key(|(_, at, _)| *at) else {
        text.push_str("    not asked of Lookback in the 5 minutes before\n");
        return None;
    };
    let same = |metric: &'static str| {
        let mut found = moment.of(metric);
        found.find(|(labels, ..)| labels.iter().skip(1).eq(asked.iter().skip(1))).map(|(_, _, value)| value)
    };
    let (sum, missing) = (same("lookback_autoscaler_answer_sum"), same("lookback_autoscaler_answer_missing"));
    let selector = asked.get("answered_selector").map(|s| format!(" selected by {s}")).unwrap_or_default();
    let _ = writeln!(text, "    asked: {}{selector}", asked.get("answered_object").unwrap_or_default());
    let age = same("lookback_autoscaler_answer_age_seconds");
    let _ = writeln!(
        text,
        "    answered {}s before: {items} values, sum {}, the oldest {} old, {} objects without a value",
        at_ms.saturating_sub(answered_ms) / 1_000,
        sum.filter(|_| items > 0.0).map_or_else(|| "-".to_owned(), |sum| sum.to_string()),
        age.filter(|_| items > 0.0).map_or_else(|| "-".to_owned(), |age| format!("{age}s")),
        missing.map_or_else(|| "an unknown number of".to_owned(), |missing| missing.to_string()),
    );
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts; a cast saturates")]
    let whole = |count: f64| count as u32;
    let answer = Summary {
        sum: sum.unwrap_or(0.0),
        items: whole(items),
        missing: whole(missing.unwrap_or(0.0)),
        pending: 0,
    };
    match proposed(target_kind, target, answer, Replicas::all_ready(whole(current?)), Tolerances::default()) {
        Some(replicas) => {
            let _ = writeln!(
                text,
                "    by the autoscaler's formula (tolerance {TOLERANCE}): {replicas} replicas"
            );
            Some(replicas)
        }
        None => {
            text.push_str("    nothing can be made of it: the autoscaler reports FailedGet…Metric\n");
            None
        }
    }
}

fn verdict(
    text: &mut String,
    proposals: &[u32],
    has_gap: bool,
    current: Option<f64>,
    (min, max): (Option<f64>, Option<f64>),
) {
    let Some(most) = proposals.iter().max().map(|most| f64::from(*most)) else {
        text.push_str("  together: no metric can be used here, so nothing is changed for them\n");
        return;
    };
    let most_now = current.unwrap_or(most);
    if has_gap && most < most_now {
        text.push_str("  together: a metric is missing, so that it does not scale down\n");
        return;
    }
    let bounded = most.max(min.unwrap_or(1.0)).min(max.unwrap_or(f64::INFINITY));
    let _ = write!(text, "  together: the most, {most}, within its bounds {bounded}");
    text.push_str(match bounded < most_now {
        true => "; it scales down to the most of the last 5 minutes (stabilization, unless behavior says otherwise)\n",
        false => "\n",
    });
}

fn time(timestamp_ms: i64) -> String {
    let time = Timestamp::from_second(timestamp_ms.div_euclid(1_000));
    time.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}
