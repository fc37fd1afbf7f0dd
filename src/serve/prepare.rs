//! From the command line to open listeners: everything that can be wrong before the store is opened.

use super::certificate::{RENEWAL_INTERVAL, Source};
use super::rules::{self, RulesFileError};
use super::{Plain, Secure};
use crate::app::{Delegates, Settings};
use crate::clock::Clock;
use crate::config::{RemoteStoreError, ScrapeArgs, SecureArgs, ServeArgs, SettingsError};
use crate::http::auth::{AllowedPaths, Delegated, PlainAuth, SecureAuth};
use crate::http::credentials::{Credentials, CredentialsError, OpenListener, check_bind};
use crate::http::identity::FrontProxySettings;
use crate::http::reload;
use crate::http::tls::{TlsError, TlsSettings};
use crate::http::trust::{Trust, TrustError, TrustSettings};
use crate::kubernetes::adapter::AdapterSettingsError;
use crate::kubernetes::ca_bundle::{self, ServiceName};
use crate::kubernetes::certificates::CertificateError;
use crate::kubernetes::cluster::{Cluster, ClusterError, lister_config, reasons};
use crate::kubernetes::reviews::{AccessReviews, KEPT, TokenReviews};
use crate::kubernetes::served::RuntimeConfigError;
use crate::kubernetes::shared_ca::SharedCa;
use crate::rules::Rules;
use crate::sources::kubelet::client::KubeletClient;
use crate::sources::kubelet::collector::Collection;
use crate::sources::scrape::config::{self, ScrapeConfigError};
use crate::sources::scrape::pods::Pods;
use crate::sources::scrape::scraper::Sources;
use crate::store::opening::OpeningStore;
use crate::store::prometheus::RemoteSettings;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpListener;

