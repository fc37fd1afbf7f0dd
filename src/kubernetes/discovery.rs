//! The discovery documents: which groups, which versions, which metrics of which resources.
//!
//! Shapes: `k8s.io/apimachinery/pkg/apis/meta/v1` (`APIGroupList`, `APIGroup`, `APIResourceList`) and
//! `k8s.io/api/apidiscovery/v2` (`APIGroupDiscoveryList`, all of it in one document).

use super::catalog::{Entry, Snapshot};
use super::resource_metrics;
pub use super::served::{CUSTOM_METRICS_GROUP, EXTERNAL_METRICS_GROUP};
use super::served::{GroupVersion, Served};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, GroupVersionForDiscovery,
};
use k8s_openapi::apimachinery::pkg::version::Info;
use serde::Serialize;

/// A served version of the custom metrics group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `v1beta1`
    V1Beta1,
    /// `v1beta2`: the preferred one, as the metric's name and selector stand together in it.
    V1Beta2,
}

impl Version {
    /// All, the preferred one first.
    pub const ALL: [Self; 2] = [Self::V1Beta2, Self::V1Beta1];

    /// As in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.with_group().version()
    }

    /// The version of this name, if there is one.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// With the group.
    #[must_use]
    pub const fn with_group(self) -> GroupVersion {
        match self {
            Self::V1Beta1 => GroupVersion::CustomV1Beta1,
            Self::V1Beta2 => GroupVersion::CustomV1Beta2,
        }
    }

    /// With the group, as in `apiVersion`.
    #[must_use]
    pub fn group_version(self) -> String {
        self.with_group().to_string()
    }
}

/// The answer of `/apis`.
#[must_use]
pub fn group_list(served: &Served) -> APIGroupList {
    APIGroupList {
        groups: served.groups().into_iter().map(|(name, versions)| group(name, &versions)).collect(),
    }
}

/// The answer of `/apis/<group>`.
#[must_use]
pub fn group(name: &str, versions: &[GroupVersion]) -> APIGroup {
    let version = |version: &GroupVersion| GroupVersionForDiscovery {
        group_version: version.to_string(),
        version: version.version().to_owned(),
    };
    let versions: Vec<_> = versions.iter().map(version).collect();
    APIGroup {
        name: name.to_owned(),
        preferred_version: versions.first().cloned(),
        server_address_by_client_cidrs: None,
        versions,
    }
}

/// The answer of `/apis/<group>/<version>`: one entry for each metric of each resource, or for each
/// external metric.
#[must_use]
pub fn resource_list(version: GroupVersion, snapshot: &Snapshot) -> APIResourceList {
    let resource = |name: String, namespaced| APIResource {
        name,
        namespaced,
        kind: version.list_kind().to_owned(),
        verbs: vec!["get".to_owned()],
        ..APIResource::default()
    };
    let resources = match version {
        GroupVersion::ExternalV1Beta1 => {
            snapshot.external.iter().map(|metric| resource(metric.clone(), true)).collect()
        }
        GroupVersion::ResourceV1Beta1 => resource_metrics::api_resources(),
        GroupVersion::CustomV1Beta1 | GroupVersion::CustomV1Beta2 => {
            let name = |entry: &Entry| format!("{}/{}", entry.resource, entry.metric);
            snapshot.entries.iter().map(|entry| resource(name(entry), entry.namespaced)).collect()
        }
    };
    APIResourceList { group_version: version.to_string(), resources }
}

/// The answer of `/apis` to those who ask for one document of everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregatedDiscovery {
    kind: &'static str,
    api_version: String,
    metadata: Empty,
    items: Vec<AggregatedGroup>,
}

#[derive(Debug, Serialize)]
struct Empty {}

