//! The connection to a Kubernetes cluster, by real TLS.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use serde_json::json;

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
