//! kube-apiserver, asked in its own words.

#![allow(unreachable_pub, missing_docs, reason = "a part of a test")]

use axum::http::Request;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// HPAs are looked at every 15 s, registrations about every 30 s.
const PATIENCE: Duration = Duration::from_secs(240);

/// A control plane, asked in its own words.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    pub async fn connect(kubeconfig: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap() }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("Content-Type", content);
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.client.request(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        self.call("GET", path, None).await
    }

    #[track_caller]
    pub fn create(&self, path: &str, object: Value) -> impl Future<Output = ()> {
        let (kubernetes, path) = (self.clone(), path.to_owned());
        async move {
            let made = kubernetes.call("POST", &path, Some(&object)).await;
            made.unwrap_or_else(|error| panic!("{path}: {error}: {object}"));
        }
    }

    /// Waits until what is at `path` is as wanted.
    pub async fn wait_for(&self, path: &str, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.get(path).await;
            if let Some(found) = found.as_ref().ok().filter(|found| is_wanted(found)) {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}; {path}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub async fn wait_until_gone(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(found) = self.get(path).await {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {path} is gone: {found:#}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.clone().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("Unknown")
}
