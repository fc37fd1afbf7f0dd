//! Who gets in on the plain port.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, StatusCode};
use lookback::http::auth::{Caller, PlainAuth, plain_auth};
use lookback::http::credentials::Credentials;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

const PROBES: [&str; 4] = ["/health", "/livez", "/-/healthy", "/-/ready"];

fn router(file: Option<&str>) -> Router {
    let credentials = file.map(|text| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.yaml");
        std::fs::write(&path, text).unwrap();
        Arc::new(Credentials::read(&path).unwrap())
    });
    let whoami = async |caller: Caller, headers: HeaderMap| {
        assert!(!headers.contains_key("authorization"));
        caller.user
    };
    let probes = PROBES.iter().fold(Router::new(), |router, path| router.route(path, get(async || "ok")));
    probes.fallback(whoami).layer(from_fn_with_state(PlainAuth::new(credentials), plain_auth))
}

async fn ask(router: &Router, path: &str, authorization: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get(path);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

const FILE: &str = "credentials: [{token: good, name: collector}, {username: u, password: p}]";

#[tokio::test]
async fn without_a_file_anyone_is_local() {
    let (status, _, body) = ask(&router(None), "/api/v1/metrics", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "local"));
}

#[tokio::test]
async fn known_credentials_get_in() {
    let router = router(Some(FILE));
    let (status, _, body) = ask(&router, "/write-metrics", Some("Bearer good")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "collector"));
    let (status, _, body) = ask(&router, "/write-metrics", Some("Basic dTpw")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "u"));
}

#[tokio::test]
async fn others_are_told_how_in_the_dialect_of_the_path() {
    let router = router(Some(FILE));
    for authorization in [None, Some("Bearer bad"), Some("Basic dTpx")] {
        for path in [
            "/api/v1/metrics",
            "/apis/custom.metrics.k8s.io/v1beta2",
            "/write-metrics",
            "/metrics",
            "/healthy",
        ] {
            let (status, headers, body) = ask(&router, path, authorization).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            let how: Vec<_> =
                headers.get_all("www-authenticate").iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(how, ["Bearer realm=\"lookback\"", "Basic realm=\"lookback\""]);
            let body: Value = serde_json::from_str(&body).unwrap();
            if path.starts_with("/api/") {
                assert_eq!((&body["status"], &body["errorType"]), (&"error".into(), &"unauthorized".into()));
            } else {
                assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"Unauthorized".into()));
            }
        }
    }
}

#[tokio::test]
async fn probes_need_no_credentials() {
    let router = router(Some(FILE));
    for authorization in [None, Some("Bearer bad")] {
        for path in PROBES {
            assert_eq!(ask(&router, path, authorization).await.0, StatusCode::OK);
        }
    }
}

#[test]
fn a_refused_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials.yaml");
    std::fs::write(&path, "credentials:\n  - token: x\n    acess: read\n").unwrap();
    let error = Credentials::read(&path).unwrap_err().to_string();
    assert!(error.contains("credentials.yaml, line 3: "), "{error}");
    let error = Credentials::read(&dir.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent: "), "{error}");
}

#[tokio::test]
async fn without_a_file_pages_of_other_sites_are_kept_out() {
    let router = router(None);
    let ask = async |origin: Option<&str>| {
        let mut request = Request::post("/write-metrics").header("Host", "127.0.0.1:8080");
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    assert_eq!(ask(None).await, StatusCode::OK);
    assert_eq!(ask(Some("http://127.0.0.1:8080")).await, StatusCode::OK);
    for origin in ["https://example.org", "http://127.0.0.1:9090", "null", ""] {
        assert_eq!(ask(Some(origin)).await, StatusCode::FORBIDDEN, "{origin}");
    }
}
