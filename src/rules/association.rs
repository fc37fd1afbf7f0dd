//! Which labels name objects of which resources: `resources` of a rule.
//!
//! A label is a resource's by an override, or where it has the form of the template and what stands in it is
//! the singular or plural of a resource of the cluster (without one: of Kubernetes' own). Short names and kinds
//! do not count: too many labels are called so.

use super::config::{GroupResource, ResourcesText};
use super::template::{Template, Value};
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::resources::{NAMESPACE_LABEL, Resource};
use regex::Regex;
use std::collections::BTreeMap;

/// Labels and resources.
#[derive(Clone, Debug)]
pub struct Association {
    overrides: BTreeMap<String, GroupResource>,
    form: Option<Form>,
}

/// The form of labels.
#[derive(Clone, Debug)]
struct Form {
    template: Template,
    /// Finds the groups `resource` and, where it is in the template, `group`.
    matches: Regex,
}

impl Association {
    /// Of a rule.
    ///
    /// # Errors
    /// When the template can't be used.
    pub fn of(resources: &ResourcesText) -> Result<Self, String> {
        let form = resources.template.as_deref().map(Form::of).transpose();
        let form = form.map_err(|problem| format!("resources: template: {problem}"))?;
        Ok(Self { overrides: resources.overrides.clone(), form })
    }

    /// Whether no label is any resource's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty() && self.form.is_none()
    }

    /// The resource whose objects a label names.
    #[must_use]
    pub fn resource_of(&self, label: &str, resolver: &Resolver) -> Option<Resource> {
        match (self.overrides.get(label), &self.form) {
            (Some(named), _) => resolve(resolver, &named.resource, &named.group),
            (None, Some(form)) => {
                let captures = form.matches.captures(label)?;
                let part = |name: &str| captures.name(name).map_or("", |found| found.as_str());
                // In a label a group has `_` for each of its dots.
                resolve(resolver, part("resource"), &part("group").replace('_', "."))
            }
            (None, None) => None,
        }
    }

    /// The label that names objects of a resource, whichever series it is on.
    #[must_use]
    pub fn label_of(&self, resource: &Resource, resolver: &Resolver) -> Option<String> {
        let is_it = |named: &GroupResource| {
            resolve(resolver, &named.resource, &named.group)
                .is_some_and(|found| found.group_resource() == resource.group_resource())
        };
        let overridden = self.overrides.iter().find(|(_, named)| is_it(named));
        overridden.map(|(label, _)| label.clone()).or_else(|| {
            let group = resource.group.replace(['.', '-'], "_");
            self.form.as_ref()?.label(singular(resource).as_ref(), &group).ok()
        })
    }

    /// The label that holds the namespace: `namespace`, unless the rule says otherwise.
    #[must_use]
    pub fn namespace_label(&self, resolver: &Resolver) -> String {
        let namespaces = resolver.resolve("namespaces").ok();
        let label = namespaces.and_then(|namespaces| self.label_of(&namespaces, resolver));
        label.unwrap_or_else(|| NAMESPACE_LABEL.to_owned())
    }

    /// Overrides that name no resource of the cluster.
    pub fn unknown<'a>(
        &'a self,
        resolver: &'a Resolver,
    ) -> impl Iterator<Item = (&'a str, &'a GroupResource)> {
        let all = self.overrides.iter().map(|(label, named)| (label.as_str(), named));
        all.filter(|(_, named)| resolve(resolver, &named.resource, &named.group).is_none())
    }
}

impl Form {
    fn of(text: &str) -> Result<Self, String> {
        let template = Template::parse(text)?;
        let pattern = render(&template, "(?P<resource>[^_]+)", "(?P<group>.+)")?;
        if !pattern.contains("(?P<resource>") {
            return Err(format!("{text:?} does not use <<.Resource>>"));
        }
        let matches = Regex::new(&format!("^{pattern}$"));
        Ok(Self { template, matches: matches.map_err(|_| format!("{text:?} makes no label's name"))? })
    }

