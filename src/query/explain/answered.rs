//! An answer that an autoscaler was given, as it is remembered, and what its formula takes of it.

use super::moment::{Moment, whole};
use super::pods::TargetPods;
use crate::kubernetes::autoscalers::answers;
use crate::kubernetes::quantity::saturating_milli;
use crate::kubernetes::replica_formula::{Requested, Summary};
use lookback_storage::Labels;
use std::fmt::Write;

/// An answer.
pub(super) struct Answered<'a> {
    asked: &'a Labels,
    pub(super) answered_ms: i64,
    items: u32,
    sum: f64,
    missing: Option<u32>,
    age_seconds: Option<f64>,
    /// Of pods: what counts of it, as Lookback told the pods apart when it answered.
    counted: Option<Summary>,
    /// What those pods request.
    requested: Option<Requested>,
}

impl<'a> Answered<'a> {
    /// The newest answer to the question for a metric, of those that are for the target's pods.
    pub(super) fn newest(
        moment: &Moment<'a>,
        (name, source, container): (&str, &str, Option<&str>),
        pods: Option<&TargetPods>,
    ) -> Option<Self> {
        let is_of_pods = is_of_pods(source);
        let is_asked = |labels: &Labels| {
            let object = labels.get("answered_object").unwrap_or_default();
            // The selector of objects comes first, and a question for pods always has one.
            let selector = labels.get("answered_selector").unwrap_or_default();
            let selector = selector.split(" and ").next().unwrap_or_default();
            labels.get("answered_metric") == Some(name)
                && answers(object, source, container)
                && (!is_of_pods || pods.is_none_or(|pods| pods.are_selected(selector)))
        };
        let asked = moment.of("lookback_autoscaler_answer_items").filter(|(labels, ..)| is_asked(labels));
        let (asked, answered_ms, items) = asked.max_by_key(|(_, at, _)| *at)?;
        let same = |what: &str| {
            let metric = format!("lookback_autoscaler_{what}");
            // All labels but the metric's name, which is the first, and the time: what is older is of another answer.
            let is_same = |labels: &Labels| labels.iter().skip(1).eq(asked.iter().skip(1));
            let mut found =
                moment.of(&metric).filter(|(labels, at, _)| *at == answered_ms && is_same(labels));
            found.next().map(|(_, _, value)| value)
        };
        let count = |what: &str| same(what).map(whole);
        let milli = |what: &str| same(what).map(saturating_milli);
        let counted = || {
            Some(Summary {
                sum_milli: milli("counted_sum")?,
                items: count("counted_items")?,
                missing: count("counted_missing")?,
                pending: count("counted_pending")?,
            })
        };
        let requested = || {
            Some(Requested {
                counted: milli("requested_by_counted")?,
                missing: milli("requested_by_missing")?,
                pending: milli("requested_by_pending")?,
            })
        };
        Some(Self {
            asked,
            answered_ms,
            items: whole(items),
            sum: same("answer_sum").unwrap_or(0.0),
            missing: count("answer_missing"),
            age_seconds: same("answer_age_seconds"),
            counted: counted().filter(|_| is_of_pods),
            requested: requested(),
        })
    }

    /// What the formula takes of it. Where that was not remembered, by what is remembered of the pods.
    pub(super) fn summary(&self, pods: Option<&TargetPods>, source: &str) -> Summary {
        let all = Summary {
            sum_milli: saturating_milli(self.sum),
            items: self.items,
            missing: self.missing.unwrap_or(0),
            pending: 0,
        };
        match (self.counted, pods.filter(|_| is_of_pods(source)).map(TargetPods::counted)) {
            (Some(counted), _) => counted,
            (None, Some((started, pending))) => {
                Summary { missing: started.saturating_sub(self.items), pending, ..all }
            }
            (None, None) => all,
        }
    }

    /// What the pods request of a resource, by one container or all; `None`: that is not known, and it is told why.
    pub(super) fn requested(
        &self,
        pods: Option<&TargetPods>,
        (resource, container): (&str, Option<&str>),
        summary: Summary,
        text: &mut String,
    ) -> Option<Requested> {
        if self.counted.is_some() {
            if self.requested.is_none() {
                let whose =
                    container.map_or_else(|| "a container".to_owned(), |name| format!("container {name}"));
                let _ = writeln!(text, "    {whose} of one of its pods has no request of {resource}");
            }
            return self.requested;
        }
        let started = summary.items.saturating_add(summary.missing);
        let requested = pods.and_then(|pods| pods.requested(resource, container));
        let Some(requested) = requested.filter(|_| started > 0) else {
            text.push_str(
                "    what its pods request is not remembered: let Lookback watch pods (--ownership-interval), or send \
                 kube_pod_container_resource_requests of kube-state-metrics\n",
            );
            return None;
        };
        // Pods of one target request the same.
        let of = |pods: u32| requested.saturating_mul(i64::from(pods)) / i64::from(started);
        Some(Requested {
            counted: of(summary.items),
            missing: of(summary.missing),
            pending: of(summary.pending),
        })
    }

    /// In words.
    pub(super) fn tell(&self, at_ms: i64, text: &mut String) {
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
        let is_other = |counted: &Summary| {
            counted.items != self.items || counted.pending > 0 || Some(counted.missing) != self.missing
        };
        if let Some(Summary { sum_milli, items, missing, pending }) = self.counted.filter(is_other) {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let sum = sum_milli as f64 / 1e3;
            let _ = writeln!(
                text,
                "    of its pods count: {items} with a value, sum {sum}; {missing} without one; {pending} that have not started or are starting"
            );
        }
    }
}

fn is_of_pods(source: &str) -> bool {
    source == "pods" || source.ends_with("resource")
}
