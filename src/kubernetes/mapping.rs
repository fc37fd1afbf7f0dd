//! Which resources the cluster has, and by which names they go: Kubernetes' REST mapping.
//!
//! A name in a path or a push may be the plural, the singular, the kind or a short name, with or without
//! the group, in any case. The built-in table ([`super::resources`]) comes first, so that what it names
//! means the same in every cluster; the cluster's own discovery adds the rest: short names, custom
//! resources without their group, their kinds, versions and scopes.
//!
//! invariant: the cluster says which names there are, never which label names the object. That depends on
//! the resource and its group alone, so that a series means the same for ever.

use super::resources::{Resource, ResourceError, resolve, resolve_in_table, split_name};
use crate::similar::similar;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Most resources that are kept; a cluster has a few hundred.
pub const RESOURCES_MAX: usize = 10_000;

/// Groups of metrics, whose `pods` are no pods.
const METRICS_GROUP: &str = "metrics.k8s.io";

/// A resource of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    resource: Resource,
    can_be_watched: bool,
}

/// What the cluster has, as of one moment.
#[derive(Debug, Default)]
pub struct Mapping {
    resources: Vec<Mapped>,
    /// By plural, singular, kind and short name, in lower case: places in `resources`, the likest first.
    by_name: HashMap<String, Vec<usize>>,
    /// How many there are beyond the bound.
    left_out: usize,
}

/// What discovery says of one resource.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Its group; empty for the core group.
    pub group: String,
    /// The group's version in which it is served.
    pub version: String,
    /// Its plural.
    pub plural: String,
    /// Its singular; empty where discovery does not say.
    pub singular: String,
    /// Its kind.
    pub kind: String,
    /// Its short names.
    pub short_names: Vec<String>,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// Whether it can be listed and watched.
    pub can_be_watched: bool,
}

/// The resources of an aggregated discovery document, each in the first version that has it.
pub fn discovered(groups: Vec<APIGroupDiscovery>) -> impl Iterator<Item = Discovered> {
    groups.into_iter().flat_map(|group| {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        group.versions.into_iter().flat_map(move |version| {
            let (group, in_version) = (name.clone(), version.version.unwrap_or_default());
            version.resources.into_iter().map(move |resource| of_resource(&group, &in_version, resource))
        })
    })
}

fn of_resource(group: &str, version: &str, resource: APIResourceDiscovery) -> Discovered {
    let can = |verb: &str| resource.verbs.iter().any(|allowed| allowed == verb);
    Discovered {
        group: group.to_owned(),
        version: version.to_owned(),
        can_be_watched: can("list") && can("watch"),
        plural: resource.resource.unwrap_or_default(),
        singular: resource.singular_resource.unwrap_or_default(),
        kind: resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
        short_names: resource.short_names,
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
    }
}

impl Mapping {
    /// Of what discovery says, in its order: the first of several of one name is the one that is meant.
    pub fn of(discovered: impl IntoIterator<Item = Discovered>) -> Self {
        let mut mapping = Self::default();
        let mut aliases = Vec::new();
        for found in discovered {
            if found.group.ends_with(METRICS_GROUP) || found.plural.contains('/') {
                continue;
            }
            let Some(resource) = known_resource(&found) else { continue };
            let is_there = |mapped: &Mapped| mapped.resource.label == resource.label;
            let places = mapping.by_name.get(&found.plural);
            if places.is_some_and(|places| places.iter().any(|at| is_there(&mapping.resources[*at]))) {
                continue;
            }
            if mapping.resources.len() == RESOURCES_MAX {
                mapping.left_out += 1;
                continue;
            }
            let at = mapping.resources.len();
            let can_be_watched = found.can_be_watched;
            mapping.resources.push(Mapped { resource, can_be_watched });
            mapping.add_name(&found.plural, at);
            aliases.extend([found.singular, found.kind].map(|name| (0, name, at)));
            aliases.extend(found.short_names.into_iter().map(|name| (1, name, at)));
        }
        // A singular comes before another's short name.
        aliases.sort_by_key(|(rank, _, at)| (*rank, *at));
        for (_, name, at) in aliases {
            mapping.add_name(&name, at);
        }
        mapping
    }

    fn add_name(&mut self, name: &str, at: usize) {
        let places = self.by_name.entry(name.to_lowercase()).or_default();
        if !name.is_empty() && !places.contains(&at) {
            places.push(at);
        }
    }

