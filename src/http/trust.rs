//! Which certificate authorities the secure port believes, kept up to date while it runs.
//!
//! Each of the two (front proxies', users') comes from the file of its flag, which is read again when
//! it changes, or, without the flag, from ConfigMap `kube-system/extension-apiserver-authentication`,
//! which is watched. What can't be used is logged and leaves what was believed before: a rotation that
//! goes wrong half-way locks nobody out, and lets nobody in.

use super::client_certificate::ClientCa;
use super::identity::{FrontProxy, FrontProxyError, FrontProxySettings};
use super::reload::on_change;
use arc_swap::ArcSwapOption;
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// By which flags it is said who is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustSettings {
    /// `--requestheader-*`; `None`: as the ConfigMap says.
    pub front_proxy: Option<FrontProxySettings>,
    /// `--client-ca-file`; `None`: as the ConfigMap says.
    pub client_ca_file: Option<PathBuf>,
}

/// Why a flag's file can't be used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The front proxies'.
    #[error(transparent)]
    FrontProxy(#[from] FrontProxyError),
    /// The users'.
    #[error("--client-ca-file {path}: {reason}: give a PEM file with at least one CERTIFICATE")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Who is believed now.
#[derive(Debug, Default)]
pub struct Trust {
    settings: TrustSettings,
    front_proxy: ArcSwapOption<FrontProxy>,
    client_ca: ArcSwapOption<ClientCa>,
}

impl Trust {
    /// As these flags' files say.
    ///
    /// # Errors
    /// When one of them can't be used.
    pub fn new(settings: TrustSettings) -> Result<Self, TrustError> {
        let trust = Self { settings, ..Self::default() };
        trust.read_front_proxy()?;
        trust.read_client_ca()?;
        Ok(trust)
    }

    /// This front proxy, and no users' certificates; for ever.
    #[must_use]
    pub fn of_front_proxy(front_proxy: Option<Arc<FrontProxy>>) -> Self {
        Self { front_proxy: ArcSwapOption::new(front_proxy), ..Self::default() }
    }

    /// Whose word on other users' identity counts.
    #[must_use]
    pub fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.front_proxy.load_full()
    }

    /// Whose certificates name users.
    #[must_use]
    pub fn client_ca(&self) -> Option<Arc<ClientCa>> {
        self.client_ca.load_full()
    }

    fn read_front_proxy(&self) -> Result<(), FrontProxyError> {
        if let Some(settings) = &self.settings.front_proxy {
            self.front_proxy.store(Some(Arc::new(FrontProxy::new(settings)?)));
        }
        Ok(())
    }

    fn read_client_ca(&self) -> Result<(), TrustError> {
        let Some(path) = &self.settings.client_ca_file else { return Ok(()) };
        let invalid = |reason: String| TrustError::ClientCa { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
        self.client_ca.store(Some(Arc::new(ClientCa::of_pem(&pem).map_err(invalid)?)));
        Ok(())
    }

    /// Reads the flags' files again when they change, for ever.
    pub async fn keep_files(self: Arc<Self>, interval: Duration) {
        let front_proxy = self.settings.front_proxy.as_ref();
        let files = front_proxy.map(|settings| settings.requestheader_client_ca_file.clone());
        let files = files.into_iter().chain(self.settings.client_ca_file.clone()).collect();
        on_change(files, interval, || {
            let read = self.read_front_proxy().map_err(TrustError::from).and_then(|()| self.read_client_ca());
            match read {
                Ok(()) => info!("the CAs of callers were read again"),
                Err(error) => warn!(%error, "the CAs of callers stay as they were"),
            }
        })
        .await;
    }

    /// Whether something is left for the ConfigMap to say.
    #[must_use]
    pub const fn needs_lookup(&self) -> bool {
        self.settings.front_proxy.is_none() || self.settings.client_ca_file.is_none()
    }

    /// Follows the ConfigMap, for ever. While it can't be read nobody new is believed.
    pub async fn watch(self: Arc<Self>, client: Client) {
        let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let config = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let changes = watcher(api, config).default_backoff().applied_objects();
        pin_mut!(changes);
        let mut failing = false;
        while let Some(change) = changes.next().await {
            match change {
                Ok(config_map) => {
                    failing = false;
                    self.apply(&config_map.data.unwrap_or_default());
                }
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, "ConfigMap {NAMESPACE}/{CONFIG_MAP} can't be read: CAs stay as they were; \
                                   its role is extension-apiserver-authentication-reader");
                }
                Err(_) => {}
            }
        }
    }

    /// Takes over what the ConfigMap says, where no flag does.
    pub fn apply(&self, data: &BTreeMap<String, String>) {
        if self.settings.client_ca_file.is_none() {
            match data.get("client-ca-file").map(|pem| ClientCa::of_pem(pem.as_bytes())).transpose() {
                Ok(client_ca) => self.client_ca.store(client_ca.map(Arc::new)),
                Err(reason) => warn!(%reason, "ConfigMap {CONFIG_MAP}: client-ca-file is not usable"),
            }
        }
        if self.settings.front_proxy.is_none() {
            match front_proxy(data) {
                Ok(front_proxy) => self.front_proxy.store(front_proxy.map(Arc::new)),
                Err(reason) => warn!(%reason, "ConfigMap {CONFIG_MAP}: requestheader-* is not usable"),
            }
        }
        info!("the CAs of callers are as ConfigMap {NAMESPACE}/{CONFIG_MAP} says");
    }
}

