//! The connection to a Kubernetes cluster, by real TLS.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes, Fault};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use lookback::clock::{Clock, SystemClock};
use lookback::kubernetes::ca_bundle::{ServiceName, keep};
use lookback::kubernetes::certificates::{ServingCertificate, kept_ca_path};
use lookback::kubernetes::cluster::{Cluster, ClusterSettings};
use lookback::kubernetes::served::Served;
use lookback::kubernetes::shared_ca::SharedCa;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
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
    let keeping = tokio::spawn(keep(
        client,
        service,
        Served::default(),
        || std::future::ready("PEM".to_owned()),
        interval,
    ));
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

#[tokio::test]
async fn replicas_agree_on_one_authority_whoever_comes_first() {
    let fake = FakeKubernetes::start().await;
    let kubeconfig = Some(fake.kubeconfig("lookback"));
    let settings = ClusterSettings { kubeconfig, ..ClusterSettings::default() };
    let cluster = Cluster::connect(&settings).await.unwrap().unwrap();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let replica = |dir: &tempfile::TempDir| {
        SharedCa::new(cluster.lister.clone(), "monitoring", "lookback-shared-ca", dir.path()).unwrap()
    };
    let ca = |dir: &tempfile::TempDir| std::fs::read_to_string(kept_ca_path(dir.path())).unwrap();
    // One has made its own before there was a Secret.
    let now_ms = SystemClock.now_ms();
    let own = ServingCertificate::self_made(dirs[2].path(), &[], now_ms).unwrap();
    let (one, two, three) = (replica(&dirs[0]), replica(&dirs[1]), replica(&dirs[2]));
    let agreed = tokio::join!(one.agree(now_ms), two.agree(now_ms));
    assert!(agreed.0.is_ok() && agreed.1.is_ok(), "{agreed:?}");
    assert!(three.agree(now_ms).await.unwrap(), "it takes the others'");
    assert!(!three.agree(now_ms).await.unwrap(), "and keeps it");
    assert_eq!((ca(&dirs[0]), ca(&dirs[0])), (ca(&dirs[1]), ca(&dirs[2])));
    let certificates = dirs
        .each_ref()
        .map(|dir| ServingCertificate::self_made(dir.path(), &[], now_ms).unwrap().ca().unwrap().clone());
    assert!(certificates.iter().all(|ca| *ca == certificates[0]));
    assert_ne!(*own.ca().unwrap(), certificates[0], "its certificate is another one now");
    let keys = dirs.each_ref().map(|dir| std::fs::read(dir.path().join("certs/ca.key")).unwrap());
    assert!(keys.iter().all(|key| *key == keys[0]));
    let mode = std::fs::metadata(dirs[1].path().join("certs/ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Near its end it is replaced once, and still trusted.
    let later_ms = now_ms + 9 * 366 * 24 * 3_600_000;
    let first = ca(&dirs[0]);
    let agreed = tokio::join!(one.agree(later_ms), two.agree(later_ms), three.agree(later_ms));
    assert!(matches!(agreed, (Ok(true), Ok(true), Ok(true))), "{agreed:?}");
    assert_eq!((ca(&dirs[0]), ca(&dirs[0])), (ca(&dirs[1]), ca(&dirs[2])));
    assert!(ca(&dirs[0]).ends_with(&first) && ca(&dirs[0]) != first);

    // One that was damaged is put right, and one that may not be read changes nothing.
    let path = "/api/v1/namespaces/monitoring/secrets/lookback-shared-ca";
    fake.put(
        path,
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"ca.crt": "eA==", "ca.key": "eA=="}}),
    );
    let before = ca(&dirs[1]);
    two.agree(later_ms).await.unwrap();
    assert!(three.agree(later_ms).await.is_ok() && ca(&dirs[1]) == before && ca(&dirs[2]) == before);
    fake.set_fault(Some(Fault::Failing(403)));
    let error = one.agree(later_ms).await.unwrap_err().to_string();
    assert!(
        error.contains("Secret lookback-shared-ca") && error.contains("get, create and patch"),
        "{error}"
    );
    assert_eq!(ca(&dirs[0]), before);
}
