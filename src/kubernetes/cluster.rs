//! The connection to the Kubernetes cluster that Lookback serves, if there is one.
//!
//! Three clients, as Kubernetes' own flags have it: one reviews tokens, one asks who may do what, one
//! lists and watches. They are the same client unless flags tell them apart. Nothing is sent when they
//! are made: an API server that is away does not keep Lookback from starting.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How long a connection to the API server may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a pod finds its service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const SERVICE_HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// By which files the cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `--kubeconfig`; `None`: the pod's service account, or no cluster where there is none.
    pub kubeconfig: Option<PathBuf>,
    /// `--authentication-kubeconfig`; `None`: as `kubeconfig`.
    pub authentication_kubeconfig: Option<PathBuf>,
    /// `--authorization-kubeconfig`; `None`: as `kubeconfig`.
    pub authorization_kubeconfig: Option<PathBuf>,
    /// `--lister-kubeconfig`; `None`: as `kubeconfig`.
    pub lister_kubeconfig: Option<PathBuf>,
}

/// Why the cluster can't be reached by these files. Each says what to do.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A kubeconfig that can't be used.
    #[error("{flag} {path}: {reason}: give a kubeconfig whose current context names a cluster and a user")]
    Kubeconfig {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A pod whose service account can't be used.
    #[error(
        "this pod's service account can't be used: {0}: mount it (automountServiceAccountToken: true), or give \
         --kubeconfig FILE"
    )]
    InCluster(String),
    /// One of the kubeconfigs is there, but there is no cluster for the others.
    #[error(
        "{flag} is given, but nothing says how to reach the cluster otherwise: give --kubeconfig FILE too"
    )]
    OnlySome {
        /// The flag that was given.
        flag: &'static str,
    },
}

/// The cluster; a cheap clone.
#[derive(Clone)]
pub struct Cluster {
    /// Reviews tokens and reads ConfigMap `kube-system/extension-apiserver-authentication`.
    pub authentication: Client,
    /// Asks who may do what.
    pub authorization: Client,
    /// Lists and watches objects, and writes the few that Lookback keeps.
    pub lister: Client,
    /// The namespace in which Lookback runs, or that of the kubeconfig's context.
    pub namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes the clients, within a tokio runtime; `None`: nothing says that there is a cluster.
    ///
    /// # Errors
    /// When a file that was named, or the pod's service account, can't be used.
    pub async fn connect(settings: &ClusterSettings) -> Result<Option<Self>, ClusterError> {
        let own = [
            ("--authentication-kubeconfig", &settings.authentication_kubeconfig),
            ("--authorization-kubeconfig", &settings.authorization_kubeconfig),
            ("--lister-kubeconfig", &settings.lister_kubeconfig),
        ];
        let common = match &settings.kubeconfig {
            Some(path) => Some(of_file("--kubeconfig", path).await?),
            None => in_cluster()?,
        };
        let mut made: BTreeMap<&Path, Client> = BTreeMap::new();
        let mut clients = Vec::with_capacity(own.len());
        let mut namespace = common.as_ref().map(|(_, namespace)| namespace.clone());
        for (flag, path) in own {
            let client = match (path, &common) {
                (None, Some((client, _))) => client.clone(),
                (None, None) => continue,
                (Some(path), _) => match made.get(path.as_path()) {
                    Some(client) => client.clone(),
                    None => {
                        let (client, of_context) = of_file(flag, path).await?;
                        namespace.get_or_insert(of_context);
                        made.insert(path, client.clone());
                        client
                    }
                },
            };
            clients.push(client);
        }
        match (<[Client; 3]>::try_from(clients), namespace) {
            (Ok([authentication, authorization, lister]), Some(namespace)) => {
                Ok(Some(Self { authentication, authorization, lister, namespace }))
            }
            _ => match own.iter().find(|(_, path)| path.is_some()) {
                Some((flag, _)) => Err(ClusterError::OnlySome { flag }),
                None => Ok(None),
            },
        }
    }
}

/// The credentials by which objects are listed, to show them to others of the cluster (kubelets); `None`: nothing
/// says that there is a cluster.
///
/// # Errors
/// When a file that was named, or the pod's service account, can't be used.
pub async fn lister_config(settings: &ClusterSettings) -> Result<Option<Config>, ClusterError> {
    match (&settings.lister_kubeconfig, &settings.kubeconfig) {
        (Some(path), _) => config_of_file("--lister-kubeconfig", path).await.map(Some),
        (None, Some(path)) => config_of_file("--kubeconfig", path).await.map(Some),
        (None, None) => in_cluster_config(),
    }
}

async fn of_file(flag: &'static str, path: &Path) -> Result<(Client, String), ClusterError> {
    let config = config_of_file(flag, path).await?;
    let failed = |reason: String| ClusterError::Kubeconfig { flag, path: path.to_owned(), reason };
    client(config).map_err(failed)
}

async fn config_of_file(flag: &'static str, path: &Path) -> Result<Config, ClusterError> {
    let failed = |reason: String| ClusterError::Kubeconfig { flag, path: path.to_owned(), reason };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(reasons(&error)))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| failed(reasons(&error)))
}

fn in_cluster() -> Result<Option<(Client, String)>, ClusterError> {
    in_cluster_config()?.map(client).transpose().map_err(ClusterError::InCluster)
}

fn in_cluster_config() -> Result<Option<Config>, ClusterError> {
    if std::env::var_os(SERVICE_HOST_VARIABLE).is_none() || !Path::new(SERVICE_ACCOUNT_TOKEN).exists() {
        return Ok(None);
    }
    Config::incluster().map(Some).map_err(|error| ClusterError::InCluster(reasons(&error)))
}

fn client(mut config: Config) -> Result<(Client, String), String> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| reasons(&error))?;
    Ok((client, namespace))
}

/// An error with what is behind it, in one line.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: monitoring}}]
current-context: x
";

    fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    #[tokio::test]
    async fn without_files_and_outside_of_a_pod_there_is_no_cluster() {
        assert!(Cluster::connect(&ClusterSettings::default()).await.expect("usable").is_none());
    }

    #[tokio::test]
    async fn a_kubeconfig_is_enough_and_nothing_is_sent_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = Some(written(dir.path(), "config", KUBECONFIG));
        let settings = ClusterSettings { kubeconfig, ..ClusterSettings::default() };
        let cluster = Cluster::connect(&settings).await.expect("usable").expect("a cluster");
        assert_eq!(cluster.namespace, "monitoring");
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_used_is_named_with_its_flag() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path(), "empty", "apiVersion: v1\nkind: Config\ncurrent-context: x\n");
        let absent = dir.path().join("absent");
        for (settings, said) in [
            (ClusterSettings { kubeconfig: Some(absent), ..ClusterSettings::default() }, "--kubeconfig"),
            (ClusterSettings { kubeconfig: Some(path), ..ClusterSettings::default() }, "--kubeconfig"),
            (
                ClusterSettings {
                    lister_kubeconfig: Some(written(dir.path(), "config", KUBECONFIG)),
                    ..ClusterSettings::default()
                },
                "--lister-kubeconfig",
            ),
        ] {
            let error = Cluster::connect(&settings).await.expect_err("refused").to_string();
            assert!(error.contains(said) && error.lines().count() == 1, "{error}");
        }
    }
}
