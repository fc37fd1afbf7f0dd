//! What kube-apiserver decides: whose token it is, and what a user may do.
//!
//! On the secure port each request is asked about as kube-apiserver's own library does. On the plain
//! port, whose paths are no Kubernetes resources, the same roles count, in API group
//! `custom.metrics.k8s.io`:
//!
//! | request | what has to be allowed |
//! |---|---|
//! | `POST /write-metrics/namespaces/N/pods/P/M` | `create` `pods/M` named P in N (the other forms likewise: `metrics` named M; at the cluster scope) |
//! | a batch, remote write, any other push | `create` `*/*` at the cluster scope, or else in the service account's own namespace, which then bounds it |
//! | deletes and backups, `/api/v1/admin/…` | `delete` `*/*`, likewise; a backup at the cluster scope |
//! | a read | `get` `*/*` at the cluster scope, or else in the own namespace and in the one that `namespace=` names, which then bound it |
//! | `/metrics` | `get` on the path, as for any Kubernetes component |

use crate::http::error::ApiError;
use crate::http::routes::reads_by_post;
use crate::kubernetes::discovery::{CUSTOM_METRICS_GROUP, Version};
use crate::kubernetes::request_attributes::{RequestAttributes, ResourceAttributes};
use crate::kubernetes::resources::resolve;
use crate::kubernetes::reviews::{AccessReviews, ReviewError, TokenReviews};
use crate::kubernetes::user::{AUTHENTICATED, Identity, MASTERS};
use crate::store::Scope;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Caller;

/// Asks kube-apiserver; a cheap clone.
#[derive(Clone)]
pub struct Delegated {
    tokens: Arc<TokenReviews>,
    access: Arc<AccessReviews>,
}

impl Delegated {
    /// By these reviews.
    #[must_use]
    pub fn new(tokens: TokenReviews, access: AccessReviews) -> Self {
        Self { tokens: Arc::new(tokens), access: Arc::new(access) }
    }

    /// Whose token it is; `None`: nobody's.
    pub(super) async fn user_of(&self, token: &str) -> Result<Option<Arc<Identity>>, ReviewError> {
        self.tokens.review(token).await
    }

    /// Refuses a request of the secure port that its user may not make. Discovery is in memory and for
    /// every authenticated user, as in Kubernetes' own role `system:discovery`: it must not wait for
    /// kube-apiserver, which waits for it.
    pub(super) async fn authorize(
        &self,
        user: &Identity,
        method: &Method,
        path: &str,
    ) -> Result<(), ApiError> {
        let what = RequestAttributes::of(method.as_str(), path);
        if is_discovery(&what) && user.is_in(AUTHENTICATED) {
            return Ok(());
        }
        match self.access.allowed(user, &what).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ApiError::new(StatusCode::FORBIDDEN, what.forbidden(&user.user))),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The caller that a user of the plain port is, for this request.
    pub(super) async fn plain_caller(&self, user: &Identity, request: &Parts) -> Result<Caller, ApiError> {
        let uri = &request.uri;
        let verb = verb(&request.method, uri.path());
        let caller = |scope| Caller {
            user: user.user.clone(),
            groups: user.groups.clone(),
            scope,
            read: verb == "get" || is_administration(uri.path()),
            write: verb != "get",
        };
        if user.is_in(MASTERS) {
            return Ok(caller(Scope::All));
        }
        if uri.path() == "/metrics" {
            self.authorize(user, &request.method, uri.path()).await?;
            return Ok(caller(Scope::All));
        }
        if let Some(object) = written_object(verb, uri.path()) {
            let scope = object.namespace.clone().map_or(Scope::All, |namespace| only([namespace]));
            let what = RequestAttributes::Resource(object);
            return match self.access.allowed(user, &what).await {
                Ok(true) => Ok(caller(scope)),
                Ok(false) => Err(ApiError::new(StatusCode::FORBIDDEN, what.forbidden(&user.user))),
                Err(error) => Err(unavailable(&error)),
            };
        }
        self.scope(user, verb, uri.query().unwrap_or_default()).await.map(caller)
    }

    /// Everything, or the namespaces of the service account and of the query that are allowed.
    async fn scope(&self, user: &Identity, verb: &str, query: &str) -> Result<Scope, ApiError> {
        let everything = everything(verb, None);
        if self.access.allowed(user, &everything).await.map_err(|error| unavailable(&error))? {
            return Ok(Scope::All);
        }
        let own = user.service_account_namespace().map(str::to_owned);
        let asked: BTreeSet<String> = own.into_iter().chain(namespace_of(query)).collect();
        let mut allowed = BTreeSet::new();
        for namespace in asked {
            let what = everything_in(verb, &namespace);
            if self.access.allowed(user, &what).await.map_err(|error| unavailable(&error))? {
                allowed.insert(namespace);
            }
        }
        if allowed.is_empty() {
            return Err(ApiError::new(StatusCode::FORBIDDEN, everything.forbidden(&user.user)));
        }
        Ok(only(allowed))
    }
}

fn only(namespaces: impl IntoIterator<Item = String>) -> Scope {
    Scope::Namespaces(Arc::new(namespaces.into_iter().collect()))
}

fn everything_in(verb: &str, namespace: &str) -> RequestAttributes {
    everything(verb, Some(namespace))
}

