//! What an autoscaler asks of the metrics APIs for one of its metrics, as kube-controller-manager does.

use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::replica_formula::TargetKind;
use crate::kubernetes::served::{CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP, RESOURCE_METRICS_GROUP};
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricSpec, MetricTarget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a segment or a value of a query keeps as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A question for one metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// For people: `pods rps`.
    pub(super) name: String,
    /// Which API is asked.
    pub(super) group: &'static str,
    /// What is asked there, below the version.
    pub(super) rest: String,
    /// What the answer is held against.
    pub(super) target: Target,
}

/// A target.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// Of a metric of pods, another object or none: how it is meant, and how much, in millis.
    Metric(TargetKind, i64),
    /// Of what pods use of a resource by one container, or by all.
    Usage { resource: String, container: Option<String>, target: UsageTarget },
}

/// A target of what pods use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum UsageTarget {
    /// So much each, in millis.
    Average(i64),
    /// So many percent of what they request.
    Utilization(u32),
}

/// The question of a metric; `None`: it is not whole. `pods` selects the pods of the autoscaler's target.
pub(super) fn question(
    spec: &MetricSpec,
    namespace: &str,
    pods: &str,
    resolver: &Resolver,
) -> Option<Question> {
    let in_namespace = format!("namespaces/{}", encoded(namespace));
    let custom = |name, rest, kind, target| {
        let target = Target::Metric(kind, target);
        Some(Question { name, group: CUSTOM_METRICS_GROUP, rest, target })
    };
    let usage = |resource: &str, container: Option<&str>, target: &MetricTarget| {
        let rest = format!("{in_namespace}/pods{}", query(&[("labelSelector", pods)]));
        let name = named(&["usage", resource, container.unwrap_or_default()]);
        let target = Target::Usage {
            resource: resource.to_owned(),
            container: container.map(str::to_owned),
            target: usage_target(target)?,
        };
        Some(Question { name, group: RESOURCE_METRICS_GROUP, rest, target })
    };
    if let Some(source) = &spec.resource {
        return usage(&source.name, None, &source.target);
    }
    if let Some(source) = &spec.container_resource {
        return usage(&source.name, Some(&source.container), &source.target);
    }
    if let Some(source) = &spec.pods {
        let metric = &source.metric;
        let of_series = selector_text(metric.selector.as_ref());
        let query = query(&[("labelSelector", pods), ("metricLabelSelector", &of_series)]);
        let rest = format!("{in_namespace}/pods/%2A/{}{query}", encoded(&metric.name));
        let target = milli(source.target.average_value.as_ref()?)?;
        return custom(named(&["pods", &metric.name, &of_series]), rest, TargetKind::PodsAverage, target);
    }
    if let Some(source) = &spec.object {
        let (metric, object) = (&source.metric, &source.described_object);
        let of_series = selector_text(metric.selector.as_ref());
        let query = query(&[("metricLabelSelector", &of_series)]);
        let resource = resource(object, resolver);
        let path = match resource.as_str() {
            "namespaces" => format!("namespaces/{}/metrics", encoded(&object.name)),
            resource => format!("{in_namespace}/{}/{}", encoded(resource), encoded(&object.name)),
        };
        let rest = format!("{path}/{}{query}", encoded(&metric.name));
        let (kind, target) = shared(&source.target)?;
        let whose = format!("{resource}/{}", object.name);
        return custom(named(&[&whose, &metric.name, &of_series]), rest, kind, target);
    }
    let source = spec.external.as_ref()?;
    let of_series = selector_text(source.metric.selector.as_ref());
    let rest =
        format!("{in_namespace}/{}{}", encoded(&source.metric.name), query(&[("labelSelector", &of_series)]));
    let (kind, target) = shared(&source.target)?;
    let name = named(&["external", &source.metric.name, &of_series]);
    Some(Question { name, group: EXTERNAL_METRICS_GROUP, rest, target: Target::Metric(kind, target) })
}

