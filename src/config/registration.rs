//! Flags of the commands that read and change who serves the metrics APIs.

use super::LogArgs;
use crate::kubernetes::registration::{ApiName, ServiceName};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// How a command reaches the cluster.
#[derive(Clone, Debug, Args)]
pub struct KubeconfigArgs {
    /// The kubeconfig [default: as kubectl: $KUBECONFIG, ~/.kube/config, the pod's service account].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// Which APIs, and Lookback's Service.
#[derive(Clone, Debug, Args)]
pub struct RegistrationArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: KubeconfigArgs,

    /// Lookback's own Service.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "LOOKBACK_SERVICE", default_value = "lookback/lookback",
          value_parser = service)]
    pub service: ServiceName,

    /// The APIServices that are to be Lookback's, separated by commas.
    #[arg(long, value_name = "NAMES", env = "LOOKBACK_APIS", value_delimiter = ',', value_parser = api,
          default_value = "v1beta1.custom.metrics.k8s.io,v1beta2.custom.metrics.k8s.io")]
    pub apis: Vec<ApiName>,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `lookback preflight`.
#[derive(Clone, Debug, Args)]
pub struct PreflightArgs {
    /// Which APIs, and whose.
    #[command(flatten)]
    pub registration: RegistrationArgs,

    /// It is meant that others lose what they serve.
    #[arg(long, env = "LOOKBACK_TAKE_OVER")]
    pub take_over: bool,
}

/// Flags of `lookback take-over`.
#[derive(Clone, Debug, Args)]
pub struct TakeOverArgs {
    /// Which APIs, and whose.
    #[command(flatten)]
    pub registration: RegistrationArgs,

    /// The port of the Service.
    #[arg(long, value_name = "PORT", env = "LOOKBACK_SERVICE_PORT", default_value_t = 443)]
    pub service_port: u16,

    /// The CA of the Service's certificate, PEM [default: the running Lookback puts in its own].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_SERVICE_CA_FILE")]
    pub service_ca_file: Option<PathBuf>,

    /// How long each may take to become available; past that all is given back.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_WAIT", default_value = "1m", value_parser = super::duration)]
    pub wait: Duration,
}

/// Reads `NAMESPACE/NAME`.
pub(super) fn service(text: &str) -> Result<ServiceName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("use NAMESPACE/NAME, as in lookback/lookback".to_owned()),
    }
}

fn api(text: &str) -> Result<ApiName, String> {
    ApiName::of(text).ok_or_else(|| {
        let known: Vec<String> =
            crate::kubernetes::registration::APIS.iter().map(ToString::to_string).collect();
        format!("use {}", known.join(", "))
    })
}
