//! Who gets in on the secure port, and as whom, over real connections.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use common::tls::{Answer, Client, ClientIdentity, Http, ServerUnderTest, TestCa, Tls, Validity};
use hyper::{HeaderMap, StatusCode, Version};
use lookback::clock::SystemClock;
use lookback::http::auth::{Caller, SecureAuth, secure_auth};
use lookback::http::credentials::Credentials;
use lookback::http::identity::{FrontProxy, FrontProxySettings, Identity};
use lookback::http::server::Limits;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;

const PATH: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/p1/rps";
const USER: (&str, &str) = ("X-Remote-User", "alice");

async fn echo(caller: Caller, identity: Option<Extension<Identity>>, headers: HeaderMap) -> Json<Value> {
    let suspicious = |name: &str| name.starts_with("x-remote") || name == "authorization";
    let left: Vec<&str> = headers.keys().map(|name| name.as_str()).filter(|name| suspicious(name)).collect();
    let identity = identity.map(|Extension(identity)| identity).unwrap_or_default();
    Json(json!({
        "user": caller.user, "groups": caller.groups, "read": caller.read, "write": caller.write,
        "uid": identity.uid, "extra": identity.extra, "left": left,
    }))
}

struct Setup {
    ca: TestCa,
    server: ServerUnderTest,
    _dir: TempDir,
}

impl Setup {
    /// With a front proxy of CN `front-proxy-client`, and one static credential.
    async fn new() -> Self {
        Self::with(&["front-proxy-client"]).await
    }

    async fn with(allowed_names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = TestCa::new("requestheader CA");
        let ca_file = dir.path().join("ca.crt");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let credentials_file = dir.path().join("credentials.yaml");
        std::fs::write(
            &credentials_file,
            "credentials: [{token: good, name: reader}, {token: w, access: write, name: writer}]",
        )
        .unwrap();
        let mut settings = FrontProxySettings::new(ca_file);
        settings.requestheader_allowed_names = allowed_names.iter().map(|name| (*name).to_owned()).collect();
        let auth = SecureAuth::new(
            Some(Arc::new(FrontProxy::new(&settings).unwrap())),
            Some(Arc::new(Credentials::read(&credentials_file).unwrap())),
            Arc::new(SystemClock),
        );
        let router = Router::new()
            .route("/healthz", get(async || "ok"))
            .route("/livez", get(async || "ok"))
            .route("/readyz", get(async || "ok"))
            .fallback(any(echo))
            .layer(from_fn_with_state(auth, secure_auth));
        let server = ServerUnderTest::start(router, dir.path(), Limits::default()).await;
        Self { ca, server, _dir: dir }
    }

    fn client(&self) -> &Client {
        &self.server.client
    }

    fn front_proxy(&self) -> ClientIdentity {
        self.ca.client("front-proxy-client")
    }
}

