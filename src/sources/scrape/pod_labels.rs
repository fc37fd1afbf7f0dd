//! What relabelling is told of a pod: the labels `__meta_kubernetes_…` of Prometheus' role `pod`.
//!
//! | label | |
//! |---|---|
//! | `__address__` | the pod's IP and the port; the IP alone where a container names no ports |
//! | `__meta_kubernetes_namespace`, `…_pod_name`, `…_pod_uid`, `…_pod_ip`, `…_pod_host_ip`, `…_pod_node_name` | |
//! | `…_pod_label_NAME`, `…_pod_annotation_NAME` | its labels and annotations; other characters than letters and digits are `_` |
//! | `…_pod_labelpresent_NAME`, `…_pod_annotationpresent_NAME` | `true` |
//! | `…_pod_phase`, `…_pod_ready` | `Running`, …; `true`, `false` or `unknown` |
//! | `…_pod_controller_kind`, `…_pod_controller_name` | what owns it |
//! | `…_pod_container_name`, `…_id`, `…_image`, `…_init` | the container; whether it is one of the pod's start |
//! | `…_pod_container_port_name`, `…_number`, `…_protocol` | the port |

use crate::kubernetes::pod::{Container, ContainerPort, ContainerStatus, Pod, PodStatus};
use std::collections::BTreeMap;

/// Labels by name.
pub(super) type PodLabels = BTreeMap<String, String>;

/// The addresses at which a pod may be asked, one a port of a container, each with its labels. None while it has no
/// IP.
pub(super) fn addresses(pod: &Pod) -> Vec<(String, PodLabels)> {
    let Some(status) = &pod.status else { return Vec::new() };
    let Some(ip) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) else { return Vec::new() };
    let of_pod = of_pod(pod, status);
    let spec = pod.spec.as_ref();
    let containers = spec.and_then(|spec| spec.containers.as_deref()).unwrap_or_default();
    let at_start = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let mut found = Vec::new();
    let kinds = [
        (containers, &status.container_statuses, "false"),
        (at_start, &status.init_container_statuses, "true"),
    ];
    for (containers, statuses, init) in kinds {
        for container in containers {
            let mut labels = of_pod.clone();
            of_container(container, statuses.as_deref().unwrap_or_default(), init, &mut labels);
            let ports = container.ports.as_deref().unwrap_or_default();
            if ports.is_empty() {
                found.push((ip.to_owned(), labels));
                continue;
            }
            found.extend(ports.iter().map(|port| of_port(ip, port, labels.clone())));
        }
    }
    found
}

fn put(labels: &mut PodLabels, name: &str, value: impl Into<String>) {
    labels.insert(format!("__meta_kubernetes_{name}"), value.into());
}

fn of_pod(pod: &Pod, status: &PodStatus) -> PodLabels {
    let (meta, mut labels) = (&pod.metadata, PodLabels::new());
    for (name, value) in [
        ("namespace", &meta.namespace),
        ("pod_name", &meta.name),
        ("pod_uid", &meta.uid),
        ("pod_ip", &status.pod_ip),
        ("pod_host_ip", &status.host_ip),
        ("pod_phase", &status.phase),
    ] {
        put(&mut labels, name, value.clone().unwrap_or_default());
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    put(&mut labels, "pod_node_name", node.unwrap_or_default());
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    put(&mut labels, "pod_ready", ready.map_or("unknown".to_owned(), |ready| ready.status.to_lowercase()));
    for (kind, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
        for (name, value) in pairs.iter().flatten() {
            let name = as_label(name);
            put(&mut labels, &format!("pod_{kind}_{name}"), value.clone());
            put(&mut labels, &format!("pod_{kind}present_{name}"), "true");
        }
    }
    let mut owners = meta.owner_references.iter().flatten();
    if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
        put(&mut labels, "pod_controller_kind", owner.kind.clone());
        put(&mut labels, "pod_controller_name", owner.name.clone());
    }
    labels
}

fn of_container(container: &Container, statuses: &[ContainerStatus], init: &str, labels: &mut PodLabels) {
    let status = statuses.iter().find(|status| status.name == container.name);
    let id = status.and_then(|status| status.container_id.clone());
    put(labels, "pod_container_name", container.name.clone());
    put(labels, "pod_container_id", id.unwrap_or_default());
    put(labels, "pod_container_image", container.image.clone().unwrap_or_default());
    put(labels, "pod_container_init", init);
}

fn of_port(ip: &str, port: &ContainerPort, mut labels: PodLabels) -> (String, PodLabels) {
    let number = port.container_port;
    put(&mut labels, "pod_container_port_name", port.name.clone().unwrap_or_default());
    put(&mut labels, "pod_container_port_number", number.to_string());
    put(&mut labels, "pod_container_port_protocol", port.protocol.clone().unwrap_or_default());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    (format!("{host}:{number}"), labels)
}

/// A name with nothing in it that a label's may not have.
fn as_label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_port_of_each_container_is_an_address_with_what_is_known_of_it() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web-0", "namespace": "shop", "uid": "u1",
                "labels": {"app.kubernetes.io/name": "web"},
                "annotations": {"prometheus.io/port": "9"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "x"},
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "y", "controller": true},
                ],
            },
            "spec": {
                "nodeName": "n1",
                "containers": [
                    {"name": "app", "image": "i", "ports": [
                        {"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 9},
                    ]},
                    {"name": "side"},
                ],
                "initContainers": [{"name": "setup"}],
            },
            "status": {
                "phase": "Running", "podIP": "fd00::1", "hostIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "app", "containerID": "c1", "image": "i", "imageID": "", "ready": true, "restartCount": 0},
                ],
            },
        }))
        .expect("a pod");
        let found = addresses(&pod);
        let at: Vec<&str> = found.iter().map(|(address, _)| address.as_str()).collect();
        assert_eq!(at, ["[fd00::1]:8080", "[fd00::1]:9", "fd00::1", "fd00::1"]);
        let told = |place: usize| -> Vec<String> {
            let short = |(name, value): (&String, &String)| {
                format!("{}={value}", name.strip_prefix("__meta_kubernetes_").expect("a meta label"))
            };
            found[place].1.iter().map(short).collect()
        };
        assert_eq!(
            told(0),
            [
                "namespace=shop",
                "pod_annotation_prometheus_io_port=9",
                "pod_annotationpresent_prometheus_io_port=true",
                "pod_container_id=c1",
                "pod_container_image=i",
                "pod_container_init=false",
                "pod_container_name=app",
                "pod_container_port_name=http",
                "pod_container_port_number=8080",
                "pod_container_port_protocol=TCP",
                "pod_controller_kind=StatefulSet",
                "pod_controller_name=web",
                "pod_host_ip=10.0.0.1",
                "pod_ip=fd00::1",
                "pod_label_app_kubernetes_io_name=web",
                "pod_labelpresent_app_kubernetes_io_name=true",
                "pod_name=web-0",
                "pod_node_name=n1",
                "pod_phase=Running",
                "pod_ready=true",
                "pod_uid=u1",
            ]
        );
        assert!(told(3).contains(&"pod_container_init=true".to_owned()));
        let waiting = json!({"metadata": {"name": "p"}, "status": {"phase": "Pending"}});
        assert_eq!(addresses(&serde_json::from_value(waiting).expect("a pod")), []);
    }
}