fn everything(verb: &str, namespace: Option<&str>) -> RequestAttributes {
    RequestAttributes::Resource(ResourceAttributes {
        verb: verb.to_owned(),
        group: CUSTOM_METRICS_GROUP.to_owned(),
        version: Version::V1Beta2.as_str().to_owned(),
        namespace: namespace.map(str::to_owned),
        resource: "*".to_owned(),
        subresource: Some("*".to_owned()),
        name: None,
    })
}

/// The first `namespace` of a query.
fn namespace_of(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("namespace="))?.replace('+', " ");
    Some(percent_decode_str(&value).decode_utf8().ok()?.into_owned()).filter(|name| !name.is_empty())
}

/// What a request of the plain port does, as a verb of Kubernetes. Whatever is not known to read writes,
/// so that a right to read never suffices for it.
fn verb(method: &Method, path: &str) -> &'static str {
    match *method {
        _ if is_administration(path) => "delete",
        Method::GET | Method::HEAD => "get",
        Method::POST if reads_by_post(path) => "get",
        Method::DELETE => "delete",
        _ => "create",
    }
}

/// A backup takes the right to read and to write all: `delete` stands for both.
fn is_administration(path: &str) -> bool {
    path.starts_with("/api/v1/admin/")
}

/// The object that a single push describes, in the words of the API that reads it back. Its resource goes
/// by its one name, whichever alias the path has.
fn written_object(verb: &str, path: &str) -> Option<ResourceAttributes> {
    let object = path.strip_prefix("/write-metrics/").filter(|object| !object.is_empty())?;
    let path = format!("/apis/{CUSTOM_METRICS_GROUP}/{}/{object}", Version::V1Beta2.as_str());
    match RequestAttributes::of("POST", &path) {
        RequestAttributes::Resource(object) => {
            let resource = resolve(&object.resource).map(|resource| resource.group_resource());
            let resource = resource.unwrap_or_else(|_| object.resource.clone());
            Some(ResourceAttributes { verb: verb.to_owned(), resource, ..object })
        }
        RequestAttributes::Path { .. } => None,
    }
}

fn is_discovery(what: &RequestAttributes) -> bool {
    let RequestAttributes::Path { verb, path } = what else { return false };
    let known = matches!(path.trim_end_matches('/'), "/apis" | "/version") || path.starts_with("/apis/");
    verb == "get" && (known || path.starts_with("/openapi/"))
}

/// 503: nobody can say, so the answer is not yes; it may be soon.
pub(super) fn unavailable(error: &ReviewError) -> ApiError {
    let mut refusal = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("not allowed for now: {error}"));
    refusal.headers.push((header::RETRY_AFTER, HeaderValue::from_static("5")));
    refusal
}

/// `--authorization-always-allow-paths`: paths that anyone may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPaths(Arc<Vec<String>>);

impl AllowedPaths {
    /// Exact paths, or beginnings where there is a `*` at the end.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(paths.into_iter().collect()))
    }

    /// Whether anyone may get this path.
    #[must_use]
    pub fn allow(&self, path: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == allowed,
        })
    }
}

impl Default for AllowedPaths {
    fn default() -> Self {
        Self::new(["/healthz", "/livez", "/readyz"].map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_the_creation_of_what_is_read_back() {
        let described = |path: &str| {
            let object = written_object("create", path)?;
            let name = object.name.unwrap_or_default();
            let whole = [Some(object.resource), object.subresource].into_iter().flatten().collect::<Vec<_>>();
            Some((object.namespace.unwrap_or_default(), whole.join("/"), name))
        };
        for (path, namespace, resource, name) in [
            ("/write-metrics/namespaces/shop/pods/web-0/rps", "shop", "pods/rps", "web-0"),
            ("/write-metrics/namespaces/shop/pod/web-0/rps", "shop", "pods/rps", "web-0"),
            ("/write-metrics/namespaces/shop/deployment/web/rps", "shop", "deployments.apps/rps", "web"),
            ("/write-metrics/namespaces/shop/metrics/queue", "shop", "metrics", "queue"),
            ("/write-metrics/nodes/n1/load", "", "nodes/load", "n1"),
        ] {
            let expected = (namespace.to_owned(), resource.to_owned(), name.to_owned());
            assert_eq!(described(path), Some(expected), "{path}");
        }
        assert_eq!(described("/write-metrics"), None);
        assert_eq!(described("/write-metrics/"), None);
    }

    #[test]
    fn only_what_is_known_to_read_reads() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/metrics", "get"),
            (Method::POST, "/api/v1/query_range", "get"),
            (Method::POST, "/api/v1/summary", "get"),
            (Method::POST, "/api/v1/write", "create"),
            (Method::PUT, "/metrics/job/x", "create"),
            (Method::POST, "/api/v1/admin/tsdb/delete_series", "delete"),
            (Method::DELETE, "/write-metrics/nodes/n1/load", "delete"),
        ] {
            assert_eq!(verb(&method, path), expected, "{path}");
        }
        assert_eq!(namespace_of("a=b&namespace=team%2Da&namespace=c").as_deref(), Some("team-a"));
        assert_eq!(namespace_of("xnamespace=a"), None);
    }

    #[test]
    fn paths_are_allowed_exactly_or_by_their_beginning() {
        assert!(AllowedPaths::default().allow("/readyz") && !AllowedPaths::default().allow("/readyz/x"));
        let some = AllowedPaths::new(["/healthz*".to_owned()]);
        assert!(some.allow("/healthz/ping") && !some.allow("/readyz"));
    }
}
