//! Flags of the collector of usage, under metrics-server's own names.

use super::duration;
use crate::sources::kubelet::settings::KubeletSettings;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Least time from one question to the next: kubelets measure anew every 10 to 15 s.
const RESOLUTION_MIN: Duration = Duration::from_secs(1);

/// Flags of what is asked of kubelets.
#[derive(Clone, Debug, Default, Args)]
pub struct KubeletArgs {
    /// Ask the cluster's kubelets what containers, pods and nodes use (right: get nodes/metrics).
    #[arg(long, env = "LOOKBACK_COLLECT_USAGE")]
    pub collect_usage: bool,

    /// How often each kubelet is asked [default: 15s].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_METRIC_RESOLUTION", value_parser = resolution)]
    pub metric_resolution: Option<Duration>,

    /// How long a kubelet may take; at most --metric-resolution [default: 10s].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_KUBELET_REQUEST_TIMEOUT", value_parser = duration)]
    pub kubelet_request_timeout: Option<Duration>,

    /// The CA of kubelets' certificates, PEM; read again when it changes [default: the cluster's CA].
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_KUBELET_CERTIFICATE_AUTHORITY",
        conflicts_with = "kubelet_insecure_tls"
    )]
    pub kubelet_certificate_authority: Option<PathBuf>,

    /// Believe any certificate of a kubelet: whoever stands between can read the token. For tests only.
    #[arg(long, env = "LOOKBACK_KUBELET_INSECURE_TLS")]
    pub kubelet_insecure_tls: bool,

    /// The kubelets' port [default: 10250].
    #[arg(long, value_name = "PORT", env = "LOOKBACK_KUBELET_PORT")]
    pub kubelet_port: Option<u16>,

    /// Use the port in the node's status, where there is one.
    #[arg(long, env = "LOOKBACK_KUBELET_USE_NODE_STATUS_PORT")]
    pub kubelet_use_node_status_port: bool,

    /// Which of a node's addresses is asked, the first type that it has
    /// [default: InternalIP,ExternalIP,Hostname].
    #[arg(
        long,
        value_name = "TYPES",
        env = "LOOKBACK_KUBELET_PREFERRED_ADDRESS_TYPES",
        value_delimiter = ','
    )]
    pub kubelet_preferred_address_types: Vec<String>,
}

impl KubeletArgs {
    /// How kubelets are asked.
    #[must_use]
    pub fn settings(&self) -> KubeletSettings {
        let default = KubeletSettings::default();
        let resolution = self.metric_resolution.unwrap_or(default.resolution);
        let address_types = match self.kubelet_preferred_address_types.as_slice() {
            [] => default.address_types,
            types => types.to_vec(),
        };
        KubeletSettings {
            resolution,
            timeout: self.kubelet_request_timeout.unwrap_or(default.timeout).min(resolution),
            port: self.kubelet_port.unwrap_or(default.port),
            use_node_status_port: self.kubelet_use_node_status_port,
            address_types,
            certificate_authority: self.kubelet_certificate_authority.clone(),
            insecure_tls: self.kubelet_insecure_tls,
        }
    }
}

fn resolution(text: &str) -> Result<Duration, String> {
    let resolution = duration(text)?;
    if resolution < RESOLUTION_MIN {
        return Err(format!("use {RESOLUTION_MIN:?} or more: kubelets measure anew every 10 to 15 s"));
    }
    Ok(resolution)
}
