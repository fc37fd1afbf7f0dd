//! Commands beside the server: they look at a cluster, or at a running Lookback, and end.

pub mod check_config;
pub mod explain;
pub mod export;
pub mod inspect;
pub mod migrate;
pub mod operations;
pub mod outbox;
pub mod registration;
pub mod shadow;

use crate::config::registration::KubeconfigArgs;
use crate::kubernetes::cluster::{Cluster, ClusterSettings};
use anyhow::Context;
use kube::Client;

/// The cluster that the flags name, else the one that kubectl would ask.
async fn client(args: &KubeconfigArgs) -> anyhow::Result<Client> {
    if args.kubeconfig.is_some() {
        let settings = ClusterSettings { kubeconfig: args.kubeconfig.clone(), ..ClusterSettings::default() };
        let cluster = Cluster::connect(&settings).await?;
        return Ok(cluster.context("no cluster")?.lister);
    }
    Client::try_default().await.context("no cluster can be asked: give --kubeconfig FILE")
}
