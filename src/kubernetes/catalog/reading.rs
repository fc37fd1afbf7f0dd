//! Reads of the store which metrics it has of which resources, by labels alone.

use super::{CustomResource, Entry, Snapshot};
use crate::kubernetes::resources::{
    NAMESPACE_LABEL, RESOURCE_INFO_METRIC, RESOURCE_INFO_NAMESPACED, RESOURCE_INFO_RESOURCE, Resource,
    built_in_resources, resolve,
};
use crate::store::{Context, LabelsRequest, Store, StoreError};
use lookback_storage::{METRIC_NAME_LABEL, Matcher};
use std::collections::{BTreeMap, BTreeSet};

/// One reading of the store.
pub(super) struct Reader<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) context: Context,
}

impl Reader<'_> {
    pub(super) async fn read(&self, entries_max: usize) -> Result<Snapshot, StoreError> {
        let present: BTreeSet<String> = self.label_values(None, Vec::new()).await?.into_iter().collect();
        let mut resources: Vec<(Resource, bool)> = built_in_resources()
            .filter_map(|resource| resource.namespaced.map(|namespaced| (resource, namespaced)))
            .collect();
        let custom = self.custom_resources().await?;
        resources.extend(custom.values().cloned());
        resources.retain(|(resource, _)| present.contains(resource.label.as_ref()));

        let mut entries = BTreeSet::new();
        for (resource, namespaced) in &resources {
            let metrics = if resource.is_namespace() {
                self.namespace_metrics(&resources).await?
            } else {
                self.metrics_of(resource, *namespaced).await?
            };
            let name = resource.group_resource();
            let listed = metrics.into_iter().filter(|metric| metric != RESOURCE_INFO_METRIC);
            entries.extend(listed.map(|metric| Entry {
                resource: name.clone(),
                metric,
                namespaced: *namespaced,
            }));
        }
        let mut external =
            self.label_values(Some(METRIC_NAME_LABEL), vec![Matcher::not_equal(NAMESPACE_LABEL, "")]).await?;
        external.retain(|metric| metric != RESOURCE_INFO_METRIC);
        let left_out = entries.len().saturating_sub(entries_max) + external.len().saturating_sub(entries_max);
        external.truncate(entries_max);
        let entries = entries.into_iter().take(entries_max).collect();
        let custom = custom.into_iter().map(|(label, (resource, namespaced))| {
            (label, CustomResource { name: resource.group_resource(), namespaced })
        });
        let custom = custom.collect();
        Ok(Snapshot { entries, external, left_out, custom })
    }

    /// Metrics with a series that names an object of the resource.
    async fn metrics_of(&self, resource: &Resource, namespaced: bool) -> Result<Vec<String>, StoreError> {
        let mut matchers = vec![Matcher::not_equal(resource.label.as_ref(), "")];
        if namespaced {
            matchers.push(Matcher::not_equal(NAMESPACE_LABEL, ""));
        }
        self.label_values(Some(METRIC_NAME_LABEL), matchers).await
    }

    /// Metrics with a series that names a namespace and no other object. A namespace's sum over the
    /// series of its objects can be read too, but is not listed: that would list everything twice.
    async fn namespace_metrics(&self, resources: &[(Resource, bool)]) -> Result<Vec<String>, StoreError> {
        let others = resources.iter().filter(|(resource, _)| !resource.is_namespace());
        let matchers = others.map(|(resource, _)| Matcher::equal(resource.label.as_ref(), ""));
        let matchers = matchers.chain([Matcher::not_equal(NAMESPACE_LABEL, "")]).collect();
        self.label_values(Some(METRIC_NAME_LABEL), matchers).await
    }

    /// By label. A resource pushed both ways is namespaced.
    async fn custom_resources(&self) -> Result<BTreeMap<String, (Resource, bool)>, StoreError> {
        let mut custom = BTreeMap::new();
        for (text, namespaced) in [("false", false), ("true", true)] {
            let matchers = vec![
                Matcher::equal(METRIC_NAME_LABEL, RESOURCE_INFO_METRIC),
                Matcher::equal(RESOURCE_INFO_NAMESPACED, text),
            ];
            for name in self.label_values(Some(RESOURCE_INFO_RESOURCE), matchers).await? {
                // Anyone can send such a series: what it says of built-in resources counts for nothing.
                if let Ok(resource) = resolve(&name)
                    && resource.is_custom()
                {
                    custom.insert(resource.label.to_string(), (resource, namespaced));
                }
            }
        }
        Ok(custom)
    }

    async fn label_values(
        &self,
        name: Option<&str>,
        matchers: Vec<Matcher>,
    ) -> Result<Vec<String>, StoreError> {
        self.store.labels(&self.context, LabelsRequest { name: name.map(str::to_owned), matchers }).await
    }
}