fn front_proxy(data: &BTreeMap<String, String>) -> Result<Option<FrontProxy>, String> {
    let Some(pem) = data.get("requestheader-client-ca-file") else { return Ok(None) };
    let list = |key: &str| -> Result<Vec<String>, String> {
        let Some(text) = data.get(key) else { return Ok(Vec::new()) };
        serde_json::from_str(text).map_err(|error| format!("{key} is no JSON array of texts: {error}"))
    };
    let settings = FrontProxySettings {
        requestheader_client_ca_file: PathBuf::from(CONFIG_MAP),
        requestheader_allowed_names: list("requestheader-allowed-names")?,
        requestheader_username_headers: list("requestheader-username-headers")?,
        requestheader_uid_headers: list("requestheader-uid-headers")?,
        requestheader_group_headers: list("requestheader-group-headers")?,
        requestheader_extra_headers_prefix: list("requestheader-extra-headers-prefix")?,
    };
    FrontProxy::of_pem(pem.as_bytes(), &settings).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate").cert.pem()
    }

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_config_map_says_both_and_nonsense_changes_nothing() {
        let trust = Trust::default();
        let pem = pem();
        let whole = [
            ("client-ca-file", pem.as_str()),
            ("requestheader-client-ca-file", pem.as_str()),
            ("requestheader-allowed-names", "[\"front-proxy-client\"]"),
            ("requestheader-username-headers", "[\"X-Remote-User\"]"),
            ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
            ("requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]"),
        ];
        trust.apply(&data(&whole));
        let (front_proxy, client_ca) = (trust.front_proxy().expect("one"), trust.client_ca().expect("one"));
        for (key, nonsense) in [
            ("requestheader-allowed-names", "front-proxy-client"),
            ("requestheader-username-headers", "[]"),
            ("requestheader-client-ca-file", "junk"),
        ] {
            let mut changed = data(&whole);
            changed.insert(key.to_owned(), nonsense.to_owned());
            changed.insert("client-ca-file".to_owned(), "junk".to_owned());
            trust.apply(&changed);
            assert!(Arc::ptr_eq(&trust.front_proxy().expect("as before"), &front_proxy), "{key}");
            assert!(Arc::ptr_eq(&trust.client_ca().expect("as before"), &client_ca), "{key}");
        }
        trust.apply(&BTreeMap::new());
        assert!(trust.front_proxy().is_none() && trust.client_ca().is_none());
    }

    #[test]
    fn a_flag_wins_over_the_config_map() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, pem()).expect("written");
        let trust = Trust::new(TrustSettings {
            front_proxy: Some(FrontProxySettings::new(&file)),
            client_ca_file: Some(file),
        })
        .expect("usable");
        assert!(!trust.needs_lookup());
        let (front_proxy, client_ca) = (trust.front_proxy().expect("one"), trust.client_ca().expect("one"));
        trust.apply(&BTreeMap::new());
        assert!(Arc::ptr_eq(&trust.front_proxy().expect("the flag's"), &front_proxy));
        assert!(Arc::ptr_eq(&trust.client_ca().expect("the flag's"), &client_ca));
    }
}