#[derive(Debug, Serialize)]
struct AggregatedGroup {
    metadata: GroupName,
    versions: Vec<AggregatedVersion>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupName {
    name: &'static str,
    creation_timestamp: (),
}

#[derive(Debug, Serialize)]
struct AggregatedVersion {
    version: &'static str,
    resources: Vec<AggregatedResource>,
    freshness: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    response_kind: Kind,
    scope: &'static str,
    singular_resource: &'static str,
    /// None where the parent is only the place of its subresources.
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<AggregatedSubresource>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedSubresource {
    subresource: String,
    response_kind: Kind,
    verbs: [&'static str; 1],
}

/// Empty texts say that the parent itself can't be asked for.
#[derive(Debug, Default, Serialize)]
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

impl Kind {
    const fn of(version: GroupVersion) -> Self {
        Self { group: version.group(), version: version.version(), kind: version.list_kind() }
    }
}

impl AggregatedDiscovery {
    /// In this version of its own group, `v2` or `v2beta1`, which differ in nothing else.
    #[must_use]
    pub fn new(version: &str, served: &Served, snapshot: &Snapshot) -> Self {
        let group = |(name, versions): (&'static str, Vec<GroupVersion>)| AggregatedGroup {
            metadata: GroupName { name, creation_timestamp: () },
            versions: versions.into_iter().map(|version| aggregated_version(version, snapshot)).collect(),
        };
        Self {
            kind: "APIGroupDiscoveryList",
            api_version: format!("apidiscovery.k8s.io/{version}"),
            metadata: Empty {},
            items: served.groups().into_iter().map(group).collect(),
        }
    }
}

fn aggregated_version(version: GroupVersion, snapshot: &Snapshot) -> AggregatedVersion {
    let scope = |namespaced| if namespaced { "Namespaced" } else { "Cluster" };
    let mut resources: Vec<AggregatedResource> = Vec::new();
    if version == GroupVersion::ResourceV1Beta1 {
        resources.extend(resource_metrics::RESOURCES.map(|(plural, kind, namespaced)| AggregatedResource {
            resource: plural.to_owned(),
            response_kind: Kind { kind, ..Kind::of(version) },
            scope: scope(namespaced),
            singular_resource: "",
            verbs: resource_metrics::VERBS.to_vec(),
            subresources: Vec::new(),
        }));
    } else if version == GroupVersion::ExternalV1Beta1 {
        resources.extend(snapshot.external.iter().map(|metric| AggregatedResource {
            resource: metric.clone(),
            response_kind: Kind::of(version),
            scope: scope(true),
            singular_resource: "",
            verbs: vec!["get"],
            subresources: Vec::new(),
        }));
    } else {
        // Entries are sorted by resource, and those of one resource have one scope.
        for entry in &snapshot.entries {
            if resources.last().is_none_or(|last| last.resource != entry.resource) {
                resources.push(AggregatedResource {
                    resource: entry.resource.clone(),
                    response_kind: Kind::default(),
                    scope: scope(entry.namespaced),
                    singular_resource: "",
                    verbs: Vec::new(),
                    subresources: Vec::new(),
                });
            }
            let Some(parent) = resources.last_mut() else { continue };
            parent.subresources.push(AggregatedSubresource {
                subresource: entry.metric.clone(),
                response_kind: Kind::of(version),
                verbs: ["get"],
            });
        }
    }
    AggregatedVersion { version: version.version(), resources, freshness: "Current" }
}

/// The answer of `/version`: Lookback's own, as there is no Kubernetes in it.
#[must_use]
pub fn version_info() -> Info {
    Info {
        major: env!("CARGO_PKG_VERSION_MAJOR").to_owned(),
        minor: env!("CARGO_PKG_VERSION_MINOR").to_owned(),
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        compiler: "rustc".to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        ..Info::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry(resource: &str, metric: &str, namespaced: bool) -> Entry {
        Entry { resource: resource.to_owned(), metric: metric.to_owned(), namespaced }
    }

    #[test]
    fn the_groups_name_every_served_version() {
        let version = |v: &str| json!({"groupVersion": v, "version": v.split('/').next_back()});
        let custom = |v: &str| version(&format!("custom.metrics.k8s.io/{v}"));
        let external = version("external.metrics.k8s.io/v1beta1");
        let list = serde_json::to_value(group_list(&Served::default())).expect("json");
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
        let groups = list["groups"].as_array().expect("a list");
        let told = |group: &Value| {
            (group["name"].clone(), group["versions"].clone(), group["preferredVersion"].clone())
        };
        assert_eq!(
            groups.iter().map(told).collect::<Vec<_>>(),
            [
                (
                    json!("custom.metrics.k8s.io"),
                    json!([custom("v1beta2"), custom("v1beta1")]),
                    custom("v1beta2")
                ),
                (json!("external.metrics.k8s.io"), json!([external]), external.clone()),
            ]
        );
        let alone = group(EXTERNAL_METRICS_GROUP, &[GroupVersion::ExternalV1Beta1]);
        let alone = serde_json::to_value(alone).expect("json");
        assert_eq!((&alone["kind"], &alone["apiVersion"]), (&json!("APIGroup"), &json!("v1")));
        let one = Served::of_runtime_config(["custom.metrics.k8s.io/v1beta2=false"]).expect("usable");
        assert_eq!(group_list(&one).groups[0].versions.len(), 1);
    }

    #[test]
    fn resources_are_listed_in_the_exact_shape() {
        let mut snapshot = Snapshot::default();
        snapshot.entries.push(entry("pods", "rps", true));
        snapshot.external.push("queue".to_owned());
        for (version, name, kind) in [
            (GroupVersion::CustomV1Beta1, "pods/rps", "MetricValueList"),
            (GroupVersion::ExternalV1Beta1, "queue", "ExternalMetricValueList"),
        ] {
            assert_eq!(
                serde_json::to_value(resource_list(version, &snapshot)).expect("json"),
                json!({
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": version.to_string(),
                    "resources": [{
                        "name": name,
                        "singularName": "",
                        "namespaced": true,
                        "kind": kind,
                        "verbs": ["get"],
                    }],
                })
            );
        }
        let empty = resource_list(GroupVersion::CustomV1Beta2, &Snapshot::default());
        assert_eq!(serde_json::to_value(empty).expect("json")["resources"], json!([]));
    }

    #[test]
    fn the_aggregated_document_has_each_resource_once_with_its_metrics_below_it() {
        let mut snapshot = Snapshot::default();
        for (resource, metric, namespaced) in
            [("nodes", "load", false), ("pods", "http", true), ("pods", "rps", true)]
        {
            snapshot.entries.push(entry(resource, metric, namespaced));
        }
        snapshot.external.push("queue".to_owned());
        let document = AggregatedDiscovery::new("v2", &Served::default(), &snapshot);
        let document = serde_json::to_value(document).expect("json");
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        let sub = |metric: &str| {
            let kind = kind("custom.metrics.k8s.io", "v1beta2", "MetricValueList");
            json!({"subresource": metric, "responseKind": kind, "verbs": ["get"]})
        };
        let parent = |resource: &str, scope: &str, subresources: Value| {
            json!({"resource": resource, "responseKind": kind("", "", ""), "scope": scope,
                "singularResource": "", "verbs": [], "subresources": subresources})
        };
        let custom = &document["items"][0];
        assert_eq!(custom["metadata"], json!({"name": "custom.metrics.k8s.io", "creationTimestamp": null}));
        assert_eq!(
            custom["versions"][0],
            json!({"version": "v1beta2", "freshness": "Current", "resources": [
                parent("nodes", "Cluster", json!([sub("load")])),
                parent("pods", "Namespaced", json!([sub("http"), sub("rps")])),
            ]})
        );
        assert_eq!(
            document["items"][1]["versions"][0]["resources"],
            json!([{"resource": "queue", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                "responseKind": kind("external.metrics.k8s.io", "v1beta1", "ExternalMetricValueList")}])
        );
    }
}
