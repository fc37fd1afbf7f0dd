//! Kubernetes' own clients against the built server: kubectl, and the Python client.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::tool;
use common::process::{Server, free_port, run_to_end, wait_until};
use lookback::kubernetes::certificates::kept_ca_path;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const TOKEN: &str = "of-a-client";

/// A server with a value of a pod and one of a namespace, and where its secure port is.
fn start() -> (TempDir, Server, String, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials.yaml");
    std::fs::write(&credentials, format!("credentials: [{{token: {TOKEN}}}]")).unwrap();
    let data = dir.path().join("data");
    let flags = [
        format!("--credentials-file={}", credentials.display()),
        format!("--secure-port={}", free_port()),
        "--freshness=1h".to_owned(),
    ];
    let server = Server::start(&data, &flags.each_ref().map(String::as_str));
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    for path in ["namespaces/shop/pods/web-0/rps", "namespaces/shop/metrics/queue"] {
        let path = format!("/write-metrics/{path}");
        assert_eq!(server.client().send("POST", &path, &headers, b"\"1500m\"").unwrap().status, 200);
    }
    wait_until("discovery lists both", || {
        let path = "/apis/custom.metrics.k8s.io/v1beta1";
        let listed = server.client().send("GET", path, &headers, b"").unwrap().text();
        listed.contains("pods/rps") && listed.contains("namespaces/queue")
    });
    let url = format!("https://localhost:{}", server.secure_address.unwrap().port());
    let ca = kept_ca_path(&data);
    (dir, server, url, ca)
}

fn run(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = run_to_end(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn kubectl_lists_and_reads() {
    let Some(program) = tool("kubectl") else { return };
    let (dir, server, url, ca) = start();
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env("HOME", dir.path()).env_remove("KUBECONFIG");
        command.arg(format!("--server={url}")).arg(format!("--token={TOKEN}"));
        command.arg(format!("--certificate-authority={}", ca.display())).args(arguments);
        run(command)
    };
    let versions = kubectl(&["api-versions"]);
    for version in
        ["custom.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"]
    {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    let raw = |path: &str| -> serde_json::Value {
        serde_json::from_str(&kubectl(&["get", "--raw", path])).unwrap()
    };
    let pods = raw("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/rps");
    assert_eq!(pods["items"][0]["value"], "1500m");
    let external = raw("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue");
    assert_eq!(external["items"][0]["value"], "1500m");
    assert_eq!(raw("/openapi/v2")["swagger"], "2.0");
    assert!(server.terminate().success());
}

const PYTHON: &str = r#"
import sys
from kubernetes import client

configuration = client.Configuration(host=sys.argv[1])
configuration.ssl_ca_cert = sys.argv[2]
configuration.api_key = {"authorization": "Bearer " + sys.argv[3]}
with client.ApiClient(configuration) as api:
    groups = [group.name for group in client.ApisApi(api).get_api_versions().groups]
    assert groups == ["custom.metrics.k8s.io", "external.metrics.k8s.io"], groups
    assert client.VersionApi(api).get_code().git_version.startswith("v")
    objects = client.CustomObjectsApi(api)
    queue = objects.get_namespaced_custom_object("custom.metrics.k8s.io", "v1beta2", "shop", "metrics", "queue")
    assert [item["value"] for item in queue["items"]] == ["1500m"], queue
    external = objects.list_namespaced_custom_object("external.metrics.k8s.io", "v1beta1", "shop", "queue")
    assert [item["metricName"] for item in external["items"]] == ["queue"], external
    try:
        objects.get_namespaced_custom_object("custom.metrics.k8s.io", "v1beta2", "shop", "metrics", "absent")
        raise SystemExit("an absent metric was found")
    except client.ApiException as error:
        assert error.status == 404 and "could not find the metric absent" in error.body, error.body
print("answered")
"#;

#[test]
fn the_python_client_lists_and_reads() {
    let Some(python) = tool("python") else { return };
    let has_client = Command::new(&python).args(["-c", "import kubernetes"]).output().unwrap();
    if !has_client.status.success() {
        println!("SKIPPED: the Python package kubernetes is missing: tests/venv.sh installs it from PyPI");
        return;
    }
    let (_dir, server, url, ca) = start();
    let mut command = Command::new(&python);
    command.args(["-c", PYTHON, &url]).arg(&ca).arg(TOKEN);
    assert_eq!(run(command), "answered\n");
    assert!(server.terminate().success());
}
