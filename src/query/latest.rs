//! From the newest samples of many series to one value an object.
//!
//! The rule: an object's value is the sum of its series. Series that carry no label of another
//! resource come first; only where there are none do all series that carry the object's label count.
//! So a pushed `{pod="p1"}` is not doubled by a scraped `{pod="p1",service="web"}`, yet the latter
//! alone is readable too. A sample without a usable value (NaN, infinite, too large) is a missing one.
//!
//! The time of a value is its own sample's; of a sum, the oldest of the samples in it, so that it is
//! never said to be fresher than it is.

use crate::store::Latest;
use lookback_storage::Labels;
use std::collections::BTreeMap;

/// How series are told to be an object's.
pub struct Rule<'a> {
    /// The label that names the object.
    pub described: &'a str,
    /// Whether the label `namespace` is part of the object's name.
    pub namespaced: bool,
    /// Whether a label names an object of some resource.
    pub is_resource_label: &'a dyn Fn(&str) -> bool,
    /// The exact value of a sample in nanos; `None` for one that must not be served.
    pub nanos: fn(f64) -> Option<i128>,
}

/// Whose metric, and which: sorted by this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectMetric {
    /// The object's namespace; `None` where the rule is not namespaced.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// The metric's name.
    pub metric: String,
}

/// The one value of an object's metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectValue {
    /// Whose, and which.
    pub of: ObjectMetric,
    /// The time of the oldest sample in it, Unix milliseconds.
    pub timestamp_ms: i64,
    /// The exact sum in nanos.
    pub nanos: i128,
    /// Whether every sample in it is on disk.
    pub durable: bool,
}

/// A sum under way.
struct Sum {
    timestamp_ms: i64,
    /// `None`: it overflowed.
    nanos: Option<i128>,
    durable: bool,
}

impl Sum {
    fn add(into: &mut Option<Self>, latest: &Latest, nanos: i128) {
        let timestamp_ms = latest.sample.timestamp_ms;
        match into {
            Some(sum) => {
                sum.timestamp_ms = sum.timestamp_ms.min(timestamp_ms);
                sum.durable &= latest.durable;
                sum.nanos = sum.nanos.and_then(|so_far| so_far.checked_add(nanos));
            }
            None => *into = Some(Self { timestamp_ms, nanos: Some(nanos), durable: latest.durable }),
        }
    }
}

#[derive(Default)]
struct Sums {
    /// Of series without another resource's label.
    own: Option<Sum>,
    /// Of all series.
    all: Option<Sum>,
}

/// One value an object and metric, sorted by namespace, name and metric. Series without the object's
/// label are left out.
#[must_use]
pub fn object_values(found: &[Latest], rule: &Rule<'_>) -> Vec<ObjectValue> {
    let mut objects: BTreeMap<ObjectMetric, Sums> = BTreeMap::new();
    for latest in found {
        let Latest { labels, sample, .. } = latest;
        let Some(of) = object_metric(labels, rule) else { continue };
        if sample.is_staleness_marker() {
            continue;
        }
        let Some(nanos) = (rule.nanos)(sample.value) else { continue };
        let sums = objects.entry(of).or_default();
        if !names_another_object(labels, rule) {
            Sum::add(&mut sums.own, latest, nanos);
        }
        Sum::add(&mut sums.all, latest, nanos);
    }
    let chosen = objects.into_iter().filter_map(|(of, sums)| Some((of, sums.own.or(sums.all)?)));
    chosen
        .filter_map(|(of, sum)| {
            let Sum { timestamp_ms, nanos, durable } = sum;
            Some(ObjectValue { of, timestamp_ms, nanos: nanos?, durable })
        })
        .collect()
}

fn object_metric(labels: &Labels, rule: &Rule<'_>) -> Option<ObjectMetric> {
    let name = labels.get(rule.described)?.to_owned();
    let namespace = if rule.namespaced { Some(labels.get("namespace")?.to_owned()) } else { None };
    Some(ObjectMetric { namespace, name, metric: labels.metric_name().to_owned() })
}

