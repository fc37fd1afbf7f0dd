//! What there is: discovery, plain and aggregated, `/version`, and OpenAPI.
//!
//! invariant: nothing here waits. Every answer is in memory already ([`Documents`]): a slow or failing
//! discovery of one APIService holds up namespaces, garbage collection and quota of the whole cluster.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::kubernetes::documents::{Document, Documents};
use crate::kubernetes::request_attributes::RequestAttributes;
use crate::kubernetes::served::GroupVersion;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

const JSON: &str = "application/json";

/// Answers a path of discovery; `None`: it is none.
pub(super) fn answer(app: &App, caller: &Caller, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
    let documents = app.catalog.documents();
    let Found { document, content_type, varies } = find(&documents, uri.path(), headers)?;
    if !caller.read {
        let message = RequestAttributes::of("GET", uri.path()).forbidden(&caller.user);
        return Some(ApiError::new(StatusCode::FORBIDDEN, message).into_status());
    }
    let etag = format!("\"{}\"", document.hash);
    let unchanged = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"))
    });
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type)], document.body.clone()).into_response()
    };
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if varies {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    Some(response)
}

struct Found<'d> {
    document: &'d Document,
    content_type: &'static str,
    /// Whether another `Accept` would get another document.
    varies: bool,
}

fn find<'d>(documents: &'d Documents, path: &'d str, headers: &HeaderMap) -> Option<Found<'d>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plain = |document| Found { document, content_type: JSON, varies: false };
    match parts.as_slice() {
        ["apis"] => {
            let (document, content_type) = match aggregated(headers) {
                Some(Aggregated::V2) => (&documents.aggregated_v2, AGGREGATED_V2),
                Some(Aggregated::V2Beta1) => (&documents.aggregated_v2beta1, AGGREGATED_V2BETA1),
                None => (&documents.groups, JSON),
            };
            Some(Found { document, content_type, varies: true })
        }
        ["apis", group] => documents.group.get(group).map(plain),
        ["apis", group, version] => documents.resources.get(&GroupVersion::of(group, version)?).map(plain),
        ["version"] => Some(plain(&documents.version)),
        ["openapi", "v2"] => Some(plain(&documents.openapi_v2)),
        ["openapi", "v3"] => Some(plain(&documents.openapi_v3_index)),
        ["openapi", "v3", "apis", group, version] => {
            documents.openapi_v3.get(&GroupVersion::of(group, version)?).map(plain)
        }
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregated {
    V2,
    V2Beta1,
}

const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Which document of everything is asked for, if one is preferred to the plain list. Of what can be
/// given, the first that `Accept` names counts.
fn aggregated(headers: &HeaderMap) -> Option<Aggregated> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, JSON | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<(&str, &str)> = parts.filter_map(|parameter| parameter.split_once('=')).collect();
        let is = |name: &str, value: &str| parameters.contains(&(name, value));
        if !parameters.iter().any(|(name, _)| *name == "as") {
            return None;
        }
        if media_type != JSON || !is("as", "APIGroupDiscoveryList") || !is("g", "apidiscovery.k8s.io") {
            continue;
        }
        if is("v", "v2") {
            return Some(Aggregated::V2);
        }
        if is("v", "v2beta1") {
            return Some(Aggregated::V2Beta1);
        }
    }
    None
}

