//! The object that a metric describes, and the series that carries the metric.
//!
//! ```text
//! namespaces/{ns}/{resource}/{name}/{metric}   {__name__, namespace, <label of the resource>}
//! {resource}/{name}/{metric}                   {__name__, <label of the resource>}
//! namespaces/{ns}/metrics/{metric}             {__name__, namespace}
//! ```

use super::mapping::Resolver;
use super::resources::{NAMESPACE_LABEL, RESOURCE_INFO_METRIC, Resource, ResourceError};
use crate::text::start_of;
use lookback_storage::{LabelError, Labels, METRIC_NAME_LABEL};
use thiserror::Error;

/// Longest name of an object or a namespace, in bytes: Kubernetes' bound on names.
pub const NAME_BYTES_MAX: usize = 253;
/// Longest metric name, in bytes.
pub const METRIC_BYTES_MAX: usize = 512;

/// One Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedObject {
    /// What it is.
    pub resource: Resource,
    /// Where it lies; `None` for an object of the whole cluster, a namespace included.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Why a path, a name or a label of a push can't be used. Each says what to send.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DescribeError {
    /// The path has none of the known forms.
    #[error(
        "invalid path: use namespaces/{{namespace}}/{{resource}}/{{name}}/{{metric}}, \
         {{resource}}/{{name}}/{{metric}} or namespaces/{{namespace}}/metrics/{{metric}}"
    )]
    Path,
    /// The resource can't be used.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// A namespaced resource without a namespace.
    #[error("{resource} lie in namespaces: name one, as in namespaces/{{namespace}}/{resource}/{{name}}")]
    NamespaceMissing {
        /// The resource.
        resource: String,
    },
    /// A name that can't be used.
    #[error(
        "the {what} {start:?} can't be used: at most {bytes_max} bytes, not \".\", \"..\" or \"*\", \
         no '/', no '%' and no control characters"
    )]
    Name {
        /// Whose name.
        what: &'static str,
        /// Its beginning.
        start: String,
        /// The bound.
        bytes_max: usize,
    },
    /// A name that means something to Lookback itself.
    #[error("the metric {RESOURCE_INFO_METRIC} is Lookback's own: choose another name")]
    ReservedMetric,
    /// A metric label that would change whose metric it is.
    #[error("the label {label:?} can't be given: the path sets it")]
    ReservedLabel {
        /// The label.
        label: String,
    },
    /// A label set that can't be stored.
    #[error(transparent)]
    Labels(#[from] LabelError),
}

/// The object of a push, and the metric, by the segments of its path after `/write-metrics/`, each
/// already percent-decoded.
///
/// # Errors
/// When the path has none of the known forms or a name in it can't be used.
pub fn describe_path(
    resolver: &Resolver,
    segments: &[impl AsRef<str>],
) -> Result<(DescribedObject, String), DescribeError> {
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let describe = |namespace, resource, name| describe(resolver, namespace, resource, name);
    let (object, metric) = match segments.as_slice() {
        ["namespaces", namespace, "metrics", metric] => (describe(None, "namespaces", namespace)?, metric),
        ["namespaces", namespace, resource, name, metric] => {
            (describe(Some(namespace), resource, name)?, metric)
        }
        [resource, name, metric] => (describe(None, resource, name)?, metric),
        _ => return Err(DescribeError::Path),
    };
    check_name("metric name", metric, METRIC_BYTES_MAX)?;
    Ok((object, (*metric).to_owned()))
}