    /// How many resources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// How many there are beyond [`RESOURCES_MAX`].
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether objects of a resource can be watched; `None`: the cluster does not have it.
    #[must_use]
    pub fn can_be_watched(&self, resource: &Resource) -> Option<bool> {
        let mapped = self.resources.iter().find(|mapped| mapped.resource.label == resource.label)?;
        Some(mapped.can_be_watched)
    }

    fn find(&self, name: &str, group: Option<&str>) -> Option<&Resource> {
        let places = self.by_name.get(name)?;
        let mut found = places.iter().filter_map(|at| self.resources.get(*at)).map(|mapped| &mapped.resource);
        found.find(|resource| group.is_none_or(|group| group == resource.group))
    }

    fn similar_to(&self, name: &str) -> Vec<String> {
        let plurals = self.resources.iter().map(|mapped| mapped.resource.plural.as_ref());
        let names = similar(name, self.by_name.keys().map(String::as_str).chain(plurals));
        let full = |name: &str| self.find(name, None).map(Resource::group_resource);
        let mut full: Vec<String> = names.into_iter().filter_map(full).collect();
        full.dedup();
        full
    }
}

/// As Lookback names it; `None`: it can't be named without a cluster, such as the core group's `events`.
fn known_resource(found: &Discovered) -> Option<Resource> {
    let name = match found.group.as_str() {
        "" => found.plural.clone(),
        group => format!("{}.{group}", found.plural),
    };
    let resource = resolve(&name).ok()?;
    if !resource.is_custom() {
        return Some(resource);
    }
    Some(Resource {
        kind: Cow::Owned(found.kind.clone()),
        version: Cow::Owned(found.version.clone()),
        namespaced: Some(found.namespaced),
        ..resource
    })
}

/// Finds the resource that a name means: by the cluster where there is one, else by the built-in table.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    mapping: Option<Arc<Mapping>>,
    unknown_allowed: bool,
    is_terse: bool,
}

impl Resolver {
    /// By what the cluster has. `unknown_allowed`: a name with a group is taken even where the cluster does
    /// not have it.
    #[must_use]
    pub fn of_cluster(mapping: Arc<Mapping>, unknown_allowed: bool) -> Self {
        Self { mapping: Some(mapping), unknown_allowed, is_terse: false }
    }

    /// The same, with names that have a group taken even where the cluster does not have them: what was
    /// written of a resource can be read after it is gone.
    #[must_use]
    pub fn for_reads(mut self) -> Self {
        self.unknown_allowed = true;
        self
    }

    /// The same, without a search for similar names, which takes time: for the many refused entries of a
    /// batch that are only counted.
    #[must_use]
    pub fn terse(mut self) -> Self {
        self.is_terse = true;
        self
    }

