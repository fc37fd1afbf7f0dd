//! `PodMetrics` and `NodeMetrics` of `metrics.k8s.io/v1beta1`, in the exact shape (`k8s.io/metrics/pkg/apis/metrics`), and
//! what discovery says of them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Plural, kind, and whether its objects lie in namespaces: of each resource.
pub const RESOURCES: [(&str, &str, bool); 2] =
    [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];

/// What can be done with them.
pub const VERBS: [&str; 2] = ["get", "list"];

/// The entries of `/apis/metrics.k8s.io/v1beta1`.
#[must_use]
pub fn api_resources() -> Vec<APIResource> {
    let resource = |(plural, kind, namespaced): (&str, &str, bool)| APIResource {
        name: plural.to_owned(),
        kind: kind.to_owned(),
        namespaced,
        verbs: VERBS.map(str::to_owned).to_vec(),
        ..APIResource::default()
    };
    RESOURCES.map(resource).to_vec()
}

/// Whose usage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// The object's name.
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When this was made, which is now.
    pub creation_timestamp: Timestamp,
    /// The object's labels, where they are known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// CPU and memory, which show themselves as quantities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceList {
    /// Billionths of a core.
    pub cpu_nanocores: u64,
    /// The working set.
    pub memory_bytes: u64,
}

impl ResourceList {
    /// How much is used of a resource, in cores or bytes; `None`: it is not told.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people and formulas")]
    pub fn of(&self, resource: &str) -> Option<f64> {
        match resource {
            "cpu" => Some(self.cpu_nanocores as f64 / 1e9),
            "memory" => Some(self.memory_bytes as f64),
            _ => None,
        }
    }
}

impl Serialize for ResourceList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("cpu", &decimal_nanos(self.cpu_nanocores))?;
        map.serialize_entry("memory", &binary(self.memory_bytes))?;
        map.end()
    }
}

/// What a container uses.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerMetrics {
    /// Its name.
    pub name: String,
    /// What it uses.
    pub usage: ResourceList,
}

/// What is said of a pod or a node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// `PodMetrics` or `NodeMetrics`, where it stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// With `kind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Whose.
    pub metadata: ObjectMeta,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Over how long CPU was measured, as Go writes durations.
    pub window: String,
    /// The same in milliseconds.
    #[serde(skip)]
    pub window_ms: i64,
    /// A node's usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceList>,
    /// A pod's usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<ContainerMetrics>>,
}

/// Many of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsList {
    /// `PodMetricsList` or `NodeMetricsList`.
    pub kind: String,
    /// `metrics.k8s.io/v1beta1`
    pub api_version: String,
    /// Nothing.
    pub metadata: BTreeMap<String, String>,
    /// By namespace and name.
    pub items: Vec<Metrics>,
}

/// Billionths as a quantity in Kubernetes' canonical form: the largest unit of which there is a whole number.
#[must_use]
pub fn decimal_nanos(nanos: u64) -> String {
    shortest(nanos, 1_000, &["n", "u", "m", "", "k", "M", "G"])
}

/// Bytes, likewise in powers of 1,024.
#[must_use]
pub fn binary(bytes: u64) -> String {
    shortest(bytes, 1_024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

fn shortest(mut number: u64, base: u64, units: &[&str]) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    let mut unit = 0;
    while number.is_multiple_of(base) && unit + 1 < units.len() {
        number /= base;
        unit += 1;
    }
    format!("{number}{}", units.get(unit).copied().unwrap_or_default())
}

/// A duration as Go writes it: `15.5s`, `1m0s`, `250ms`.
#[must_use]
pub fn go_duration(duration_ms: i64) -> String {
    let ms = duration_ms.unsigned_abs();
    let mut text = String::new();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if ms >= 60_000 {
        let _ = write!(text, "{minutes}m");
    }
    let fraction = format!("{:03}", ms % 1_000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let _ = write!(text, "{}{dot}{fraction}s", ms / 1_000 % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::quantity::Quantity;
    use crate::time::parse_duration;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_in_the_canonical_form() {
        for (nanos, expected) in [
            (0, "0"),
            (1, "1n"),
            (123_456_789, "123456789n"),
            (123_456_000, "123456u"),
            (250_000_000, "250m"),
            (2_000_000_000, "2"),
            (5_000_000_000_000, "5k"),
        ] {
            assert_eq!(decimal_nanos(nanos), expected);
        }
        for (bytes, expected) in [
            (0, "0"),
            (1_000, "1000"),
            (1_024, "1Ki"),
            (100 << 20, "100Mi"),
            ((100 << 20) + 4_096, "102404Ki"),
        ] {
            assert_eq!(binary(bytes), expected);
        }
    }

    #[test]
    fn durations_are_as_in_go() {
        for (ms, expected) in [
            (0, "0s"),
            (250, "250ms"),
            (15_000, "15s"),
            (15_046, "15.046s"),
            (15_500, "15.5s"),
            (60_000, "1m0s"),
            (61_001, "1m1.001s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(ms), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_means_the_same(number in 0_u64..1 << 52, ms in 1_i64..100_000_000) {
            let bytes = Quantity::parse(&binary(number)).expect("a quantity").value().expect("in range");
            prop_assert_eq!(bytes.to_bits(), (number as f64).to_bits());
            prop_assert!(Quantity::parse(&decimal_nanos(number)).is_ok());
            prop_assert_eq!(parse_duration(&go_duration(ms)), Ok(ms));
        }
    }
}
