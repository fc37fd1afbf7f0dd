//! Which metrics there are, by the series that there are and the rules.

use super::rule::Rule;
use super::source::SeriesShape;
use crate::kubernetes::catalog::Entry;
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::resources::Resource;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most metrics that are kept; what is beyond is left out.
pub const METRICS_MAX: usize = 50_000;

/// By which rule and series a metric is answered.
#[derive(Clone, Debug)]
pub struct Found {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The name of the series.
    pub series: String,
    /// The label that names the object; empty for an external metric.
    pub label: String,
    /// The label that holds the namespace.
    pub namespace_label: String,
}

/// The metrics at one moment.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By resource, with its group, then by name.
    objects: BTreeMap<String, BTreeMap<String, (Found, bool)>>,
    external: BTreeMap<String, Found>,
    count: usize,
    /// How many more there would be.
    pub left_out: usize,
}

impl Metrics {
    /// Those of rules, each with the shapes of its series. Of several that name one metric the last counts.
    pub fn of<'s>(
        objects: impl Iterator<Item = (&'s Arc<Rule>, &'s BTreeSet<SeriesShape>)>,
        external: impl Iterator<Item = (&'s Arc<Rule>, &'s BTreeSet<SeriesShape>)>,
        resolver: &Resolver,
    ) -> Self {
        let mut metrics = Self::default();
        for (rule, shapes) in objects {
            let mut resources: HashMap<&str, Option<Resource>> = HashMap::new();
            for shape in shapes {
                let Some(metric) = rule.naming.metric(&shape.name) else { continue };
                let mut labels: Vec<(&str, Resource)> = Vec::new();
                for label in &shape.labels {
                    let of_label = || rule.association.resource_of(label, resolver);
                    if let Some(resource) = resources.entry(label).or_insert_with(of_label) {
                        labels.push((label, resource.clone()));
                    }
                }
                metrics.add(rule, shape, &metric, &labels, resolver);
            }
        }
        for (rule, shapes) in external {
            let namespace_label = rule.association.namespace_label(resolver);
            for shape in shapes {
                let Some(metric) = rule.naming.metric(&shape.name) else { continue };
                if metrics.has_no_room(|metrics| metrics.external.contains_key(&metric)) {
                    continue;
                }
                let found = Found {
                    rule: Arc::clone(rule),
                    series: shape.name.clone(),
                    label: String::new(),
                    namespace_label: namespace_label.clone(),
                };
                metrics.count += usize::from(metrics.external.insert(metric, found).is_none());
            }
        }
        metrics
    }

    fn add(
        &mut self,
        rule: &Arc<Rule>,
        shape: &SeriesShape,
        metric: &str,
        labels: &[(&str, Resource)],
        resolver: &Resolver,
    ) {
        let namespace_label = labels.iter().find(|(_, resource)| resource.is_namespace());
        let in_namespace = namespace_label.is_some();
        let namespace_label = match namespace_label {
            Some((label, _)) => (*label).to_owned(),
            None => rule.association.namespace_label(resolver),
        };
        for (label, resource) in labels {
            let name = resource.group_resource();
            // Without a namespace nobody could ask for an object that lies in one.
            let is_namespaced = resource.namespaced.unwrap_or(in_namespace);
            if rule.only.is_some_and(|only| !only.contains(&name.as_str()))
                || (is_namespaced && !in_namespace)
            {
                continue;
            }
            let is_known =
                |metrics: &Self| metrics.objects.get(&name).is_some_and(|known| known.contains_key(metric));
            if self.has_no_room(is_known) {
                continue;
            }
            let found = Found {
                rule: Arc::clone(rule),
                series: shape.name.clone(),
                label: (*label).to_owned(),
                namespace_label: namespace_label.clone(),
            };
            let before =
                self.objects.entry(name).or_default().insert(metric.to_owned(), (found, is_namespaced));
            self.count += usize::from(before.is_none());
        }
    }

    fn has_no_room(&mut self, is_known: impl FnOnce(&Self) -> bool) -> bool {
        let is_full = self.count >= METRICS_MAX && !is_known(self);
        self.left_out += usize::from(is_full);
        is_full
    }

    /// What answers for a metric of objects of a resource.
    #[must_use]
    pub fn of_objects(&self, resource: &Resource, metric: &str) -> Option<&Found> {
        Some(&self.objects.get(&resource.group_resource())?.get(metric)?.0)
    }

    /// What answers for an external metric.
    #[must_use]
    pub fn external(&self, metric: &str) -> Option<&Found> {
        self.external.get(metric)
    }

    /// As discovery lists them: of one resource all in the same scope, and the external ones.
    #[must_use]
    pub fn entries(&self) -> (Vec<Entry>, Vec<String>) {
        let mut entries = Vec::new();
        for (resource, metrics) in &self.objects {
            let namespaced = metrics.values().any(|(_, namespaced)| *namespaced);
            entries.extend(metrics.keys().map(|metric| Entry {
                resource: resource.clone(),
                metric: metric.clone(),
                namespaced,
            }));
        }
        (entries, self.external.keys().cloned().collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