/// Answers a path below `/openapi`, or `/version`.
pub(super) async fn document(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let found = answer(&app, &caller, &headers, &uri);
    let missing = || ApiError::not_found("the server could not find the requested resource").into_status();
    Api("discovery").answered(found.unwrap_or_else(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::kubernetes_apis::routes;
    use crate::testing::{Answer, NOW_MS, TestApp};
    use axum::body::Body;
    use axum::http::Request;
    use std::time::Duration;

    fn asked(accept: &[&str]) -> Option<Aggregated> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).expect("a header"));
        }
        aggregated(&headers)
    }

    #[test]
    fn the_first_document_that_can_be_given_is() {
        let v3 = "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList";
        for (accept, expected) in [
            (&[AGGREGATED_V2][..], Some(Aggregated::V2)),
            (&[AGGREGATED_V2BETA1, AGGREGATED_V2], Some(Aggregated::V2Beta1)),
            (&[v3, AGGREGATED_V2, "application/json"], Some(Aggregated::V2)),
            (&["application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"], Some(Aggregated::V2)),
            (
                &[
                    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, */*",
                ],
                None,
            ),
            (&["application/json", AGGREGATED_V2], None),
            (&[v3], None),
            (&["*/*"], None),
            (&["application/json;q=0.9;as=Table;v=v1;g=meta.k8s.io, application/json"], None),
            (&[], None),
        ] {
            assert_eq!(asked(accept), expected, "{accept:?}");
        }
        let joined = [AGGREGATED_V2, AGGREGATED_V2BETA1].join(",");
        assert_eq!(asked(&[&joined]), Some(Aggregated::V2));
    }

    async fn ask(server: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server.call(request.body(Body::empty()).expect("a request")).await
    }

    async fn server() -> TestApp {
        let server = TestApp::serving(routes());
        server.put(&[("__name__", "rps"), ("namespace", "shop"), ("pod", "p1")], NOW_MS, 1.0);
        let refreshed = server.app.catalog.refresh(server.store.as_ref(), Duration::from_secs(5), 100);
        refreshed.await.expect("refreshed");
        server
    }

    #[tokio::test]
    async fn an_unchanged_document_is_not_sent_again_and_a_changed_one_is() {
        let server = server().await;
        for path in
            ["/apis", "/openapi/v2", "/openapi/v3", "/apis/external.metrics.k8s.io/v1beta1", "/version"]
        {
            let first = ask(&server, path, &[("Accept", AGGREGATED_V2)]).await;
            assert_eq!(first.code, 200, "{path}");
            let etag = first.headers["etag"].to_str().expect("ASCII").to_owned();
            let again = ask(&server, path, &[("Accept", AGGREGATED_V2), ("If-None-Match", &etag)]).await;
            assert_eq!((again.code.as_u16(), again.body.as_str()), (304, ""), "{path}");
            assert_eq!(again.headers["etag"], etag);
            let other = ask(&server, path, &[("Accept", AGGREGATED_V2), ("If-None-Match", "\"x\"")]).await;
            assert_eq!(other.code, 200, "{path}");
        }
        let ask_groups = async |etag: &str| {
            ask(&server, "/apis", &[("Accept", AGGREGATED_V2), ("If-None-Match", etag)]).await
        };
        let etag = ask_groups("").await.headers["etag"].to_str().expect("ASCII").to_owned();
        server.put(&[("__name__", "more"), ("namespace", "shop"), ("pod", "p1")], NOW_MS, 1.0);
        let refreshed = server.app.catalog.refresh(server.store.as_ref(), Duration::from_secs(5), 100);
        refreshed.await.expect("refreshed");
        let changed = ask_groups(&etag).await;
        assert!(changed.code == 200 && changed.body.contains("\"more\""), "{changed:?}");
    }

    #[tokio::test]
    async fn the_document_is_of_the_type_that_was_asked() {
        let server = server().await;
        for (accept, kind, api_version) in [
            (AGGREGATED_V2, "APIGroupDiscoveryList", "apidiscovery.k8s.io/v2"),
            (AGGREGATED_V2BETA1, "APIGroupDiscoveryList", "apidiscovery.k8s.io/v2beta1"),
            ("application/json", "APIGroupList", "v1"),
        ] {
            let answer = ask(&server, "/apis", &[("Accept", accept)]).await;
            assert_eq!(answer.headers["content-type"], accept);
            assert_eq!(answer.headers["vary"], "Accept");
            let document = answer.json();
            assert_eq!((&document["kind"], &document["apiVersion"]), (&kind.into(), &api_version.into()));
        }
        let external = server.get("/apis/external.metrics.k8s.io/v1beta1").await.json();
        assert_eq!(external["resources"][0]["name"], "rps");
        let index = server.get("/openapi/v3").await.json();
        let paths = index["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), 3);
        for path in paths.values() {
            let url = path["serverRelativeURL"].as_str().expect("a URL");
            assert_eq!(server.get(url).await.json()["openapi"], "3.0.0", "{url}");
        }
        for path in ["/openapi/v1", "/openapi/v3/apis/apps/v1", "/apis/apps", "/apis/apps/v1"] {
            assert_eq!(server.get(path).await.code, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn who_may_not_read_learns_nothing() {
        let mut server = server().await;
        server.caller = Some(Caller { read: false, ..Caller::local() });
        for path in ["/apis", "/apis/custom.metrics.k8s.io", "/openapi/v2", "/version"] {
            assert_eq!(server.get(path).await.code, 403, "{path}");
        }
    }
}
