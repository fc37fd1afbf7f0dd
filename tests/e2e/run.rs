//! What one run puts into the cluster, and takes away again.

#![allow(unreachable_pub, missing_docs, reason = "a part of a test")]

use super::cases::{CONTAINER, Case, Found, REPLICAS_MAX, Told};
use super::kubernetes::{Kubernetes, condition};
use super::targets::PORT_NAME;
use crate::common::fake_kubelets::Kubelets;
use crate::common::manifests::{objects, root};
use crate::common::process::Server;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Group, version and priority of an APIService.
pub type Registration = (&'static str, &'static str, i64);

pub const REGISTRATIONS: [Registration; 3] = [
    ("custom.metrics.k8s.io", "v1beta1", 100),
    ("custom.metrics.k8s.io", "v1beta2", 200),
    ("external.metrics.k8s.io", "v1beta1", 100),
];

/// What pods and nodes use.
pub const USAGE: Registration = ("metrics.k8s.io", "v1beta1", 100);

pub fn registration(version: &str, group: &str) -> String {
    format!("/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}")
}

/// Who owns one of these already, if anyone does.
pub async fn owner(kubernetes: &Kubernetes, of: &[Registration]) -> Option<String> {
    for (group, version, _) in of {
        if let Ok(found) = kubernetes.get(&registration(version, group)).await {
            return Some(format!("{version}.{group} of {}", found["spec"]["service"]));
        }
    }
    None
}

/// What everything of this run is made of.
pub struct Run {
    pub kubernetes: Kubernetes,
    pub kubeconfig: PathBuf,
    pub namespace: String,
    pub node: String,
    pub node_is_ours: bool,
    /// The kubelet of our own node, where this cluster's usage is for Lookback to tell.
    pub kubelet: Option<Kubelets>,
    pub host: String,
    pub port: u16,
    pub directory: tempfile::TempDir,
    /// Roles and bindings to take away again.
    pub granted: Mutex<Vec<String>>,
}