fn names_another_object(labels: &Labels, rule: &Rule<'_>) -> bool {
    let own = |label: &str| label == rule.described || (rule.namespaced && label == "namespace");
    labels.iter().any(|(label, _)| !own(label) && (rule.is_resource_label)(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::STALENESS_MARKER_BITS;
    use lookback_storage::Sample;
    use std::sync::Arc;

    fn is_resource_label(label: &str) -> bool {
        matches!(label, "pod" | "node" | "service" | "namespace")
    }

    /// Whole numbers below 1000 only.
    fn nanos(value: f64) -> Option<i128> {
        #[expect(clippy::cast_possible_truncation, reason = "a test's small whole numbers")]
        (value.abs() < 1000.0).then_some(value as i128)
    }

    fn series(labels: &[(&str, &str)], timestamp_ms: i64, value: f64) -> Latest {
        let labels = labels.iter().copied().chain([("__name__", "m")]);
        Latest {
            labels: Arc::new(Labels::new(labels).expect("valid")),
            sample: Sample::new(timestamp_ms, value),
            durable: true,
        }
    }

    fn values(found: &[Latest], described: &str, namespaced: bool) -> Vec<(String, i64, i128)> {
        let rule = Rule { described, namespaced, is_resource_label: &is_resource_label, nanos };
        object_values(found, &rule).into_iter().map(|v| (v.of.name, v.timestamp_ms, v.nanos)).collect()
    }

    #[test]
    fn series_without_another_resources_label_come_first() {
        let pushed = series(&[("namespace", "d"), ("pod", "p1")], 5, 1.0);
        let scraped = [
            series(&[("namespace", "d"), ("pod", "p1"), ("service", "web")], 3, 10.0),
            series(&[("namespace", "d"), ("pod", "p1"), ("node", "n1")], 4, 20.0),
        ];
        assert_eq!(values(&scraped, "pod", true), [("p1".to_owned(), 3, 30)]);
        let all: Vec<Latest> = scraped.into_iter().chain([pushed]).collect();
        assert_eq!(values(&all, "pod", true), [("p1".to_owned(), 5, 1)]);
    }

    #[test]
    fn label_sets_of_one_object_are_summed_at_the_oldest_time() {
        let found = [
            series(&[("namespace", "d"), ("pod", "p2"), ("verb", "GET")], 9, 1.0),
            series(&[("namespace", "d"), ("pod", "p1"), ("verb", "GET")], 7, 1.0),
            series(&[("namespace", "d"), ("pod", "p1"), ("verb", "PUT")], 6, 2.0),
        ];
        assert_eq!(values(&found, "pod", true), [("p1".to_owned(), 6, 3), ("p2".to_owned(), 9, 1)]);
    }

    #[test]
    fn a_sample_without_a_usable_value_is_missing() {
        let pod = |value| series(&[("namespace", "d"), ("pod", "p1")], 1, value);
        for value in [f64::NAN, f64::INFINITY, 1e9, f64::from_bits(STALENESS_MARKER_BITS)] {
            assert_eq!(values(&[pod(value)], "pod", true), [], "{value}");
        }
        let scraped = series(&[("namespace", "d"), ("pod", "p1"), ("node", "n1")], 2, 4.0);
        assert_eq!(values(&[pod(f64::NAN), scraped], "pod", true), [("p1".to_owned(), 2, 4)]);
    }

    #[test]
    fn a_namespace_label_is_anothers_for_a_node_and_its_own_for_a_namespace() {
        let found = [
            series(&[("node", "n1")], 1, 1.0),
            series(&[("node", "n1"), ("namespace", "d")], 1, 2.0),
            series(&[("namespace", "d")], 1, 4.0),
            series(&[("namespace", "e"), ("pod", "p1")], 1, 8.0),
        ];
        assert_eq!(values(&found, "node", false), [("n1".to_owned(), 1, 1)]);
        assert_eq!(values(&found, "namespace", false), [("d".to_owned(), 1, 4), ("e".to_owned(), 1, 8)]);
        assert_eq!(values(&found[3..], "pod", true), [("p1".to_owned(), 1, 8)]);
        assert_eq!(values(&[series(&[("pod", "p1")], 1, 1.0)], "pod", true), []);
    }
}
