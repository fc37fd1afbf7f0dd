//! The connection to a Kubernetes cluster, by real TLS.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use lookback::kubernetes::ca_bundle::{ServiceName, keep};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::kubernetes::served::Served;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_kubeconfig_leads_to_the_api_server_and_its_changes_are_seen() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = Some(fake.kubeconfig("lookback"));
    let settings = ClusterSettings { kubeconfig, ..ClusterSettings::default() };
    let cluster = Cluster::connect(&settings).await.unwrap().unwrap();
    fake.put(AUTHENTICATION_CONFIG, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1"}}));

    let api: Api<ConfigMap> = Api::namespaced(cluster.authentication.clone(), "kube-system");
    let config = Config::default().fields("metadata.name=extension-apiserver-authentication");
    let mut seen = watcher(api, config).applied_objects().boxed();
    let first = seen.try_next().await.unwrap().unwrap();
    assert_eq!(first.data.unwrap()["a"], "1");
    fake.put(AUTHENTICATION_CONFIG, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "2"}}));
    assert_eq!(seen.try_next().await.unwrap().unwrap().data.unwrap()["a"], "2");
}

#[tokio::test]
async fn the_ca_bundle_is_kept_in_the_own_apiservices_and_in_no_others() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = Some(fake.kubeconfig("lookback"));
    let settings = ClusterSettings { kubeconfig, ..ClusterSettings::default() };
    let cluster = Cluster::connect(&settings).await.unwrap().unwrap();
    let path = |name: &str| format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
    let registered = |service: &str| {
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": {
            "group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "monitoring", "name": service},
        }})
    };
    let (own, others) = (path("v1beta1.custom.metrics.k8s.io"), path("v1beta2.custom.metrics.k8s.io"));
    fake.put(&own, registered("lookback"));
    fake.put(&others, registered("prometheus-adapter"));
    let service = ServiceName { namespace: "monitoring".to_owned(), name: "lookback".to_owned() };
    let (client, interval) = (cluster.lister.clone(), Duration::from_millis(2));
    let keeping = tokio::spawn(keep(client, service, Served::default(), || "PEM".to_owned(), interval));
    // Also when whoever applies the rest takes it out again.
    for _ in 0..2 {
        let mut tries = 0;
        while fake.get(&own).unwrap()["spec"]["caBundle"] != "UEVN" {
            tries += 1;
            assert!(tries < 1_000, "not written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let kept = fake.get(&own).unwrap();
        assert_eq!(kept["spec"]["service"]["name"], "lookback", "the rest stays");
        fake.put(&own, registered("lookback"));
    }
    keeping.abort();
    assert!(fake.get(&others).unwrap()["spec"]["caBundle"].is_null());
    let written = fake.asked("/apis/apiregistration").into_iter().filter(|asked| asked.method == "PATCH");
    for patch in written {
        assert!(patch.path.contains("v1beta1.custom") && patch.path.contains("fieldManager=lookback"));
        assert_eq!(patch.body["spec"], json!({"caBundle": "UEVN"}), "only this field is owned");
    }
}
