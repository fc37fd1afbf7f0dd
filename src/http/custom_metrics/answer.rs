//! The bodies that carry values: `MetricValueList` in both versions.
//!
//! Shapes: `k8s.io/metrics/pkg/apis/custom_metrics/{v1beta1,v1beta2}`. `selector` is always there, null
//! where none was asked; `items` is never null.
//!
//! Written straight into one buffer: what the items of an answer share is encoded once. The tests hold it, byte by
//! byte, against what serde makes of the same shapes.

use crate::kubernetes::discovery::Version;
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::resources::Resource;
use crate::query::latest::ObjectValue;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

/// The values of a metric, one an object.
#[derive(Debug)]
pub struct MetricValueList {
    /// In JSON.
    body: Vec<u8>,
    items: usize,
}

impl MetricValueList {
    /// Of these values of objects of one resource. A sum that can't be carried is a missing value.
    /// `window_seconds` tells of a metric the window over which it is a rate.
    pub fn new(
        version: Version,
        resource: &Resource,
        selector: Option<&LabelSelector>,
        values: &[ObjectValue<'_>],
        window_seconds: &dyn Fn(&str) -> Option<u64>,
    ) -> Self {
        let mut body = Vec::new();
        body.extend_from_slice(br#"{"kind":"MetricValueList","apiVersion":"#);
        put(&mut body, &version.group_version());
        body.extend_from_slice(br#","metadata":{},"items":["#);
        let begun_at = body.len();
        let mut items = Items {
            version,
            resource,
            selector,
            window_seconds,
            of_namespace: None,
            of_metric: None,
            times: Times::default(),
        };
        let mut count = 0;
        for value in values {
            if !items.put(value, count > 0, &mut body) {
                continue;
            }
            count += 1;
            if count == 1 {
                // The others are about as long.
                body.reserve((body.len() - begun_at + 8).saturating_mul(values.len()));
            }
        }
        body.extend_from_slice(b"]}");
        Self { body, items: count }
    }

    /// Whether it has no item.
    pub const fn is_empty(&self) -> bool {
        self.items == 0
    }
}

impl IntoResponse for MetricValueList {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], self.body).into_response()
    }
}

