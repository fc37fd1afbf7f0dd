//! Pods as kube-apiserver tells them, with what is gone by here and nothing else: what autoscalers count, and where pods
//! can be scraped. Everything else of a pod, most of it volumes, is neither decoded nor kept.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Amounts by resource.
pub type ByResource = BTreeMap<String, Quantity>;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name, namespace, labels, owners, …
    pub metadata: ObjectMeta,
    /// What it is to be.
    pub spec: Option<PodSpec>,
    /// What it is.
    pub status: Option<PodStatus>,
}

/// What a pod is to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its containers.
    pub containers: Option<Vec<Container>>,
    /// Those of its start; one that is always restarted goes on beside the others.
    pub init_containers: Option<Vec<Container>>,
    /// The node that it is on.
    pub node_name: Option<String>,
    /// What it requests as a whole.
    pub resources: Option<Resources>,
    /// What its runtime takes beside that.
    pub overhead: Option<ByResource>,
}

/// One container of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub image: Option<String>,
    /// Where it listens.
    pub ports: Option<Vec<ContainerPort>>,
    /// What it requests.
    pub resources: Option<Resources>,
    /// Of one of the start: `Always` where it goes on.
    pub restart_policy: Option<String>,
}

/// A port on which a container listens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its number.
    pub container_port: i32,
    /// Its name.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
}

/// What is requested.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Of each resource.
    pub requests: Option<ByResource>,
}

/// What a pod is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, …
    pub phase: Option<String>,
    /// Its conditions.
    pub conditions: Option<Vec<PodCondition>>,
    /// When its kubelet took it on.
    pub start_time: Option<Time>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// The address of its node.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    /// How its containers are.
    pub container_statuses: Option<Vec<ContainerStatus>>,
    /// How those of its start are.
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
}

/// One condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// `Ready`, …
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// How a container is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// What its runtime calls it.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What the whole type of Kubernetes says of a pod, this one says too.
    #[test]
    fn a_pod_is_read_as_the_whole_type_reads_it() {
        let written = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1", "overhead": {"cpu": "50m"}, "resources": {"requests": {"memory": "1Gi"}},
                "volumes": [{"name": "data", "emptyDir": {}}],
                "containers": [{"name": "app", "image": "i", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}}}],
                "initContainers": [{"name": "mesh", "restartPolicy": "Always"}],
            },
            "status": {
                "phase": "Running", "podIP": "fd00::1", "hostIP": "10.0.0.1", "startTime": "2026-11-22T10:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T10:00:05Z"}],
                "containerStatuses": [{"name": "app", "containerID": "c1", "image": "i", "imageID": "", "ready": true,
                    "restartCount": 0}],
                "initContainerStatuses": null,
            },
        });
        let ours: Pod = serde_json::from_value(written.clone()).expect("a pod");
        let whole: k8s_openapi::api::core::v1::Pod = serde_json::from_value(written).expect("a pod");
        assert_eq!(ours.metadata, whole.metadata);
        let (spec, whole_spec) = (ours.spec.expect("a spec"), whole.spec.expect("a spec"));
        assert_eq!((&spec.node_name, &spec.overhead), (&whole_spec.node_name, &whole_spec.overhead));
        let requests = spec.resources.and_then(|resources| resources.requests);
        assert_eq!(requests, whole_spec.resources.and_then(|resources| resources.requests));
        let (app, whole_app) = (&spec.containers.expect("containers")[0], &whole_spec.containers[0]);
        assert_eq!((&app.name, &app.image), (&whole_app.name, &whole_app.image));
        let requests = app.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        assert_eq!(requests, whole_app.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        let (port, whole_port) =
            (&app.ports.as_ref().expect("ports")[0], &whole_app.ports.as_ref().expect("ports")[0]);
        assert_eq!(
            (port.container_port, &port.name, &port.protocol),
            (whole_port.container_port, &whole_port.name, &whole_port.protocol)
        );
        let mesh = &spec.init_containers.expect("one")[0];
        assert_eq!(mesh.restart_policy, whole_spec.init_containers.expect("one")[0].restart_policy);
        let (status, whole_status) = (ours.status.expect("a status"), whole.status.expect("a status"));
        assert_eq!((&status.phase, &status.start_time), (&whole_status.phase, &whole_status.start_time));
        assert_eq!((&status.pod_ip, &status.host_ip), (&whole_status.pod_ip, &whole_status.host_ip));
        let (ready, whole_ready) =
            (&status.conditions.expect("one")[0], &whole_status.conditions.expect("one")[0]);
        assert_eq!((&ready.type_, &ready.status), (&whole_ready.type_, &whole_ready.status));
        assert_eq!(ready.last_transition_time, whole_ready.last_transition_time);
        let container = &status.container_statuses.expect("one")[0];
        assert_eq!(container.container_id, whole_status.container_statuses.expect("one")[0].container_id);
        assert!(status.init_container_statuses.is_none() && container.name == "app");
        assert_eq!(Pod::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/pods");
    }
}
