//! The bodies that carry values: `MetricValueList` in both versions.
//!
//! Shapes: `k8s.io/metrics/pkg/apis/custom_metrics/{v1beta1,v1beta2}`. `selector` is always there, null
//! where none was asked; `items` is never null.

use crate::kubernetes::discovery::Version;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::resources::Resource;
use crate::query::latest::ObjectValue;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

/// The values of a metric, one an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricValueList {
    kind: &'static str,
    api_version: String,
    metadata: NoMetadata,
    items: Vec<MetricValue>,
}

/// `{}`
#[derive(Serialize)]
struct NoMetadata {}

#[derive(Serialize)]
#[serde(untagged)]
enum MetricValue {
    #[serde(rename_all = "camelCase")]
    V1Beta1 {
        described_object: ObjectReference,
        metric_name: String,
        timestamp: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        window: Option<u64>,
        value: String,
        selector: Option<LabelSelector>,
    },
    #[serde(rename_all = "camelCase")]
    V1Beta2 {
        described_object: ObjectReference,
        metric: MetricIdentifier,
        timestamp: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        window_seconds: Option<u64>,
        value: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    api_version: String,
}

#[derive(Serialize)]
struct MetricIdentifier {
    name: String,
    selector: Option<LabelSelector>,
}

impl MetricValueList {
    /// Of these values of objects of one resource. A sum that can't be carried is a missing value.
    /// `window_seconds` tells of a metric the window over which it is a rate.
    pub fn new(
        version: Version,
        resource: &Resource,
        selector: Option<&LabelSelector>,
        values: Vec<ObjectValue>,
        window_seconds: &dyn Fn(&str) -> Option<u64>,
    ) -> Self {
        let item = |value: ObjectValue| {
            let window = window_seconds(&value.of.metric);
            item(version, resource, selector, value, window)
        };
        let items = values.into_iter().filter_map(item).collect();
        Self { kind: "MetricValueList", api_version: version.group_version(), metadata: NoMetadata {}, items }
    }

    /// Whether it has no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

fn item(
    version: Version,
    resource: &Resource,
    selector: Option<&LabelSelector>,
    value: ObjectValue,
    window: Option<u64>,
) -> Option<MetricValue> {
    let quantity = Quantity::from_nanos(value.nanos);
    quantity.milli()?;
    let timestamp = Timestamp::from_second(value.timestamp_ms.div_euclid(1000)).ok()?.to_string();
    let described_object = ObjectReference {
        kind: resource.kind.to_string(),
        namespace: value.of.namespace,
        name: value.of.name,
        api_version: resource.api_version(),
    };
    let (name, value, selector) = (value.of.metric, quantity.to_string(), selector.cloned());
    Some(match version {
        Version::V1Beta1 => {
            MetricValue::V1Beta1 { described_object, metric_name: name, timestamp, window, value, selector }
        }
        Version::V1Beta2 => {
            let metric = MetricIdentifier { name, selector };
            MetricValue::V1Beta2 { described_object, metric, timestamp, window_seconds: window, value }
        }
    })
}