/// The object by its parts. A resource of the whole cluster (a node) stands without its namespace even
/// where one is given; a custom resource of which no cluster tells is namespaced where one is given.
///
/// # Errors
/// When the resource is unknown, a name can't be used, or a namespaced resource has no namespace.
pub fn describe(
    resolver: &Resolver,
    namespace: Option<&str>,
    resource: &str,
    name: &str,
) -> Result<DescribedObject, DescribeError> {
    let resource = resolver.resolve(resource)?;
    if let Some(namespace) = namespace {
        check_name("namespace", namespace, NAME_BYTES_MAX)?;
    }
    let what = if resource.is_namespace() { "namespace" } else { "object name" };
    check_name(what, name, NAME_BYTES_MAX)?;
    let namespaced = resource.namespaced.unwrap_or(namespace.is_some());
    if namespaced && namespace.is_none() {
        return Err(DescribeError::NamespaceMissing { resource: resource.plural.to_string() });
    }
    let namespace = namespace.filter(|_| namespaced).map(str::to_owned);
    Ok(DescribedObject { resource, namespace, name: name.to_owned() })
}

fn check_name(what: &'static str, name: &str, bytes_max: usize) -> Result<(), DescribeError> {
    let bad = name.is_empty()
        || name.len() > bytes_max
        || matches!(name, "." | ".." | "*")
        || name.chars().any(|c| c.is_control() || c == '/' || c == '%');
    if bad {
        return Err(DescribeError::Name { what, start: start_of(name), bytes_max });
    }
    Ok(())
}

impl DescribedObject {
    /// Whether it lies in a namespace.
    #[must_use]
    pub const fn is_namespaced(&self) -> bool {
        self.namespace.is_some()
    }

    /// The namespace whose credentials it takes to write of it: its own, or for a namespace itself.
    #[must_use]
    pub fn scope_namespace(&self) -> Option<&str> {
        if self.resource.is_namespace() { Some(&self.name) } else { self.namespace.as_deref() }
    }

