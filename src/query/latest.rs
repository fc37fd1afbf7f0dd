//! From the newest samples of many series to one value an object.
//!
//! The rule: an object's value is the sum of its series. Series that carry no label of another
//! resource come first; only where there are none do all series that carry the object's label count.
//! So a pushed `{pod="p1"}` is not doubled by a scraped `{pod="p1",service="web"}`, yet the latter
//! alone is readable too. A sample without a usable value (NaN, infinite, too large) is a missing one.
//!
//! The time of a value is its own sample's; of a sum, the oldest of the samples in it, so that it is
//! never said to be fresher than it is.

use crate::kubernetes::resources::NAMESPACE_LABEL;
use crate::store::Latest;
use lookback_storage::METRIC_NAME_LABEL;

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

/// The one value of an object's metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectValue<'a> {
    /// The object's namespace; `None` where the rule is not namespaced.
    pub namespace: Option<&'a str>,
    /// The object's name.
    pub name: &'a str,
    /// The metric's name.
    pub metric: &'a str,
    /// The time of the oldest sample in it, Unix milliseconds.
    pub timestamp_ms: i64,
    /// The exact sum in nanos.
    pub nanos: i128,
    /// Whether every sample in it is on disk.
    pub durable: bool,
}

impl<'a> ObjectValue<'a> {
    /// Whose metric, and which.
    fn of(&self) -> (Option<&'a str>, &'a str, &'a str) {
        (self.namespace, self.name, self.metric)
    }
}

/// What one series says of an object.
struct Part<'a> {
    /// As if there were no other series of the object.
    value: ObjectValue<'a>,
    /// Whether it carries no label of another resource.
    is_own: bool,
}

/// One value an object and metric, sorted by namespace, name and metric. Series without the object's
/// label are left out, as are sums that overflow.
#[must_use]
pub fn object_values<'a>(found: &'a [Latest], rule: &Rule<'_>) -> Vec<ObjectValue<'a>> {
    let mut roles = Roles { rule, known: Vec::new() };
    let mut parts: Vec<Part<'a>> = Vec::with_capacity(found.len());
    parts.extend(found.iter().filter_map(|latest| roles.part(latest)));
    // Series that were written together lie in the order of their names already.
    if !parts.is_sorted_by_key(|part| part.value.of()) {
        parts.sort_by_key(|part| part.value.of());
    }
    parts.chunk_by(|a, b| a.value.of() == b.value.of()).filter_map(sum).collect()
}

/// The value of one object, of what all its series say.
fn sum<'a>(parts: &[Part<'a>]) -> Option<ObjectValue<'a>> {
    let has_own = parts.iter().any(|part| part.is_own);
    let mut counted = parts.iter().filter(|part| part.is_own == has_own).map(|part| &part.value);
    let mut sum = counted.next()?.clone();
    for value in counted {
        sum.timestamp_ms = sum.timestamp_ms.min(value.timestamp_ms);
        sum.durable &= value.durable;
        sum.nanos = sum.nanos.checked_add(value.nanos)?;
    }
    Some(sum)
}

/// What a label says.
#[derive(Clone, Copy)]
enum Role {
    Metric,
    /// The object's name.
    Name,
    /// The object's namespace.
    Namespace,
    /// The name of an object of another resource.
    Other,
    /// Nothing of objects.
    Plain,
}

/// Tells what labels say.
struct Roles<'r> {
    rule: &'r Rule<'r>,
    /// The labels at each place of the series before: series of one metric mostly have the same labels, so that
    /// each is looked up once and only compared from then on.
    known: Vec<(String, Role)>,
}

impl Roles<'_> {
    /// What a series says; `None` where it names no object, or its sample is a missing one.
    fn part<'a>(&mut self, latest: &'a Latest) -> Option<Part<'a>> {
        let Latest { labels, sample, durable } = latest;
        if sample.is_staleness_marker() {
            return None;
        }
        let nanos = (self.rule.nanos)(sample.value)?;
        let (mut namespace, mut name, mut metric, mut is_own) = (None, None, "", true);
        for (at, (label, value)) in labels.iter().enumerate() {
            match self.role(at, label) {
                Role::Metric => metric = value,
                Role::Name => name = Some(value),
                Role::Namespace => namespace = Some(value),
                Role::Other => is_own = false,
                Role::Plain => {}
            }
        }
        if self.rule.namespaced {
            namespace?;
        }
        let timestamp_ms = sample.timestamp_ms;
        let value = ObjectValue { namespace, name: name?, metric, timestamp_ms, nanos, durable: *durable };
        Some(Part { value, is_own })
    }

    fn role(&mut self, at: usize, label: &str) -> Role {
        match self.known.get_mut(at) {
            Some((known, role)) if known == label => *role,
            Some(known) => {
                let role = role(label, self.rule);
                *known = (label.to_owned(), role);
                role
            }
            // Places come one after the other.
            None => {
                let role = role(label, self.rule);
                self.known.push((label.to_owned(), role));
                role
            }
        }
    }
}

fn role(label: &str, rule: &Rule<'_>) -> Role {
    match label {
        METRIC_NAME_LABEL => Role::Metric,
        _ if label == rule.described => Role::Name,
        NAMESPACE_LABEL if rule.namespaced => Role::Namespace,
        _ if (rule.is_resource_label)(label) => Role::Other,
        _ => Role::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::{Labels, STALENESS_MARKER_BITS, Sample};
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
        object_values(found, &rule)
            .into_iter()
            .map(|v| (v.name.to_owned(), v.timestamp_ms, v.nanos))
            .collect()
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
    fn series_of_different_labels_are_each_told_right() {
        let found = [
            series(&[("namespace", "d"), ("pod", "p2"), ("verb", "GET")], 1, 1.0),
            series(&[("node", "n1"), ("pod", "p1")], 1, 2.0),
            series(&[("namespace", "d"), ("node", "n1"), ("pod", "p1")], 1, 4.0),
            series(&[("app", "x"), ("namespace", "c"), ("pod", "p3")], 1, 8.0),
        ];
        let rule = Rule { described: "pod", namespaced: true, is_resource_label: &is_resource_label, nanos };
        let values = object_values(&found, &rule);
        let values: Vec<_> = values.iter().map(|v| (v.namespace, v.name, v.metric, v.nanos)).collect();
        let [c, d] = [Some("c"), Some("d")];
        assert_eq!(values, [(c, "p3", "m", 8), (d, "p1", "m", 4), (d, "p2", "m", 1)]);
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
