//! The command line: what it takes, from where, and what it means.
//!
//! Each flag is also an environment variable, `LOOKBACK_` and the flag's name in capitals with `_` for
//! `-`. A flag wins over its variable, a variable over `--settings`' file, the file over the default.

mod apis;
mod authentication;
mod autoscaling;
mod cluster;
mod damage;
mod delegation;
pub mod delete;
pub mod explain;
pub mod export;
pub mod inspect;
mod kubelet;
mod limits;
mod log;
pub mod migrate;
mod operations;
pub mod outbox;
mod prometheus;
mod query;
pub mod registration;
mod remote_store;
pub mod retention;
mod rules;
mod scrape;
mod secure;
mod selection;
mod settings_file;
pub mod shadow;
mod tls;
mod values;
mod yaml;

pub use apis::ApisArgs;
pub use authentication::AuthenticationArgs;
pub use autoscaling::AutoscalingArgs;
pub use cluster::ClusterArgs;
pub use damage::{DamageArgs, OnDamage};
pub use delegation::DelegationArgs;
pub use delete::DeleteCommand;
pub use kubelet::KubeletArgs;
pub use limits::LimitsArgs;
pub use log::{LogArgs, LogFormat};
pub use operations::{BackupArgs, RestoreArgs, VerifyArgs};
pub use prometheus::{NamedServer, PrometheusArgs, PrometheusArgsError};
pub use query::QueryArgs;
pub use remote_store::{EngineArgs, RemoteStoreArgs, RemoteStoreError, StoreKind};
pub use retention::{Retention, RetentionArgs};
pub use rules::{CheckConfigArgs, RulesArgs};
pub use scrape::ScrapeArgs;
pub use secure::SecureArgs;
pub use selection::{SelectionArgs, Selector, SpanArgs};
pub use settings_file::SettingsError;
pub use tls::TlsArgs;
pub use values::{Interval, RequestsPerSecond};

use self::explain::ExplainArgs;
use self::export::ExportArgs;
use self::inspect::InspectArgs;
use self::migrate::MigrateArgs;
use self::outbox::OutboxArgs;
use self::registration::{PreflightArgs, RegistrationArgs, TakeOverArgs};
use self::shadow::ShadowArgs;
use crate::app::Settings;
use crate::ingest::import::ImportArgs;
use clap::{Args, Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use values::{count, duration, interval, requests_per_second};

/// Remembers metrics so that Kubernetes autoscaling and right-sizing can act on them.
#[derive(Debug, Parser)]
#[command(name = "lookback", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Box<ServeArgs>,
}

/// What `lookback` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take metrics and answer questions about them (what happens without a subcommand).
    Serve(Box<ServeArgs>),
    /// Load a file of history into the store while no server holds it.
    Import(Box<ImportCommand>),
    /// Explain what an autoscaler was answered, and what it makes of it.
    Explain(Box<ExplainArgs>),
    /// Check every checksum of a data directory, also beside a running server; fails where any is wrong.
    Verify(Box<VerifyArgs>),
    /// Back a store up into a directory, incrementally, or a stream, while no server holds it.
    Backup(Box<BackupArgs>),
    /// Make a store of a backup, a directory or a stream, after checking all of it.
    Restore(Box<RestoreArgs>),
    /// Show who serves the metrics APIs, and fail where registering Lookback would take them from another.
    Preflight(Box<PreflightArgs>),
    /// Register the metrics APIs to Lookback, and remember who had them.
    TakeOver(Box<TakeOverArgs>),
    /// Give the metrics APIs back to whom they were taken from.
    GiveBack(Box<RegistrationArgs>),
    /// Compare Lookback with the adapter that the cluster has, by what its autoscalers would make of either.
    Shadow(Box<ShadowArgs>),
    /// Delete series, or a span of them, while no server holds the store.
    Delete(Box<DeleteCommand>),
    /// Show what a data directory holds and how much it takes, also beside a running server.
    Inspect(Box<InspectArgs>),
    /// Write series as OpenMetrics text while no server holds the store; import brings them back.
    Export(Box<ExportArgs>),
    /// Move the history of a data directory into a Prometheus-compatible engine, while no server holds it.
    Migrate(Box<MigrateArgs>),
    /// Show how each rule of a file of prometheus-adapter stands; fails where one can't be used.
    CheckConfig(Box<CheckConfigArgs>),
    /// What the engine of --store prometheus refused for good: show it, or send it again.
    Outbox(Box<OutboxArgs>),
}