    /// The series of this object's metric with these metric labels.
    ///
    /// # Errors
    /// When a name can't be used, a metric label would change whose metric it is, or the set breaks a
    /// bound of the store.
    pub fn labels(&self, metric: &str, extra: &[(String, String)]) -> Result<Labels, DescribeError> {
        check_name("metric name", metric, METRIC_BYTES_MAX)?;
        if metric == RESOURCE_INFO_METRIC {
            return Err(DescribeError::ReservedMetric);
        }
        let described = self.resource.label.as_ref();
        let reserved = [METRIC_NAME_LABEL, NAMESPACE_LABEL, described];
        if let Some((label, _)) = extra.iter().find(|(label, _)| reserved.contains(&label.as_str())) {
            return Err(DescribeError::ReservedLabel { label: label.clone() });
        }
        let identity = [(METRIC_NAME_LABEL, metric), (described, self.name.as_str())];
        let namespace = self.namespace.as_deref().map(|namespace| (NAMESPACE_LABEL, namespace));
        let extra = extra.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        Ok(Labels::new(identity.into_iter().chain(namespace).chain(extra))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(path: &str) -> String {
        let segments: Vec<&str> = path.split('/').collect();
        let (object, metric) =
            describe_path(&Resolver::default(), &segments).unwrap_or_else(|e| panic!("{path}: {e}"));
        object.labels(&metric, &[]).expect("labels").to_string()
    }

    #[test]
    fn each_form_of_path_names_its_series() {
        for (path, labels) in [
            ("namespaces/default/pods/p1/rps", r#"rps{namespace="default",pod="p1"}"#),
            ("namespaces/default/deployments.apps/web/rps", r#"rps{deployment="web",namespace="default"}"#),
            ("namespaces/default/metrics/queue", r#"queue{namespace="default"}"#),
            ("namespaces/default/queue", r#"queue{namespace="default"}"#),
            ("nodes/n1/load", r#"load{node="n1"}"#),
            ("namespaces/default/nodes/n1/load", r#"load{node="n1"}"#),
            (
                "namespaces/default/widgets.example.com/w1/rps",
                r#"rps{namespace="default",widgets_example_com="w1"}"#,
            ),
            ("widgets.example.com/w1/rps", r#"rps{widgets_example_com="w1"}"#),
            ("namespaces/default/pods/p 1 \"ü\"/rps", "rps{namespace=\"default\",pod=\"p 1 \\\"ü\\\"\"}"),
        ] {
            assert_eq!(series(path), labels, "{path}");
        }
    }

    #[test]
    fn other_paths_and_names_are_refused_with_what_to_send() {
        let refused = |path: &str| {
            let segments: Vec<&str> = path.split('/').collect();
            describe_path(&Resolver::default(), &segments).expect_err(path)
        };
        for path in ["", "m", "a/b", "namespaces/x/pods/p1", "namespaces/x/pods/p1/m/more"] {
            let error = refused(path);
            assert!(matches!(error, DescribeError::Path | DescribeError::Resource(_)), "{path}: {error}");
        }
        assert!(matches!(refused("pods/p1/m"), DescribeError::NamespaceMissing { .. }));
        assert!(matches!(refused("namespaces/x/podz/p1/m"), DescribeError::Resource(_)));
        for path in [
            "namespaces//pods/p1/m",
            "namespaces/x/pods//m",
            "namespaces/x/pods/*/m",
            "namespaces/x/pods/p1/",
            "namespaces/x/pods/../m",
            "namespaces/x/pods/p\n/m",
            "namespaces/x/pods/p%2F/m",
        ] {
            assert!(matches!(refused(path), DescribeError::Name { .. }), "{path}");
        }
        assert!(matches!(refused(&format!("nodes/{}/m", "x".repeat(254))), DescribeError::Name { .. }));
        assert!(matches!(refused(&format!("nodes/n/{}", "x".repeat(513))), DescribeError::Name { .. }));
    }

    #[test]
    fn metric_labels_are_added_but_never_change_whose_metric_it_is() {
        let object = describe(&Resolver::default(), Some("default"), "pods", "p1").expect("object");
        let labels = |label: &str| object.labels("rps", &[(label.to_owned(), "x".to_owned())]);
        assert_eq!(
            labels("verb").expect("labels").to_string(),
            r#"rps{namespace="default",pod="p1",verb="x"}"#
        );
        for label in ["__name__", "namespace", "pod"] {
            let error = labels(label).expect_err(label);
            assert_eq!(error, DescribeError::ReservedLabel { label: label.to_owned() });
        }
        assert!(matches!(labels(""), Err(DescribeError::Labels(_))));
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(matches!(object.labels("rps", &twice), Err(DescribeError::Labels(_))));
        assert_eq!(object.labels(RESOURCE_INFO_METRIC, &[]), Err(DescribeError::ReservedMetric));
        let node = describe(&Resolver::default(), None, "nodes", "n1").expect("object");
        let namespace = [("namespace".to_owned(), "x".to_owned())];
        assert!(matches!(node.labels("m", &namespace), Err(DescribeError::ReservedLabel { .. })));
    }

    #[test]
    fn a_namespace_is_written_with_its_own_credentials() {
        let of = |namespace, resource, name| {
            describe(&Resolver::default(), namespace, resource, name)
                .expect("object")
                .scope_namespace()
                .map(str::to_owned)
        };
        assert_eq!(of(None, "namespaces", "x"), Some("x".to_owned()));
        assert_eq!(of(Some("x"), "pods", "p"), Some("x".to_owned()));
        assert_eq!(of(Some("x"), "nodes", "n"), None);
    }

    proptest! {
        #[test]
        fn no_path_panics_and_what_is_understood_can_be_stored(
            segments in proptest::collection::vec("namespaces|metrics|pods|nodes|[a-z]{1,3}\\.io\\.x|\\PC{0,6}", 0..7),
        ) {
            if let Ok((object, metric)) = describe_path(&Resolver::default(), &segments) {
                let labels = object.labels(&metric, &[]).expect("stored");
                prop_assert_eq!(labels.get(&object.resource.label), Some(object.name.as_str()));
                prop_assert_eq!(labels.get("namespace"), object.scope_namespace());
            }
        }
    }
}
