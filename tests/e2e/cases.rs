//! What the HPAs ask, what is pushed, and what they are to do.

#![allow(unreachable_pub, missing_docs, reason = "a part of a test")]

use serde_json::{Value, json};

pub const REPLICAS_MAX: i64 = 6;

/// How Lookback comes to know the value of a case.
pub enum Told {
    /// Pushed for each pod of the Deployment.
    ForPods,
    /// Pushed to this path.
    To(String),
    /// The cores that each pod uses, told by the kubelet.
    Cores,
    /// The bytes that each pod uses, told by the kubelet.
    Bytes,
    /// Scraped of the pods, which are annotated, or found by a job's rules.
    Scraped(Found),
}

/// How the scraper finds pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    ByAnnotation,
    ByRule,
}

/// One HPA with its Deployment: what it asks, where that is pushed, and what it is to do.
pub struct Case {
    pub name: &'static str,
    pub metric: Value,
    pub told: Told,
    pub high: &'static str,
    pub replicas_high: i64,
    pub low: &'static str,
}

fn object(kind: &str, version: &str, name: &str, metric: &str, target: Value) -> Value {
    json!({"type": "Object", "object": {
        "describedObject": {"apiVersion": version, "kind": kind, "name": name},
        "metric": {"name": metric},
        "target": target,
    }})
}

pub fn cases(namespace: &str, node: &str) -> Vec<Case> {
    let value = |value: &str| json!({"type": "Value", "value": value});
    let average = |value: &str| json!({"type": "AverageValue", "averageValue": value});
    let path = |rest: &str| Told::To(format!("/write-metrics/namespaces/{namespace}/{rest}"));
    let external = |metric: &str, target: Value| {
        json!({"type": "External", "external": {
            "metric": {"name": metric, "selector": {"matchLabels": {"queue": "orders"}}},
            "target": target,
        }})
    };
    vec![
        Case {
            name: "pods",
            metric: json!({"type": "Pods", "pods": {"metric": {"name": "e2e_load"}, "target": average("100")}}),
            told: Told::ForPods,
            high: "200",
            replicas_high: REPLICAS_MAX,
            low: "10",
        },
        Case {
            name: "service",
            metric: object("Service", "v1", "web", "e2e_requests", value("100")),
            told: path("services/web/e2e_requests"),
            high: "300",
            replicas_high: REPLICAS_MAX,
            low: "10",
        },
        Case {
            name: "deployment",
            metric: object("Deployment", "apps/v1", "deployment", "e2e_queue", average("100")),
            told: path("deployments.apps/deployment/e2e_queue"),
            high: "450",
            replicas_high: 5,
            low: "90",
        },
        Case {
            name: "ingress",
            metric: object("Ingress", "networking.k8s.io/v1", "web", "e2e_requests", average("50")),
            told: path("ingresses.networking.k8s.io/web/e2e_requests"),
            high: "190",
            replicas_high: 4,
            low: "40",
        },
        Case {
            name: "namespace",
            metric: object("Namespace", "v1", namespace, "e2e_orders", average("1k")),
            told: path("metrics/e2e_orders"),
            high: "2500",
            replicas_high: 3,
            low: "500",
        },
        Case {
            name: "node",
            metric: object("Node", "v1", node, "e2e_connections", value("2k")),
            told: Told::To(format!("/write-metrics/nodes/{node}/e2e_connections")),
            high: "9000",
            replicas_high: REPLICAS_MAX,
            low: "100m",
        },
        Case {
            name: "external-average",
            metric: external("e2e_messages", average("20")),
            told: path("services/broker/e2e_messages?labels=queue%3Dorders"),
            high: "99500m",
            replicas_high: 5,
            low: "15",
        },
        Case {
            name: "external-value",
            metric: external("e2e_lag", value("30")),
            told: path("services/broker/e2e_lag?labels=queue%3Dorders"),
            high: "100",
            replicas_high: REPLICAS_MAX,
            low: "1",
        },
    ]
}

/// The container of every pod here.
pub const CONTAINER: &str = "pause";

/// HPAs on what is scraped of pods, which are objects without a kubelet: their addresses are this test's to say.
pub fn scraped_cases() -> Vec<Case> {
    let of = |name: &'static str, metric: &str, found| Case {
        name,
        metric: json!({"type": "Pods", "pods": {
            "metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": "100"}}}),
        told: Told::Scraped(found),
        high: "250",
        replicas_high: REPLICAS_MAX,
        low: "20",
    };
    vec![
        of("annotated", "e2e_annotated", Found::ByAnnotation),
        of("discovered", "e2e_discovered", Found::ByRule),
    ]
}

/// HPAs on what pods use, for which kubelets have to be asked. A pod requests a tenth of a core.
pub fn usage_cases() -> Vec<Case> {
    let cores = |name: &'static str, metric: Value| Case {
        name,
        metric,
        told: Told::Cores,
        high: "0.2",
        replicas_high: REPLICAS_MAX,
        low: "0.01",
    };
    vec![
        cores(
            "cpu",
            json!({"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}),
        ),
        cores(
            "container-cpu",
            json!({"type": "ContainerResource", "containerResource": {
                "name": "cpu", "container": CONTAINER, "target": {"type": "AverageValue", "averageValue": "50m"}}}),
        ),
        Case {
            name: "memory",
            metric: json!({"type": "Resource", "resource": {
                "name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"}}}),
            told: Told::Bytes,
            high: "419430400",
            replicas_high: REPLICAS_MAX,
            low: "10485760",
        },
    ]
}
