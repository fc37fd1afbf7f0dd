//! Flags that say who is let in, under Kubernetes' own names where it has one.

use clap::Args;
use std::path::PathBuf;

/// Flags of authentication and authorisation in a cluster.
#[derive(Clone, Debug, Args)]
pub struct AuthenticationArgs {
    /// The CA of users' client certificates on the secure port, PEM: the common name is the user, each
    /// organisation a group [default: as ConfigMap kube-system/extension-apiserver-authentication says].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// Do not read ConfigMap kube-system/extension-apiserver-authentication: only flags say which CAs
    /// are believed.
    #[arg(long, env = "LOOKBACK_AUTHENTICATION_SKIP_LOOKUP")]
    pub authentication_skip_lookup: bool,

    /// Paths of the secure port that anyone may get, separated by commas; a * at the end stands for any
    /// rest.
    #[arg(
        long,
        value_name = "PATHS",
        env = "LOOKBACK_AUTHORIZATION_ALWAYS_ALLOW_PATHS",
        value_delimiter = ',',
        default_value = "/healthz,/readyz,/livez"
    )]
    pub authorization_always_allow_paths: Vec<String>,

    /// In a cluster: callers of a loopback --listen need no credentials, as they need none without a
    /// cluster. In a pod that is every container of the pod.
    #[arg(long, env = "LOOKBACK_TRUST_LOOPBACK")]
    pub trust_loopback: bool,
}