    /// The resource that a text means.
    ///
    /// # Errors
    /// When there is none of this name; then the likest names are named.
    pub fn resolve(&self, text: &str) -> Result<Resource, ResourceError> {
        let Some(mapping) = &self.mapping else { return resolve(text) };
        let (name, group) = split_name(text)?;
        if let Some(resource) = resolve_in_table(&name, group.as_deref()) {
            return Ok(resource);
        }
        if let Some(resource) = mapping.find(&name, group.as_deref()) {
            return Ok(resource.clone());
        }
        match resolve(text) {
            Ok(resource) if self.unknown_allowed => Ok(resource),
            _ => Err(ResourceError::NotInCluster {
                resource: text.to_owned(),
                similar: if self.is_terse { Vec::new() } else { mapping.similar_to(&name) },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(
        group: &str,
        version: &str,
        names: [&str; 3],
        short_names: &[&str],
        namespaced: bool,
    ) -> Discovered {
        let [plural, singular, kind] = names.map(str::to_owned);
        Discovered {
            group: group.to_owned(),
            version: version.to_owned(),
            plural,
            singular,
            kind,
            short_names: short_names.iter().map(|name| (*name).to_owned()).collect(),
            namespaced,
            can_be_watched: true,
        }
    }

    fn cluster() -> Arc<Mapping> {
        Arc::new(Mapping::of([
            found("", "v1", ["pods", "pod", "Pod"], &["po"], true),
            found("", "v1", ["events", "event", "Event"], &["ev"], true),
            found("apps", "v1", ["deployments", "deployment", "Deployment"], &["deploy"], true),
            found("metrics.k8s.io", "v1beta1", ["pods", "", "PodMetrics"], &[], true),
            found("custom.metrics.k8s.io", "v1beta1", ["pods/rps", "", "MetricValueList"], &[], true),
            found("shop.example.com", "v2", ["carts", "cart", "ShoppingCart"], &["sc"], true),
            found("shop.example.com", "v1", ["carts", "cart", "OldCart"], &[], true),
            found("infra.example.com", "v1beta1", ["racks", "", "Rack"], &["po"], false),
            found("other.example.com", "v1", ["racks", "", "OtherRack"], &[], true),
        ]))
    }

    #[test]
    fn every_name_of_a_resource_finds_it() {
        let resolver = Resolver::of_cluster(cluster(), false);
        for (names, group_resource, api_version, kind, label, namespaced) in [
            (&["pods", "po", "Pod", "pods"][..], "pods", "v1", "Pod", "pod", true),
            (&["deploy", "deployment.apps"], "deployments.apps", "apps/v1", "Deployment", "deployment", true),
            (
                &["carts", "cart", "SC", "shoppingcart", "cart.shop.example.com", "sc.shop.example.com"],
                "carts.shop.example.com",
                "shop.example.com/v2",
                "ShoppingCart",
                "carts_shop_example_com",
                true,
            ),
            (
                &["racks", "rack"],
                "racks.infra.example.com",
                "infra.example.com/v1beta1",
                "Rack",
                "racks_infra_example_com",
                false,
            ),
            (
                &["racks.other.example.com"],
                "racks.other.example.com",
                "other.example.com/v1",
                "OtherRack",
                "racks_other_example_com",
                true,
            ),
            // Of the table, although this cluster does not serve it.
            (&["service"], "services", "v1", "Service", "service", true),
        ] {
            for name in names {
                let resource = resolver.resolve(name).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(resource.group_resource(), group_resource, "{name}");
                assert_eq!(resource.api_version(), api_version, "{name}");
                assert_eq!((resource.kind.as_ref(), resource.label.as_ref()), (kind, label), "{name}");
                assert_eq!(resource.namespaced, Some(namespaced), "{name}");
            }
        }
    }

    #[test]
    fn what_the_cluster_does_not_have_is_refused_with_the_likest_names() {
        let resolver = Resolver::of_cluster(cluster(), false);
        for (name, said) in [
            ("podz", "such as pods"),
            ("cartz", "carts.shop.example.com"),
            ("carts.shop.example.org", "carts.shop.example.com"),
            ("zzzzzzz", "kubectl api-resources"),
        ] {
            let error = resolver.resolve(name).expect_err(name).to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
        assert!(matches!(resolver.resolve("a/b"), Err(ResourceError::Malformed { .. })));
        let gone = "carts.shop.example.org";
        assert_eq!(resolver.clone().for_reads().resolve(gone), resolve(gone));
        assert!(Resolver::of_cluster(cluster(), true).resolve(gone).is_ok());
        assert!(resolver.for_reads().resolve("podz").is_err());
    }

    #[test]
    fn the_number_of_resources_is_bounded() {
        let names: Vec<String> = (0..RESOURCES_MAX + 7).map(|i| format!("r{i}s")).collect();
        let all = names.iter().map(|name| found("x.example.com", "v1", [name, "", "R"], &[], true));
        let mapping = Mapping::of(all);
        assert_eq!((mapping.len(), mapping.left_out()), (RESOURCES_MAX, 7));
    }

    proptest! {
        #[test]
        fn the_cluster_never_changes_a_label(text in "[a-z.]{0,30}|po|carts|pods|(carts|racks)\\.[a-z]{1,5}\\.[a-z]{1,5}") {
            let by_cluster = Resolver::of_cluster(cluster(), true).resolve(&text);
            if let (Ok(alone), Ok(by_cluster)) = (resolve(&text), &by_cluster) {
                prop_assert_eq!(&alone.label, &by_cluster.label);
            }
            if let Ok(resource) = by_cluster {
                prop_assert_eq!(resolve(&resource.group_resource()).map(|alone| alone.label), Ok(resource.label));
            }
        }
    }
}
