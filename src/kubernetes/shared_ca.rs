//! One certificate authority for all replicas of a Lookback: kept in a Secret, and by each of them beside its data.
//!
//! Without it each replica would make its own, and all would write theirs into the same APIServices. The first one
//! creates the Secret by server-side apply under a name of its own, so that one that comes at the same moment
//! meets a conflict, and adopts what is there. An authority that nears its end is replaced, with the old one still
//! trusted, by whoever notices first: an apply that names the version that it replaces.
//!
//! It takes the right to get, create and patch this one Secret.

use super::certificates::{CertificateError, ca_files};
use super::cluster::reasons;
use super::own_ca::{CaFiles, CaPems, CaState};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;
use tracing::info;

/// The keys of the Secret.
const CERTIFICATES: &str = "ca.crt";
const KEY: &str = "ca.key";
/// How often it is looked at again after another was faster.
const TRIES: usize = 5;
/// How long one look at it may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no agreement.
#[derive(Debug, Error)]
pub enum SharedCaError {
    /// The Secret can't be read or written.
    #[error("Secret {secret}: {reason}: let Lookback get, create and patch it")]
    Secret {
        /// Its name.
        secret: String,
        /// What kube-apiserver says.
        reason: String,
    },
    /// The files can't be.
    #[error(transparent)]
    Files(#[from] CertificateError),
    /// Others were faster again and again.
    #[error("Secret {0} is changed by others all the time")]
    Contended(String),
    /// kube-apiserver does not answer.
    #[error("Secret {0}: kube-apiserver does not answer within {TIMEOUT:?}")]
    Slow(String),
}

/// The Secret, and this replica's files.
pub struct SharedCa {
    api: Api<Secret>,
    secret: String,
    /// Under which name this replica applies: no other's.
    manager: String,
    files: CaFiles,
}

impl SharedCa {
    /// In a Secret of this namespace and name, and in this data directory.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn new(
        client: Client,
        namespace: &str,
        secret: &str,
        data_dir: &Path,
    ) -> Result<Self, CertificateError> {
        Ok(Self {
            api: Api::namespaced(client, namespace),
            secret: secret.to_owned(),
            manager: format!("lookback-{}", uuid::Uuid::new_v4()),
            files: ca_files(data_dir)?,
        })
    }

    /// Brings the files and the Secret together; answers whether the files have changed.
    ///
    /// # Errors
    /// When they can't be; then the files are usable by themselves.
    pub async fn agree(&self, now_ms: i64) -> Result<bool, SharedCaError> {
        let agreeing = tokio::time::timeout(TIMEOUT, self.agree_at_last(now_ms)).await;
        agreeing.unwrap_or_else(|_| Err(SharedCaError::Slow(self.secret.clone())))
    }

    async fn agree_at_last(&self, now_ms: i64) -> Result<bool, SharedCaError> {
        let mut has_changed = false;
        for _ in 0..TRIES {
            let found = self.api.get_opt(&self.secret).await.map_err(|error| self.failed(&error))?;
            let pems = found.as_ref().and_then(pems);
            match pems.as_ref().map(|pems| pems.state(now_ms)) {
                Some(CaState::Usable) => return Ok(self.adopt(pems)? || has_changed),
                // The new one is to be trusted beside it.
                Some(CaState::Ending) => has_changed |= self.adopt(pems)?,
                Some(CaState::Damaged) | None => {}
            }
            let version = found.and_then(|secret| secret.metadata.resource_version);
            has_changed |= self.files.load_or_make(now_ms)?.is_new;
            match self.apply(version).await {
                Ok(()) => {
                    info!(secret = self.secret, "the certificate authority is kept for other replicas");
                    return Ok(has_changed);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(SharedCaError::Contended(self.secret.clone()))
    }

    fn adopt(&self, pems: Option<CaPems>) -> Result<bool, CertificateError> {
        let Some(pems) = pems else { return Ok(false) };
        let has_changed = self.files.adopt(&pems)?;
        if has_changed {
            info!(secret = self.secret, "the certificate authority of other replicas is used");
        }
        Ok(has_changed)
    }

    /// `version`: of what it replaces; `None`: it is created.
    async fn apply(&self, version: Option<String>) -> kube::Result<()> {
        let Some(CaPems { certificates, key }) = self.files.read().unwrap_or_default() else { return Ok(()) };
        let params = PatchParams::apply(&self.manager);
        let params = if version.is_some() { params.force() } else { params };
        let bytes = |text: String| ByteString(text.into_bytes());
        let mut secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.secret},
            "type": "Opaque",
            "data": {CERTIFICATES: bytes(certificates), KEY: bytes(key)},
        });
        if let Some(version) = version {
            secret["metadata"]["resourceVersion"] = version.into();
        }
        self.api.patch(&self.secret, &params, &Patch::Apply(&secret)).await.map(drop)
    }

    fn failed(&self, error: &kube::Error) -> SharedCaError {
        SharedCaError::Secret { secret: self.secret.clone(), reason: reasons(error) }
    }
}

fn pems(secret: &Secret) -> Option<CaPems> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(CaPems { certificates: text(CERTIFICATES)?, key: text(KEY)? })
}
