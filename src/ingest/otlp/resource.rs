//! Attributes of a resource as labels of the one data model.
//!
//! A resource says whose metrics these are. What it says of Kubernetes objects becomes the labels by
//! which the custom metrics API finds a series; `service.*` becomes `job` and `instance` as everywhere in
//! Prometheus' world; everything else is kept once, on the series `target_info`.
//!
//! `k8s.job.name` is not among them: `job` is the service's, so it stands in `target_info`.

use super::attributes::Attributes;
use super::names::label_name;

/// Attributes of objects and their labels.
const OBJECTS: [(&str, &str); 14] = [
    ("k8s.namespace.name", "namespace"),
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
    ("k8s.node.name", "node"),
    ("k8s.deployment.name", "deployment"),
    ("k8s.replicaset.name", "replicaset"),
    ("k8s.statefulset.name", "statefulset"),
    ("k8s.daemonset.name", "daemonset"),
    ("k8s.cronjob.name", "cronjob"),
    ("k8s.service.name", "service"),
    ("k8s.hpa.name", "horizontalpodautoscaler"),
    ("k8s.replicationcontroller.name", "replicationcontroller"),
    ("k8s.resourcequota.name", "resourcequota"),
    ("k8s.cluster.name", "cluster"),
];

/// The label of an attribute that names an object.
#[must_use]
pub fn object_label(key: &str) -> Option<&'static str> {
    OBJECTS.iter().find(|(attribute, _)| *attribute == key).map(|(_, label)| *label)
}

/// What a resource says of all its series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceLabels {
    /// The labels of each series.
    pub labels: Vec<(String, String)>,
    /// The labels of `target_info` besides; empty: it says nothing more.
    pub others: Vec<(String, String)>,
    /// Attributes that were too many.
    pub left_out: usize,
}

impl ResourceLabels {
    /// Of these attributes.
    #[must_use]
    pub fn of(attributes: &Attributes) -> Self {
        let mut labels = Vec::new();
        let mut add = |name: &str, value: String| {
            let known = labels.iter().any(|(n, _): &(String, String)| n == name);
            if !value.is_empty() && !known {
                labels.push((name.to_owned(), value));
            }
        };
        if let Some(name) = attributes.get("service.name") {
            let job = match attributes.get("service.namespace").filter(|namespace| !namespace.is_empty()) {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            };
            add("job", job);
        }
        if let Some(instance) = attributes.get("service.instance.id") {
            add("instance", instance.to_owned());
        }
        let mut others = Vec::new();
        for (key, value) in attributes.pairs() {
            if matches!(key.as_str(), "service.name" | "service.namespace" | "service.instance.id") {
                continue;
            }
            match object_label(key) {
                Some(label) => add(label, value.clone()),
                None => join(&mut others, label_name(key), value),
            }
        }
        others.retain(|(name, _)| !labels.iter().any(|(n, _)| n == name));
        Self { labels, others, left_out: attributes.left_out() }
    }

    /// Whether there is a `target_info` to write: it is of use only where something else can be joined
    /// with it.
    #[must_use]
    pub fn has_target_info(&self) -> bool {
        let identified = self.labels.iter().any(|(name, _)| name == "job" || name == "instance");
        identified && !self.others.is_empty()
    }
}

/// Adds a label; keys that become one name have their values joined by `;`, as the specification says.
pub(super) fn join(labels: &mut Vec<(String, String)>, name: String, value: &str) {
    match labels.iter_mut().find(|(known, _)| *known == name) {
        Some((_, values)) => {
            values.push(';');
            values.push_str(value);
        }
        None => labels.push((name, value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn objects_and_services_become_labels_and_the_rest_stands_apart() {
        let mut attributes = Attributes::default();
        for (key, value) in [
            ("service.name", "shop"),
            ("service.namespace", "web"),
            ("service.instance.id", "i-1"),
            ("k8s.namespace.name", "default"),
            ("k8s.pod.name", "shop-0"),
            ("k8s.deployment.name", "shop"),
            ("k8s.node.name", ""),
            ("k8s.job.name", "nightly"),
            ("host.arch", "arm64"),
            ("host-arch", "x"),
        ] {
            attributes.push(key, value);
        }
        let resource = ResourceLabels::of(&attributes);
        let labels = [
            ("job", "web/shop"),
            ("instance", "i-1"),
            ("namespace", "default"),
            ("pod", "shop-0"),
            ("deployment", "shop"),
        ];
        assert_eq!(resource.labels, own(&labels));
        assert_eq!(resource.others, own(&[("k8s_job_name", "nightly"), ("host_arch", "arm64;x")]));
        assert!(resource.has_target_info());
        assert!(!ResourceLabels::of(&Attributes::default()).has_target_info());
    }
}
