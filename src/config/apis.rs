//! Flags that say which Kubernetes APIs are served.

use crate::kubernetes::served::{RuntimeConfigError, Served};
use clap::Args;

/// Flags of the Kubernetes APIs.
#[derive(Clone, Debug, Default, Args)]
pub struct ApisArgs {
    /// Groups and versions that are turned on or off, as custom.metrics.k8s.io/v1beta2=false; api/all
    /// stands for all. All but metrics.k8s.io are on.
    #[arg(long, value_name = "API=BOOL", env = "LOOKBACK_RUNTIME_CONFIG", value_delimiter = ',',
          value_parser = setting)]
    pub runtime_config: Vec<String>,
}

impl ApisArgs {
    /// What is served.
    ///
    /// # Errors
    /// When a setting turns nothing on or off.
    pub fn served(&self) -> Result<Served, RuntimeConfigError> {
        Served::of_runtime_config(self.runtime_config.iter().map(String::as_str))
    }
}

fn setting(text: &str) -> Result<String, String> {
    Served::of_runtime_config([text]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
