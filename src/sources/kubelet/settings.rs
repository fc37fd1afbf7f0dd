//! How kubelets are asked.

use std::path::PathBuf;
use std::time::Duration;

/// Choices about kubelets; the names are those of metrics-server's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletSettings {
    /// From one question to the next of the same kubelet.
    pub resolution: Duration,
    /// How long one may take; at most the resolution.
    pub timeout: Duration,
    /// The port, unless the node's own status counts.
    pub port: u16,
    /// Whether the port in the node's status counts, where there is one.
    pub use_node_status_port: bool,
    /// Which of a node's addresses is asked: the first type that it has.
    pub address_types: Vec<String>,
    /// Whose certificates are believed, PEM, read again when it changes; `None`: the cluster's CA.
    pub certificate_authority: Option<PathBuf>,
    /// Whether any certificate is believed.
    pub insecure_tls: bool,
}

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            resolution: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            port: 10_250,
            use_node_status_port: false,
            address_types: ["InternalIP", "ExternalIP", "Hostname"].map(str::to_owned).to_vec(),
            certificate_authority: None,
            insecure_tls: false,
        }
    }
}
