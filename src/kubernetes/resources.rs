//! Which resources metrics can describe, and by which label a series names the object it describes.
//!
//! invariant: the label of a resource depends on this file alone, never on a cluster: the same path
//! names the same series wherever and whenever it is used. A label changes only with the stored data.
//!
//! Resources in the table go by their singular (`pods` → `pod`). Any other must be named with its
//! group, and goes by `<plural>_<group>` with `_` for each `.` and `-` (`widgets.example.com` →
//! `widgets_example_com`). The table leaves out resources whose singular is a common metric label of
//! another meaning (`role`, `event`, …); with a group like `rbac.authorization.k8s.io` they work as
//! custom ones do.

use crate::text::start_of;
use lookback_storage::{Labels, METRIC_NAME_LABEL};
use std::borrow::Cow;
use thiserror::Error;

/// The label that holds the namespace; also the label by which a namespace itself is described.
pub const NAMESPACE_LABEL: &str = "namespace";
/// Longest resource, with its group, in bytes: Kubernetes' bound on names.
pub const RESOURCE_BYTES_MAX: usize = 253;

/// What a metric can describe: one kind of Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `pods`
    pub plural: Cow<'static, str>,
    /// `Pod`. A guess for custom resources, see [`resolve`].
    pub kind: Cow<'static, str>,
    /// `apps`; empty for the core group.
    pub group: Cow<'static, str>,
    /// `v1`. A guess for custom resources, see [`resolve`].
    pub version: Cow<'static, str>,
    /// The label that names the object.
    pub label: Cow<'static, str>,
    /// Whether its objects lie in namespaces; `None` for custom resources of which no cluster says so:
    /// there the way they are pushed does.
    pub namespaced: Option<bool>,
}

impl Resource {
    /// `pods`, `deployments.apps`: the name in discovery and in messages.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether it is the namespace itself.
    #[must_use]
    pub fn is_namespace(&self) -> bool {
        self.label == NAMESPACE_LABEL
    }

    /// Whether it is not in the built-in table.
    #[must_use]
    pub fn is_custom(&self) -> bool {
        !is_resource_label(&self.label)
    }
}

/// Why a resource can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResourceError {
    /// Not in the table, and without a group.
    #[error(
        "unknown resource {resource:?}: use one of Kubernetes' own, such as pods or deployments.apps, \
         or a custom one with its group, such as widgets.example.com"
    )]
    Unknown {
        /// What was asked for.
        resource: String,
    },
    /// The cluster does not have it.
    #[error(
        "the cluster has no resource {resource:?}{}: name one as `kubectl api-resources` does, with its group; \
         --allow-unknown-resources takes pushes of others too",
        such_as(similar)
    )]
    NotInCluster {
        /// What was asked for.
        resource: String,
        /// Names like it.
        similar: Vec<String>,
    },
    /// Not a resource's name at all.
    #[error(
        "{resource:?} can't be a resource: use at most {RESOURCE_BYTES_MAX} letters, digits, '-' and '.'"
    )]
    Malformed {
        /// The beginning of what was asked for.
        resource: String,
    },
}

fn such_as(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", but ones such as {}", names.join(", ")) }
}

struct BuiltIn {
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    namespaced: bool,
}