fn assert_status(answer: &Answer, code: StatusCode, reason: &str) {
    assert_eq!(answer.status, code, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let body = answer.json();
    assert_eq!(body["kind"], "Status");
    assert_eq!(body["status"], "Failure");
    assert_eq!(body["reason"], reason);
    assert_eq!(body["code"], code.as_u16());
}

#[track_caller]
fn assert_unauthorized(answer: &Answer) {
    assert_status(answer, StatusCode::UNAUTHORIZED, "Unauthorized");
}

#[track_caller]
fn assert_anonymous(answer: &Answer) {
    assert_status(answer, StatusCode::FORBIDDEN, "Forbidden");
    assert!(answer.json()["message"].as_str().unwrap().contains("User \"system:anonymous\""), "{answer:?}");
}

#[tokio::test]
async fn a_front_proxy_is_believed_over_every_protocol() {
    let setup = Setup::new().await;
    for tls in [Tls::V1_2, Tls::V1_3] {
        for http in [Http::V1, Http::V1Unsaid, Http::V2] {
            let client = setup.client().identity(&setup.front_proxy()).tls(tls).http(http);
            let answer = client.get(PATH, &[USER]).await;
            assert_eq!(answer.status, StatusCode::OK, "{tls:?} {http:?} {answer:?}");
            let expected = if http == Http::V2 { Version::HTTP_2 } else { Version::HTTP_11 };
            assert_eq!(answer.version, expected);
            assert_eq!(
                answer.json(),
                json!({
                    "user": "alice", "groups": ["system:authenticated"], "read": true, "write": false,
                    "uid": null, "extra": {}, "left": [],
                })
            );
        }
    }
}

#[tokio::test]
async fn all_that_a_front_proxy_says_is_read_and_taken_out() {
    let setup = Setup::new().await;
    for http in [Http::V1, Http::V2] {
        let client = setup.client().identity(&setup.front_proxy()).http(http);
        let headers = [
            USER,
            ("X-Remote-Group", "devs"),
            ("X-Remote-Group", "system:authenticated"),
            ("X-Remote-Uid", "u-1"),
            ("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id", "JTI=1"),
            ("X-Remote-Extra-Scopes", "a"),
            ("X-Remote-Extra-Scopes", "b"),
            ("Authorization", "Bearer of-the-user"),
        ];
        let answer = client.get(PATH, &headers).await.json();
        assert_eq!(answer["groups"], json!(["devs", "system:authenticated"]));
        assert_eq!(answer["uid"], "u-1");
        let extra = json!({"authentication.kubernetes.io/credential-id": ["JTI=1"], "scopes": ["a", "b"]});
        assert_eq!(answer["extra"], extra);
        assert_eq!(answer["left"], json!([]));
    }
}

#[tokio::test]
async fn a_user_in_hundreds_of_groups_gets_in() {
    let setup = Setup::new().await;
    let groups: Vec<String> = (0..500).map(|n| format!("group-{n:0>60}")).collect();
    let mut headers = vec![USER];
    headers.extend(groups.iter().map(|group| ("X-Remote-Group", group.as_str())));
    for http in [Http::V1, Http::V2] {
        let answer = setup.client().identity(&setup.front_proxy()).http(http).get(PATH, &headers).await;
        assert_eq!(answer.status, StatusCode::OK, "{http:?}");
        assert_eq!(answer.json()["groups"].as_array().unwrap().len(), 501);
    }
}

#[tokio::test]
async fn a_front_proxys_anonymous_user_stays_unauthenticated() {
    let setup = Setup::new().await;
    let headers = [("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")];
    let answer = setup.client().identity(&setup.front_proxy()).get(PATH, &headers).await;
    assert_eq!(answer.json()["groups"], json!(["system:unauthenticated"]));
}

#[tokio::test]
async fn a_front_proxy_without_a_user_is_not_authenticated() {
    let setup = Setup::new().await;
    let client = setup.client().identity(&setup.front_proxy());
    for headers in [&[][..], &[("X-Remote-User", "")], &[("X-Remote-Group", "system:masters")]] {
        assert_unauthorized(&client.get(PATH, headers).await);
    }
}

#[tokio::test]
async fn nobody_is_anonymous_whatever_the_headers_say() {
    let setup = Setup::new().await;
    for http in [Http::V1, Http::V2] {
        let client = setup.client().http(http);
        for headers in [&[][..], &[USER, ("X-Remote-Group", "system:masters")]] {
            let answer = client.get(PATH, headers).await;
            assert_anonymous(&answer);
            assert_eq!(
                answer.json()["message"],
                "pods.custom.metrics.k8s.io \"p1\" is forbidden: User \"system:anonymous\" cannot get resource \
                 \"pods/rps\" in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
            );
            let answer = client.get("/apis", headers).await;
            assert_anonymous(&answer);
            let message = "forbidden: User \"system:anonymous\" cannot get path \"/apis\"";
            assert_eq!(answer.json()["message"], message);
        }
    }
}

#[tokio::test]
async fn wrong_certificates_are_not_authenticated_whatever_the_headers_say() {
    let setup = Setup::new().await;
    let client_auth = || ExtendedKeyUsagePurpose::ClientAuth;
    let name = "front-proxy-client";
    let wrong = [
        ("another CA", TestCa::new("another CA").client(name)),
        ("a CA of the same name", TestCa::new("requestheader CA").client(name)),
        ("wrong name", setup.ca.client("alice")),
        ("no name", setup.ca.issue(&[], Validity::Now, client_auth())),
        ("two names", setup.ca.issue(&["alice", name], Validity::Now, client_auth())),
        ("two names, the other way", setup.ca.issue(&[name, "alice"], Validity::Now, client_auth())),
        ("expired", setup.ca.issue(&[name], Validity::Expired, client_auth())),
        ("not yet valid", setup.ca.issue(&[name], Validity::NotYet, client_auth())),
        ("a server's", setup.ca.issue(&[name], Validity::Now, ExtendedKeyUsagePurpose::ServerAuth)),
    ];
    for (what, identity) in &wrong {
        for tls in [Tls::V1_2, Tls::V1_3] {
            for http in [Http::V1, Http::V2] {
                let client = setup.client().identity(identity).tls(tls).http(http);
                let answer = client.get(PATH, &[USER, ("X-Remote-Group", "system:masters")]).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what} {tls:?} {http:?}");
                assert_unauthorized(&answer);
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let setup = Setup::new().await;
    let stolen = ClientIdentity { key_der: setup.ca.client("x").key_der, ..setup.front_proxy() };
    for tls in [Tls::V1_2, Tls::V1_3] {
        let outcome = setup.client().identity(&stolen).tls(tls).try_send("GET", PATH, &[USER]).await;
        assert!(outcome.is_err(), "{tls:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_resumed_session_has_the_identity_of_the_first() {
    let setup = Setup::new().await;
    let right = setup.client().identity(&setup.front_proxy());
    let wrong = setup.client().identity(&setup.ca.client("alice"));
    for tls in [Tls::V1_2, Tls::V1_3] {
        for (client, status) in [(&right, StatusCode::OK), (&wrong, StatusCode::UNAUTHORIZED)] {
            let client = client.tls(tls);
            let config = Arc::new(client.config());
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let stream = TcpStream::connect(client.address).await.unwrap();
                let stream = client.handshake_with(config.clone(), stream).await.unwrap();
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{tls:?}");
                let answer = client.open_on(stream).await.unwrap().send("GET", PATH, &[USER]).await.unwrap();
                assert_eq!(answer.status, status, "{tls:?} {kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn without_allowed_names_any_certificate_of_the_ca_is_a_front_proxys() {
    let setup = Setup::with(&[]).await;
    let answer = setup.client().identity(&setup.ca.client("whoever")).get(PATH, &[USER]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let other = TestCa::new("another CA").client("whoever");
    assert_unauthorized(&setup.client().identity(&other).get(PATH, &[USER]).await);
}

#[tokio::test]
async fn credentials_must_be_known() {
    let setup = Setup::new().await;
    for authorization in ["Bearer unknown", "Basic YTpi", "Basic ?", "Digest x", "x"] {
        assert_unauthorized(&setup.client().get(PATH, &[("Authorization", authorization)]).await);
    }
    // Bytes that are no text.
    assert_unauthorized(&setup.client().get(PATH, &[("Authorization", "Bearer ü")]).await);
    let good = ("Authorization", "Bearer good");
    let answer = setup.client().get(PATH, &[good, USER, ("X-Remote-Group", "system:masters")]).await;
    assert_eq!(
        answer.json(),
        json!({
            "user": "reader", "groups": ["system:authenticated"], "read": true, "write": false,
            "uid": null, "extra": {}, "left": [],
        })
    );
    let answer = setup.client().get(PATH, &[("Authorization", "Bearer w")]).await;
    assert_status(&answer, StatusCode::FORBIDDEN, "Forbidden");
    assert!(answer.json()["message"].as_str().unwrap().contains("User \"writer\""));
}

#[tokio::test]
async fn probes_need_no_identity_and_only_exactly_these() {
    let setup = Setup::new().await;
    let wrong = setup.client().identity(&TestCa::new("another CA").client("x"));
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(setup.client().get(path, &[]).await.status, StatusCode::OK);
        assert_eq!(wrong.get(path, &[]).await.status, StatusCode::OK);
    }
    for path in ["/healthz/", "/healthz/ping", "//healthz", "/health%7A", "/HEALTHZ", "/metrics", "/version"]
    {
        assert_anonymous(&setup.client().get(path, &[]).await);
    }
}

#[tokio::test]
async fn a_front_proxys_text_must_be_text() {
    let setup = Setup::new().await;
    let client = setup.client().identity(&setup.front_proxy());
    assert_eq!(client.get(PATH, &[("X-Remote-User", "Zoë")]).await.json()["user"], "Zoë");
}
