//! What a path asks for, in the words of Kubernetes' authorisation.
//!
//! As `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` reads paths, so that a role that allows
//! a request to kube-apiserver's own library allows it here: the metric is a subresource, the
//! namespace form is resource `metrics`, and an external metric is a resource that is listed.

use percent_encoding::percent_decode_str;

/// What a request does to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestAttributes {
    /// To an object of an API group.
    Resource(ResourceAttributes),
    /// To any other path.
    Path {
        /// The method, in lower case.
        verb: String,
        /// The path, decoded.
        path: String,
    },
}

/// What a request does to which object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes {
    /// `get`, `list`, `create`, …
    pub verb: String,
    /// The API group.
    pub group: String,
    /// The group's version.
    pub version: String,
    /// The namespace; `None`: at the cluster scope.
    pub namespace: Option<String>,
    /// The resource.
    pub resource: String,
    /// The subresource: for a custom metric, its name.
    pub subresource: Option<String>,
    /// The object's name.
    pub name: Option<String>,
}

impl RequestAttributes {
    /// Of a request with this method and this path as sent.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Self {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let parts: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
        let ["apis", group, version, object @ ..] = parts.as_slice() else {
            return Self::Path { verb: method.to_lowercase(), path: decoded.into_owned() };
        };
        // With no fourth part it is discovery.
        let Some(first) = object.first() else {
            return Self::Path { verb: method.to_lowercase(), path: decoded.into_owned() };
        };
        let (namespace, object) = match object {
            ["namespaces", namespace, subresource, ..] if matches!(*subresource, "status" | "finalize") => {
                (Some(*namespace), object)
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            ["namespaces", namespace] => (Some(*namespace), object),
            _ => (None, object),
        };
        let part = |index: usize| object.get(index).map(|part| (*part).to_owned());
        let name = part(1);
        Self::Resource(ResourceAttributes {
            verb: verb(method, name.is_some()).to_owned(),
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            namespace: namespace.map(str::to_owned),
            resource: part(0).unwrap_or_else(|| (*first).to_owned()),
            subresource: part(2),
            name,
        })
    }

    /// The message of the 403 for this user, worded as Kubernetes does.
    #[must_use]
    pub fn forbidden(&self, user: &str) -> String {
        match self {
            Self::Path { verb, path } => format!("forbidden: User {user:?} cannot {verb} path {path:?}"),
            Self::Resource(object) => object.forbidden(user),
        }
    }
}

impl ResourceAttributes {
    fn forbidden(&self, user: &str) -> String {
        let Self { verb, group, resource, .. } = self;
        let name = self.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        let whole = match &self.subresource {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource.clone(),
        };
        let place = match &self.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        format!(
            "{resource}.{group}{name} is forbidden: \
             User {user:?} cannot {verb} resource {whole:?} in API group {group:?} {place}"
        )
    }
}

fn verb(method: &str, named: bool) -> &'static str {
    match method {
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str) -> String {
        RequestAttributes::of("GET", path).forbidden("eve")
    }

    #[test]
    fn a_custom_metric_is_a_subresource() {
        assert_eq!(
            message("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/p1/rps"),
            "pods.custom.metrics.k8s.io \"p1\" is forbidden: User \"eve\" cannot get resource \"pods/rps\" \
             in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
        );
    }

    #[test]
    fn a_wildcard_is_a_name() {
        assert_eq!(
            message("/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/%2A/rps"),
            "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"eve\" cannot get resource \"pods/rps\" \
             in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
        );
    }

    #[test]
    fn a_root_scoped_object_is_at_the_cluster_scope() {
        assert_eq!(
            message("/apis/custom.metrics.k8s.io/v1beta1/nodes/n1/load"),
            "nodes.custom.metrics.k8s.io \"n1\" is forbidden: User \"eve\" cannot get resource \"nodes/load\" \
             in API group \"custom.metrics.k8s.io\" at the cluster scope"
        );
    }

    #[test]
    fn the_namespace_form_is_resource_metrics() {
        assert_eq!(
            RequestAttributes::of(
                "GET",
                "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/metrics/load"
            ),
            RequestAttributes::Resource(ResourceAttributes {
                verb: "get".to_owned(),
                group: "custom.metrics.k8s.io".to_owned(),
                version: "v1beta1".to_owned(),
                namespace: Some("default".to_owned()),
                resource: "metrics".to_owned(),
                subresource: None,
                name: Some("load".to_owned()),
            })
        );
    }

    #[test]
    fn an_external_metric_is_listed() {
        assert_eq!(
            message("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue"),
            "queue.external.metrics.k8s.io is forbidden: User \"eve\" cannot list resource \"queue\" \
             in API group \"external.metrics.k8s.io\" in the namespace \"default\""
        );
    }

    #[test]
    fn discovery_and_other_paths_are_paths() {
        for path in ["/apis", "/", "/version", "/apis/custom.metrics.k8s.io/v1beta1", "/openapi/v2"] {
            assert_eq!(message(path), format!("forbidden: User \"eve\" cannot get path {path:?}"));
        }
    }
}
