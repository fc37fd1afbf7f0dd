//! `kubectl top` and the Python client's CustomObjectsApi read what the built server collected from kubelets over real
//! HTTPS: by name, by selectors, and after `kill -9` while no kubelet answers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubelets::{Container, Kubelets, Telling};
use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes};
use common::manifests::tool;
use common::process::{Server, free_port, run_to_end, wait_until};
use common::tls::TestCa;
use lookback::kubernetes::certificates::kept_ca_path;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

const TOKEN: &str = "of-lookback";
const USER_TOKEN: &str = "of-alice";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods";

fn start(dir: &Path, kubernetes: &FakeKubernetes, kubelets: &Kubelets) -> Server {
    let flags = [
        format!("--kubeconfig={}", kubernetes.kubeconfig(TOKEN).display()),
        format!("--kubelet-certificate-authority={}", kubelets.ca().display()),
        "--collect-usage".to_owned(),
        "--metric-resolution=1s".to_owned(),
        "--kubelet-use-node-status-port".to_owned(),
        "--runtime-config=metrics.k8s.io/v1beta1=true".to_owned(),
        "--trust-loopback".to_owned(),
        format!("--secure-port={}", free_port()),
        "--bind-address=127.0.0.1".to_owned(),
        // What is asked for after the kill is from before it.
        "--freshness=10m".to_owned(),
    ];
    Server::start(dir, &flags.each_ref().map(String::as_str))
}

fn run(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = run_to_end(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn url(server: &Server) -> String {
    format!("https://localhost:{}", server.secure_address.unwrap().port())
}

fn kubectl(program: &Path, dir: &Path, server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", dir).env_remove("KUBECONFIG");
    command.arg(format!("--server={}", url(server))).arg(format!("--token={USER_TOKEN}"));
    command.arg(format!("--certificate-authority={}", kept_ca_path(&dir.join("data")).display()));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `kubectl top pods` of a namespace, each line in words.
fn top(program: &Path, dir: &Path, server: &Server, more: &[&str]) -> Vec<Vec<String>> {
    let arguments = [&["top", "pods", "-n", "shop", "--no-headers"], more].concat();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    run(kubectl(program, dir, server, &arguments)).lines().map(words).collect()
}

/// What it tells of a pod: its memory exactly, and a quarter of a core to the few milli that clocks allow.
#[track_caller]
fn check(lines: &[Vec<String>], expected: &[&str]) {
    let pods: Vec<&str> = lines.iter().map(|words| words[0].as_str()).collect();
    assert_eq!(pods, expected);
    for words in lines {
        let milli: u32 = words[words.len() - 2].trim_end_matches('m').parse().unwrap();
        assert!((245..=256).contains(&milli) && words[words.len() - 1] == "100Mi", "{words:?}");
    }
}

const PYTHON: &str = r#"
import sys
from kubernetes import client

configuration = client.Configuration(host=sys.argv[1])
configuration.ssl_ca_cert = sys.argv[2]
configuration.api_key = {"authorization": "Bearer " + sys.argv[3]}
with client.ApiClient(configuration) as api:
    objects = client.CustomObjectsApi(api)
    def pods(**selectors):
        answer = objects.list_namespaced_custom_object("metrics.k8s.io", "v1beta1", "shop", "pods", **selectors)
        return [item["metadata"]["name"] for item in answer["items"]]
    assert pods() == ["web-0", "web-1"], pods()
    assert pods(field_selector="metadata.name=web-1") == ["web-1"]
    assert pods(field_selector="metadata.name!=web-1,metadata.namespace=shop") == ["web-0"]
    assert pods(label_selector="tier=front") == ["web-0"]
    one = objects.get_namespaced_custom_object("metrics.k8s.io", "v1beta1", "shop", "pods", "web-0")
    assert [c["name"] for c in one["containers"]] == ["app"] and one["window"] and one["timestamp"], one
    assert one["containers"][0]["usage"]["memory"] == "100Mi", one
    nodes = objects.list_cluster_custom_object("metrics.k8s.io", "v1beta1", "nodes")
    assert [node["metadata"]["name"] for node in nodes["items"]] == ["n1"], nodes
    try:
        pods(field_selector="status.phase=Running")
        raise SystemExit("a field that is not there was taken")
    except client.ApiException as error:
        assert error.status == 400 and "use metadata.name" in error.body, error.body
print("answered")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_and_the_python_client_read_what_kubelets_told_also_after_a_kill() {
    let Some(program) = tool("kubectl") else { return };
    let kubernetes = FakeKubernetes::start().await;
    let ca = TestCa::new("user CA");
    kubernetes.put(
        AUTHENTICATION_CONFIG,
        json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"client-ca-file": ca.pem()}}),
    );
    kubernetes.put_token(USER_TOKEN, "alice", &["system:authenticated"]);
    kubernetes.allow(|spec| spec["user"] == "alice" && spec["resourceAttributes"]["group"] != "");
    let kubelets = Kubelets::start(&["n1".to_owned()], TOKEN).await;
    kubernetes.put("/api/v1/nodes/n1", kubelets.all[0].node());
    for (pod, tier) in [("web-0", "front"), ("web-1", "back")] {
        let labels = json!({"metadata": {"name": pod, "namespace": "shop", "labels": {"tier": tier}}});
        kubernetes.put(&format!("/api/v1/namespaces/shop/pods/{pod}"), labels);
    }
    let containers = ["web-0", "web-1"].map(|pod| Container::new("shop", pod, "app", 0.25, 100 << 20));
    kubelets.all[0].tells(Telling::Containers(containers.to_vec()));
    let dir = tempfile::tempdir().unwrap();
    tokio::task::block_in_place(|| {
        let data = dir.path().join("data");
        let server = start(&data, &kubernetes, &kubelets);
        wait_until("both pods have usage", || {
            let output = run_to_end(&mut kubectl(&program, dir.path(), &server, &["get", "--raw", PODS]));
            let said = String::from_utf8_lossy(&output.stdout);
            said.contains("\"web-0\"") && said.contains("\"web-1\"")
        });
        let top = |server: &Server, more: &[&str]| top(&program, dir.path(), server, more);
        check(&top(&server, &[]), &["web-0", "web-1"]);
        check(&top(&server, &["--containers"]), &["web-0", "web-1"]);
        check(&top(&server, &["web-1"]), &["web-1"]);
        check(&top(&server, &["--selector=tier=back"]), &["web-1"]);
        check(&top(&server, &["--field-selector=metadata.name=web-0"]), &["web-0"]);
        let python = tool("python").filter(|python| {
            Command::new(python).args(["-c", "import kubernetes"]).output().unwrap().status.success()
        });
        match python {
            None => println!("SKIPPED: the Python package kubernetes is missing: tests/venv.sh installs it"),
            Some(python) => {
                let mut command = Command::new(python);
                command.args(["-c", PYTHON, &url(&server)]).arg(kept_ca_path(&data)).arg(USER_TOKEN);
                assert_eq!(run(command), "answered\n");
            }
        }
        server.kill9();
        kubelets.all[0].tells(Telling::Hang);
        let server = start(&data, &kubernetes, &kubelets);
        check(&top(&server, &[]), &["web-0", "web-1"]);
        assert!(server.terminate().success());
    });
}
