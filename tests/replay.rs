//! Every distinct request that a real kube-apiserver's aggregator, HPA and controllers were seen to
//! make, sent again as they made it: method, path, headers, HTTP version, server name, TLS 1.3 and
//! the front proxy's certificate.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use axum::middleware::from_fn_with_state;
use axum::{Json, Router};
use common::process::{Server, free_port, wait_until};
use common::tls::{Answer, Client, ClientIdentity, Http, SERVICE_NAME, ServerUnderTest, TestCa, Tls};
use hyper::{StatusCode, Version};
use lookback::clock::SystemClock;
use lookback::http::auth::{Caller, SecureAuth, secure_auth};
use lookback::http::identity::{FrontProxy, FrontProxySettings};
use lookback::http::server::Limits;
use lookback::kubernetes::certificates::ServingCertificate;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// One captured request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The version of the kube-apiserver that made it.
    kubernetes: String,
    http: String,
    client_cert_cn: String,
    sni: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

/// Of one connection only, so not the request's own.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

impl Row {
    fn all() -> Vec<Self> {
        include_str!("fixtures/kubernetes/aggregator-and-hpa-requests.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn http(&self) -> Http {
        match self.http.as_str() {
            "HTTP/1.1" => Http::V1,
            "HTTP/2" => Http::V2,
            other => panic!("{other}"),
        }
    }

    /// As recorded; `:authority` as `Host`.
    fn sent_headers(&self) -> Vec<(&str, &str)> {
        let named = self.headers.iter().map(|(name, value)| match name.as_str() {
            ":authority" => ("Host", value.as_str()),
            name => (name, value.as_str()),
        });
        named.filter(|(name, _)| !name.starts_with(':') && !is_hop_by_hop(name)).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    async fn send(&self, client: &Client, ca: &TestCa) -> Answer {
        let identity: ClientIdentity = ca.client(&self.client_cert_cn);
        let client = client.identity(&identity).tls(Tls::V1_3).http(self.http()).server_name(&self.sni);
        let answer = client.send(&self.method, &self.path, &self.sent_headers()).await;
        let version = if self.http() == Http::V2 { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(answer.version, version, "{self:?}");
        answer
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// What is written before the requests that ask for it.
const PUSHED: [(&str, &str); 6] = [
    ("/write-metrics/namespaces/default/services/web/svc_value", "\"1500m\""),
    ("/write-metrics/namespaces/default/services/web/svc_avg?labels=route%3Da", "\"1500m\""),
    ("/write-metrics/namespaces/default/deployments.apps/web/dep_metric", "\"1500m\""),
    ("/write-metrics/namespaces/default/ingresses.networking.k8s.io/main/ing_metric", "\"1500m\""),
    ("/write-metrics/namespaces/default/metrics/ns_metric", "\"1500m\""),
    ("/write-metrics/nodes/n1/node_metric", "\"1500m\""),
];

fn auth(dir: &Path, ca: &TestCa) -> SecureAuth {
    let ca_file = dir.join("requestheader-ca.crt");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let mut settings = FrontProxySettings::new(ca_file);
    settings.requestheader_allowed_names = vec!["front-proxy-client".to_owned()];
    SecureAuth::new(Some(Arc::new(FrontProxy::new(&settings).unwrap())), None, Arc::new(SystemClock))
}

/// The last segment of a path, without its query.
fn metric_of(path: &str) -> &str {
    path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap()
}

/// The built server with [`PUSHED`] written, and a client of its secure port. Its certificate is made
/// for the name by which the aggregator calls.
fn start_server(dir: &Path, ca: &TestCa) -> (Server, Client) {
    let ca_file = dir.join("requestheader-ca.crt");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let now_ms = common::store::now_ms();
    let certificate = ServingCertificate::self_made(dir, &[SERVICE_NAME.to_owned()], now_ms).unwrap();
    let server = Server::start(
        dir,
        &[
            "--bind-address=127.0.0.1",
            &format!("--secure-port={}", free_port()),
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-client-ca-file",
            ca_file.to_str().unwrap(),
        ],
    );
    for (path, body) in PUSHED {
        let reply = server.post(path, body);
        assert!(reply.is_success(), "{path}: {}", reply.text());
    }
    wait_until("discovery lists the metrics that were pushed", || {
        let listed = server.get("/apis/custom.metrics.k8s.io/v1beta1").text();
        PUSHED.iter().all(|(path, _)| listed.contains(metric_of(path)))
    });
    let client = Client {
        address: server.secure_address.unwrap(),
        server_certificate: certificate.ca().unwrap().clone(),
        server_name: SERVICE_NAME.to_owned(),
        identity: None,
        tls: Tls::V1_3,
        http: Http::V1,
    };
    (server, client)
}

async fn echo(caller: Caller) -> Json<Value> {
    Json(json!({ "user": caller.user, "groups": caller.groups, "read": caller.read }))
}

#[test]
fn the_capture_is_whole() {
    let rows = Row::all();
    assert_eq!(rows.len(), 57);
    assert!(rows.iter().any(|row| row.kubernetes == "1.20.2" && row.http() == Http::V2));
}

#[tokio::test]
async fn every_captured_request_is_let_in_as_its_user() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("requestheader CA"));
    let router = Router::new().fallback(echo).layer(from_fn_with_state(auth(dir.path(), &ca), secure_auth));
    let server = ServerUnderTest::start(router, dir.path(), Limits::default()).await;
    for row in Row::all() {
        let answer = row.send(&server.client, &ca).await;
        assert_eq!(answer.status, StatusCode::OK, "{row:?} {answer:?}");
        let caller = answer.json();
        assert_eq!(caller["user"].as_str(), row.header("X-Remote-User"), "{row:?}");
        let mut groups: Vec<&str> = row
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case("X-Remote-Group"))
            .map(|(_, v)| v.as_str())
            .collect();
        if !groups.contains(&"system:authenticated") {
            groups.push("system:authenticated");
        }
        assert_eq!(caller["groups"], json!(groups), "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_request_is_answered_by_the_contract() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("requestheader CA"));
    let (server, client) = start_server(dir.path(), &ca);
    for row in Row::all() {
        let answer = row.send(&client, &ca).await;
        Contract { row: &row, body: body(&answer), answer: &answer }.check();
    }
    assert!(server.terminate().success());
}

/// The body, which a caller that accepts gzip may have got so.
fn body(answer: &Answer) -> Value {
    assert_eq!(answer.headers["content-type"].to_str().unwrap().split(';').next(), Some("application/json"));
    if answer.headers.get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
        return answer.json();
    }
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(answer.body.as_ref()).read_to_end(&mut decoded).unwrap();
    serde_json::from_slice(&decoded).unwrap()
}

/// What the contract says of the answer to one row.
struct Contract<'a> {
    row: &'a Row,
    answer: &'a Answer,
    body: Value,
}

impl Contract<'_> {
    fn check(&self) {
        let (path, query) = self.row.path.split_once('?').unwrap_or((&self.row.path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            // Which objects carry a label only the cluster knows.
            _ if query.contains("labelSelector=app") => {
                self.is_status(StatusCode::NOT_IMPLEMENTED, "NotImplemented")
            }
            ["openapi", "v2"] => {
                assert_eq!((self.answer.status, &self.body["swagger"]), (StatusCode::OK, &json!("2.0")));
            }
            ["openapi", "v3"] => {
                assert_eq!(self.answer.status, StatusCode::OK);
                assert!(
                    self.body["paths"]["apis/custom.metrics.k8s.io/v1beta2"].is_object(),
                    "{}",
                    self.body
                );
            }
            ["apis"] => self.is_group_list(),
            ["apis", group, version] => self.is_resource_list(&format!("{group}/{version}")),
            [.., "services", "web", "absent_obj"] => {
                self.is_status(StatusCode::NOT_FOUND, "NotFound");
                let start = "the server could not find the metric absent_obj for services web: ";
                let message = self.body["message"].as_str().unwrap_or_default();
                assert!(message.starts_with(start), "{message}");
            }
            ["apis", group, version, "namespaces", "default", object @ ..] => {
                self.is_one_item(&format!("{group}/{version}"), object, query);
            }
            other => panic!("no expectation for {other:?}"),
        }
    }

    #[track_caller]
    fn has(&self, code: StatusCode, kind: &str) {
        assert_eq!(self.answer.status, code, "{:?}\n{}", self.row, self.body);
        assert_eq!(self.body["kind"], kind, "{:?}\n{}", self.row, self.body);
    }

    #[track_caller]
    fn is_status(&self, code: StatusCode, reason: &str) {
        self.has(code, "Status");
        assert_eq!(self.body["apiVersion"], "v1");
        assert_eq!(self.body["status"], "Failure");
        assert_eq!(self.body["reason"], reason);
        assert_eq!(self.body["code"], code.as_u16());
    }

    /// The aggregated document in the version that is preferred, to a caller that asks for it.
    fn is_group_list(&self) {
        assert_eq!(self.answer.status, StatusCode::OK);
        let aggregated = self.row.header("Accept").is_some_and(|accept| accept.contains("v=v2;"));
        let (list, names) = if aggregated {
            assert_eq!(self.body["apiVersion"], "apidiscovery.k8s.io/v2");
            assert_eq!(
                self.answer.headers["content-type"],
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            );
            ("items", "/metadata/name")
        } else {
            ("groups", "/name")
        };
        let groups = self.body[list].as_array().unwrap_or_else(|| panic!("{}", self.body));
        assert!(groups.iter().any(|group| group.pointer(names) == Some(&json!("custom.metrics.k8s.io"))));
    }

    fn is_resource_list(&self, group_version: &str) {
        self.has(StatusCode::OK, "APIResourceList");
        assert_eq!(self.body["groupVersion"], group_version);
        let resources = self.body["resources"].as_array().unwrap();
        let services = resources.iter().find(|resource| resource["name"] == "services/svc_value").unwrap();
        assert_eq!(services["namespaced"], true);
        assert_eq!(services["kind"], "MetricValueList");
        assert_eq!(services["verbs"], json!(["get"]));
    }

    fn is_one_item(&self, group_version: &str, object: &[&str], query: &str) {
        self.has(StatusCode::OK, "MetricValueList");
        assert_eq!(self.body["apiVersion"], group_version);
        assert_eq!(self.body["items"].as_array().map(Vec::len), Some(1), "{}", self.body);
        let item = &self.body["items"][0];
        let (kind, api_version, name, metric) = match object {
            ["services", name, metric] => ("Service", "v1", *name, *metric),
            ["deployments.apps", name, metric] => ("Deployment", "apps/v1", *name, *metric),
            ["ingresses.networking.k8s.io", name, metric] => {
                ("Ingress", "networking.k8s.io/v1", *name, *metric)
            }
            ["nodes", name, metric] => ("Node", "v1", *name, *metric),
            ["metrics", metric] => ("Namespace", "v1", "default", *metric),
            other => panic!("no expectation for {other:?}"),
        };
        let described = &item["describedObject"];
        assert_eq!(described["kind"], kind);
        assert_eq!(described["apiVersion"], api_version);
        assert_eq!(described["name"], name);
        assert_eq!(item["value"], "1500m");
        let timestamp: jiff::Timestamp = item["timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(timestamp.subsec_nanosecond(), 0);
        let (name, selector) = if group_version.ends_with("v1beta1") {
            (&item["metricName"], &item["selector"])
        } else {
            (&item["metric"]["name"], &item["metric"]["selector"])
        };
        assert_eq!(name, metric);
        let asked = query.contains("metricLabelSelector=route%3Da");
        assert_eq!(*selector, if asked { json!({"matchLabels": {"route": "a"}}) } else { Value::Null });
    }
}
