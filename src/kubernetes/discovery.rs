//! The discovery documents of the custom metrics API.
//!
//! Shapes: `k8s.io/apimachinery/pkg/apis/meta/v1` (`APIGroupList`, `APIGroup`, `APIResourceList`).

use super::catalog::{Entry, Snapshot};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, GroupVersionForDiscovery,
};
use k8s_openapi::apimachinery::pkg::version::Info;

/// The group of custom metrics.
pub const CUSTOM_METRICS_GROUP: &str = "custom.metrics.k8s.io";

/// A served version of the group.
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
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// The version of this name, if it is served.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// With the group, as in `apiVersion`.
    #[must_use]
    pub fn group_version(self) -> String {
        format!("{CUSTOM_METRICS_GROUP}/{}", self.as_str())
    }
}

/// The answer of `/apis`. Also to a request for the aggregated document, which lets the aggregator
/// fall back to asking for each version.
#[must_use]
pub fn group_list() -> APIGroupList {
    APIGroupList { groups: vec![group()] }
}

/// The answer of `/apis/custom.metrics.k8s.io`.
#[must_use]
pub fn group() -> APIGroup {
    let versions: Vec<_> = Version::ALL
        .into_iter()
        .map(|version| GroupVersionForDiscovery {
            group_version: version.group_version(),
            version: version.as_str().to_owned(),
        })
        .collect();
    APIGroup {
        name: CUSTOM_METRICS_GROUP.to_owned(),
        preferred_version: versions.first().cloned(),
        server_address_by_client_cidrs: None,
        versions,
    }
}

/// The answer of `/apis/custom.metrics.k8s.io/<version>`: one entry for each metric of each resource.
#[must_use]
pub fn resource_list(version: Version, snapshot: &Snapshot) -> APIResourceList {
    APIResourceList {
        group_version: version.group_version(),
        resources: snapshot.entries.iter().map(resource).collect(),
    }
}

fn resource(entry: &Entry) -> APIResource {
    APIResource {
        name: format!("{}/{}", entry.resource, entry.metric),
        namespaced: entry.namespaced,
        kind: "MetricValueList".to_owned(),
        verbs: vec!["get".to_owned()],
        ..APIResource::default()
    }
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
    use serde_json::json;

    #[test]
    fn the_group_names_every_served_version() {
        let version = |v: &str| json!({"groupVersion": format!("custom.metrics.k8s.io/{v}"), "version": v});
        let group = json!({
            "name": "custom.metrics.k8s.io",
            "versions": [version("v1beta2"), version("v1beta1")],
            "preferredVersion": version("v1beta2"),
        });
        let mut list = serde_json::to_value(group_list()).expect("json");
        assert_eq!((list["kind"].take(), list["apiVersion"].take()), (json!("APIGroupList"), json!("v1")));
        let mut listed = list["groups"][0].take();
        // `kind` and `apiVersion` inside the list are allowed; a client ignores them.
        let fields = listed.as_object_mut().expect("an object");
        fields.remove("kind");
        fields.remove("apiVersion");
        assert_eq!(listed, group);
        let mut alone = serde_json::to_value(super::group()).expect("json");
        assert_eq!(alone["kind"].take(), "APIGroup");
        assert_eq!(alone["apiVersion"].take(), "v1");
    }

    #[test]
    fn resources_are_listed_in_the_exact_shape() {
        let entry = Entry { resource: "pods".to_owned(), metric: "rps".to_owned(), namespaced: true };
        let mut snapshot = Snapshot::default();
        snapshot.entries.push(entry);
        assert_eq!(
            serde_json::to_value(resource_list(Version::V1Beta1, &snapshot)).expect("json"),
            json!({
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": "custom.metrics.k8s.io/v1beta1",
                "resources": [{
                    "name": "pods/rps",
                    "singularName": "",
                    "namespaced": true,
                    "kind": "MetricValueList",
                    "verbs": ["get"],
                }],
            })
        );
        let empty =
            serde_json::to_value(resource_list(Version::V1Beta2, &Snapshot::default())).expect("json");
        assert_eq!(empty["resources"], json!([]));
    }
}