/// Flags of `lookback import`.
#[derive(Clone, Debug, Args)]
pub struct ImportCommand {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// The file and how it is read.
    #[command(flatten)]
    pub import: ImportArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Cli {
    /// The command that was given; `serve` where none was.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// Flags of `lookback serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// A Prometheus-compatible engine as the store.
    #[command(flatten)]
    pub remote: RemoteStoreArgs,

    /// Where plain HTTP is served: pushes, range reads, health and own metrics. Other addresses than
    /// loopback need --credentials-file or a cluster.
    #[arg(long, value_name = "ADDR:PORT", env = "LOOKBACK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The address on which the Kubernetes APIs are served over TLS.
    #[arg(long, value_name = "ADDR", env = "LOOKBACK_BIND_ADDRESS", default_value = "127.0.0.1")]
    pub bind_address: IpAddr,

    /// The port on which the Kubernetes APIs are served over TLS; 0 turns it off.
    #[arg(long, value_name = "PORT", env = "LOOKBACK_SECURE_PORT", default_value_t = 6443)]
    pub secure_port: u16,

    /// Samples older than this are not served as a latest value [default: 5m].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_FRESHNESS", value_parser = duration)]
    pub freshness: Option<Duration>,

    /// Where a backup goes that is asked for by POST /api/v1/admin/backup.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_BACKUP_DIR")]
    pub backup_dir: Option<PathBuf>,

    /// Most points a series in one range answer [default: 50000].
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_POINTS_MAX", value_parser = count)]
    pub points_max: Option<usize>,

    /// How PromQL is evaluated.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Most questions about history a second of one client, or off [default: 1000].
    #[arg(long, value_name = "COUNT|off", env = "LOOKBACK_CLIENT_REQUESTS_PER_SECOND",
          value_parser = requests_per_second)]
    pub client_requests_per_second: Option<RequestsPerSecond>,

    /// How often it is written down who owns which pods, in a cluster, or off [default: 1m].
    #[arg(long, value_name = "DURATION|off", env = "LOOKBACK_OWNERSHIP_INTERVAL", value_parser = interval)]
    pub ownership_interval: Option<Interval>,

    /// Lookback's own settings, YAML: usage sources and limits.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_SETTINGS")]
    pub settings: Option<PathBuf>,

    /// prometheus-adapter's rules.
    #[command(flatten)]
    pub rules: RulesArgs,

    /// The servers that the rules look in.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,

    /// Who may call, YAML: names, tokens or passwords, rights and namespaces.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_CREDENTIALS_FILE")]
    pub credentials_file: Option<PathBuf>,

    /// The certificate and the callers of the secure port.
    #[command(flatten)]
    pub secure: SecureArgs,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// How TLS is spoken.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Which APIs are served to it.
    #[command(flatten)]
    pub apis: ApisArgs,

    /// Who answers there for metrics that Lookback does not know.
    #[command(flatten)]
    pub delegation: DelegationArgs,

    /// Who is let in there.
    #[command(flatten)]
    pub authentication: AuthenticationArgs,

    /// What is scraped.
    #[command(flatten)]
    pub scrape: ScrapeArgs,

    /// What is asked of kubelets.
    #[command(flatten)]
    pub kubelet: KubeletArgs,

    /// How the cluster's autoscaling is set.
    #[command(flatten)]
    pub autoscaling: AutoscalingArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of the embedded store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where the data is kept; made if it is missing. One process at a time holds it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// How long what is kept.
    #[command(flatten)]
    pub keep: RetentionArgs,

    /// How many series, in how much memory.
    #[command(flatten)]
    pub limits: LimitsArgs,

    /// How much older than its series' newest sample a sample may be.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_OUT_OF_ORDER_WINDOW", default_value = "1h",
          value_parser = duration)]
    pub out_of_order_window: Duration,

    /// What to do with damage.
    #[command(flatten)]
    pub damage: DamageArgs,
}

impl ServeArgs {
    /// Where the Kubernetes APIs are served over TLS; `None`: nowhere.
    #[must_use]
    pub fn secure_listen(&self) -> Option<SocketAddr> {
        (self.secure_port != 0).then(|| SocketAddr::new(self.bind_address, self.secure_port))
    }

    /// The settings that handlers work with: the defaults, changed by the file, changed by flags.
    ///
    /// # Errors
    /// When the file can't be read or says something that it may not.
    pub fn app_settings(&self) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        if let Some(path) = &self.settings {
            settings_file::apply(path, &mut settings)?;
        }
        settings.freshness = self.freshness.unwrap_or(settings.freshness);
        settings.live.unknown_resources_allowed = self.cluster.allow_unknown_resources;
        settings.backup_dir = self.backup_dir.clone();
        settings.points_max = self.points_max.unwrap_or(settings.points_max);
        if let Some(Interval(interval)) = self.ownership_interval {
            settings.ownership_interval = interval;
        }
        settings.metric_resolution = self.kubelet.settings().resolution;
        settings.controller = self.autoscaling.settings();
        settings.query = self.query.settings();
        if let Some(RequestsPerSecond(limit)) = self.client_requests_per_second {
            settings.client_requests_per_second = limit;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