/// Why the server can't start. Each is one sentence that says what to do.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The plain port could be reached by anyone.
    #[error(transparent)]
    Open(#[from] OpenListener),
    /// The secure port could be reached by others, and nobody could be let in.
    #[error(
        "--bind-address {address} can be reached from other machines, and nothing says who may call: give \
         --requestheader-client-ca-file FILE with the CA of kube-apiserver's front proxy, --kubeconfig FILE or \
         --credentials-file FILE with tokens or passwords, stay on this machine with --bind-address 127.0.0.1, \
         or turn the secure port off with --secure-port 0"
    )]
    OpenSecure {
        /// Where.
        address: IpAddr,
    },
    /// The settings file is not usable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The flags of the store contradict one another.
    #[error(transparent)]
    Store(#[from] RemoteStoreError),
    /// A `--runtime-config` that turns nothing on or off.
    #[error("--runtime-config {0}")]
    RuntimeConfig(#[from] RuntimeConfigError),
    /// The credentials file is not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A CA of callers is not usable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// There is no certificate to serve with.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The cluster can't be reached by what was given.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The certificate can't be served.
    #[error("the secure port can't serve its certificate: {0}")]
    Tls(#[from] TlsError),
    /// The rules of `--config`, or the servers that they look in, are not usable.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// The scrape configuration is not usable.
    #[error(transparent)]
    Scrape(#[from] ScrapeConfigError),
    /// The adapter behind Lookback can't be asked.
    #[error("--delegate-custom-metrics, --delegate-external-metrics, --delegate-ca-file: {0}")]
    Delegate(#[from] AdapterSettingsError),
    /// Kubelets are to be asked where there are none.
    #[error("--collect-usage needs a cluster: give --kubeconfig FILE, or leave it out")]
    NoKubelets,
    /// Kubelets can't be asked with what was given.
    #[error(
        "--collect-usage: kubelets can't be asked: {0}: give --kubelet-certificate-authority FILE with their CA, and a \
         kubeconfig with a token or client certificate"
    )]
    Kubelets(String),
    /// Pods are to be scraped where there are none.
    #[error("--scrape-pods needs a cluster: give --kubeconfig FILE, or leave it out")]
    NoPods,
    /// Another process listens there, or the address is not this machine's.
    #[error("can't listen on {address}: {reason}: choose another with {flag}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The flag that says where.
        flag: &'static str,
        /// Why not.
        reason: io::Error,
    },
}

/// Listeners and settings, ready to serve.
pub struct Prepared {
    /// What handlers work with.
    pub settings: Settings,
    /// The engine that keeps the samples; `None`: the embedded one.
    pub remote: Option<RemoteSettings>,
    /// Stands in for the store until that is open; the rules ask it already.
    pub opening: Arc<OpeningStore>,
    /// The rules of `--config` and of `--prometheus-url`; `None`: neither was given.
    pub rules: Option<Arc<Rules>>,
    /// The plain port.
    pub plain: Plain,
    /// The secure port, unless it is off.
    pub secure: Option<Secure>,
    /// Whether the plain port asks for credentials.
    pub has_credentials: bool,
    /// The Kubernetes cluster, if there is one.
    pub cluster: Option<Cluster>,
    /// The adapters for what Lookback does not know.
    pub delegates: Delegates,
    /// What is scraped, once the store is open.
    pub scrape: Sources,
    /// Which kubelets are asked what is used, once the store is open.
    pub usage: Option<Collection>,
    /// What goes on beside serving, for ever: files that are read again, and what is watched.
    pub background: Vec<BoxFuture<'static, ()>>,
}

/// Reads the files that flags name, makes a certificate where none is given, and binds the ports.
///
/// # Errors
/// When a file is missing or wrong, a port is taken, or the plain port would be open to anyone.
pub async fn prepare(args: &ServeArgs, clock: Arc<dyn Clock>) -> Result<Prepared, PrepareError> {
    let remote = args.remote.settings(args)?;
    let cluster = Cluster::connect(&args.cluster.settings()).await?;
    check_bind(args.listen, args.credentials_file.is_some() || cluster.is_some())?;
    check_secure_bind(args, cluster.is_some())?;
    let mut settings = args.app_settings()?;
    settings.served = args.apis.served()?;
    // Where the aggregator authenticates and authorises, nothing may go around it.
    settings.kubernetes_apis_on_plain_port = cluster.is_none();
    let delegates = args.delegation.delegates()?;
    let opening = Arc::new(OpeningStore::default());
    let rules = rules::prepare(&args.rules, &args.prometheus, opening.clone(), &settings)?;
    let scrape = scrape_sources(&args.scrape, cluster.as_ref())?;
    let usage = usage(args, cluster.as_ref()).await?;
    let mut background = Vec::new();
    let credentials = args.credentials_file.as_deref().map(Credentials::read).transpose()?.map(Arc::new);
    if let (Some(credentials), Some(path)) = (&credentials, &args.credentials_file) {
        background.push(credentials.clone().keep(path.clone(), reload::INTERVAL).boxed());
    }
    let delegated = cluster.as_ref().map(delegated);
    let trust_loopback = args.authentication.trust_loopback && args.listen.ip().to_canonical().is_loopback();
    let mut auth = PlainAuth::new(credentials.clone());
    if let Some(delegated) = &delegated {
        auth = auth.delegating(delegated.clone(), trust_loopback);
    }
    let has_credentials = credentials.is_some() || (cluster.is_some() && !trust_loopback);
    let plain = Plain { listener: bind(args.listen, "--listen").await?, auth };
    let secure = match args.secure_listen() {
        Some(address) => {
            let trust = trust(args, cluster.as_ref(), &mut background)?;
            let listener = bind(address, "--bind-address and --secure-port").await?;
            let tls = tls(args, cluster.as_ref(), &clock, &mut background).await?;
            let paths = args.authentication.authorization_always_allow_paths.iter().cloned();
            let mut auth = SecureAuth::new(None, credentials, clock).trusting(trust);
            auth = auth.allowing(AllowedPaths::new(paths));
            if let Some(delegated) = delegated {
                auth = auth.delegating(delegated);
            }
            Some(Secure { listener, tls, auth })
        }
        None => None,
    };
    Ok(Prepared {
        settings,
        remote,
        opening,
        rules,
        plain,
        secure,
        has_credentials,
        cluster,
        delegates,
        scrape,
        usage,
        background,
    })
}

fn scrape_sources(args: &ScrapeArgs, cluster: Option<&Cluster>) -> Result<Sources, PrepareError> {
    let has_cluster = cluster.is_some();
    let read = |path: &PathBuf| Ok::<_, ScrapeConfigError>((path.clone(), config::read(path, has_cluster)?));
    let pods = match (args.scrape_pods, cluster) {
        (false, _) => None,
        (true, Some(cluster)) => Some(Pods::new(cluster.lister.clone(), args.scrape_pods_interval)),
        (true, None) => return Err(PrepareError::NoPods),
    };
    let file = args.scrape_config.as_ref().map(read).transpose()?;
    Ok(Sources { file, pods, cluster: cluster.map(|cluster| cluster.lister.clone()) })
}

async fn usage(args: &ServeArgs, cluster: Option<&Cluster>) -> Result<Option<Collection>, PrepareError> {
    if !args.kubelet.collect_usage {
        return Ok(None);
    }
    let config = lister_config(&args.cluster.settings()).await?;
    let (Some(cluster), Some(config)) = (cluster, config) else { return Err(PrepareError::NoKubelets) };
    let settings = args.kubelet.settings();
    let kubelets =
        KubeletClient::new(config, &settings).map_err(|error| PrepareError::Kubelets(reasons(&error)))?;
    Ok(Some(Collection { nodes: cluster.lister.clone(), kubelets, settings }))
}

fn delegated(cluster: &Cluster) -> Delegated {
    Delegated::new(
        TokenReviews::new(cluster.authentication.clone(), KEPT),
        AccessReviews::new(cluster.authorization.clone(), KEPT),
    )
}

/// Which CAs are believed: the flags' files, and in a cluster what its ConfigMap says.
fn trust(
    args: &ServeArgs,
    cluster: Option<&Cluster>,
    background: &mut Vec<BoxFuture<'static, ()>>,
) -> Result<Arc<Trust>, TrustError> {
    let trust = Arc::new(Trust::new(TrustSettings {
        front_proxy: front_proxy(&args.secure),
        client_ca_file: args.authentication.client_ca_file.clone(),
    })?);
    background.push(trust.clone().keep_files(reload::INTERVAL).boxed());
    match cluster {
        Some(cluster) if trust.needs_lookup() && !args.authentication.authentication_skip_lookup => {
            background.push(trust.clone().watch(cluster.authentication.clone()).boxed());
        }
        _ => {}
    }
    Ok(trust)
}

/// A secure port on other addresses than loopback needs someone whom it could let in.
fn check_secure_bind(args: &ServeArgs, in_cluster: bool) -> Result<(), PrepareError> {
    let address = args.bind_address;
    let files = [&args.credentials_file, &args.secure.requestheader_client_ca_file];
    let knows_callers = in_cluster || files.iter().any(|file| file.is_some());
    if args.secure_listen().is_none() || knows_callers || address.to_canonical().is_loopback() {
        return Ok(());
    }
    Err(PrepareError::OpenSecure { address })
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, PrepareError> {
    TcpListener::bind(address).await.map_err(|reason| PrepareError::Bind { address, flag, reason })
}

/// TLS with the certificate that flags name, or with one made for the names by which the cluster calls;
/// in a cluster the APIServices are told of the latter.
async fn tls(
    args: &ServeArgs,
    cluster: Option<&Cluster>,
    clock: &Arc<dyn Clock>,
    background: &mut Vec<BoxFuture<'static, ()>>,
) -> Result<TlsSettings, PrepareError> {
    let service = args.tls.service(cluster.map(|cluster| cluster.namespace.as_str()));
    let directory = args.secure.cert_dir.as_ref().unwrap_or(&args.store.data_dir).clone();
    let (source, interval) = match (&args.secure.tls_cert_file, &args.secure.tls_private_key_file) {
        (Some(certificate), Some(key)) => {
            (Source::Files { certificate: certificate.clone(), key: key.clone() }, reload::INTERVAL)
        }
        _ => {
            let names = service.as_ref().map(ServiceName::dns_names).unwrap_or_default();
            (Source::Made { directory, names }, RENEWAL_INTERVAL)
        }
    };
    let shared = match (&source, cluster, &args.tls.ca_secret) {
        (Source::Made { directory, .. }, Some(cluster), Some(secret)) => {
            let client = cluster.lister.clone();
            let shared = SharedCa::new(client, &cluster.namespace, secret, directory)?;
            agreed(&shared, clock.now_ms()).await;
            Some(Arc::new(shared))
        }
        _ => None,
    };
    let tls = TlsSettings::with_options(source.read(clock.now_ms())?, &args.tls.options())?;
    if let (Some(cluster), Some(service), Some(ca_path)) = (cluster, service, source.made_ca_path()) {
        let (source, tls, clock) = (source.clone(), tls.clone(), clock.clone());
        let bundle = move || {
            let (shared, source, tls) = (shared.clone(), source.clone(), tls.clone());
            let (ca_path, now_ms) = (ca_path.clone(), clock.now_ms());
            async move {
                if let Some(shared) = shared
                    && agreed(&shared, now_ms).await
                {
                    source.serve_again(&tls, now_ms);
                }
                std::fs::read_to_string(&ca_path).unwrap_or_default()
            }
        };
        let served = args.apis.served()?;
        let client = cluster.lister.clone();
        background.push(ca_bundle::keep(client, service, served, bundle, ca_bundle::INTERVAL).boxed());
    }
    background.push(source.keep(tls.clone(), clock.clone(), interval).boxed());
    Ok(tls)
}

/// Whether another authority is kept now. Without an agreement this replica goes by its own.
async fn agreed(shared: &SharedCa, now_ms: i64) -> bool {
    let agreed = shared.agree(now_ms).await;
    agreed.unwrap_or_else(|error| {
        tracing::warn!(%error, "the certificate authority is not shared with other replicas at present");
        false
    })
}

fn front_proxy(args: &SecureArgs) -> Option<FrontProxySettings> {
    Some(FrontProxySettings {
        requestheader_client_ca_file: args.requestheader_client_ca_file.clone()?,
        requestheader_allowed_names: args.requestheader_allowed_names.clone(),
        requestheader_username_headers: args.requestheader_username_headers.clone(),
        requestheader_uid_headers: args.requestheader_uid_headers.clone(),
        requestheader_group_headers: args.requestheader_group_headers.clone(),
        requestheader_extra_headers_prefix: args.requestheader_extra_headers_prefix.clone(),
    })
}
