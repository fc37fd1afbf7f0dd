//! The 403 of a path, in the words of kube-apiserver.

use crate::http::error::ApiError;
use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

/// 403: this user may not get this path.
pub(super) fn forbidden(path: &str, user: &str) -> ApiError {
    let decoded: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let message = match segments.as_slice() {
        ["apis", group, _, "namespaces", namespace, object @ ..] if !object.is_empty() => {
            object_message(group, Some(namespace), object, user)
        }
        ["apis", group, _, object @ ..] if !object.is_empty() => object_message(group, None, object, user),
        _ => format!("forbidden: User {user:?} cannot get path {path:?}"),
    };
    ApiError::new(StatusCode::FORBIDDEN, message)
}

fn object_message(group: &str, namespace: Option<&str>, object: &[&str], user: &str) -> String {
    let resource = object.first().copied().unwrap_or_default();
    let name = object.get(1).map(|name| format!(" {name:?}")).unwrap_or_default();
    let asked = match object.get(2) {
        Some(subresource) => format!("{resource}/{subresource}"),
        None => resource.to_owned(),
    };
    let place = match namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    format!(
        "{resource}.{group}{name} is forbidden: User {user:?} cannot get resource {asked:?} \
         in API group {group:?} {place}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_kubernetes() {
        let message = |path: &str| forbidden(path, "eve").message;
        let base = "/apis/custom.metrics.k8s.io/v1beta1";
        assert_eq!(
            message(&format!("{base}/namespaces/default/pods/p1/rps")),
            "pods.custom.metrics.k8s.io \"p1\" is forbidden: User \"eve\" cannot get resource \"pods/rps\" \
             in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
        );
        assert_eq!(
            message(&format!("{base}/namespaces/default/pods/%2A/rps")),
            "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"eve\" cannot get resource \"pods/rps\" \
             in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
        );
        assert_eq!(
            message(&format!("{base}/nodes/n1/load")),
            "nodes.custom.metrics.k8s.io \"n1\" is forbidden: User \"eve\" cannot get resource \
             \"nodes/load\" in API group \"custom.metrics.k8s.io\" at the cluster scope"
        );
        assert_eq!(
            message(&format!("{base}/namespaces/default/metrics/m")),
            "metrics.custom.metrics.k8s.io \"m\" is forbidden: User \"eve\" cannot get resource \
             \"metrics\" in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
        );
        assert_eq!(message("/apis"), "forbidden: User \"eve\" cannot get path \"/apis\"");
    }
}
