//! The CA by which kube-apiserver believes Lookback's certificate, kept in its APIServices.
//!
//! Only `spec.caBundle` is written, by server-side apply with a field manager of its own, so that whoever
//! applies the APIServices (a chart, GitOps) keeps all the rest, and only in those that lead to this
//! Service: another adapter's are never touched, and none is made.

use super::cluster::reasons;
use super::served::Served;
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{info, warn};

/// How often it is looked at.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// The name under which the field is owned.
const FIELD_MANAGER: &str = "lookback";

/// A Service by which Lookback is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceName {
    /// The names by which it is called within the cluster.
    #[must_use]
    pub fn dns_names(&self) -> Vec<String> {
        let Self { namespace, name } = self;
        let rest = ["", ".svc", ".svc.cluster.local"];
        let full = rest.iter().map(|rest| format!("{name}.{namespace}{rest}"));
        std::iter::once(name.clone()).chain(full).collect()
    }
}

/// Keeps the bundle right for ever. What can't be done is logged, once until it can, and tried again.
pub async fn keep<Bundle: Future<Output = String> + Send>(
    client: Client,
    service: ServiceName,
    served: Served,
    bundle_pem: impl Fn() -> Bundle + Send,
    interval: Duration,
) {
    let api: Api<APIService> = Api::all(client);
    let mut failing = BTreeSet::new();
    loop {
        let bundle = bundle_pem().await;
        for name in served.versions().map(|version| version.api_service()) {
            match keep_one(&api, &name, &service, &bundle).await {
                Ok(written) => {
                    failing.remove(&name);
                    if written {
                        info!(apiservice = %name, "wrote its caBundle");
                    }
                }
                Err(error) => {
                    if failing.insert(name.clone()) {
                        let error = reasons(&error);
                        warn!(apiservice = %name, %error, "its caBundle can't be kept: kube-apiserver may not believe \
                                                           this server's certificate");
                    }
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// Whether it had to be written.
async fn keep_one(
    api: &Api<APIService>,
    name: &str,
    service: &ServiceName,
    bundle: &str,
) -> kube::Result<bool> {
    let Some(found) = api.get_opt(name).await? else { return Ok(false) };
    let spec = found.spec.unwrap_or_default();
    let leads_here = spec.service.is_some_and(|to| {
        to.namespace.as_deref() == Some(&service.namespace) && to.name.as_deref() == Some(&service.name)
    });
    // One that is told not to verify can't have a bundle.
    let verifies = spec.insecure_skip_tls_verify != Some(true);
    let bundle = ByteString(bundle.as_bytes().to_vec());
    if bundle.0.is_empty() || !leads_here || !verifies || spec.ca_bundle.as_ref() == Some(&bundle) {
        return Ok(false);
    }
    let patch = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {"caBundle": bundle},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(&patch)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_names_by_which_the_cluster_calls_it() {
        let service = ServiceName { namespace: "monitoring".to_owned(), name: "lookback".to_owned() };
        let names = service.dns_names();
        assert_eq!(names[0], "lookback");
        assert!(names.contains(&"lookback.monitoring.svc".to_owned()));
        assert_eq!(names.len(), 4);
    }
}