impl Run {
    pub fn start_lookback(&self, scrape_config: Option<&Path>) -> Server {
        let bind = if self.host == "localhost" { "127.0.0.1" } else { "0.0.0.0" };
        let mut args = vec![
            format!("--kubeconfig={}", self.directory.path().join("kubeconfig").display()),
            format!("--bind-address={bind}"),
            format!("--secure-port={}", self.port),
            "--service=lookback".to_owned(),
            "--ca-secret=lookback-shared-ca".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        if let Some(kubelet) = &self.kubelet {
            args.extend([
                "--runtime-config=metrics.k8s.io/v1beta1=true".to_owned(),
                "--collect-usage".to_owned(),
                "--metric-resolution=2s".to_owned(),
                "--kubelet-use-node-status-port".to_owned(),
                format!("--kubelet-certificate-authority={}", kubelet.ca().display()),
            ]);
        }
        if let Some(file) = scrape_config {
            args.push(format!("--scrape-config={}", file.display()));
            args.extend(["--scrape-pods", "--scrape-pods-interval=1s"].map(str::to_owned));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Server::start(&self.directory.path().join("data"), &args)
    }

    pub fn registrations(&self) -> impl Iterator<Item = Registration> {
        REGISTRATIONS.into_iter().chain(self.kubelet.is_some().then_some(USAGE))
    }

    /// A name in the cluster's scope.
    fn cluster_name(&self, rest: &str) -> String {
        format!("{}{rest}", self.namespace)
    }

    /// A ServiceAccount with a token.
    async fn service_account(&self, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", self.namespace);
        self.kubernetes.create(&path, json!({"metadata": {"name": name}})).await;
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let made =
            self.kubernetes.call("POST", &format!("{path}/{name}/token"), Some(&request)).await.unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    /// The roles and bindings of `deploy/base` (and of the component for usage), under names of this run, and a
    /// kubeconfig with nothing but them.
    async fn grant_what_the_manifests_grant(&self) {
        let token = self.service_account("lookback").await;
        for kubelet in self.kubelet.iter().flat_map(|kubelets| &kubelets.all) {
            kubelet.wants(&token);
        }
        let granted = ["base", "components/resource-metrics"];
        let granted = granted.into_iter().take(if self.kubelet.is_some() { 2 } else { 1 });
        let granted = granted
            .map(|part| std::fs::read_to_string(root().join(format!("deploy/{part}/rbac.yaml"))).unwrap());
        for mut object in granted.flat_map(|text| objects(&text)) {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            let name = self.cluster_name(object["metadata"]["name"].as_str().unwrap());
            object["metadata"]["name"] = json!(name);
            let role = object["roleRef"]["name"].as_str().filter(|role| role.starts_with("lookback"));
            if let Some(role) = role.map(|role| self.cluster_name(role)) {
                object["roleRef"]["name"] = json!(role);
            }
            if object["subjects"].is_array() {
                object["subjects"][0]["namespace"] = json!(self.namespace);
            }
            if object["metadata"]["namespace"] == "lookback" {
                object["metadata"]["namespace"] = json!(self.namespace);
            }
            let within = object["metadata"]["namespace"].as_str();
            let within = within.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
            let path = format!("/apis/rbac.authorization.k8s.io/v1{within}/{kind}s");
            self.kubernetes.create(&path, object).await;
            self.granted.lock().unwrap().push(format!("{path}/{name}"));
        }
        let given = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let context =
            given.contexts.iter().find(|context| Some(&context.name) == given.current_context.as_ref());
        let cluster = &context.unwrap().context.as_ref().unwrap().cluster;
        let cluster = given.clusters.iter().find(|named| &named.name == cluster).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [cluster],
            "users": [{"name": "lookback", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {
                "cluster": cluster.name, "user": "lookback", "namespace": self.namespace}}],
        });
        std::fs::write(self.directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    }

    /// The token of one who may push what the cases need, and nothing else.
    pub async fn writer(&self) -> String {
        let token = self.service_account("writer").await;
        let resources = [
            "pods/e2e_load",
            "services/e2e_requests",
            "services/e2e_messages",
            "services/e2e_lag",
            "deployments.apps/e2e_queue",
            "ingresses.networking.k8s.io/e2e_requests",
            "metrics",
        ];
        let subject = json!({"kind": "ServiceAccount", "name": "writer", "namespace": self.namespace});
        let own = format!("/namespaces/{}", self.namespace);
        for (prefix, within, resources) in
            [("", &*own, &resources[..]), ("Cluster", "", &["nodes/e2e_connections"])]
        {
            let name = self.cluster_name("writer");
            let path = format!("/apis/rbac.authorization.k8s.io/v1{within}/{}", prefix.to_lowercase());
            let rule =
                json!({"apiGroups": ["custom.metrics.k8s.io"], "resources": resources, "verbs": ["create"]});
            let role = json!({"metadata": {"name": name}, "rules": [rule]});
            let binding = json!({"metadata": {"name": name}, "subjects": [subject], "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": format!("{prefix}Role"), "name": name}});
            for (plural, object) in [("roles", role), ("rolebindings", binding)] {
                self.kubernetes.create(&format!("{path}{plural}"), object).await;
                self.granted.lock().unwrap().push(format!("{path}{plural}/{name}"));
            }
        }
        token
    }

    /// The token of one who may read everything of this namespace.
    pub async fn reader(&self) -> String {
        let token = self.service_account("reader").await;
        let subject = json!({"kind": "ServiceAccount", "name": "reader", "namespace": self.namespace});
        let rule = json!({"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get"]});
        let name = self.cluster_name("reader");
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", self.namespace);
        let role = json!({"metadata": {"name": name}, "rules": [rule]});
        let binding = json!({"metadata": {"name": name}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}});
        for (plural, object) in [("roles", role), ("rolebindings", binding)] {
            self.kubernetes.create(&format!("{path}/{plural}"), object).await;
            self.granted.lock().unwrap().push(format!("{path}/{plural}/{name}"));
        }
        token
    }

    /// The namespace with what HPAs describe.
    pub async fn install(&self) {
        let (kubernetes, namespace) = (&self.kubernetes, &self.namespace);
        kubernetes.create("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
        if self.node_is_ours {
            kubernetes.create("/api/v1/nodes", json!({"metadata": {"name": self.node}})).await;
            for kubelet in self.kubelet.iter().flat_map(|kubelets| &kubelets.all) {
                let status = json!({"status": kubelet.node()["status"]});
                let path = format!("/api/v1/nodes/{}/status", self.node);
                kubernetes.call("PATCH", &path, Some(&status)).await.unwrap();
            }
        }
        let services = format!("/api/v1/namespaces/{namespace}/services");
        for (name, spec) in [
            (
                "lookback",
                json!({"type": "ExternalName", "externalName": self.host, "ports": [{"port": self.port}]}),
            ),
            ("web", json!({"ports": [{"port": 80}]})),
            ("broker", json!({"ports": [{"port": 80}]})),
        ] {
            kubernetes.create(&services, json!({"metadata": {"name": name}, "spec": spec})).await;
        }
        let ingress = json!({"metadata": {"name": "web"}, "spec": {
            "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses");
        kubernetes.create(&path, ingress).await;
        self.grant_what_the_manifests_grant().await;
    }

    /// Registers without a caBundle, as the manifests do: Lookback puts it in.
    pub async fn register(&self) {
        for (group, version, priority) in self.registrations() {
            let object = json!({
                "metadata": {"name": format!("{version}.{group}")},
                "spec": {
                    "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": priority,
                    "service": {"namespace": self.namespace, "name": "lookback", "port": self.port},
                },
            });
            self.kubernetes.create("/apis/apiregistration.k8s.io/v1/apiservices", object).await;
        }
    }

    pub async fn wait_until_available(&self, wanted: &str) {
        for (group, version, _) in self.registrations() {
            let what = format!("{version}.{group} is Available={wanted}");
            let is_wanted = |found: &Value| condition(found, "Available") == wanted;
            self.kubernetes.wait_for(&registration(version, group), &what, is_wanted).await;
        }
        eprintln!("APIServices: Available={wanted}");
    }

    /// `scraped_port`: where its pods are scraped, if they are.
    pub async fn create_workload(&self, case: &Case, scraped_port: Option<u16>) {
        let (kubernetes, namespace, name) = (&self.kubernetes, &self.namespace, case.name);
        let labels = json!({"app": name});
        let mut container = json!({"name": CONTAINER, "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": "100m"}}});
        let mut annotations = json!({});
        match (&case.told, scraped_port) {
            (Told::Scraped(Found::ByAnnotation), Some(port)) => {
                annotations = json!({"prometheus.io/scrape": "true", "prometheus.io/port": port.to_string()});
            }
            (Told::Scraped(Found::ByRule), Some(port)) => {
                container["ports"] = json!([{"name": PORT_NAME, "containerPort": port}]);
            }
            _ => {}
        }
        let deployment = json!({"metadata": {"name": name}, "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": annotations},
                         "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}},
        }});
        kubernetes.create(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"), deployment).await;
        let hpa = json!({"metadata": {"name": name}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": REPLICAS_MAX,
            "metrics": [case.metric],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        }});
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        kubernetes.create(&path, hpa).await;
    }

    /// Waits until each HPA has scaled its Deployment as wanted.
    pub async fn wait_until_scaled(&self, cases: &[Case], what: &str, replicas: impl Fn(&Case) -> i64) {
        for case in cases {
            let wanted = replicas(case);
            let (namespace, name) = (&self.namespace, case.name);
            let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}");
            let said = format!("the HPA {name} wants {wanted} replicas, {what}");
            let hpa = self
                .kubernetes
                .wait_for(&path, &said, |hpa| {
                    hpa["status"]["desiredReplicas"] == wanted
                        && hpa["status"]["currentReplicas"] == wanted
                        && condition(hpa, "ScalingActive") == "True"
                })
                .await;
            eprintln!("{what}: {name}: {wanted} replicas, by {}", hpa["status"]["currentMetrics"][0]);
        }
    }

    /// Takes everything away, registrations first.
    pub async fn clean_up(&self) {
        for (group, version, _) in self.registrations() {
            let path = registration(version, group);
            let ours = |found: &Value| found["spec"]["service"]["namespace"] == self.namespace.as_str();
            if self.kubernetes.get(&path).await.is_ok_and(|found| ours(&found)) {
                let _ = self.kubernetes.call("DELETE", &path, None).await;
            }
        }
        let granted = std::mem::take(&mut *self.granted.lock().unwrap());
        for path in granted {
            let _ = self.kubernetes.call("DELETE", &path, None).await;
        }
        if self.node_is_ours {
            let _ = self.kubernetes.call("DELETE", &format!("/api/v1/nodes/{}", self.node), None).await;
        }
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let _ = self.kubernetes.call("DELETE", &path, None).await;
        self.kubernetes.wait_until_gone(&path).await;
        eprintln!("cleaned up");
    }
}
