//! Engines and Prometheus servers that want TLS, client certificates, passwords and tokens: Debian's real Prometheus
//! with a web configuration of its own, as the store's engine and behind rules; tenants and tokens as they arrive.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::engine::{figure, latest, push, wait_until_sent};
use common::process::{Process, Server, free_port, wait_until};
use common::prometheus::{self, Prometheus};
use common::proxy::Proxy;
use common::store::now_ms;
use common::tls::TestCa;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// bcrypt of `secret`, as cheap as it may be.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A rule over what is pushed.
const RULES: &str = r#"
rules:
- seriesQuery: 'load{namespace!="",pod!=""}'
  resources: {template: "<<.Resource>>"}
  name: {as: "load_by_rule"}
  metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
"#;

/// Files of a Prometheus that is spoken to over TLS, by clients with a certificate and a password.
struct Guarded {
    dir: tempfile::TempDir,
    address: SocketAddr,
    _process: Process,
}

impl Guarded {
    /// `None`: there is no Prometheus.
    fn start() -> Option<Self> {
        if !prometheus::is_there("prometheus") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let (ca, other) = (TestCa::new("engines"), TestCa::new("others"));
        put("ca.pem", ca.pem());
        put("other-ca.pem", other.pem());
        let server = ca.server(&["127.0.0.1"]);
        put("server.pem", &server.certificate_pem());
        put("server-key.pem", &server.key_pem());
        for (name, ca) in [("client", &ca), ("stranger", &other)] {
            let client = ca.client("lookback");
            put(&format!("{name}.pem"), &client.certificate_pem());
            put(&format!("{name}-key.pem"), &client.key_pem());
        }
        put("password", "lookback:secret\n");
        put("wrong-password", "lookback:guessed\n");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let web = format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  \
             client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users: {{lookback: '{HASH}'}}\n",
            at("server.pem"),
            at("server-key.pem"),
            at("ca.pem")
        );
        put("web.yml", &web);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let web = format!("--web.config.file={}", at("web.yml"));
        let args = ["--web.enable-remote-write-receiver", "--log.level=error", &web];
        let process = Prometheus::spawn(dir.path(), address, "{}\n", &args);
        Some(Self { dir, address, _process: process })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A flag with one of the files.
    fn flag(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.path(name).display())
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

/// What readiness says of the engine.
fn ready(server: &Server) -> String {
    server.get("/readyz?verbose").text()
}

fn start(data: &Path, url: &str, flags: &[String]) -> Server {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let first = ["--store", "prometheus", "--store-url", url, "--log-level", "error"];
    Server::start(data, &[&first[..], &flags].concat())
}

#[test]
fn an_engine_is_believed_by_its_ca_and_told_who_comes() {
    let Some(engine) = Guarded::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let flags = |ca: &str, client: &str, password: &str| {
        [
            engine.flag("--store-ca-file", ca),
            engine.flag("--store-client-cert-file", &format!("{client}.pem")),
            engine.flag("--store-client-key-file", &format!("{client}-key.pem")),
            engine.flag("--store-basic-auth-file", password),
        ]
    };
    // One after another is wrong: nothing is sent, nothing is lost, and readiness says why.
    for (ca, client, password, reason) in [
        ("other-ca.pem", "client", "password", "certificate"),
        ("ca.pem", "stranger", "password", "wait for the engine"),
        ("ca.pem", "client", "wrong-password", "401"),
    ] {
        let server = start(data.path(), &engine.url(), &flags(ca, client, password));
        assert_eq!(push(&server, "web-0", 5), 200);
        wait_until("it is told", || ready(&server).contains(reason));
        assert!(figure(&server, "lookback_outbox_samples").unwrap() > 0);
        assert!(!ready(&server).contains("secret"), "{}", ready(&server));
        assert!(server.terminate().success());
    }
    let server = start(data.path(), &engine.url(), &flags("ca.pem", "client", "wrong-password"));
    assert_eq!(push(&server, "web-1", 6), 200);
    // The file is read at each request: a mended one needs no restart.
    std::fs::write(engine.path("wrong-password"), "lookback:secret").unwrap();
    wait_until_sent(&server);
    assert_eq!((latest(&server, "web-0"), latest(&server, "web-1")), ("5".to_owned(), "6".to_owned()));
    let start_s = now_ms() / 1_000 - 600;
    let range =
        server.get(&format!("/api/v1/query_range?query=load&start={start_s}&end={}&step=5", start_s + 900));
    assert_eq!(range.json()["data"]["result"].as_array().unwrap().len(), 2, "{}", range.text());
    assert_eq!(figure(&server, "lookback_outbox_dead_letter_samples"), Some(0));
}

#[test]
fn rules_look_in_a_prometheus_that_wants_tls_a_certificate_and_a_password() {
    let Some(engine) = Guarded::start() else { return };
    let (writing, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = start(
        writing.path(),
        &engine.url(),
        &[
            engine.flag("--store-ca-file", "ca.pem"),
            engine.flag("--store-client-cert-file", "client.pem"),
            engine.flag("--store-client-key-file", "client-key.pem"),
            engine.flag("--store-basic-auth-file", "password"),
        ],
    );
    assert_eq!(push(&writer, "web-0", 7), 200);
    wait_until_sent(&writer);
    let config = engine.path("rules.yaml");
    std::fs::write(&config, RULES).unwrap();
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/load_by_rule";
    let adapter = |ca: &str, authorization: &str| {
        let flags = [
            format!("--prometheus-url={}", engine.url()),
            format!("--config={}", config.display()),
            engine.flag("--prometheus-ca-file", ca),
            engine.flag("--prometheus-client-tls-cert-file", "client.pem"),
            engine.flag("--prometheus-client-tls-key-file", "client-key.pem"),
            format!("--prometheus-header=Authorization=Basic {authorization}"),
            "--metrics-relist-interval=1s".to_owned(),
        ];
        Server::start(data.path(), &flags.each_ref().map(String::as_str))
    };
    // base64 of lookback:secret, and of lookback:guessed
    let (right, wrong) = ("bG9va2JhY2s6c2VjcmV0", "bG9va2JhY2s6Z3Vlc3NlZA==");
    for (ca, authorization) in [("other-ca.pem", right), ("ca.pem", wrong)] {
        let server = adapter(ca, authorization);
        wait_until("a relist fails", || {
            figure(&server, "lookback_rules_relist_failures_total").is_some_and(|failed| failed > 0)
        });
        assert_ne!(server.get(path).status, 200);
        assert!(server.terminate().success());
    }
    let server = adapter("ca.pem", right);
    wait_until("the rule is answered", || server.get(path).status == 200);
    let answer = server.get(path).json();
    assert_eq!(answer["items"][0]["value"], "7", "{answer}");
}

/// A Lookback that lets in who has a token: a Prometheus API whose callers are known by one.
fn with_token(data: &Path, dir: &Path) -> Server {
    let credentials = "credentials: [{name: another, token: a-token-of-thirty-two-bytes-and-more}]";
    let file = dir.join("credentials.yaml");
    std::fs::write(&file, credentials).unwrap();
    let flag = format!("--credentials-file={}", file.display());
    Server::start(data, &[&flag, "--log-level", "error"])
}

#[test]
fn a_token_and_a_tenant_arrive_with_every_request() {
    let dirs: [tempfile::TempDir; 4] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let engine = with_token(dirs[0].path(), dirs[1].path());
    let proxy = Proxy::start(engine.address);
    let token = dirs[1].path().join("token");
    std::fs::write(&token, "wrong").unwrap();
    let flags = [
        format!("--store-bearer-token-file={}", token.display()),
        "--store-tenant=team-a".to_owned(),
        "--store-header=X-Team: blue".to_owned(),
    ];
    let server = start(dirs[2].path(), &format!("http://{}", proxy.address), &flags);
    assert_eq!(push(&server, "web-0", 9), 200);
    wait_until("a wrong token is told", || ready(&server).contains("401"));
    std::fs::write(&token, "a-token-of-thirty-two-bytes-and-more\n").unwrap();
    wait_until_sent(&server);
    let start_s = now_ms() / 1_000 - 60;
    let range =
        server.get(&format!("/api/v1/query_range?query=load&start={start_s}&end={}&step=5", start_s + 120));
    assert_eq!(range.json()["data"]["result"].as_array().unwrap().len(), 1, "{}", range.text());
    let heads = proxy.heads.lock().unwrap().clone();
    assert!(heads.len() > 3 && heads.iter().any(|head| head.starts_with("post /api/v1/write ")), "{heads:?}");
    for head in &heads {
        for line in ["x-scope-orgid: team-a", "x-team: blue"] {
            assert!(head.lines().any(|found| found == line), "{line} is missing: {head}");
        }
    }

    // The same server behind rules, by --prometheus-token-file.
    let config = dirs[1].path().join("rules.yaml");
    std::fs::write(&config, RULES).unwrap();
    let flags = [
        format!("--prometheus-url=http://{}", proxy.address),
        format!("--config={}", config.display()),
        format!("--prometheus-token-file={}", token.display()),
        "--prometheus-header=X-Scope-OrgID=team-b".to_owned(),
        "--metrics-relist-interval=1s".to_owned(),
        "--log-level=error".to_owned(),
    ];
    let before = heads.len();
    let adapter = Server::start(dirs[3].path(), &flags.each_ref().map(String::as_str));
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/web-0/load_by_rule";
    wait_until("the rule is answered", || adapter.get(path).status == 200);
    assert_eq!(adapter.get(path).json()["items"][0]["value"], "9");
    let heads = proxy.heads.lock().unwrap().clone();
    assert!(heads[before..].iter().any(|head| head.lines().any(|line| line == "x-scope-orgid: team-b")));
}