    fn label(&self, resource: &str, group: &str) -> Result<String, String> {
        render(&self.template, resource, group)
    }
}

fn render(template: &Template, resource: &str, group: &str) -> Result<String, String> {
    template.render(&Value::Struct(BTreeMap::from([
        ("Resource", Value::Text(resource.to_owned())),
        ("Group", Value::Text(group.to_owned())),
    ])))
}

/// A resource by its singular or plural and, unless that is empty, its group.
fn resolve(resolver: &Resolver, name: &str, group: &str) -> Option<Resource> {
    let name = name.to_lowercase();
    let full = if group.is_empty() { name.clone() } else { format!("{name}.{group}") };
    let resource = resolver.clone().terse().resolve(&full).ok()?;
    (resource.plural == name || singular(&resource) == name).then_some(resource)
}

fn singular(resource: &Resource) -> String {
    if resource.is_custom() { resource.kind.to_lowercase() } else { resource.label.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn association(template: Option<&str>, overrides: &[(&str, &str, &str)]) -> Association {
        let named =
            |group: &str, resource: &str| GroupResource { group: group.into(), resource: resource.into() };
        let overrides =
            overrides.iter().map(|(label, group, resource)| ((*label).to_owned(), named(group, resource)));
        let text = ResourcesText {
            template: template.map(str::to_owned),
            overrides: overrides.collect(),
            namespaced: None,
        };
        Association::of(&text).expect("usable")
    }

    fn resource_of(association: &Association, label: &str) -> String {
        let resource = association.resource_of(label, &Resolver::default());
        resource.map_or_else(|| "-".to_owned(), |resource| resource.group_resource())
    }

    #[test]
    fn labels_are_resources_by_template_and_override_as_documented() {
        let plain = association(Some("<<.Resource>>"), &[("microservice", "apps", "deployment")]);
        for (label, resource) in [
            ("pod", "pods"),
            ("pods", "pods"),
            ("namespace", "namespaces"),
            ("job", "jobs.batch"),
            ("microservice", "deployments.apps"),
            ("deployment", "deployments.apps"),
            ("verb", "-"),
            ("pod_name", "-"),
            ("__name__", "-"),
        ] {
            assert_eq!(resource_of(&plain, label), resource, "{label}");
        }
        let prefixed = association(Some("kube_<<.Group>>_<<.Resource>>"), &[]);
        assert_eq!(resource_of(&prefixed, "kube_apps_deployment"), "deployments.apps");
        assert_eq!(resource_of(&prefixed, "kube_networking_k8s_io_ingress"), "ingresses.networking.k8s.io");
        assert_eq!(resource_of(&prefixed, "deployment"), "-");
        let resolver = Resolver::default();
        let label = |association: &Association, name: &str| {
            association.label_of(&resolver.resolve(name).expect("known"), &resolver)
        };
        assert_eq!(label(&plain, "deployments").as_deref(), Some("microservice"));
        assert_eq!(label(&plain, "nodes").as_deref(), Some("node"));
        assert_eq!(label(&prefixed, "deployments").as_deref(), Some("kube_apps_deployment"));
        assert_eq!(association(None, &[("ns", "", "namespace")]).namespace_label(&resolver), "ns");
        assert_eq!(association(None, &[]).namespace_label(&resolver), "namespace");
        let custom = association(None, &[("brand", "cheese.io", "brands"), ("x", "", "nothing")]);
        assert_eq!(resource_of(&custom, "brand"), "brands.cheese.io");
        let unknown: Vec<&str> = custom.unknown(&resolver).map(|(label, _)| label).collect();
        assert_eq!(unknown, ["x"]);
    }

    #[test]
    fn a_template_without_a_resource_is_refused() {
        for template in ["kube_<<.Group>>", "<<.Resource", "(<<.Resource>>", "<<.Name>>"] {
            let text = ResourcesText { template: Some(template.to_owned()), ..ResourcesText::default() };
            let error = Association::of(&text).expect_err(template);
            assert!(error.starts_with("resources: template: "), "{error}");
        }
    }
}
