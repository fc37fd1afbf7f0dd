//! Flags that say which Kubernetes cluster is asked, under Kubernetes' own names.

use crate::kubernetes::cluster::ClusterSettings;
use clap::Args;
use std::path::PathBuf;

/// Flags of the connection to Kubernetes. In a pod with a mounted service account none is needed.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// The kubeconfig of the cluster [default: the pod's service account; without one: no cluster].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// The kubeconfig by which tokens are reviewed and ConfigMap extension-apiserver-authentication is
    /// read [default: as --kubeconfig].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_AUTHENTICATION_KUBECONFIG")]
    pub authentication_kubeconfig: Option<PathBuf>,

    /// The kubeconfig by which it is asked who may do what [default: as --kubeconfig].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_AUTHORIZATION_KUBECONFIG")]
    pub authorization_kubeconfig: Option<PathBuf>,

    /// The kubeconfig by which the cluster's objects are listed and watched [default: as --kubeconfig].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_LISTER_KUBECONFIG")]
    pub lister_kubeconfig: Option<PathBuf>,

    /// Take pushes of objects whose resource the cluster does not have, if it is named with its group.
    #[arg(long, env = "LOOKBACK_ALLOW_UNKNOWN_RESOURCES")]
    pub allow_unknown_resources: bool,
}

impl ClusterArgs {
    /// What a connection is made of.
    #[must_use]
    pub fn settings(&self) -> ClusterSettings {
        ClusterSettings {
            kubeconfig: self.kubeconfig.clone(),
            authentication_kubeconfig: self.authentication_kubeconfig.clone(),
            authorization_kubeconfig: self.authorization_kubeconfig.clone(),
            lister_kubeconfig: self.lister_kubeconfig.clone(),
        }
    }
}
