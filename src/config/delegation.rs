//! Flags of delegation: who answers for metrics that Lookback does not know.

use crate::app::Delegates;
use crate::kubernetes::adapter::{Adapter, AdapterAddress, AdapterSettings, AdapterSettingsError};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a pod finds the token of its service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Flags of delegation.
#[derive(Clone, Debug, Args)]
pub struct DelegationArgs {
    /// The adapter that is asked for metrics of objects that Lookback does not know: a Service of the cluster, or
    /// a URL.
    #[arg(long, value_name = "NAMESPACE/SERVICE[:PORT]|URL", env = "LOOKBACK_DELEGATE_CUSTOM_METRICS")]
    pub delegate_custom_metrics: Option<AdapterAddress>,

    /// The same for external metrics.
    #[arg(long, value_name = "NAMESPACE/SERVICE[:PORT]|URL", env = "LOOKBACK_DELEGATE_EXTERNAL_METRICS")]
    pub delegate_external_metrics: Option<AdapterAddress>,

    /// The CAs by which the certificates of these adapters are verified, PEM; read again when it changes.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_DELEGATE_CA_FILE")]
    pub delegate_ca_file: Option<PathBuf>,

    /// The name that their certificates are for [default: SERVICE.NAMESPACE.svc, or the URL's host].
    #[arg(long, value_name = "NAME", env = "LOOKBACK_DELEGATE_SERVER_NAME")]
    pub delegate_server_name: Option<String>,

    /// A file with the bearer token that is shown to them [default: to a Service, the pod's own].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_DELEGATE_TOKEN_FILE")]
    pub delegate_token_file: Option<PathBuf>,

    /// How long one of their answers may take.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_DELEGATE_TIMEOUT", default_value = "5s",
          value_parser = super::duration)]
    pub delegate_timeout: Duration,

    /// How often it is read what they list in discovery.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_DELEGATE_DISCOVERY_INTERVAL", default_value = "1m",
          value_parser = super::duration)]
    pub delegate_discovery_interval: Duration,
}

impl DelegationArgs {
    /// The adapters, within a tokio runtime; nothing is sent yet.
    ///
    /// # Errors
    /// When one can't be asked so.
    pub fn delegates(&self) -> Result<Delegates, AdapterSettingsError> {
        let adapter = |address: &Option<AdapterAddress>| {
            let Some(address) = address else { return Ok(None) };
            let pods_own = || {
                let path = Path::new(SERVICE_ACCOUNT_TOKEN);
                (address.is_service && path.exists()).then(|| path.to_owned())
            };
            let settings = AdapterSettings {
                address: address.clone(),
                ca_file: self.delegate_ca_file.clone(),
                token_file: self.delegate_token_file.clone().or_else(pods_own),
                server_name: self.delegate_server_name.clone(),
                timeout: self.delegate_timeout,
            };
            Adapter::new(&settings).map(|adapter| Some(Arc::new(adapter)))
        };
        Ok(Delegates {
            discovery_interval: self.delegate_discovery_interval.max(Duration::from_secs(1)),
            custom: adapter(&self.delegate_custom_metrics)?,
            external: adapter(&self.delegate_external_metrics)?,
        })
    }
}
