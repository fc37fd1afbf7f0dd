//! What a path of the custom metrics API asks.
//!
//! ```text
//! /apis/custom.metrics.k8s.io/{version}
//!   /namespaces/{ns}/{resource[.group]}/{name|*}/{metric}     values of objects in a namespace
//!   /namespaces/{ns}/{resource[.group]}/{name}                all values of one object
//!   /namespaces/{ns}/metrics/{metric}                         the value of the namespace itself
//!   /{resource[.group]}/{name|*}/{metric}                     values of objects of the whole cluster
//!   /{resource[.group]}/{name}                                all values of one object
//! ```
//!
//! Each with or without a slash at its end. Segments are percent-decoded after the split, so that an
//! encoded slash stays inside its segment.

use crate::http::error::ApiError;
use crate::kubernetes::discovery::{CUSTOM_METRICS_GROUP, Version};
use crate::kubernetes::mapping::Resolver;
use crate::kubernetes::resources::{Resource, ResourceError};
use percent_encoding::percent_decode_str;

/// Whose metric is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// In which version the answer is.
    pub version: Version,
    /// The namespace in the path; not for the namespace form, whose object is the namespace.
    pub namespace: Option<String>,
    /// Of which resource.
    pub resource: Resource,
    /// Of which object; `None`: of all.
    pub name: Option<String>,
    /// Which metric; `None`: all of the object.
    pub metric: Option<String>,
}

/// Why a path asks nothing.
#[derive(Debug)]
pub enum PathError {
    /// It names no resource.
    Resource(ResourceError),
    /// It has no valid form.
    Form(ApiError),
}

impl From<ApiError> for PathError {
    fn from(error: ApiError) -> Self {
        Self::Form(error)
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Resource(error) => Self::not_found(error.to_string()),
            PathError::Form(error) => error,
        }
    }
}

/// The question of a request's path, as sent.
///
/// # Errors
/// 404 for what is no route or resource here, 400 for a path of no valid form.
pub fn parse_path(resolver: &Resolver, path: &str) -> Result<Values, PathError> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["apis", CUSTOM_METRICS_GROUP, version, object @ ..] => {
            let version = Version::of(version).ok_or_else(no_such_route)?;
            values(resolver, version, object)
        }
        _ => Err(no_such_route().into()),
    }
}

/// 404: no route has this path.
#[must_use]
pub fn no_such_route() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

fn invalid() -> ApiError {
    ApiError::bad_request("invalid request path")
}

fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8().map(String::from);
    path.split('/').map(|segment| decode(segment).map_err(|_| invalid())).collect()
}

fn values(resolver: &Resolver, version: Version, object: &[&str]) -> Result<Values, PathError> {
    if object.iter().any(|segment| segment.is_empty()) {
        return Err(invalid().into());
    }
    let (namespace, resource, name, metric) = match object {
        ["namespaces", namespace, "metrics", metric] => (None, "namespaces", *namespace, Some(*metric)),
        ["namespaces", namespace, resource, name, metric] => {
            (Some(*namespace), *resource, *name, Some(*metric))
        }
        ["namespaces", namespace, resource, name] => (Some(*namespace), *resource, *name, None),
        ["namespaces", "*", metric] => (None, "namespaces", "*", Some(*metric)),
        ["namespaces", _, _] => return Err(invalid().into()),
        ["namespaces", _] => return Err(no_such_route().into()),
        [resource, name, metric] => (None, *resource, *name, Some(*metric)),
        [resource, name] => (None, *resource, *name, None),
        _ => return Err(no_such_route().into()),
    };
    let every = name == "*";
    if every && metric.is_none() {
        return Err(invalid().into());
    }
    let resource = resolver.resolve(resource).map_err(PathError::Resource)?;
    Ok(Values {
        version,
        namespace: namespace.map(str::to_owned),
        resource,
        name: (!every).then(|| name.to_owned()),
        metric: metric.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use proptest::prelude::*;

    const BASE: &str = "/apis/custom.metrics.k8s.io/v1beta2";

    /// namespace, resource, name, metric
    fn asked(rest: &str) -> [String; 4] {
        let values = parse_path(&Resolver::default(), &format!("{BASE}{rest}"))
            .unwrap_or_else(|e| panic!("{rest}: {e:?}"));
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let resource = values.resource.group_resource();
        [shown(values.namespace), resource, shown(values.name), shown(values.metric)]
    }

    #[test]
    fn each_form_is_understood() {
        for (rest, expected) in [
            ("/namespaces/default/pods/p1/rps", ["default", "pods", "p1", "rps"]),
            ("/namespaces/default/pods/p1/rps/", ["default", "pods", "p1", "rps"]),
            ("/namespaces/default/pods/%2A/rps", ["default", "pods", "-", "rps"]),
            ("/namespaces/default/pods/*/rps", ["default", "pods", "-", "rps"]),
            ("/namespaces/default/deployment/web/m", ["default", "deployments.apps", "web", "m"]),
            ("/namespaces/default/metrics/m", ["-", "namespaces", "default", "m"]),
            ("/namespaces/default/nodes/n1/m", ["default", "nodes", "n1", "m"]),
            ("/namespaces/default/pods/p1", ["default", "pods", "p1", "-"]),
            ("/namespaces/default/pods/p1/", ["default", "pods", "p1", "-"]),
            ("/nodes/n1/m", ["-", "nodes", "n1", "m"]),
            ("/nodes/*/m", ["-", "nodes", "-", "m"]),
            ("/nodes/n1/", ["-", "nodes", "n1", "-"]),
            ("/namespaces/*/m", ["-", "namespaces", "-", "m"]),
            ("/namespaces/default/pods/a%2Fb/m%20n", ["default", "pods", "a/b", "m n"]),
        ] {
            assert_eq!(asked(rest), expected.map(str::to_owned), "{rest}");
        }
    }

    #[test]
    fn other_paths_say_what_is_wrong_with_them() {
        let not_found = (StatusCode::NOT_FOUND, "the server could not find the requested resource");
        let invalid = (StatusCode::BAD_REQUEST, "invalid request path");
        for (path, (code, message)) in [
            ("/apis", not_found),
            ("/apis/apps", not_found),
            ("/apis/custom.metrics.k8s.io", not_found),
            ("/apis/custom.metrics.k8s.io/v1beta2", not_found),
            ("/apis/custom.metrics.k8s.io/v1", not_found),
            ("/apis/custom.metrics.k8s.io/v1beta2/nodes", not_found),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/x", not_found),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/pods/p/m/more", not_found),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/foo", invalid),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/pods/", invalid),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/x/pods/*", invalid),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces//pods/p/m", invalid),
            ("/apis/custom.metrics.k8s.io/v1beta2/nodes/%FF/m", invalid),
        ] {
            let error = ApiError::from(parse_path(&Resolver::default(), path).expect_err(path));
            assert_eq!((error.code, error.message.as_str()), (code, message), "{path}");
        }
        let unknown =
            parse_path(&Resolver::default(), &format!("{BASE}/namespaces/x/podz/p/m")).expect_err("unknown");
        let unknown = ApiError::from(unknown);
        assert_eq!(unknown.code, StatusCode::NOT_FOUND);
        assert!(unknown.message.contains("podz"), "{unknown:?}");
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "\\PC{0,40}", rest in "(/(namespaces|pods|\\*|%2A|%|[a-z.]{0,8})){0,7}") {
            let _ = parse_path(&Resolver::default(), &path);
            let _ = parse_path(&Resolver::default(), &format!("{BASE}{rest}"));
        }
    }
}