/// Writes items, each part that is the same as in the one before from memory.
struct Items<'a> {
    version: Version,
    resource: &'a Resource,
    selector: Option<&'a LabelSelector>,
    window_seconds: &'a dyn Fn(&str) -> Option<u64>,
    /// A namespace, and what comes before the name of an object in it.
    of_namespace: Option<(Option<&'a str>, Vec<u8>)>,
    /// A metric, and what is said of it.
    of_metric: Option<(&'a str, OfMetric)>,
    times: Times,
}

/// The parts of an item that depend on its metric.
struct OfMetric {
    /// Between the object's name and the time.
    before_time: Vec<u8>,
    /// Between the time and the value.
    before_value: Vec<u8>,
    /// After the value.
    end: Vec<u8>,
}

impl<'a> Items<'a> {
    /// Appends an item; answers whether it can be carried.
    fn put(&mut self, value: &ObjectValue<'a>, comma: bool, body: &mut Vec<u8>) -> bool {
        if Quantity::from_nanos(value.nanos).milli().is_none() {
            return false;
        }
        let Some(time) = self.times.of_second(value.timestamp_ms.div_euclid(1000)) else { return false };
        if self.of_namespace.as_ref().is_none_or(|(namespace, _)| *namespace != value.namespace) {
            self.of_namespace = Some((value.namespace, before_name(self.resource, value.namespace)));
        }
        if self.of_metric.as_ref().is_none_or(|(metric, _)| *metric != value.metric) {
            let window = (self.window_seconds)(value.metric);
            let parts = OfMetric::new(self.version, self.resource, self.selector, value.metric, window);
            self.of_metric = Some((value.metric, parts));
        }
        let (Some((_, before_name)), Some((_, of_metric))) = (&self.of_namespace, &self.of_metric) else {
            return false;
        };
        if comma {
            body.push(b',');
        }
        body.extend_from_slice(before_name);
        put(body, value.name);
        body.extend_from_slice(&of_metric.before_time);
        body.extend_from_slice(time.as_bytes());
        body.extend_from_slice(&of_metric.before_value);
        Quantity::write_nanos(value.nanos, body);
        body.extend_from_slice(&of_metric.end);
        true
    }
}

fn before_name(resource: &Resource, namespace: Option<&str>) -> Vec<u8> {
    let mut part = Vec::new();
    part.extend_from_slice(br#"{"describedObject":{"kind":"#);
    put(&mut part, &resource.kind);
    if let Some(namespace) = namespace {
        part.extend_from_slice(br#","namespace":"#);
        put(&mut part, namespace);
    }
    part.extend_from_slice(br#","name":"#);
    part
}

impl OfMetric {
    fn new(
        version: Version,
        resource: &Resource,
        selector: Option<&LabelSelector>,
        metric: &str,
        window: Option<u64>,
    ) -> Self {
        let (mut before_time, mut before_value, mut end) = (Vec::new(), Vec::new(), Vec::new());
        before_time.extend_from_slice(br#","apiVersion":"#);
        put(&mut before_time, &resource.api_version());
        match version {
            Version::V1Beta1 => {
                before_time.extend_from_slice(br#"},"metricName":"#);
                put(&mut before_time, metric);
            }
            Version::V1Beta2 => {
                before_time.extend_from_slice(br#"},"metric":{"name":"#);
                put(&mut before_time, metric);
                before_time.extend_from_slice(br#","selector":"#);
                put(&mut before_time, &selector);
                before_time.push(b'}');
            }
        }
        before_time.extend_from_slice(br#","timestamp":""#);
        before_value.extend_from_slice(br#"","#);
        if let Some(window) = window {
            before_value.extend_from_slice(match version {
                Version::V1Beta1 => br#""window":"#,
                Version::V1Beta2 => br#""windowSeconds":"#,
            });
            put(&mut before_value, &window);
            before_value.push(b',');
        }
        before_value.extend_from_slice(br#""value":""#);
        end.push(b'"');
        if version == Version::V1Beta1 {
            end.extend_from_slice(br#","selector":"#);
            put(&mut end, &selector);
        }
        end.push(b'}');
        Self { before_time, before_value, end }
    }
}

/// Appends a value in JSON.
fn put(body: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // invariant: what is written here is text, numbers and maps of texts, into memory.
    debug_assert!(serde_json::to_string(value).is_ok());
    let _ = serde_json::to_writer(body, value);
}

/// How many seconds are kept as written; a power of two.
const TIMES_KEPT: usize = 64;

/// Seconds as they are written; the samples of an answer mostly share a few.
struct Times([Option<(i64, String)>; TIMES_KEPT]);

impl Default for Times {
    fn default() -> Self {
        Self([const { None }; TIMES_KEPT])
    }
}

impl Times {
    /// RFC 3339, UTC; `None` for a second that has no such form.
    fn of_second(&mut self, second: i64) -> Option<&str> {
        let at = usize::try_from(second.rem_euclid(TIMES_KEPT as i64)).ok()?;
        let kept = self.0.get_mut(at)?;
        if kept.as_ref().is_none_or(|(of, _)| *of != second) {
            *kept = Some((second, Timestamp::from_second(second).ok()?.to_string()));
        }
        kept.as_ref().map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::resources::resolve;
    use crate::kubernetes::selector::{parse, to_label_selector};
    use proptest::prelude::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        kind: &'static str,
        api_version: String,
        metadata: NoMetadata,
        items: Vec<Item>,
    }

    /// `{}`
    #[derive(Serialize)]
    struct NoMetadata {}

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Item {
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

    fn by_serde(
        version: Version,
        resource: &Resource,
        selector: Option<&LabelSelector>,
        values: &[ObjectValue<'_>],
        window_seconds: &dyn Fn(&str) -> Option<u64>,
    ) -> String {
        let item = |value: &ObjectValue<'_>| {
            let quantity = Quantity::from_nanos(value.nanos);
            quantity.milli()?;
            let timestamp = Timestamp::from_second(value.timestamp_ms.div_euclid(1000)).ok()?.to_string();
            let described_object = ObjectReference {
                kind: resource.kind.to_string(),
                namespace: value.namespace.map(str::to_owned),
                name: value.name.to_owned(),
                api_version: resource.api_version(),
            };
            let (name, selector) = (value.metric.to_owned(), selector.cloned());
            let (value, window) = (quantity.to_string(), window_seconds(value.metric));
            Some(match version {
                Version::V1Beta1 => {
                    Item::V1Beta1 { described_object, metric_name: name, timestamp, window, value, selector }
                }
                Version::V1Beta2 => {
                    let metric = MetricIdentifier { name, selector };
                    Item::V1Beta2 { described_object, metric, timestamp, window_seconds: window, value }
                }
            })
        };
        let items = values.iter().filter_map(item).collect();
        let api_version = version.group_version();
        let list = List { kind: "MetricValueList", api_version, metadata: NoMetadata {}, items };
        serde_json::to_string(&list).expect("JSON")
    }

    fn value() -> impl Strategy<Value = (Option<String>, String, String, i64, i128)> {
        let time =
            prop_oneof![0_i64..2_000_000_000_000, 1_700_000_000_000_i64..1_700_000_003_000, any::<i64>()];
        let nanos = prop_oneof![
            any::<i64>().prop_map(i128::from),
            any::<i128>(),
            (0_i128..999).prop_map(|n| n * 1_000_000_000)
        ];
        (proptest::option::of("[ab]|\\PC{0,4}"), "[a-z0-9-]{1,12}|.{0,6}", "[mn]|.{0,3}", time, nanos)
    }

    proptest! {
        #[test]
        fn it_is_what_serde_makes_of_the_same(
            values in proptest::collection::vec(value(), 0..12),
            selector in "(verb=GET|a in \\(b,c\\)|!d)?",
            window in proptest::option::of(1_u64..4_000),
            resource in proptest::sample::select(&["pods", "nodes", "deployments.apps", "widgets.example.com"][..]),
            is_first in any::<bool>(),
        ) {
            let version = if is_first { Version::V1Beta1 } else { Version::V1Beta2 };
            let resource = resolve(resource).expect("a resource");
            let selector = to_label_selector(&parse(&selector).expect("a selector"));
            let values: Vec<ObjectValue<'_>> = values.iter().map(|(namespace, name, metric, timestamp_ms, nanos)| ObjectValue {
                namespace: namespace.as_deref(), name, metric, timestamp_ms: *timestamp_ms, nanos: *nanos, durable: true,
            }).collect();
            let window_seconds = |metric: &str| window.filter(|_| metric != "m");
            let list = MetricValueList::new(version, &resource, selector.as_ref(), &values, &window_seconds);
            let expected = by_serde(version, &resource, selector.as_ref(), &values, &window_seconds);
            prop_assert_eq!(list.is_empty(), expected.ends_with(r#""items":[]}"#));
            prop_assert_eq!(String::from_utf8(list.body).expect("text"), expected);
        }
    }
}
