//! What a path of the resource metrics API asks for.

use super::fields::FieldSelector;
use crate::http::error::ApiError;
use crate::kubernetes::resource_metrics::RESOURCES;
use crate::kubernetes::served::{GroupVersion, RESOURCE_METRICS_GROUP};
use crate::text::decode_form;
use axum::http::Uri;
use percent_encoding::percent_decode_str;

/// Whose usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nodes,
    Pods,
}

impl Kind {
    pub(super) fn plural(self) -> &'static str {
        self.of().0
    }

    /// The kind of an item.
    pub(super) fn name(self) -> &'static str {
        self.of().1
    }

    fn of(self) -> (&'static str, &'static str, bool) {
        let [nodes, pods] = RESOURCES;
        if self == Self::Nodes { nodes } else { pods }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) label_selector: String,
    pub(super) fields: FieldSelector,
    /// What a row of a table is to carry.
    pub(super) include_object: String,
}

pub(super) fn no_such_route() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

/// Reads `nodes[/{name}]`, `pods` and `namespaces/{namespace}/pods[/{name}]` below the version, and the query.
pub(super) fn parse(uri: &Uri) -> Result<Asked, ApiError> {
    let invalid = || ApiError::bad_request("invalid request path");
    let decode = |part: &str| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned());
    let path = uri.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<String> =
        path.trim_start_matches('/').split('/').map(decode).collect::<Option<_>>().ok_or_else(invalid)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["apis", RESOURCE_METRICS_GROUP, version, object @ ..] = parts.as_slice() else {
        return Err(no_such_route());
    };
    if *version != GroupVersion::ResourceV1Beta1.version() {
        return Err(no_such_route());
    }
    let (kind, namespace, name) = match object {
        ["nodes"] => (Kind::Nodes, None, None),
        ["nodes", name] => (Kind::Nodes, None, Some(*name)),
        ["pods"] => (Kind::Pods, None, None),
        ["namespaces", namespace, "pods"] => (Kind::Pods, Some(*namespace), None),
        ["namespaces", namespace, "pods", name] => (Kind::Pods, Some(*namespace), Some(*name)),
        _ => return Err(no_such_route()),
    };
    if [namespace, name].into_iter().flatten().any(str::is_empty) {
        return Err(invalid());
    }
    let query = uri.query().unwrap_or_default();
    let value = |name: &str| -> Result<String, ApiError> {
        let pair = query.split('&').find(|pair| pair.split('=').next() == Some(name));
        let value = pair.and_then(|pair| pair.split_once('=')).map_or("", |(_, value)| value);
        let bad =
            || ApiError::bad_request(format!("parameter {name:?}: it is not UTF-8 after percent-decoding"));
        decode_form(value).ok_or_else(bad)
    };
    if !matches!(value("watch")?.as_str(), "" | "0" | "false") {
        return Err(ApiError::method_not_allowed("usage can't be watched: ask again", "GET, HEAD"));
    }
    // As in Kubernetes selectors count in lists only.
    let of_list = |parameter| if name.is_none() { value(parameter) } else { Ok(String::new()) };
    let fields = FieldSelector::parse(&of_list("fieldSelector")?)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(Asked {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        label_selector: of_list("labelSelector")?,
        fields,
        include_object: value("includeObject")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(path: &str) -> String {
        let uri = format!("/apis/metrics.k8s.io/{path}").parse().expect("a URI");
        match parse(&uri) {
            Ok(asked) => {
                let part = |part: Option<String>| part.unwrap_or_else(|| "*".to_owned());
                let (kind, selector) = (asked.kind.plural(), asked.label_selector);
                format!("{kind} {} {} {selector}", part(asked.namespace), part(asked.name))
            }
            Err(error) => error.code.as_u16().to_string(),
        }
    }

    #[test]
    fn paths_are_those_of_metrics_server() {
        for (path, expected) in [
            ("v1beta1/nodes", "nodes * * "),
            ("v1beta1/nodes/n%31", "nodes * n1 "),
            ("v1beta1/pods/?labelSelector=app%3Dweb%2Ctier+in+%28a%29", "pods * * app=web,tier in (a)"),
            ("v1beta1/namespaces/shop/pods?watch=0&limit=500", "pods shop * "),
            ("v1beta1/namespaces/shop/pods/web-0?labelSelector=!", "pods shop web-0 "),
            ("v1beta1/namespaces/shop/pods/web-0/more", "404"),
            ("v1beta1/namespaces/shop/nodes", "404"),
            ("v1beta1/namespaces//pods", "400"),
            ("v1beta1/pods?watch=true", "405"),
            ("v1beta1/pods?fieldSelector=spec.nodeName%3Dn1", "400"),
            ("v1beta1/pods?labelSelector=%FF", "400"),
            ("v1beta1/%FF", "400"),
            ("v1/pods", "404"),
            ("v1beta1", "404"),
        ] {
            assert_eq!(told(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(rest in "[!-~]{0,40}", query in "[!-~]{0,40}") {
            if let Ok(uri) = format!("/apis/metrics.k8s.io/v1beta1/{rest}?{query}").parse::<Uri>() {
                let _ = parse(&uri);
            }
        }
    }
}