fn named(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

fn query(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn selector_text(selector: Option<&LabelSelector>) -> String {
    let selector = selector.and_then(|selector| Selector::try_from(selector.clone()).ok());
    selector
        .filter(|selector| !selector.selects_all())
        .map_or_else(String::new, |selector| selector.to_string())
}

/// The resource of an object's kind, with its group, as the cluster has it.
pub(super) fn resource(object: &CrossVersionObjectReference, resolver: &Resolver) -> String {
    let group = object.api_version.as_deref().and_then(|version| Some(version.split_once('/')?.0));
    let kind = object.kind.to_lowercase();
    let name = group.map_or_else(|| kind.clone(), |group| format!("{kind}.{group}"));
    resolver.resolve(&name).map_or(name, |resource| resource.group_resource())
}

fn shared(target: &MetricTarget) -> Option<(TargetKind, i64)> {
    if let Some(value) = &target.value {
        return Some((TargetKind::Value, milli(value)?));
    }
    Some((TargetKind::SharedAverage, milli(target.average_value.as_ref()?)?))
}

fn usage_target(target: &MetricTarget) -> Option<UsageTarget> {
    if let Some(average) = &target.average_value {
        return Some(UsageTarget::Average(milli(average)?));
    }
    Some(UsageTarget::Utilization(u32::try_from(target.average_utilization?).ok()?))
}

fn milli(text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Option<i64> {
    Quantity::parse(&text.0).ok()?.milli()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_metric_asks_what_the_controller_asks() {
        let selector = json!({"matchLabels": {"verb": "GET"}, "matchExpressions": [
            {"key": "code", "operator": "In", "values": ["200", "201"]}]});
        let object = |kind: &str, version: &str| {
            json!({"type": "Object", "object": {"metric": {"name": "q"},
            "describedObject": {"kind": kind, "name": "web", "apiVersion": version},
            "target": {"type": "Value", "value": "2k"}}})
        };
        for (spec, name, rest, kind, target) in [
            (
                json!({"type": "Pods", "pods": {"metric": {"name": "rps", "selector": selector},
                    "target": {"type": "AverageValue", "averageValue": "1500m"}}}),
                "pods rps verb=GET,code in (200,201)",
                "namespaces/shop/pods/%2A/rps?labelSelector=app%3Dweb\
                 &metricLabelSelector=verb%3DGET%2Ccode%20in%20%28200%2C201%29",
                TargetKind::PodsAverage,
                1_500,
            ),
            (
                object("Service", "v1"),
                "services/web q",
                "namespaces/shop/services/web/q",
                TargetKind::Value,
                2_000_000,
            ),
            (
                object("Ingress", "networking.k8s.io/v1"),
                "ingresses.networking.k8s.io/web q",
                "namespaces/shop/ingresses.networking.k8s.io/web/q",
                TargetKind::Value,
                2_000_000,
            ),
            (
                object("Namespace", "v1"),
                "namespaces/web q",
                "namespaces/web/metrics/q",
                TargetKind::Value,
                2_000_000,
            ),
            (
                json!({"type": "External", "external": {"metric": {"name": "jobs", "selector": {"matchLabels": {"q": "a"}}},
                    "target": {"type": "AverageValue", "averageValue": "4"}}}),
                "external jobs q=a",
                "namespaces/shop/jobs?labelSelector=q%3Da",
                TargetKind::SharedAverage,
                4_000,
            ),
        ] {
            let spec: MetricSpec = serde_json::from_value(spec).expect("a metric");
            let asked = question(&spec, "shop", "app=web", &Resolver::default()).expect("a question");
            assert_eq!((asked.name.as_str(), asked.rest.as_str()), (name, rest));
            assert_eq!(asked.target, Target::Metric(kind, target), "{name}");
        }
        let utilization = json!({"type": "Utilization", "averageUtilization": 60});
        let average = json!({"type": "AverageValue", "averageValue": "512Mi"});
        for (spec, name, target) in [
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": utilization}}),
                "usage cpu",
                Target::Usage {
                    resource: "cpu".to_owned(),
                    container: None,
                    target: UsageTarget::Utilization(60),
                },
            ),
            (
                json!({"type": "ContainerResource",
                "containerResource": {"name": "memory", "container": "app", "target": average}}),
                "usage memory app",
                Target::Usage {
                    resource: "memory".to_owned(),
                    container: Some("app".to_owned()),
                    target: UsageTarget::Average(536_870_912_000),
                },
            ),
        ] {
            let spec: MetricSpec = serde_json::from_value(spec).expect("a metric");
            let asked = question(&spec, "shop", "app=web", &Resolver::default()).expect("a question");
            assert_eq!((asked.name.as_str(), &asked.target), (name, &target));
            assert_eq!(
                (asked.group, asked.rest.as_str()),
                ("metrics.k8s.io", "namespaces/shop/pods?labelSelector=app%3Dweb")
            );
        }
    }
}