const fn built_in(
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    group_version: (&'static str, &'static str),
    namespaced: bool,
) -> BuiltIn {
    BuiltIn { plural, singular, kind, group: group_version.0, version: group_version.1, namespaced }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const STORAGE: (&str, &str) = ("storage.k8s.io", "v1");

/// The singular is also the label.
const BUILT_IN: [BuiltIn; 28] = [
    built_in("configmaps", "configmap", "ConfigMap", CORE, true),
    built_in("endpoints", "endpoints", "Endpoints", CORE, true),
    built_in("namespaces", "namespace", "Namespace", CORE, false),
    built_in("nodes", "node", "Node", CORE, false),
    built_in("persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", CORE, true),
    built_in("persistentvolumes", "persistentvolume", "PersistentVolume", CORE, false),
    built_in("pods", "pod", "Pod", CORE, true),
    built_in("replicationcontrollers", "replicationcontroller", "ReplicationController", CORE, true),
    built_in("resourcequotas", "resourcequota", "ResourceQuota", CORE, true),
    built_in("secrets", "secret", "Secret", CORE, true),
    built_in("serviceaccounts", "serviceaccount", "ServiceAccount", CORE, true),
    built_in("services", "service", "Service", CORE, true),
    built_in("daemonsets", "daemonset", "DaemonSet", APPS, true),
    built_in("deployments", "deployment", "Deployment", APPS, true),
    built_in("replicasets", "replicaset", "ReplicaSet", APPS, true),
    built_in("statefulsets", "statefulset", "StatefulSet", APPS, true),
    built_in(
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        "HorizontalPodAutoscaler",
        ("autoscaling", "v2"),
        true,
    ),
    built_in("cronjobs", "cronjob", "CronJob", BATCH, true),
    built_in("jobs", "job", "Job", BATCH, true),
    built_in("endpointslices", "endpointslice", "EndpointSlice", ("discovery.k8s.io", "v1"), true),
    built_in("ingressclasses", "ingressclass", "IngressClass", NETWORKING, false),
    built_in("ingresses", "ingress", "Ingress", NETWORKING, true),
    built_in("networkpolicies", "networkpolicy", "NetworkPolicy", NETWORKING, true),
    built_in("poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", ("policy", "v1"), true),
    built_in("priorityclasses", "priorityclass", "PriorityClass", ("scheduling.k8s.io", "v1"), false),
    built_in("csinodes", "csinode", "CSINode", STORAGE, false),
    built_in("storageclasses", "storageclass", "StorageClass", STORAGE, false),
    built_in("volumeattachments", "volumeattachment", "VolumeAttachment", STORAGE, false),
];

impl BuiltIn {
    fn resource(&self) -> Resource {
        Resource {
            plural: Cow::Borrowed(self.plural),
            kind: Cow::Borrowed(self.kind),
            group: Cow::Borrowed(self.group),
            version: Cow::Borrowed(self.version),
            label: Cow::Borrowed(self.singular),
            namespaced: Some(self.namespaced),
        }
    }
}

/// All resources of the built-in table.
pub fn built_in_resources() -> impl Iterator<Item = Resource> {
    BUILT_IN.iter().map(BuiltIn::resource)
}

/// Whether a label names an object of a built-in resource (`namespace` included).
#[must_use]
pub fn is_resource_label(label: &str) -> bool {
    BUILT_IN.iter().any(|row| row.singular == label)
}

/// The name and the group of a resource in a path, in lower case.
///
/// # Errors
/// When it can't be a resource's name.
pub fn split_name(text: &str) -> Result<(String, Option<String>), ResourceError> {
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if text.len() > RESOURCE_BYTES_MAX
        || !bytes.iter().copied().all(name_byte)
        || !edge(bytes.first())
        || !edge(bytes.last())
        || text.contains("..")
    {
        return Err(ResourceError::Malformed { resource: start_of(text) });
    }
    let text = text.to_ascii_lowercase();
    Ok(match text.split_once('.') {
        Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
        None => (text, None),
    })
}

/// The resource of the built-in table that a name, in lower case, and a group mean.
#[must_use]
pub fn resolve_in_table(name: &str, group: Option<&str>) -> Option<Resource> {
    let in_table =
        |row: &&BuiltIn| (row.plural == name || row.singular == name) && group.is_none_or(|g| g == row.group);
    BUILT_IN.iter().find(in_table).map(BuiltIn::resource)
}

/// The resource that a path names where no cluster can be asked: `pod`, `pods`, `deployments`,
/// `deployment.apps`, `widgets.example.com`, in any case. See [`super::mapping`] for where one can.
///
/// Of a custom resource only the group and the plural are known; its kind is guessed by taking off the
/// plural's ending (`widgets` → `Widget`, `policies` → `Policy`), its version as `v1`. Neither reaches
/// a stored label.
///
/// # Errors
/// When it is neither in the table nor named with a group.
pub fn resolve(text: &str) -> Result<Resource, ResourceError> {
    let (name, group) = split_name(text)?;
    if let Some(resource) = resolve_in_table(&name, group.as_deref()) {
        return Ok(resource);
    }
    match group {
        // The group of a custom resource is a domain with at least one dot; those without are Kubernetes' own.
        Some(group) if group.contains('.') => Ok(custom(&name, &group)),
        _ => Err(ResourceError::Unknown { resource: text.to_ascii_lowercase() }),
    }
}

fn custom(plural: &str, group: &str) -> Resource {
    Resource {
        plural: Cow::Owned(plural.to_owned()),
        kind: Cow::Owned(guessed_kind(plural)),
        group: Cow::Owned(group.to_owned()),
        version: Cow::Borrowed("v1"),
        label: Cow::Owned(format!("{plural}_{group}").replace(['.', '-'], "_")),
        namespaced: None,
    }
}

fn guessed_kind(plural: &str) -> String {
    let singular = if let Some(stem) = plural.strip_suffix("ies") {
        format!("{stem}y")
    } else if let Some(stem) =
        plural.strip_suffix("es").filter(|s| s.ends_with(['s', 'x']) || s.ends_with("ch"))
    {
        stem.to_owned()
    } else {
        plural.strip_suffix('s').unwrap_or(plural).to_owned()
    };
    let mut characters = singular.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

/// The series by which custom resources are remembered:
/// `lookback_resource_info{resource="widgets.example.com",resource_label="widgets_example_com",namespaced="true"} 1`.
pub const RESOURCE_INFO_METRIC: &str = "lookback_resource_info";
/// Its label for the resource with its group.
pub const RESOURCE_INFO_RESOURCE: &str = "resource";
/// Its label for the label by which series name the object.
pub const RESOURCE_INFO_LABEL: &str = "resource_label";
/// Its label that says `true` or `false`.
pub const RESOURCE_INFO_NAMESPACED: &str = "namespaced";

/// The info series to append (with value 1, in nobody's namespace) when a push describes an object of
/// a custom resource, so that discovery knows it again after a restart; `None` for built-in ones.
#[must_use]
pub fn resource_info_labels(resource: &Resource, namespaced: bool) -> Option<Labels> {
    if !resource.is_custom() {
        return None;
    }
    Labels::new([
        (METRIC_NAME_LABEL, RESOURCE_INFO_METRIC),
        (RESOURCE_INFO_RESOURCE, &resource.group_resource()),
        (RESOURCE_INFO_LABEL, &resource.label),
        (RESOURCE_INFO_NAMESPACED, if namespaced { "true" } else { "false" }),
    ])
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn aliases_of_a_resource_are_one_resource() {
        for (aliases, name, kind, api_version, label) in [
            (vec!["pod", "pods", "Pods", "POD"], "pods", "Pod", "v1", "pod"),
            (
                vec!["deployment", "deployments", "deployments.apps", "deployment.apps", "Deployments.Apps"],
                "deployments.apps",
                "Deployment",
                "apps/v1",
                "deployment",
            ),
            (
                vec!["ingress", "ingresses", "ingresses.networking.k8s.io"],
                "ingresses.networking.k8s.io",
                "Ingress",
                "networking.k8s.io/v1",
                "ingress",
            ),
            (
                vec!["widgets.example.com", "Widgets.Example.com"],
                "widgets.example.com",
                "Widget",
                "example.com/v1",
                "widgets_example_com",
            ),
            (
                vec!["retry-policies.my-shop.io"],
                "retry-policies.my-shop.io",
                "Retry-policy",
                "my-shop.io/v1",
                "retry_policies_my_shop_io",
            ),
        ] {
            for alias in aliases {
                let resource = resolve(alias).unwrap_or_else(|e| panic!("{alias}: {e}"));
                assert_eq!(resource.group_resource(), name, "{alias}");
                assert_eq!(resource.kind, kind, "{alias}");
                assert_eq!(resource.api_version(), api_version, "{alias}");
                assert_eq!(resource.label, label, "{alias}");
            }
        }
    }

    #[test]
    fn unknown_and_malformed_resources_are_refused_with_what_to_do() {
        for text in ["podz", "deployments.extensions", "widgets", "deployments.app"] {
            assert!(matches!(resolve(text), Err(ResourceError::Unknown { .. })), "{text}");
        }
        for text in ["", "po ds", "pods\n", "*", ".x", "x.", "a..b", "pöds", "a/b", &"x".repeat(254)] {
            assert!(matches!(resolve(text), Err(ResourceError::Malformed { .. })), "{text}");
        }
        assert!(resolve("podz").expect_err("refused").to_string().contains("widgets.example.com"));
    }

    #[test]
    fn no_two_built_in_resources_share_a_label_or_a_name() {
        let labels: BTreeSet<_> = built_in_resources().map(|r| r.label).collect();
        let names: BTreeSet<_> = built_in_resources().map(|r| r.plural).collect();
        assert_eq!((labels.len(), names.len()), (BUILT_IN.len(), BUILT_IN.len()));
        assert!(is_resource_label("pod") && is_resource_label("namespace") && !is_resource_label("verb"));
    }

    #[test]
    fn custom_resources_are_remembered_by_an_info_series() {
        let info =
            resource_info_labels(&resolve("widgets.example.com").expect("custom"), true).expect("info");
        assert_eq!(
            info.to_string(),
            r#"lookback_resource_info{namespaced="true",resource="widgets.example.com",resource_label="widgets_example_com"}"#
        );
        assert_eq!(resource_info_labels(&resolve("pods").expect("built in"), true), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_resolves_resolves_to_itself_again(text in "\\PC{0,20}|[a-z.-]{0,30}") {
            if let Ok(resource) = resolve(&text) {
                prop_assert_eq!(resolve(&resource.group_resource()), Ok(resource));
            }
        }
    }
}
